"""What a fit remembers of how its input was read, and what later inputs make of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from calibcli import params
from calibcli.errors import ParamsError
from calibcli.tables.read_options import Reading, ReadOptions, remembered_options

RNG = np.random.default_rng(11)
LOGITS = 2 * RNG.normal(size=(400, 3))
LABELS = (0.5 * LOGITS + RNG.gumbel(size=LOGITS.shape)).argmax(axis=1)
PROBS = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)


def write(path: Path, **columns: object) -> str:
    pq.write_table(pa.table(columns), path)
    return str(path)


@pytest.fixture
def run(calib_here):
    return calib_here


def fitted(run, *options: str) -> dict:
    code, _, err = run("fit", "fit.parquet", "-p", "p.json", "-m", "temperature", *options)
    assert code == 0, err
    return json.loads(Path("p.json").read_text())


def values(run, *arguments: str) -> dict[str, float]:
    code, out, err = run("evaluate", *arguments, "--format", "json", "--bootstrap", "0")
    assert code == 0, err
    return {name: each["value"] for name, each in json.loads(out)["metrics"].items()}


def test_percentages_are_repeated_and_said(run, tmp_path) -> None:
    write(tmp_path / "fit.parquet", probs=list(100 * PROBS), label=LABELS)
    write(tmp_path / "plain.parquet", probs=list(PROBS), label=LABELS)
    written = fitted(run, "--input", "percent")
    assert (written["version"], written["input"]) == (3, "probs")
    assert written["reading"] == {"version": 1, "input": "percent"}
    temperature = written["stages"][0]["parameters"]["temperature"]
    # The same by hand: probabilities to the power 1 / T.
    powers = PROBS ** (1 / temperature)
    chosen = (powers / powers.sum(axis=1, keepdims=True))[np.arange(400), LABELS]
    assert values(run, "fit.parquet", "-p", "p.json")["nll"] == pytest.approx(
        -np.log(chosen).mean()
    )
    code, _, err = run("apply", "p.json", "fit.parquet", "-o", "o.parquet")
    assert code == 0
    assert "--input percent, as p.json says" in err
    read = np.array(pq.read_table("o.parquet")["probs"].to_pylist())
    assert np.allclose(read, powers / powers.sum(axis=1, keepdims=True), atol=1e-6)


@pytest.mark.parametrize("asked", ["logits", "probs"])
def test_what_contradicts_a_fit_is_refused(run, tmp_path, asked) -> None:
    write(tmp_path / "fit.parquet", scores=list(100 * PROBS), label=LABELS)
    fitted(run, "--input", "percent")
    for command in (["apply", "p.json", "fit.parquet", "-o", "o.npz"], ["evaluate", "fit.parquet"]):
        given = ["-p", "p.json"] if command[0] == "evaluate" else []
        code, _, err = run(*command, *given, "--input", asked)
        assert code == 2
        (line,) = err.splitlines()
        assert f"--input {asked}: p.json was fitted with --input percent" in line


def test_values_that_are_none_of_the_kind_that_was_fitted_are_refused(run, tmp_path) -> None:
    write(tmp_path / "fit.parquet", probs=list(100 * PROBS), label=LABELS)
    write(tmp_path / "plain.parquet", probs=list(PROBS), label=LABELS)
    fitted(run, "--input", "percent")
    code, _, err = run("apply", "p.json", "plain.parquet", "-o", "o.npz")
    assert code == 2
    assert "p.json has --input percent, but the values" in err


def test_renormalising_is_repeated(run, tmp_path) -> None:
    off = np.minimum(1.04 * PROBS, 1.049)
    write(tmp_path / "fit.parquet", probs=list(off), label=LABELS)
    written = fitted(run, "--input", "probs", "--renormalise")
    assert written["reading"] == {"version": 1, "input": "probs", "renormalise": True}
    code, _, err = run("apply", "p.json", "fit.parquet", "-o", "o.npz")
    assert code == 0, err
    assert "--input probs --renormalise, as p.json says" in err


@pytest.mark.parametrize("kept", [[1], [-1], [-1, 1]])
def test_signs_are_repeated_whatever_labels_are_there(run, tmp_path, kept) -> None:
    truth = LABELS > 0
    signs = np.where(truth, 1, -1)
    write(tmp_path / "fit.parquet", logit=LOGITS[:, 0], label=signs)
    rows = np.isin(signs, kept)
    write(tmp_path / "t.parquet", logit=LOGITS[rows, 0], label=signs[rows])
    written = fitted(run)
    assert written["reading"]["label_numbers"] == [-1, 1]
    predicted = LOGITS[rows, 0] > 0
    assert values(run, "t.parquet", "-p", "p.json")["accuracy"] == pytest.approx(
        (predicted == truth[rows]).mean()
    )
    code, _, err = run("apply", "p.json", "t.parquet", "-o", "o.parquet")
    assert code == 0, err
    assert (np.array(pq.read_table("o.parquet")["label"]) == truth[rows]).all()


def class_columns(rows: np.ndarray, names: str = "1 2 3") -> dict[str, np.ndarray]:
    return {f"logit_{name}": LOGITS[rows, k] for k, name in enumerate(names.split())}


@pytest.mark.parametrize("first", [0, 1])
def test_numbers_of_labels_are_repeated_where_a_class_is_absent(run, tmp_path, first) -> None:
    """Labels 1 and 2 alone, of classes called 1 to 3, would else be taken for names."""
    everything = np.arange(400)
    write(tmp_path / "fit.parquet", **class_columns(everything), label=LABELS + first)
    rows = np.flatnonzero(np.isin(LABELS + first, [1, 2]))
    write(tmp_path / "t.parquet", **class_columns(rows), label=LABELS[rows] + first)
    assert fitted(run)["reading"]["label_numbers"] == [first, 1 + first, 2 + first]
    expected = (LOGITS[rows].argmax(axis=1) == LABELS[rows]).mean()
    assert values(run, "t.parquet", "-p", "p.json")["accuracy"] == pytest.approx(expected)
    code, _, err = run(
        *("fit", "fit.parquet", "--test", "t.parquet", "-p", "q.json", "-o", "q.npz"),
        *("-m", "temperature"),
    )
    assert code == 0, err
    after = json.loads(Path("q.json").read_text())["metrics"]["after"]
    assert after["accuracy"] == pytest.approx(expected)


def test_labels_that_are_none_of_the_numbers_are_refused(run, tmp_path) -> None:
    write(tmp_path / "fit.parquet", **class_columns(np.arange(400)), label=LABELS + 1)
    write(tmp_path / "t.parquet", **class_columns(np.arange(400)), label=LABELS)
    fitted(run)
    code, _, err = run("evaluate", "t.parquet", "-p", "p.json")
    assert code == 2
    assert "the label 0 is none of the classes 1, 2, 3" in err
    # Where labels are not needed such a row has none that is known.
    assert run("apply", "p.json", "t.parquet", "-o", "o.parquet")[0] == 0
    written = pq.read_table("o.parquet")["label"].to_pylist()
    assert written == [None if label == 0 else label - 1 for label in LABELS.tolist()]


def test_the_order_of_classes_is_repeated(run, tmp_path) -> None:
    names = ("low", "medium", "high")
    write(
        tmp_path / "fit.parquet",
        **class_columns(np.arange(400), " ".join(names)),
        label=[names[k] for k in LABELS],
    )
    write(tmp_path / "t.parquet", logits=list(LOGITS), label=[names[k] for k in LABELS])
    fitted(run, "--classes", "low,medium,high")
    expected = (LOGITS.argmax(axis=1) == LABELS).mean()
    for file in ("fit.parquet", "t.parquet"):
        assert values(run, file, "-p", "p.json")["accuracy"] == pytest.approx(expected)


def test_files_without_decisions_stay_of_the_first_version(run, tmp_path) -> None:
    write(tmp_path / "fit.parquet", logits=list(LOGITS), label=LABELS)
    written = fitted(run)
    assert written["version"] == 1
    assert "reading" not in written


HURT = {
    "a version that is not known": ({"version": 2, "input": "percent"}, "of version 2"),
    "no version": ({"input": "percent"}, "of version None"),
    "an option that is not known": ({"version": 1, "shape": "cube"}, "shape = 'cube'"),
    "an option that is not remembered": ({"version": 1, "labels": "y"}, "labels = 'y'"),
    "a value that is none": ({"version": 1, "renormalise": 1}, "renormalise = 1"),
    "a list of texts": ({"version": 1, "label_numbers": ["a", "b"]}, "label_numbers"),
    "a text as numbers": ({"version": 1, "label_numbers": "01"}, "label_numbers"),
    "another number of classes": ({"version": 1, "label_numbers": [0, 1, 2, 3]}, "4 numbers"),
}


@pytest.mark.parametrize("case", HURT)
def test_what_is_not_known_of_a_reading_is_refused(run, tmp_path, case) -> None:
    write(tmp_path / "fit.parquet", logits=list(LOGITS), label=LABELS)
    reading, message = HURT[case]
    document = fitted(run) | {"version": 3, "reading": reading}
    Path("p.json").write_text(json.dumps(document))
    code, _, err = run("evaluate", "fit.parquet", "-p", "p.json")
    assert code == 2
    assert message in err
    assert len(err.splitlines()) == 1


def test_earlier_versions_have_no_reading() -> None:
    content = params.encode(params.Params(2, "logits", (), reading={"input": "percent"})).decode()
    with pytest.raises(ParamsError, match="unknown key 'reading'"):
        params.decode(content.replace('"version": 3', '"version": 2').encode())
    assert params.decode(content.encode()).reading == {"input": "percent"}


def test_what_was_given_alike_is_no_contradiction() -> None:
    reading = Reading("p.json", {"input": "percent", "renormalise": True})
    options = ReadOptions(input="percent").repeating(reading)
    assert (options.input, options.renormalise) == ("percent", True)
    assert options.repeated == "--renormalise"
    assert not options.repeats("input")


# All that a fit remembers


def npz(path: str, **arrays: object) -> None:
    np.savez(path, **arrays)


def tokens(path: str, *, spaces: bool) -> None:
    """The most probable two of three classes, whose tokens have spaces before them or not."""
    rows = [
        [
            {"token": f"{' ' * spaces}{'abc'[k]}", "logprob": float(np.log(row[k]))}
            for k in np.argsort(-row)[:2]
        ]
        for row in PROBS
    ]
    write(Path(path), top_logprobs=pa.array(rows), label=["abc"[k] for k in LABELS])


MEMBERS = LOGITS[:, None, :] + RNG.normal(size=(400, 2, 3))
IMAGES = LOGITS.reshape(10, 40, 3)
MULTI = (RNG.random(size=(400, 3)) < 1 / (1 + np.exp(-LOGITS))).astype(int)
SIGNS = np.where(LABELS > 0, 1, -1)
MULTI_COLUMNS = {
    f"{what}_{name}": values[:, k]
    for what, values in (("logit", LOGITS), ("label", MULTI))
    for k, name in enumerate("abc")
}

CASES = {
    "input": (
        lambda: npz("fit.npz", scores=100 * PROBS, label=LABELS),
        ["--input", "percent"],
        ["--input", "logits"],
    ),
    "renormalise": (
        lambda: npz("fit.npz", scores=np.minimum(1.04 * PROBS, 1.049), label=LABELS),
        ["--input", "probs", "--renormalise"],
        ["--input", "logits"],
    ),
    "multi_label": (lambda: npz("fit.npz", logits=LOGITS, labels=MULTI), ["--multi-label"], None),
    "label_names": (
        lambda: write(Path("fit.parquet"), **MULTI_COLUMNS),
        ["--multi-label"],
        ["--classes", "a,c,b"],
    ),
    "class_axis": (
        lambda: npz("fit.npz", logits=IMAGES, labels=LABELS.reshape(10, 40)),
        ["--class-axis", "2"],
        ["--class-axis", "1"],
    ),
    "member_axis": (
        lambda: npz("fit.npz", logits=MEMBERS, labels=LABELS),
        ["--member-axis", "1", "--members", "mean-probs"],
        ["--member-axis", "0"],
    ),
    "members": (
        lambda: npz("fit.npz", logits=MEMBERS, labels=LABELS),
        ["--members", "mean-logits"],
        ["--members", "mean-probs"],
    ),
    "member_count": (
        lambda: npz("fit.npz", logits=MEMBERS, labels=LABELS),
        ["--members", "mean-probs"],
        lambda: npz("fit.npz", logits=np.repeat(MEMBERS, 2, axis=1), labels=LABELS),
    ),
    "num_classes": (
        lambda: write(Path("fit.parquet"), logits=list(LOGITS), label=LABELS),
        ["--num-classes", "4"],
        ["--num-classes", "5"],
    ),
    "topk_rest": (
        lambda: tokens("fit.parquet", spaces=False),
        ["--classes", "a,b,c", "--topk-rest", "floor"],
        ["--topk-rest", "share"],
    ),
    "topk_spaces": (
        lambda: tokens("fit.parquet", spaces=True),
        ["--classes", "a,b,c"],
        ["--topk-spaces", "keep"],
    ),
    "positive": (
        lambda: npz("fit.npz", logits=LOGITS[:, :2], label=(LABELS > 0) * 1),
        ["--positive", "0"],
        ["--positive", "1", "--threshold", "0.5"],
    ),
    "label_numbers": (
        lambda: npz("fit.npz", logits=LOGITS[:, 0], label=SIGNS),
        [],
        lambda: npz("fit.npz", logits=LOGITS[:, 0], label=SIGNS + 1),
    ),
}
"""By option: what writes the file, the options of the fit, and what contradicts them: options, or
another file. No option takes --multi-label back."""


@pytest.mark.parametrize("name", CASES)
def test_each_decision_is_repeated_and_nothing_else_is_taken(run, tmp_path, name) -> None:
    save, options, contradiction = CASES[name]
    save()
    (file,) = (path.name for path in tmp_path.glob("fit.*"))
    fit = ["fit", file, "-p", "p.json", "-m", "temperature", *options, "-o", "o.parquet"]
    code, _, err = run(*fit)
    assert code == 0, err
    assert name in json.loads(Path("p.json").read_text())["reading"]
    outputs = []
    # What only a fit knows needs no option of its own.
    given = [] if name == "positive" else options
    for more in ([], given):
        code, _, err = run("apply", "p.json", file, "-o", "a.parquet", "--force", *more)
        assert code == 0, err
        outputs.append(Path("a.parquet").read_bytes())
    assert outputs[0] == outputs[1]
    if contradiction is None:
        return
    if not isinstance(contradiction, list):
        contradiction()
        contradiction = []
    measured = "--threshold" not in contradiction
    commands = [["apply", "p.json", file, "-o", "a.parquet", "--force"]]
    commands += [["evaluate", file, "-p", "p.json"]] if measured else []
    codes = [run(*command, *contradiction) for command in commands]
    if name == "label_numbers":  # which are not needed to apply
        codes = codes[1:]
    assert [code for code, _, _ in codes] == [2] * len(codes)
    assert all(
        "p.json" in err or "the fit" in err or "calibrator" in err or name == "label_numbers"
        for _, _, err in codes
    )


def test_the_cases_are_all_that_a_fit_remembers() -> None:
    assert CASES.keys() == remembered_options().keys()


def test_the_positive_class_of_a_fit_is_what_is_measured_and_decided(run) -> None:
    probs = PROBS[:, :2] / PROBS[:, :2].sum(axis=1, keepdims=True)
    npz("fit.npz", probs=probs, label=(LABELS > 0) * 1)
    fit = ["fit", "fit.npz", "-p", "p.json", "-m", "temperature", "--positive", "0"]
    assert run(*fit)[0] == 0
    code, out, err = run("evaluate", "fit.npz", "-p", "p.json", "--format", "json")
    assert code == 0, err
    assert json.loads(out)["positive"]["class"] == 0
    decide = ["apply", "p.json", "fit.npz", "-o", "o.npz", "--force", "--threshold", "0.7"]
    assert run(*decide)[0] == 0
    written = np.load("o.npz")
    assert (written["decision"] == np.where(written["probs"][:, 0] >= 0.7, 0, 1)).all()
    for command in (decide, ["evaluate", "fit.npz", "-p", "p.json"]):
        code, _, err = run(*command, "--positive", "1")
        assert code == 2
        assert "--positive 1: " in err
        assert "was fitted with --positive 0" in err
