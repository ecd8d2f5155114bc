"""Folds by workers give the bytes of folds at home, whatever is lost on the way."""

from __future__ import annotations

import os
import pickle
import signal
import time
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from near_workers import NearWorkers, write_files
from table_files import opened, write_npz, write_parquet

from calibcli.calibrators.registry import MAPS
from calibcli.engine import engine as engine_module
from calibcli.engine import kept_tiles
from calibcli.engine.data import open_data
from calibcli.engine.engine import Engine
from calibcli.engine.kept_tiles import KeptTiles, forget_tiles
from calibcli.engine.source import Chunk
from calibcli.engine.worker_kinds import WORKERS, open_workers
from calibcli.engine.workers import HeldRows, Piece, WorkersError, forget_rows
from calibcli.errors import DataError, UsageError
from calibcli.metrics.panel import Panel
from calibcli.workflow.fitting import fit_and_measure
from calibcli.workflow.plans import make_plan


def suits(method: str, classes: int) -> bool:
    """Whether a method can be tried so; the network would take minutes over so small tiles."""
    return method != "parameterized-temperature" and (classes == 2 or not MAPS[method].binary_only)


@pytest.fixture
def small_tiles(monkeypatch):
    """Many segments of few rows."""
    monkeypatch.setattr(engine_module, "_TILE_ELEMENTS", {"cpu": 64})
    monkeypatch.setattr(engine_module, "_SEGMENT_TILES", 2)


def fitted(path: str, method: str, engine: Engine, folds: int = 2) -> bytes:
    panel = Panel(["nll", "ece"])
    with opened(path) as dataset:
        data = open_data(engine, dataset, folds)
        outcome = fit_and_measure(data, make_plan(method), panel)
    after = sorted(outcome.after.values.items())
    return pickle.dumps((outcome.fit.calibrators, after))


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize(
    ("method", "classes"),
    [(name, classes) for name in MAPS.built_in for classes in (2, 4) if suits(name, classes)],
)
def test_every_method_has_the_bytes_of_one_machine(tmp_path, method, classes) -> None:
    path = write_files(tmp_path / "in", classes)
    # What sorts collects as many scores at a time as there is room for.
    memory = 1 << 20
    there = fitted(path, method, Engine(memory=memory, workers=NearWorkers()))
    assert there == fitted(path, method, Engine(memory=memory))


@pytest.mark.usefixtures("small_tiles")
def test_workers_keep_what_they_prepare_until_the_job_ends(tmp_path, monkeypatch) -> None:
    path, prepared = write_files(tmp_path / "in", 70), []
    method = MAPS["monotone"].prepared

    def counted(self, logits, labels):
        prepared.append(len(logits))
        return method(self, logits, labels)

    monkeypatch.setattr(MAPS["monotone"], "prepared", counted)
    workers = NearWorkers()
    fitted(path, "monotone", Engine(workers=workers))
    # The fits without a fold have the knots of the whole one.
    assert sum(prepared) == 251
    assert [name for name in kept_tiles._OF_WORKER if name[0] == workers.job]
    forget_rows(workers.job)
    assert not [name for name in kept_tiles._OF_WORKER if name[0] == workers.job]


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=4),
    st.integers(1, 50),
    st.sampled_from([None, 3]),
)
@settings(max_examples=40)
def test_parts_are_cut_at_multiples_of_rows(tmp_path_factory, sizes, rows, dropped) -> None:
    folder = tmp_path_factory.mktemp("cut")
    for number, size in enumerate(sizes):
        labels = (np.arange(size) + number) % 4
        scores = np.random.default_rng(number).normal(size=(size, 4)).astype(np.float32)
        write_parquet(folder / str(number), 9 * scores, labels, groups=7)
    kept = [k for n, size in enumerate(sizes) for k in (np.arange(size) + n) % 4 if k != dropped]
    if not kept:
        return
    ignored = {} if dropped is None else {"ignore_label": (str(dropped),)}
    with opened(str(folder), **ignored) as dataset:
        parts = [list(part.chunks(rows)) for part in pickle.loads(pickle.dumps(dataset.cut(rows)))]  # noqa: S301
    counts = [sum(map(len, part)) for part in parts]
    assert counts == [min(rows, len(kept) - i) for i in range(0, len(kept), rows)]
    labels = np.concatenate([chunk.labels for part in parts for chunk in part])
    assert labels.tolist() == [int(k) for k in kept]
    starts = [chunk.start for part in parts for chunk in part]
    assert all(a < b for a, b in pairwise(starts))
    assert [part[0].start for part in parts] == list(range(0, len(kept), rows))


def test_a_wrong_row_is_named_as_at_home(tmp_path) -> None:
    scores = np.zeros((50, 3), np.float32)
    scores[41, 1] = np.nan
    path = write_npz(tmp_path / "in", scores, np.zeros(50, np.int64))
    lines = []
    for engine in (Engine(memory=1), Engine(memory=1, workers=NearWorkers())):
        with opened(path) as dataset, pytest.raises(DataError, match="row 41") as caught:
            open_data(engine, dataset)
        lines.append(str(caught.value))
    assert lines[0] == lines[1]


def test_progress_counts_all_rows_once_a_pass(tmp_path) -> None:
    seen: list[int] = []
    with opened(write_files(tmp_path / "in")) as dataset:
        open_data(Engine(memory=1, workers=NearWorkers(), on_rows=seen.append), dataset)
        assert sum(seen) == dataset.rows


# What a worker keeps


@dataclass(frozen=True)
class Counted:
    """A partition that says how often it was read."""

    reads: list[int]
    rows: int = 10

    def chunks(self, rows: int):
        self.reads.append(rows)
        yield Chunk(0, np.zeros((self.rows, 4)))


def test_rows_are_read_once_as_far_as_there_is_room() -> None:
    held, reads = HeldRows(), [[], []]
    pieces = [Piece(("job", i), 10, Counted(reads[i])) for i in range(2)]
    for _ in range(3):
        for piece in pieces:
            assert len(held.of(piece, 500)) == 10  # 320 bytes each
    assert [len(each) for each in reads] == [1, 3]
    held.forget("job")
    held.of(pieces[1], 500)
    held.of(pieces[1], 500)
    assert len(reads[1]) == 4


def test_rows_of_a_job_long_idle_make_room(monkeypatch) -> None:
    held, reads, now = HeldRows(), [], [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    held.of(Piece(("old", 0), 10, Counted([])), 500)
    new = Piece(("new", 0), 10, Counted(reads))
    held.of(new, 500)
    now[0] = 100.0
    held.of(new, 500)
    held.of(new, 500)
    assert len(reads) == 2


# Processes


def test_processes_have_the_bytes_of_one_machine(tmp_path) -> None:
    path = write_files(tmp_path / "in")
    workers = open_workers("processes:2", threads=1)
    there = fitted(path, "temperature", Engine(workers=workers))
    workers.release()
    assert there == fitted(path, "temperature", Engine())


def die_once(mark: str, _chunk: Chunk) -> int:
    """The process of this worker ends, unless it did so before."""
    try:
        os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return os.getpid()
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def die(_chunk: Chunk) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_process_that_is_killed_is_replaced(tmp_path) -> None:
    with opened(write_files(tmp_path / "in")) as dataset:
        workers = open_workers("processes:1")
        results = list(workers.run(partial(die_once, str(tmp_path / "mark")), dataset, 60))
        assert len(results) == -(-dataset.rows // 60)
        assert len(set(results)) == 1
        with pytest.raises(WorkersError, match="killed 3 times"):
            list(workers.run(die, dataset, 60))


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("four", "is no address of workers; use processes:N, dask:"),
        ("processes:", "is no address"),
        ("processes:none", "give the number of processes"),
        ("processes:0", "give the number of processes"),
        ("slurm:queue", "there is no kind of workers 'slurm'"),
    ],
)
def test_what_is_no_address_is_refused(address, message) -> None:
    with pytest.raises(UsageError, match=message):
        open_workers(address)


def test_kinds_are_named_as_they_are_found() -> None:
    assert {name: kind.name for name, kind in WORKERS.items()} == {name: name for name in WORKERS}


# The command line


@pytest.mark.slow
def test_the_command_writes_the_same_parameters(tmp_path, calib_here) -> None:
    path = write_files(tmp_path / "in")
    assert calib_here("fit", path, "-q", "-p", "here.json")[0] == 0
    workers = ("--workers", "processes:2")
    fit = ("fit", path, "-q", "-p", "there.json", "--force", *workers)
    code, _, err = calib_here(*fit)
    assert (code, err) == (0, "")
    assert (tmp_path / "there.json").read_bytes() == (tmp_path / "here.json").read_bytes()
    assert calib_here("evaluate", path, *workers)[1] == calib_here("evaluate", path)[1]


def test_what_a_worker_keeps_is_kept_though_a_scheduler_sends_it_on() -> None:
    kept = KeptTiles(1 << 20, job="a job")
    try:
        sent = pickle.loads(pickle.dumps(kept))  # noqa: S301
        sent_on = pickle.loads(pickle.dumps(sent))  # noqa: S301
        made = [each.of("key", 0, lambda: np.ones(3)) for each in (sent, sent_on)]
        assert made[0] is made[1]
    finally:
        forget_tiles("a job")
    # Of no job, it is sent without what it keeps.
    alone = KeptTiles(1 << 20)
    alone.of("key", 0, lambda: np.ones(3))
    assert pickle.loads(pickle.dumps(alone)).of("key", 0, lambda: None) is None  # noqa: S301
