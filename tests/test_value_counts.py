"""Rows of very many classes in half precision, worked on by value: distinct logits and counts."""

from __future__ import annotations

import pickle
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import CalibHere
from near_workers import NearWorkers
from table_files import opened

from calibcli.arrays import log_softmax
from calibcli.calibrators.base import Calibrator, SmoothMap
from calibcli.calibrators.chain import calibrate, calibrate_by_value
from calibcli.calibrators.gap_temperature import GapTemperature, GapTemperatureMap
from calibcli.calibrators.monotone import Monotone, MonotoneMap
from calibcli.calibrators.temperature import Temperature, TemperatureMap
from calibcli.engine import engine as engine_module
from calibcli.engine.data import Data, open_data
from calibcli.engine.engine import Engine
from calibcli.engine.source import ArraySource
from calibcli.fitting.problem import Problem
from calibcli.metrics.counted_view import CountedView
from calibcli.metrics.panel import Panel
from calibcli.metrics.view import View
from calibcli.objectives.nll import NegativeLogLikelihood
from calibcli.value_counts import (
    LEAST_CLASSES,
    CountedScores,
    ValueBlock,
    ValueCounts,
    log_softmax_by_value,
)
from calibcli.workflow.fitted_plans import fit_plan
from calibcli.workflow.fitting import fit_and_measure
from calibcli.workflow.plans import make_plan

ROWS, CLASSES = 90, LEAST_CLASSES
KNOTS = np.array([-12.0, -9.5, -9.4, -4.0, -1.0])


def rows_of(rows: int = ROWS, classes: int = CLASSES) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    scores = (2 * rng.standard_normal((rows, classes))).astype(np.float16)
    labels = rng.integers(0, classes, rows)
    scores[np.arange(rows), labels] += 12 * rng.random(rows).astype(np.float16)
    return scores, labels


def as_bfloats(scores: np.ndarray) -> np.ndarray:
    """The nearest numbers below in size that bfloat16 has, float32."""
    bits = scores.astype(np.float32).view(np.uint32)
    return (bits & np.uint32(0xFFFF0000)).view(np.float32)


def counted(scores: np.ndarray) -> CountedScores:
    return CountedScores(ValueCounts.of(scores), scores)


def stages() -> list[tuple[Calibrator, ...]]:
    gaps = [
        GapTemperature(np.array(knots), np.array([0.5, 1.5, 0.9]), feature)
        for feature, knots in (("gap", [0.1, 1.0, 4.0]), ("confidence", [0.01, 0.1, 0.5]))
    ]
    curve = Monotone(KNOTS, np.array([0.4, 0.0, 1.3, 2.0, 0.7, 1.1]))
    return [(), (Temperature(1.7),), (curve,), *((gap,) for gap in gaps), (curve, gaps[0])]


def through(chain: tuple[Calibrator, ...], block: ValueBlock) -> np.ndarray:
    return calibrate_by_value(chain, block.values, block.counts)


def test_every_number_is_counted_and_has_its_place() -> None:
    bits = np.arange(1 << 16, dtype=np.uint16)
    numbers = bits[np.isfinite(bits.view(np.float16))]
    rng = np.random.default_rng(0)
    row = rng.permutation(numbers.repeat(rng.integers(1, 4, len(numbers)))).view(np.float16)
    (block,) = counted(row[None]).blocks()
    assert len(block.values[0]) == len(numbers)
    assert (np.diff(block.values[0]) >= 0).all()
    np.testing.assert_array_equal(block.values[0].repeat(block.counts[0].astype(int)), np.sort(row))
    assert counted(row[None]).top == [row.astype(np.float32).argmax()]


@pytest.mark.parametrize("bfloat", [False, True])
def test_rows_are_put_together_again(bfloat: bool) -> None:
    scores, labels = rows_of(70)
    if bfloat:
        scores = as_bfloats(scores * np.float32(1e20))
    scores[3, ::2] = -np.inf
    scores[4] = 1.5
    scores[5] = np.where(np.arange(CLASSES) % 3, np.float16(-0.0), np.float16(0.0))
    scores[6] = -np.abs(scores[6])
    rows = counted(scores)
    for block in rows.blocks():
        there = rows.spread_out(block.rows, block.values)
        np.testing.assert_array_equal(there, scores[block.rows].astype(np.float32))
    np.testing.assert_array_equal(rows.top, scores.astype(np.float32).argmax(axis=1))
    labels[3] = 1
    np.testing.assert_array_equal(rows.at(labels), scores[np.arange(70), labels])
    ten = np.sort(scores.astype(np.float32), axis=1)[:, -10:]
    np.testing.assert_array_equal(np.sort(rows.largest_of_rows(10), axis=1), ten)


@pytest.mark.parametrize("chain", stages(), ids=lambda chain: "+".join(s.kind for s in chain))
@pytest.mark.parametrize("impossible", [False, True])
def test_views_by_value_are_views(chain: tuple[Calibrator, ...], impossible: bool) -> None:
    scores, labels = rows_of(40)
    scores[0] = np.round(scores[0])  # of which several are the largest
    if impossible:
        scores[:, ::5] = -np.inf
        labels = labels // 5 * 5 + 1
    by_value = CountedView(counted(scores).after(partial(through, chain)), labels)
    view = View(calibrate(chain, scores.astype(np.float64)), labels)
    np.testing.assert_array_equal(by_value.prediction, view.prediction)
    np.testing.assert_array_equal(by_value.label_rank, view.label_rank)
    close = partial(np.testing.assert_allclose, rtol=2e-5, atol=1e-6)
    others = (labels + 5) % (CLASSES // 5 * 5)
    for name in ("confidence", "true_prob", "true_log_prob", "squared_error", "probs"):
        close(getattr(by_value, name), getattr(view, name))
    close(by_value.probability_of(others), view.probability_of(others))
    # What is spread out is what it is summed from.
    own = by_value.probs[np.arange(40), labels].astype(np.float64)
    np.testing.assert_array_equal(by_value.true_prob, own)


@pytest.mark.parametrize("scale", [0.05, 0.8, 20.0])
def test_a_scale_has_the_same_derivatives_by_value(scale: float) -> None:
    scores, labels = rows_of(60)
    family, theta = TemperatureMap(), np.array([scale])
    exact = family.likelihood_along(theta, scores.astype(np.float64), labels)
    found = family.likelihood_by_value(theta, counted(scores), labels)
    assert exact is not None
    # The third is a difference of large numbers, which serves to end a search.
    for order, tolerance in enumerate((2e-6, 2e-6, 2e-5, 2e-3)):
        np.testing.assert_allclose(found[order], exact[order], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("steepest", [0.0, 1.0, 7.9, 31.0])
@pytest.mark.parametrize("impossible", [False, True])
@pytest.mark.parametrize(
    "family",
    [
        MonotoneMap(knots=tuple(KNOTS)),
        *(
            GapTemperatureMap(feature=feature, knots=(0.1, 1.0, 4.0))
            for feature in ("gap", "confidence")
        ),
    ],
    ids=["monotone", "gap", "confidence"],
)
def test_moments_have_the_derivatives_of_all_scores(
    family: MonotoneMap | GapTemperatureMap, steepest: float, impossible: bool
) -> None:
    scores, labels = rows_of(50)
    if impossible:
        scores[:, ::5] = -np.inf
        labels = labels // 5 * 5 + 1
    theta = np.linspace(steepest / 3, steepest, family.size(CLASSES))
    weights = np.random.default_rng(1).random(50)
    resolution = family.resolution(theta)
    assert resolution is not None
    rows = log_softmax_by_value(counted(scores))
    found = family.prepared_by_value(rows, labels, resolution).derivatives(theta, weights)
    log_probs = log_softmax(scores.astype(np.float64))
    exact = family.prepared(log_probs, labels).derivatives(theta, weights)
    size = len(theta)
    for part in (slice(1), slice(1, 1 + size), slice(1 + size, None)):
        scale = np.abs(exact[part]).max() + 1e-3
        np.testing.assert_allclose(found[part], exact[part], rtol=0, atol=3e-6 * scale)


def test_slopes_that_leave_nothing_of_a_row_are_no_matter_of_moments() -> None:
    assert MonotoneMap().resolution(np.array([1.0, 33.0])) is None
    assert MonotoneMap().resolution(np.array([np.nan])) is None


METHODS = ("temperature", "monotone", "gap-temperature")


def data_of(scores: np.ndarray, labels: np.ndarray, **options: int) -> Data:
    return open_data(Engine(**options), ArraySource(scores, labels), folds=3)


@pytest.mark.parametrize("method", METHODS)
def test_fits_by_value_end_at_the_optimum_of_all_scores(method: str) -> None:
    scores, labels = rows_of()
    plan = make_plan(method)
    exact, places = data_of(scores.astype(np.float64), labels), []
    for data in (data_of(scores, labels), exact):
        fitted = fit_plan(plan.rows_of(data), plan)
        assert fitted.fit.converged
        places.append(fitted.fit.stages[-1])
    values = []
    for stage in places:
        assert stage.solution is not None
        assert isinstance(stage.family, SmoothMap)
        rows = exact.normalise() if stage.family.normalises else exact
        anchor = stage.family.anchor(CLASSES, 1.0)
        problem = Problem(rows, stage.family, NegativeLogLikelihood(), anchor)
        values.append(problem.gradient(stage.solution.theta)[0])
    assert values[0] == pytest.approx(values[1], abs=1e-7)


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many segments of few rows."""
    monkeypatch.setattr(engine_module, "_TILE_ELEMENTS", {"cpu": 4 * CLASSES})
    monkeypatch.setattr(engine_module, "_SEGMENT_TILES", 2)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("method", [*METHODS, "temperature,monotone"])
def test_outcomes_do_not_depend_on_how_they_are_computed(tmp_path: Path, method: str) -> None:
    scores, labels = rows_of()
    np.savez(tmp_path / "rows.npz", logits=scores, labels=labels)
    found = []
    for engine in (
        Engine(threads=1),
        Engine(threads=3),
        Engine(memory=4 << 20),
        Engine(memory=4 << 20, workers=NearWorkers()),
        Engine(workers=NearWorkers()),
    ):
        with opened(str(tmp_path / "rows.npz")) as dataset:
            data = open_data(engine, dataset, 3)
            outcome = fit_and_measure(data, make_plan(method), Panel(), advised=False)
        assert data.is_counted
        assert outcome.before is not None
        assert outcome.after is not None
        figures = [each.values for each in (outcome.before, outcome.after)]
        found.append(pickle.dumps((outcome.fit.calibrators, outcome.fit.passes, figures)))
    assert len(set(found)) == 1


def test_bfloat16_is_known_by_its_digits() -> None:
    scores, labels = rows_of()
    single = as_bfloats(scores)
    data = data_of(single, labels)
    assert data.is_counted
    fitted = fit_plan(make_plan("temperature").rows_of(data), make_plan("temperature"))
    widened = data_of(single.astype(np.float64), labels)
    assert not widened.is_counted
    again = fit_plan(make_plan("temperature").rows_of(widened), make_plan("temperature"))
    there, here = (fit.fit.stages[0].solution for fit in (again, fitted))
    assert there is not None
    assert here is not None
    np.testing.assert_allclose(here.theta, there.theta, rtol=1e-5)
    single[17, 3] = 0.1
    assert not data_of(single, labels).is_counted


def test_figures_are_those_of_single_precision() -> None:
    scores, labels = rows_of()
    panel = Panel(("default", "top5_accuracy"))
    by_value, single = (
        fit_and_measure(data_of(scores.astype(dtype), labels), make_plan("temperature"), panel)
        for dtype in (np.float16, np.float64)
    )
    for one, other in ((by_value.before, single.before), (by_value.after, single.after)):
        assert one is not None
        assert other is not None
        assert one.values == pytest.approx(other.values, rel=1e-5, abs=1e-6)


def test_methods_that_tell_classes_apart_are_fitted_as_before() -> None:
    scores, labels = rows_of(70)
    outcome = fit_and_measure(data_of(scores, labels), make_plan("svs"), Panel(), advised=False)
    assert outcome.after is not None
    assert outcome.after.values["nll"] < 12


@pytest.mark.parametrize("method", ["temperature", "monotone"])
def test_apply_writes_what_a_fit_writes(calib_here: CalibHere, tmp_path: Path, method: str) -> None:
    scores, labels = rows_of()
    np.savez(tmp_path / "rows.npz", logits=scores, labels=labels)
    kept = ("--keep", "confidence,label", "-q")
    assert (
        calib_here("fit", "rows.npz", "-m", method, "-p", "p.json", "-o", "f.parquet", *kept)[0]
        == 0
    )
    assert calib_here("apply", "p.json", "rows.npz", "-o", "a.parquet", *kept)[0] == 0
    low = ("--memory", "16M", "--threads", "1")
    assert calib_here("apply", "p.json", "rows.npz", "-o", "b.parquet", *kept, *low)[0] == 0
    assert calib_here("apply", "p.json", "rows.npz", "-o", "all.parquet", "-q")[0] == 0
    fitted, applied, again, whole = (
        pq.read_table(tmp_path / f"{name}.parquet") for name in ("f", "a", "b", "all")
    )
    assert applied.equals(fitted.select(applied.column_names))
    assert again.equals(applied)
    probs = np.stack(whole["probs"].to_numpy())
    np.testing.assert_array_equal(applied["prediction"].to_numpy(), probs.argmax(axis=1))
    np.testing.assert_allclose(applied["confidence"].to_numpy(), probs.max(axis=1), rtol=1e-5)
    own = probs[np.arange(ROWS), labels]
    np.testing.assert_allclose(applied["label_prob"].to_numpy(), own, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_apply_refuses_what_is_no_number(
    calib_here: CalibHere, tmp_path: Path, wrong: float
) -> None:
    scores, _ = rows_of()
    np.savez(tmp_path / "good.npz", logits=scores, labels=np.zeros(ROWS, int))
    scores[70, 16] = wrong
    np.savez(tmp_path / "rows.npz", logits=scores)
    assert (
        calib_here("fit", "good.npz", "-m", "none", "-p", "p.json", "-o", "x.parquet", "-q")[0] == 0
    )
    kept = ("--keep", "confidence", "-q")
    code, _, err = calib_here("apply", "p.json", "rows.npz", "-o", "a.parquet", *kept)
    assert code == 2
    assert "row 70: the score of class 16 is" in " ".join(err.split())
    assert not (tmp_path / "a.parquet").exists()
