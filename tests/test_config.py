"""Options from files and variables: which is read, what is stronger, what is refused."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from calibcli.cli.app import app
from calibcli.cli.configuration import configurable_options, variables
from calibcli.cli.configured import ConfiguredCommand


@pytest.fixture(autouse=True)
def _look(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other tests are shut off from what surrounds them; these have only `tmp_path`."""
    monkeypatch.delenv("CALIB_CONFIG")


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def configured(calib_here, tmp_path, monkeypatch):
    """The entries that ``calib config`` prints, by command and option."""

    def entries(
        *arguments: str, cwd: Path = tmp_path, env: dict[str, str] | None = None
    ) -> dict[str, dict[str, Any]]:
        with monkeypatch.context() as patch:
            patch.chdir(cwd)
            for name, value in (env or {}).items():
                patch.setenv(name, value)
            code, out, err = calib_here("config", *arguments, "--format", "json")
        assert (code, err) == (0, "")
        found = json.loads(out)["options"]
        return {f"{entry['command']} {entry['option']}": entry for entry in found}

    return entries


def test_nothing_is_configured_by_default(calib, configured):
    assert configured() == {}
    done = calib("config")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode().splitlines() == [
        "configuration file: none",
        "every option is at its default (--all shows them)",
    ]


def test_the_repository_configures_nothing():
    tomllib = pytest.importorskip("tomllib")
    pyproject = Path(__file__).resolve().parents[1] / "pyproject.toml"
    assert "calib" not in tomllib.loads(pyproject.read_text(encoding="utf-8"))["tool"]
    assert not pyproject.with_name("calib.toml").exists()


def test_each_layer_is_stronger_than_the_one_before(calib, configured, tmp_path):
    """Default, file, its table, variable, variable of the command, flag."""
    seen = []

    def look(env: dict[str, str] | None = None) -> None:
        entry = configured("methods", "--all", env=env)["methods classes"]
        seen.append((entry["value"], entry["layer"], entry["source"]))

    look()
    write(tmp_path / "calib.toml", "[methods]\nclasses = 4")
    look()
    env = {"CALIB_CLASSES": "5"}
    look(env)
    env["CALIB_METHODS_CLASSES"] = "6"
    look(env)
    assert seen == [
        (10, "default", "default"),
        (4, "file", "calib.toml: [methods] classes"),
        (5, "environment", "CALIB_CLASSES"),
        (6, "environment", "CALIB_METHODS_CLASSES"),
    ]
    done = calib("methods", "--classes", "7", "--format", "json", env=env)
    assert json.loads(done.stdout)["classes"] == 7


def test_a_table_of_a_command_is_stronger_than_what_holds_for_all(configured, tmp_path):
    write(tmp_path / "calib.toml", "seed = 1\nfolds = 3\n[fit]\nseed = 2\n")
    found = configured()
    assert found["fit seed"]["source"] == "calib.toml: [fit] seed"
    assert {name: entry["value"] for name, entry in found.items()} == {
        "fit seed": 2,
        "fit folds": 3,
        "apply seed": 1,
        "evaluate seed": 1,
        "compare seed": 1,
        "compare folds": 3,
        "gates seed": 1,
        "inspect seed": 1,
    }


def test_the_nearest_file_counts_and_calib_toml_comes_first(configured, tmp_path):
    inner = tmp_path / "project" / "src" / "deep"
    inner.mkdir(parents=True)
    (tmp_path / ".git").mkdir()

    def seed(folder: Path) -> tuple[Any, ...] | None:
        entry = configured("inspect", cwd=folder).get("inspect seed")
        return entry and (entry["value"], entry["source"])

    assert seed(inner) is None
    write(tmp_path / "pyproject.toml", "[tool.calib]\nseed = 1")
    assert seed(inner) == (1, "../../../pyproject.toml: [tool.calib] seed")
    # A project that says nothing about calib is passed by, even if it is broken.
    write(tmp_path / "project" / "pyproject.toml", "[tool.other\n")
    assert seed(inner) == (1, "../../../pyproject.toml: [tool.calib] seed")
    write(tmp_path / "project" / "pyproject.toml", "[tool.calibration]\nseed = 9")
    assert seed(inner) == (1, "../../../pyproject.toml: [tool.calib] seed")
    write(tmp_path / "project" / "src" / "pyproject.toml", "[tool.calib.inspect]\nseed = 2")
    assert seed(inner) == (2, "../pyproject.toml: [tool.calib.inspect] seed")
    write(tmp_path / "project" / "src" / "calib.toml", "seed = 3")
    assert seed(inner) == (3, "../calib.toml: seed")
    # One file, not a sum of files.
    write(inner / "calib.toml", "threads = 1")
    assert seed(inner) is None


def test_the_search_ends_at_the_project(configured, tmp_path):
    inner = tmp_path / "project" / "src"
    inner.mkdir(parents=True)
    write(tmp_path / "calib.toml", "seed = 1")
    assert configured("inspect", cwd=inner) == {}
    (tmp_path / "project" / ".git").write_text("gitdir: elsewhere")
    assert configured("inspect", cwd=inner) == {}
    write(tmp_path / "project" / "calib.toml", "seed = 2")
    assert configured("inspect", cwd=inner)["inspect seed"]["value"] == 2


def test_a_file_that_was_only_found_cannot_do_harm(calib, sample_data, tmp_path):
    val = sample_data / "digits_longtail_val.npz"
    victim = write(tmp_path / "victim", "precious")
    folder = tmp_path / "project"
    config = write(folder / "calib.toml", "force = true\n")
    for text, problem in (
        (
            "force = true",
            "calib.toml: force = true: this is taken from no file that was only found",
        ),
        (
            'workers = "processes:2"',
            'workers = "processes:2": this is taken from no file that was only found',
        ),
        (f'report = ["a.html", "{victim}"]', "this is outside of the folder"),
        (f'openmetrics = "{victim}"', "this is outside of the folder of the configuration file"),
        ('[fit]\nparams = "../victim"', "this is outside of the folder of the configuration file"),
    ):
        write(config, f"quiet = true\n{text}\n")
        done = calib("fit", val, "--force", cwd=folder)
        assert done.returncode == 2
        assert problem in done.stderr.decode()
    assert victim.read_text() == "precious"
    assert [path.name for path in folder.iterdir()] == ["calib.toml"]


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ('openmetrics = "m.txt"\nseed = 1', ["-q"], ["openmetrics"]),
        ('openmetrics = "m.txt"\nseed = 1\nquiet = true', [], ["openmetrics", "quiet", "seed"]),
        ("seed = 1", ["-q"], []),
    ],
)
def test_what_a_found_file_writes_is_always_said(calib, sample_data, tmp_path, text, options, said):
    write(tmp_path / "calib.toml", text)
    done = calib("evaluate", sample_data / "digits_test.parquet", *options)
    assert done.returncode == 0, done.stderr
    names = [part.split(": ")[-1] for part in done.stderr.decode().strip().split(", ")]
    assert sorted(filter(None, names)) == said


def test_a_file_can_be_named_and_left_out(calib, configured, tmp_path):
    write(tmp_path / "calib.toml", "seed = 1")
    # What a file that was only found may not say, one that is named may.
    other = write(tmp_path / "ci" / "other.toml", 'seed = 2\nworkers = "processes:2"')
    project = write(tmp_path / "ci" / "pyproject.toml", "[tool.calib]\nseed = 3")
    named = {"CALIB_CONFIG": str(project)}
    assert configured("apply")["apply seed"]["source"] == "calib.toml: seed"
    assert configured("apply", "--config", "ci/other.toml")["apply seed"] == {
        "command": "apply",
        "option": "seed",
        "value": 2,
        "default": 0,
        "layer": "file",
        "source": "ci/other.toml: seed",
        "error": None,
    }
    by_name = configured("apply", "--config", "ci/other.toml")
    assert by_name["apply workers"]["value"] == "processes:2"
    assert configured("apply", env=named)["apply seed"]["value"] == 3
    assert configured("apply", "--config", str(other), env=named)["apply seed"]["value"] == 2
    assert configured("apply", "--no-config", env=named) == {}
    assert configured("apply", env={"CALIB_CONFIG": ""}) == {}
    assert configured("apply", "--no-config", env={"CALIB_SEED": "4"})["apply seed"]["value"] == 4
    document = json.loads(calib("config", "--format", "json").stdout)
    assert document["file"] == str(tmp_path / "calib.toml")
    assert list(document) == ["schema_version", "command", "file", "options"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("seed = 1\nseed 2", "calib.toml: this is not TOML: Expected '=' .* line 2, column 6"),
        ("sed = 1", 'calib.toml: sed: this is no option of any command; did you mean "seed"?'),
        ("[fit]\nmetod = 'x'", r"\[fit\] metod: this is no option of calib fit; .* \"method\"\?"),
        ("[evaluate]\nmethod = 'x'", r"no option of calib evaluate; it is one of calib fit$"),
        ("[evalute]\n", r"\[evalute\]: there is no command 'evalute'; did you mean \[evaluate\]"),
        ("[xyz]\n", r"\[xyz\]: there is no command 'xyz'; see calib --help"),
        ("[tool.calib]\nseed = 1", r"write \[fit\] here for \[tool.calib.fit\] of a pyproject"),
        ("[fit]\nconfig = 'x'", "this is no option of calib fit"),
        ("[fit]\ninputs = ['x']", "this is no option of calib fit"),
        ("[fit]\nfolds = 'two'", r'\[fit\] folds = "two": this must be a whole number'),
        ("[fit]\nfolds = 2.5", r"\[fit\] folds = 2.5: this must be a whole number"),
        ("[fit]\nfolds = true", r"\[fit\] folds = true: this must be a whole number"),
        ("[fit]\nstrict = 'yes'", r'\[fit\] strict = "yes": this must be true or false'),
        ("[fit]\nloss = ['nll']", r'\[fit\] loss = \["nll"\]: this must be text'),
        ("[fit]\nset = [[]]", r"\[fit\] set = \[\[\]\]: this must be text, or a list of that"),
        ("[fit]\nno-link = true\nno_link = true", "no_link: the option is set twice"),
        ("seed = 1\n--seed = 1", "--seed: the option is set twice"),
        ("[methods]\nclasses = 1", r"\[methods\] classes = 1: .*2"),
        ("[methods]\nformat = 'tabel'", r"\[methods\] format = \"tabel\": .*'table'"),
    ],
)
def test_one_line_says_what_is_wrong_in_a_file(calib_here, tmp_path, text, complaint):
    write(tmp_path / "calib.toml", text)
    code, out, err = calib_here("methods")
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith("calib: calib.toml: ")
    assert re.search(complaint, err.rstrip("\n")), err


def test_a_project_file_is_refused_in_its_own_words(calib_here, tmp_path):
    write(tmp_path / "pyproject.toml", "[tool.calib.fit]\nfold = 3\n")
    assert calib_here("losses")[2] == (
        "calib: pyproject.toml: [tool.calib.fit] fold: this is no option of calib fit; "
        'did you mean "folds"?\n'
    )
    write(tmp_path / "pyproject.toml", "[tool]\ncalib = 1\n")
    assert calib_here("losses")[2] == "calib: pyproject.toml: tool.calib must be a table\n"


@pytest.mark.parametrize(
    ("arguments", "variable", "complaint"),
    [
        (["--config", "x.toml"], None, "x.toml: there is no such configuration file (--config)"),
        ([], "x.toml", "x.toml: there is no such configuration file (CALIB_CONFIG)"),
        (["--config", "pyproject.toml"], None, "there is no table [tool.calib] in it (--config)"),
        (["--config", "latin.toml"], None, "latin.toml: this is not UTF-8"),
        (["--config", "calib.toml", "--no-config"], None, "leave out one of them"),
    ],
)
def test_a_named_file_must_be_there(
    calib_here, monkeypatch, tmp_path, arguments, variable, complaint
):
    write(tmp_path / "pyproject.toml", "[project]\nname = 'calib'")
    write(tmp_path / "calib.toml", "")
    (tmp_path / "latin.toml").write_bytes("classes = 'gar\u00e7on'".encode("latin-1"))
    if variable:
        monkeypatch.setenv("CALIB_CONFIG", variable)
    code, out, err = calib_here("losses", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert complaint in err


@pytest.mark.parametrize(
    ("variable", "text", "complaint"),
    [
        ("CALIB_METHODS_CLASSES", "many", 'CALIB_METHODS_CLASSES = "many": '),
        ("CALIB_CLASSES", "1", 'CALIB_CLASSES = "1": '),
        ("CALIB_FORMAT", "tabel", "CALIB_FORMAT = \"tabel\": 'tabel' is not one of 'table', "),
        ("CALIB_FORMAT", "csv", "CALIB_FORMAT = \"csv\": 'csv' is not one of 'table', 'json'"),
    ],
)
def test_one_line_says_what_is_wrong_in_a_variable(
    calib_here, monkeypatch, variable, text, complaint
):
    monkeypatch.setenv(variable, text)
    code, out, err = calib_here("methods")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert complaint in err
    # What is typed is stronger, whatever it replaces.
    assert calib_here("methods", "--classes", "3", "--format", "json")[0] == 0


def test_variables_that_nothing_reads(calib_here, monkeypatch):
    monkeypatch.setenv("CALIB_FORMATT", "json")
    monkeypatch.setenv("CALIB_HOME", "somewhere")
    monkeypatch.setenv("CALIB_FORMAT", "")  # as if it were not set
    assert calib_here("config")[2] == (
        "calib: nothing reads CALIB_FORMATT; did you mean CALIB_FORMAT?\n"
    )


@pytest.mark.parametrize("text", ["a.b=1;c.d=2", "a.b=1\nc.d=2\n", " a.b=1 ; c.d=2;"])
def test_a_list_in_a_variable(configured, text):
    assert configured("fit", env={"CALIB_SET": text})["fit set"]["value"] == ["a.b=1", "c.d=2"]


def test_line_breaks_spare_semicolons(configured):
    found = configured("fit", env={"CALIB_FIT_TEST": "a;b.npz\nc.npz"})
    assert found["fit test"]["value"] == ["a;b.npz", "c.npz"]


def test_keys_are_the_options_as_they_are_typed(configured, tmp_path):
    text = "[fit]\n--set = ['a.b=1', 'c.d=2']\ntarget_prior = 'balanced'\nignore-label = -100\n"
    write(tmp_path / "calib.toml", text + "test = 'one.npz'\nno-link = true\n")
    assert {name: entry["value"] for name, entry in configured("fit").items()} == {
        "fit set": ["a.b=1", "c.d=2"],
        "fit no-link": True,
        "fit target-prior": "balanced",
        "fit test": ["one.npz"],
        "fit ignore-label": ["-100"],
    }


def test_a_fit_and_what_follows_it(calib, sample_data, tmp_path, monkeypatch):
    """Output files, a list, a switch and its negation, in the commands that they are for."""
    write(
        tmp_path / "calib.toml",
        """
        bootstrap = 0
        format = "json"
        [fit]
        method = "svs"
        set = ["svs.penalty=0.5"]
        params = "p.json"
        output = "val.npz"
        force = true
        [apply]
        output = "test.npz"
        """,
    )
    val, test = (sample_data / f"digits_longtail_{name}.npz" for name in ("val", "test"))
    monkeypatch.setenv("CALIB_CONFIG", "calib.toml")
    done = calib("fit", val)
    assert done.returncode == 0, done.stderr
    assert done.stderr.decode().splitlines()[0] == (
        "calib: configured by calib.toml: [fit] method, calib.toml: [fit] set, "
        "calib.toml: [fit] params, calib.toml: [fit] output, calib.toml: [fit] force, "
        "calib.toml: bootstrap, calib.toml: format"
    )
    document = json.loads(done.stdout)
    assert document["method"] == "svs"
    assert (tmp_path / "p.json").exists()
    assert (tmp_path / "val.npz").exists()
    assert calib("apply", "p.json", test, "-q").returncode == 0
    assert (tmp_path / "test.npz").exists()
    # A refusal that speaks of options says who set them.
    done = calib("apply", "p.json", test, "-q")
    assert done.returncode == 2
    assert b"test.npz" in done.stderr
    done = calib("fit", val, "-q", "--no-force")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"p.json" in done.stderr
    done = calib("fit", val, "-q", "-m", "temperature", "--set", "temperature.nothing=1")
    assert b"nothing" in done.stderr, "what is typed replaces the list"


def test_a_switch_can_be_undone(calib_here, monkeypatch, tmp_path):
    write(tmp_path / "calib.toml", "[config]\nall = true\n")

    def is_long(*arguments: str) -> bool:
        return len(calib_here("config", *arguments)[1].splitlines()) > 20

    assert is_long()
    assert not is_long("--no-all")
    assert is_long("--no-all", "--all")
    monkeypatch.setenv("CALIB_CONFIG_ALL", "off")
    assert not is_long()
    assert is_long("--all")
    monkeypatch.setenv("CALIB_CONFIG_ALL", "maybe")
    code, _, err = calib_here("config")
    assert code == 2
    assert "CALIB_CONFIG_ALL=maybe: this must be 1 or 0" in err


def test_one_command_may_refuse_what_another_takes(calib_here, monkeypatch):
    monkeypatch.setenv("CALIB_CLASSES", "cat,dog")
    code, out, err = calib_here("config", "--format", "json")
    assert (code, err) == (0, "")
    found = {each["command"]: each["error"] for each in json.loads(out)["options"]}
    assert found["fit"] is None
    assert 'CALIB_CLASSES = "cat,dog": ' in found["methods"]
    code, out, err = calib_here("config", "methods")
    assert out.splitlines()[-1].split() == [
        "methods",
        "classes",
        '"cat,dog"',
        "CALIB_CLASSES",
        "(refused)",
    ]
    assert 'CALIB_CLASSES = "cat,dog": ' in err


def test_the_table(calib, tmp_path):
    write(tmp_path / "pyproject.toml", "[tool.calib]\nseed = 1\n[tool.calib.fit]\nstrict = true")
    out = calib("config", env={"CALIB_APPLY_FORMAT": "json"}).stdout.decode()
    assert [line.rstrip() for line in out.splitlines()[:7]] == [
        "configuration file: pyproject.toml",
        "",
        "command   option  value   from",
        "fit       strict  true    pyproject.toml: [tool.calib.fit] strict",
        "          seed    1       pyproject.toml: [tool.calib] seed",
        "apply     seed    1       pyproject.toml: [tool.calib] seed",
        '          format  "json"  CALIB_APPLY_FORMAT',
    ]
    done = calib("config", "fitt")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"calib: fitt: there is no such command; there are fit, apply, ")


def test_the_help_does_not_depend_on_the_configuration(calib_here, monkeypatch, tmp_path):
    plain = calib_here("fit", "--help")
    assert plain[0] == 0
    write(tmp_path / "calib.toml", "[fit]\nmethod = 'svs'\nfolds = 7\n")
    monkeypatch.setenv("CALIB_FORMAT", "json")
    assert calib_here("fit", "--help") == plain
    assert calib_here("fit", "--config", "calib.toml", "--help") == plain
    write(tmp_path / "calib.toml", "this is broken")
    assert calib_here("fit", "--help") == plain
    assert calib_here("--help")[0] == 0


def test_every_option_can_be_configured_by_a_name_of_its_own():
    commands = typer.main.get_command(app).commands
    seen: set[str] = set()
    for name, command in commands.items():
        if not isinstance(command, ConfiguredCommand):
            continue
        own = {variables(name, option)[1] for option in configurable_options(command)}
        assert not own & seen
        seen |= own
        flags = {flag for each in command.params for flag in each.opts if flag.startswith("--")}
        listed = {f"--{option}" for option in configurable_options(command)}
        assert flags == listed | {"--config", "--no-config"}
    general = {
        variables(name, o)[0] for name, c in commands.items() for o in configurable_options(c)
    }
    assert not general & seen, "one variable would mean two options"
    assert not (general | seen) & {"CALIB_ASCII", "CALIB_CONFIG", "CALIB_DEBUG", "CALIB_SHARED"}


def test_a_folder_that_is_gone_has_no_configuration(calib, tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    done = calib("losses", "--format", "json", cwd=gone)
    assert done.returncode == 0
    script = 'mkdir -p gone && cd gone && rmdir ../gone && exec "$@"'
    command = ["bash", "-c", script, "-", sys.executable, "-m", "calibcli", "losses"]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    ran = subprocess.run(command, cwd=gone, env=env, capture_output=True, check=False)
    assert ran.returncode == 0, ran.stderr
