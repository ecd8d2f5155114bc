"""What the commands do: the files and results of a user's session with the sample data."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer

import calibcli
from calibcli.calibrators.registry import MAPS
from calibcli.cli.app import app
from calibcli.metrics.registry import DEFAULT
from calibcli.objectives.registry import OBJECTIVES
from calibcli.version import __version__
from calibcli.workflow import planning

COMMANDS = tuple(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
BINS = 15


pytestmark = pytest.mark.usefixtures("with_sample_data")


@pytest.fixture
def with_sample_data(tmp_path: Path, sample_data: Path) -> None:
    """A copy of the sample data in the test's own folder, as the examples have it."""
    shutil.copytree(sample_data, tmp_path / "sample_data")


VAL, TEST = Path("sample_data/digits_val.parquet"), Path("sample_data/digits_test.parquet")
NPZ = Path("sample_data/digits_longtail_val.npz")


def read_json(outcome: tuple[int, str, str]) -> dict[str, Any]:
    """The result of a command with ``--format json`` that ends well."""
    code, out, err = outcome
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    measured = found.get("command") in ("fit", "evaluate", "compare")
    assert found["schema_version"] == (2 if measured else 1)
    return found


def probs_of(path: Path) -> np.ndarray:
    """The probabilities in an output file."""
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            probs: np.ndarray = arrays["probs"]
            return probs
    column = pq.read_table(path)["probs"].combine_chunks()
    stored: np.ndarray = column.flatten().to_numpy().reshape(len(column), -1)
    return stored


def logits_of(path: Path) -> np.ndarray:
    """The logits in a file of the sample data."""
    return np.stack(pq.read_table(path)["logits"].combine_chunks().to_numpy_ndarray())


# Help


def examples(text: str) -> list[str]:
    """The commands that a help text ends with."""
    _, _, end = text.partition(" Examples")
    return [line.strip() for line in end.splitlines() if line.strip()]


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_help_ends_with_three_examples_that_run(calib_here, monkeypatch, tmp_path, command):
    monkeypatch.setenv("COLUMNS", "80")
    # That they run takes no such precision as users want.
    monkeypatch.setattr(planning, "_ROUNDS", (3, 4, 5))
    monkeypatch.setattr(planning, "_PLAIN_SAMPLES", 5)
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert calib_here("demo")[0] == 0
    code, out, err = calib_here(*command.split(), "--help")
    assert (code, err) == (0, "")
    found = examples(out)
    assert len(found) == 3
    for example in found:
        program, *arguments = shlex.split(example)
        assert program == "calib"
        code, out, err = calib_here(*arguments)
        assert code == 0, err
        assert out or command in ("apply", "convert", "export")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_explains_every_option(calib_here, command):
    code, out, _ = calib_here(command, "--help")
    assert code == 0
    assert out.lstrip().startswith(f"Usage: calib {command}")
    shared = ("--logits", "--labels", "--weights", "--input", "--device", "--threads", "--seed")
    if command in ("fit", "apply", "evaluate"):
        assert all(option in out for option in (*shared, "--memory", "--quiet", "--format"))


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_aligned_and_has_no_types_of_python(calib_here, monkeypatch, command, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    _, out, _ = calib_here(command, "--help")
    body, _, _ = out.partition(" Examples")
    assert max(map(len, body.splitlines())) < columns
    assert not re.search(r"<\w|\blist\[|<=x|x<=|x>=", body)
    long = re.findall(r"^(?:  -\w, |      )--[a-z]", body, re.MULTILINE)
    assert len(long) == len(re.findall(r"^ +-", body, re.MULTILINE))


@pytest.mark.parametrize("command", ["fit", "apply", "evaluate", "compare"])
def test_short_help_has_ten_options_and_leads_to_the_long_one(calib_here, command):
    _, short, _ = calib_here(command, "-h")
    _, long, _ = calib_here(command, "--help")
    options = re.compile(r"^ +(?:-\w, )?(--[a-z-]+)", re.MULTILINE)
    assert len(options.findall(short)) == 10
    assert set(options.findall(short)) < set(options.findall(long))
    assert f"calib {command} --help" in short
    assert len(short.splitlines()) < len(long.splitlines())


@pytest.mark.parametrize(
    ("line", "completions"),
    [
        ("calib fit x -m isoto", ["isotonic"]),
        ("calib fit x --loss bri", ["brier"]),
        ("calib compare x --methods svs,isoto", ["svs,isotonic"]),
        ("calib evaluate x --metrics nll,brier_h", ["nll,brier_half"]),
        ("calib methods isoto", ["isotonic"]),
    ],
)
def test_the_shell_completes_names(calib, line, completions):
    words = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)}
    done = calib(env={"_CALIB_COMPLETE": "complete_bash", **words})
    assert done.stdout.decode().split() == completions


@pytest.mark.parametrize(
    ("command", "name"), [("methods", "svs"), ("losses", "brier"), ("metrics", "ece")]
)
def test_a_listing_has_a_line_for_each_and_a_card_for_one(calib_here, command, name):
    _, listing, _ = calib_here(command)
    _, listed, _ = calib_here(command, "--format", "json")
    entries = json.loads(listed)[command]
    assert len([line for line in listing.splitlines() if line[:2] == "  "]) == len(entries)
    _, card, _ = calib_here(command, name)
    (entry,) = json.loads(calib_here(command, name, "--format", "json")[1])[command]
    assert entry in entries
    assert card.startswith(f"{name}  {entry['title']}")
    code, out, err = calib_here(command, f"{name}x")
    assert (code, out) == (2, "")
    assert f"'{name}x'" in err


def test_version(calib_here):
    assert calib_here("--version") == (0, f"calib {__version__}\n", "")


def test_no_command_shows_what_there_is(calib_here):
    code, out, err = calib_here()
    assert (code, err) == (2, "")
    assert all(f" {command} " in out for command in COMMANDS)


# fit


def test_fit_names_its_files_after_the_input(calib_here, tmp_path):
    code, out, err = calib_here("fit", VAL)
    assert code == 0, err
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "digits_val.calibrated.parquet",
        "digits_val.params.json",
        "sample_data",
    ]
    assert "600 rows, 10 classes, logits" in out
    assert "temperature: 2.287" in out
    assert "converged after" in out
    assert "by 5-fold cross-fitting: every row by a fit that has not seen it" in " ".join(
        out.split()
    )
    assert "calib: digits_val.parquet: logits column 'logits'" in err
    assert "calib: digits_val.parquet: input logits (by the name; the values agree)" in err


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("model.v2.parquet", "model.v2"),
        (".hidden.parquet", "hidden"),
        ("no_suffix", "no_suffix"),
        ("up.NPZ", "up"),
    ],
)
def test_names_of_outputs(calib_here, name, stem):
    source = NPZ if name.lower().endswith("npz") else VAL
    shutil.copy(source, name)
    assert calib_here("fit", name, "-q")[0] == 0
    assert Path(f"{stem}.params.json").exists()
    assert Path(f"{stem}.calibrated.parquet").exists()


def test_fit_writes_the_test_file_where_there_is_one(calib_here):
    found = read_json(calib_here("fit", VAL, "--test", TEST, "--format", "json"))
    assert found["after"]["measured_on"] == "test"
    assert found["after"]["rows"] == found["before"]["rows"] == 597
    assert found["output"] == "digits_test.calibrated.parquet"
    assert probs_of(Path(found["output"])).shape == (597, 10)
    code, out, _ = calib_here("fit", VAL, "--test", TEST, "--force", "-q")
    assert code == 0
    assert "Measured on the 597 rows of digits_test.parquet." in out


def test_the_json_of_a_fit(calib_here):
    found = read_json(calib_here("fit", VAL, "-q", "--format", "json", "--seed", 3, "--folds", 4))
    assert found["method"] == "temperature"
    assert found["loss"] == "nll"
    fit = found["fit"]
    assert fit["converged"] is True
    assert fit["iterations"] >= 1
    assert fit["passes"] >= 1
    assert fit["seconds"] > 0
    assert fit["device"] == "cpu"
    assert found["after"]["measured_on"] == "cross-fit"
    assert found["after"]["folds"] == 4
    for part in (found["before"], found["after"]):
        assert set(part["metrics"]) == set(DEFAULT)
        assert all(np.isfinite(metric["value"]) for metric in part["metrics"].values())
        assert len(part["reliability"]) == BINS
    assert found["after"]["metrics"]["nll"]["value"] < found["before"]["metrics"]["nll"]["value"]
    assert found["params"] == "digits_val.params.json"
    stored = json.loads(Path(found["params"]).read_text(encoding="utf-8"))
    assert found["stages"] == stored["stages"]
    assert stored["fit"]["seed"] == 3
    assert stored["metrics"]["measured_on"] == "cross-fit"


def test_fit_options_reach_the_fit(calib_here):
    arguments = ("fit", NPZ, "-q", "--format", "json", "--force", "-m", "temperature,vector")
    found = read_json(calib_here(*arguments, "--set", "vector.penalty=0.5", "--loss", "brier"))
    assert [stage["kind"] for stage in found["stages"]] == ["temperature", "vector"]
    assert found["options"]["vector"] == {"penalty": 0.5, "prior": 4.0}
    assert found["loss"] == "brier"
    plain = read_json(calib_here(*arguments, "--loss", "brier"))
    assert plain["stages"] != found["stages"]


@pytest.mark.parametrize("method", ["none", *MAPS])
def test_every_method_goes_from_fit_to_apply(calib_here, method):
    with np.load(NPZ) as arrays:
        columns = 2 if method in MAPS and MAPS[method].binary_only else 10
        logits = arrays["logits"][:, :columns]
        np.savez("a.npz", logits=logits, labels=np.minimum(arrays["labels"], columns - 1))
    files = ("--test", "a.npz", "-p", "p.safetensors", "-o", "fit.npz")
    assert calib_here("fit", "a.npz", "-q", "-m", method, *files)[0] == 0
    assert calib_here("apply", "p.safetensors", "a.npz", "-q", "-o", "apply.npz")[0] == 0
    np.testing.assert_array_equal(probs_of(Path("fit.npz")), probs_of(Path("apply.npz")))
    code, out, _ = calib_here("inspect", "p.safetensors")
    assert code == 0
    assert "parameters" in out


def separable(path: str) -> None:
    """Data on which no temperature is low enough."""
    labels = np.arange(60) % 3
    np.savez(path, logits=np.eye(3, dtype=np.float32)[labels] * 5, labels=labels)


def test_a_fit_without_an_answer_says_so(calib_here):
    separable("sep.npz")
    code, out, err = calib_here("fit", "sep.npz", "-q")
    assert (code, err) == (0, "")
    assert "DID NOT CONVERGE" in out
    stored = json.loads(Path("sep.params.json").read_text(encoding="utf-8"))
    assert stored["fit"]["converged"] is False
    assert stored["stages"][0]["parameters"] == {"temperature": 1.0}


@pytest.mark.parametrize("targets", [(), ("-p", "-"), ("-o", "-")])
def test_strict_writes_nothing_without_an_answer(calib_here, tmp_path, targets):
    separable("sep.npz")
    code, out, err = calib_here("fit", "sep.npz", "-q", "--strict", "--format", "json", *targets)
    assert code == 3
    assert err.startswith("calib: the fit did not converge")
    assert len(err.splitlines()) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"sample_data", "sep.npz"}
    if targets:
        assert not out
    else:
        found = json.loads(out)
        assert found["fit"]["converged"] is False
        assert found["params"] is None
        assert found["output"] is None


# The same run, the same bytes


def test_the_same_run_gives_the_same_bytes(calib_here):
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(22_000, 100)).astype(np.float32)
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    np.savez("a.npz", logits=logits, labels=labels)
    # The rows do not fit into 16 MB, and are read again for every pass.
    runs = [("--memory", "1G"), ("--threads", 1), ("--threads", 3, "--memory", "16M")]
    seen = []
    for number, options in enumerate(runs):
        names = (f"{number}.json", f"{number}.npz")
        code, _, err = calib_here("fit", "a.npz", "-q", "-p", names[0], "-o", names[1], *options)
        assert code == 0, err
        _, evaluated, _ = calib_here("evaluate", "a.npz", "-q", "--format", "json", *options)
        seen.append((Path(names[0]).read_bytes(), probs_of(Path(names[1])).tobytes(), evaluated))
    assert all(each == seen[0] for each in seen)


def test_apply_gives_what_fit_gave_and_what_python_gives(calib_here):
    assert calib_here("fit", VAL, "-q", "-m", "vector", "-p", "p.json", "-o", "fit.parquet")[0] == 0
    assert calib_here("apply", "p.json", VAL, "-q", "-o", "apply.parquet")[0] == 0
    first, second = (pq.read_table(name) for name in ("fit.parquet", "apply.parquet"))
    assert first.equals(second)
    expected = calibcli.load("p.json").predict_proba(logits_of(VAL))
    assert expected.dtype == np.float32
    np.testing.assert_array_equal(probs_of(Path("apply.parquet")), expected)
    np.testing.assert_array_equal(first["prediction"], expected.argmax(axis=1))
    np.testing.assert_array_equal(first["confidence"], expected.max(axis=1))


def test_rows_stay_in_order_with_all_their_columns(calib_here):
    assert calib_here("fit", VAL, "-q", "-p", "p.json")[0] == 0
    assert calib_here("apply", "p.json", TEST, "-o", "out.parquet")[0] == 0
    before, after = pq.read_table(TEST), pq.read_table("out.parquet")
    for name in ("id", "scan", "label"):
        assert after[name].equals(before[name])
    assert set(after.column_names) == {"probs", "prediction", "confidence", "id", "scan", "label"}


def test_apply_reports_in_json(calib_here):
    assert calib_here("fit", VAL, "-q", "-p", "p.json")[0] == 0
    arguments = ("apply", "p.json", TEST, "-q", "-o", "out.npz", "--format", "json")
    found = read_json(calib_here(*arguments))
    assert (found["command"], found["rows"], found["classes"]) == ("apply", 597, 10)
    assert (found["params"], found["output"]) == ("p.json", "out.npz")
    assert found["input"]["files"] == [str(TEST)]


def test_force_replaces_what_exists(calib_here):
    Path("p.json").write_text("old")
    Path("o.npz").write_text("old")
    arguments = ("fit", VAL, "-q", "-p", "p.json", "-o", "o.npz")
    assert calib_here(*arguments)[0] == 2
    assert Path("p.json").read_text() == "old"
    assert calib_here(*arguments, "--force")[0] == 0
    assert probs_of(Path("o.npz")).shape == (600, 10)


# evaluate


def test_the_json_of_an_evaluation(calib_here):
    found = read_json(calib_here("evaluate", TEST, "-q", "--format", "json"))
    assert (found["rows"], found["classes"]) == (597, 10)
    assert found["input"]["kind"] == "logits"
    assert set(found["metrics"]) == set(DEFAULT)
    assert sum(part["rows"] for part in found["reliability"]) == 597
    assert [part["upper"] for part in found["reliability"]][-1] == 1
    labels = pq.read_table(TEST)["label"].to_numpy()
    expected = calibcli.evaluate(logits_of(TEST), labels, input="logits")
    assert {name: part["value"] for name, part in found["metrics"].items()} == expected.values


def test_evaluate_runs_rows_through_parameters_first(calib_here):
    fitted = read_json(calib_here("fit", VAL, "--test", TEST, "-q", "--format", "json"))
    found = read_json(
        calib_here("evaluate", TEST, "-q", "-p", "digits_val.params.json", "--format", "json")
    )
    for name, part in fitted["after"]["metrics"].items():
        assert found["metrics"][name]["value"] == part["value"]
        assert found["metrics"][name]["low"] == part["low"]
    assert found["params"] == "digits_val.params.json"
    # Calibrated probabilities are float32, and the file says by their name what they are.
    found = read_json(calib_here("evaluate", fitted["output"], "-q", "--format", "json"))
    assert found["input"]["kind"] == "probs"
    for name, metric in found["metrics"].items():
        assert metric["value"] == pytest.approx(fitted["after"]["metrics"][name]["value"], abs=1e-5)


def test_several_inputs_stand_side_by_side(calib_here):
    found = read_json(calib_here("evaluate", VAL, TEST, NPZ, "-q", "--format", "json"))
    assert [result["rows"] for result in found["results"]] == [600, 597, 271]
    for result in found["results"]:
        alone = read_json(
            calib_here("evaluate", *result["input"]["files"], "-q", "--format", "json")
        )
        assert alone == result
    code, out, _ = calib_here("evaluate", VAL, TEST, "-q")
    assert code == 0
    assert all(name in out for name in ("digits_val.parquet", "digits_test.parquet"))


def test_every_format_says_the_same(calib_here):
    nll = read_json(calib_here("evaluate", TEST, "-q", "--format", "json"))["metrics"]["nll"]
    _, table, err = calib_here("evaluate", TEST, "-q", "--format", "table")
    _, markdown, _ = calib_here("evaluate", TEST, "-q", "--format", "markdown")
    _, text, _ = calib_here("evaluate", TEST, "-q", "--format", "csv")
    assert not err
    assert re.search(r"^NLL +↓ +0\.3214", table, re.MULTILINE)
    assert "| NLL ↓ | 0.3214 |" in markdown
    rows = {row["metric"]: row for row in csv.DictReader(io.StringIO(text))}
    assert float(rows["nll"]["value"]) == nll["value"]
    assert rows["nll"]["input"] == "digits_test.parquet"


def test_quiet_says_nothing(calib_here):
    assert calib_here("evaluate", VAL)[2] != ""
    assert calib_here("evaluate", VAL, "-q")[2] == ""
    assert calib_here("fit", VAL, "-q", "-p", "p.json", "-o", "o.npz")[2] == ""
    assert calib_here("apply", "p.json", VAL, "-q", "-o", "a.npz") == (0, "", "")


def test_what_is_left_out_is_said(calib_here):
    with np.load(NPZ) as arrays:
        labels = arrays["labels"].copy()
        labels[:3] = -100
        np.savez("a.npz", logits=arrays["logits"], labels=labels, note=np.array(["a", "b"]))
    code, _, err = calib_here("evaluate", "a.npz", "--ignore-label", -100)
    assert code == 0
    assert "calib: a.npz: left out 3 of the rows for their label\n" in err
    assert calib_here("fit", NPZ, "-q", "-p", "p.json")[0] == 0
    code, _, err = calib_here("apply", "p.json", "a.npz", "-o", "o.npz")
    assert code == 0
    assert "calib: a.npz: not in the output: note\n" in err
    assert "calib: wrote o.npz (rows: 271)\n" in err


def test_what_the_format_cannot_hold_is_said(calib_here):
    rows = pq.read_table(VAL)
    pq.write_table(rows.append_column("tags", pa.array([["en"]] * len(rows))), "a.parquet")
    line = "calib: o.npz: not in it: tags (.parquet and .arrow can hold it)\n"
    for words in (
        ("fit", "a.parquet", "-p", "p.json", "-o", "o.npz"),
        ("apply", "p.json", "a.parquet", "-o", "o.npz", "--force"),
        ("convert", "a.parquet", "-o", "o.npz", "--force"),
    ):
        code, _, err = calib_here(*words)
        assert code == 0, err
        assert line in err
    assert "not in it" not in calib_here("convert", "a.parquet", "-o", "o.arrow")[2]


# Columns with any name


@pytest.mark.parametrize("name", ["üñí 日本.parquet", "[bold]x[red].parquet", "a b'c.parquet"])
def test_names_of_files_and_columns_are_no_markup(calib_here, name):
    table = pq.read_table(VAL)
    names = ["[bold]" if column == "logits" else f"[/{column}]" for column in table.column_names]
    pq.write_table(table.rename_columns(names), name)
    options = ("--logits", "[bold]", "--labels", "[/label]")
    for output in ("table", "markdown", "csv", "json"):
        code, out, err = calib_here("evaluate", name, *options, "--format", output)
        assert code == 0, err
        assert (json.loads(out)["input"]["name"] if output == "json" else out).count(name)
        assert "logits column '[bold]'" in err
    code, out, err = calib_here("fit", name, *options, "-p", "p.json", "-o", "o.parquet")
    assert code == 0, err
    assert {"[/id]", "[/scan]"} <= set(pq.read_schema("o.parquet").names)
    code, out, _ = calib_here("inspect", name, *options)
    assert code == 0
    assert "[bold]" in out
    assert "[/scan]" in out


# inspect, methods, losses


def test_inspect_says_what_a_file_holds(calib_here):
    found = read_json(calib_here("inspect", VAL, "--format", "json"))
    assert (found["kind"], found["format"]) == ("data", "parquet")
    assert (found["rows"], found["classes"]) == (600, 10)
    assert found["stored_as"] == "float32"
    assert set(found["other_columns"]) == {"id", "scan"}
    assert found["rows_of_largest_class"] == {"one": 61}
    code, out, _ = calib_here("inspect", VAL)
    assert code == 0
    assert "column 'logits' (fixed_shape_tensor<float>[10])" in out


def test_inspect_says_what_a_parameter_file_holds(calib_here):
    assert calib_here("fit", VAL, "-q", "-p", "p.json")[0] == 0
    found = read_json(calib_here("inspect", "p.json", "--format", "json"))
    assert found["kind"] == "parameters"
    assert found["stages"] == ["temperature: temperature 2.2867"]
    assert found["fit"]["rows"] == 600
    code, out, _ = calib_here("inspect", "p.json")
    assert code == 0
    assert "temperature 2.2867" in out


def test_methods_and_losses_list_their_registries(calib_here):
    methods = read_json(calib_here("methods", "--format", "json", "--classes", 7))["methods"]
    assert [method["name"] for method in methods] == ["none", "auto", *MAPS]
    counts = {method["name"]: method["parameters"] for method in methods}
    assert (counts["temperature"], counts["vector"], counts["matrix"]) == (1, 14, 56)
    losses = read_json(calib_here("losses", "--format", "json"))["losses"]
    assert [loss["name"] for loss in losses] == list(OBJECTIVES)
    for command, entries in (("methods", methods), ("losses", losses)):
        code, out, err = calib_here(command)
        assert (code, err) == (0, "")
        for entry in entries:
            assert f"  {entry['name']} " in out
            _, card, _ = calib_here(command, entry["name"])
            for option in entry["options"]:
                assert f"{entry['name']}.{option['name']}={option['default']}" in card


# Standard input and output, as a pipe of a shell has them


def as_file(path: Path, table: pa.Table) -> bytes:
    """The table in the format of a suffix."""
    if path.suffix == ".npz":
        logits = np.stack(table["logits"].combine_chunks().to_numpy_ndarray())
        np.savez(path, logits=logits, labels=table["label"].to_numpy())
    else:
        make = pa.ipc.new_file if path.suffix == ".arrow" else pa.ipc.new_stream
        with pa.OSFile(str(path), "wb") as file, make(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=70)
    return path.read_bytes()


def test_every_command_reads_a_pipe(calib, tmp_path):
    blob = (tmp_path / VAL).read_bytes()
    done = calib("fit", "-", "-p", "p.json", "--format", "json", input=blob)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["after"]["metrics"]["nll"]["value"] == pytest.approx(0.228, abs=0.001)
    assert (found["params"], found["output"]) == ("p.json", None)
    assert b"not written: give them a name with -o" in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"p.json", "sample_data"}

    done = calib("evaluate", "-", "-p", "p.json", "-q", "--format", "json", input=blob)
    assert json.loads(done.stdout)["rows"] == 600
    assert not done.stderr

    done = calib("apply", "p.json", "-", "-o", "-", "-q", input=blob)
    assert (done.returncode, done.stderr) == (0, b"")
    table = pa.ipc.open_stream(done.stdout).read_all()
    expected = calibcli.load(tmp_path / "p.json").predict_proba(logits_of(tmp_path / VAL))
    probs = np.array(table["probs"].to_pylist())
    np.testing.assert_array_equal(probs, expected)


@pytest.mark.parametrize("suffix", ["npz", "arrow", "arrows"])
def test_a_pipe_may_carry_any_format(calib, tmp_path, suffix):
    blob = as_file(tmp_path / f"data.{suffix}", pq.read_table(tmp_path / VAL))
    done = calib("fit", "-", "-p", "-", "-q", input=blob)
    assert (done.returncode, done.stderr) == (0, b"")
    (stage,) = json.loads(done.stdout)["stages"]
    # Newton's method in float64, to the last bit but one.
    assert stage["parameters"]["temperature"] == pytest.approx(2.2866830751916707, rel=1e-12)


def test_the_parameter_file_can_go_through_a_pipe(calib, tmp_path):
    blob = (tmp_path / VAL).read_bytes()
    done = calib("fit", "-", "-p", "-", "-o", "fit.npz", input=blob)
    assert done.returncode == 0
    # Standard output is taken, so the table is talk.
    assert json.loads(done.stdout)["format"] == "calib-params"
    assert "converged after" in done.stderr.decode()
    params = done.stdout
    assert calib("apply", "-", VAL, "-o", "apply.npz", input=params).returncode == 0
    np.testing.assert_array_equal(probs_of(tmp_path / "fit.npz"), probs_of(tmp_path / "apply.npz"))
    done = calib("inspect", "-", "--format", "json", input=params)
    assert json.loads(done.stdout)["kind"] == "parameters"
    done = calib("inspect", "-", "--format", "json", input=blob)
    assert json.loads(done.stdout)["rows"] == 600


def test_arrow_streams_pass_through(calib, calib_here, tmp_path):
    assert calib_here("fit", VAL, "-q", "-p", "p.json")[0] == 0
    table = pq.read_table(tmp_path / VAL)
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        for batch in itertools.islice(itertools.cycle(table.to_batches(100)), 30):
            writer.write_batch(batch)
    done = calib("apply", "p.json", "-", "-o", "-", "-q", input=sink.getvalue())
    out = pa.ipc.open_stream(done.stdout).read_all()
    assert out.num_rows == 3000
    assert out["id"].to_pylist() == (table["id"].to_pylist() * 5)[:3000]
