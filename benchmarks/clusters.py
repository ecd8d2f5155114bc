"""Two workers against two threads of one machine: seconds, and seconds of processors.

    python benchmarks/clusters.py --rows 2000000 --json build/clusters.jsonl

Needs `pip install 'calibcli[dask,ray]' psutil`. The goal for each line is at most 1.3 times the
time of the threads plus 3 s. On a machine that does other things too the seconds of the processors,
of the command and of all workers together, are the better measure.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[1]
CALIB = [sys.executable, "-m", "calibcli"]
JOBS = {
    "temperature": ("fit", "ROWS", "-m", "temperature", "-p", "OUT.json"),
    "svs": ("fit", "ROWS", "-m", "svs", "-p", "OUT.json"),
    "monotone": ("fit", "ROWS", "-m", "monotone", "-p", "OUT.json"),
    "evaluate": ("evaluate", "ROWS", "--format", "json"),
    "apply": ("apply", "PARAMS", "ROWS", "-o", "OUT/"),
}
PLACES = ("threads", "processes", "dask", "ray")
FACTOR, EXTRA_SECONDS = 1.3, 3.0


@dataclass(frozen=True)
class Run:
    """One command.

    Attributes
    ----------
    job, place : str
    seconds : float
        As a clock has them.
    processor : float
        Seconds of all processors, those of workers included.
    """

    job: str
    place: str
    seconds: float
    processor: float


def write_rows(folder: Path, rows: int, classes: int, files: int = 8) -> None:
    """Scores of a model that is too sure, in several Parquet files."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for number in range(files):
        path = folder / f"{number}.parquet"
        if path.exists():
            continue
        count = rows // files
        labels = rng.integers(0, classes, count)
        scores = rng.standard_normal((count, classes), dtype=np.float32)
        scores[np.arange(count), labels] += 4 * rng.random(count, dtype=np.float32)
        lists = pa.FixedSizeListArray.from_arrays(pa.array(1.5 * scores.ravel()), classes)
        table = pa.table({"logits": lists, "label": labels})
        pq.write_table(table, path, row_group_size=1 << 16, use_dictionary=False)


@contextmanager
def service(*command: str) -> Iterator[subprocess.Popen[str]]:
    """A process with all that it starts, which is ended at the end."""
    started = subprocess.Popen(
        command,
        env=environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield started
    finally:
        for process in tree([started]):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        started.communicate()


def line_with(started: subprocess.Popen[str], words: str) -> str:
    """The first line of what a process says in which some words stand."""
    assert started.stdout is not None
    for line in started.stdout:
        if words in line:
            return line
    raise RuntimeError(f"it ended without {words!r}")


def tree(started: Sequence[subprocess.Popen[str]]) -> list[psutil.Process]:
    """Some processes and all that they have started."""
    processes = []
    for each in started:
        try:
            process = psutil.Process(each.pid)
            processes += [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            continue
    return processes


def processor_seconds(started: Sequence[subprocess.Popen[str]]) -> float:
    """What processes and those that they have started have taken of processors so far."""
    total = 0.0
    for process in tree(started):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


@contextmanager
def place(name: str, workers: int) -> Iterator[tuple[list[str], list[subprocess.Popen[str]]]]:
    """Options of a command that let it compute at a place, and the processes that do so."""
    if name == "threads":
        yield ["--threads", str(workers)], []
    elif name == "processes":
        yield ["--workers", f"processes:{workers}", "--threads", "1"], []
    elif name == "dask":
        dask = (sys.executable, "-m", "distributed.cli.dask_scheduler")
        with service(*dask, "--port", "0", "--no-dashboard", "--host", "127.0.0.1") as head:
            address = line_with(head, "Scheduler at:").split()[-1]
            worker = (sys.executable, "-m", "distributed.cli.dask_worker", address)
            each = ("--nthreads", "1", "--nworkers", str(workers), "--no-dashboard")
            with service(*worker, *each) as pool:
                for _ in range(workers):
                    line_with(pool, "Registered to")
                time.sleep(1)
                yield ["--workers", f"dask:{address}"], [head, pool]
    else:
        ray = (str(Path(sys.executable).with_name("ray")), "start", "--head", "--block")
        options = (f"--num-cpus={workers}", "--port=6399", "--include-dashboard=false")
        with service(*ray, *options) as head:
            line_with(head, "Ray runtime started")
            yield ["--workers", "ray:127.0.0.1:6399"], [head]


def measure(job: str, name: str, rows: Path, workers: int, folder: Path) -> Run:
    """Run a command at a place."""
    params, out = folder / "params.json", folder / "out"
    if job == "apply" and not params.exists():
        fit = [*CALIB, "fit", str(rows), "-q", "--force", "-m", "temperature", "-p", str(params)]
        subprocess.run(fit, check=True, cwd=folder, capture_output=True, env=environment())
    shutil.rmtree(out, ignore_errors=True)
    words = {"ROWS": str(rows), "PARAMS": str(params), "OUT.json": f"{out}.json", "OUT/": f"{out}/"}
    command = [*CALIB, *(words.get(word, word) for word in JOBS[job])]
    command += ["--force"] * (job != "evaluate")
    with place(name, workers) as (options, helpers):
        before, begin = processor_seconds(helpers), time.perf_counter()
        used = children_seconds()
        done = subprocess.run(
            [*command, *options, "-q"],
            check=False,
            cwd=folder,
            capture_output=True,
            text=True,
            env=environment(),
        )
        seconds = time.perf_counter() - begin
        processor = children_seconds() - used + processor_seconds(helpers) - before
    if done.returncode:
        raise RuntimeError(done.stderr)
    return Run(job, name, seconds, processor)


def environment() -> dict[str, str]:
    """That of a command which reads no configuration; Ray asks nobody for a token."""
    ours = {"PYTHONPATH": str(ROOT), "CALIB_CONFIG": "", "RAY_AUTH_MODE": "disabled"}
    return {**os.environ, **ours}


def children_seconds() -> float:
    """Seconds of processors of all processes that have been waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def table(runs: Sequence[Run]) -> str:
    """The runs as Markdown, with what the goal allows."""
    by_key = {(run.job, run.place): run for run in runs}
    lines = ["| | " + " | ".join(PLACES) + " |", "|---|" + "--:|" * len(PLACES)]
    for job in JOBS:
        cells = []
        for name in PLACES:
            run = by_key.get((job, name))
            local = by_key.get((job, "threads"))
            if run is None:
                cells.append("")
                continue
            cell = f"{run.seconds:.1f} s ({run.processor:.1f})"
            if local is not None and name != "threads":
                cell += "" if run.seconds <= FACTOR * local.seconds + EXTRA_SECONDS else " **over**"
            cells.append(cell)
        lines.append(f"| {job} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure what is asked for, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--data", type=Path, help="a folder for the rows, kept")
    parser.add_argument("--json", type=Path, help="a file of runs; those that are there are kept")
    parser.add_argument("--only", default="", help="jobs and places, with commas: svs,threads,dask")
    chosen = parser.parse_args()
    asked = set(filter(None, re.split(r"[,\s]+", chosen.only)))
    runs = []
    if chosen.json and chosen.json.exists():
        runs = [Run(**json.loads(line)) for line in chosen.json.read_text().splitlines()]
    known = {(run.job, run.place) for run in runs}
    with tempfile.TemporaryDirectory(prefix="calib-") as temporary:
        rows = chosen.data or Path(temporary) / "rows"
        write_rows(rows, chosen.rows, chosen.classes)
        for job in [job for job in JOBS if job in asked or not asked & set(JOBS)]:
            for name in [name for name in PLACES if name in asked or not asked & set(PLACES)]:
                if (job, name) in known:
                    continue
                run = measure(job, name, rows, chosen.workers, Path(temporary))
                runs.append(run)
                sys.stderr.write(f"{run}\n")
                if chosen.json:
                    with chosen.json.open("a") as file:
                        file.write(json.dumps(asdict(run)) + "\n")
    sys.stdout.write(table(runs) + "\n")


if __name__ == "__main__":
    main()
