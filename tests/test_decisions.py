"""Decisions: what errors cost, which threshold is best, and what is gained by deciding so."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import calibcli
from calibcli.engine.data import open_data
from calibcli.engine.engine import Engine
from calibcli.engine.folds import CLUSTER
from calibcli.engine.source import ArraySource
from calibcli.errors import UsageError
from calibcli.metrics.costs import ARGMAX_COST, COST, Costs, decide_from
from calibcli.metrics.decisions import Decisions, ThresholdPoint, threshold_lattice
from calibcli.metrics.panel import Panel
from calibcli.metrics.registry import METRICS
from calibcli.metrics.resampling import Bootstrap
from calibcli.metrics.view import View
from calibcli.workflow.deciding import measure_decisions
from calibcli.workflow.measuring import Through
from calibcli.workflow.pricing import given_costs, parse_costs

Array = np.ndarray[Any, Any]


def as_two(odds: Array) -> Array:
    return np.stack((np.zeros_like(odds), odds), axis=1)


def calibrated(rows: int, seed: int = 0) -> tuple[Array, Array]:
    """Log-odds of calibrated probabilities, and labels."""
    rng = np.random.default_rng(seed)
    odds = 1.5 * rng.standard_normal(rows) - 1
    return odds, (rng.random(rows) < 1 / (1 + np.exp(-odds))).astype(np.int64)


# ---- costs ----


def test_the_threshold_is_where_both_decisions_are_expected_to_cost_the_same():
    costs = Costs.of_errors(2, 30, true_positive=-5, true_negative=1)
    threshold = costs.threshold
    assert threshold == pytest.approx((2 - 1) / ((2 - 1) + (30 + 5)))
    expected = np.array([1 - threshold, threshold]) @ costs.matrix
    assert expected[0] == pytest.approx(expected[1])
    assert costs.outcomes == (2, 30, -5, 1)


@pytest.mark.parametrize("positive", [0, 1])
def test_costs_by_outcome_are_about_the_positive_class(positive: int):
    costs = Costs.of_errors(1, 9, positive=positive)
    assert costs.matrix[positive, 1 - positive] == 9
    assert costs.matrix[1 - positive, positive] == 1
    assert costs.outcomes == (1, 9, 0, 0)
    assert costs.threshold == 0.1
    probs = np.array([[0.95, 0.05], [0.5, 0.5], [0.05, 0.95]])
    decision, expected = costs.least(probs)
    assert decision.tolist() == [positive if p[positive] >= 0.1 else 1 - positive for p in probs]
    assert expected == pytest.approx((probs @ costs.matrix).min(axis=1))


def test_a_matrix_decides_by_least_expected_cost():
    matrix = np.array([[0, 1, 1], [20, 0, 1], [1, 1, 0]])
    costs = Costs.of_matrix(matrix)
    assert costs.threshold is None
    probs = np.array([[0.9, 0.08, 0.02], [0.97, 0.02, 0.01], [0.1, 0.2, 0.7]])
    decision, expected = costs.least(probs)
    # 1.6 is expected of the first decision for the most probable class, 0.92 of this one.
    assert decision.tolist() == [1, 0, 2]
    assert expected == pytest.approx([0.92, 0.41, 0.3])
    view = View(np.log(probs), np.array([1, 1, 0]), np.array([1.0, 2.0, 0.5]))
    cost, argmax = (m.with_costs(costs) for m in (COST, ARGMAX_COST))
    read = [m.value(m.statistic.finish(m.statistic.partial(view))) for m in (cost, argmax)]
    assert read == pytest.approx([(0 + 2 * 20 + 0.5) / 3.5, (20 + 40 + 0.5) / 3.5])


def test_where_all_errors_cost_the_same_the_cost_is_the_error_rate():
    rng = np.random.default_rng(0)
    logits, labels = rng.standard_normal((400, 5)), rng.integers(0, 5, 400)
    cost = COST.with_costs(Costs.of_matrix(3 * (1 - np.eye(5))))
    accuracy = METRICS["accuracy"].measure(logits, labels)
    assert cost.measure(logits, labels) == pytest.approx(3 * (1 - accuracy))
    assert METRICS["argmax_cost"].measure(logits, labels) == pytest.approx(1 - accuracy)


def test_a_probability_at_the_threshold_decides_for_the_positive_class():
    at = np.array([0.2, np.nextafter(0.2, 0), 0.0, 1.0])
    assert decide_from(at, 0.2).tolist() == [1, 0, 0, 1]
    assert decide_from(at, 0.0).tolist() == [1, 1, 1, 1]
    assert decide_from(at, 1.0, positive=0).tolist() == [1, 1, 1, 0]


def test_of_calibrated_probabilities_no_other_threshold_costs_less():
    odds, labels = calibrated(200_000)
    costs = Costs.of_errors(1, 4)
    here = COST.with_costs(costs).measure(as_two(odds), labels)
    probs = 1 / (1 + np.exp(-odds))
    for threshold in (0.02, 0.1, 0.15, 0.26, 0.35, 0.5):
        there = costs.realised(labels, decide_from(probs, threshold)).mean()
        assert here < there, threshold


def test_equal_costs_are_equal_and_travel():
    costs = Costs.of_errors(1, 50)
    assert costs == Costs.of_matrix([[0, 1], [50, 0]])
    assert pickle.loads(pickle.dumps(costs)) == costs  # noqa: S301 (our own bytes)
    assert costs != Costs.of_errors(1, 51)
    panel = Panel(["cost", "cost"], costs=costs)
    assert [metric.name for metric in panel.metrics] == ["cost", "argmax_cost"]
    assert panel.metrics[0] == COST.with_costs(Costs.of_errors(1, 50))


def test_a_cost_without_costs_is_refused():
    with pytest.raises(UsageError, match="cost: nothing says what errors cost; add --cost"):
        _ = Panel(["cost"]).metrics
    assert "cost" not in {metric.name for metric in Panel(["all"]).metrics}


# ---- what users say ----


def test_costs_come_from_text_files_and_python(tmp_path: Path):
    matrix = np.array([[0.0, 1.0, 2.0], [3.0, 0.0, 4.5], [5.0, 6.0, -1.0]])
    (tmp_path / "a.json").write_text(json.dumps(matrix.tolist()))
    np.savetxt(tmp_path / "a.csv", matrix, delimiter=",")
    np.save(tmp_path / "a.npy", matrix)
    expected = Costs.of_matrix(matrix)
    for name in ("a.json", "a.csv", "a.npy"):
        assert parse_costs(str(tmp_path / name)).of(3, "auto") == expected
    assert given_costs(matrix.tolist()).of(3, "auto") == expected
    assert parse_costs("fn=50, fp=1").of(2, "auto") == Costs.of_errors(1, 50)
    assert parse_costs("fp=1,fn=5,tp=-2,tn=0.5").of(2, 0) == Costs.of_errors(
        1, 5, -2, 0.5, positive=0
    )
    assert given_costs({"fp": 1, "fn": 50}).of(2, "top") == Costs.of_errors(1, 50)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fp=1", r"what a false negative costs is missing \(fn=\)"),
        ("fp=1,fn=a", "'a' is not a number"),
        ("fp=1,fn=2,fp=3", "'fp=3' is not one of fp=, fn=, tp= and tn=, each once"),
        ("fp=1,fn=2,", "'' is not one of"),
        ("fp=1,fn=2,cost=3", "there is no 'cost'; there are fp, fn, tp and tn"),
        ("fp=nan,fn=2", "fp=nan is no cost"),
        ("fp=1,fn=inf", "fn=inf is no cost"),
        ("fp=1,fn=1e300", r"fn=1e\+300 is no cost"),
        ("fp=-1,fn=2", r"a false positive costs -1, less than a true negative \(0\)"),
        ("fp=1,fn=2,tp=3", r"a false negative costs 2, less than a true positive \(3\)"),
        ("2", r"give fp=X,fn=Y, or a matrix in a file: .json, .csv or .npy"),
        ("nowhere.csv", "No such file or directory"),
    ],
)
def test_costs_that_say_nothing_are_refused_in_a_line(text: str, message: str):
    with pytest.raises(UsageError, match=message) as error:
        parse_costs(text)
    assert str(error.value).startswith(f"--cost {text}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b"[[0, 1], [1]]", "must hold a square of numbers"),
        ("a.json", b"[" * 100_000, "must hold a square of numbers"),
        ("a.json", b'[[0, "1"], [1, 0]]', "must hold numbers only"),
        ("a.json", b'{"fp": 1}', "must hold"),
        ("a.json", b"\xff\xfe", "must hold a square of numbers"),
        ("a.json", b"", "must hold a square of numbers"),
        ("a.json", b"[[0, NaN], [1, 0]]", "the cost of deciding 1 where 0 is true is nan"),
        ("a.json", b"[[true, false], [false, true]]", "must hold numbers only"),
        ("a.json", b"[0, 1]", "costs must be a square, a row a true class, not 2"),
        ("a.json", b"[[0, 1, 2], [1, 0, 2]]", "costs must be a square, a row a true class, not 2"),
        ("a.json", b"[[[0, 1], [1, 0]]]", "costs must be a square"),
        ("a.json", b"[[0, 1e30], [1, 0]]", r"1e\+30 is no cost"),
        ("a.json", b"[[1, 0], [1, 0]]", "where class 0 is true, deciding 1 costs 0, and being"),
        ("a.json", b"[[0, 0], [0, 0]]", "no error costs more than being right"),
        ("a.json", b"[[0,1,1],[1,0,1],[1,1,0]]", "is for 3 classes; here are 2"),
        ("a.csv", b"", "costs must be a square"),
        ("a.csv", b"0,x\n1,0\n", "must hold a square of numbers"),
        ("a.csv", b"0,1\n1\n", "must hold a square of numbers"),
        ("a.csv", b"0,\x00\n1,0", "must hold a square of numbers"),
        ("a.npy", b"\x93NUMPY", "must hold a square of numbers"),
        ("a.npy", pickle.dumps([[0, 1], [1, 0]]), "must hold a square of numbers"),
        ("a.txt", b"0 1", "give fp=X,fn=Y, or a matrix in a file"),
    ],
)
def test_files_that_are_no_costs_are_refused_in_a_line(
    tmp_path: Path, name: str, content: bytes, message: str
):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UsageError, match=message) as error:
        parse_costs(str(path)).of(2, "auto")
    assert str(error.value).startswith(f"--cost {path}: ")
    assert "\n" not in str(error.value)


def test_fp_and_fn_are_for_two_classes():
    with pytest.raises(UsageError, match="fp and fn are for two classes; here are 3"):
        parse_costs("fp=1,fn=2").of(3, "auto")


# ---- thresholds, net benefit, abstention ----


def decide(
    odds: Array,
    labels: Array,
    costs: Costs,
    *,
    weights: Array | None = None,
    bootstrap: int = 200,
    folds: int = 5,
    cluster: Array | None = None,
    event: Any = "auto",
) -> Decisions:
    """What decisions cost by log-odds (n,) of class 1, or logits (n, K)."""
    scores = odds if odds.ndim == 2 else odds[:, None]
    source = ArraySource(scores, labels, weights, "logits")
    if cluster is not None:
        names = {CLUSTER: tuple(map(str, range(int(cluster.max()) + 1)))}
        source = replace(source, keys={CLUSTER: cluster}, key_names=names)
    data = open_data(Engine("cpu", 1), source, folds)
    role = None if cluster is None else CLUSTER
    panel = Panel(["nll"], bootstrap=Bootstrap(bootstrap, 0, role), event=event, costs=costs)
    (decisions,) = measure_decisions(data, [Through()], panel)
    return decisions


def log_odds(probability: Any) -> Any:
    return np.log(probability) - np.log1p(-np.asarray(probability))


def point(decisions: Decisions, threshold: float) -> ThresholdPoint:
    return next(p for p in decisions.curve if p.threshold == pytest.approx(threshold))


def test_net_benefit_is_that_of_the_decision_curve_of_the_cancer_data():
    """Of `df_binary` and `cancerpredmarker` of the R package dcurves, whose tests have the values.

    Of 750 patients, 105 with cancer, the model's risk is 25 % or more for 72 with and 72 without.
    """
    probability = np.repeat([0.4, 0.4, 0.1, 0.1], [72, 72, 33, 573])
    labels = np.repeat([1, 0, 1, 0], [72, 72, 33, 573])
    decisions = decide(log_odds(probability), labels, Costs.of_errors(1, 3))
    at = point(decisions, 0.25)
    assert at.net_benefit.value == pytest.approx(0.064, abs=1e-9)
    assert at.treat_all == pytest.approx(-0.1466667, abs=1e-7)
    assert at.flagged == pytest.approx(144 / 750)
    assert at.cost.value == pytest.approx((72 + 3 * 33) / 750)


def test_the_net_benefit_of_treating_all_is_that_of_a_published_table():
    """Table 4 of PMC6993280, at a prevalence of 30 %."""
    labels = np.repeat([1, 0], [300, 700])
    decisions = decide(np.zeros(1000), labels, Costs.of_errors(1, 9))
    published = {0.05: 0.263, 0.1: 0.222, 0.2: 0.125, 0.3: 0.0, 0.4: -0.167, 0.5: -0.4, 0.6: -0.75}
    for threshold, benefit in published.items():
        assert point(decisions, threshold).treat_all == pytest.approx(benefit, abs=5e-4)
    at = point(decisions, 0.5)
    assert at.net_benefit.value == at.treat_all  # a probability of 1/2 reaches 1/2
    assert point(decisions, 0.55).net_benefit.value == 0


@pytest.mark.parametrize("weighted", [False, True])
def test_costs_by_threshold_are_those_of_a_plain_loop(weighted: bool):
    odds, labels = calibrated(700)
    odds = np.round(odds + 0.7, 1)
    weights = np.random.default_rng(2).integers(0, 4, 700) * 1.0 if weighted else np.ones(700)
    costs = Costs.of_errors(1, 6, -2, 0.25)
    decisions = decide(odds, labels, costs, weights=weights if weighted else None)
    probs = View(as_two(odds), labels).confidence
    for at in decisions.curve:
        decided = probs >= at.threshold
        cost = costs.realised(labels, decided.astype(int))
        share = np.average(decided, weights=weights)
        true = np.average(decided & (labels == 1), weights=weights)
        odds_at = at.threshold / (1 - at.threshold)
        assert at.cost.value == pytest.approx(np.average(cost, weights=weights))
        assert at.flagged == pytest.approx(share)
        assert at.net_benefit.value == pytest.approx(true - odds_at * (share - true))
    rules = {rule.name: rule.cost.value for rule in decisions.rules}
    flagged = {rule.name: rule.flagged for rule in decisions.rules}
    for name, decision in (
        ("least", probs >= costs.threshold),
        ("argmax", probs > 0.5),
        ("always", probs >= 0),
        ("never", probs < 0),
    ):
        cost = costs.realised(labels, decision.astype(int))
        assert rules[name] == pytest.approx(np.average(cost, weights=weights)), name
        assert flagged[name] == pytest.approx(np.average(decision, weights=weights)), name


def test_the_cost_of_the_best_threshold_is_of_rows_that_it_was_not_chosen_on():
    odds, labels = calibrated(900)
    costs = Costs.of_errors(1, 4)
    decisions = decide(odds, labels, costs)
    source = ArraySource(odds[:, None], labels, None, "logits")
    folds = open_data(Engine("cpu", 1), source, 5).split.at(np.arange(900))
    probs = View(as_two(odds), labels).confidence
    grid = threshold_lattice(costs)

    def best_of(rows: Array) -> float:
        p, y = probs[rows], labels[rows]
        decided = (p >= grid[:, None]).astype(np.int64)
        total = costs.realised(y[None], decided).sum(axis=1)
        least = np.flatnonzero(total == total.min())
        return float(grid[least[np.argmin(np.abs(grid[least] - costs.threshold))]])

    total = 0.0
    for fold in range(5):
        held = folds == fold
        total += costs.realised(labels[held], decide_from(probs[held], best_of(~held))).sum()
    best = decisions.rule("best")
    assert best is not None
    assert best.cost.value == pytest.approx(total / 900)
    assert best.threshold == best_of(np.ones(900, bool))
    assert decisions.folds == 5
    assert decide(odds, labels, costs, folds=1).rule("best") is None


def test_of_calibrated_probabilities_the_best_threshold_is_the_theoretical_one():
    """And its cross-fitted cost that of new rows, while the one of its own rows is too small."""
    costs, thresholds, excess, own = Costs.of_errors(1, 4), [], [], []
    new_odds, new_labels = calibrated(100_000, seed=99)
    new = View(as_two(new_odds), new_labels).confidence
    for seed in range(30):
        odds, labels = calibrated(1500, seed)
        best = decide(odds, labels, costs, bootstrap=0).rule("best")
        assert best is not None
        thresholds.append(best.threshold)
        truth = costs.realised(new_labels, decide_from(new, best.threshold)).mean()
        probs = View(as_two(odds), labels).confidence
        excess.append(best.cost.value - truth)
        own.append(costs.realised(labels, decide_from(probs, best.threshold)).mean() - truth)
    error = np.std(excess) / np.sqrt(len(excess))
    assert np.mean(thresholds) == pytest.approx(0.2, abs=0.02)
    assert abs(np.mean(excess)) < 3 * error
    assert np.mean(own) < -2 * np.std(own) / np.sqrt(len(own))


def test_inflated_probabilities_are_best_cut_elsewhere():
    odds, labels = calibrated(50_000)
    decisions = decide(odds + np.log(6), labels, Costs.of_errors(1, 4))
    best, least = decisions.rule("best"), decisions.rule("least")
    assert best is not None
    assert least is not None
    # Odds of 1/4 are odds of 6/4 there.
    assert best.threshold == pytest.approx(0.6, abs=0.03)
    assert best.cost.interval.high < least.cost.interval.low


def test_the_surest_rows_cost_the_least():
    rng = np.random.default_rng(0)
    logits = 2 * rng.standard_normal((4000, 4))
    probs = View(logits, np.zeros(4000, int)).probs
    labels = (probs.cumsum(axis=1) > rng.random(4000)[:, None]).argmax(axis=1)
    matrix = np.array([[0, 1, 2, 3], [1, 0, 2, 3], [5, 5, 0, 1], [1, 1, 1, -1]])
    costs = Costs.of_matrix(matrix)
    decisions = decide(logits, labels, costs)
    decision, expected = costs.least(probs)
    cost = costs.realised(labels, decision)
    assert [each.coverage for each in decisions.coverages] == pytest.approx(
        [1.0, 0.99, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.25, 0.1], abs=0.003
    )
    for each in decisions.coverages:
        kept = expected < (np.inf if each.limit is None else each.limit)
        assert each.coverage == pytest.approx(kept.mean())
        assert each.cost.value == pytest.approx(cost[kept].mean())
        if each.limit is not None:  # they cost what they are expected to, the model being right
            spread = cost[kept].std() / np.sqrt(kept.sum())
            assert abs(each.cost.value - expected[kept].mean()) < 4 * spread
    constant = decisions.rule("constant")
    assert constant is not None
    by_decision = matrix[labels].mean(axis=0)
    assert constant.cost.value == pytest.approx(by_decision.min())
    assert constant.decision == by_decision.argmin()


def test_rows_that_are_equally_sure_stay_together():
    decisions = decide(np.zeros(100), np.repeat([0, 1], 50), Costs.of_errors(1, 2))
    assert [each.coverage for each in decisions.coverages] == [1.0]


def test_a_mean_of_rows_without_errors_has_no_interval():
    odds = np.repeat([-9.0, 0.0], [500, 500])
    labels = np.repeat([0, 1], [500, 500])
    labels[500:700] = 0
    decisions = decide(odds, labels, Costs.of_errors(1, 4))
    surest = decisions.coverages[-1]
    assert surest.cost.value == 0
    assert surest.cost.interval is None
    least = decisions.rule("least")
    assert least is not None
    assert least.cost.interval is not None
    assert decide(odds, labels, Costs.of_errors(1, 4), bootstrap=0).rules[0].cost.interval is None


def test_weights_count_as_so_many_rows():
    odds, labels = calibrated(400)
    weights = np.random.default_rng(1).integers(1, 4, 400)
    costs = Costs.of_errors(1, 4)
    once = decide(odds, labels, costs, weights=weights * 1.0)
    repeated = decide(np.repeat(odds, weights), np.repeat(labels, weights), costs)
    for name in ("least", "argmax", "always", "never"):
        assert once.rule(name).cost.value == pytest.approx(repeated.rule(name).cost.value)
    assert once.rule("best").threshold == repeated.rule("best").threshold
    for one, many in zip(once.curve, repeated.curve, strict=True):
        assert one.net_benefit.value == pytest.approx(many.net_benefit.value)
    assert [c.limit for c in once.coverages] == [c.limit for c in repeated.coverages]


def test_clusters_widen_intervals_and_stay_whole_in_folds():
    odds, labels = calibrated(150)
    users = np.repeat(np.arange(150), 20)
    costs = Costs.of_errors(1, 4)
    odds, labels = np.repeat(odds, 20), np.repeat(labels, 20)
    by_row = decide(odds, labels, costs).rule("least").cost.interval
    by_user = decide(odds, labels, costs, cluster=users).rule("least").cost.interval
    assert by_user.high - by_user.low > 3 * (by_row.high - by_row.low)
    # A user's rows are the same: a threshold that has seen one of them has seen all.
    few = decide(odds[:1200], labels[:1200], costs, cluster=users[:1200]).rule("best")
    seen = decide(odds[:1200], labels[:1200], costs).rule("best")
    assert few.cost.value > seen.cost.value


def test_intervals_of_costs_cover():
    costs, covered = Costs.of_errors(1, 4), 0
    new_odds, new_labels = calibrated(200_000, seed=99)
    truth = COST.with_costs(costs).measure(as_two(new_odds), new_labels)
    for seed in range(60):
        interval = decide(*calibrated(800, seed), costs).rule("least").cost.interval
        covered += interval.low <= truth <= interval.high
    assert covered >= 53


def test_the_positive_class_may_be_the_first():
    odds, labels = calibrated(500)
    second = decide(odds, labels, Costs.of_errors(1, 4))
    first = decide(-odds, 1 - labels, Costs.of_errors(1, 4, positive=0), event=0)
    for a, b in zip(second.rules, first.rules, strict=True):
        assert a.cost.value == pytest.approx(b.cost.value)


def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch):
    odds, labels = calibrated(3000)
    costs = Costs.of_errors(1, 4)
    whole = decide(odds, labels, costs)
    monkeypatch.setattr(Engine, "tile_rows", lambda *_: 97)
    cut = decide(odds, labels, costs)
    for a, b in zip(whole.rules, cut.rules, strict=True):
        assert (a.name, a.threshold) == (b.name, b.threshold)
        assert a.cost.value == pytest.approx(b.cost.value, rel=1e-12)
        assert tuple(a.cost.interval) == pytest.approx(tuple(b.cost.interval), rel=1e-9)


# ---- commands ----


@pytest.fixture
def run(calib_here: Any, tmp_path: Path) -> Callable[..., tuple[int, str, str]]:
    """The command line, where there is a file of 3,000 rows whose odds are six times too large."""
    odds, labels = calibrated(3000)
    np.savez(tmp_path / "fraud.npz", logits=as_two(odds + np.log(6)), labels=labels)
    command: Callable[..., tuple[int, str, str]] = calib_here
    return command


COSTS = ("--cost", "fp=1,fn=4")


def test_evaluate_shows_what_decisions_cost(run: Any) -> None:
    code, out, _ = run("evaluate", "fraud.npz", *COSTS, "--format", "json")
    assert code == 0
    document = json.loads(out)
    part = document["decisions"]
    assert part["costs"] == [[0, 1], [4, 0]]
    assert (part["threshold"], part["positive"], part["folds"]) == (0.2, 1, 5)
    rules = {rule["rule"]: rule for rule in part["rules"]}
    assert rules["least"]["cost"] == pytest.approx(document["metrics"]["cost"], rel=1e-9)
    assert rules["argmax"]["cost"] == pytest.approx(document["metrics"]["argmax_cost"], rel=1e-9)
    assert rules["best"]["threshold"] == pytest.approx(0.6, abs=0.1)
    assert any(point["threshold"] == 0.2 for point in part["curve"])
    assert part["abstention"][0]["coverage"] == 1
    code, out, _ = run("evaluate", "fraud.npz", *COSTS)
    assert code == 0
    for words in ("least expected cost", "threshold by cost", "net benefit", "expected below"):
        assert words in out
    assert "(fp 1, fn 4). 0.2 is the best threshold where" in out
    code, out, _ = run("evaluate", "fraud.npz", *COSTS, "--format", "markdown", "-q")
    assert code == 0
    assert "| threshold by cost |" in out


def test_a_fit_shows_what_is_gained_and_apply_decides_by_it(run: Any, tmp_path: Path) -> None:
    files = ("-p", "p.json", "-o", "o.npz", "--force")
    code, out, _ = run("fit", "fraud.npz", "-m", "platt", *COSTS, *files, "--format", "json")
    assert code == 0
    document = json.loads(out)
    before, after = document["before"]["decisions"], document["after"]["decisions"]
    costs = [part["rules"][0]["cost"]["value"] for part in (before, after)]
    assert costs[1] < costs[0]
    change = after["rules"][0]["change"]
    assert change == pytest.approx(document["after"]["metrics"]["cost"]["change"], rel=1e-9)
    assert "change" not in before["rules"][0]
    learnt = json.loads((tmp_path / "p.json").read_text())["fit"]["decision"]
    assert learnt["costs"] == [[0, 1], [4, 0]]
    assert learnt["threshold"] == after["rules"][1]["threshold"]

    for option, threshold in (
        (("--threshold", "best"), learnt["threshold"]),
        (("--threshold", "0.35"), 0.35),
        (COSTS, 0.2),
    ):
        target = ("-o", "d.npz", "--force", "--format", "json")
        code, out, _ = run("apply", "p.json", "fraud.npz", *option, *target)
        assert code == 0
        assert json.loads(out)["decision"] == {"positive": 1, "threshold": threshold}
        with np.load(tmp_path / "d.npz") as written:
            expected = written["probs"][:, 1].astype(np.float64) >= threshold
            assert written["decision"].tolist() == expected.astype(int).tolist()
            assert written["decision"].dtype == np.int64
    target = ("-o", "d.parquet", "--force")
    assert run("apply", "p.json", "fraud.npz", "--threshold", "best", *target)[0] == 0
    assert "decision" in pq.read_table(tmp_path / "d.parquet").column_names
    code, out, _ = run("apply", "p.json", "fraud.npz", "-o", "d.npz", "--force")
    with np.load(tmp_path / "d.npz") as written:
        assert "decision" not in written
    # Where class 0 is the positive one it is decided for from its own probability on.
    zero = ("--threshold", "0.9", "--positive", "0")
    assert run("apply", "p.json", "fraud.npz", *zero, "-o", "d.npz", "--force")[0] == 0
    with np.load(tmp_path / "d.npz") as written:
        assert np.array_equal(written["decision"], 1 - (written["probs"][:, 0] >= 0.9))


def test_test_rows_judge_the_best_threshold_by_folds_of_their_own(run: Any) -> None:
    files = ("-p", "t.json", "-o", "t.npz", "--force", "--format", "json")
    code, out, _ = run(
        "fit", "fraud.npz", "--test", "fraud.npz", "-m", "platt", *COSTS, *files, "-q"
    )
    assert code == 0
    part = json.loads(out)["after"]["decisions"]
    assert part["folds"] == 5
    assert [rule["rule"] for rule in part["rules"]][:2] == ["least", "best"]


def test_gates_see_costs(run: Any) -> None:
    files = ("-p", "g.json", "-o", "g.npz", "--force", "-q", "-m", "platt")
    passes = ("--fail-if", "cost.after > cost.before", "--significant")
    assert run("fit", "fraud.npz", *COSTS, *files, *passes)[0] == 0
    assert run("fit", "fraud.npz", *COSTS, *files, "--fail-if", "cost.change < 0")[0] == 1
    code, _, err = run("evaluate", "fraud.npz", "--fail-if", "cost > 1")
    assert (code, err.splitlines()[-1]) == (
        2,
        "calib: cost: nothing says what errors cost; add --cost",
    )


def test_a_baseline_of_other_costs_is_refused(run: Any, tmp_path: Path) -> None:
    code, out, _ = run("evaluate", "fraud.npz", *COSTS, "--format", "json", "-q")
    assert code == 0
    (tmp_path / "then.json").write_text(out)
    gate = ("--baseline", "then.json", "--fail-if", "cost.delta > 0", "-q")
    assert run("evaluate", "fraud.npz", *COSTS, *gate)[0] == 0
    code, _, err = run("evaluate", "fraud.npz", "--cost", "fp=1,fn=5", *gate)
    assert code == 2
    assert err.startswith("calib: then.json: errors had other costs there; make it anew, or set ")
    document = json.loads(out)
    document["decisions"] = 7
    (tmp_path / "then.json").write_text(json.dumps(document))
    assert run("evaluate", "fraud.npz", *COSTS, *gate)[0] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--threshold", "1.5"), "--threshold 1.5 is neither best nor a number from 0 to 1"),
        (("--threshold", "nan"), "--threshold nan is neither best nor a number from 0 to 1"),
        (("--threshold", "worst"), "--threshold worst is neither best nor a number from 0 to 1"),
        (("--threshold", "best"), "n.json: has learnt no threshold; calib fit --cost fp=X,fn=Y"),
        (("--threshold", "0.2", *COSTS), "decide by --threshold or by --cost, one of them"),
        (("--positive", "1"), "--positive is about decisions; add --threshold or --cost"),
        (("--threshold", "0.2", "--positive", "x"), "--positive x: is none of the classes 0 and"),
        (("--cost", "fp=1"), "--cost fp=1: what a false negative costs is missing (fn=)"),
    ],
)
def test_decisions_that_cannot_be_are_refused(
    run: Any, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    (tmp_path / "n.json").write_text(
        json.dumps(
            {
                "format": "calib-params",
                "version": 1,
                "classes": 2,
                "input": "logits",
                "stages": [],
                "fit": {"decision": {"positive": True, "threshold": "0.3"}},
            }
        )
    )
    code, out, err = run("apply", "n.json", "fraud.npz", "-o", "n.npz", *arguments)
    assert (code, out) == (2, "")
    assert message in err.splitlines()[-1]
    assert not (tmp_path / "n.npz").exists()


def test_a_matrix_decides_many_classes(run: Any, tmp_path: Path, rng_logits: Any) -> None:
    logits, labels = rng_logits
    np.savez(tmp_path / "three.npz", logits=logits, labels=labels)
    (tmp_path / "m.csv").write_text("0,1,1\n9,0,1\n1,1,0\n")
    files = ("-p", "three.json", "-o", "three.out.npz", "--force", "-q")
    code, out, _ = run("fit", "three.npz", "--cost", "m.csv", *files, "--format", "json")
    assert code == 0
    part = json.loads(out)["after"]["decisions"]
    assert [rule["rule"] for rule in part["rules"]] == ["least", "argmax", "constant"]
    assert (part["threshold"], part["curve"], part["positive"]) == (None, [], None)
    done = run(*("apply", "three.json", "three.npz", "--cost", "m.csv", "-o", "d3.npz", "--force"))
    assert done[0] == 0
    with np.load(tmp_path / "d3.npz") as written:
        expected = written["probs"] @ np.array([[0, 1, 1], [9, 0, 1], [1, 1, 0]])
        assert np.array_equal(written["decision"], expected.argmin(axis=1))
    code, _, err = run("apply", "three.json", "three.npz", "--threshold", "0.2", "-o", "e.npz")
    assert code == 2
    assert err.splitlines()[-1] == "calib: --threshold 0.2 is for two classes; here are 3"


@pytest.fixture
def rng_logits() -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((400, 3)), rng.integers(0, 3, 400)


# ---- Python ----


def test_python_decides_as_the_commands_do():
    odds, labels = calibrated(2000)
    logits = as_two(odds + np.log(6))
    calibrator = calibcli.fit(logits, labels, method="platt", costs={"fp": 1, "fn": 4})
    before, after = calibrator.outcome.decisions
    assert after.rule("least").cost.value < before.rule("least").cost.value
    probs = calibrator.predict_proba(logits)[:, 1]
    assert np.array_equal(calibrator.decide(logits, costs={"fp": 1, "fn": 4}), probs >= 0.2)
    assert np.array_equal(calibrator.decide(logits, threshold=0.5), probs >= 0.5)
    best = after.rule("best").threshold
    assert np.array_equal(calibrator.decide(logits, threshold="best"), probs >= best)
    again = calibcli.evaluate_decisions(logits, labels, [[0, 1], [4, 0]], input="logits")
    assert again.rule("best").threshold == before.rule("best").threshold
    values = calibcli.evaluate(logits, labels, input="logits", costs={"fp": 1, "fn": 4}).values
    assert values["cost"] == pytest.approx(before.rule("least").cost.value)
    with pytest.raises(UsageError, match="one of them"):
        calibrator.decide(logits)
