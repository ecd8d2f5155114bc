"""Bytes, passes, seconds and dollars of a cluster: a sum on paper, and the task graph simulated.

    python benchmarks/cluster_arithmetic.py

The simulation runs the code that hands pieces to workers (`calibcli.engine.workers.Workers`), with
workers that do nothing but move a clock: a piece takes the time of its bytes from the store, unless
its worker holds its rows, and the time of its scores on one core.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from calibcli.engine.engine import Engine
from calibcli.engine.workers import Workers

GB = 1e9


@dataclass(frozen=True)
class Machine:
    """What a worker is; the default is about an m6i.xlarge of AWS in us-east-1.

    Attributes
    ----------
    cores : int
    held : float
        Bytes of decoded rows that it keeps: a quarter of its memory (half of half of what is free).
    network : float
        Bytes a second from the object store, sustained.
    price : float
        Dollars an hour.
    """

    cores: int = 4
    held: float = 4 * GB
    network: float = 0.195 * GB
    price: float = 0.192


@dataclass(frozen=True)
class Work:
    """A command on some rows.

    Attributes
    ----------
    name : str
    passes : int
        How often all rows are folded over.
    decode, compute : float
        Seconds of a core for a score: to read and decode it, and of the arithmetic of a pass.
    """

    name: str
    passes: int
    decode: float = 2e-9
    compute: float = 5e-9


@dataclass(frozen=True)
class Rows:
    """What is read: float16 scores."""

    rows: int = 300_000_000
    classes: int = 1000

    @property
    def scores(self) -> int:
        """How many scores there are."""
        return self.rows * self.classes

    @property
    def bytes(self) -> int:
        """Their bytes, stored and held."""
        return 2 * self.scores


@dataclass(frozen=True)
class Cost:
    """What a command takes on a cluster.

    Attributes
    ----------
    read : float
        Bytes from the object store, all passes together.
    seconds : float
    dollars : float
        Of the machines.
    """

    read: float
    seconds: float
    dollars: float


REQUEST_BYTES, REQUEST_DOLLARS = 4 << 20, 0.0004 / 1000
"""What is asked for at a time, and its price."""


def dollars(machine: Machine, workers: int, seconds: float, read: float) -> float:
    """The price of machines and of requests."""
    return workers * machine.price * seconds / 3600 + read / REQUEST_BYTES * REQUEST_DOLLARS


def on_paper(rows: Rows, work: Work, machine: Machine, workers: int) -> Cost:
    """The first pass reads all; each later one what the workers cannot hold.

    A core reads a piece with its share of the network, and then computes.
    """
    held = min(rows.bytes, workers * machine.held)
    seconds = read = 0.0
    for number in range(work.passes):
        fetched = rows.bytes - (held if number else 0)
        decoded = fetched / 2 * work.decode
        computed = rows.scores * work.compute
        seconds += (decoded + computed) / (workers * machine.cores)
        seconds += fetched / (workers * machine.network)
        read += fetched
    return Cost(read, seconds, dollars(machine, workers, seconds, read))


@dataclass
class SimulatedWorkers(Workers):
    """Workers whose time passes without anything being done."""

    name = "simulated"
    form = "simulated:N"

    machine: Machine = field(default_factory=Machine)
    clock: float = 0.0
    read: float = 0.0

    def __post_init__(self) -> None:
        self._free = [0.0] * self.slots
        self._held: list[set[int]] = [set() for _ in range(self.workers)]
        self._used = [0] * self.workers

    @property
    def workers(self) -> int:
        """How many machines there are."""
        return int(self.place)

    @property
    def slots(self) -> int:
        return self.workers * self.machine.cores

    def submit(self, slot: int, task: Callable[[], Any]) -> float:
        """The time at which pieces are done: after what the core has to do before."""
        worker = slot % self.workers  # neighbouring slots are of different workers, as on Dask
        share = self.machine.network / self.machine.cores
        now = max(self.clock, self._free[slot])
        for number, size, decode, compute in task():
            if number not in self._held[worker]:
                self.read += size
                now += size / share + decode
                if self._used[worker] + size <= self.machine.held:
                    self._held[worker].add(number)
                    self._used[worker] += size
            now += compute
        self._free[slot] = now
        return now

    def result(self, begun: float) -> list[None]:
        self.clock = max(self.clock, begun)
        return []

    def cancel(self, begun: Any) -> None:
        pass

    def forget(self, job: str) -> None:
        pass


def _piece(number: int, scores: int, work: Work) -> tuple[int, int, float, float]:
    return number, 2 * scores, scores * work.decode, scores * work.compute


def simulated(rows: Rows, work: Work, machine: Machine, workers: int) -> Cost:
    """The same by the task graph."""
    cluster = SimulatedWorkers(str(workers), machine=machine)
    size = Engine().segment_rows(rows.classes)
    counts = [min(size, rows.rows - begin) for begin in range(0, rows.rows, size)]
    tasks = [
        partial(_piece, number, count * rows.classes, work) for number, count in enumerate(counts)
    ]
    seconds, read = [0.0], [0.0]
    # Each later pass finds the rows held that the second one finds.
    for _ in range(2):
        for _ in cluster.map(tasks, cluster.together(len(tasks))):
            pass
        seconds.append(cluster.clock - sum(seconds))
        read.append(cluster.read - sum(read))
    later = work.passes - 1
    total, all_read = seconds[1] + later * seconds[2], read[1] + later * read[2]
    return Cost(all_read, total, dollars(machine, workers, total, all_read))


WORKS = (
    Work("apply -o out/", 1, compute=30e-9),
    Work("evaluate", 2, compute=30e-9),
    Work("fit -m temperature --test FILE", 15),
    Work("fit -m temperature", 59),
)
"""Passes as the command has them: cross-fitting folds the rows for each of five fits again."""


def table(rows: Rows, works: Sequence[Work], machine: Machine, counts: Sequence[int]) -> list[str]:
    """The page's table."""
    lines = [
        "| command | passes | workers | read | minutes on paper | simulated | dollars |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for work in works:
        for workers in counts:
            paper = on_paper(rows, work, machine, workers)
            run = simulated(rows, work, machine, workers)
            lines.append(
                f"| `{work.name}` | {work.passes} | {workers} | {run.read / 1e12:.1f} TB "
                f"| {paper.seconds / 60:,.1f} | {run.seconds / 60:,.1f} | {run.dollars:,.2f} |"
            )
    return lines


if __name__ == "__main__":
    sys.stdout.write("\n".join(table(Rows(), WORKS, Machine(), (10, 50, 200))) + "\n")
