"""Half precision with the vocabulary of a language model, in passes over the array.

    python benchmarks/large_vocabulary.py --tree . --tree ../before

A pass is `numpy` converting the array to float32 and summing it, by blocks of rows, on one core;
`calib fit` reads and checks the file, fits, measures before and after, and writes what is kept of
the probabilities. On a machine that does other things too the seconds of the processor are the
better measure. With several checkouts each of them has its turn in every round.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from data import Size, make_blocks
from harness import Line, Usage, elsewhere, run

SIZE = Size(4000, 128_256)
ROUNDS = 2

_PASSES = 3
_BLOCK_ELEMENTS = 1 << 19
_MEGABYTE = 1e6


@dataclass(frozen=True)
class Case:
    """A fit, and how many passes it may take.

    Attributes
    ----------
    method, memory : str
        Of ``-m`` and ``--memory``; no memory: the default.
    passes : float or None
        The goal, by the clock.
    megabytes : float or None
        The goal for the peak memory; None: 1.5 times the file.
    """

    method: str
    memory: str = ""
    passes: float | None = None
    megabytes: float | None = None

    def __str__(self) -> str:
        """The options, as on the command line."""
        return f"-m {self.method}" + (f" --memory {self.memory}" if self.memory else "")


CASES = (
    Case("temperature", passes=6),
    Case("temperature", "256M", megabytes=700),
    Case("monotone", passes=20),
    Case("monotone", "256M", megabytes=700),
    Case("gap-temperature"),
)


def write_halves(path: Path, size: Size) -> None:
    """An uncompressed NPZ file of logits, float16, and labels."""
    logits, labels = np.empty((size.rows, size.classes), np.float16), []
    end = 0
    for block, block_labels in make_blocks(size):
        begin, end = end, end + len(block)
        logits[begin:end] = block
        labels.append(block_labels)
    np.savez(path, logits=logits, labels=np.concatenate(labels))


def one_pass(path: Path) -> tuple[float, float]:
    """The least seconds of a pass, by the clock and of the processor, over an array in memory."""
    with np.load(path) as file:
        array = file["logits"]
    rows = max(_BLOCK_ELEMENTS // array.shape[1], 1)
    times = []
    for _ in range(_PASSES):
        clock, processor = time.perf_counter(), time.process_time()
        for begin in range(0, len(array), rows):
            array[begin : begin + rows].astype(np.float32).sum()
        times.append((time.perf_counter() - clock, time.process_time() - processor))
    clocks, processors = zip(*times, strict=True)
    return min(clocks), min(processors)


def command(tree: Path | None, case: Case, data: Path) -> list[str]:
    """`calib fit` of a checkout, or as installed."""
    # Not of the folder that this is started in.
    find = f"import sys; sys.path[:1] = {[str(tree)] if tree else []}; "
    start = [sys.executable, "-c", f"{find}from calibcli.cli import main; main()"]
    files = ["-p", str(data.with_suffix(".json")), "-o", str(data.with_suffix(".parquet"))]
    memory = ["--memory", case.memory] if case.memory else []
    kept = ["--keep", "confidence", "--force", "-q"]
    return [*start, "fit", str(data), "-m", case.method, *files, *memory, *kept]


def benchmark(folder: Path, size: Size = SIZE) -> list[Line]:
    """Every case of this installation."""
    return measured(folder, size, CASES, [None])


def measured(
    folder: Path, size: Size, cases: Sequence[Case], trees: Sequence[Path | None]
) -> list[Line]:
    """Lines of every case in every checkout, the least of some rounds in turns."""
    data = folder / "halves.npz"
    if not data.exists():
        elsewhere(write_halves, data, size)
    megabytes = data.stat().st_size / _MEGABYTE
    lines = []
    for case in cases:
        passes: list[tuple[float, float]] = []
        usages: dict[Path | None, list[Usage]] = {tree: [] for tree in trees}
        for _ in range(ROUNDS):
            passes.append(elsewhere(one_pass, data))
            for tree in trees:
                usages[tree].append(run(command(tree, case, data)))
        clock, processor = (min(each) for each in zip(*passes, strict=True))
        for tree, each in usages.items():
            place = f"{case}, {size} float16" + (f", {tree}" if tree else "")
            lines += _lines(place, case, each, clock, processor, megabytes)
    return lines


def _lines(
    place: str, case: Case, usages: Sequence[Usage], clock: float, processor: float, size: float
) -> list[Line]:
    name = "vocabulary"
    seconds, taken = (min(getattr(u, key) for u in usages) for key in ("seconds", "processor"))
    peak = max(usage.peak_bytes for usage in usages) / _MEGABYTE
    most = 1.5 * size if case.megabytes is None else case.megabytes
    return [
        Line(name, place, "time, one pass", seconds, clock, at_most=case.passes),
        Line(name, place, "time of processors, one pass", taken, processor),
        Line(name, place, "peak memory", peak, unit="MB", at_most=most),
    ]


def main() -> None:
    """Measure what is asked for, and print the table."""
    import report

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=SIZE.rows)
    parser.add_argument("--classes", type=int, default=SIZE.classes)
    parser.add_argument("--method", action="append", help="of some methods only")
    parser.add_argument("--tree", type=Path, action="append", help="checkouts to set side by side")
    parser.add_argument("--data", type=Path, help="a folder for the data, kept")
    chosen = parser.parse_args()
    cases = [case for case in CASES if not chosen.method or case.method in chosen.method]
    size = Size(chosen.rows, chosen.classes)
    with tempfile.TemporaryDirectory(prefix="calib-") as temporary:
        folder = chosen.data or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        trees = [tree.resolve() for tree in chosen.tree] if chosen.tree else [None]
        lines = measured(folder, size, cases, trees)
    print(report.table(lines))
    print(f"\n{report.summary(lines)}\n{report.machine()}\n{report.versions()}")


if __name__ == "__main__":
    main()
