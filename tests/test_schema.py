"""What commands print as JSON against the types that say what is in it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from calibcli.schema import documents, parts

CalibHere = Callable[..., tuple[int, str, str]]

PLAIN: dict[Any, tuple[type, ...]] = {
    str: (str,),
    bool: (bool,),
    int: (int,),
    float: (int, float),
    NoneType: (NoneType,),
    Any: (object,),
}
"""What JSON is read as."""


def faults(value: Any, kind: Any, place: str = "") -> Iterator[str]:
    """Where a value of JSON is not what a type says."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Annotated, NotRequired):
        yield from faults(value, parts[0], place)
    elif origin in (Union, UnionType):
        if all(any(faults(value, part)) for part in parts):
            yield from (fault for part in parts for fault in faults(value, part, place))
    elif origin is Literal:
        if value not in parts:
            yield f"{place}: {value!r} is none of {parts}"
    elif isinstance(value, list | dict) and kind is not Any:
        yield from faults_inside(value, kind, place)
    elif not isinstance(value, PLAIN.get(kind, ())) or (kind is int and isinstance(value, bool)):
        yield f"{place}: {value!r} is no {kind}"


def faults_inside(value: list[Any] | dict[str, Any], kind: Any, place: str) -> Iterator[str]:
    origin, parts = get_origin(kind), get_args(kind)
    if isinstance(value, list) and origin is Sequence:
        for number, each in enumerate(value):
            yield from faults(each, parts[0], f"{place}[{number}]")
    elif isinstance(value, dict) and origin is Mapping:
        for key, each in value.items():
            yield from faults(each, parts[1], f"{place}.{key}")
    elif isinstance(value, dict) and is_typeddict(kind):
        yield from faults_of_object(value, kind, place)
    else:
        yield f"{place}: {value!r} is no {kind}"


def faults_of_object(value: dict[str, Any], kind: Any, place: str) -> Iterator[str]:
    hints = get_type_hints(kind, include_extras=True)
    for key, hint in hints.items():
        if key in value:
            yield from faults(value[key], hint, f"{place}.{key}")
        elif get_origin(hint) is not NotRequired:
            yield f"{place}.{key} is missing"
    yield from (f"{place}.{key} is not known" for key in value if key not in hints)


@pytest.fixture
def rows(tmp_path: Path) -> None:
    """Three classes with weights, sites and patients, and two classes, in the test's own folder."""
    rng = np.random.default_rng(3)
    for name, classes in (("a", 3), ("b", 3), ("two", 2)):
        labels = rng.integers(classes, size=240)
        logits = 2 * rng.standard_normal((240, classes)) + 2 * np.eye(classes)[labels]
        columns = {
            "logits": pa.FixedSizeListArray.from_arrays(logits.ravel(), classes),
            "label": pa.array(labels),
            "site": pa.array([f"site {number % 3}" for number in range(240)]),
            "patient": pa.array(np.arange(240) // 4),
        }
        pq.write_table(pa.table(columns), tmp_path / f"{name}.parquet")


FIT = "fit a.parquet -q --force -p p.json"
PRINTED = [
    ("evaluate a.parquet", documents.EvaluateDocument),
    ("evaluate a.parquet --bootstrap 0 --metrics all", documents.EvaluateDocument),
    ("evaluate two.parquet --metrics all", documents.EvaluateDocument),
    (
        "evaluate a.parquet --by site --by-class --tests --refit temperature --cluster patient",
        documents.EvaluateDocument,
    ),
    ("evaluate a.parquet b.parquet", documents.SeveralDocument),
    ("evaluate a.parquet --refit temperature --bootstrap 0", documents.EvaluateDocument),
    (FIT, documents.FitDocument),
    (f"{FIT} -m none", documents.FitDocument),
    (f"{FIT} -m temperature --test b.parquet -o o.parquet", documents.FitDocument),
    (f"{FIT} -m vector --loss class-wise", documents.FitDocument),
    (f"{FIT} -m temperature --loss focal", documents.FitDocument),
    (f"{FIT} -m temperature --by site", documents.FitDocument),
    (f"{FIT} -m auto --stack", documents.FitDocument),
    ("compare a.parquet --methods temperature,vector --stack", documents.CompareDocument),
    ("compare two.parquet --methods temperature,platt", documents.CompareDocument),
    ("inspect a.parquet", documents.DataDocument),
    ("methods", documents.MethodsDocument),
    ("methods svs", documents.MethodsDocument),
    ("losses", documents.LossesDocument),
    ("metrics", documents.MetricsDocument),
    ("config --all", documents.ConfigDocument),
]


def printed(calib_here: CalibHere, words: str) -> Any:
    """What a command prints as JSON."""
    code, out, err = calib_here(*words.split(), "--format", "json")
    assert code in (0, 1), err
    return json.loads(out)


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize(("words", "kind"), PRINTED, ids=[words for words, _ in PRINTED])
def test_a_document_is_of_its_type(words: str, kind: Any, calib_here: CalibHere) -> None:
    assert not [*faults(printed(calib_here, words), kind)]


@pytest.mark.usefixtures("rows")
def test_documents_with_gates_are_of_their_types(calib_here: CalibHere) -> None:
    conditions = ("ece > 0.001", "worst(ece) by site > 0.5", "slices.failed > 0", "ece.low < 0")
    gates = [word for condition in conditions for word in ("--fail-if", condition)]
    code, out, _ = calib_here("evaluate", "a.parquet", "-q", *gates, "--format", "json")
    assert code == 1
    document = json.loads(out)
    assert len(document["gates"]) == len(conditions)
    assert not [*faults(document, documents.EvaluateDocument)]


@pytest.mark.usefixtures("rows")
def test_documents_with_a_baseline_are_of_their_types(calib_here: CalibHere) -> None:
    Path("b.json").write_text(json.dumps(printed(calib_here, "evaluate a.parquet")))
    gate = "--baseline b.json --significant --fail-if nll.delta>0"
    document = printed(calib_here, f"evaluate a.parquet {gate}")
    assert document["baseline"]
    assert not [*faults(document, documents.EvaluateDocument)]


@pytest.mark.usefixtures("rows")
def test_documents_about_files_are_of_their_types(calib_here: CalibHere) -> None:
    fit = f"{FIT} -m temperature --loss cals --trace t.json"
    assert not [*faults(printed(calib_here, fit), documents.FitDocument)]
    trace = json.loads(Path("t.json").read_text(encoding="utf-8"))
    assert not [*faults(trace, documents.TraceDocument)]
    assert not [*faults(printed(calib_here, "inspect p.json"), documents.ParametersDocument)]
    applied = printed(calib_here, "apply p.json a.parquet -o applied.parquet")
    assert not [*faults(applied, documents.ApplyDocument)]


@pytest.mark.usefixtures("rows")
def test_runs_and_their_history_are_of_their_types(calib_here: CalibHere) -> None:
    gate = "--fail-if nll<0 --metrics nll,ece --bootstrap 50"
    printed(calib_here, f"evaluate a.parquet b.parquet --append r --run 1 {gate}")
    printed(calib_here, "evaluate a.parquet --append r --metrics nll --bootstrap 0")
    lines = [json.loads(line) for line in Path("r").read_text(encoding="utf-8").splitlines()]
    assert len(lines) == 3
    assert not [fault for line in lines for fault in faults(line, documents.RunDocument)]
    for metric in ("ece", "nll"):
        history = printed(calib_here, f"history r --metric {metric} --fail-if ece.trend>0")
        assert not [*faults(history, documents.HistoryDocument)]


def test_a_plan_of_gates_is_of_its_type(calib_here: CalibHere) -> None:
    assert not [*faults(printed(calib_here, "gates plan --limit 0.1"), documents.PlanDocument)]


def test_faults_are_found() -> None:
    part = {"rows": 2, "column": "site", "count": "3"}
    assert [*faults(part, parts.ClustersPart)] == [
        ".count: '3' is no <class 'int'>",
        ".rows is not known",
    ]
    assert [*faults({"low": 0.5}, parts.IntervalPart)] == [".high is missing"]
    assert any(faults([{"low": 0.5, "high": "x"}], Sequence[parts.IntervalPart]))
    assert any(faults({"a": None}, Mapping[str, float]))
    assert any(faults({"a": 1}, Sequence[int]))
    assert any(faults(True, int))
    assert not [*faults({"value": None}, parts.MetricPart)]
