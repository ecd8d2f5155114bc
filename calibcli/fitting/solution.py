"""What a solver returns: an answer with its certificate."""

from __future__ import annotations

from dataclasses import dataclass

from calibcli.arrays import NumpyArray


@dataclass(frozen=True)
class Solution:
    """Parameters and how far they can be believed.

    Attributes
    ----------
    theta : float64 array (P,)
    value : float
        The objective there, penalty included.
    gradient_norm : float
        Largest absolute component of the gradient there.
    converged : bool
    criterion : str
        What ended the search, in words.
    iterations : int
    """

    theta: NumpyArray
    value: float
    gradient_norm: float
    converged: bool
    criterion: str
    iterations: int
