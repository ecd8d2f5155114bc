"""The exceptions that a user may see. Each carries one line: what, where, what to do."""

from __future__ import annotations


class CalibError(Exception):
    """Base of all errors that are the user's to mend; the command line prints one line and exits.

    Parameters
    ----------
    message : str
        One line that says what is wrong, where (file, column, row) and what to do about it.
    """

    exit_code = 2
    page = ""
    """The page of the documentation that goes further, for ``calib docs``."""


class UsageError(CalibError):
    """An option, a name or a combination of them that cannot be used."""


class NoLabelsError(UsageError):
    """Labels are needed and there are none."""


class DataError(CalibError):
    """A data file that cannot be read, or values in it that cannot be used."""

    page = "inputs"


class BaselineError(DataError):
    """A file that cannot be a baseline of gates."""

    page = "ci"


class RunsError(DataError):
    """A file that has no runs as ``calib evaluate --append`` writes them."""

    page = "drift"


class ParamsError(CalibError):
    """A parameter file that is not valid, or does not fit the data."""

    page = "params"


class NotConvergedError(CalibError):
    """A fit that did not converge, under ``--strict``."""

    exit_code = 3
    page = "choosing"


class GateError(CalibError):
    """Gates that failed (``--fail-if``); nothing else ends with this exit code."""

    exit_code = 1
