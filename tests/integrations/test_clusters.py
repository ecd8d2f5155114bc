"""Fits on real schedulers and workers, each in a process of its own, have the bytes of here."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import distributed
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 300
# A cluster that a test starts asks nobody for a token.
OURS = {"PYTHONPATH": str(ROOT), "CALIB_CONFIG": "", "RAY_AUTH_MODE": "disabled"}
COMMAND = [sys.executable, "-m", "calibcli"]
DASK = [sys.executable, "-m", "distributed.cli"]


def calib(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **OURS}
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
    environment = {**os.environ, **OURS}
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
def begun(folder: Path, address: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A command on a Dask cluster that has opened its files."""
    with process(*COMMAND, *arguments, "--workers", f"dask:{address}", cwd=folder) as command:
        said(command, "input ")
        time.sleep(1)
        assert command.poll() is None
        yield command


def test_a_dask_worker_that_is_killed_in_a_fit_changes_nothing(tmp_path, rows) -> None:
    fit_begun = ("fit", str(rows), "-m", "svs", "-p", "p.json")
    with (
        dask_cluster(2) as (address, (_, _, second)),
        begun(tmp_path, address, *fit_begun) as fit,
    ):
        second.send_signal(signal.SIGKILL)
        said(fit, "fitted")
        assert fit.wait(PATIENCE) == 0
    assert (tmp_path / "p.json").read_bytes() == parameters(tmp_path, rows, "svs")


def test_a_dask_worker_that_is_killed_in_a_bootstrap_changes_nothing(tmp_path, rows) -> None:
    evaluate = ("evaluate", str(rows), "--format", "json", "--bootstrap", "1000")
    with (
        dask_cluster(2) as (address, (_, _, second)),
        begun(tmp_path, address, *evaluate) as command,
    ):
        second.send_signal(signal.SIGKILL)
        assert command.stdout is not None
        printed = command.stdout.read()
        assert command.wait(PATIENCE) == 0
    here = calib(tmp_path, *evaluate, "-q")
    assert json.loads(printed[printed.index("{\n") :]) == json.loads(here.stdout)


# What workers write


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> tuple[Path, Path, dict[str, bytes]]:
    """Rows of ten parts, a calibrator of them, and the folder that one machine writes."""
    folder, rng = tmp_path_factory.mktemp("many"), np.random.default_rng(2)
    labels = rng.integers(0, 1000, 10_000)
    scores = rng.normal(size=(10_000, 1000)).astype(np.float32)
    scores[np.arange(10_000), labels] += 5 * rng.random(10_000).astype(np.float32)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(scores.ravel()), 1000)
    pq.write_table(pa.table({"logits": lists, "label": labels}), folder / "rows.parquet")
    inputs = folder / "rows"
    inputs.mkdir()
    for number in range(8):
        (inputs / f"{number}.parquet").symlink_to(folder / "rows.parquet")
    fit = ("fit", "rows.parquet", "-q", "-m", "temperature", "-p", "p.json")
    for words in (fit, ("apply", "p.json", "rows", "-o", "here/")):
        done = calib(folder, *words)
        assert done.returncode == 0, done.stderr
    return inputs, folder / "p.json", contents(folder / "here")


def contents(folder: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in folder.iterdir()}


@contextmanager
def apply_begun(folder: Path, many, workers: str) -> Iterator[subprocess.Popen[str]]:
    """An apply that has written its first part."""
    inputs, params, _ = many
    arguments = ("apply", str(params), str(inputs), "-o", "out/", "--workers", workers)
    with process(*COMMAND, *arguments, cwd=folder) as command:
        end = time.monotonic() + PATIENCE
        while not list(folder.glob(".calib-*.tmp/part-*")):
            assert command.poll() is None
            assert time.monotonic() < end
            time.sleep(0.02)
        yield command


def descendants(command: subprocess.Popen[str], words: str) -> list[psutil.Process]:
    """The processes below a command in whose own command line some words stand."""
    below = psutil.Process(command.pid).children(recursive=True)
    return [each for each in below if words in " ".join(each.cmdline())]


def check_written(folder: Path, command: subprocess.Popen[str], many) -> None:
    """An apply has ended well, with what one machine writes and nothing beside it."""
    said(command, "wrote out/ (rows: 80000)")
    assert command.wait(PATIENCE) == 0
    assert contents(folder / "out") == many[2]
    assert sorted(each.name for each in folder.iterdir()) == ["out"]


def test_a_process_that_is_killed_in_an_apply_changes_nothing(tmp_path, many) -> None:
    with apply_begun(tmp_path, many, "processes:2") as command:
        descendants(command, "spawn_main")[0].kill()
        check_written(tmp_path, command, many)


def test_a_dask_worker_that_is_killed_in_an_apply_changes_nothing(tmp_path, many) -> None:
    with (
        dask_cluster(2) as (address, (_, _, second)),
        apply_begun(tmp_path, many, f"dask:{address}") as command,
    ):
        second.send_signal(signal.SIGKILL)
        check_written(tmp_path, command, many)


def test_a_dask_scheduler_that_is_lost_in_an_apply_publishes_nothing(tmp_path, many) -> None:
    with (
        dask_cluster(2) as (address, (head, *_)),
        apply_begun(tmp_path, many, f"dask:{address}") as command,
    ):
        head.send_signal(signal.SIGKILL)
        assert "the scheduler was lost" in said(command, "calib: --workers")
        assert command.wait(PATIENCE) == 2
    assert list(tmp_path.iterdir()) == []


def test_a_dask_scheduler_that_is_lost_is_one_line(tmp_path, rows) -> None:
    fit_begun = ("fit", str(rows), "-m", "svs", "-p", "p.json")
    with (
        dask_cluster(2) as (address, (head, *_)),
        begun(tmp_path, address, *fit_begun) as fit,
    ):
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


@pytest.fixture(scope="module")
def ray_head() -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A cluster of Ray on this machine, and the port of its head."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start: Sequence[str] = (str(Path(sys.executable).with_name("ray")), "start", "--head")
    options = ("--block", "--num-cpus=2", f"--port={port}", "--include-dashboard=false")
    with process(*start, *options) as head:
        said(head, "Ray runtime started")
        yield head, port
        for each in psutil.Process(head.pid).children(recursive=True):
            each.terminate()


@pytest.mark.parametrize("name", ["auto", "127.0.0.1:{port}"])
def test_a_cluster_of_ray_has_the_bytes_of_one_machine(tmp_path, rows, ray_head, name) -> None:
    address = f"ray:{name.format(port=ray_head[1])}"
    there = parameters(tmp_path, rows, "temperature", "--workers", address)
    assert there == parameters(tmp_path, rows, "temperature")


def test_a_ray_worker_that_is_killed_in_an_apply_changes_nothing(tmp_path, many, ray_head) -> None:
    head, port = ray_head
    with apply_begun(tmp_path, many, f"ray:127.0.0.1:{port}") as command:
        descendants(head, "_Actor")[0].kill()
        check_written(tmp_path, command, many)


def test_nobody_who_answers_for_ray_is_one_line(tmp_path, rows) -> None:
    done = calib(tmp_path, "evaluate", str(rows), "--workers", "ray:127.0.0.1:9")
    assert done.returncode == 2
    assert "no cluster answers" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_libraries_are_those_that_were_meant() -> None:
    assert distributed.__version__
    assert ray.__version__
