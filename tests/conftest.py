"""Fixtures for all tests."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]
VECTORS = ROOT / "tests" / "vectors"

settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, database=None)
settings.load_profile("ci" if os.environ.get("CI") else "default")

# No option is set by what surrounds the tests.
_FOR_TESTS = {"CALIB_BROWSER", "NEEDS_BROWSER", "CALIB_SHARED", "CALIB_UPDATE_GOLDEN"}
for _name in [name for name in os.environ if name.startswith("CALIB_") and name not in _FOR_TESTS]:
    del os.environ[_name]
os.environ["CALIB_CONFIG"] = ""

# Containers like to set it. Hundreds of processes would each compile the package anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

_PYTHONPATH = os.environ.get("PYTHONPATH")

# A shell that starts the tests in the background has them, and all that they start, ignore Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# What cannot be imported without torch.
_TORCH = re.compile(r"(torch|objective_oracles|calibcli\.torch_losses)\b")


def _imports_torch(path: Path) -> bool:
    """Whether a file of tests imports, at its top, what needs torch."""
    for statement in ast.parse(path.read_text("utf-8")).body:
        if isinstance(statement, ast.Import):
            if any(_TORCH.match(name.name) for name in statement.names):
                return True
        elif isinstance(statement, ast.ImportFrom) and _TORCH.match(statement.module or ""):
            return True
    return False


class _Skipped(pytest.Module):
    """A file of tests whose imports would fail."""

    def collect(self) -> NoReturn:
        pytest.skip("torch is not installed", allow_module_level=True)


def pytest_pycollect_makemodule(
    module_path: Path, parent: pytest.Collector
) -> pytest.Module | None:
    """Skip, aloud, the files that need torch where it is absent."""
    if find_spec("torch") is None and _imports_torch(module_path):
        skipped: pytest.Module = _Skipped.from_parent(parent, path=module_path)
        return skipped
    return None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say at the end, in red, if the page was not looked at."""
    skipped = terminalreporter.stats.get("skipped", [])
    if any("no Chromium" in str(report.longrepr) for report in skipped):
        what = "NOT TESTED: the page of --report, as there is no Chromium"
        terminalreporter.write_line(what, red=True, bold=True)


Calib = Callable[..., "subprocess.CompletedProcess[bytes]"]
CalibHere = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session")
def sample_data() -> Path:
    """The folder of the project's own sample data."""
    return ROOT / "sample_data"


@pytest.fixture(scope="session")
def vectors() -> dict[str, Any]:
    """Published figures, and what the official code of papers gives for small inputs."""
    document: dict[str, Any] = json.loads((VECTORS / "vectors.json").read_text("utf-8"))
    return document


@pytest.fixture(scope="session")
def synthetic() -> dict[str, np.ndarray[Any, Any]]:
    """The logits and labels on which the official code was run: `fit_logits`, `test_labels`, …"""
    with np.load(VECTORS / "sctl_synth.npz") as stored:
        return dict(stored)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with the stored outputs of published models, which the project does not ship."""
    folder = Path(os.environ.get("CALIB_SHARED", ROOT.parent / "shared")).resolve()
    if not folder.is_dir():
        pytest.skip(f"there is no folder {folder}; set CALIB_SHARED to run this test")
    return folder


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers, the same in every run."""
    return np.random.default_rng(20230619)


@pytest.fixture
def calib(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Calib]:
    """The command line as a user starts it: ``calib("fit", path, cwd=..., input=b"...")``.

    It runs in the test's own folder unless ``cwd`` says otherwise, and returns the completed
    process with its output as bytes, whatever the exit code. ``env`` adds to the environment. What
    reads or writes standard streams as files, or has an environment or other packages of its own,
    runs in a process of its own; all else in this one, which need not start.
    """
    with _in_this_process() as here:

        def run(
            *arguments: str | Path,
            cwd: Path = tmp_path,
            input: bytes = b"",
            env: dict[str, str] | None = None,
            timeout: float = 120,
        ) -> subprocess.CompletedProcess[bytes]:
            words = [str(argument) for argument in arguments]
            shown = {"COLUMNS": "100", "NO_COLOR": "1"}
            if input or env or "-" in words or os.environ.get("PYTHONPATH") != _PYTHONPATH:
                paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
                return subprocess.run(
                    [sys.executable, "-m", "calibcli", *words],
                    cwd=cwd,
                    input=input,
                    env={
                        **os.environ,
                        "PYTHONPATH": os.pathsep.join(paths),
                        **shown,
                        **(env or {}),
                    },
                    capture_output=True,
                    timeout=timeout,
                    check=False,
                )
            with contextlib.chdir(cwd), monkeypatch.context() as patch:
                for name, value in shown.items():
                    patch.setenv(name, value)
                code = here(words)
            out, err = capfd.readouterr()
            return subprocess.CompletedProcess(words, code, out.encode(), err.encode())

        yield run


@contextlib.contextmanager
def _in_this_process() -> Iterator[Callable[[list[str]], int]]:
    """The command line in this process: words -> exit code."""
    from calibcli.cli.app import run

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def calib_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[CalibHere]:
    """The command line in this process, for many calls: ``calib_here("fit", "val.npz", "-q")``.

    It runs in the test's own folder unless the test goes elsewhere, and returns the exit code,
    stdout and stderr.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("NO_COLOR", "1")
    with _in_this_process() as here:

        def call(*arguments: str | Path) -> tuple[int, str, str]:
            code = here([str(argument) for argument in arguments])
            return (code, *capfd.readouterr())

        yield call


@pytest.fixture(autouse=True, scope="session")
def shapes_are_where_their_signs_are() -> Iterator[None]:
    """Every file of every test shows that a shape whose signs are not there changes nothing."""
    from calibcli.errors import CalibError
    from calibcli.tables.formats.registry import import_from
    from calibcli.tables.shapes import registry

    def read(shape: Any, opened: Any, options: Any, spool: Any) -> Any:
        reader = import_from(registry.__package__, shape.reader)
        if shape.may_be_there(registry.Signs(opened, options)):
            return reader(opened, options, spool)
        try:
            tables = reader(opened, options, spool)
        except CalibError:
            raise  # what is refused here must be what the test expects to be refused
        except Exception as error:
            message = f"{shape.reader} fails at what has no signs of it: {error}"
            raise AssertionError(message) from error
        files = zip(tables.files, opened.files, strict=True)
        is_same = tables.labels is opened.labels and all(one is other for one, other in files)
        assert is_same, f"{shape.reader} changes what has no signs of it"
        return opened

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry.Shape, "read", read)
        yield
