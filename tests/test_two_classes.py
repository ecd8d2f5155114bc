"""Two classes: whose probability is looked at, what is measured of it, and what is fitted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import calibcli
from calibcli.calibrators.affine import VectorScaling
from calibcli.calibrators.base import Calibrator
from calibcli.calibrators.binary import Beta, Platt, Quadratic
from calibcli.calibrators.chain import LogLinear
from calibcli.calibrators.ensemble_temperature import EnsembleTemperature
from calibcli.calibrators.identity import Identity
from calibcli.calibrators.laplace import LaplaceMixture
from calibcli.calibrators.temperature import Temperature
from calibcli.engine.data import open_data
from calibcli.engine.engine import Engine
from calibcli.engine.source import ArraySource
from calibcli.errors import UsageError
from calibcli.metrics.panel import Panel
from calibcli.metrics.registry import METRICS, TWO_CLASSES
from calibcli.metrics.resampling import Bootstrap
from calibcli.metrics.view import View, choose_event
from calibcli.workflow.candidates import cheap_candidates
from calibcli.workflow.measuring import Through, measure

Array = np.ndarray[Any, Any]
INFLATED = np.log(6.0)


def fraud(rows: int = 20_000, seed: int = 0) -> tuple[Array, Array, Array]:
    """Log-odds that are six times too large, labels, and the true probabilities, 2 % of them 1."""
    rng = np.random.default_rng(seed)
    odds = 1.2 * rng.standard_normal(rows) - 4.5
    truth = 1 / (1 + np.exp(-odds))
    return odds + INFLATED, (rng.random(rows) < truth).astype(np.int64), truth


def values(logits: Array, labels: Array, *names: str, weights: Array | None = None) -> list[float]:
    return [METRICS[name].measure(logits, labels, weights) for name in names]


def as_two(odds: Array) -> Array:
    return np.stack((np.zeros_like(odds), odds), axis=1)


# ---- the event ----


def test_the_view_is_of_the_positive_class_of_two_and_of_the_prediction_of_more():
    logits = np.log([[0.9, 0.1], [0.3, 0.7]])
    view = View(logits, np.array([1, 1]))
    assert view.confidence == pytest.approx([0.1, 0.7])
    assert view.correct.tolist() == [True, True]
    assert view.top_confidence == pytest.approx([0.9, 0.7])
    assert view.top_correct.tolist() == [False, True]
    other = View(logits, np.array([1, 1]), event=0)
    assert other.confidence == pytest.approx([0.9, 0.3])
    assert other.correct.tolist() == [False, False]
    top = View(logits, np.array([1, 1]), event="top")
    assert top.confidence == pytest.approx([0.9, 0.7])
    assert View(np.zeros((1, 3)), np.array([0])).event is None


def test_accuracy_and_ranking_by_confidence_stay_those_of_the_prediction():
    odds, labels, _ = fraud(500)
    views = [View(as_two(odds), labels, event=event) for event in (1, "top")]
    for name in ("accuracy", "aurc", "corp_top_miscalibration", "top_label_ece"):
        statistic = METRICS[name].statistic
        positive, top = (METRICS[name].value(statistic.finish(statistic.partial(v))) for v in views)
        assert positive == top, name


@pytest.mark.parametrize(
    ("view", "positive", "classes", "names", "event"),
    [
        ("auto", None, 2, None, "auto"),
        ("positive", None, 2, None, "auto"),
        ("top", None, 2, None, "top"),
        ("auto", "spam", 2, ("eggs", "spam"), 1),
        ("auto", "eggs", 2, ("eggs", "spam"), 0),
        ("positive", "0", 2, ("eggs", "spam"), 0),
        ("auto", "1", 2, None, 1),
        ("auto", None, 5, None, "auto"),
    ],
)
def test_the_event_that_is_asked_for(view, positive, classes, names, event):
    assert choose_event(view, positive, classes, names) == event


@pytest.mark.parametrize(
    ("view", "positive", "classes", "message"),
    [
        ("top", "1", 2, "the view of the top label has none"),
        ("positive", None, 3, "--view positive is for two classes; here are 3"),
        ("auto", "2", 3, "--positive 2 is for two classes; here are 3"),
        ("auto", "ham", 2, "--positive ham: is none of the classes 0 and 1"),
    ],
)
def test_events_that_there_are_not(view, positive, classes, message):
    with pytest.raises(UsageError, match=message):
        choose_event(view, positive, classes)


# ---- metrics ----


@pytest.mark.parametrize("weighted", [False, True])
def test_metrics_of_an_event_are_those_of_scikit_learn(weighted: bool):
    sklearn = pytest.importorskip("sklearn.metrics")
    linear = pytest.importorskip("sklearn.linear_model")
    odds, labels, _ = fraud(4000)
    odds = np.round(odds, 1)
    weights = np.random.default_rng(1).random(4000) + 0.1 if weighted else None
    logits, probs = as_two(odds), 1 / (1 + np.exp(-odds))
    auroc, precision, skill, slope, ratio = values(
        logits,
        labels,
        *("auroc", "average_precision", "brier_skill", "slope", "expected_observed"),
        weights=weights,
    )
    assert auroc == pytest.approx(sklearn.roc_auc_score(labels, probs, sample_weight=weights))
    expected = sklearn.average_precision_score(labels, probs, sample_weight=weights)
    assert precision == pytest.approx(expected)
    rate = np.average(labels, weights=weights)
    brier = sklearn.brier_score_loss(labels, probs, sample_weight=weights)
    assert skill == pytest.approx(1 - brier / (rate * (1 - rate)))
    fit = linear.LogisticRegression(C=1e12, tol=1e-10, max_iter=1000)
    fit.fit(odds[:, None], labels, sample_weight=weights)
    assert slope == pytest.approx(fit.coef_[0, 0], rel=1e-4)
    assert ratio == pytest.approx(np.average(probs, weights=weights) / rate)


def test_in_the_large_makes_the_expected_count_the_observed_one():
    odds, labels, _ = fraud(4000)
    (shift,) = values(as_two(odds), labels, "in_the_large")
    assert (1 / (1 + np.exp(-odds - shift))).sum() == pytest.approx(labels.sum())
    assert shift == pytest.approx(-INFLATED, abs=0.35)


def test_what_can_be_separated_has_no_slope():
    odds, labels = np.array([-2.0, -1.0, 1.0, 2.0]), np.array([0, 0, 1, 1])
    assert np.isnan(values(as_two(odds), labels, "slope"))[0]
    assert np.isnan(values(as_two(odds), np.zeros(4, int), "in_the_large"))[0]


def test_indices_are_those_of_least_squares_on_natural_splines():
    """The same curve by SciPy's natural splines through the knots."""
    interpolate = pytest.importorskip("scipy.interpolate")
    odds, labels, _ = fraud(5000)
    order = np.argsort(odds)
    odds, labels = odds[order], labels[order]
    probs = 1 / (1 + np.exp(-odds))
    at = np.searchsorted(np.arange(1, 5001) / 5000, [0.05, 0.275, 0.5, 0.725, 0.95])
    knots = odds[at]
    basis = []
    for unit in np.eye(5):
        spline = interpolate.CubicSpline(knots, unit, bc_type="natural")
        inside = spline(np.clip(odds, knots[0], knots[-1]))
        ends = spline(knots[[0, -1]], 1)
        below, above = np.minimum(odds - knots[0], 0), np.maximum(odds - knots[-1], 0)
        basis.append(inside + ends[0] * below + ends[1] * above)
    variance = np.maximum(probs * (1 - probs), 1e-4)
    design = np.stack(basis, axis=1) * np.sqrt(variance)[:, None]
    theta, *_ = np.linalg.lstsq(design, (probs - labels) / np.sqrt(variance), rcond=None)
    gaps = np.abs(np.clip(np.stack(basis, axis=1) @ theta * variance, probs - 1, probs))
    found = values(as_two(odds), labels, "ici", "e50", "e90")
    quantiles = [np.quantile(gaps, share, method="inverted_cdf") for share in (0.5, 0.9)]
    assert found == pytest.approx([gaps.mean(), *quantiles], rel=1e-6)


def test_indices_are_near_the_truth():
    odds, labels, truth = fraud(100_000)
    gaps = np.abs(1 / (1 + np.exp(-odds)) - truth)
    found = values(as_two(odds), labels, "ici", "e50", "e90")
    expected = [gaps.mean(), np.median(gaps), np.quantile(gaps, 0.9)]
    assert found == pytest.approx(expected, rel=0.05)
    right, *_ = values(as_two(odds - INFLATED), labels, "ici")
    assert right < 0.1 * gaps.mean()


def test_indices_of_few_values_and_of_certain_rows():
    same = np.zeros(10)
    assert values(as_two(same), np.arange(10) % 5 == 0, "ici") == pytest.approx([0.3])
    certain = np.array([[0.0, -np.inf], [-np.inf, 0.0], [0.0, 1.0], [1.0, 0.0]] * 5)
    assert 0 <= values(certain, np.arange(20) % 2, "ici")[0] <= 1


def test_intervals_of_an_event_hold_the_truth():
    inside = {"expected_observed": 0, "ici": 0, "in_the_large": 0}
    names = tuple(inside)
    for seed in range(40):
        odds, labels, truth = fraud(3000, seed + 1)
        panel = Panel(names, bootstrap=Bootstrap())
        data = open_data(Engine(), ArraySource(as_two(odds), labels))
        (found,) = measure(data, [Through()], panel)
        probs = 1 / (1 + np.exp(-odds))
        true = (probs.sum() / truth.sum(), np.abs(probs - truth).mean(), -INFLATED)
        for name, value in zip(names, true, strict=True):
            low, high = found.intervals[name]
            inside[name] += low <= value <= high
    assert min(inside.values()) >= 34


# ---- what is fitted ----


def test_the_default_of_two_classes_gets_the_count_right():
    odds, labels, _ = fraud()
    fitted = calibcli.fit(odds, labels)
    assert fitted.params.fit["method"] == "platt"
    expected = fitted.predict_proba(odds)[:, 1].sum()
    assert expected == pytest.approx(labels.sum(), rel=0.02)
    board = {entry["method"]: entry for entry in fitted.params.fit["leaderboard"]}
    assert set(board) == {"none", "temperature", "platt", "beta"}
    assert board["platt"]["chosen"]
    assert board["platt"]["metrics"]["nll"] < board["temperature"]["metrics"]["nll"]
    assert fitted.outcome is not None
    assert fitted.outcome.after is not None
    assert fitted.outcome.after.event == 1


def test_nothing_is_fitted_where_nothing_is_wrong():
    odds, labels, _ = fraud(6000)
    assert calibcli.fit(odds - INFLATED, labels).params.fit["method"] == "none"


def test_the_default_of_more_classes_is_temperature():
    rng = np.random.default_rng(0)
    fitted = calibcli.fit(rng.standard_normal((300, 3)), rng.integers(0, 3, 300))
    assert fitted.params.fit["method"] == "temperature"
    assert fitted.params.fit["leaderboard"] is None


def test_at_most_six_methods_are_tried():
    for rows in (10, 60, 250, 500, 5000):
        assert len(cheap_candidates(2, rows)) <= 6
    assert "svs" in cheap_candidates(2, 100)
    assert "svs" not in cheap_candidates(2, 5000)


def test_a_fit_says_where_a_cheap_one_is_clearly_better():
    odds, labels, _ = fraud()
    outcome = calibcli.fit(odds, labels, method="temperature").outcome
    assert outcome is not None
    (note,) = [note for note in outcome.notes if "clearly better" in note]
    assert "platt: NLL 0.0" in note
    assert "(-m platt)" in note
    outcome = calibcli.fit(odds, labels, method="beta").outcome
    assert outcome is not None
    assert not any("clearly better" in note for note in outcome.notes)


def test_a_method_that_only_learns_the_shares_of_the_classes_is_not_recommended():
    rng = np.random.default_rng(3)
    logits, labels = 3 * rng.standard_normal((500, 4)), rng.integers(0, 4, 500)
    notes = calibcli.fit(logits, labels, method="temperature").outcome.notes
    assert not any("clearly better" in note for note in notes)
    odds = as_two(rng.standard_normal(2000))
    notes = calibcli.fit(odds, np.zeros(2000, int), method="temperature").outcome.notes
    assert not any("clearly better" in note for note in notes)


def test_views_in_python():
    odds, labels, _ = fraud(1000)
    usual = calibcli.evaluate(odds, labels, input="logits")
    assert usual.event == 1
    assert calibcli.evaluate(odds, labels, input="logits", view="top").event is None
    assert calibcli.evaluate(odds, labels, input="logits", positive=0).event == 0
    assert tuple(usual.values) == TWO_CLASSES


# ---- on the command line ----


@pytest.fixture
def fraud_file(tmp_path: Any) -> str:
    odds, labels, _ = fraud(8000)
    path = tmp_path / "fraud.npz"
    np.savez(path, logits=odds, labels=labels)
    return str(path)


def test_a_fit_by_temperature_is_not_called_well_calibrated(calib_here: Any, fraud_file: str):
    code, page, _ = calib_here("fit", fraud_file, "-m", "temperature", "-q")
    assert code == 0
    assert "well calibrated" not in page
    assert "too high" in page


def test_the_view_is_in_the_document_and_gates_of_another_are_refused(
    calib_here: Any, fraud_file: str, tmp_path: Any
):
    documents = {}
    for flags in ((), ("--view", "top"), ("--positive", "0")):
        _, page, _ = calib_here("evaluate", fraud_file, "--format", "json", "-q", *flags)
        documents[flags] = json.loads(page)
    usual, top, other = documents.values()
    assert (usual["view"], usual["positive"]) == ("positive", {"class": 1, "name": "1"})
    assert (top["view"], top["positive"]) == ("top", None)
    assert other["positive"] == {"class": 0, "name": "0"}
    assert list(usual["metrics"]) == list(TWO_CLASSES)
    assert usual["metrics"]["expected_observed"]["value"] > 3
    baseline = tmp_path / "top.json"
    baseline.write_text(json.dumps(top))
    gate = ("--fail-if", "ece > ece.baseline", "--baseline", str(baseline))
    code, _, said = calib_here("evaluate", fraud_file, *gate)
    assert code == 2
    assert "is of the view of the top label, here it is P(1)" in said


def test_a_comparison_has_the_view_that_was_asked_for(calib_here: Any, fraud_file: str) -> None:
    errors = {}
    for flags in ((), ("--positive", "0"), ("--view", "top")):
        options = ("--methods", "none", "--format", "json", "-q", *flags)
        code, page, said = calib_here("compare", fraud_file, *options)
        assert code == 0, said
        document = json.loads(page)
        errors[flags] = document["leaderboard"][0]["metrics"]["ece"]["value"]
        assert document["view"] == ("top" if "--view" in flags else "positive")
        assert document["positive"] == (
            None
            if "--view" in flags
            else {"class": 0 if flags else 1, "name": "0" if flags else "1"}
        )
    # Both sides of a probability are off by as much; the predicted one is mostly the same side.
    assert errors[()] == pytest.approx(errors["--positive", "0"], rel=0.2)
    assert errors["--view", "top"] < errors[()]
    assert calib_here("compare", fraud_file, "--view", "top", "--positive", "1", "-q")[0] == 2


def test_a_comparison_in_python_has_a_view() -> None:
    odds, labels, _ = fraud(2_000)
    boards = [calibcli.compare(odds, labels, methods=["none"], view=v) for v in ("auto", "top")]
    events = [board.chosen.evaluation.event for board in boards]
    assert events == [1, None]


# ---- the order of rows ----

POSITIVE = st.floats(0.05, 20)
KEEPING = st.one_of(
    st.just(Identity()),
    POSITIVE.map(Temperature),
    st.builds(Platt, st.floats(-3, 3), st.floats(-3, 3)),
    st.builds(Beta, st.floats(0, 3), st.floats(0, 3), st.floats(-3, 3)),
    st.builds(LaplaceMixture, st.floats(1e-6, 0.9)),
    st.builds(
        lambda t, w: EnsembleTemperature(t, np.array([w, 0.9 - w, 0.1])),
        POSITIVE,
        st.floats(0, 0.9),
    ),
    st.builds(
        lambda scale, other, bias: VectorScaling(np.array([scale, other]), np.array([bias, 0.0])),
        st.sampled_from([-1.0, 0.5, 2.0]),
        st.sampled_from([0.5, 2.0]),
        st.floats(-2, 2),
    ),
)


@given(KEEPING, KEEPING, st.tuples(st.floats(0, 1), st.floats(-0.5, 1)), st.integers(0, 100))
def test_maps_that_keep_the_order_of_rows_do_and_say_so_of_no_other(
    first: Calibrator, second: Calibrator, weights: tuple[float, float], seed: int
) -> None:
    stack = LogLinear(((first,), (second, first)), np.array(weights))
    logits = np.random.default_rng(seed).normal(0, 2, (200, 2))
    before = logits[:, 1] - logits[:, 0]
    for calibrator in (first, second, stack):
        log_probs = calibrator.log_probs(logits)
        after = (log_probs[:, 1] - log_probs[:, 0])[np.argsort(before)]
        if calibrator.keeps_ranking:
            assert (np.diff(after) > -1e-9).all()
    assert not Platt(-1.0, 0.0).keeps_ranking
    assert not VectorScaling(np.array([1.0, 2.0]), np.zeros(2)).keeps_ranking
    assert not Quadratic(0.1, 1.0, 0.0).keeps_ranking


@pytest.mark.parametrize("method", ["platt", "beta", "isotonic"])
def test_a_written_map_that_keeps_the_order_leaves_auroc_as_it_is(
    method: str, calib_here: Any, tmp_path: Path
) -> None:
    rng = np.random.default_rng(4)
    logits = rng.normal(-1, 1.5, 300)
    labels = (rng.random(300) < 1 / (1 + np.exp(-logits / 2))).astype(int)
    np.savez(tmp_path / "a.npz", logits=np.stack([0 * logits, logits], axis=1), labels=labels)
    arguments = ("fit", tmp_path / "a.npz", "-m", method, "--format", "json", "-q")
    code, out, _ = calib_here(
        *arguments, "--metrics", "auroc,average_precision,nll", "-p", tmp_path / "p.json"
    )
    assert code == 0
    document = json.loads(out)
    for name in ("auroc", "average_precision"):
        before, after = (document[stage]["metrics"][name] for stage in ("before", "after"))
        if method == "isotonic":
            assert before["value"] != after["value"]
        else:
            assert after == {**before, "change": {"low": 0.0, "high": 0.0}}
    assert document["after"]["metrics"]["nll"]["change"]["low"] < 0


@pytest.mark.parametrize(
    ("form", "shown"),
    [
        ("table", "[0.950, ∞)"),
        ("markdown", "[0.950, inf)"),
        ("latex", r"[0.950, $\infty$)"),
        ("openmetrics", '_high{input="one.npz",stage="measured",metric="expected_observed"} +Inf'),
    ],
)
def test_an_interval_without_an_end_says_so(
    form: str, shown: str, calib_here: Any, tmp_path: Path
) -> None:
    """Of two rows one came: half of all resamples have both or none."""
    np.savez(tmp_path / "one.npz", probs=[[0.05, 0.95], [0.0, 1.0]], labels=[1, 0])
    code, out, err = calib_here("evaluate", "one.npz", "--format", form)
    assert code == 0, err
    assert shown in out
    assert form == "openmetrics" or "nan" not in out.lower()
