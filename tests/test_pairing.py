"""Runs of the same rows are paired, whoever measured them and when; runs of others are not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import calibcli
from calibcli.calibrators.temperature import Temperature
from calibcli.engine.data import open_data
from calibcli.engine.engine import Engine
from calibcli.engine.folds import CLUSTER
from calibcli.engine.source import ArraySource
from calibcli.metrics.paired_changes import Run, paired_changes, why_unpaired
from calibcli.metrics.pairing import Recorded, change_by_spread, holm, p_of_difference
from calibcli.metrics.panel import Evaluation, Panel
from calibcli.metrics.resampling import Bootstrap, Interval, Units
from calibcli.metrics.view import View
from calibcli.report.pairings import MOST_BYTES, pairing_bytes
from calibcli.workflow.measuring import Through, measure
from calibcli.workflow.quantities import Estimate, unpaired

CalibHere = Callable[..., tuple[int, str, str]]

ROWS, CLASSES = 700, 4
NAMES = ("nll", "brier", "accuracy", "auroc", "ece", "ks", "adaptive_ece", "class_wise_ece")
JSON = ("-q", "--format", "json")


def some_rows(rows: int = ROWS, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    logits = 2 * generator.normal(size=(rows, CLASSES))
    return logits, (logits + generator.gumbel(size=logits.shape)).argmax(axis=1)


LOGITS, LABELS = some_rows()


def evaluated(
    logits: np.ndarray,
    labels: np.ndarray = LABELS,
    *,
    weights: np.ndarray | None = None,
    seed: int = 0,
    names: tuple[str, ...] = NAMES,
    **keys: list[str],
) -> Evaluation:
    coded = {role: np.unique(values, return_inverse=True) for role, values in keys.items()}
    source = ArraySource(
        logits,
        labels,
        weights,
        keys={role: codes for role, (_, codes) in coded.items()} or None,
        key_names={role: tuple(values.tolist()) for role, (values, _) in coded.items()},
    )
    data = open_data(Engine(threads=1), source, seed=seed)
    resampling = Bootstrap(200, seed, CLUSTER if CLUSTER in keys else None)
    panel = Panel(names, bootstrap=resampling, recorded=True)
    return measure(data, [Through()], panel)[0]


# What is paired


def test_a_model_has_no_change_from_itself() -> None:
    run = Run.of(evaluated(LOGITS))
    again = Run.of(evaluated(LOGITS.copy()))
    assert why_unpaired(again, run) == ""
    assert paired_changes(again, run) == dict.fromkeys(NAMES, Interval(0, 0))


@pytest.mark.parametrize("clustered", [False, True])
def test_a_mean_changes_as_if_both_were_measured_together(clustered: bool) -> None:
    keys = {CLUSTER: [f"c{row % 15:02}" for row in range(ROWS)]} if clustered else {}
    first, second = evaluated(LOGITS, **keys), evaluated(1.5 * LOGITS, **keys)
    changes = paired_changes(Run.of(second), Run.of(first))
    # Scores of both in one row, of which each predictor takes its own.
    codes = {CLUSTER: np.arange(ROWS) % 15} if clustered else None
    source = ArraySource(
        LOGITS, LABELS, keys=codes, key_names={CLUSTER: tuple(map(str, range(15)))}
    )
    data = open_data(Engine(threads=1), source)
    panel = Panel(NAMES, bootstrap=Bootstrap(200, 0, CLUSTER if clustered else None))
    _, together = measure(data, [Through(), Through((Temperature(1 / 1.5),))], panel)
    for name in ("nll", "brier", "accuracy", "auroc"):
        expected = tuple(together.changes[name])
        assert tuple(changes[name]) == pytest.approx(expected, abs=1e-6)


def test_paired_intervals_are_shorter() -> None:
    first, second = evaluated(LOGITS), evaluated(1.1 * LOGITS)
    for name, (low, high) in paired_changes(Run.of(second), Run.of(first)).items():
        now, then = (Estimate(each.figure(name), *each.intervals[name]) for each in (second, first))
        apart = unpaired(now, then)
        assert high - low < (apart.high - apart.low) / (3 if name in NAMES[:4] else 0.999), name


def test_three_rows_that_one_model_gets_right_are_no_proof() -> None:
    better = LOGITS.copy()
    wrong = np.flatnonzero(LOGITS.argmax(axis=1) != LABELS)[:12]
    for count, clear in ((3, False), (12, True)):
        better[wrong[:count], LABELS[wrong[:count]]] = 9.0
        change = paired_changes(Run.of(evaluated(better)), Run.of(evaluated(LOGITS)))["accuracy"]
        assert (change.low > 0) == clear


def test_what_is_not_finite_has_no_change() -> None:
    run = Run.of(evaluated(LOGITS))
    impossible = replace(run, figures={**run.figures, "nll": np.inf})
    assert set(paired_changes(impossible, run)) == set(NAMES) - {"nll"}
    assert set(paired_changes(run, impossible)) == set(NAMES) - {"nll"}


# What is not


def other_labels() -> np.ndarray:
    labels = LABELS.copy()
    labels[5] = (labels[5] + 1) % CLASSES
    return labels


@pytest.mark.parametrize(
    "other",
    [
        {"labels": other_labels()},
        {"weights": np.where(np.arange(ROWS) == 9, 2.0, 1.0)},
        {"cluster": [str(row // 2) for row in range(ROWS)]},
        {"id": [str(row) for row in range(ROWS)]},
    ],
)
def test_runs_of_other_rows_are_not_paired(other: dict[str, Any]) -> None:
    run, of_others = Run.of(evaluated(LOGITS)), Run.of(evaluated(LOGITS, **other))
    assert why_unpaired(of_others, run) == "other rows, labels, weights, clusters or ids"
    assert paired_changes(of_others, run) == {}


def test_weights_of_1_are_none() -> None:
    run = Run.of(evaluated(LOGITS))
    weighted = Run.of(evaluated(LOGITS, weights=np.ones(ROWS)))
    assert paired_changes(weighted, run) == dict.fromkeys(NAMES, Interval(0, 0))


def test_another_seed_is_not_paired() -> None:
    run, other = Run.of(evaluated(LOGITS)), Run.of(evaluated(LOGITS, seed=1))
    assert why_unpaired(other, run) == "another --seed"


def test_ids_show_what_labels_cannot() -> None:
    order = np.arange(ROWS)
    first, second = np.flatnonzero(LABELS[0] == LABELS)[:2]
    order[[first, second]] = order[[second, first]]
    ids = np.char.add("row", np.arange(ROWS).astype(str))
    swapped = Run.of(evaluated(LOGITS[order]))
    assert why_unpaired(swapped, Run.of(evaluated(LOGITS))) == ""
    named = Run.of(evaluated(LOGITS[order], id=ids[order].tolist()))
    assert why_unpaired(named, Run.of(evaluated(LOGITS, id=ids.tolist()))) != ""
    assert why_unpaired(named, Run.of(evaluated(LOGITS + 1, id=ids[order].tolist()))) == ""


@given(st.lists(st.integers(1, ROWS - 1), max_size=4, unique=True))
def test_the_hash_does_not_depend_on_the_blocks(cuts: list[int]) -> None:
    from calibcli.metrics.pairing import RowsIdentity

    identity = RowsIdentity(Units(ROWS))
    edges = [0, *sorted(cuts), ROWS]
    states = [identity.partial(View(LOGITS[a:b], LABELS[a:b], start=a)) for a, b in pairwise(edges)]
    state = states[0]
    for other in states[1:]:
        state = identity.merge(state, other)
    whole = identity.finish(identity.partial(View(LOGITS, LABELS)))
    assert identity.finish(state).rows == whole.rows


# Errors, whose values alone are kept


def test_the_change_of_independent_errors_is_joined_as_standard_errors_are() -> None:
    generator = np.random.default_rng(0)
    now, then = (
        Recorded(figure, Interval(figure - 0.2, figure + 0.2), generator.normal(0, 0.1, 100_000))
        for figure in (0.9, 0.5)
    )
    low, high = change_by_spread(now, then)
    assert (low, high) == pytest.approx((0.4 - 0.2 * 2**0.5, 0.4 + 0.2 * 2**0.5), abs=0.003)


def test_the_change_is_as_much_wider_as_intervals_are_than_the_spread() -> None:
    values = np.random.default_rng(0).normal(0, 0.1, 1000)
    then = Recorded(0.5, Interval(0.5 - 0.196, 0.5 + 0.4), values)
    now = Recorded(0.5, Interval(0.5 - 0.196, 0.5 + 0.196), np.zeros(1000))
    low, high = change_by_spread(now, then)
    assert high == pytest.approx(0.196, rel=0.05)
    assert low == pytest.approx(-0.4, rel=0.05)


# Many differences


def test_holm_multiplies_by_how_many_are_left() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.5]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.floats(-1, 1), st.floats(0, 1), st.floats(0, 1))
def test_p_is_below_5_percent_where_the_interval_leaves_out_0(
    difference: float, below: float, above: float
) -> None:
    interval = Interval(difference - below, difference + above)
    p = p_of_difference(difference, interval)
    assert 0 <= p <= 1
    if interval.low > 1e-9 or interval.high < -1e-9:
        assert p < 0.05
    elif interval.low < -1e-9 < 1e-9 < interval.high:
        assert p > 0.05


# Documents, and the baseline of gates


@pytest.fixture(scope="module")
def kept_case(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the files of `baseline_case` are kept for the next test."""
    return tmp_path_factory.mktemp("kept") / "case"


@pytest.fixture
def baseline_case(
    calib_here: CalibHere, sample_data: Path, kept_case: Path, tmp_path: Path
) -> tuple[Path, Path]:
    """The test rows, and what was measured of them through a calibrator."""
    test = sample_data / "digits_test.parquet"
    if not kept_case.exists():
        fit = ("fit", sample_data / "digits_val.parquet", "-q", "-p", "gate.json", "-o", "gate.npz")
        assert calib_here(*fit)[0] == 0
        _, out, _ = calib_here("evaluate", test, "-p", "gate.json", *JSON)
        Path("baseline.json").write_text(out, encoding="utf-8")
        shutil.copytree(tmp_path, kept_case)
    shutil.copytree(kept_case, tmp_path, dirs_exist_ok=True)
    return test, Path("baseline.json")


WORSE = ("--baseline", "baseline.json", "--significant", "--fail-if", "nll.delta > 0")


def test_a_calibrator_that_was_dropped_is_no_chance(
    calib_here: CalibHere, baseline_case: tuple[Path, Path]
) -> None:
    code, out, err = calib_here("evaluate", baseline_case[0], *WORSE, *JSON)
    assert code == 1
    assert err.endswith("nll.delta > 0 (0.1034 [0.041, 0.204], paired)\n")
    document = json.loads(out)
    assert document["baseline"] == {
        "name": "baseline.json",
        "inputs": [{"input": "digits_test.parquet", "joined": "paired", "reason": None}],
    }
    (gate,) = document["gates"]
    assert gate["joined"] == "paired"
    assert (gate["low"], gate["high"]) == pytest.approx((0.041, 0.204), abs=0.001)


@pytest.mark.parametrize("kind", ["table", "markdown", "github", "junit", "json"])
def test_every_format_says_that_it_is_paired(
    calib_here: CalibHere, baseline_case: tuple[Path, Path], kind: str
) -> None:
    _, out, _ = calib_here("evaluate", baseline_case[0], *WORSE, "-q", "--format", kind)
    assert ", paired" in out or '"joined": "paired"' in out
    other = ("--seed", "5", "--fail-if", "brier.delta > 0.001", "--fail-if", "nll > 0")
    _, out, err = calib_here("evaluate", baseline_case[0], *WORSE[:2], *other, "--format", kind)
    assert ", independent" in out or '"joined": "independent"' in out
    assert (
        "baseline.json: not paired with digits_test.parquet, but taken for independent of it: "
        "another --seed\n"
    ) in err


def test_the_same_run_again_has_no_change(
    calib_here: CalibHere, baseline_case: tuple[Path, Path]
) -> None:
    gates = [flag for name in NAMES for flag in ("--fail-if", f"{name}.delta != 0")]
    arguments = ("evaluate", baseline_case[0], "-p", "gate.json", "--metrics", ",".join(NAMES))
    _, out, _ = calib_here(*arguments, *JSON)
    Path("baseline.json").write_text(out, encoding="utf-8")
    code, out, _ = calib_here(*arguments, *JSON, *WORSE[:3], *gates)
    assert code == 0
    for gate in json.loads(out)["gates"]:
        assert (gate["value"], gate["joined"]) == (0, "paired")
        # No interval: there is nothing uncertain about it.
        assert gate["difference"] == {"value": 0, "low": None, "high": None}


def test_a_fit_is_paired_with_an_evaluation(
    calib_here: CalibHere, baseline_case: tuple[Path, Path], sample_data: Path
) -> None:
    fit = ("fit", sample_data / "digits_val.parquet", "--test", baseline_case[0], *JSON)
    code, out, err = calib_here(*fit, "-p", "p.json", "-o", "o.npz", *WORSE)
    assert (code, err) == (0, "")
    assert json.loads(out)["gates"][0]["value"] == 0
    code, _, err = calib_here(*fit, "-p", "q.json", "-o", "q.npz", "-m", "none", *WORSE)
    assert code == 1
    assert "[0.041, 0.204], paired" in err


def test_a_baseline_without_anything_to_pair_by_is_independent(
    calib_here: CalibHere, baseline_case: tuple[Path, Path]
) -> None:
    document = json.loads(baseline_case[1].read_text(encoding="utf-8"))
    del document["pairing"]
    # As version 1 of the format had it.
    document = {**document, "schema_version": 1}
    del document["view"], document["positive"]
    baseline_case[1].write_text(json.dumps(document), encoding="utf-8")
    code, out, err = calib_here("evaluate", baseline_case[0], *WORSE)
    assert code == 0
    text = " ".join(out.split()).replace("\N{MINUS SIGN}", "-")
    assert "0.1034 [-0.040, 0.300], independent, not clear of 0" in text
    assert "taken for independent of it: nothing is kept to pair it by" in err


@pytest.mark.parametrize(
    "broken",
    [
        {"bags": "AAAA"},
        {"bags": 3},
        {"metrics": {"nll": "??"}},
        {"metrics": {"nll": "AAAAAA=="}},
        {"metrics": {"nll": ""}},
        {"seed": None},
    ],
)
def test_a_pairing_that_cannot_be_read_is_refused(
    calib_here: CalibHere, baseline_case: tuple[Path, Path], broken: dict[str, Any]
) -> None:
    document = json.loads(baseline_case[1].read_text(encoding="utf-8"))
    document["pairing"] |= broken
    baseline_case[1].write_text(json.dumps(document), encoding="utf-8")
    code, out, err = calib_here("evaluate", baseline_case[0], *WORSE, "-q")
    refusal = "calib: baseline.json: has no pairing as calib writes it; make it anew"
    assert (code, out, err) == (2, "", f"{refusal} (more: calib docs ci)\n")


def test_ids_of_a_file_have_to_be_the_same(calib_here: CalibHere, tmp_path: Path) -> None:
    for name, shift in (("a", 0), ("b", 0), ("c", 1)):
        ids = np.arange(ROWS) + shift
        np.savez(tmp_path / f"{name}.npz", logits=LOGITS, labels=LABELS, doc=ids)
    _, out, _ = calib_here("evaluate", "a.npz", "--id", "doc", *JSON)
    Path("baseline.json").write_text(out, encoding="utf-8")
    flags = ("--id", "doc", *WORSE, "--format", "json")
    assert '"paired"' in calib_here("evaluate", "b.npz", *flags)[1]
    _, out, err = calib_here("evaluate", "c.npz", *flags)
    assert '"paired"' not in out
    assert "other rows, labels, weights, clusters or ids" in err


def test_what_is_kept_is_small(calib_here: CalibHere, sample_data: Path) -> None:
    test = sample_data / "digits_longtail_test.npz"
    code, out, _ = calib_here("evaluate", test, "--metrics", "all", "--bootstrap", "1000", *JSON)
    document = json.loads(out)
    kept = len(json.dumps(document["pairing"]))
    assert (code, kept) == (0, pytest.approx(pairing_bytes(document["pairing"]), rel=0.1))
    assert kept < 60_000
    code, out, _ = calib_here("evaluate", *[test] * 6, "--metrics", "all", *JSON)
    document = json.loads(out)
    # All of them are compared all the same.
    assert all(entry["metrics"] for entry in document["differences"]["inputs"])
    results = document["results"]
    kept = [len(json.dumps(part["pairing"])) for part in results if "pairing" in part]
    assert 0 < len(kept) < len(results)
    assert sum(kept) <= MOST_BYTES


def test_scores_are_not_in_what_tells_the_rows_apart() -> None:
    run, other = evaluated(LOGITS), evaluated(np.zeros_like(LOGITS))
    assert run.record is not None
    assert other.record is not None
    assert run.record.rows == other.record.rows


# In Python


def test_differences_of_evaluations_in_python() -> None:
    models = {
        name: calibcli.evaluate(factor * LOGITS, LABELS, input="logits", bootstrap=200)
        for name, factor in (("raw", 1.0), ("same", 1.0), ("bold", 2.0))
    }
    found = calibcli.differences(models)
    assert list(found) == ["same", "bold"]
    assert all(each[:3] == (0, 0, 0) and not each.clear for each in found["same"].values())
    nll = found["bold"]["nll"]
    assert nll.value == models["bold"].values["nll"] - models["raw"].values["nll"]
    assert nll.low > 0
    assert nll.clear
    number = sum(map(len, found.values()))
    assert nll.adjusted_p == pytest.approx(number * nll.p)
    turned = calibcli.differences(models, against="bold")
    assert list(turned) == ["raw", "same"]
    assert turned["raw"]["nll"].value == -nll.value
    assert calibcli.differences({}) == {}


def test_what_python_cannot_compare_is_refused() -> None:
    def model(**options: Any) -> Evaluation:
        return calibcli.evaluate(LOGITS, LABELS, input="logits", **{"bootstrap": 20, **options})

    with pytest.raises(calibcli.UsageError, match="against 'c': the models are a, b"):
        calibcli.differences({"a": model(), "b": model()}, against="c")
    for options, reason in (
        ({"bootstrap": 0}, "nothing is kept to pair it by"),
        ({"seed": 1}, "another --seed"),
        ({"ids": np.arange(ROWS)}, "other rows, labels, weights, clusters or ids"),
        ({"cluster": np.arange(ROWS) // 2}, "other rows, labels, weights, clusters or ids"),
    ):
        with pytest.raises(calibcli.DataError, match=f"b cannot be compared with a: {reason}"):
            calibcli.differences({"a": model(), "b": model(**options)})
