"""Slices of the rows: the worst first, with intervals, allowing for how many there are."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest

from calibcli.metrics.panel import Panel
from calibcli.metrics.resampling import Units
from calibcli.metrics.slices import SliceSums, benjamini_hochberg, read_slices, wrong_tail
from calibcli.metrics.view import View


def rows(count: int, classes: int = 4, seed: int = 0, temperature=1.0):
    rng = np.random.default_rng(seed)
    logits = 2 * rng.standard_normal((count, classes))
    labels = (logits / temperature + rng.gumbel(size=logits.shape)).argmax(axis=1)
    return logits, labels


def sliced(logits, labels, by, names, weights=None):
    statistic = SliceSums(len(names), "by")
    view = View(logits, labels, weights, keys={"by": by})
    return {each.name: each for each in read_slices(statistic.partial(view), names, 0)}


def test_a_slice_has_the_metrics_of_its_rows() -> None:
    logits, labels = rows(600)
    by = np.random.default_rng(1).integers(0, 3, 600)
    found = sliced(logits, labels, by, ("a", "b", "c", "never"))
    assert set(found) == {"a", "b", "c"}
    panel = Panel(["nll", "brier", "ece", "accuracy"])
    for place, name in enumerate("abc"):
        own = by == place
        values = panel.finish(panel.partial(View(logits[own], labels[own]))).values
        entry = found[name]
        assert entry.rows == own.sum()
        assert (entry.nll, entry.brier, entry.ece, entry.accuracy) == pytest.approx(
            (values["nll"], values["brier"], values["ece"], values["accuracy"])
        )
        for value, interval in (
            (entry.nll, entry.nll_interval),
            (entry.brier, entry.brier_interval),
            (entry.ece, entry.ece_interval),
        ):
            assert interval.low <= value <= interval.high


class TestClusters:
    """Rows that go together count once, whatever their number."""

    def found(self, logits, labels, by, cluster, *, independent: bool = False):
        units = None if independent else Units(int(cluster.max()) + 1, "cluster")
        statistic = SliceSums(2, "by", units)
        view = View(logits, labels, keys={"by": by, "cluster": cluster})
        return read_slices(statistic.partial(view), ("a", "b"), 0)

    def test_copies_change_nothing(self) -> None:
        logits, labels = rows(400, temperature=1.3)
        by, cluster = np.arange(400) % 2, np.arange(400)
        again = np.repeat(np.arange(400), 9)
        once = self.found(logits, labels, by, cluster)
        often = self.found(logits[again], labels[again], by[again], cluster[again])
        rowwise = self.found(logits, labels, by, cluster, independent=True)
        hopeful = self.found(logits[again], labels[again], by[again], again, independent=True)
        found = [sorted(each, key=lambda s: s.name) for each in (often, once, rowwise, hopeful)]
        for copies, plain, theirs, narrow in zip(*found, strict=True):
            for name in ("nll_interval", "brier_interval", "ece_interval"):
                ours, same = getattr(copies, name), getattr(plain, name)
                assert ours == pytest.approx(same, abs=0.01)
                assert same == pytest.approx(getattr(theirs, name), abs=0.03)
                width = getattr(narrow, name)[1] - getattr(narrow, name)[0]
                assert ours[1] - ours[0] > 1.5 * width
            assert copies.p == pytest.approx(plain.p, rel=0.2)

    def test_the_level_of_the_test_is_kept(self) -> None:
        """Of 16 patients with offsets of their own, p below 5 % in about 5 % of models."""
        low = []
        for seed in range(300):
            generator = np.random.default_rng(seed)
            cluster = np.repeat(np.arange(16), 25)
            # Whole patients are right or wrong together, as often as is said.
            confidence = np.full(400, 0.7)
            right = (generator.random(16) < 0.7)[cluster]
            logits = np.log(np.stack((confidence, 1 - confidence), axis=1))
            found = self.found(logits, (~right).astype(int), cluster * 0, cluster)
            low.append(found[0].p < 0.05)
        assert 0.01 < np.mean(low) < 0.1

    def test_of_one_cluster_nothing_is_known(self) -> None:
        logits, labels = rows(100)
        by = np.arange(100) // 50
        found = self.found(logits, labels, by, by)
        assert np.isnan([each.p for each in found]).all()
        assert np.isnan([each.ece_interval.low for each in found]).all()
        assert np.isnan([each.ece_estimate for each in found]).all()
        assert found[0].ece >= found[1].ece

    def test_bags_merge(self) -> None:
        logits, labels = rows(500)
        keys = {"by": np.arange(500) % 2, "cluster": np.arange(500) // 3}
        statistic = SliceSums(2, "by", Units(167, "cluster"))
        parts = [
            statistic.partial(
                View(logits[a:b], labels[a:b], start=a, keys={k: v[a:b] for k, v in keys.items()})
            )
            for a, b in ((0, 100), (100, 500))
        ]
        whole = statistic.partial(View(logits, labels, keys=keys))
        for mine, other in zip(statistic.merge(*parts), whole, strict=True):
            np.testing.assert_allclose(mine, other)


@pytest.mark.parametrize("temperature", [1.0, 1.3, 3.0])
def test_an_ece_begins_at_0_only_where_says_and_right_may_be_the_same(temperature: float) -> None:
    rng = np.random.default_rng(7)
    rows, count = 12_000, 200
    logits = rng.standard_normal((rows, 3)) * 2
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (rng.random((rows, 1)) > probs.cumsum(axis=1)).sum(axis=1)
    view = View(logits * temperature, labels, keys={"by": rng.integers(0, count, rows)})
    sums = SliceSums(count, "by")
    found = read_slices(sums.finish(sums.partial(view)), tuple(map(str, range(count))), 0)
    assert len(found) == count
    for each in found:
        assert each.p >= 0.05 or each.ece_interval.low > 0
        assert 0 <= each.ece_interval.low <= each.ece_estimate <= each.ece_interval.high <= 1
        assert each.ece_estimate <= each.ece + 1e-12
        gap = abs(each.confidence - each.accuracy)
        assert each.ece_interval.low <= gap + 1e-12 or each.ece > gap
    if temperature == 1.0:
        # The truth is 0.
        missed = np.mean([each.ece_interval.low > 0 for each in found])
        assert missed < 0.1


def test_intervals_of_slices_stay_within_what_there_is() -> None:
    """Rows that all came true, as in slices by label."""
    probs = np.full(30, 0.004)
    view = View(np.log(np.stack([1 - probs, probs], axis=1)), np.ones(30, int), event=1)
    sums = SliceSums(2)
    (each,) = read_slices(sums.finish(sums.partial(view)), ("0", "1"), 0)
    assert each.accuracy == 1
    assert each.ece_interval.high <= 1
    assert each.brier_interval.low >= 0


def test_slices_merge() -> None:
    logits, labels = rows(500)
    by = np.arange(500) % 7
    statistic = SliceSums(7, "by")
    parts = [
        statistic.partial(View(logits[a:b], labels[a:b], start=a, keys={"by": by[a:b]}))
        for a, b in ((0, 3), (3, 500))
    ]
    whole = statistic.partial(View(logits, labels, keys={"by": by}))
    for one, other in zip(statistic.merge(*parts), whole, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-9)


def test_the_wrong_slice_comes_first() -> None:
    logits, labels = rows(6000)
    by = np.arange(6000) % 20
    wrong = by == 13
    logits[wrong] *= 3
    names = tuple(f"slice {place}" for place in range(20))
    found = list(sliced(logits, labels, by, names).values())
    assert found[0].name == "slice 13"
    assert found[0].adjusted_p < 1e-3
    assert found[0].ece_interval.low > 0.02
    for each in found:
        assert each.ece_interval.low <= each.ece_estimate <= each.ece_interval.high
        assert each.ece_estimate <= each.ece
    assert sum(each.adjusted_p < 0.05 for each in found) <= 3


def test_weights_of_zero_are_absent_and_weights_scale() -> None:
    logits, labels = rows(300)
    by = np.arange(300) % 2
    weights = np.where(by == 0, 0.0, 2.0)
    found = sliced(logits, labels, by, ("a", "b"), weights)
    plain = sliced(logits, labels, by, ("a", "b"))["b"]
    assert set(found) == {"b"}
    assert found["b"].nll_interval == pytest.approx(plain.nll_interval)
    assert found["b"].ece_interval == pytest.approx(plain.ece_interval)
    assert found["b"].p == pytest.approx(plain.p)


def test_without_a_column_slices_are_predicted_classes() -> None:
    logits, labels = rows(400, classes=3)
    statistic = SliceSums(3)
    found = read_slices(statistic.partial(View(logits, labels)), ("x", "y", "z"), 0)
    predicted = np.bincount(logits.argmax(axis=1), minlength=3)
    assert {each.name: each.rows for each in found} == dict(zip("xyz", predicted, strict=True))


def test_benjamini_and_hochberg_adjust_as_scipy_does() -> None:
    stats = pytest.importorskip("scipy.stats")
    p = np.random.default_rng(0).random(50) ** 2
    np.testing.assert_allclose(benjamini_hochberg(p), stats.false_discovery_control(p))
    mixed = benjamini_hochberg(np.append(p, np.nan))
    np.testing.assert_allclose(mixed[:-1], stats.false_discovery_control(p))
    assert np.isnan(mixed[-1])


@pytest.mark.parametrize(("count", "rows", "chance"), [(0, 20, 0.1), (5, 20, 0.1), (1, 5, 0.001)])
def test_the_p_value_of_equal_rows_is_binomial(count: int, rows: int, chance: float) -> None:
    stats = pytest.importorskip("scipy.stats")
    binomial = stats.binom(rows, chance)
    expected = min(1, 2 * min(binomial.cdf(count), binomial.sf(count - 1)))
    mean = rows * chance
    assert wrong_tail(count, mean, mean * (1 - chance)) == pytest.approx(expected, rel=1e-6)


def test_a_wrong_prediction_of_rows_that_are_all_sure_says_everything() -> None:
    assert wrong_tail(1.0, 0.0, 0.0) == 0
    assert np.isnan(wrong_tail(0.0, 0.0, 0.0))


def test_p_values_of_calibrated_slices_are_cautious() -> None:
    logits, labels = rows(40_000, classes=3)
    by = np.arange(40_000) % 1000
    found = sliced(logits, labels, by, tuple(map(str, range(1000))))
    share = np.mean([each.p < 0.05 for each in found.values()])
    assert 0.01 < share < 0.06
    assert sum(each.adjusted_p < 0.05 for each in found.values()) <= 2


def test_the_command_line(calib, tmp_path: Path) -> None:
    logits, labels = rows(1200)
    language = np.array(["de", "en", "fr", "it", "nl", "pl"])[np.arange(1200) % 6]
    logits[language == "fr"] *= 3
    np.savez(
        tmp_path / "x.npz", logits=logits, labels=labels, language=language, row=np.arange(1200)
    )
    done = calib("evaluate", "x.npz", "--by", "language", "--by-class", "--format", "json", "-q")
    by_language, by_class = json.loads(done.stdout)["slices"]
    assert by_language["column"] == "language"
    assert by_language["slices"][0]["name"] == "fr"
    assert by_class["column"] is None
    assert len(by_class["slices"]) == 4
    text = calib("evaluate", "x.npz", "--by", "row", "-q").stdout.decode()
    assert "10 worst of 1200" in text


def test_csv_has_slices_and_the_ends_of_intervals(calib, tmp_path: Path) -> None:
    logits, labels = rows(400, temperature=2.0)
    np.savez(tmp_path / "a.npz", logits=logits, labels=labels, site=np.arange(400) % 2)
    arguments = ("evaluate", tmp_path / "a.npz", "--by", "site", "-q", "--format")
    document = json.loads(calib(*arguments, "json").stdout)
    text = calib(*arguments, "csv").stdout.decode()
    found = list(csv.DictReader(io.StringIO(text)))
    whole = {row["metric"]: row for row in found if not row["slice"]}
    ece = document["metrics"]["ece"]
    assert [whole["ece"][key] for key in ("low", "high")] == [repr(ece["low"]), repr(ece["high"])]
    for entry in document["slices"][0]["slices"]:
        (row,) = [r for r in found if r["slice"] == entry["name"] and r["metric"] == "ece"]
        assert row["column"] == "site"
        for key in ("value", "estimate", "low", "high"):
            assert float(row[key]) == entry["ece"][key]


def test_too_many_slices_are_refused(calib, tmp_path: Path) -> None:
    logits, labels = rows(5000, classes=2)
    np.savez(tmp_path / "x.npz", logits=logits, labels=labels, row=np.arange(5000))
    refused = calib("evaluate", "x.npz", "--by", "row", "-q")
    assert refused.returncode == 2
    assert b"--by row: the column has 5,000 values" in refused.stderr


def test_every_key_is_documented(calib, tmp_path: Path) -> None:
    logits, labels = rows(300)
    np.savez(tmp_path / "x.npz", logits=logits, labels=labels, half=np.arange(300) % 2)
    more = ("--by", "half", "--tests", "--refit", "temperature")
    document = json.loads(calib("evaluate", "x.npz", *more, "--format", "json", "-q").stdout)
    page = (Path(__file__).parents[1] / "docs" / "json.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"`(\w+)`", page))
    parts = [
        document["metrics"]["ece"],
        document["metrics"]["ece"]["chance"],
        document["slices"][0],
        document["slices"][0]["slices"][0],
        document["tests"][0],
        document["refit"],
        document["refit"]["scores"]["nll"],
    ]
    assert {key for part in parts for key in part} <= documented
