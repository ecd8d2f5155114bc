"""Data to try, pages to read, and help: what somebody has who only installed the package."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import typer

from calibcli import errors
from calibcli.cli.app import app
from calibcli.cli.guide import documentation, shipped

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
SAMPLES = ("digits_longtail_test.npz", "digits_longtail_val.npz", "digits_test.parquet")


def pages_named(text: str) -> set[str]:
    return set(re.findall(r"calib docs ([a-z-]+)", text))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a wheel that is unpacked."""
    builders = pytest.importorskip("hatchling.builders.wheel")
    folder = tmp_path_factory.mktemp("wheel")
    (path,) = builders.WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    with zipfile.ZipFile(path) as file:
        file.extractall(folder / "site")
    return folder / "site"


def test_a_wheel_has_the_pages_and_the_sample_files(wheel: Path) -> None:
    for inside, outside, kinds in (
        ("docs", ROOT / "docs", {".md"}),
        ("sample_data", ROOT / "sample_data", {".md", ".npz", ".parquet"}),
    ):
        names = {path.name for path in outside.iterdir() if path.suffix in kinds}
        assert {path.name for path in (wheel / "calibcli" / inside).iterdir()} == names
    tops = {path.name.partition("-")[0] for path in wheel.iterdir()}
    assert tops == {"calibcli"}


def test_a_wheel_is_enough_to_begin(wheel: Path, tmp_path: Path) -> None:
    def calib(*arguments: str) -> str:
        return subprocess.run(
            [sys.executable, "-m", "calibcli", *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(wheel)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    calib("demo")
    for path in (wheel / "calibcli" / "sample_data").iterdir():
        assert (tmp_path / "sample_data" / path.name).read_bytes() == path.read_bytes()
    assert calib("docs", "ci") == (ROOT / "docs" / "ci.md").read_text("utf-8")
    assert "temperature" in calib("fit", "sample_data/digits_val.parquet")


def test_demo_leaves_what_is_there(calib_here: Any, tmp_path: Path) -> None:
    code, out, _ = calib_here("demo", "deep/trial")
    assert code == 0
    assert out.count("is there already") == 0
    assert "calib fit deep/trial/digits_val.parquet" in out
    changed, removed = (tmp_path / "deep" / "trial" / name for name in SAMPLES[:2])
    removed.unlink()
    code, out, _ = calib_here("demo", "deep/trial")
    assert (code, out.count("is there already")) == (0, 4)
    assert removed.is_file()
    changed.write_bytes(b"mine")
    removed.unlink()
    code, _, err = calib_here("demo", "deep/trial")
    assert code == 2
    assert "digits_longtail_test.npz: exists already; --force replaces it" in err
    assert changed.read_bytes() == b"mine"
    assert not removed.exists()
    assert calib_here("demo", "deep/trial", "--force")[0] == 0
    assert changed.read_bytes() == (ROOT / "sample_data" / changed.name).read_bytes()


def test_docs_lists_every_page_with_its_title(calib_here: Any) -> None:
    code, out, _ = calib_here("docs")
    listed = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert code == 0
    assert set(listed) == {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert listed["choosing"] == "Choosing a method"


@pytest.mark.parametrize("page", ["json", "json.md"])
def test_a_page_in_a_pipe_is_its_markdown(calib_here: Any, page: str) -> None:
    code, out, _ = calib_here("docs", page)
    assert (code, out) == (0, (ROOT / "docs" / "json.md").read_text("utf-8"))


def test_a_page_in_a_terminal_is_formatted() -> None:
    ours, theirs = pty.openpty()
    done = subprocess.Popen(
        [sys.executable, "-m", "calibcli", "docs", "choosing"],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "80", "TERM": "xterm"},
        stdout=theirs,
    )
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 65536):
            shown += part
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    assert done.wait() == 0
    text = re.sub(r"\x1b\[[0-9;]*m", "", shown.decode())
    assert "Choosing a method" in text
    assert "# Choosing a method" not in text
    assert "calib docs methods" in text
    assert ".md" not in text
    assert "```" not in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("docs", "chosing"), "chosing: there is no such page; did you mean choosing?"),
        (("docs", "zzz"), "zzz: there is no such page; calib docs lists them"),
        (("help", "evalute"), "evalute: there is no such command; did you mean evaluate?"),
        (("help", "zzz"), "zzz: there is no such command; calib --help lists them"),
    ],
)
def test_what_there_is_not(calib_here: Any, arguments: tuple[str, ...], message: str) -> None:
    assert calib_here(*arguments) == (2, "", f"calib: {message}\n")


def test_an_installation_without_the_files_says_so() -> None:
    with pytest.raises(errors.UsageError, match="nothing is not part of this installation"):
        shipped("nothing")


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_is_also_a_command(calib_here: Any, command: str) -> None:
    long = calib_here(*command.split(), "--help")
    assert calib_here("help", *command.split()) == long
    assert long[0] == 0
    assert "calib docs" in long[1]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_names_pages_that_go_further(command: str) -> None:
    named = pages_named(COMMANDS[command].help)
    assert named
    assert named <= set(documentation())


def test_errors_name_the_page_about_them(calib_here: Any, tmp_path: Path) -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    assert {kind.page for kind in kinds if kind.page} <= set(documentation())
    (tmp_path / "a.npz").write_bytes(b"PK")
    code, _, err = calib_here("fit", "a.npz")
    assert code == 2
    assert err.endswith(" (more: calib docs inputs)\n")
    (tmp_path / "p.json").write_text("{}")
    _, _, err = calib_here("apply", "p.json", "a.npz", "-o", "b.npz")
    assert err.endswith(" (more: calib docs params)\n")


@pytest.mark.parametrize(
    ("line", "completions"),
    [("calib docs rea", ["reading-a-report"]), ("calib help eva", ["evaluate"])],
)
def test_names_are_completed(line: str, completions: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "calibcli"],
        cwd=ROOT,
        env={
            **os.environ,
            "_CALIB_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": "2",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == completions
