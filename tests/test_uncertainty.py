"""Intervals, what chance would give, and the bags behind them."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibcli.arrays import hashed, softmax
from calibcli.calibrators.temperature import Temperature
from calibcli.engine.data import open_data
from calibcli.engine.engine import Engine
from calibcli.engine.source import ArraySource
from calibcli.metrics import registry
from calibcli.metrics.accuracy import ACCURACY
from calibcli.metrics.base import Metric
from calibcli.metrics.bins import RELIABILITY, bin_index
from calibcli.metrics.class_cells import ClassBags
from calibcli.metrics.class_norms import mean_deviations
from calibcli.metrics.confidence_cells import (
    BinNorm,
    ConfidenceBags,
    ConfidenceCells,
    ConfidenceNorm,
)
from calibcli.metrics.costs import Costs
from calibcli.metrics.ece import gaps
from calibcli.metrics.error_intervals import ErrorSample, less_noise, pooled
from calibcli.metrics.panel import Evaluation, Panel
from calibcli.metrics.registry import METRICS
from calibcli.metrics.resampling import Bagged, Bootstrap, Interval, Units, draws, tail_share
from calibcli.metrics.row_mean import SHARE_OF_ROWS
from calibcli.metrics.view import View
from calibcli.workflow.measuring import Predictor, Through, measure

DEFAULT = Panel(bootstrap=Bootstrap())


def rows(count: int, classes: int = 4, temperature: float = 1.0, seed: int = 0):
    """Logits, and labels that follow softmax(logits / temperature)."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.standard_normal((count, classes))
    labels = (logits / temperature + rng.gumbel(size=logits.shape)).argmax(axis=1)
    return logits, labels


def measured(logits, labels, panel=DEFAULT, *, stages=((),), **more) -> list[Evaluation]:
    data = open_data(Engine(threads=1), ArraySource(logits, labels, **more))
    return measure(data, [Through(each) for each in stages], panel)


def assert_same_sums(one, other) -> None:
    skipped = {"units", "apart", "paired"}
    fields = {name: value for name, value in vars(one).items() if name not in skipped}
    assert len(fields) >= 6
    for name, value in fields.items():
        np.testing.assert_allclose(getattr(other, name), value, atol=1e-9, err_msg=name)


def test_the_interval_of_a_mean_is_that_of_its_standard_error() -> None:
    logits, labels = rows(5000)
    (found,) = measured(logits, labels)
    accuracy, interval = found.values["accuracy"], found.intervals["accuracy"]
    error = (accuracy * (1 - accuracy) / 5000) ** 0.5
    assert interval.low == pytest.approx(accuracy - 1.96 * error, abs=0.15 * error)
    assert interval.high == pytest.approx(accuracy + 1.96 * error, abs=0.15 * error)


def test_the_change_of_a_mean_is_paired() -> None:
    logits, labels = rows(3000, temperature=1.5)
    _, after = measured(logits, labels, stages=[(), (Temperature(1.5),)])
    scores = [
        -np.log(np.exp(z)[np.arange(3000), labels] / np.exp(z).sum(axis=1))
        for z in (logits, logits / 1.5)
    ]
    difference = scores[1] - scores[0]
    interval = after.changes["nll"]
    error = difference.std() / 3000**0.5
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * error, rel=0.12)
    assert sum(interval) / 2 == pytest.approx(difference.mean(), abs=0.3 * error)


def test_every_metric_but_some_of_isotonic_regression_has_an_interval_around_it() -> None:
    (found,) = measured(*rows(400, temperature=1.3), Panel(["all"], bootstrap=Bootstrap(50)))
    without = {name for name in found.values if name not in found.intervals}
    parts = ("miscalibration", "discrimination", "uncertainty")
    class_wise = {f"corp_class_wise_{part}" for part in parts}
    assert without == {"corp_top_miscalibration", *class_wise}
    assert "corp_top_miscalibration" in found.chances
    for name, interval in found.intervals.items():
        figure = found.estimates.get(name, found.values[name])
        assert interval.low <= figure <= interval.high, name


def row_cells(confidence, correct) -> ConfidenceCells:
    """Cells of a row each, in the order of the confidence."""
    one, excess = np.ones(len(confidence)), (confidence - correct)[None, :]
    units, bags = Units(1), np.array([float(len(confidence))])
    bins = bin_index(confidence)
    return ConfidenceCells(
        units, bags, one, one, confidence, excess, one[None, :], bins, len(one), bins
    )


@pytest.mark.parametrize(
    "name", ["ece", "adaptive_ece", "ece_sweep", "mce", "ks", "ecce_mad", "ecce_r", "smooth_ece"]
)
def test_a_norm_of_residuals_is_the_metric(name: str) -> None:
    metric = METRICS.find(name)
    for seed, temperature in enumerate((1.0, 1.2, 2.0)):
        logits, labels = rows(700, temperature=temperature, seed=seed)
        view = View(logits, labels)
        order = np.argsort(view.confidence)
        confidence, correct = view.confidence[order], view.correct[order]
        cells = row_cells(confidence, correct)
        value = metric.value(metric.statistic.finish(metric.statistic.partial(view)))
        assert isinstance(metric.resampling, ConfidenceNorm)
        reading = metric.resampling.residuals(cells, value)
        several = np.stack([confidence - correct, confidence - np.roll(correct, 100)])
        found = reading.norm(reading.linear(several))
        assert found[0] == pytest.approx(value, rel=0.01 if name == "smooth_ece" else 1e-9)
        alone = reading.norm(reading.linear(several[1:]))
        assert found[1] == pytest.approx(alone[0])


def root_mean_square(excess, weight):
    return np.sqrt((weight * gaps(excess, weight) ** 2).sum(axis=-1) / weight.sum())


RMS_ECE = Metric(
    name="rms_ece",
    title="RMS ECE",
    convention="root of the mean over rows of (mean confidence - accuracy)^2, 15 equal-width bins",
    statistic=RELIABILITY,
    value=BinNorm(root_mean_square).value,
    resampling=BinNorm(root_mean_square),
)


def test_a_metric_brings_its_uncertainty(monkeypatch, calib_here, sample_data: Path) -> None:
    monkeypatch.setitem(METRICS._built_in, "rms_ece", RMS_ECE)
    (found, changed) = measured(
        *rows(800, temperature=1.5),
        Panel(["rms_ece", "ece"], bootstrap=Bootstrap()),
        stages=((), (Temperature(1.5),)),
    )
    value, interval, chance = (
        part["rms_ece"] for part in (found.values, found.intervals, found.chances)
    )
    assert value >= found.values["ece"]
    assert 0 < interval.low <= found.estimates["rms_ece"] <= interval.high
    assert chance.low < chance.mean < chance.high < value
    assert changed.changes["rms_ece"].high < 0
    file = sample_data / "digits_test.parquet"
    code, out, err = calib_here("evaluate", file, "--metrics", "rms_ece", "--format", "json", "-q")
    assert code == 0, err
    part = json.loads(out)["metrics"]["rms_ece"]
    assert part["low"] <= part["estimate"] <= part["high"]
    assert part["estimate"] < part["value"]
    assert part["chance"]["low"] < part["chance"]["high"]
    fitted = ("--metrics", "rms_ece,nll", "--format", "json", "-q")
    code, out, err = calib_here("fit", sample_data / "digits_val.parquet", *fitted)
    assert code == 0, err
    assert json.loads(out)["after"]["metrics"]["rms_ece"]["change"]["low"] < 0


def test_intervals_do_not_depend_on_what_else_is_measured() -> None:
    sample = rows(500, temperature=1.4)
    (alone,) = measured(*sample, Panel(["ece"], bootstrap=Bootstrap()))
    (beside,) = measured(*sample, Panel(["all"], bootstrap=Bootstrap()))
    assert alone.intervals["ece"] == beside.intervals["ece"]
    assert alone.chances["ece"] == beside.chances["ece"]


def test_a_metric_without_resampling_has_no_interval(monkeypatch) -> None:
    monkeypatch.setitem(METRICS._built_in, "rms_ece", replace(RMS_ECE, resampling=None))
    (found,) = measured(*rows(300), Panel(["rms_ece"], bootstrap=Bootstrap()))
    assert found.values.keys() == {"rms_ece"}
    assert not found.intervals
    assert not found.chances


def test_a_choice_among_methods_takes_any_metric(
    monkeypatch, calib_here, sample_data: Path
) -> None:
    monkeypatch.setitem(METRICS._built_in, "rms_ece", RMS_ECE)
    monkeypatch.setattr(registry, "LEADERBOARD_METRICS", ("nll", "rms_ece"))
    methods = ("--methods", "none,temperature", "--format", "json", "-q")
    code, out, err = calib_here("compare", sample_data / "digits_val.parquet", *methods)
    assert code == 0, err
    metrics = json.loads(out)["leaderboard"][0]["metrics"]
    rms = metrics["rms_ece"]
    assert rms["low"] <= rms["estimate"] <= rms["high"]
    code, out, err = calib_here("compare", sample_data / "digits_val.parquet", *methods[:2])
    assert code == 0, err
    assert RMS_ECE.title in out


def test_errors_of_a_calibrated_model_are_what_chance_gives() -> None:
    (found,) = measured(*rows(20_000))
    for name, chance in found.chances.items():
        assert chance.low < chance.mean < chance.high
        assert 0.4 * chance.mean < found.values[name] < 2.5 * chance.mean, name
        assert found.intervals[name].low < 0.3 * found.values[name], name


def test_chance_is_that_of_labels_drawn_row_by_row() -> None:
    logits, labels = rows(1000, classes=3)
    panel = Panel(["ece", "ks", "class_wise_ece"])
    (found,) = measured(logits, labels, replace(panel, bootstrap=Bootstrap(2000)))
    rng = np.random.default_rng(1)
    drawn = [
        measured(logits, (logits + rng.gumbel(size=logits.shape)).argmax(axis=1), panel)[0].values
        for _ in range(300)
    ]
    for name in panel.names:
        values = [each[name] for each in drawn]
        chance = found.chances[name]
        assert chance.mean == pytest.approx(np.mean(values), rel=0.05)
        low, high = np.quantile(values, [0.025, 0.975])
        assert (chance.low, chance.high) == pytest.approx((low, high), rel=0.15)


def test_two_classes_are_mirror_images_by_chance_too() -> None:
    logits, labels = rows(2000, classes=2)
    panel = Panel(["ece", "class_wise_ece"], bootstrap=Bootstrap())
    (found,) = measured(logits, labels, panel)
    ece, class_wise = found.chances["ece"], found.chances["class_wise_ece"]
    assert class_wise.high - class_wise.low == pytest.approx(ece.high - ece.low, rel=0.5)


def test_intervals_do_not_depend_on_the_blocks() -> None:
    logits, labels = rows(3000, classes=5, temperature=1.4)
    units = Units(3000)
    for statistic in (ConfidenceBags(units), ClassBags(units), ClassBags(units, "predicted")):
        whole = statistic.finish(statistic.partial(View(logits, labels)))
        states = [
            statistic.partial(View(logits[a:b], labels[a:b], start=a))
            for a, b in ((0, 700), (700, 701), (701, 3000))
        ]
        merged = statistic.merge(states[0], statistic.merge(states[1], states[2]))
        assert_same_sums(whole, statistic.finish(merged))


def test_weights_are_repetitions_of_the_same_unit() -> None:
    logits, labels = rows(200, temperature=1.3)
    times = np.random.default_rng(2).integers(1, 4, 200)
    again = np.repeat(np.arange(200), times)
    (weighted,) = measured(logits, labels, weights=times.astype(float))
    panel = Panel(bootstrap=Bootstrap(role="cluster"))
    (repeated,) = measured(
        logits[again],
        labels[again],
        panel,
        keys={"cluster": again},
        key_names={"cluster": tuple(map(str, range(200)))},
    )
    for name, interval in weighted.intervals.items():
        # What labels drawn anew make of repetitions is known from how clusters vary.
        error = name in weighted.chances
        close = {"rel": 0.3, "abs": 0.004} if error else {"abs": 1e-8}
        assert repeated.intervals[name] == pytest.approx(interval, **close), name


def test_clusters_of_single_rows_are_rows() -> None:
    logits, labels = rows(300, temperature=1.3)
    names = tuple(map(str, range(300)))
    more = {"keys": {"cluster": np.arange(300)}, "key_names": {"cluster": names}}
    (rowwise,) = measured(logits, labels)
    (clustered,) = measured(logits, labels, Panel(bootstrap=Bootstrap(role="cluster")), **more)
    assert clustered.intervals == rowwise.intervals


def test_copies_in_one_cluster_do_not_narrow_an_interval() -> None:
    logits, labels = rows(250)
    again = np.tile(np.arange(250), 4)
    more = {"keys": {"cluster": again}, "key_names": {"cluster": tuple(map(str, range(250)))}}
    (once,) = measured(logits, labels)
    (naive,) = measured(logits[again], labels[again])
    (right,) = measured(
        logits[again], labels[again], Panel(bootstrap=Bootstrap(role="cluster")), **more
    )

    def width(found: Evaluation) -> float:
        return found.intervals["nll"].high - found.intervals["nll"].low

    assert width(right) == pytest.approx(width(once), rel=1e-6)
    assert width(naive) < 0.65 * width(once)


def test_rows_without_weight_change_nothing() -> None:
    logits, labels = rows(300, temperature=1.2)
    weights = np.concatenate((np.ones(300), np.zeros(40)))
    extra = rows(40, seed=1)
    both = np.concatenate((logits, extra[0])), np.concatenate((labels, extra[1]))
    (alone,) = measured(logits, labels)
    (padded,) = measured(*both, weights=weights)
    for name, interval in alone.intervals.items():
        assert padded.intervals[name] == pytest.approx(interval, rel=0.2, abs=0.01), name


def test_an_infinite_score_has_no_interval() -> None:
    data = open_data(Engine(threads=1), ArraySource(*rows(100)))

    class Impossible(Predictor):
        def __call__(self, tile):
            logits = tile.logits.copy()
            logits[0, tile.labels[0]] = -np.inf
            return logits

    before, after = measure(data, [Through(), Impossible()], DEFAULT)
    assert "nll" in before.intervals
    assert "nll" not in after.intervals
    assert "nll" not in after.changes
    assert "brier" in after.changes


def test_many_classes_have_fewer_bags() -> None:
    units = Units(10**6)
    assert ClassBags(units).sets_and_bags(10) == (4, 32)
    assert ClassBags(Units(500)).sets_and_bags(10) == (16, 32)
    assert ClassBags(Units(500)).sets_and_bags(1000) == (8, 32)
    assert ClassBags(units).sets_and_bags(4000) == (4, 16)
    rng = np.random.default_rng(0)
    view = View(rng.standard_normal((3, 20_000)), rng.integers(0, 20_000, 3))
    assert ClassBags(units).partial(view) is None


@given(st.integers(2, 50), st.integers(1, 30), st.integers(0, 2**62))
@settings(max_examples=30)
def test_draws_keep_the_weight(bags: int, replicates: int, seed: int) -> None:
    weights = np.random.default_rng(bags).random(bags)
    weights[0] = 0
    counts = draws(weights, replicates, seed)
    np.testing.assert_allclose(counts @ weights, weights.sum())
    assert not counts[:, 0].any()


@given(st.integers(0, 2**62), st.integers(0, 500), st.integers(1, 500))
@settings(max_examples=30)
def test_a_bag_depends_on_the_number_alone(seed: int, begin: int, count: int) -> None:
    every = hashed(np.arange(1000), seed, 64)
    np.testing.assert_array_equal(
        hashed(np.arange(begin, begin + count), seed, 64), every[begin : begin + count]
    )
    assert 0 <= every.min() <= every.max() < 64


def test_the_tail_is_that_of_student() -> None:
    scipy_stats = pytest.importorskip("scipy.stats")
    for bags in (5, 20, 512):
        student = scipy_stats.t.ppf(0.975, bags - 1) * (bags / (bags - 1)) ** 0.5
        assert scipy_stats.norm.isf(tail_share(bags)) == pytest.approx(student, rel=0.02)


def test_an_error_of_one_sum_has_the_interval_of_a_normal_mean() -> None:
    noise = np.random.default_rng(0).standard_normal((40_000, 1))
    ten = np.array([10.0])
    large = ErrorSample(lambda sums: np.abs(sums[:, 0]), ten, ten[None, :], noise, 0.025)
    upper = NormalDist().inv_cdf(1 - 0.6 * 0.025)
    assert large.interval == pytest.approx((10 - 1.96, 10 + upper), abs=0.05)
    small = replace(large, residuals=np.array([1.0]))
    assert small.interval.low == 0
    assert small.interval.high == pytest.approx(1 + upper, abs=0.05)


def test_classes_that_are_off_alike_are_found_to_be() -> None:
    weight = np.arange(1.0, 31.0)
    bins = np.arange(30) % 15
    gap = np.linspace(-0.1, 0.2, 15)
    np.testing.assert_allclose(pooled(weight * gap[bins], weight, bins), weight * gap[bins])


def test_noise_is_shrunken_away_and_signal_is_kept() -> None:
    noise = np.random.default_rng(0).standard_normal(10_000)
    assert np.abs(less_noise(noise, np.ones(10_000))).mean() < 0.1 * np.abs(noise).mean()
    signal = np.array([-50.0, 0.0, 50.0])
    np.testing.assert_allclose(less_noise(signal, np.ones(3)), signal, rtol=1e-3)


def test_an_interval_is_made_to_hold_its_value() -> None:
    assert Interval(1.0, 2.0).around(3.0) == (1.0, 3.0)


def test_the_command_line(calib, sample_data: Path) -> None:
    file = sample_data / "digits_test.parquet"
    first, again = (calib("evaluate", file, "--format", "json", "-q") for _ in range(2))
    assert first.stdout == again.stdout
    ece = json.loads(first.stdout)["metrics"]["ece"]
    assert ece["low"] <= ece["estimate"] <= ece["high"]
    assert ece["estimate"] < ece["value"]
    assert ece["chance"]["low"] < ece["chance"]["mean"] < ece["chance"]["high"]
    lines = calib("evaluate", file, "--format", "csv", "-q").stdout.decode().splitlines()
    assert lines[0] == "input,measured,metric,value,estimate,low,high,column,slice"
    by_metric = {line.split(",")[2]: line.split(",")[3:] for line in lines[1:]}
    ends = [repr(ece[key]) for key in ("value", "estimate", "low", "high")]
    assert by_metric["ece"] == [*ends, "", ""]
    assert by_metric["nll"][1] == ""
    plain = calib("evaluate", file, "--format", "json", "-q", "--bootstrap", "0")
    assert json.loads(plain.stdout)["metrics"]["ece"] == {"value": ece["value"]}
    table = calib("evaluate", file, "-q").stdout.decode()
    assert "95 % interval" in table
    assert "by chance" in table


def test_a_fit_has_the_interval_of_each_change(calib, sample_data: Path) -> None:
    done = calib("fit", sample_data / "digits_val.parquet", "--format", "json", "-q")
    metrics = json.loads(done.stdout)["after"]["metrics"]
    change = metrics["nll"]["change"]
    assert change["low"] < change["high"] < 0


def test_clusters_come_from_a_column(calib, tmp_path: Path) -> None:
    logits, labels = rows(200)
    again = np.tile(np.arange(200), 3)
    np.savez(
        tmp_path / "x.npz",
        logits=logits[again],
        labels=labels[again],
        document=again,
        all=np.zeros(600, int),
    )
    widths = []
    for more in ((), ("--cluster", "document")):
        done = calib("evaluate", "x.npz", "--format", "json", "-q", *more)
        nll = json.loads(done.stdout)["metrics"]["nll"]
        widths.append(nll["high"] - nll["low"])
    assert widths[1] > 1.5 * widths[0]
    refused = calib("evaluate", "x.npz", "-q", "--cluster", "all")
    assert refused.returncode == 2
    assert b"one cluster" in refused.stderr
    for looks in ("--tests", "--by-class"):
        assert calib("evaluate", "x.npz", "-q", "--cluster", "document", looks).returncode == 0


def test_tensors_give_what_arrays_give() -> None:
    torch = pytest.importorskip("torch")
    from calibcli.metrics.hypothesis_tests import CalibrationTests, LogisticRecalibration

    logits, labels = rows(200, classes=5)
    weights = np.random.default_rng(0).random(200)
    here = View(logits, labels, weights)
    there = View(torch.asarray(logits), torch.asarray(labels), weights)
    units = Units(200)
    for statistic in (
        ConfidenceBags(units),
        *(ClassBags(units, f) for f in ("all", "thresholded")),
    ):
        assert_same_sums(*(statistic.finish(statistic.partial(view)) for view in (here, there)))
    for statistic in (CalibrationTests(200), LogisticRecalibration()):
        one, other = (statistic.partial(view) for view in (here, there))
        np.testing.assert_allclose(
            np.concatenate([np.ravel(x) for x in one]),
            np.concatenate([np.ravel(x) for x in other]),
            atol=1e-9,
        )


@pytest.mark.parametrize("height", [8.0, 3.0])
def test_zero_is_in_the_interval_just_where_chance_explains_the_error(height: float) -> None:
    """Of sure models too, whose few wrong rows hardly vary in a bootstrap."""
    rng = np.random.default_rng(int(height))
    names = ["ece", "adaptive_ece", "ks", "smooth_ece", "class_wise_ece", "top_label_ece"]
    inside, outside = 0, 0
    for temperature in (1.0, 1.15, 1.6):
        logits = rng.standard_normal((400, 10))
        logits[np.arange(400), rng.integers(0, 10, 400)] += height
        labels = (logits / temperature + rng.gumbel(size=logits.shape)).argmax(axis=1)
        (found,) = measured(logits, labels, Panel(names, bootstrap=Bootstrap()))
        for name in names:
            explained = found.values[name] <= found.chances[name].high
            # The range has the last replicate in it, the interval is a little narrower.
            if abs(found.values[name] / found.chances[name].high - 1) > 0.02:
                assert (found.intervals[name].low == 0) == explained, (name, temperature)
                inside, outside = inside + explained, outside + (not explained)
    assert min(inside, outside) >= 3


def test_a_wrong_row_moves_two_classes_in_the_noise() -> None:
    logits, labels = rows(3000, classes=2)
    statistic = ClassBags(Units(3000))
    cells = statistic.finish(statistic.partial(View(logits, labels)))
    mirrored = cells.noise[:, cells.codes < 15], cells.noise[:, cells.codes >= 15][:, ::-1]
    np.testing.assert_allclose(mirrored[0], -mirrored[1], atol=1e-3)
    variance = (cells.weight * cells.mean * (1 - cells.mean))[cells.weight > 50]
    np.testing.assert_allclose(cells.noise.var(axis=0)[cells.weight > 50] / variance, 1.0, atol=0.4)


def test_deviations_of_a_binomial_are_exact() -> None:
    counts, mean, true = np.array([7.0, 40, 5000]), np.array([0.3, 0.02, 0.5]), np.full(3, 0.25)
    binomial = pytest.importorskip("scipy.stats").binom
    for n, p, q, deviation in zip(
        counts, mean, true, mean_deviations(counts, mean, true, true * (1 - true)), strict=True
    ):
        k = np.arange(n + 1)
        expected = (np.abs(k / n - p) * binomial.pmf(k, n, q)).sum()
        assert deviation == pytest.approx(expected, rel=1e-9 if n < 100 else 1e-3)


def test_deviations_of_a_binomial_are_those_of_its_complement() -> None:
    rng = np.random.default_rng(0)
    # Effective rows of weighted ones are not whole.
    rows, mean, true = rng.uniform(1, 60, 200), rng.random(200), rng.random(200)
    variance = true * (1 - true)
    np.testing.assert_allclose(
        mean_deviations(rows, mean, true, variance),
        mean_deviations(rows, 1 - mean, 1 - true, variance),
        rtol=1e-9,
    )


def test_clusters_that_go_together_widen_what_chance_gives() -> None:
    logits, labels = rows(60, classes=3)
    again = np.tile(np.arange(60), 20)
    more = {"keys": {"cluster": again}, "key_names": {"cluster": tuple(map(str, range(60)))}}
    panel = Panel(["ece", "class_wise_ece"], bootstrap=Bootstrap(role="cluster"))
    (once,) = measured(logits, labels, replace(panel, bootstrap=Bootstrap()))
    (right,) = measured(logits[again], labels[again], panel, **more)
    (naive,) = measured(logits[again], labels[again], replace(panel, bootstrap=Bootstrap()))
    for name in panel.names:
        assert right.chances[name].high == pytest.approx(once.chances[name].high, rel=0.35), name
        assert naive.chances[name].high < 0.5 * once.chances[name].high, name
    # Copies of a row in a cluster of 20 count once.
    assert right.design_effect == pytest.approx(20, rel=0.5)
    assert naive.design_effect == 1


ERRORS = ["ece", "adaptive_ece", "l2_debiased", "ks", "smooth_ece", "class_wise_ece"]


@pytest.mark.parametrize("temperature", [1.0, 1.3, 2.0])
def test_changes_of_errors_are_around_their_estimate_and_turn_with_the_models(
    temperature: float,
) -> None:
    logits, labels = rows(800, classes=5, temperature=temperature)
    panel = Panel([*ERRORS, "top_label_ece"], bootstrap=Bootstrap())
    stages = (), (Temperature(1.25),)
    there, back = (
        measured(logits, labels, panel, stages=order) for order in (stages, stages[::-1])
    )
    for name in panel.names:
        estimates = [each.estimates[name] for each in there]
        assert [each.estimates[name] for each in back] == pytest.approx(estimates[::-1])
        for each in (*there, *back):
            assert each.intervals[name].low <= each.estimates[name] <= each.intervals[name].high
        change, way_back = there[1].changes[name], back[1].changes[name]
        assert change.low <= estimates[1] - estimates[0] <= change.high
        # Labels are drawn from the first model, so that ends are the same but for the draws.
        width = change.high - change.low
        assert way_back == pytest.approx((-change.high, -change.low), abs=0.35 * width), name


@pytest.mark.parametrize("height", [3.0, 8.0])
def test_changes_of_errors_cover_what_they_are_of_calibrated_models(height: float) -> None:
    """The true error of the second model is how far it is from the first, the true one."""
    rng = np.random.default_rng(int(height))

    def drawn(count: int):
        logits = rng.standard_normal((count, 10))
        logits[np.arange(count), rng.integers(0, 10, count)] += height
        return logits, (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)

    names = ["ece", "class_wise_ece"]
    stages = (), (Temperature(1.25),)
    (_, many) = measured(*drawn(200_000), Panel(names), stages=stages)
    held = dict.fromkeys(names, 0)
    for seed in range(50):
        panel = Panel(names, bootstrap=Bootstrap(seed=seed))
        (_, after) = measured(*drawn(800), panel, stages=stages)
        for name in names:
            low, high = after.changes[name]
            held[name] += low <= many.values[name] <= high
    # Fewer than 41 of 50 would come up twice in 1,000 times if each were held with 93 %.
    assert min(held.values()) >= 41, held


def test_a_change_may_be_how_far_two_overconfident_models_are_apart() -> None:
    """Both are off in the same direction, so that the true change needs no labels."""

    def drawn(rng: np.random.Generator, count: int) -> np.ndarray:
        logits = rng.standard_normal((count, 10))
        logits[np.arange(count), rng.integers(0, 10, count)] += 9.5 + 2 * rng.standard_normal(count)
        return logits

    logits = drawn(np.random.default_rng(0), 200_000)
    before, after = (softmax(each).max(axis=1).mean() for each in (logits, logits / 1.25))
    stages = (), (Temperature(1.25),)
    beyond = 0
    for seed in range(60):
        rng = np.random.default_rng([1, seed])
        logits = drawn(rng, 600)
        labels = (logits / 1.5 + rng.gumbel(size=logits.shape)).argmax(axis=1)
        panel = Panel(["ece"], bootstrap=Bootstrap(seed=seed))
        (_, cooled) = measured(logits, labels, panel, stages=stages)
        low, high = cooled.changes["ece"]
        beyond += not low <= after - before <= high
    assert beyond <= 1


def test_upper_ends_are_above_the_error_of_a_rare_event_whose_odds_are_off() -> None:
    """Most of the error is then where most of the noise is: in the few likely rows."""
    odds = -5.5 + 1.4 * np.random.default_rng(0).standard_normal((400_000, 1))
    true, said = (1 / (1 + np.exp(-each[:, 0])) for each in (odds, odds / 1.25))
    order = np.argsort(said)
    gaps = [(said[part] - true[part]).mean() for part in np.array_split(order, 15)]
    error = np.mean(np.square(gaps)) ** 0.5
    below = 0
    for seed in range(60):
        rng = np.random.default_rng([1, seed])
        odds = -5.5 + 1.4 * rng.standard_normal((2000, 1))
        labels = (rng.random(2000) < 1 / (1 + np.exp(-odds[:, 0]))).astype(int)
        logits = np.hstack((0 * odds, odds / 1.25))
        panel = Panel(["l2_debiased"], bootstrap=Bootstrap(seed=seed))
        (each,) = measured(logits, labels, panel)
        below += each.intervals["l2_debiased"].high < error
    # 1.5 are expected to be.
    assert below <= 4


RARE = ("ece", "adaptive_ece", "ks", "ecce_r", "smooth_ece", "l2_debiased")
RARE_BY_CLASS = ("class_wise_ece", "top_label_ece")


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("spread", [0.0, 1.0])
@pytest.mark.parametrize(("count", "level"), [(200, -8.0), (200, -3.0), (2500, -6.0)])
def test_no_interval_of_a_rare_event_is_certain(count, level, spread, seed) -> None:
    """Of calibrated rows, also where none is positive, or the error is smaller than by chance."""
    rng = np.random.default_rng(seed)
    odds = level + spread * rng.standard_normal(count)
    labels = (rng.random(count) < 1 / (1 + np.exp(-odds))).astype(int)
    # Adaptive ECE leaves out the smallest confidence: of a constant all rows.
    names = [name for name in (*RARE, *RARE_BY_CLASS) if spread or name != "adaptive_ece"]
    (found,) = measured(
        np.stack((0 * odds, odds), axis=1), labels, Panel(names, bootstrap=Bootstrap(seed=seed))
    )
    for name in names:
        low, high = found.intervals[name]
        # 3 / n is the rule of three: so many of n rows may have shown nothing.
        assert high > 3 / count, name
        if name in found.chances and found.values[name] < 0.97 * found.chances[name].high:
            assert low == 0, name
        elif name in found.chances and found.values[name] > 1.03 * found.chances[name].high:
            assert low > 0, name


def test_an_error_below_what_chance_makes_has_an_upper_end_like_others() -> None:
    highs = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        odds = -5.2 + 0.8 * rng.standard_normal(4000)
        chance = 1 / (1 + np.exp(-odds))
        labels = (rng.random(4000) < chance).astype(int)
        if seed == 0:
            # As many positives in each tenth of the rows as are expected: nothing is off.
            order = np.argsort(odds)
            labels[order] = np.diff(np.floor(np.cumsum(chance[order]) + 0.5), prepend=0)
        (found,) = measured(
            np.stack((0 * odds, odds), axis=1), labels, Panel(RARE, bootstrap=Bootstrap())
        )
        highs.append([found.intervals[name].high for name in RARE])
        if seed == 0:
            assert found.values["ks"] < found.chances["ks"].low
            assert all(found.intervals[name].low == 0 for name in RARE)
    regular, *others = np.array(highs)
    assert (regular > 0.5 * np.median(others, axis=0)).all()


@pytest.mark.parametrize("weighted", [False, True])
def test_rows_of_which_none_differs_leave_room_for_some_that_do(weighted: bool) -> None:
    logits, labels = rows(300, temperature=1.2)
    weights = np.random.default_rng(0).exponential(size=300) if weighted else np.ones(300)
    panel = Panel(["accuracy", "cost", "nll"], costs=Costs.of_matrix(5 * (1 - np.eye(4))))
    panel = replace(panel, bootstrap=Bootstrap())
    stages = ((), (Temperature(1.5),))
    _, other = measured(logits, labels, panel, stages=stages, weights=weights)
    # Clopper and Pearson's upper end of none among so many.
    effective = weights.sum() ** 2 / (weights**2).sum()
    most = 1 - 0.025 ** (1 / effective)
    rounding = {"rel": 1e-6 if not weighted else 0.3}
    assert other.changes["accuracy"] == pytest.approx((-most, most), **rounding)
    assert other.changes["cost"] == pytest.approx((-5 * most, 5 * most), **rounding)
    assert other.changes["nll"].high - other.changes["nll"].low > 0
    right = logits.argmax(axis=1)
    (sure,) = measured(logits, right, panel, weights=weights)
    assert sure.intervals["accuracy"] == pytest.approx((1 - most, 1), **rounding)
    assert sure.intervals["cost"] == pytest.approx((0, 5 * most), **rounding)


def test_a_model_has_no_change_from_itself() -> None:
    logits, labels = rows(300)
    panel = Panel(["accuracy", "nll", "ece"], bootstrap=Bootstrap())
    _, other = measured(logits, labels, panel, stages=((), (Temperature(1.0),)))
    assert set(other.changes.values()) == {(0, 0)}
    # Of the accuracy alone nobody knows that it is the same model.
    panel = replace(panel, names=["accuracy"])
    _, other = measured(logits, labels, panel, stages=((), (Temperature(1.0),)))
    assert other.changes["accuracy"].high > 0.01


def test_a_row_that_differs_is_resampled() -> None:
    logits, labels = rows(300)
    moved = logits.copy()
    # It is wrong then.
    row = np.flatnonzero(logits.argmax(axis=1) == labels)[0]
    moved[row] = -moved[row]
    sample = {}
    for name, each in (("one", logits), ("other", moved)):
        statistic = SHARE_OF_ROWS.statistic(ACCURACY, Units(300))
        bags = statistic.finish(statistic.partial(View(each, labels)))
        sample[name] = SHARE_OF_ROWS.sample(ACCURACY, bags, math.nan)
    low, high = sample["other"].change_from(sample["one"])
    assert low <= 0 <= high
    # The exact interval of one row among so many ends at 0.0185.
    assert 4 / 300 < high - low < 0.025


@given(st.lists(st.floats(0.1, 9.0), min_size=2, max_size=40))
def test_what_may_not_have_been_seen_is_that_of_rows_of_one_weight(weights: list[float]) -> None:
    bagged = Bagged(Units(len(weights)), np.array(weights))
    effective = sum(weights) ** 2 / sum(w * w for w in weights)
    assert (1 - bagged.unseen_share) ** effective == pytest.approx(0.025)
    # Of more rows than bags as well as bags tell.
    counts = np.bincount(np.random.default_rng(0).integers(0, 256, 20_000), minlength=256)
    many = Bagged(Units(20_000), counts)
    assert 3.6 / 20_000 < many.unseen_share < 5 / 20_000
