"""Expected and observed by period: control limits, and what is out of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calibcli.metrics.periods import PeriodSums, in_order, read_periods
from calibcli.metrics.resampling import Units
from calibcli.metrics.slices import BY
from calibcli.metrics.view import View

Array = np.ndarray[Any, Any]


def view(
    probability: Array,
    labels: Array,
    period: Array,
    weights: Array | None = None,
    cluster: Array | None = None,
) -> View:
    logits = np.log(np.stack((1 - probability, probability), axis=1))
    keys = {BY: period} if cluster is None else {BY: period, "cluster": cluster}
    return View(logits, labels, weights, keys=keys)


def periods(count: int, seen: View, units: Units | None = None) -> list[Any]:
    sums = PeriodSums(count, units)
    return read_periods(sums.finish(sums.partial(seen)), [str(k) for k in range(count)])


def test_limits_of_equal_probabilities_are_those_of_the_binomial_distribution():
    stats = pytest.importorskip("scipy.stats")
    (period,) = periods(1, view(np.full(400, 0.1), np.zeros(400, int), np.zeros(400, int)))
    assert (period.expected, period.observed, period.signal) == (pytest.approx(40), 0, "low")
    tail = stats.norm.sf(3)
    counts = np.arange(401)
    within = counts[(counts >= period.low) & (counts <= period.high)]
    assert stats.binom.cdf(within[0] - 1, 400, 0.1) <= tail < stats.binom.cdf(within[0], 400, 0.1)
    assert stats.binom.sf(within[-1], 400, 0.1) <= tail < stats.binom.sf(within[-1] - 1, 400, 0.1)


def test_calibrated_periods_are_rarely_out_of_their_limits():
    rng = np.random.default_rng(0)
    rows, count = 300_000, 3000
    probability = rng.beta(1, 4, rows)
    labels = (rng.random(rows) < probability).astype(int)
    found = periods(count, view(probability, labels, rng.integers(0, count, rows)))
    out = np.mean([period.signal in ("high", "low") for period in found])
    assert out < 0.005
    assert np.mean([period.signal == "within" for period in found]) > 0.99


def test_a_period_that_has_drifted_is_seen():
    rng = np.random.default_rng(1)
    probability = rng.beta(1, 9, 12_000)
    period = np.repeat(np.arange(6), 2000)
    shift = np.where(period == 4, 1.6, np.where(period == 5, 0.5, 1.0))
    labels = (rng.random(12_000) < probability * shift).astype(int)
    found = periods(6, view(probability, labels, period))
    assert [each.signal for each in found] == [*(["within"] * 4), "high", "low"]
    by_hand = [(probability[period == k].sum(), labels[period == k].sum()) for k in range(6)]
    for each, (expected, observed) in zip(found, by_hand, strict=True):
        assert (each.expected, each.observed) == pytest.approx((expected, observed))


def test_few_events_or_rows_have_no_limits():
    period = np.repeat([0, 1, 2, 3], [10, 400, 400, 400])
    probability = np.where(period == 1, 0.01, np.where(period == 2, 0.995, 0.2))
    found = periods(5, view(probability, np.zeros(1210, int), period))
    assert [each.signal for each in found] == ["too few", "too few", "too few", "low"]
    assert all(each.low is each.high is None for each in found[:3])
    assert [each.name for each in found] == ["0", "1", "2", "3"]  # 4 has no rows


def test_certain_rows_have_no_limits():
    found = periods(
        1, View(np.tile([-np.inf, 0.0], (50, 1)), np.zeros(50, int), keys={BY: [0] * 50})
    )
    assert found[0].signal == "too few"


def test_weights_scale_limits():
    rng = np.random.default_rng(2)
    probability, labels = rng.beta(2, 5, 500), rng.integers(0, 2, 500)
    zeros = np.zeros(500, int)
    (plain,) = periods(1, view(probability, labels, zeros))
    (thrice,) = periods(1, view(probability, labels, zeros, np.full(500, 3.0)))
    assert (thrice.low, thrice.high) == pytest.approx((3 * plain.low, 3 * plain.high))
    assert thrice.signal == plain.signal
    extra = np.append(np.full(500, 1.0), 0.0)
    with_absent = view(np.append(probability, 0.5), np.append(labels, 1), np.zeros(501, int), extra)
    assert periods(1, with_absent)[0] == plain


def test_clusters_make_limits_wider():
    rng = np.random.default_rng(3)
    users = np.repeat(np.arange(40), 25)
    probability = np.full(1000, 0.3)
    # A user's rows come true together, in three users out of ten.
    labels = (rng.random(40) < 0.3).astype(int)[users]
    rows = view(probability, labels, np.zeros(1000, int), cluster=users)
    (by_row,) = periods(1, rows)
    (by_user,) = periods(1, rows, Units(40, "cluster"))
    assert by_user.high - by_user.low > 3 * (by_row.high - by_row.low)
    assert by_user.signal == "within"
    (few,) = periods(
        1, view(probability, labels, np.zeros(1000, int), cluster=users // 10), Units(4, "cluster")
    )
    assert few.signal == "too few"


def test_periods_are_in_the_order_of_their_names():
    def ordered(*names: str) -> list[str]:
        return [names[place] for place in in_order(names)]

    assert ordered("2025-10", "2025-2", "2024-12") == ["2024-12", "2025-2", "2025-10"]
    assert ordered("10", "9", "-3", "1e1") == ["-3", "9", "10", "1e1"]
    assert ordered("week 10", "week 9", "") == ["", "week 9", "week 10"]
    assert ordered("nan", "2", "1") == ["1", "2", "nan"]
    assert ordered("2٣", "2", "a") == ["2", "2٣", "a"]


def test_sums_do_not_depend_on_blocks():
    rng = np.random.default_rng(4)
    probability, labels = rng.random(600), rng.integers(0, 2, 600)
    period, users = rng.integers(0, 3, 600), rng.integers(0, 50, 600)
    sums = PeriodSums(3, Units(50, "cluster"))
    whole = sums.partial(view(probability, labels, period, cluster=users))
    parts = [
        sums.partial(view(probability[s], labels[s], period[s], cluster=users[s]))
        for s in (slice(0, 100), slice(100, 600))
    ]
    for a, b in zip(whole, sums.merge(*parts), strict=True):
        assert a == pytest.approx(b)


def test_the_command_shows_periods_in_order(calib_here: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    odds = rng.standard_normal(4000) - 1
    month = np.repeat([f"2025-{m}" for m in (11, 9, 10, 12)], 1000)
    chance = 1 / (1 + np.exp(-odds - np.where(month == "2025-12", 0.8, 0.0)))
    labels = (rng.random(4000) < chance).astype(int)
    np.savez(tmp_path / "x.npz", logits=odds, labels=labels, month=month)
    run = ("evaluate", "x.npz", "--by", "month", "--in-order", "-q")
    code, out, _ = calib_here(*run, "--format", "json")
    assert code == 0
    part = json.loads(out)["periods"]
    assert (part["column"], part["limits"]) == ("month", "binomial")
    assert [each["name"] for each in part["periods"]] == [f"2025-{m}" for m in (9, 10, 11, 12)]
    assert [each["signal"] for each in part["periods"]] == [*(["within"] * 3), "high"]
    code, out, _ = calib_here(*run)
    assert code == 0
    assert "1 of 4 periods is out of the limits; of a calibrated model one in 370 is" in out
    assert "above" in out
    code, out, _ = calib_here(*run, "--report", "x.html", "--format", "markdown")
    assert code == 0
    assert "| month | rows | expected | came | limits |" in out
    assert "periods is out of the limits" in (tmp_path / "x.html").read_text()
    code, out, err = calib_here("evaluate", "x.npz", "--in-order")
    assert (code, out) == (2, "")
    assert err == "calib: --in-order is about the values of a column; add --by COL\n"
