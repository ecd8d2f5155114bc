"""Fits on real schedulers and workers, each in a process of its own, have the bytes of here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import distributed
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 300
COMMAND = [sys.executable, "-m", "calibcli"]
DASK = [sys.executable, "-m", "distributed.cli"]


def calib(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CALIB_CONFIG": ""}
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> Path:
    """More rows than a segment has, in files of odd sizes: 18,000 x 600."""
    folder, rng = tmp_path_factory.mktemp("rows"), np.random.default_rng(1)
    for number, size in enumerate((7001, 1, 10_998)):
        labels = rng.integers(0, 600, size)
        scores = rng.normal(size=(size, 600)).astype(np.float32)
        scores[np.arange(size), labels] += 5 * rng.random(size).astype(np.float32)
        lists = pa.FixedSizeListArray.from_arrays(pa.array(scores.ravel()), 600)
        table = pa.table({"logits": lists, "label": labels})
        pq.write_table(table, folder / f"{number}.parquet", row_group_size=3000)
    return folder


@contextmanager
def process(*command: str, cwd: Path | None = None) -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CALIB_CONFIG": ""}
    started = subprocess.Popen(
        command,
        cwd=cwd,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        yield started
    finally:
        started.kill()
        started.communicate()


def said(started: subprocess.Popen[str], words: str) -> str:
    """The first line of a process in which some words stand."""
    assert started.stdout is not None
    for line in started.stdout:
        if words in line:
            return line
    raise AssertionError(f"it ended without {words!r}")


@contextmanager
def dask_cluster(workers: int) -> Iterator[tuple[str, list[subprocess.Popen[str]]]]:
    """The address of a scheduler, and its processes: the scheduler and then the workers."""
    scheduler = (sys.executable, "-m", "distributed.cli.dask_scheduler", "--port", "0")
    with process(*scheduler, "--no-dashboard", "--host", "127.0.0.1") as head:
        address = said(head, "Scheduler at:").split()[-1]
        worker = (sys.executable, "-m", "distributed.cli.dask_worker", address, "--no-nanny")
        with (
            process(*worker, "--nthreads", "1") as first,
            process(*worker, "--nthreads", "1") as second,
        ):
            chosen = [first, second][:workers]
            yield address, [head, *chosen]


def parameters(folder: Path, rows: Path, method: str, *workers: str) -> bytes:
    """The parameter file of a fit."""
    name = f"{'-'.join(workers).replace('/', '')}.json"
    done = calib(folder, "fit", str(rows), "-q", "-m", method, "-p", name, "--force", *workers)
    assert done.returncode == 0, done.stderr
    return (folder / name).read_bytes()


@pytest.mark.parametrize("method", ["temperature", "svs"])
def test_dask_has_the_bytes_of_one_machine(tmp_path, rows, method) -> None:
    with dask_cluster(2) as (address, _):
        there = parameters(tmp_path, rows, method, "--workers", f"dask:{address}")
    assert there == parameters(tmp_path, rows, method)


@contextmanager
def fit_begun(folder: Path, rows: Path, address: str) -> Iterator[subprocess.Popen[str]]:
    """A fit on a Dask cluster that has opened its files."""
    arguments = ("fit", str(rows), "-m", "svs", "-p", "p.json", "--workers", f"dask:{address}")
    with process(*COMMAND, *arguments, cwd=folder) as fit:
        said(fit, "input ")
        time.sleep(1)
        assert fit.poll() is None
        yield fit


def test_a_dask_worker_that_is_killed_changes_nothing(tmp_path, rows) -> None:
    with dask_cluster(2) as (address, (_, _, second)), fit_begun(tmp_path, rows, address) as fit:
        second.send_signal(signal.SIGKILL)
        said(fit, "fitted")
        assert fit.wait(PATIENCE) == 0
    assert (tmp_path / "p.json").read_bytes() == parameters(tmp_path, rows, "svs")


def test_a_dask_scheduler_that_is_lost_is_one_line(tmp_path, rows) -> None:
    with dask_cluster(2) as (address, (head, *_)), fit_begun(tmp_path, rows, address) as fit:
        head.send_signal(signal.SIGKILL)
        assert said(fit, "calib: --workers").startswith(f"calib: --workers dask:{address}: ")
        assert fit.wait(PATIENCE) == 2
    assert not (tmp_path / "p.json").exists()


def test_nobody_who_answers_is_one_line(tmp_path, rows) -> None:
    done = calib(tmp_path, "evaluate", str(rows), "--workers", "dask:tcp://127.0.0.1:9")
    assert done.returncode == 2
    assert "no scheduler answers" in done.stderr
    assert done.stderr.count("--workers dask:tcp://127.0.0.1:9: no scheduler") == 1
    assert "Traceback" not in done.stderr


def test_ray_has_the_bytes_of_one_machine(tmp_path, rows) -> None:
    there = parameters(tmp_path, rows, "temperature", "--workers", "ray:local")
    assert there == parameters(tmp_path, rows, "temperature")


def test_the_libraries_are_those_that_were_meant() -> None:
    assert distributed.__version__
    assert ray.__version__
