"""The options ``--append``, ``--log`` and ``--run``: a run is kept beside earlier ones."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from calibcli.cli.option_values import Trait
from calibcli.cli.shared_options import options_in
from calibcli.errors import CalibError, GateError, UsageError

if TYPE_CHECKING:
    from calibcli.schema.documents import Judged
    from calibcli.tables import Outputs

_option = options_in("Runs")

_MLFLOW = "mlflow:"
_EPOCH_VARIABLE = "SOURCE_DATE_EPOCH"
"""Seconds since 1970 that builds take for the time, so that they can be repeated."""


@dataclass(frozen=True)
class RecordOptions:
    """Where a run is kept beside earlier ones."""

    append: Annotated[
        str | None,
        _option(
            metavar="RUNS.jsonl",
            help="Append a line with metrics and intervals, for calib history.",
            show_default=False,
        ),
        Trait.WRITES_FILE,
    ] = None
    log: Annotated[
        str | None,
        _option(
            metavar="mlflow:URI",
            help="Log metrics, intervals and files to MLflow, once all files are written.",
            show_default=False,
        ),
        Trait.NEEDS_TRUST,
    ] = None
    run: Annotated[
        str | None,
        _option(
            metavar="NAME",
            help="What the run is called in --append and --log: a commit, a date, a version.",
            show_default=False,
        ),
    ] = None


class Records:
    """Where the run of a command is kept.

    Parameters
    ----------
    options : RecordOptions

    Raises
    ------
    UsageError
        A file that could not be written at the end, or options that say nothing together.
    RunsError
        The file exists, and is none of runs.
    """

    def __init__(self, options: RecordOptions) -> None:
        self._options = options
        path, log = options.append, options.log
        if options.run is not None and path is None and log is None:
            raise UsageError("--run names a run of --append or --log, and there is neither")
        if log is not None:
            _check_tracker(log)
        if path is not None:
            from calibcli.tables.atomic import check_appendable

            check_appendable(path)
            _check_runs(path)

    @property
    def paths(self) -> list[tuple[str, str]]:
        """The file that is asked for, with the option that names it."""
        return [] if self._options.append is None else [("--append", self._options.append)]

    def write(self, document: Judged, outputs: Outputs, params: str | None) -> list[str]:
        """Append what was asked for, and return the names of the files."""
        path = self._options.append
        if path is None:
            return []
        from calibcli.report.run_history import run_lines

        digest, name = _digest(params), self._options.run
        lines = run_lines(document, name=name, time=_time(), params_sha256=digest)
        outputs.append(path, lines)
        return [path]

    @contextmanager
    def logged(
        self, document: Judged, written: Sequence[str], params: str | None
    ) -> Iterator[None]:
        """Log to the tracker, if one is asked for; what happens within the context comes after it.

        Parameters
        ----------
        document : dict
        written : sequence of str
            Files of the command, which are there by now.
        params : str or None
            The parameter file.

        Raises
        ------
        CalibError
            At the end, if it could not be logged; the message says that the files are there, and
            which gates have failed.
        """
        problem = self._log(document, written, params)
        try:
            yield
        except GateError as error:
            if problem:
                raise CalibError(f"{problem}; {error}") from None
            raise
        if problem:
            raise CalibError(problem)

    def _log(self, document: Judged, written: Sequence[str], params: str | None) -> str:
        """Log, and return what was wrong."""
        target = self._options.log
        if target is None:
            return ""
        from calibcli.report.mlflow_run import log_to_mlflow

        files = [path for path in written if path not in ("-", self._options.append)]
        files += [params] if params is not None and Path(params).is_file() else []
        try:
            log_to_mlflow(
                target.removeprefix(_MLFLOW),
                document,
                name=self._options.run,
                params_sha256=_digest(params),
                files=files,
            )
        except Exception as error:  # noqa: BLE001 (whatever a client and its server think of)
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            there = (
                f"the files were written: {', '.join(written)}" if written else "no file was due"
            )
            return f"--log {_masked(target)}: {_masked(first)}; {there}"
        return ""


def _digest(params: str | None) -> str | None:
    from calibcli.cli.pictures import fingerprint

    prints = [] if params is None else fingerprint(params)
    return str(prints[0]["sha256"]) if prints else None


def _masked(text: str) -> str:
    """A text without the passwords of addresses."""
    return re.sub(r"//[^/@\s]*@", "//...@", text)


def _check_tracker(target: str) -> None:
    from importlib.util import find_spec

    if not target.startswith(_MLFLOW) or target == _MLFLOW:
        raise UsageError(
            f"--log {_masked(target)}: must be mlflow: and the address of a server or a database, "
            "as mlflow:http://127.0.0.1:5000 or mlflow:sqlite:///mlflow.db"
        )
    if find_spec("mlflow") is None:
        raise UsageError("--log mlflow:… needs MLflow: pip install 'calibcli[mlflow]'")


def _check_runs(path: str) -> None:
    from calibcli.small_files import read_small
    from calibcli.workflow.runs import read_history

    if Path(path).exists():
        read_history(read_small(path), path)


def _time() -> str:
    """The time in UTC, to the second."""
    epoch = os.environ.get(_EPOCH_VARIABLE, "")
    moment = datetime.fromtimestamp(int(epoch), UTC) if epoch.isdecimal() else datetime.now(UTC)
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
