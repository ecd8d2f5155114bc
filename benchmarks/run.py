"""Measure `calib` against its peers: ``make bench``, or ``python benchmarks/run.py --only NAME``.

Prints a table and writes ``build/bench/results.json``. Every time is a median, but of calls of a
service the least, as by `timeit`; every ratio is of times taken in turns in one run. ``--record``
also writes ``benchmarks/RESULTS.md``: what was measured now, and what ``results.json`` has of the
same code on the same machine.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import evaluation
import large_file
import large_vocabulary
import many_classes
import objectives
import report
import serving
import startup
import strong_methods
import temperature
import training_speed
import whole_process
from harness import Line

BENCHMARKS = {
    "startup": startup.benchmark,
    "serving": serving.benchmark,
    "temperature": temperature.benchmark,
    "evaluate": evaluation.benchmark,
    "objectives": objectives.benchmark,
    "training": training_speed.benchmark,
    "process": whole_process.benchmark,
    "large-file": large_file.benchmark,
    "vocabulary": large_vocabulary.benchmark,
    "classes": many_classes.benchmark,
    "strong": strong_methods.benchmark,
}
ROOT = Path(__file__).parent.parent
_BUSY = 0.5
RESULTS = Path(__file__).with_name("RESULTS.md")


def main() -> None:
    """Run the selected benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--only", metavar="NAME[,NAME]", help=f"some of: {', '.join(BENCHMARKS)}", default=""
    )
    parser.add_argument("--record", action="store_true", help="write RESULTS.md, too")
    options = parser.parse_args()
    names = options.only.split(",") if options.only else list(BENCHMARKS)
    for name in names:
        if name not in BENCHMARKS:
            parser.error(f"no benchmark is called {name!r}; there are {', '.join(BENCHMARKS)}")
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > _BUSY:
        print(f"this machine is busy (load {load:.1f}): the times will be off", file=sys.stderr)
    path = _build() / "results.json"
    results = measure(names, path)
    lines = [line for name in names for line in results[name]]
    print(report.table(lines))
    print(f"\n{report.summary(lines)}\n{report.machine()}\n{report.versions()}")
    if options.record:
        record(results)
        return
    stale = report.staleness(RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else "")
    if stale:
        print(f"\n{RESULTS.name} {stale}")


def measure(names: list[str], path: Path) -> dict[str, list[Line]]:
    """The lines of some benchmarks, and of others that a file has; each is added there when done.

    Data is made in a folder that is deleted afterwards.
    """
    results = report.read_json(path)
    for name in names:
        begin = time.perf_counter()
        with tempfile.TemporaryDirectory(dir=_build()) as folder:
            results[name] = BENCHMARKS[name](Path(folder))
        report.write_json(path, results)
        print(f"{name}: done in {time.perf_counter() - begin:.0f} s", file=sys.stderr)
    return results


def _build() -> Path:
    folder = ROOT / "build" / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def record(results: dict[str, list[Line]]) -> None:
    """Write the results where readers of the repository find them, and keep later sections."""
    lines = [line for name in BENCHMARKS for line in results.get(name, ())]
    missing = ", ".join(name for name in BENCHMARKS if name not in results)
    without = f"Not measured on this code: {missing}. " if missing else ""
    old = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else ""
    later = "".join(old.partition("\n## ")[1:])
    text = f"""# What `make bench` measured

{report.machine()}; {report.versions()}.
Code: {report.code()}

{report.table(lines)}

{report.summary(lines)}.

{without}Times are medians, and peers take turns with `calib` in one run, each in a process of
its own. The labels are drawn from a known tempered softmax ([data.py](data.py)). "Δ log T, exact"
is the distance of the fitted log-temperature from the optimum computed in float64, and the notes
give the same of the peers. `python benchmarks/run.py --record` writes this file.
"""
    RESULTS.write_text(text + later, encoding="utf-8")


if __name__ == "__main__":
    main()
