"""The wheel and the sdist in a clean environment, and recipes as their own tools read them."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = Path(sys.executable).parent


def run(*command: str | Path, cwd: Path, code: int = 0) -> str:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "CALIB_"))}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=clean, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT, cwd=folder)
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="module")
def installed(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``calib`` of the wheel in an environment with nothing but what it requires."""
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder, with_pip=True)
    constraints = ROOT / "constraints.txt"
    pip = [folder / "bin" / "python", "-m", "pip", "install", "-q", "-c", constraints]
    run(*pip, built[1], cwd=folder)
    return folder / "bin" / "calib"


def test_both_have_what_belongs_to_them(built: tuple[Path, Path]) -> None:
    with tarfile.open(built[0]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    tracked = subprocess.run(
        ["git", "ls-files", "calibcli", "docs", "man", "tests", "templates", "packaging"],  # noqa: S607
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    assert set(tracked) <= names
    assert {"action.yml", "Dockerfile", "CITATION.cff", ".pre-commit-hooks.yaml"} <= names
    with zipfile.ZipFile(built[1]) as wheel:
        packed = set(wheel.namelist())
    assert {"calibcli/docs/drift.md", "calibcli/sample_data/digits_val.parquet"} <= packed
    assert any(name.endswith("/share/man/man1/calib-fit.1") for name in packed)
    assert not any(name.startswith(("tests/", "docs/", "man/")) for name in packed)


def commands(installed: Path, folder: Path) -> list[str]:
    """The commands that the help lists."""
    listed = run(installed, "--help", cwd=folder).partition("Commands:")[2].partition("Options:")[0]
    return re.findall(r"^  ([a-z]+) ", listed, re.MULTILINE)


def test_examples_of_every_help_run_from_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    names = commands(installed, tmp_path)
    assert {"fit", "evaluate", "history"} <= set(names)
    for name in names:
        folder = tmp_path / name
        folder.mkdir()
        run(installed, "demo", cwd=folder)
        end = run(installed, name, "--help", cwd=folder).partition(" Examples")[2]
        examples = [line.strip() for line in end.splitlines() if line.strip()]
        assert len(examples) == 3
        for line in examples:
            program, *arguments = shlex.split(line)
            assert program == "calib"
            run(installed, *arguments, cwd=folder)


def test_installed_program_has_version_pages_and_manual(installed: Path, tmp_path: Path) -> None:
    assert re.fullmatch(r"calib \d+\.\d+\.\d+\n", run(installed, "--version", cwd=tmp_path))
    assert "drift" in run(installed, "docs", cwd=tmp_path)
    assert (installed.parents[1] / "share" / "man" / "man1" / "calib-history.1").is_file()
    run(installed.parent / "python", "-m", "pip", "check", cwd=tmp_path)


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ("github-actions", "action.yml"),
        ("citation-file-format", "CITATION.cff"),
        *(("github-workflows", f".github/workflows/{name}.yml") for name in ("test", "release")),
    ],
)
def test_recipes_are_valid(schema: str, path: str) -> None:
    run(TOOLS / "check-jsonschema", "--builtin-schema", f"vendor.{schema}", path, cwd=ROOT)


def test_component_is_valid(tmp_path: Path) -> None:
    job = (ROOT / "templates" / "calib.yml").read_text("utf-8").split("\n---\n")[1]
    (tmp_path / "job.yml").write_text(re.sub(r"\$\[\[ inputs\.(\w+) \]\]", r"\1", job))
    tool = [TOOLS / "check-jsonschema", "--builtin-schema", "vendor.gitlab-ci"]
    run(*tool, "--data-transform", "gitlab-ci", "job.yml", cwd=tmp_path)


def test_image_has_no_fault_that_a_linter_sees() -> None:
    run(TOOLS / "hadolint", "Dockerfile", cwd=ROOT)


def has_docker() -> bool:
    docker = shutil.which("docker")
    return (
        docker is not None
        and not subprocess.run([docker, "info"], capture_output=True, check=False).returncode
    )


@pytest.mark.skipif("not has_docker()", reason="no Docker runs here")
def test_image_builds_and_runs(tmp_path: Path) -> None:
    run("docker", "build", "-q", "-t", "calib-test", ".", cwd=ROOT)
    out = run("docker", "run", "--rm", "calib-test", "--version", cwd=tmp_path)
    assert out.startswith("calib ")
    assert run("docker", "run", "--rm", "--entrypoint", "id", "calib-test", "-u", cwd=tmp_path) == (
        "1000\n"
    )


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
def test_manual_pages_are_what_the_formatter_takes() -> None:
    for page in sorted((ROOT / "man").glob("*.1")):
        command = [str(shutil.which("groff")), "-man", "-Tutf8", "-ww", page]
        done = subprocess.run(command, capture_output=True, check=False)
        assert not done.stderr, page.name
