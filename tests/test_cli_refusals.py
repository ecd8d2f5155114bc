"""Whatever is wrong with a file or an option is one line on stderr that says what and where.

The commands run in this process, since there are many cases; `test_cli_processes.py` starts them
as a user does.
"""

from __future__ import annotations

import json
import pickle
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from calibcli.params import Params, Stage, encode

ROWS, CLASSES = 60, 4
NAMES = np.array(["cat", "dog", "eel", "fox"])

Outcome = tuple[int, str, str]
Calib = Callable[..., Outcome]


def scores(rows: int = ROWS, classes: int = CLASSES) -> np.ndarray:
    return np.random.default_rng(7).normal(size=(rows, classes)).astype(np.float32) * 3


def labels(logits: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(8).gumbel(size=logits.shape)
    return (logits / 2 + noise).argmax(axis=1)


def table(logits: np.ndarray, **columns: object) -> pa.Table:
    lists = pa.FixedSizeListArray.from_arrays(pa.array(logits.ravel()), logits.shape[1])
    return pa.table({"logits": lists, **columns})


def changed(array: np.ndarray, place: object, value: object) -> np.ndarray:
    array = array.copy()
    array[place] = value
    return array


@pytest.fixture(scope="module")
def garbage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of files, each wrong in its own way, and two that are right."""
    folder = tmp_path_factory.mktemp("garbage")
    z = scores()
    y = labels(z)
    arrays: dict[str, dict[str, object]] = {
        "ok": {"logits": z, "labels": y},
        "norows": {"logits": z[:0], "labels": y[:0]},
        "nocolumns": {"logits": z[:, :0], "labels": y},
        "nan": {"logits": changed(z, (17, 2), np.nan), "labels": y},
        "inf": {"logits": changed(z, (17, 2), np.inf), "labels": y},
        "impossible": {"logits": changed(z, 17, -np.inf), "labels": y},
        "impossible_label": {"logits": changed(z, (17, y[17]), -np.inf), "labels": y},
        "label_above": {"logits": z, "labels": changed(y, 5, 9)},
        "label_below": {"logits": z, "labels": changed(y, 5, -100)},
        "label_fraction": {"logits": z, "labels": changed(y.astype(float), 3, 1.5)},
        "label_nan": {"logits": z, "labels": changed(y.astype(float), 3, np.nan)},
        "label_names": {"logits": z, "labels": NAMES[y]},
        "label_matrix": {"logits": z, "labels": changed(np.eye(CLASSES)[y], (3, 0), -1.0)},
        "label_few": {"logits": z, "labels": y[:-1]},
        "wide": {"logits": scores(classes=5), "labels": y},
        "probs_as_logits": {"logits": softmax(z), "labels": y},
        "logits_as_probs": {"probs": z, "labels": y},
        "integers": {"logits": z.astype(int), "labels": y},
        "complex": {"logits": z.astype(complex), "labels": y},
        "objects": {"logits": np.array([z, None], dtype=object), "labels": y},
        "three_axes": {"logits": z.reshape(2, 30, CLASSES), "labels": y},
        "weights": {"logits": z, "labels": y, "w": changed(np.ones(ROWS), 4, -1.0)},
        "nothing": {"a": z, "b": y},
    }
    for name, content in arrays.items():
        np.savez(folder / f"{name}.npz", **content)  # type: ignore[arg-type]
    np.save(folder / "objects.npy", np.array([z, None], dtype=object), allow_pickle=True)
    np.save(folder / "scores.npy", z)
    rows = z.tolist()
    lists = {"null": None, "null_value": [1.0, None, 2.0, 3.0], "ragged": []}
    for name, odd in lists.items():
        column = pa.array([*rows[:7], odd, *rows[8:]], pa.list_(pa.float32()))
        pq.write_table(pa.table({"logits": column, "label": y}), folder / f"{name}.parquet")
    below = changed(y, 5, -100)
    pq.write_table(table(z, label=below, id=np.arange(ROWS)), folder / "label_below.parquet")
    missing = pa.array([None, *y[1:].tolist()])
    pq.write_table(table(z, label=missing), folder / "label_null.parquet")
    pq.write_table(table(z, label=NAMES[y]), folder / "label_names.parquet")
    pq.write_table(
        table(z, label=y).rename_columns(["[bold]z[/]", "[red]"]), folder / "markup.parquet"
    )
    pq.write_table(table(z, label=y), folder / "ok.parquet")
    whole = (folder / "ok.parquet").read_bytes()
    for name, third in (("named", "eel"), ("other", "elk")):
        metadata = {"calib.classes": json.dumps(["cat", "dog", third, "fox"])}
        pq.write_table(
            table(z, label=y).replace_schema_metadata(metadata), folder / f"{name}.parquet"
        )
    (folder / "half.parquet").write_bytes(whole[: len(whole) // 2])
    whole = (folder / "ok.npz").read_bytes()
    (folder / "half.npz").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.parquet").write_bytes(b"")
    (folder / "text.csv").write_text("Dear all, the scores will follow.\n")
    (folder / "model.pkl").write_bytes(pickle.dumps((z, y)))
    (folder / "model.pt").write_bytes(b"PK\x03\x04" + b"\0" * 26 + b"archive/data.pkl")
    (folder / "folder").mkdir()
    (folder / "exists.parquet").write_bytes(b"precious")
    (folder / "exists.json").write_bytes(b"precious")
    params = Params(CLASSES, "logits", (Stage("temperature", {"temperature": 1.5}),))
    (folder / "p.json").write_bytes(encode(params))
    params = Params(CLASSES, "logits", (), class_names=("cat", "eel", "dog", "fox"))
    (folder / "named.json").write_bytes(encode(params))
    return folder


def softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


@pytest.fixture
def calib(garbage: Path, calib_here: Calib, monkeypatch: pytest.MonkeyPatch) -> Calib:
    """``calib("fit ok.npz -q")`` among the garbage."""
    monkeypatch.chdir(garbage)
    return lambda line: calib_here(*shlex.split(line))


def refusal(outcome: Outcome) -> str:
    """The one line that a refused command prints."""
    code, out, err = outcome
    assert code == 2, err
    assert not out
    assert err.startswith("calib: ")
    assert err.endswith("\n")
    assert len(err.splitlines()) == 1
    return err


# What is in a file

FILES = {
    "nothere.parquet": "nothere.parquet: there is no such file",
    "'no*.parquet'": "no*.parquet: no file matches",
    "folder": "folder: the folder holds no data file",
    "empty.parquet": "empty.parquet: the file is empty",
    "norows.npz": "norows.npz: there are no rows",
    "nocolumns.npz": "nocolumns.npz: the rows of scores are empty",
    "nan.npz": "nan.npz, row 17: the score of class 2 is NaN",
    "inf.npz": "inf.npz, row 17: the score of class 2 is +inf",
    "impossible.npz": "impossible.npz, row 17: every class has the logit -inf",
    "impossible_label.npz": "impossible_label.npz, row 17: class",
    "label_above.npz": "label_above.npz, row 5: label 9 is none of the classes 0 to 3",
    "label_below.npz": "row 5: label -100 is none of the classes 0 to 3 (--ignore-label -100",
    "label_fraction.npz": "label_fraction.npz, row 3: the label 1.5 is no whole number",
    "label_nan.npz": "label_nan.npz, row 3: the label is missing",
    "label_null.parquet": "label_null.parquet, row 0: the label is missing",
    "label_names.npz": "key 'labels' (string) holds class names, whose order is not known; give",
    "label_names.parquet": "column 'label' (string) holds class names",
    "label_names.npz --classes cat,dog,eel,emu": "the label 'fox' is no known class",
    "label_names.npz --classes cat,dog": "names 2 classes, but the scores have 4",
    "label_names.npz --classes cat,dog,eel,cat": "class 'cat' is there twice",
    "ok.npz --classes nothere.txt": "--classes nothere.txt: give at least two names",
    "label_matrix.npz": "label_matrix.npz, row 3: a value of the label is below 0 or no number",
    "label_few.npz": "key 'labels' has not as many rows as 'logits' (60)",
    "probs_as_logits.npz": "settle it with --input probs or --input logits",
    "logits_as_probs.npz": "settle it with --input probs or --input logits",
    "logits_as_probs.npz --input probs": "--input probs was given, but a value is",
    "integers.npz": "key 'logits' (int64[4]) cannot be scores",
    "complex.npz": "key 'logits' (complex128[4]) cannot be scores",
    "three_axes.npz": "(float32[30, 4]) and key 'labels' (int64): labels have the shape",
    "objects.npz": "objects.npz, key 'logits': an array of Python objects",
    "objects.npy": "objects.npy: an array of Python objects",
    "model.pkl": "model.pkl: stored as a pickle, which can run any code",
    "model.pt": "model.pt: ",
    "text.csv": "text.csv: there are no rows below the header",
    "half.npz": "half.npz: not a readable NPZ file",
    "half.parquet": "half.parquet: not a readable Parquet file",
    "null.parquet": "null.parquet, row 7: column 'logits' has no value here",
    "null_value.parquet": "null_value.parquet, row 7: column 'logits' has a missing value",
    "ragged.parquet": "ragged.parquet, row 7: column 'logits' has 0 values here, elsewhere 4",
    "scores.npy": "scores.npy: no labels were found",
    "nothing.npz": "no key with a name such as logits or probs; the keys are a, b",
    "markup.parquet": "the columns are [bold]z[/], [red]",
    "ok.npz --logits z": "ok.npz: no key 'z'; the keys are logits, labels",
    "ok.npz --logits z_*": "ok.npz: no key matches --logits 'z_*'",
    "ok.npz --labels y": "ok.npz: no key 'y'",
    "ok.npz --labels y.npy": "y.npy: there is no such file",
    "ok.npz --weights w": "ok.npz: no key 'w' for --weights",
    "weights.npz --weights w": "weights.npz, row 4: the weight -1.0 is not a finite number",
    "ok.npz --ignore-label none": "--ignore-label none: the labels are numbers",
}


@pytest.mark.parametrize("files", FILES)
def test_garbage_is_refused_with_its_place(calib, garbage, files):
    before = set(garbage.iterdir())
    for command in ("fit", "evaluate"):
        assert FILES[files] in refusal(calib(f"{command} {files} -q"))
    assert set(garbage.iterdir()) == before


APPLIED = {
    "nan.npz": "nan.npz, row 17: the score of class 2 is NaN",
    "inf.npz": "inf.npz, row 17: the score of class 2 is +inf",
    "impossible.npz": "impossible.npz, row 17: every class has the logit -inf",
    "norows.npz": "norows.npz: there are no rows",
    "wide.npz": "p.json is for 4 classes, but wide.npz has 5",
    "null.parquet": "null.parquet, row 7: column 'logits' has no value here",
    "model.pkl": "model.pkl: stored as a pickle",
}


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("file", APPLIED)
def test_apply_refuses_what_has_no_probabilities(calib, garbage, file):
    assert APPLIED[file] in refusal(calib(f"apply p.json {file} -q -o new.parquet"))
    assert not (garbage / "new.parquet").exists()


def test_other_classes_are_refused_wherever_they_meet(calib):
    message = refusal(calib("fit ok.npz wide.npz -q"))
    assert "key 'logits' is float32[5], but in ok.npz it is float32[4]" in message
    message = refusal(calib("evaluate wide.npz -q -p p.json"))
    assert "p.json is for 4 classes, but wide.npz has 5" in message
    message = refusal(calib("fit ok.npz --test wide.npz -q"))
    assert "wide.npz has 5 classes, ok.npz has 4" in message
    message = refusal(calib("fit named.parquet --test other.parquet -q"))
    assert "named.parquet: class 2 is 'eel' there, but 'elk' in other.parquet" in message
    message = refusal(calib("evaluate ok.npz --classes cat,dog,eel,fox -q -p named.json"))
    assert "class 1 is 'eel' there, but 'dog' in ok.npz" in message
    code, out, err = calib("inspect half.npz")
    assert (code, err) == (0, "")
    assert "half.npz: not a readable NPZ file" in out


@pytest.mark.parametrize("file", ["label_below.parquet", "label_below.npz"])
def test_a_label_to_be_left_out_leaves_its_row_out(calib, tmp_path, file):
    code, out, err = calib(
        f"fit {file} --ignore-label -100 -q --format csv -p {tmp_path}/p.json "
        f"-o {tmp_path}/o.parquet"
    )
    assert (code, err) == (0, "")
    assert out.startswith("input,measured,metric,value,estimate,low,high,column,slice\n")
    assert pq.read_metadata(tmp_path / "o.parquet").num_rows == ROWS - 1
    message = refusal(calib(f"evaluate {file} -q --ignore-label 5"))
    assert "label -100 is none of the classes" in message


# Options

OPTIONS = {
    "fit": "Missing argument 'INPUT' (see calib fit --help)",
    "fit ok.npz --nope": "No such option: --nope",
    "frobnicate": "No such command 'frobnicate'",
    "fit ok.npz --format xml": "Invalid value for '--format': 'xml' is not one of 'table', 'json'",
    "fit ok.npz --folds 1": "Invalid value for '--folds'",
    "fit ok.npz --threads -1": "Invalid value for '--threads'",
    "fit ok.npz --threads many": "Invalid value for '--threads'",
    "fit ok.npz --seed -1": "Invalid value for '--seed'",
    "fit ok.npz --seed 99999999999999999999": "Invalid value for '--seed'",
    "fit ok.npz --memory lots": "--memory 'lots' is not a size; write it as 256M or 2G",
    "fit ok.npz --memory 1": "--memory 1 is too little",
    "fit ok.npz --device gpu": "--device 'gpu' is not known; use auto, cpu, cuda or cuda:N",
    "fit ok.npz -m temperatur": "there is no method 'temperatur'; did you mean temperature?",
    "fit ok.npz -m ''": "Invalid value for '--method' / '-m': is empty",
    "fit ok.npz -m temperature,,vector": "there is no method ''",
    "fit ok.npz -q -m platt": "method platt is for two classes; the data has 4",
    "fit ok.npz --loss nl": "there is no loss 'nl'; did you mean nll? (there are:",
    "fit ok.npz --set penalty=1": "--set 'penalty=1' is not of the form NAME.OPTION=VALUE",
    "fit ok.npz --set vector.penalty": "is not of the form NAME.OPTION=VALUE",
    "fit ok.npz --set vector.penalty=1": "only temperature, nll are in use here",
    "fit ok.npz --set temperature.penalty=1": "temperature has no option 'penalty'; it has none",
    "fit ok.npz -m vector --set vector.pull=1": "it has: penalty (default 1e-06)",
    "fit ok.npz -m vector --set vector.penalty=x": "vector.penalty must be a finite number",
    "fit ok.npz -m vector --set vector.penalty=nan": "must be a finite number, not 'nan'",
    "fit ok.npz -m vector --set vector.penalty=1e999": "must be a finite number, not '1e999'",
    "fit ok.npz -o new.txt": "new.txt: the suffix must be one of .parquet",
    "fit ok.npz -p new.txt": "-p new.txt: the name must end in .json or .safetensors",
    "fit ok.npz -p - -o -": "only one can go to standard output",
    "fit ok.npz -p exists.json": "exists.json: exists already; --force replaces it",
    "fit ok.npz -o exists.parquet": "exists.parquet: exists already; --force replaces it",
    "fit ok.npz -o folder --force": "folder: is a folder; folder/ is one of parts",
    "fit ok.npz -p nowhere/p.json": "there is no folder",
    "fit ok.npz -o nowhere/o.npz": "there is no folder",
    "fit ok.npz -q -o ./ok.npz --force": "-o ./ok.npz: is an input; give the output another name",
    "fit ok.npz -q --test nan.npz -o nan.npz --force": "-o nan.npz: is an input",
    "fit - -": "standard input (-) can be read only once",
    "fit - --test -": "standard input (-) can be read only once",
    "evaluate - ok.npz -": "standard input (-) can be read only once",
    "evaluate - -p -": "standard input (-) can be read only once",
    "apply - - -o new.npz": "standard input (-) can be read only once",
    "apply p.json": "Missing argument 'INPUT'",
    "apply p.json ok.npz": "Missing option '--output' / '-o'",
    "apply p.json ok.npz -o exists.parquet": "exists.parquet: exists already; --force replaces it",
    "apply p.json ok.npz -q -o ok.npz --force": "-o ok.npz: is an input",
    "evaluate ok.npz -p p.json --openmetrics p.json --force": "--openmetrics p.json: is an input",
    "evaluate ok.npz --classes p.json --openmetrics ./p.json --force": "is an input",
    "evaluate ok.npz --baseline p.json --junit p.json --fail-if ece>1 --force": "is an input",
    "evaluate ''": "Invalid value for 'INPUT': is empty",
    "fit ok.npz --logits ''": "Invalid value for '--logits': is empty",
    "fit ok.npz --test ''": "Invalid value for '--test': is empty",
    "fit ok.npz -p ''": "is empty",
    "evaluate ok.npz --config ''": "--config is empty; a variable that is not set?",
    "evaluate ok.npz --classes nowhere": "with one name a line (No such file or directory)",
    "apply p.json ok.npz -o new.csv": "new.csv: the suffix must be one of",
    "apply p.json ok.npz -o new.npz --format csv": "'csv' is not one of 'table', 'json'",
    "apply ok.npz ok.npz -o new.npz": "ok.npz: not a parameter file",
    "apply nothere.json ok.npz -o new.npz": "nothere.json: No such file or directory",
    "apply folder ok.npz -o new.npz": "folder: is a folder, not a parameter file",
    "evaluate ok.npz -p exists.json": "exists.json: not valid JSON",
    "inspect ok.npz --format csv": "'csv' is not one of 'table', 'json'",
    "methods --format markdown": "'markdown' is not one of 'table', 'json'",
    "methods --classes 1": "Invalid value for '--classes'",
}


@pytest.mark.parametrize("line", OPTIONS)
def test_options_are_refused_before_any_work(calib, garbage, line):
    before = {path: path.stat().st_mtime_ns for path in garbage.iterdir()}
    assert OPTIONS[line] in refusal(calib(line))
    assert {path: path.stat().st_mtime_ns for path in garbage.iterdir()} == before


def test_an_error_line_is_one_line_and_not_endless(calib):
    message = refusal(calib("fit 'no\nsuch\nfile'"))
    assert "no such file: there is" in message
    assert len(refusal(calib(f"fit ok.npz --logits {'z' * 5000}"))) < 1100


def test_a_defect_is_reported_as_such(calib, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("oh\nno")

    monkeypatch.setattr("calibcli.tables.opening.open_dataset", fail)
    monkeypatch.setattr("calibcli.tables.open_dataset", fail, raising=False)
    code, out, err = calib("evaluate ok.npz")
    assert (code, out) == (70, "")
    assert err == (
        "calib: a defect of calib, please report it: ZeroDivisionError: oh no "
        "(CALIB_DEBUG=1 shows where)\n"
    )


def test_too_little_memory_is_no_defect(calib, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise MemoryError("Unable to allocate 1.00 PiB")

    monkeypatch.setattr("calibcli.cli.reading.opened", fail)
    message = refusal(calib("evaluate ok.npz"))
    assert "not enough memory (Unable to allocate 1.00 PiB); try a smaller --memory" in message


def test_a_parameter_file_is_no_data(calib_here, sample_data):
    val = sample_data / "digits_val.parquet"
    assert calib_here("fit", val, "-p", "ok.json", "-q", "--bootstrap", "0")[0] == 0
    for command in (("evaluate", "ok.json"), ("fit", "ok.json"), ("apply", "ok.json", "ok.json")):
        outputs = () if command[0] == "evaluate" else ("-o", "out.npz")
        code, _, err = calib_here(*command, *outputs)
        assert code == 2
        assert "ok.json: is a parameter file of calib, not data; calib inspect ok.json" in err


@pytest.mark.parametrize(
    "words",
    [
        "--logits a --logits b",
        "--memory 1G --memory 2G",
        "-p a.json --params b.json",
        "--seed 1 --seed 1",
    ],
)
def test_an_option_with_one_value_is_given_once(calib_here, words):
    code, _, err = calib_here("fit", "ok.npz", *words.split())
    assert code == 2
    assert "is given twice; it takes one value" in err
