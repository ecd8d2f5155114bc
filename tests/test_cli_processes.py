"""The command as a process: signals, pipes, full disks, terminals, encodings, imports."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import shlex
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import numpy as np
import pytest

from calibcli.cli import console
from calibcli.engine.engine import Engine

ROOT = Path(__file__).resolve().parents[1]
CALIB = [sys.executable, "-m", "calibcli"]
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if name not in ("CI", "COLUMNS", "TERM")},
    "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
}
PATIENCE = 60
"""Seconds; a process that has not ended by then hangs."""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def val(sample_data: Path) -> str:
    return str(sample_data / "digits_val.parquet")


@pytest.fixture
def large(tmp_path: Path) -> str:
    """Data with which a fit of a matrix takes many seconds."""
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(60_000, 100)).astype(np.float32)
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    path = tmp_path / "large.npz"
    np.savez(path, logits=logits, labels=labels)
    return path.name


@pytest.fixture
def params(val: str, calib_here) -> str:
    """A parameter file for the sample data."""
    assert calib_here("fit", val, "-q", "-p", "p.json", "-o", "o.npz")[0] == 0
    Path("o.npz").unlink()
    return "p.json"


def start(*arguments: str, **options: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # type: ignore[call-overload, no-any-return]
        [*CALIB, *arguments],
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """A line of a shell, in which ``calib`` is the command."""
    script = f'calib() {{ {shlex.join(CALIB)} "$@"; }}\n{line}'
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", script],  # noqa: S607 (as in any shell)
        env={**ENVIRONMENT, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )


def on_full_disk(kilobytes: int, line: str) -> subprocess.CompletedProcess[bytes]:
    """A line of a shell that can write no file of more than some kilobytes.

    The limit would also cut what Python compiles, and leave that to whoever runs the package next,
    and what coverage writes.
    """
    limited = f"unset COVERAGE_PROCESS_CONFIG; ulimit -f {kilobytes}; {line}"
    return shell(limited, PYTHONDONTWRITEBYTECODE="1")


def begun(process: subprocess.Popen[bytes]) -> None:
    """Wait until the command has found its columns and works."""
    assert process.stderr is not None
    for line in process.stderr:
        if b": input " in line:
            return
    raise AssertionError("it ended before it began")


# Interrupts

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.mark.parametrize("number", ENDING, ids=lambda n: n.name)
def test_an_interrupted_fit_leaves_nothing(large, number):
    process = start(
        *("fit", large, "-m", "matrix", "-p", "p.json", "-o", "o.parquet"),
        # Under `nohup` a hang-up is ignored, as it should be.
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    )
    begun(process)
    time.sleep(0.1)
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert (out, err) == (b"", b"calib: interrupted\n")
    assert [path.name for path in Path().iterdir()] == [large]


@pytest.mark.parametrize("number", ENDING, ids=lambda n: n.name)
@pytest.mark.parametrize("first", ["p.json", "o.parquet", "o.txt"])
def test_a_signal_when_a_file_appears_leaves_all_of_them(val, number, first):
    process = start("fit", val, "-p", "p.json", "-o", "o.parquet", "--openmetrics", "o.txt")
    while not Path(first).exists() and process.poll() is None:
        time.sleep(0.0002)
    process.send_signal(number)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert all(Path(name).exists() for name in ("p.json", "o.parquet", "o.txt"))


def test_a_side_output_that_fails_leaves_nothing(val):
    # All but the page, which has hundreds of kilobytes, is below the limit.
    done = on_full_disk(100, f"calib fit {val} -q -p p.json -o o.parquet --report r.html")
    assert done.returncode == 2
    assert done.stderr == b"calib: r.html: File too large; nothing was written\n"
    assert list(Path().iterdir()) == []


def test_the_file_behind_standard_input_is_no_output(val):
    before = Path(val).read_bytes()
    for command in ("convert -", "fit - -p p.json", "evaluate /dev/stdin --report r.html"):
        option = "--openmetrics" if command.startswith("evaluate") else "-o"
        done = shell(f"calib {command} -q {option} {val} --force < {val}")
        assert done.returncode == 2
        assert f"{option} {val}: is an input; give the output another name" in done.stderr.decode()
    assert Path(val).read_bytes() == before
    assert list(Path().iterdir()) == []


def test_the_stream_that_failed_is_named(val):
    done = shell(f"calib fit {val} -q -p p.json -o - > /dev/full")
    assert done.returncode == 2
    assert done.stderr == b"calib: standard output: No space left on device\n"
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("suffix", ["parquet", "npz", "arrow"])
def test_a_killed_process_leaves_no_partial_output(large, calib_here, suffix):
    assert calib_here("fit", large, "-q", "-p", "p.json", "-o", f"whole.{suffix}")[0] == 0
    whole = Path(f"whole.{suffix}").read_bytes()
    before = {path.name for path in Path().iterdir()}
    process = start("apply", "p.json", large, "-o", f"o.{suffix}")
    begun(process)
    time.sleep(0.02)
    process.kill()
    process.communicate(timeout=PATIENCE)
    left = {path.name for path in Path().iterdir()} - before
    assert left <= {f"o.{suffix}"}
    # Where the process was quicker than the signal, the file is complete.
    assert not left or Path(f"o.{suffix}").read_bytes() == whole


# Pipes


def assert_quiet_without_reader(process: subprocess.Popen[bytes]) -> None:
    """Close the pipe that a command prints to; it is to end well, and without a word."""
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("evaluate", "VAL", "-q", "--format", "json"),
        ("evaluate", "VAL", "-q"),
        ("losses",),
    ],
    ids=" ".join,
)
def test_a_closed_pipe_is_quiet(val, arguments):
    with start(*(val if each == "VAL" else each for each in arguments)) as process:
        assert_quiet_without_reader(process)


def test_a_pipe_that_closes_in_the_middle_of_the_data_is_quiet(large, calib_here):
    assert calib_here("fit", large, "-q", "-p", "p.json")[0] == 0
    with start("apply", "p.json", large, "-q", "-o", "-") as process:
        assert process.stdout is not None
        assert len(process.stdout.read(10)) == 10
        assert_quiet_without_reader(process)


def test_closed_streams_do_no_harm(val):
    done = shell(f"calib evaluate {val} -q <&- >&- 2>&-")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    done = shell("calib evaluate - <&-")
    assert done.returncode == 2
    assert b"the file is empty" in done.stderr


def test_a_pipe_with_a_name_is_read(val):
    done = shell(f"calib evaluate <(cat {val}) -q --format json")
    assert json.loads(done.stdout)["rows"] == 600


# Disks


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("command", ["evaluate VAL -q", "apply PARAMS VAL -q -o -"])
def test_a_full_disk_behind_standard_output(val, params, command):
    line = command.replace("VAL", val).replace("PARAMS", params)
    done = shell(f"calib {line} > /dev/full")
    assert done.returncode == 2
    assert done.stderr == b"calib: standard output: No space left on device\n"


@pytest.mark.parametrize("kilobytes", [1, 8])
def test_a_full_disk_leaves_neither_file(val, kilobytes):
    # The parameter file takes 2 kB, the probabilities 25 kB: with 8 kB one of them would fit.
    done = on_full_disk(kilobytes, f"calib fit {val} -q -p p.json -o o.parquet")
    assert done.returncode == 2
    assert done.stderr.startswith(b"calib: ")
    assert done.stderr.endswith(b"File too large; nothing was written\n")
    assert list(Path().iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
def test_a_folder_that_is_not_writable(val, calib_here):
    Path("locked").mkdir(mode=0o500)
    code, _, err = calib_here("fit", val, "-q", "-p", "locked/p.json")
    assert code == 2
    assert "the folder" in err
    assert "is not writable" in err


# Terminals


def on_terminal(
    *arguments: str, columns: int = 100, code: str = "", **environment: str
) -> tuple[int, str]:
    """Exit code and all that a command prints on a terminal of so many columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    program = [sys.executable, "-c", code] if code else CALIB
    with subprocess.Popen(
        [*program, *arguments],
        env={"TERM": "xterm-256color", **ENVIRONMENT, **environment},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        printed = b""
        # Linux reports the end of a terminal as an error.
        with contextlib.suppress(OSError):
            while piece := os.read(ours, 1 << 16):
                printed += piece
        os.close(ours)
    return process.returncode, printed.decode()


def plain(text: str) -> list[str]:
    """The lines without colours."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).splitlines()


@pytest.mark.parametrize("columns", [60, 120])
def test_a_terminal_of_any_width(val, columns):
    code, printed = on_terminal("fit", val, "-q", columns=columns)
    assert code == 0
    lines = plain(printed)
    assert max(map(len, lines)) <= columns
    assert any(line.startswith("NLL") and "0.2281" in line for line in lines)
    assert "\x1b[32m" in printed


def test_no_colours_where_they_are_not_wanted(val):
    code, printed = on_terminal("evaluate", val, "-q", NO_COLOR="1")
    assert code == 0
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", printed)
    code, printed = on_terminal("evaluate", val, code=PROGRESS, TERM="dumb")
    assert code == 0
    assert "\x1b" not in printed


PROGRESS = """
import sys
import calibcli.cli.console
calibcli.cli.console._PATIENCE = 0
from calibcli.cli import main
sys.argv[0] = "calib"
main()
"""


def test_progress_is_shown_where_somebody_waits(val):
    code, printed = on_terminal("fit", val, code=PROGRESS)
    assert code == 0
    assert "fitting temperature" in printed
    assert re.search(r"pass \d+", printed)
    # The bar is gone, and the cursor is back.
    assert printed.rindex("\x1b[?25h") > printed.rindex("\x1b[?25l")
    code, printed = on_terminal("evaluate", val, code=PROGRESS, CI="1")
    assert code == 0
    assert "measuring" not in printed


def test_progress_counts_the_rows_of_each_pass(monkeypatch):
    seen = []
    monkeypatch.setattr(console, "_is_watched", lambda: True)
    monkeypatch.setattr(
        "rich.progress.Progress.update",
        lambda *_, completed, number: seen.append((number, completed)),
    )
    with console.Talk(quiet=False).progress(Engine(), "fitting", 600) as engine:
        for rows in (400, 200, 400, 200):
            engine.on_rows(rows)
    assert seen == [(1, 400), (1, 600), (2, 400), (2, 600)]


def test_standard_input_that_is_a_terminal_is_not_waited_for():
    code, printed = on_terminal("evaluate", "-")
    assert code == 2
    assert "- reads standard input, which is a terminal; pipe a file into it" in printed


# Encodings


@pytest.mark.parametrize(
    ("name", "environment"),
    [
        ("val.parquet", {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}),
        ("日本 ü.parquet", {"PYTHONIOENCODING": "ascii"}),
    ],
)
def test_a_stream_that_is_not_utf8(val, name, environment):
    Path(name).symlink_to(val)
    done = shell(f"calib evaluate '{name}'", **environment)
    assert done.returncode == 0, done.stderr
    assert b"NLL             v" in done.stdout
    assert done.stdout.isascii()
    done = shell(f"calib evaluate '{name}' -q --format markdown", **environment)
    assert done.returncode == 0, done.stderr
    assert b"| NLL &#8595; | 0.3441 |" in done.stdout
    assert done.stdout.isascii()


def test_a_file_name_that_is_no_text(sample_data, tmp_path):
    name = os.fsdecode(b"caf\xe9.npz")
    (tmp_path / name).symlink_to(sample_data / "digits_longtail_val.npz")
    for command in ("inspect", "fit"):
        with start(command, name) as process:
            _, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, err
    stored = json.loads((tmp_path / os.fsdecode(b"caf\xe9.params.json")).read_bytes())
    assert stored["data"][0]["path"] == name


# Imports

IMPORTED = """
import sys
from calibcli.cli.app import run
code = run(sys.argv[1:])
found = {name.partition(".")[0] for name in sys.modules}
print(*sorted(found & set("numpy pyarrow torch scipy matplotlib sklearn pandas pydantic".split())),
      file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.parametrize(
    ("arguments", "imported"),
    [
        (("--help",), ""),
        (("evaluate", "digits_val.parquet", "-q"), "numpy pyarrow"),
        (("evaluate", "digits_longtail_val.npz", "-q"), "numpy"),
        (("apply", "PARAMS", "digits_val.parquet", "-q", "-o", "a.parquet"), "numpy pyarrow"),
        (("fit", "digits_val.parquet", "-q", "-p", "f.json"), "numpy pyarrow"),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, tuple) else "",
)
def test_nothing_is_imported_that_is_not_needed(sample_data, params, arguments, imported):
    given = [
        params if each == "PARAMS" else str(sample_data / each) if each[:6] == "digits" else each
        for each in arguments
    ]
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED, *given],
        # A GPU would be reason enough to import torch.
        env={**ENVIRONMENT, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        check=True,
        timeout=PATIENCE,
    )
    assert done.stderr.decode().split() == imported.split()
