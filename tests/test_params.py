"""The parameter file: byte-exact, the same content back, and nothing else let in."""

from __future__ import annotations

import copy
import json
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from every_stage import calibrators_of_every_kind
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from calibcli.arrays import softmax
from calibcli.calibrators.affine import MatrixScaling, VectorScaling
from calibcli.calibrators.base import Calibrator
from calibcli.calibrators.binary import Platt
from calibcli.calibrators.focal_temperature import FocalTemperature
from calibcli.calibrators.identity import Identity
from calibcli.calibrators.low_rank import LowRank
from calibcli.calibrators.registry import CALIBRATORS, read_calibrator
from calibcli.calibrators.temperature import Temperature
from calibcli.errors import ParamsError
from calibcli.params import LARGEST_FILE, Params, Stage, decode, encode, read
from calibcli.tables.read_options import Reading, ReadOptions, remembered_options
from calibcli.workflow.records import read_calibrators, to_calibrators

GOLDEN = Path(__file__).parent / "golden" / "params"

SCALE, BIAS = np.array([0.5, 1.25, 0.1]), np.array([0.25, 0.0, -0.25])
MATRIX = np.array([[1.0, -0.5, 1e-7], [0.1, 0.9, 0.0], [0.0, 1 / 3, 2.0]])


def stage_of(calibrator: Calibrator) -> Stage:
    return Stage(calibrator.kind, calibrator.parameters())


THREE = Params(
    classes=3,
    input="log-probs",
    stages=tuple(
        stage_of(calibrator)
        for calibrator in (
            Temperature(1.3744),
            VectorScaling(SCALE, BIAS),
            MatrixScaling(MATRIX, BIAS),
            Identity(),
        )
    ),
    class_names=("cat", "Hündin", 'say "eel", twice'),
    fit={
        "method": "temperature,vector,matrix,none",
        "loss": "nll",
        "options": {"vector": {"penalty": 1e-06}},
        "rows": 600,
        "seed": 0,
        "converged": True,
        "criterion": ["step", "gradient", "gradient", "none"],
        "gradient_norm": 1.25e-12,
        "notes": [],
    },
    metrics={
        "measured_on": "cross-fit",
        "folds": 5,
        "before": {"nll": 0.5, "ece": None},
        "after": None,
    },
    data=[{"path": "val.parquet", "bytes": 25652, "sha256": "7743b384" * 8}],
    software={"calibcli": "0.1.0"},
)
FOCAL = Params(
    classes=3,
    input="logits",
    stages=(stage_of(FocalTemperature(1.9592, -2.012)),),
    fit={"method": "focal-temperature", "loss": "nll", "preserves": "order"},
)
LOW_RANK = Params(
    classes=3,
    input="logits",
    stages=(stage_of(LowRank(SCALE, BIAS, MATRIX[:, :2], MATRIX[1:])),),
    fit={"method": "low-rank", "loss": "nll", "preserves": "nothing"},
)
TWO = Params(classes=2, input="probs", stages=(stage_of(Platt(-1.5, 0.1)),))

REMEMBERED: dict[str, Any] = {
    "input": "percent",
    "renormalise": True,
    "multi_label": True,
    "label_names": ["cat", "dog"],
    "class_axis": "none",
    "member_axis": 0,
    "members": "mean-logits",
    "member_count": 5,
    "num_classes": 2,
    "topk_rest": "floor",
    "topk_spaces": "keep",
    "positive": 0,
    "label_numbers": [-1, 1],
}
READ = replace(TWO, reading=REMEMBERED)

FILES = {
    "read.json": (READ, False),
    "read.safetensors": (READ, True),
    "focal.json": (FOCAL, False),
    "low_rank.json": (LOW_RANK, False),
    "three.json": (THREE, False),
    "three.safetensors": (THREE, True),
    "two.json": (TWO, False),
}

each_file = pytest.mark.parametrize("name", FILES)
each_format = pytest.mark.parametrize("safetensors", [False, True], ids=["json", "safetensors"])


def same(left: Params, right: Params) -> bool:
    """Whether all numbers are equal to the last bit, lists being as good as arrays."""
    return encode(left) == encode(right)


@each_file
def test_files_are_written_as_they_always_were(name):
    params, safetensors = FILES[name]
    assert encode(params, safetensors=safetensors) == (GOLDEN / name).read_bytes()


@each_file
def test_files_of_every_version_stay_readable(name):
    assert same(read(GOLDEN / name), FILES[name][0])


def test_all_that_a_fit_remembers_is_in_a_golden_file_and_repeated():
    assert REMEMBERED.keys() == remembered_options().keys()
    content = read(GOLDEN / "read.json")
    assert json.loads((GOLDEN / "read.json").read_text())["version"] == 3
    options = ReadOptions().repeating(Reading("read.json", content.reading))
    for name, value in REMEMBERED.items():
        assert getattr(options, name) == (tuple(value) if isinstance(value, list) else value)


@pytest.mark.parametrize("name", ["three.json", "three.safetensors"])
def test_a_file_is_the_map_that_the_formulas_say(name):
    logits = np.array([[1.0, -2.0, 0.5], [0.0, 3.0, 3.0]])
    expected = np.log(softmax(logits / 1.3744))
    expected = np.log(softmax(expected * SCALE + BIAS))
    expected = softmax(expected @ MATRIX.T + BIAS)
    for stage in to_calibrators(read(GOLDEN / name)):
        logits = stage.log_probs(logits)
    np.testing.assert_allclose(np.exp(logits), expected, rtol=1e-12)


def test_a_person_can_read_and_compare_it():
    lines = (GOLDEN / "three.json").read_text(encoding="utf-8").splitlines()
    assert '        "temperature": 1.3744' in lines
    assert '  "class_names": ["cat", "Hündin", "say \\"eel\\", twice"],' in lines
    # A row of a matrix is a line, so that a diff shows which one changed.
    assert "          [0.1, 0.9, 0.0]," in lines


# Round trips


ALL = {classes: calibrators_of_every_kind(classes) for classes in (2, 3)}


def test_there_is_an_example_of_every_kind():
    assert {calibrator.kind for calibrator in ALL[2]} == set(CALIBRATORS)


@each_format
@pytest.mark.parametrize("classes", ALL)
def test_every_calibrator_comes_back_to_the_last_bit(safetensors, classes):
    logits = np.random.default_rng(1).normal(size=(50, classes)) * 5
    for calibrator in ALL[classes]:
        params = Params(classes, "logits", (stage_of(calibrator),))
        found = decode(encode(params, safetensors=safetensors))
        assert same(found, params)
        (restored,) = to_calibrators(found)
        np.testing.assert_array_equal(
            restored.probs(logits), calibrator.probs(logits), err_msg=calibrator.kind
        )


@each_format
@given(numbers=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=6, max_size=6))
def test_every_number_comes_back_to_the_last_bit(safetensors, numbers):
    values = np.array(numbers)
    params = Params(3, "logits", (stage_of(VectorScaling(values[:3], values[3:])),))
    (stage,) = decode(encode(params, safetensors=safetensors)).stages
    restored = read_calibrator(stage.kind, stage.parameters, 3)
    stored = np.concatenate(list(restored.parameters().values()))
    np.testing.assert_array_equal(stored.view(np.int64), values.view(np.int64))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@each_format
@settings(max_examples=60)
@given(information=st.dictionaries(st.text(), json_values, max_size=3))
def test_any_information_can_be_written_and_read_again(safetensors, information):
    blob = encode(
        Params(3, "logits", THREE.stages, fit=information, software=information),
        safetensors=safetensors,
    )
    found = decode(blob)
    # What is not a finite number has become null, for good.
    assert encode(found, safetensors=safetensors) == encode(
        decode(encode(found, safetensors=safetensors)), safetensors=safetensors
    )
    assert found.fit == found.software


def test_numbers_that_json_has_not_become_null():
    blob = encode(Params(2, "logits", (), fit={"norm": float("nan"), "x": [float("inf")]}))
    assert decode(blob).fit == {"norm": None, "x": [None]}


@each_format
def test_a_path_that_is_no_text_comes_back(safetensors):
    path = b"caf\xe9.npz".decode("utf-8", "surrogateescape")
    params = Params(2, "logits", (), data=[{"path": path}])
    blob = encode(params, safetensors=safetensors)
    assert decode(blob).data == [{"path": path}]


# Refusals


def document() -> dict[str, Any]:
    """What is in the golden file, to be spoilt."""
    found: dict[str, Any] = json.loads((GOLDEN / "three.json").read_text(encoding="utf-8"))
    return found


def refusal(content: bytes | str | dict[str, Any]) -> str:
    """The message with which a content is refused: one line."""
    if isinstance(content, dict):
        content = json.dumps(content)
    blob = content.encode() if isinstance(content, str) else content
    with pytest.raises(ParamsError) as caught:
        to_calibrators(decode(blob))
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def set_at(*path: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    """A change of a document that sets a value deep inside."""

    def change(document: Any) -> None:
        for key in path[:-1]:
            document = document[key]
        document[path[-1]] = value

    return change


def parameter(stage: int, name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return set_at("stages", stage, "parameters", name, value=value)


SPOILT: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "another format": (set_at("format", value="onnx"), "not a parameter file"),
    "no format": (lambda d: d.pop("format"), "not a parameter file"),
    "a newer version": (set_at("version", value=4), "version 4 is not known"),
    "a version that is no number": (set_at("version", value="1"), "version '1' is not known"),
    "no version": (lambda d: d.pop("version"), "version None is not known"),
    "an unknown key": (set_at("stage", value=[]), "unknown key 'stage'"),
    "no stages": (lambda d: d.pop("stages"), "key 'stages' is missing"),
    "no classes": (lambda d: d.pop("classes"), "key 'classes' is missing"),
    "no input": (lambda d: d.pop("input"), "key 'input' is missing"),
    "classes as text": (set_at("classes", value="3"), "'classes' has the wrong type"),
    "classes as truth": (set_at("classes", value=True), "'classes' has the wrong type"),
    "a fractional class count": (set_at("classes", value=3.0), "'classes' has the wrong type"),
    "one class": (set_at("classes", value=1), "'classes' is 1"),
    "an absurd class count": (set_at("classes", value=1 << 25), "'classes' is 33554432"),
    "another class count": (set_at("classes", value=4), "class_names"),
    "another kind of input": (set_at("input", value="odds"), "'input' is 'odds'"),
    "a class name that is no text": (set_at("class_names", 1, value=1), "must be 3 texts"),
    "a class name twice": (set_at("class_names", 1, value="cat"), "'cat' twice"),
    "half a character": (set_at("class_names", 1, value="\ud800"), "surrogate"),
    "stages that are no list": (set_at("stages", value={}), "'stages' has the wrong type"),
    "a stage that is no object": (set_at("stages", 0, value="temperature"), "stage 0 must have"),
    "a stage with more in it": (set_at("stages", 1, "note", value=""), "stage 1 must have"),
    "a kind that is no text": (set_at("stages", 0, "kind", value=1), "stage 0 must have a text"),
    "an unknown kind": (set_at("stages", 0, "kind", value="splines"), "'splines'; this version"),
    "an unknown parameter": (parameter(0, "bias", 0.0), "unknown parameter 'bias'"),
    "a missing parameter": (lambda d: d["stages"][1]["parameters"].pop("bias"), "'bias' is miss"),
    "a temperature of 0": (parameter(0, "temperature", 0), "greater than 0"),
    "a negative temperature": (parameter(0, "temperature", -1.5), "greater than 0"),
    "a temperature that is text": (parameter(0, "temperature", "1.5"), "must be a number"),
    "a temperature that is truth": (parameter(0, "temperature", True), "must be a number"),
    "a temperature that is null": (parameter(0, "temperature", None), "must be a number"),
    "a temperature that is a list": (parameter(0, "temperature", [1.5]), "must be a number"),
    "a scale too few": (parameter(1, "scale", [1.0, 2.0]), "shape (2,), not (3,)"),
    "a ragged matrix": (parameter(2, "matrix", [[1.0], [1.0, 2.0], []]), "matrix is not an arr"),
    "a flat matrix": (parameter(2, "matrix", [1.0] * 9), "shape (9,), not (3, 3)"),
    "null in a matrix": (
        set_at("stages", 2, "parameters", "matrix", 1, 2, value=None),
        "matrix[1, 2] is not a number",
    ),
    "a text in a matrix": (
        set_at("stages", 2, "parameters", "matrix", 0, 1, value="1"),
        "matrix[0, 1] is not a number",
    ),
    "a tensor that is not there": (parameter(1, "scale", {"tensor": "s"}), "no tensor"),
    "a tensor that is no name": (parameter(1, "scale", {"tensor": ["s"]}), "no tensor"),
    "an object as a parameter": (parameter(1, "scale", {"a": 1}), "no tensor"),
    "a fit that is no object": (set_at("fit", value=[]), "'fit' has the wrong type"),
    "data that are no list": (set_at("data", value={}), "'data' has the wrong type"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_whatever_is_not_specified_is_refused(name):
    change, message = SPOILT[name]
    spoilt = document()
    change(spoilt)
    assert message in refusal(spoilt)


TEXTS = {
    "an empty file": ("", "not valid JSON"),
    "half a file": (json.dumps(document())[:700], "not valid JSON"),
    "a list": ("[1, 2]", "not a parameter file"),
    "a number": ("1", "not a parameter file"),
    "another file of ours": ('{"schema_version": 1}', "not a parameter file"),
    "NaN": (json.dumps(document()).replace("1.3744", "NaN"), "NaN is not allowed"),
    "infinity": (json.dumps(document()).replace("1.3744", "-Infinity"), "-Infinity is not all"),
    "1e999": (json.dumps(document()).replace("1.3744", "1e999"), "must be finite"),
    "1e999 in a matrix": (json.dumps(document()).replace("1e-07", "1e999"), "matrix[0, 2]"),
    "1e999 in the information": (json.dumps(document()).replace("25652", "1e999"), "'data'"),
    "a number without end": (
        json.dumps(document()).replace("1.3744", "1" + "0" * 400),
        "10000000… has 401 digits",
    ),
    "a key twice": (json.dumps(document()).replace('"fit": {', '"classes": 3, "fit": {'), "twice"),
    "a parameter twice": (
        json.dumps(document()).replace("1.3744", '1.0, "temperature": 2.0'),
        "'temperature' occurs twice",
    ),
    "a deep list": ("[" * 100_000, "not valid JSON"),
    "a deep parameter": (
        json.dumps(document()).replace("1.3744", "[" * 200 + "]" * 200),
        "'temperature' is nested",
    ),
    "deep information": (
        json.dumps(document()).replace("25652", "[" * 40 + "]" * 40),
        "'data' is nested",
    ),
    "a byte order mark": ("\ufeff" + json.dumps(document()), "not valid JSON"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_texts_that_are_no_parameter_file(name):
    text, message = TEXTS[name]
    assert message in refusal(text)


def safetensors_with(tensors: dict[str, Any], spoilt: Any = None, **metadata: str) -> bytes:
    """A safetensors file whose document has tensors for the vector stage."""
    found = document() if spoilt is None else spoilt
    found["stages"] = [
        {
            "kind": "vector",
            "parameters": {"scale": {"tensor": "s"}, "bias": {"tensor": "b"}},
        }
    ]
    return save(tensors, metadata={"calib": json.dumps(found), **metadata})


def test_safetensors_are_refused_as_strictly():
    good = {"s": SCALE, "b": BIAS}
    assert decode(safetensors_with(good)).stages[0].parameters["scale"] is not None
    spoilt = {
        "names no tensor": safetensors_with({"s": SCALE}),
        "no stage uses the tensor 'more'": safetensors_with({**good, "more": BIAS}),
        "unknown key 'by' in the metadata": safetensors_with(good, by="me"),
        "shape (2,), not (3,)": safetensors_with({**good, "s": SCALE[:2]}),
        "float32; it must be of float64": safetensors_with({**good, "s": SCALE.astype("f4")}),
        "not a finite number": safetensors_with({**good, "b": np.array([0, np.nan, 0])}),
        "safetensors format": save(good),
    }
    spoilt["safetensors format "] = safetensors_with(good)[:-8]
    spoilt[" safetensors format"] = b"\xff" * 8 + safetensors_with(good)[8:]
    for message, blob in spoilt.items():
        assert message.strip() in refusal(blob)


@pytest.mark.parametrize(
    "blob",
    [b"\x80\x04K\x01.", b"PK\x03\x04" + bytes(30), b"PAR1" + bytes(30), b"\x93NUMPY", bytes(100)],
    ids=["pickle", "npz", "parquet", "npy", "zeros"],
)
def test_other_files_are_no_parameter_files(blob):
    assert refusal(blob)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ParamsError, match=r"no\.json: No such file or directory"):
        read(tmp_path / "no.json")
    with pytest.raises(ParamsError, match=f"^{tmp_path}: is a folder, not a parameter file$"):
        read(tmp_path)
    huge = tmp_path / "huge.json"
    with huge.open("wb") as file:
        file.truncate(LARGEST_FILE + 1)
    with pytest.raises(ParamsError, match=r"huge\.json: has more than 1073741824 bytes"):
        read(huge)


@pytest.mark.parametrize(
    ("beginning", "again", "message"),
    [
        (b"", b"{", "neither JSON nor safetensors"),
        (b"", b" ", "neither JSON nor safetensors"),
        (b"", b"0", "neither JSON nor safetensors"),
        (b'{"format": ', b"[", "more than 100,000 brackets are not closed"),
        (b"{", b'"a":{', "more than 100,000 brackets are not closed"),
    ],
)
def test_a_stream_without_an_end_is_refused_after_its_first_megabytes(beginning, again, message):
    end, begin = os.pipe()
    written = [0]

    def write() -> None:
        try:
            os.write(begin, beginning)
            while True:
                written[0] += os.write(begin, again * (65536 // len(again)))
        except BrokenPipeError:
            os.close(begin)

    writer = threading.Thread(target=write)
    writer.start()
    with pytest.raises(ParamsError, match=message):
        read(f"/dev/fd/{end}")
    os.close(end)
    writer.join()
    assert written[0] < 4 << 20


def test_the_message_names_the_file_whatever_is_wrong(tmp_path):
    spoilt = document()
    parameter(0, "temperature", -1.0)(spoilt)
    path = tmp_path / "p.json"
    path.write_text(json.dumps(spoilt))
    with pytest.raises(ParamsError, match=rf"^{path}: stage 'temperature': .* greater than 0"):
        read_calibrators(path)
    path.write_text("{")
    with pytest.raises(ParamsError, match=rf"^{path}: not valid JSON"):
        read_calibrators(path)


# Attacks


def outcome(blob: bytes) -> None:
    """Read as a command would; a parameter error is as good an end as none."""
    try:
        params = decode(blob)
        stages = to_calibrators(params)
    except ParamsError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017 (there may be no error)
        return
    # What was let in can be used and written again.
    encode(params)
    for stage in stages:
        assert isinstance(stage.summary(), str)


@given(st.binary(max_size=200))
def test_random_bytes_are_read_or_refused(blob):
    outcome(blob)
    outcome(b"{" + blob)
    outcome(len(blob).to_bytes(8, "little") + b"{" + blob)


edits = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 3), st.binary(max_size=4)),
    min_size=1,
    max_size=4,
)


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=150)
@given(edits)
def test_damaged_files_are_read_or_refused(name, damage):
    blob = bytearray((GOLDEN / name).read_bytes())
    for place, removed, added in damage:
        at = int(place * len(blob))
        blob[at : at + removed] = added
    outcome(bytes(blob))


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The places of everything in a document, however deep."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for key, item in items:
        found.append((*path, key))
        if isinstance(item, (dict, list)):
            found += leaves(item, (*path, key))
    return found


def full_document() -> dict[str, Any]:
    """A document with a stage of every kind."""
    params = Params(2, "logits", tuple(map(stage_of, ALL[2])), ("a", "b"))
    found: dict[str, Any] = json.loads(encode(params))
    return found


FULL = full_document()
PLACES = leaves(FULL)

STRANGE = [
    *(None, True, 0, -1, 2.5, 1e308, 10**17, "", "x"),
    *([], {}, [[]], [1.0], [[1.0]], [None], ["1"], [True, False], [1, [2]], {"tensor": "x"}),
]


@pytest.mark.parametrize("kind", sorted(CALIBRATORS))
def test_strange_parameters_are_read_or_refused(kind):
    stage = next(stage for stage in FULL["stages"] if stage["kind"] == kind)
    for name in stage["parameters"]:
        for value in STRANGE:
            parameters = {**stage["parameters"], name: value}
            outcome(json.dumps({**FULL, "stages": [{**stage, "parameters": parameters}]}).encode())


@settings(max_examples=200)
@given(st.sampled_from([place for place in PLACES if place[0] != "stages"]), json_values)
def test_strange_values_anywhere_are_read_or_refused(place, value):
    spoilt = copy.deepcopy(FULL)
    set_at(*place, value=value)(spoilt)
    outcome(json.dumps(spoilt).encode())
