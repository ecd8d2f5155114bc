"""The recipes of docs/ci.md: their files are read as their tools do, and their commands run."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree as ET

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
COMMAND_KEYS = ("run", "script", "cmd", "entry")
"""Keys of YAML files under which a shell command stands."""

pytestmark = pytest.mark.slow


def recipe(heading: str) -> str:
    """The code under a heading."""
    found = re.search(rf"^### {heading}$.*?^```\w+\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert found, heading
    return found[1]


def read_yaml(text: str) -> Any:
    return pytest.importorskip("yaml").safe_load(text)


def commands(part: Any) -> Iterator[str]:
    """The commands of a YAML file, in their order."""
    if isinstance(part, dict):
        for key, value in part.items():
            if key in COMMAND_KEYS:
                yield from [value] if isinstance(value, str) else value
            else:
                yield from commands(value)
    elif isinstance(part, list):
        for value in part:
            yield from commands(value)


def run_blocks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ci_run_blocks", ROOT / "docs" / "run_blocks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sample data, and with what the page's own commands make of it."""
    folder = tmp_path_factory.mktemp("ci")
    run_blocks().run_page(PAGE, folder)
    pip = folder / ".bin" / "pip"
    pip.write_text("#!/bin/sh\n")  # it is installed already
    pip.chmod(0o755)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "repository"))


def run(script: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("GITHUB_")}
    return subprocess.run(
        ["bash", "-e", "-c", script],  # noqa: S607 (as the tools do)
        cwd=folder,
        env={
            **clean,
            "PATH": os.pathsep.join([str(folder / ".bin"), os.environ.get("PATH", os.defpath)]),
            "PYTHONPATH": str(ROOT),
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def passes(script: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    done = run(script, folder, **environment)
    assert done.returncode == 0, done.stderr
    return done


def stricter(script: str) -> str:
    """The same script with gates that no model passes."""
    return re.sub(r"--fail-if '[^']*'", "--fail-if 'ece >= 0'", script)


def test_every_tool_has_a_recipe() -> None:
    section = PAGE.split("\n## What a CI system reads\n")[1]
    headings = re.findall(r"^### (.*)$", section, re.MULTILINE)
    assert headings == ["GitHub Actions", "GitLab", "Jenkins", "Make", "DVC", "pre-commit"]
    assert all("--fail-if" in recipe(heading) for heading in headings)


def test_github_actions(folder: Path, tmp_path: Path) -> None:
    workflow = read_yaml(recipe("GitHub Actions"))
    (job,) = workflow["jobs"].values()
    assert all(step.get("uses", "@").count("@") == 1 for step in job["steps"])
    summary = tmp_path / "summary.md"
    there = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(summary), "CI": "true"}
    done = [passes(command, folder, **there) for command in commands(workflow)]
    assert "::notice title=calib::2 gates passed" in done[-1].stderr
    assert "| `ece > ece.chance.high` | passed |" in summary.read_text(encoding="utf-8")
    failed = run(
        stricter(list(commands(workflow))[-1]).replace("--significant", ""), folder, **there
    )
    assert failed.returncode == 1
    assert failed.stderr.count("::error title=calib%3A gate failed::") == 2


def test_gitlab(folder: Path) -> None:
    (job,) = read_yaml(recipe("GitLab")).values()
    passes("\n".join(job["script"]), folder)
    reports = job["artifacts"]["reports"]
    cases = ET.parse(folder / reports["junit"]).getroot()  # noqa: S314 (our own)
    assert (cases.get("tests"), cases.get("failures")) == ("2", "0")
    metrics = folder / reports["metrics"]
    assert metrics.read_text(encoding="utf-8").endswith("# EOF\n")
    again = stricter("\n".join(job["script"])) + " --force"
    assert run(again, folder).returncode == 1
    cases = ET.parse(folder / reports["junit"]).getroot()  # noqa: S314 (our own)
    assert cases.get("failures") == "2"
    assert job["artifacts"]["when"] == "always"


def test_jenkins(folder: Path) -> None:
    code = recipe("Jenkins")
    assert code.count("{") == code.count("}")
    (script,) = re.findall(r"sh '''(.*?)'''", code, re.DOTALL)
    (report,) = re.findall(r"junit '(.*?)'", code)
    # Between three single quotes Groovy takes a backslash at the end of a line for itself.
    script = script.replace("\\\n", "")
    passes(script, folder)
    passes(script, folder)  # the workspace of the run before
    assert (folder / report).is_file()
    assert run(stricter(script), folder).returncode == 1


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make(folder: Path) -> None:
    makefile = folder / "Makefile"
    makefile.write_text(recipe("Make"), encoding="utf-8")
    passes("make calibration", folder)
    makefile.write_text(stricter(recipe("Make")), encoding="utf-8")
    failed = run("make calibration", folder)
    assert failed.returncode != 0
    assert "Error 1" in failed.stderr


def test_dvc(folder: Path) -> None:
    stages = read_yaml(recipe("DVC"))["stages"]
    for stage in stages.values():
        passes(stage["cmd"], folder)
        paths = [
            *stage["deps"],
            *stage.get("outs", ()),
            *map(next, map(iter, stage.get("metrics", ()))),
        ]
        assert all((folder / path).is_file() for path in paths)
    assert json.loads((folder / "evaluation.json").read_text("utf-8"))["gates"][0]["passed"]
    assert run(stricter(stages["evaluate"]["cmd"]), folder).returncode == 1


def test_pre_commit(folder: Path) -> None:
    config = read_yaml(recipe("pre-commit"))
    (hook,) = config["repos"][0]["hooks"]
    (entry,) = commands(config)
    passes(entry, folder)
    assert run(stricter(entry), folder).returncode == 1
    assert all(re.search(hook["files"], path) for path in ("gate.json", "sample_data/a.npz"))
    assert not re.search(hook["files"], "other/gate.json")
