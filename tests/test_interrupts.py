"""Signals that come in the middle of a fit: it ends, says so in a line, and leaves nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from calibcli import interrupts

if not Path("/proc/self/stat").exists():
    pytest.skip("shows how far a process is with the files of Linux", allow_module_level=True)

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 120
"""Seconds; a process that has not ended by then hangs."""

WORK = 0.5
"""Seconds of processor time that a command has computed when it is interrupted."""

INPUTS = ("large.npz", "small.npz")
FIT = ("-p", "p.json", "-o", "o.parquet", "--openmetrics", "o.txt")


@pytest.fixture(autouse=True)
def _inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows with which a fit takes many seconds, in a folder with nothing else."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(3)
    for name, rows, classes in (("large.npz", 60_000, 100), ("small.npz", 5_000, 10)):
        logits = rng.normal(size=(rows, classes)).astype(np.float32)
        labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
        np.savez(name, logits=logits, labels=labels)


def start(*arguments: str) -> subprocess.Popen[bytes]:
    """A command in a process of its own that has found its columns."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, "-m", "calibcli", *arguments],
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    assert any(b": input " in line for line in process.stderr), "it ended before it began"
    return process


def work(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Wait until it has computed for so long."""
    goal = computed(process) + seconds
    while computed(process) < goal:
        assert process.poll() is None, "it ended before it could be interrupted"
        time.sleep(0.01)


def computed(process: subprocess.Popen[bytes]) -> float:
    """Its processor time in seconds."""
    entries = Path(f"/proc/{process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2]
    user, system = entries.split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        *(
            ("fit", "large.npz", "-m", method, *FIT)
            for method in (
                "matrix",
                "dirichlet",
                "isotonic",
                "venn-abers",
                "spline",
                "sms",
                "curved-sms",
                "ensemble-temperature",
                "parameterized-temperature",
            )
        ),
        ("fit", "large.npz", "--loss", "adafocal", "--trace", "t.json", *FIT),
        ("fit", "large.npz", "-m", "vector", "--tune", *FIT),
        ("evaluate", "large.npz", "--bootstrap", "100000", "--openmetrics", "o.txt"),
    ],
    ids=lambda arguments: " ".join(arguments[2:4]),
)
def test_an_interrupt_ends_a_computation(arguments: tuple[str, ...]) -> None:
    process = start(*arguments)
    work(process, WORK)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out, err) == (130, b"", b"calib: interrupted\n")
    assert sorted(path.name for path in Path().iterdir()) == list(INPUTS)


@pytest.mark.slow
def test_an_interrupted_choice_shows_the_candidates_that_are_done() -> None:
    process = start("fit", "large.npz", "-m", "auto", *FIT)
    assert process.stderr is not None
    assert b"1 of " in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (130, b"")
    assert b"none*" in err
    assert b"calib: interrupted" in err
    assert sorted(path.name for path in Path().iterdir()) == list(INPUTS)


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
@pytest.mark.parametrize("pause", [0, 0.02], ids=lambda seconds: f"{seconds} s later")
def test_a_second_signal_changes_nothing(
    first: signal.Signals, second: signal.Signals, pause: float
) -> None:
    process = start("fit", "large.npz", "-m", "isotonic", *FIT)
    work(process, 0.1)
    process.send_signal(first)
    time.sleep(pause)
    process.send_signal(second)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out, err) == (130, b"", b"calib: interrupted\n")
    assert sorted(path.name for path in Path().iterdir()) == list(INPUTS)


def test_what_an_interrupt_breaks_on_its_way_is_not_what_the_command_ends_with(
    monkeypatch: pytest.MonkeyPatch, calib_here: Callable[..., tuple[int, str, str]]
) -> None:
    def broken(*_arguments: object, **_options: object) -> None:
        lock = threading.Lock()
        with lock:
            lock.release()  # as a wait that is interrupted while it takes its lock again
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("calibcli.workflow.measuring.measure", broken)
    assert calib_here("evaluate", "small.npz", "-q") == (130, "", "calib: interrupted\n")


def test_a_second_signal_after_the_files_ends_it_and_names_them(
    monkeypatch: pytest.MonkeyPatch, calib_here: Callable[..., tuple[int, str, str]]
) -> None:
    """The first is let pass, since all files are there and only their names are left to say."""
    note_files = interrupts.note_files

    def signalled(paths: Sequence[str]) -> None:
        note_files(paths)
        signal.raise_signal(signal.SIGINT)
        passed.append(True)
        signal.raise_signal(signal.SIGINT)

    passed: list[bool] = []
    monkeypatch.setattr("calibcli.tables.atomic.note_files", signalled)
    code, out, err = calib_here("fit", "small.npz", "-q", "-p", "p.json", "-o", "o.npz")
    assert passed
    assert (code, out) == (130, "")
    assert err == "calib: interrupted after o.npz, p.json had been written\n"
    assert Path("p.json").exists()
    assert Path("o.npz").exists()
