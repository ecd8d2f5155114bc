"""Printing: results to stdout, talk to stderr, progress where somebody watches."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TextIO

from calibcli.cli.shared_options import OutputOptions, ReportOptions
from calibcli.visible import visible

if TYPE_CHECKING:
    from calibcli.engine.engine import Engine
    from calibcli.schema.documents import Document
    from calibcli.workflow.trying import Tried

_PATIENCE = 0.5
"""Seconds after which work counts as long."""


def show(
    document: Document,
    output: OutputOptions | ReportOptions,
    *,
    stdout_taken: bool = False,
) -> None:
    """Print a result document; where stdout carries data it is talk, and goes to stderr."""
    if stdout_taken and output.quiet:
        return
    stream = sys.stderr if stdout_taken else sys.stdout
    kind = output.format.value
    if kind == "table":
        from rich.console import Console

        from calibcli.report.render_terminal import print_document

        print_document(document, Console(file=stream, highlight=False))
        return
    from calibcli.report.formats import PAGES, RENDERERS

    text = RENDERERS[kind](document)
    if kind in PAGES:
        # A page shows these everywhere, a stream that is not UTF-8 included.
        text = text.encode(stream.encoding, "xmlcharrefreplace").decode(stream.encoding)
    stream.write(text)


def tell(line: str) -> None:
    """Write a line to stderr, whatever names and values of a file are in it."""
    command_runner(visible(line))


def command_runner(line: str) -> None:
    """Write a line to stderr as it is, as a command to GitHub's runner has to be.

    That nobody reads it any more does not change what is done.
    """
    try:
        sys.stderr.write(f"{line}\n")
    except OSError:
        forget(sys.stderr)


def forget(stream: TextIO) -> None:
    """Let what is left to write go nowhere: Python flushes once more on the way out."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@dataclass
class Talk:
    """What is said on the way, on stderr."""

    quiet: bool
    _picked: dict[str, str] = field(default_factory=dict)

    def picked(self, name: str, picked: Mapping[str, str]) -> None:
        """Say what was picked in a data set, but for what is the same as in the one before."""
        for what, text in picked.items():
            if self._picked.get(what) != text:
                self.say(f"{name}: {what} {text}")
        for what in sorted(self._picked.keys() - picked.keys()):
            self.say(f"{name}: no {what}")
        self._picked = dict(picked)

    def say(self, text: str) -> None:
        """A line, unless nothing is to be said."""
        if not self.quiet:
            tell(f"calib: {text}")

    def tried(self, candidate: Tried) -> None:
        """Say that a candidate of a comparison is done."""
        self.say(str(candidate))

    def wrote(self, names: Sequence[str]) -> None:
        """Say which files are there, if there are any."""
        if names:
            self.say(f"wrote {', '.join(names)}")

    @contextmanager
    def progress(self, engine: Engine, doing: str, rows: int) -> Iterator[Engine]:
        """The same engine, showing how far it is, if somebody watches and it takes long.

        Its workers give back what they keep at the end.
        """
        try:
            with self._shown_progress(engine, doing, rows) as watched:
                yield watched
        finally:
            engine.release()

    @contextmanager
    def _shown_progress(self, engine: Engine, doing: str, rows: int) -> Iterator[Engine]:
        if self.quiet or not _is_watched():
            yield engine
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("pass {task.fields[number]}"),
            TimeElapsedColumn(),
        )
        bar = Progress(*columns, console=Console(stderr=True), transient=True)
        task = bar.add_task(visible(doing), total=max(rows, 1), number=1)
        begin, done = time.monotonic(), 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            number, within = divmod(max(done - 1, 0), max(rows, 1))
            bar.update(task, completed=within + 1, number=number + 1)
            if time.monotonic() - begin > _PATIENCE and not bar.live.is_started:
                bar.start()

        try:
            yield replace(engine, on_rows=advance)
        finally:
            if bar.live.is_started:
                bar.stop()


def _is_watched() -> bool:
    """Whether stderr is a terminal that can draw, and not the log of a CI system."""
    dumb = os.environ.get("TERM", "") in ("dumb", "unknown")
    return sys.stderr.isatty() and not dumb and not os.environ.get("CI")
