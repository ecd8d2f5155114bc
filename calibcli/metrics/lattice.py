"""A lattice of probabilities that is fine where little is uncertain."""

from __future__ import annotations

import numpy as np

from calibcli.arrays import Array, NumpyArray, namespace


def lattice_cells(probs: Array, cells: int) -> Array:
    """The cell of each probability (...), from 0 to ``cells - 1``, ascending; on the device.

    Cells are equally wide in the square root of the distance to the nearer end of [0, 1], which
    makes a cell at p about ``4 sqrt(p (1 - p)) / cells`` wide. An isotonic fit on the cells then
    loses next to nothing, wherever the probabilities lie: about ``1.4 p (1 - p) / cells^2`` in the
    Brier score and ``0.7 / cells^2`` nats in NLL.

    Parameters
    ----------
    probs : array (...)
    cells : int
        An even number.
    """
    xp = namespace(probs)
    half = cells // 2
    # Above 1/2 the difference to 1 is exact in floating point; rounding may leave it below 0.
    distance = xp.clip(xp.minimum(probs, 1 - probs), min=0.0)
    place = xp.astype(xp.sqrt(distance * 2) * half, xp.int32)
    place = xp.clip(place, max=half - 1)
    return xp.where(probs > 0.5, cells - 1 - place, place)


def lattice_edges(cells: int) -> NumpyArray:
    """The edges (cells + 1,) of the cells of a lattice, from 0 to 1."""
    half = cells // 2
    lower = (np.arange(half + 1) / half) ** 2 / 2
    return np.append(lower[:-1], 1 - lower[::-1])
