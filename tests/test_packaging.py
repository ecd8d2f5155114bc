"""What carries calib to other places: recipes that name its version, an action, manual pages."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from calibcli.version import __version__

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = ROOT / "sample_data"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

# Where a version stands; `calibcli/version.py` is the one that counts.
VERSIONS = {
    "CITATION.cff": r"^version: (.*)$",
    "Dockerfile": r'image\.version="(.*)"$',
    "action.yml": r'Version of calib\n +default: "(.*)"$',
    "templates/calib.yml": r'Version of calib\n +default: "(.*)"$',
    "packaging/conda/recipe.yaml": r'^  version: "(.*)"$',
    "man/calib-fit.1": r'"calib (\S+)"',
    "docs/ci.md": r"\b(?:calibcli==|@v|rev: v)(\d+\.\d+\.\d+)",
}


def read(path):
    return (ROOT / path).read_text("utf-8")


def documents(path):
    yaml = pytest.importorskip("yaml")
    return list(yaml.safe_load_all(read(path)))


@pytest.mark.parametrize(("path", "pattern"), VERSIONS.items())
def test_recipes_name_the_version(path, pattern):
    versions = re.findall(pattern, read(path), re.MULTILINE)
    assert versions
    assert set(versions) == {__version__}


def test_no_recipe_installs_whatever_is_newest():
    assert not re.findall(r"pip install calibcli$|\[calibcli\]", read("docs/ci.md"), re.MULTILINE)


def test_manual_pages_are_those_of_the_commands(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    spec = importlib.util.spec_from_file_location("make_man", ROOT / "docs" / "make_man.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    stored = {path.name: path.read_text("utf-8") for path in (ROOT / "man").iterdir()}
    assert stored == module.pages(), "make man writes them anew"
    for text in stored.values():
        assert text.isascii()
        requests = re.findall(r"^[.'](\S*)", text, re.MULTILINE)
        assert set(requests) <= {"TH", "SH", "SS", "B", "BR", "PP", "TP", "nf", "fi"}


def test_conda_recipe_has_the_requirements_of_the_package():
    (recipe,) = documents("packaging/conda/recipe.yaml")
    run = [each.replace(" ", "") for each in recipe["requirements"]["run"]]
    assert run == [f"python{PROJECT['requires-python']}", *PROJECT["dependencies"]]
    entries = [f"{name} = {target}" for name, target in PROJECT["scripts"].items()]
    assert recipe["build"]["python"]["entry_points"] == entries
    assert recipe["about"]["summary"] == PROJECT["description"]
    assert recipe["about"]["license"] == PROJECT["license"]


def test_image_runs_without_root_and_has_pinned_packages():
    text = read("Dockerfile")
    assert "\nUSER 1000\n" in text
    assert text.index("USER") > text.rindex("RUN")
    assert len(set(re.findall(r"^FROM (\S+)", text, re.MULTILINE))) == 1
    assert re.search(r"^FROM python:3\.11\.\d+-slim-\w+", text, re.MULTILINE)
    assert "--constraint constraints.txt" in text
    copied = {
        name
        for line in re.findall(r"^COPY (\w.*)$", text, re.MULTILINE)
        for name in line.split()[:-1]
    }
    kept = set(re.findall(r"^!(.*)$", read(".dockerignore"), re.MULTILINE))
    assert copied == kept


def script_environment(tmp_path, **variables):
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, body in {
        "calib": f'exec {shlex.quote(sys.executable)} -m calibcli "$@"',
        "pip": "exit 0",
    }.items():
        (folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / name).chmod(0o755)
    clean = {k: v for k, v in os.environ.items() if not k.startswith("GITHUB_")}
    path = os.pathsep.join([str(folder), os.environ["PATH"]])
    return {**clean, "PATH": path, "PYTHONPATH": str(ROOT), "COLUMNS": "100", **variables}


@pytest.fixture
def act(tmp_path):
    """Run the step of the action that evaluates, with inputs; the rest have their defaults."""
    (action,) = documents("action.yml")
    step = action["runs"]["steps"][-1]
    defaults = {name: str(entry.get("default", "")) for name, entry in action["inputs"].items()}

    def run(**inputs):
        values = defaults | {name.replace("_", "-"): value for name, value in inputs.items()}
        variables = {
            name: values[re.fullmatch(r"\$\{\{ inputs\.([\w-]+) \}\}", text)[1]]
            for name, text in step["env"].items()
        }
        files = {"GITHUB_STEP_SUMMARY": tmp_path / "summary", "GITHUB_OUTPUT": tmp_path / "output"}
        variables |= {name: str(path) for name, path in files.items()}
        return subprocess.run(
            ["bash", "-eo", "pipefail", "-c", step["run"]],  # noqa: S607
            cwd=tmp_path,
            env=script_environment(tmp_path, **variables),
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.mark.slow
def test_action_writes_a_summary_annotates_and_fails(act, tmp_path):
    done = act(
        input=f"{SAMPLES / 'digits_test.parquet'}\n",
        metrics="nll,ece",
        fail_if="nll > 9\nece > 0.01\n",
        append="runs.jsonl",
        options="--bootstrap\n50",
    )
    assert done.returncode == 1, done.stderr
    assert "::error" in done.stderr
    assert "ece > 0.01" in (tmp_path / "summary").read_text("utf-8")
    assert (tmp_path / "output").read_text() == "json=calib.json\n"
    document = json.loads((tmp_path / "calib.json").read_text("utf-8"))
    assert [gate["passed"] for gate in document["gates"]] == [True, False]
    assert (tmp_path / "runs.jsonl").exists()


@pytest.mark.slow
def test_action_takes_nothing_in_its_inputs_for_a_command(act, tmp_path):
    evil = '$(touch hurt) `touch hurt`"; touch hurt; #'
    done = act(input=evil, fail_if="ece > 0.01", params="--help")
    assert done.returncode == 2
    assert not (tmp_path / "hurt").exists()


@pytest.mark.slow
def test_component_of_gitlab_runs(tmp_path):
    header, jobs = documents("templates/calib.yml")
    job = jobs["calib"]
    inputs = {name: entry.get("default") for name, entry in header["spec"]["inputs"].items()}
    inputs |= {"input": str(SAMPLES / "digits_test.parquet"), "metrics": "nll"}
    inputs["fail_if"] = "nll > 9\nnll > 0.1"
    pattern = re.compile(r"\$\[\[ inputs\.(\w+) \]\]")
    variables = {k: pattern.sub(lambda m: inputs[m[1]], v) for k, v in job["variables"].items()}
    assert not pattern.search("".join(job["script"]))
    done = subprocess.run(
        ["sh", "-ec", "\n".join(job["script"])],  # noqa: S607
        cwd=tmp_path,
        env=script_environment(tmp_path, **variables),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    reports = job["artifacts"]["reports"].values()
    assert all((tmp_path / name).exists() for name in reports)
    assert (tmp_path / "calib-gates.xml").read_text("utf-8").count("<testcase") == 2


def test_hooks_of_pre_commit_are_commands():
    from typer.main import get_command

    from calibcli.cli.app import app

    (hooks,) = documents(".pre-commit-hooks.yaml")
    for hook in hooks:
        program, command, *options = hook["entry"].split()
        assert (program, options) == ("calib", ["--quiet"])
        assert command in get_command(app).commands
        assert hook["id"] == f"calib-{command}"


def test_citation_names_the_license_of_the_package():
    (citation,) = documents("CITATION.cff")
    assert citation["license"] == PROJECT["license"]
    assert citation["cff-version"] == "1.2.0"
