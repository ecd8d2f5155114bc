"""How things are timed: contenders in turns, each in a process of its own, and whole processes."""

from __future__ import annotations

import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

Prepare = Callable[[Path], Callable[[], Any]]
"""Gets the folder of the data and returns what is to be timed; a function of a module."""

_SPAWN = multiprocessing.get_context("spawn")
_WARM_UP_SECONDS = 1.0


@dataclass(frozen=True)
class Line:
    """One line of the table.

    Attributes
    ----------
    benchmark, case, measure : str
        Of what, on what, and which quantity, against whom.
    ours, theirs : float or None
        In ``unit``; theirs where there is somebody to compare with.
    unit : str
        ``"s"``, ``"MB"`` or nothing.
    at_most : float or None
        The goal: for ours / theirs where there is theirs, else for ours.
    note : str
        What else there is to know, or why there are no figures.
    """

    benchmark: str
    case: str
    measure: str
    ours: float | None = None
    theirs: float | None = None
    unit: str = "s"
    at_most: float | None = None
    note: str = ""

    @property
    def figure(self) -> float | None:
        """What the goal is about."""
        if self.ours is None or self.theirs is None:
            return self.ours
        return self.ours / self.theirs

    @property
    def holds(self) -> bool | None:
        """Whether the goal is reached; None where there is none, or no figure."""
        if self.at_most is None or self.figure is None:
            return None
        return self.figure <= self.at_most


@dataclass
class Timing:
    """What became of a contender.

    Attributes
    ----------
    seconds : list of float
        Of each timed call.
    answer : object
        What the call returned.
    missing : str
        Why it could not take part; empty where it could.
    """

    seconds: list[float]
    answer: Any = None
    missing: str = ""

    @property
    def median(self) -> float:
        """The median time of a call in seconds."""
        if self.missing:
            raise RuntimeError(self.missing)
        return statistics.median(self.seconds)

    @property
    def least(self) -> float:
        """The least time of a call in seconds, which other processes have disturbed the least."""
        if self.missing:
            raise RuntimeError(self.missing)
        return min(self.seconds)


class Contender:
    """A function in a process of its own, so that nobody's settings are another one's luck.

    Allocator, thread pools and imported libraries are per process. The process is idle, waiting on
    a pipe, while others have their turn.
    """

    def __init__(self, prepare: Prepare, folder: Path) -> None:
        self._pipe, end = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_serve, args=(end, prepare, folder), daemon=True)
        self._process.start()
        end.close()
        self.timing = Timing([])
        kind, content = self._receive()
        if kind == "missing":
            self.timing.missing = content
        else:
            self._add(content)

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join()

    def turn(self, seconds: float) -> None:
        """Call the function again and again for some time, at least once."""
        self._pipe.send(seconds)
        self._add(self._receive()[1])

    def _add(self, content: tuple[list[float], Any]) -> None:
        self.timing.seconds += content[0]
        self.timing.answer = content[1]

    def _receive(self) -> tuple[str, Any]:
        try:
            kind, content = self._pipe.recv()
        except EOFError:
            raise RuntimeError("a contender's process ended") from None
        if kind == "failed":
            raise RuntimeError(f"a contender failed:\n{content}")
        return kind, content


def _serve(pipe: Connection, prepare: Prepare, folder: Path) -> None:
    try:
        call = prepare(folder)
        times, answer = _time(call, 0.0)
        # Whoever takes this long has no use for a warm-up.
        pipe.send(("times", (times if times[0] > _WARM_UP_SECONDS else [], answer)))
        while True:
            pipe.send(("times", _time(call, pipe.recv())))
    except ImportError as error:
        pipe.send(("missing", str(error)))
    except EOFError:
        return
    except Exception:  # noqa: BLE001 (the parent raises it)
        pipe.send(("failed", traceback.format_exc()))


def _time(call: Callable[[], Any], seconds: float) -> tuple[list[float], Any]:
    times: list[float] = []
    answer = None
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        begin = time.perf_counter()
        answer = call()
        times.append(time.perf_counter() - begin)
    return times, answer


def race(
    contenders: Mapping[str, Prepare], folder: Path, rounds: int = 7, patience: float = 20.0
) -> dict[str, Timing]:
    """Times of several functions, in turns.

    Parameters
    ----------
    contenders : mapping of str to Prepare
    folder : Path
        Of the data.
    rounds : int
        Turns of each.
    patience : float
        Seconds after which a contender gets no more turns, once it has had one.
    """
    with ExitStack() as stack:
        entered = {
            name: stack.enter_context(closing(Contender(prepare, folder)))
            for name, prepare in contenders.items()
        }
        for _ in range(rounds):
            for contender in entered.values():
                times = contender.timing.seconds
                tired = bool(times) and sum(times) + times[-1] > patience
                if not contender.timing.missing and not tired:
                    contender.turn(0.25)
        return {name: contender.timing for name, contender in entered.items()}


def elsewhere(function: Callable[..., Any], *arguments: Any) -> Any:
    """``function(*arguments)`` in a process of its own, whose memory is free afterwards."""
    with _SPAWN.Pool(1) as pool:
        return pool.apply(function, arguments)


@dataclass(frozen=True)
class Usage:
    """What a process took.

    Attributes
    ----------
    seconds : float
        By the clock.
    peak_bytes : int
    processor : float
        Seconds of processors.
    """

    seconds: float
    peak_bytes: int
    processor: float = 0.0


def run(command: Sequence[str]) -> Usage:
    """Run a command to its end, its output thrown away.

    Raises
    ------
    RuntimeError
        It failed; with what it said on stderr.
    """
    # What others left to be written would be written now, at this one's cost.
    os.sync()
    with tempfile.TemporaryFile() as errors:
        begin = time.perf_counter()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors
        )
        # The resources of this child alone. The peak counts from the fork on, so whoever measures
        # must be small: data are made `elsewhere`.
        _, status, resources = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            said = errors.read().decode(errors="replace").strip()
            raise RuntimeError(f"{' '.join(command)}: exit code {process.returncode}: {said}")
    unit = 1 if sys.platform == "darwin" else 1024
    processor = resources.ru_utime + resources.ru_stime
    return Usage(seconds, resources.ru_maxrss * unit, processor)


def median_run(commands: Mapping[str, Sequence[str]], rounds: int) -> dict[str, Usage]:
    """Median time and largest memory of several commands, in turns."""
    usages: dict[str, list[Usage]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            usages[name].append(run(command))
    return {
        name: Usage(statistics.median(u.seconds for u in found), max(u.peak_bytes for u in found))
        for name, found in usages.items()
    }


def calib(*arguments: object) -> list[str]:
    """The command line of `calib`, as installed next to the running Python."""
    script = Path(sys.executable).with_name("calib")
    start = [str(script)] if script.exists() else [sys.executable, "-m", "calibcli"]
    return [*start, *map(str, arguments)]
