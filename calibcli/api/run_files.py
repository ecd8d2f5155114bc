"""Runs that ``calib evaluate --append`` has written, and a metric over them."""

from __future__ import annotations

from pathlib import Path

from calibcli.errors import RunsError
from calibcli.small_files import read_small
from calibcli.workflow.runs import History, read_history


def load_history(path: str | Path) -> list[History]:
    """The runs in a file of ``calib evaluate --append``, by input and positive class.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    list of History
        In the order in which their first runs stand in the file.

    Raises
    ------
    RunsError
        The file cannot be read or has no runs, or a line is none; the message has its number.
    UsageError
        It is larger than any such file.

    Examples
    --------
    >>> from calibcli import load_history
    >>> (fraud,) = load_history("runs.jsonl")  # doctest: +SKIP
    >>> fraud.trend("ece").slope  # doctest: +SKIP
    Estimate(value=0.01524, low=0.0092, high=0.0213)
    """
    try:
        content = read_small(path)
    except OSError as error:
        raise RunsError(f"{path}: {error.strerror}") from None
    histories = read_history(content, str(path))
    if not histories:
        raise RunsError(f"{path}: has no runs; calib evaluate --append {path} writes them")
    return histories
