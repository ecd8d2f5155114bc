"""ONNX models of calibrators, as onnxruntime runs them, against the calibrators themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from every_stage import calibrators_of_every_kind

import calibcli
from calibcli.calibrators.affine import MatrixScaling, VectorScaling
from calibcli.calibrators.base import Calibrator
from calibcli.calibrators.groups import Groups
from calibcli.calibrators.links import link_of
from calibcli.calibrators.temperature import Temperature
from calibcli.cli.app import run as run_calib
from calibcli.export.onnx_model import onnx_model
from calibcli.export.recording import make_vectors, record
from calibcli.objectives.registry import OBJECTIVES
from calibcli.params import Params, Stage

LINKS = [link for each in OBJECTIVES.values() if (link := link_of(each())) is not None]
CASES = [
    pytest.param(classes, stage, id=f"{stage.kind}-{getattr(stage, 'loss', '')}-{classes}")
    for classes in (2, 3, 10)
    for stage in [*calibrators_of_every_kind(classes), *LINKS[:-1]]
]
TOLERANCE = {"float32": 1e-6, "float64": 1e-12}
ILL_CONDITIONED = {"parameterized-temperature": 1e-5}
"""In float32 a row's temperature, from a network, is off by more; as it is in calib apply."""


def session(model: Any) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    content = model.SerializeToString()
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def params_of(classes: int, *stages: Calibrator, **more: Any) -> Params:
    described = tuple(Stage(stage.kind, stage.parameters()) for stage in stages)
    return Params(**{"classes": classes, "input": "logits", "stages": described, **more})


def check(params: Params, stages: tuple[Calibrator, ...], precision: str, tolerance: float) -> None:
    dtype = np.dtype(precision)
    vectors = make_vectors(params, stages, dtype)
    model = onnx_model(record(params, stages, dtype))
    probs, label, confidence = session(model).run(None, vectors.arrays())
    assert probs.dtype == dtype
    np.testing.assert_allclose(probs, vectors.probs, rtol=0, atol=tolerance)
    assert np.array_equal(label, probs.argmax(axis=1))
    assert np.array_equal(confidence, probs.max(axis=1))


@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize(("classes", "stage"), CASES)
def test_every_stage(classes, stage, precision):
    tolerance = TOLERANCE[precision]
    if precision == "float32":
        tolerance = ILL_CONDITIONED.get(stage.kind, tolerance)
    check(params_of(classes, stage), (stage,), precision, tolerance)


@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize("kind", ["log-probs", "probs"])
def test_other_scores(kind, precision):
    stage = VectorScaling(np.array([1.0, 0.5, 2.0]), np.array([0.0, 1.0, -1.0]))
    for reading in ({}, {"input": "percent", "renormalise": True}):
        params = params_of(3, stage, input=kind, reading=reading if kind == "probs" else {})
        check(params, (stage,), precision, TOLERANCE[precision])


@pytest.mark.parametrize("precision", TOLERANCE)
def test_a_thousand_classes(precision):
    rng = np.random.default_rng(0)
    matrix = np.eye(1000) + 0.001 * rng.normal(size=(1000, 1000))
    stages = (Temperature(1.5), MatrixScaling(matrix, rng.normal(size=1000)))
    check(params_of(1000, *stages), stages, precision, TOLERANCE[precision])


def test_a_row_has_the_map_of_its_group():
    own = ((Temperature(0.5),), ())
    stage = Groups("site", ("a", "b"), (Temperature(2.0),), own, np.array([0.7, 0.0]))
    check(params_of(3, stage), (stage,), "float64", 1e-12)


def test_a_model_says_what_it_is():
    names = ("cat", '"; DROP', "ünïcödé")
    params = params_of(3, Temperature(2.0), class_names=names, reading={"input": "percent"})
    model = onnx_model(record(params, (Temperature(2.0),)))
    properties = {each.key: each.value for each in model.metadata_props}
    assert json.loads(properties["calib.class_names"]) == list(names)
    assert json.loads(properties["calib.stages"]) == ["temperature"]
    assert json.loads(properties["calib.reading"]) == {"input": "percent"}
    assert properties["calib.input"] == "logits"
    assert model.opset_import[0].version == 13


# At the end of a classifier


def classifier(
    path: Path, *, opset: int = 17, double: bool = False, outputs: int = 1
) -> np.ndarray:
    """Write a linear classifier of five features; its matrix (5, 3)."""
    rng = np.random.default_rng(1)
    matrix = rng.normal(size=(5, 3)).astype(np.float64 if double else np.float32)
    kind = onnx.TensorProto.DOUBLE if double else onnx.TensorProto.FLOAT
    names = ["logits", "more"][:outputs]
    nodes = [onnx.helper.make_node("MatMul", ["x", "calib_w"], ["logits"])]
    nodes += [onnx.helper.make_node("Neg", ["logits"], ["more"])] * (outputs - 1)
    graph = onnx.helper.make_graph(
        nodes,
        "classifier",
        [onnx.helper.make_tensor_value_info("x", kind, ["n", 5])],
        [onnx.helper.make_tensor_value_info(name, kind, ["n", 3]) for name in names],
        [onnx.numpy_helper.from_array(matrix, "calib_w")],
    )
    opsets = [onnx.helper.make_opsetid("", opset)]
    onnx.save(onnx.helper.make_model(graph, ir_version=9, opset_imports=opsets), path)
    return matrix


@pytest.fixture
def fitted(tmp_path, monkeypatch) -> calibcli.FittedCalibrator:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(200, 3)) * 3
    labels = (logits / 2 + rng.gumbel(size=logits.shape)).argmax(axis=1)
    found = calibcli.fit(logits, labels, method="isotonic", folds=0)
    found.save("p.json")
    return found


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("opset", [13, 18, 21])
def test_a_classifier_gets_its_calibrator(fitted, opset, double):
    matrix = classifier(Path("m.onnx"), opset=opset, double=double)
    command = ["export", "p.json", "-o", "both.onnx", "--append-to", "m.onnx", "-q"]
    assert run_calib(command) == 0
    x = np.random.default_rng(2).normal(size=(9, 5)).astype(matrix.dtype)
    probs, *_ = session(onnx.load("both.onnx")).run(["probs"], {"x": x})
    expected = fitted.predict_proba(x @ matrix)
    np.testing.assert_allclose(probs, expected, rtol=0, atol=1e-12 if double else 2e-6)


def test_which_output_are_the_scores_is_asked(fitted, capfd):
    matrix = classifier(Path("m.onnx"), outputs=2)
    command = ["export", "p.json", "-o", "both.onnx", "--append-to", "m.onnx", "-q"]
    assert run_calib(command) == 2
    assert "--model-output takes one of: 'logits', 'more'" in capfd.readouterr().err
    assert run_calib([*command, "--model-output", "none"]) == 2
    assert "has no output 'none'" in capfd.readouterr().err
    assert run_calib([*command, "--model-output", "more"]) == 0
    x = np.ones((1, 5), np.float32)
    probs, *_ = session(onnx.load("both.onnx")).run(["probs"], {"x": x})
    np.testing.assert_allclose(probs, fitted.predict_proba(-(x @ matrix)), rtol=0, atol=2e-6)


@pytest.mark.usefixtures("fitted")
def test_a_model_of_other_classes_or_none_is_refused(capfd):
    classifier(Path("m.onnx"))
    calibcli.fit(np.eye(4), range(4), folds=0).save("four.json")
    assert run_calib(["export", "four.json", "-o", "x.onnx", "--append-to", "m.onnx"]) == 2
    assert "has 3 classes, the calibrator 4" in capfd.readouterr().err
    Path("bad.onnx").write_bytes(b"no model")
    for name, line in (("bad.onnx", "is not a valid ONNX model"), ("none.onnx", "No such file")):
        assert run_calib(["export", "p.json", "-o", "x.onnx", "--append-to", name]) == 2
        assert line in capfd.readouterr().err
    classifier(Path("old.onnx"), opset=12)
    assert run_calib(["export", "p.json", "-o", "x.onnx", "--append-to", "old.onnx"]) == 2
    assert "from opset 13 on it can be calibrated" in capfd.readouterr().err
