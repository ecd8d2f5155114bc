"""Every method of `calib` against every calibrator of probmetrics, on stored scores.

    python benchmarks/arena.py --data SHARED/data --csv build/arena/results.csv

Each set gives rows to fit on and rows to judge on: its two files, or five seeded halves of its one
file, stratified by label. Results are added to the CSV as they come, and a run that finds some
there does only what is missing. Two workers do the jobs on a core each; a fit with its prediction
may take 120 seconds, and a method that takes longer is not tried on as much data again. A method
that has used up its budget (`--budget`) gets no further job. What did not end is printed.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import connection
from pathlib import Path

from arena_contenders import BASE, Contender, contenders
from arena_data import experiment_shape, find_sets, open_experiment
from arena_report import (
    by_kind,
    draw,
    draw_kinds,
    overall,
    record,
    report,
    troubles,
    unfinished,
)
from arena_results import CAPPED, Record, append_record, forget
from arena_standings import standings
from arena_workers import Job, Opener, Result, Table, Worker

CAP_SECONDS = 120.0
_NOT_TRIED = "not tried"
RIVAL = "probmetrics:sms"
ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).with_name("RESULTS.md")
PICTURE = "arena.png"

Shapes = Mapping[str, tuple[int, int, int]]
"""Rows to fit on, rows to judge on and classes of each set's experiments."""


class Arena:
    """Jobs to do, and what came of those that are done.

    Parameters
    ----------
    jobs : iterable of Job
    field : mapping of str to Contender
    shapes : mapping
    records : sequence of Record
        Of earlier runs.
    csv : Path
        Where new ones are added.
    budget : float
        Seconds of processor time for each method, those of earlier runs included: a method that
        has used them up gets no further job.
    """

    def __init__(
        self,
        jobs: Iterable[Job],
        field: Mapping[str, Contender],
        shapes: Shapes,
        records: Sequence[Record],
        csv: Path,
        budget: float = math.inf,
    ) -> None:
        known = {one.key for one in records}
        self.jobs = deque(job for job in jobs if (job.set, job.split, job.method) not in known)
        self._field, self._shapes, self._csv = field, shapes, csv
        self.records = list(records)
        self._budget = budget
        self._spent: Counter[str] = Counter()
        for one in records:
            self._spent[one.method] += _seconds(one)
        self._versions = {name: _version(name) for name in {c.library for c in field.values()}}

    def play(self, workers: Sequence[Worker], seconds: float) -> None:
        """Give jobs to the workers for some time, then wait for those that are under way."""
        end = time.monotonic() + seconds
        told = time.monotonic()
        while True:
            for worker in workers:
                if worker.job is None and time.monotonic() < end and (job := self._next()):
                    worker.give(job)
            busy = [worker for worker in workers if worker.job is not None]
            if not busy:
                return
            connection.wait([worker.pipe for worker in busy], timeout=0.5)
            for worker in busy:
                job = worker.job
                if job is not None and (result := worker.result()) is not None:
                    self._add(job, result)
            if time.monotonic() > told + 60:
                told = time.monotonic()
                print(f"{len(self.jobs)} jobs to do", file=sys.stderr, flush=True)

    def _next(self) -> Job | None:
        """The next job that is worth a try; those that are not get their record here."""
        while self.jobs:
            job = self.jobs.popleft()
            if self._spent[job.method] >= self._budget:
                continue
            before = self._capped_before(job)
            if before is None:
                return job
            note = f"{_NOT_TRIED}: no end on {before.set}"
            self._add(job, {"status": CAPPED, "note": note})
        return None

    def _capped_before(self, job: Job) -> Record | None:
        shape = self._shapes[job.set]
        for one in self.records:
            same = one.method == job.method and one.status == CAPPED
            if same and all(a <= b for a, b in zip(one.shape, shape, strict=True)):
                return one
        return None

    def _add(self, job: Job, result: Result) -> None:
        library = self._field[job.method].library
        fit_rows, test_rows, classes = self._shapes[job.set]
        new = Record(
            set=job.set,
            split=job.split,
            method=job.method,
            library=library,
            version=self._versions[library],
            classes=classes,
            fit_rows=fit_rows,
            test_rows=test_rows,
            **result,
        )
        self.records.append(new)
        self._spent[new.method] += _seconds(new)
        append_record(self._csv, new)


def _seconds(record: Record) -> float:
    """Processor time that a job has cost; one that was stopped has cost all that it may."""
    if record.status == CAPPED:
        return 0.0 if record.note.startswith(_NOT_TRIED) else CAP_SECONDS
    return (record.fit_seconds or 0.0) + (record.predict_seconds or 0.0)


def make_jobs(
    field: Mapping[str, Contender], splits: Mapping[str, int], shapes: Shapes
) -> list[Job]:
    """All jobs: methods of little effort first, then small sets first."""
    rank = {name: shapes[name][2] * sum(shapes[name][:2]) for name in splits}
    jobs = [
        (contender.effort, rank[name], name, split, method)
        for method, contender in field.items()
        for name in splits
        for split in range(splits[name])
        if shapes[name][2] == 2 or not contender.binary_only
    ]
    return [Job(name, split, method) for _, _, name, split, method in sorted(jobs)]


def choose(field: Mapping[str, Contender], names: str) -> set[str]:
    """Methods by name or by library, from a list with spaces (names themselves have commas)."""
    chosen = set()
    for name in names.split():
        found = {method for method, one in field.items() if name in (method, one.library)}
        if not found:
            raise SystemExit(f"there is no method or library {name!r}")
        chosen |= found
    return chosen


def without_missing(field: Mapping[str, Contender]) -> dict[str, Contender]:
    """Those whose imports are there; says which are not."""
    missing = {method: why for method, one in field.items() if (why := _missing(one))}
    for method, why in missing.items():
        print(f"left out: {method}: {why}", file=sys.stderr)
    return {method: one for method, one in field.items() if method not in missing}


def _missing(contender: Contender) -> str:
    try:
        contender.prepare()
    # A peer may fail to start in any way: numba with a cache that a killed process left, say.
    except Exception as error:  # noqa: BLE001
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return ""


def main() -> None:
    """Run what is missing, and print the standings."""
    options = _parse()
    splits, left_out = find_sets(options.data)
    for name, why in left_out.items():
        print(f"left out: {name}: {why}", file=sys.stderr)
    if options.sets:
        splits = {name: splits[name] for name in options.sets.split(",")}
    shapes = {name: experiment_shape(options.data, name) for name in splits}
    records = forget(options.csv, choose(contenders(), options.fresh))
    field = {} if options.report else without_missing(contenders())
    if options.only and field:
        chosen = choose(contenders(), options.only)
        field = {method: one for method, one in field.items() if method in chosen}
    jobs = make_jobs(field, splits, shapes)
    arena = Arena(jobs, field, shapes, records, options.csv, options.budget)
    if arena.jobs:
        run(arena, contenders, partial(open_experiment, options.data), options)
    every_split = {one.set: 0 for one in arena.records}
    every_split.update(find_sets(options.data)[0])
    every_shape = {name: experiment_shape(options.data, name) for name in every_split}
    expected = Counter(job.method for job in make_jobs(contenders(), every_split, every_shape))
    table = standings(arena.records, every_split, RIVAL)
    shown = notable([one.method for one in table])
    print(report(arena.records, every_split, RIVAL))
    print(f"\n{by_kind(arena.records, every_split, shown)}")
    print(f"\n{unfinished(arena.records, expected)}")
    draw(arena.records, every_split, RIVAL, options.csv.with_suffix(".png"))
    draw_kinds(arena.records, every_split, shown, options.csv.with_suffix(".kinds.png"))
    if options.record:
        parts = [
            overall(table, RIVAL),
            by_kind(arena.records, every_split, shown),
            unfinished(arena.records, expected),
            troubles(arena.records),
        ]
        record(RESULTS, "\n\n".join(filter(None, parts)), PICTURE)
        draw(arena.records, every_split, RIVAL, RESULTS.with_name(PICTURE))


def notable(methods: Sequence[str]) -> list[str]:
    """The first of all methods, best first, and those that everybody knows."""
    known = {BASE, "temperature", "svs", "sms", "isotonic", RIVAL, "probmetrics:isotonic"}
    return [method for place, method in enumerate(methods) if place < _SHOWN or method in known]


_SHOWN = 20


def run(arena: Arena, table: Table, opener: Opener, options: argparse.Namespace) -> None:
    """Play with so many workers."""
    begin = time.monotonic()
    workers = [Worker(table, opener, CAP_SECONDS) for _ in range(options.workers)]
    try:
        arena.play(workers, 60 * options.minutes)
    finally:
        for worker in workers:
            worker.close()
    minutes = (time.monotonic() - begin) / 60
    statuses = Counter(one.status for one in arena.records)
    print(f"{minutes:.1f} minutes; {dict(statuses)}; {len(arena.jobs)} to do", file=sys.stderr)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    shared = Path(os.environ.get("CALIB_SHARED", ROOT.parent / "shared"))
    add = parser.add_argument
    add("--data", type=Path, default=shared / "data", help="folder of the sets")
    add("--csv", type=Path, default=ROOT / "build" / "arena" / "results.csv")
    add("--only", default="", metavar="NAMES", help='methods or libraries: "svs monotone,svs"')
    add("--fresh", default="", metavar="NAMES", help="forget earlier results of these")
    add("--sets", default="", metavar="NAME[,NAME]", help="only these sets")
    add("--minutes", type=float, default=60.0, help="give out no jobs after so long")
    add("--budget", type=float, default=600.0, help="seconds of processor time for each method")
    add("--workers", type=int, default=2)
    add("--report", action="store_true", help="run nothing, print what there is")
    add("--record", action="store_true", help="write RESULTS.md, too")
    return parser.parse_args()


def _version(library: str) -> str:
    if library == "calib":
        from calibcli.version import __version__

        return __version__
    try:
        return version(library) if library else ""
    except PackageNotFoundError:
        return ""


if __name__ == "__main__":
    main()
