"""The options ``--append`` and ``--run``: a run is kept beside earlier ones."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

from calibcli.cli.option_values import Trait
from calibcli.cli.shared_options import options_in
from calibcli.errors import UsageError

if TYPE_CHECKING:
    from calibcli.schema.documents import Judged
    from calibcli.tables import Outputs

_option = options_in("Runs")

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
    run: Annotated[
        str | None,
        _option(
            metavar="NAME",
            help="What the run is called there: a commit, a date, a version.",
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
        path = options.append
        if path is None:
            if options.run is not None:
                raise UsageError("--run names what --append writes; there is no --append")
            return
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
        from calibcli.cli.pictures import fingerprint
        from calibcli.report.run_history import run_lines

        prints = [] if params is None else fingerprint(params)
        digest = str(prints[0]["sha256"]) if prints else None
        lines = run_lines(document, name=self._options.run, time=_time(), params_sha256=digest)
        outputs.append(path, lines)
        return [path]


def _check_runs(path: str) -> None:
    from pathlib import Path

    from calibcli.small_files import read_small
    from calibcli.workflow.runs import read_history

    if Path(path).exists():
        read_history(read_small(path), path)


def _time() -> str:
    """The time in UTC, to the second."""
    epoch = os.environ.get(_EPOCH_VARIABLE, "")
    moment = datetime.fromtimestamp(int(epoch), UTC) if epoch.isdecimal() else datetime.now(UTC)
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
