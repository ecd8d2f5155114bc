"""Choosing: leaderboards on held-out rows, what is taken, stacks."""

from __future__ import annotations

import itertools
import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import calibcli
from calibcli.arrays import log_softmax
from calibcli.calibrators.chain import LogLinear
from calibcli.calibrators.registry import read_calibrator
from calibcli.calibrators.temperature import Temperature
from calibcli.engine.data import open_data
from calibcli.engine.engine import Engine, Tile
from calibcli.engine.kept_tiles import KeptOutputs, KeptTiles
from calibcli.engine.source import ArraySource
from calibcli.errors import ParamsError, UsageError
from calibcli.fitting.mixing import fit_uniform_share, fit_weights, nonnegative_minimum
from calibcli.metrics.panel import Panel
from calibcli.metrics.resampling import Bootstrap
from calibcli.params import Params, Stage, decode, encode
from calibcli.workflow import choosing, trying
from calibcli.workflow.automatic import compare_plans
from calibcli.workflow.candidates import candidates
from calibcli.workflow.choosing import ahead_of_none, choose_place, expected_losses
from calibcli.workflow.fitted_plans import long_fit_note, try_plan
from calibcli.workflow.measuring import CrossFitted
from calibcli.workflow.paired_losses import PairedLosses
from calibcli.workflow.plans import make_plan, make_plans
from calibcli.workflow.records import to_calibrators

PANEL = Panel(("nll", "brier", "ece"), bootstrap=Bootstrap())


def drawn(rng, rows, classes, *, scale=1.0, bias=None):
    """Logits, and labels that `scale * logits + bias` gives the probabilities of."""
    logits = rng.normal(size=(rows, classes)) * 2
    true = scale * logits + (0 if bias is None else bias)
    return logits, (true + rng.gumbel(size=true.shape)).argmax(axis=1)


def opened(logits, labels, *, folds=5, weights=None, threads=1):
    source = ArraySource(logits, labels.astype(np.int64), weights)
    return open_data(Engine(threads=threads), source, folds)


def board_of(logits, labels, methods, **options):
    return compare_plans(opened(logits, labels), make_plans(methods, ["nll"]), PANEL, **options)


# What is chosen


def test_nothing_is_taken_where_nothing_is_wrong(rng):
    logits, labels = drawn(rng, 2000, 4)
    fitted = calibcli.fit(logits, labels, method="auto")
    assert fitted.outcome.leaderboard.chosen.trial.name == "none"
    np.testing.assert_allclose(
        fitted.predict_proba(logits), np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    )


def test_a_temperature_is_taken_where_a_temperature_is_wrong(rng):
    logits, labels = drawn(rng, 3000, 5, scale=0.4)
    # With a heavier penalty others are a temperature too, but for a little.
    methods = [method for method in candidates(5, 3000) if "*" not in method]
    # The ridge of the one leaves nothing of that many rows.
    chosen = board_of(logits, labels, methods).chosen.trial.name
    assert chosen in ("temperature", "ridge-temperature")


def test_biases_are_taken_where_biases_are_wrong(rng):
    logits, labels = drawn(rng, 4000, 3, bias=np.array([2.0, -2.0, 0.0]))
    board = board_of(logits, labels, ["none", "temperature", "svs", "sms"])
    assert board.chosen.trial.name == "svs"
    names = [standing.trial.name for standing in board.standings]
    assert set(names[2:]) == {"none", "temperature"}


def test_none_and_temperature_are_always_candidates():
    for classes in (2, 3, 100, 1000, 50_000):
        for rows in (1, 300, 100_000):
            always = ["none", "temperature", "ridge-temperature"]
            assert candidates(classes, rows)[:3] == always
    assert "sms" in candidates(10, 5000)
    assert "curved-svs,low-rank" in candidates(100, 5000)
    assert "curved-svs,low-rank" not in candidates(10, 5000)
    assert "sms" not in candidates(1000, 50_000)
    assert "svs" in candidates(1000, 50_000)
    assert "platt" in candidates(2, 5000)
    assert "svs" in candidates(10, 50)
    assert "vector" not in candidates(10, 50)


def test_the_choice_is_nearest_to_the_average():
    # Three say nearly the same and one is lucky: it is the best, and yet not taken.
    log_odds = np.array([1.0, 1.05, 0.95, 1.6])[:, None] * np.ones(100)
    both = np.stack([np.zeros_like(log_odds), log_odds], axis=2)
    log_probs = both - np.logaddexp.reduce(both, axis=2, keepdims=True)
    labels = np.arange(100) < 80
    losses = PairedLosses.of_rows(-log_probs[:, np.arange(100), labels.astype(int)], np.ones(100))
    shares = losses.averaging_weights()
    assert shares.sum() == pytest.approx(1)
    expected = expected_losses(list(log_probs), shares, np.ones(100))
    assert losses.mean.argmin() == 3
    assert choose_place(losses, expected, None, 0.25) == 1


def test_a_candidate_that_is_infinitely_wrong_is_not_taken():
    losses = PairedLosses.of_rows(np.array([[1.0, 0.5], [np.inf, 0.0], [0.9, 0.5]]), np.ones(2))
    shares = losses.averaging_weights()
    assert shares[1] == 0
    assert choose_place(losses, np.array([2.0, 0.0, 1.0]), None, 0.25) == 2


def test_what_is_not_ahead_of_nothing_is_not_taken(rng):
    noise = 0.1 * rng.standard_normal(400)
    close, ahead = 0.5 - noise + noise.mean(), 0.5 - noise + noise.mean() - 0.1
    for other, taken in ((close, 0), (ahead, 1)):
        losses = PairedLosses.of_rows(np.stack([np.full(400, 0.5), other]), np.ones(400))
        assert choose_place(losses, np.array([1.0, 0.0]), 0, ahead_of_none(3)) == taken
        # Of two classes it may even be a little behind.
        assert choose_place(losses, np.array([1.0, 0.0]), 0, ahead_of_none(2)) == 1


def test_nothing_is_taken_only_where_rows_tell_that_little_is_lost(rng):
    noise = 0.02 * rng.standard_normal(4000)
    noise -= noise.mean()
    for rows, taken in ((4000, 0), (40, 1)):
        losses = PairedLosses.of_rows(
            np.stack([np.full(rows, 0.5), 0.502 + noise[:rows] - noise[:rows].mean()]),
            np.ones(rows),
        )
        expected = np.array([1.0, 0.0])
        assert choose_place(losses, expected, 0, ahead_of_none(3)) == taken
        assert losses.units == pytest.approx(rows)
    # The one that changes nothing may be the nearest to the average, too.
    assert choose_place(losses, np.array([0.0, 1.0]), 0, ahead_of_none(3)) == 0


def test_nothing_is_not_taken_where_it_is_infinitely_wrong():
    losses = PairedLosses.of_rows(np.array([[np.inf, 0.1], [0.9, 0.5]]), np.full(2, 1000.0))
    assert choose_place(losses, np.array([0.0, 1.0]), 0, ahead_of_none(3)) == 1


def test_the_simplest_within_noise_can_be_asked_for(rng):
    logits, labels = drawn(rng, 600, 3, scale=0.5)
    methods = ["none", "temperature", "svs", "sms"]
    board = board_of(logits, labels, methods, prefer="simple")
    near = [s for s in board.standings if s.behind <= s.behind_error]
    assert board.chosen.trial.parameters == min(s.trial.parameters for s in near)


def test_what_has_nearly_as_many_numbers_is_not_simpler(rng):
    logits, labels = drawn(rng, 600, 10, bias=np.linspace(-1, 1, 10))
    board = board_of(logits, labels, ["none", "sms", "dirichlet"], prefer="simple")
    sizes = {each.trial.name: each.trial.parameters for each in board.standings}
    assert sizes["dirichlet"] < sizes["sms"]
    assert board.chosen is board.standings[0]


def test_a_number_behind_a_method_scales_its_penalties():
    plan = make_plan("monotone+svs*10", settings=["svs.penalty=0.5"])
    assert plan.title == "monotone+svs*10"
    assert plan.families[-1].penalty == 5
    assert make_plan("sms/10").families[-1].off_diagonal == pytest.approx(0.1)
    with pytest.raises(UsageError, match="no penalties"):
        make_plan("temperature*10")
    with pytest.raises(UsageError, match="svs/0"):
        make_plan("svs/0")


# The figures of a leaderboard


def test_the_figures_are_those_of_rows_that_no_fit_has_seen(rng):
    logits, labels = drawn(rng, 600, 3, scale=0.5)
    data = opened(logits, labels)
    board = compare_plans(data, [make_plan("temperature"), make_plan("none")], PANEL)
    folds = data.split.at(np.arange(600))
    losses = np.empty(600)
    for fold in range(5):
        inside = folds == fold
        fitted = calibcli.fit(logits[~inside], labels[~inside], folds=0)
        probs = fitted.predict_proba(logits[inside])
        losses[inside] = -np.log(probs[np.arange(inside.sum()), labels[inside]])
    standing = next(s for s in board.standings if s.trial.name == "temperature")
    assert standing.evaluation.values["nll"] == pytest.approx(losses.mean(), rel=1e-6)
    low, high = standing.evaluation.intervals["nll"]
    half = 1.959964 * losses.std() / np.sqrt(600)
    assert (low, high) == pytest.approx((losses.mean() - half, losses.mean() + half), rel=0.03)
    plain = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    differences = -plain[np.arange(600), labels] - losses
    none = next(s for s in board.standings if s.trial.name == "none")
    assert none.behind == pytest.approx(differences.mean(), rel=1e-4)
    assert none.behind_error == pytest.approx(differences.std() / np.sqrt(600), rel=1e-3)


def test_a_weight_is_as_good_as_a_repetition_for_the_order(rng):
    logits, labels = drawn(rng, 400, 3, scale=0.5)
    plans = make_plans(["none", "temperature"], ["nll"])
    once = compare_plans(opened(logits, labels, weights=np.full(400, 3.0)), plans, Panel())
    plain = compare_plans(opened(logits, labels), plans, Panel())
    assert [s.trial.name for s in once.standings] == [s.trial.name for s in plain.standings]
    assert once.standings[1].behind == pytest.approx(plain.standings[1].behind)


def test_biases_are_judged_fairly_where_the_classes_were_drawn_evenly(rng):
    # As many rows of each class: a class that the fit has too few of has too many held-out rows,
    # which would make every bias that is learnt look wrong.
    behind = []
    for _ in range(4):
        logits, labels = drawn(rng, 30_000, 10)
        even = np.concatenate([np.flatnonzero(labels == k)[:100] for k in range(10)])
        board = board_of(logits[even], labels[even], ["temperature", "vector"])
        behind.append(next(s.behind for s in board.standings if s.trial.name == "vector"))
    # Twenty more parameters cost about 20 / (2 * 1000); unfairly judged, half as much again.
    assert np.mean(behind) < 0.0115


def test_threads_do_not_change_a_leaderboard(rng):
    logits, labels = drawn(rng, 3000, 6, scale=0.5)
    plans = make_plans(["none", "temperature", "svs"], ["nll"])
    boards = [
        compare_plans(opened(logits, labels, threads=threads), plans, Panel(), stacked=True)
        for threads in (1, 3)
    ]
    first, second = ([s.evaluation.values["nll"] for s in b.standings] for b in boards)
    assert first == second


def test_every_method_is_tried_with_every_loss_but_those_that_have_none():
    plans = make_plans(["none", "temperature", "isotonic"], ["nll", "brier"])
    pairs = [(plan.method, plan.loss) for plan in plans]
    assert pairs == [
        ("none", "nll"),
        ("temperature", "nll"),
        ("temperature", "brier"),
        ("isotonic", "nll"),
    ]


def test_a_setting_goes_to_the_methods_that_have_it():
    plans = make_plans(["temperature", "svs", "monotone+svs"], ["nll"], ["svs.penalty=7"])
    found = [getattr(plan.families[-1], "penalty", None) for plan in plans]
    assert found == [None, 7.0, 7.0]
    with pytest.raises(UsageError, match=r"sms\.penalty"):
        make_plans(["svs"], ["nll"], ["sms.penalty=1"])


def test_holding_out_needs_folds(rng):
    logits, labels = drawn(rng, 100, 3)
    with pytest.raises(UsageError, match="2 folds"):
        compare_plans(opened(logits, labels, folds=1), make_plans(["none"], ["nll"]), Panel())


# Stacks


def test_a_stack_beats_its_members_where_each_knows_something(rng):
    # One bends all logits alike, the other mixes the classes; the truth does both.
    logits = rng.normal(size=(6000, 4)) * 3
    bent = np.interp(logits, [-9, -3, 0, 3, 9], [-9, 0, 0, 0, 9])
    true = bent + 0.15 * logits @ rng.normal(size=(4, 4))
    labels = (true + rng.gumbel(size=true.shape)).argmax(axis=1)
    board = board_of(logits, labels, ["temperature", "monotone", "sms"], stacked=True)
    assert board.standings[0].trial.name == "stack"
    assert board.chosen.trial.name == "stack"
    assert board.standings[1].behind > 0.001


def test_a_stack_that_is_not_taken_is_said_to_be_too_far_behind(rng):
    said = 0
    for _ in range(8):
        logits = rng.normal(size=(2000, 2))
        labels = (logits / 1.5 + rng.gumbel(size=logits.shape)).argmax(axis=1)
        methods = ["temperature", "svs", "spline", "venn-abers"]
        board = board_of(logits, labels, methods, stacked=True)
        stack = next(each for each in board.standings if each.trial.members)
        if stack.behind > 2 * stack.behind_error:
            assert board.chosen is not stack
            assert f"stack is too far behind, by {stack.behind:.2g}, standard error" in board.why
            said += 1
        else:
            assert "too far behind" not in board.why
    assert 0 < said < 8


def test_the_weights_of_separable_rows_are_those_of_the_average(rng):
    labels = np.tile([0, 1, 2], 100)
    logits = 30.0 * np.eye(3)[labels] + rng.normal(size=(300, 3))
    board = board_of(logits, labels, ["none", "temperature", "svs"], stacked=True)
    stack = next(s.trial for s in board.standings if s.trial.members)
    assert stack.fit.stages[0].solution.criterion == "average"
    assert sum(weight for _, weight in stack.members) == pytest.approx(1)


def test_newton_finds_weights_at_their_bound(rng):
    # The second of two members is the first turned round, with noise, so it can only harm.
    true = rng.normal(size=(3000, 2))
    labels = (true + rng.gumbel(size=true.shape)).argmax(axis=1)
    log_probs = np.stack([log_softmax(2 * true), log_softmax(-true + rng.normal(size=true.shape))])
    shares = np.full(3000, 1 / 3000)
    solution = fit_weights(log_probs, labels, shares, np.array([0.5, 0.5]), 0.0)
    assert solution.converged
    assert solution.theta[1] == 0
    assert solution.theta[0] == pytest.approx(0.5, abs=0.05)


def test_wrong_labels_give_candidates_a_floor(rng):
    logits, labels = drawn(rng, 4000, 5, scale=2.0)
    wrong = rng.random(4000) < 0.1
    noisy = np.where(wrong, rng.integers(0, 5, 4000), labels)
    data, plans = opened(logits, noisy), make_plans(["none", "temperature"], ["nll"])
    plain, floored = (
        {each.trial.name: each for each in compare_plans(data, plans, PANEL, floored=on).standings}
        for on in (False, True)
    )
    floor = floored["temperature"].trial.fit.calibrators[-1]
    assert floor.kind == "laplace"
    assert 0.03 < floor.weight < 0.12
    assert "held-out rows ask for it" in floored["temperature"].trial.fit.notes[-1]
    nll = {name: each.evaluation.values["nll"] for name, each in floored.items()}
    assert nll["temperature"] < plain["temperature"].evaluation.values["nll"] - 0.01
    # What changes nothing stays so.
    assert floored["none"].trial.fit.changes_nothing


def test_no_floor_without_need_of_one(rng):
    probs = rng.uniform(0.3, 1, 1000)
    assert fit_uniform_share(probs, np.ones(1000), 4) == 0
    assert fit_uniform_share(np.where(np.arange(1000) < 20, 1e-9, probs), np.ones(1000), 4) > 0.01
    assert fit_uniform_share(np.zeros(3), np.ones(3), 4) == 0


def test_one_member_is_no_stack(rng):
    logits, labels = drawn(rng, 500, 3, scale=0.4)
    board = board_of(logits, labels, ["temperature"], stacked=True)
    assert board.chosen.trial.name == "temperature"
    assert len(board.standings) == 1
    assert "no stack" in board.why


def test_the_weights_of_a_stack_solve_their_problem(rng):
    logits, labels = drawn(rng, 2000, 3, scale=0.5)
    board = board_of(logits, labels, ["none", "temperature", "svs"], stacked=True)
    stack = next(s.trial for s in board.standings if s.trial.members)
    (stage,) = stack.fit.stages
    assert stage.solution.converged
    assert stage.solution.gradient_norm < 1e-4
    weights = np.array([weight for _, weight in stack.members])
    assert (weights >= 0).all()
    # The candidates are multiples of the same logits, or nearly: what counts is their sum.
    total = sum(
        weight * {"none": 1.0, "temperature": 0.5, "svs": 0.5}[member.plan.method]
        for member, weight in stack.members
        if not member.plan.variant
    )
    assert total == pytest.approx(0.5, abs=0.05)


def test_a_stack_with_impossible_classes(rng):
    logits, labels = drawn(rng, 1500, 4, scale=0.5)
    logits[:, 3] = np.where(rng.random(1500) < 0.3, -np.inf, logits[:, 3])
    labels = np.where((labels == 3) & np.isinf(logits[:, 3]), 0, labels)
    fitted = calibcli.fit(logits, labels, method="auto", stack=True)
    probs = fitted.predict_proba(logits)
    assert np.isfinite(probs).all()
    assert (probs[np.isinf(logits)] == 0).all()


@given(
    weights=st.lists(st.floats(0, 3), min_size=2, max_size=2),
    scales=st.lists(st.floats(0.1, 3), min_size=2, max_size=2),
)
def test_a_mixture_of_temperatures_is_a_temperature(weights, scales):
    logits = np.random.default_rng(0).normal(size=(20, 3)) * 4
    members = tuple((Temperature(1 / scale),) for scale in scales)
    mixture = LogLinear(members, np.array(weights))
    total = float(np.dot(weights, scales))
    expected = np.exp(total * logits - (total * logits).max(axis=1, keepdims=True))
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(mixture.probs(logits), expected, atol=1e-12)


@pytest.mark.parametrize("safetensors", [False, True])
def test_a_mixture_comes_back_from_its_file(rng, safetensors):
    logits, labels = drawn(rng, 800, 3, bias=np.array([1.0, 0.0, -1.0]))
    fitted = calibcli.fit(logits, labels, method="svs", folds=0)
    mixture = LogLinear(((), fitted.stages), np.array([0.25, 0.75]), ("none", "svs"))
    params = Params(3, "logits", (Stage(mixture.kind, mixture.parameters()),))
    (restored,) = to_calibrators(decode(encode(params, safetensors=safetensors)))
    np.testing.assert_array_equal(restored.probs(logits), mixture.probs(logits))
    assert restored.summary() == "0.25 none, 0.75 svs"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda p: p.pop("weights"), "weights"),
        (lambda p: p.update(weights=[1.0]), "weights"),
        (lambda p: p.update(members=[]), "members"),
        (lambda p: p.update(members=[[{"kind": "nothing", "parameters": {}}], []]), "nothing"),
        (lambda p: p.update(members=[[{"kind": "none"}], []]), "members"),
        (lambda p: p.update(members=[[{"kind": "none", "parameters": []}], []]), "no object"),
        (lambda p: p.update(members=[3, []]), "members"),
        (lambda p: p.update(names=["none"]), "names"),
        (lambda p: p.update(names=["none", 3]), "names"),
        (lambda p: p.update(names=["none", "x" * 1000]), "names"),
    ],
)
def test_a_spoilt_mixture_is_refused(spoil, words):
    parameters = {"members": [[], []], "weights": [0.5, 0.5]}
    spoil(parameters)
    with pytest.raises(ParamsError, match=words):
        read_calibrator(LogLinear.kind, parameters, 3)


# The command line


def test_auto_writes_the_leaderboard(calib, sample_data, tmp_path):
    done = calib(
        "fit", sample_data / "digits_val.parquet", "-m", "auto", "--stack", "--format", "json",
        "-p", "p.json", "-o", "o.parquet",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    board = document["leaderboard"]
    assert sum(entry["chosen"] for entry in board) == 1
    losses = [entry["metrics"]["nll"]["value"] for entry in board]
    assert losses == sorted(losses)
    assert {"none", "temperature", "stack"} <= {entry["method"] for entry in board}
    written = json.loads((tmp_path / "p.json").read_text())["fit"]["leaderboard"]
    assert [entry["method"] for entry in written] == [entry["method"] for entry in board]
    assert "seconds" not in written[0]


def test_the_choice_is_the_same_every_time(calib, sample_data, tmp_path):
    for name in ("a", "b"):
        done = calib(
            "fit", sample_data / "digits_val.parquet", "-m", "auto", "-q",
            "-p", f"{name}.json", "-o", f"{name}.parquet",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


@pytest.mark.parametrize("kind", ["table", "markdown", "csv", "json"])
def test_compare_prints_in_every_format(calib, sample_data, tmp_path, kind):
    done = calib(
        "compare", sample_data / "digits_val.parquet", "--methods", "none,temperature,monotone+svs",
        "--losses", "nll,brier", "--format", kind,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode()
    for name in ("none", "temperature", "monotone+svs"):
        assert name in text
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["compare", "--methods", "none,nonsense"], b"nonsense"),
        (["compare", "--losses", "nonsense"], b"nonsense"),
        (["compare", "--set", "sms.nonsense=1"], b"nonsense"),
        (["fit", "--stack"], b"auto"),
        (["fit", "-m", "auto", "--allow-zero"], b"allow-zero"),
    ],
)
def test_what_cannot_be_is_refused(calib, sample_data, arguments, words):
    command, *options = arguments
    done = calib(command, sample_data / "digits_val.parquet", *options)
    assert done.returncode == 2
    assert words in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("method", "rows", "said"),
    [
        ("temperature", 50_000, None),
        ("dirichlet", 50_000, "minutes"),
        ("dirichlet", 10**6, "hours"),
    ],
)
def test_long_fits_are_announced(rng, method, rows, said):
    data = opened(*drawn(rng, 40, 3))
    many = replace(data.survey, rows=rows, class_rows=np.full(1000, rows // 1000))
    note = long_fit_note(
        replace(data, engine=Engine(threads=1), survey=many), [make_plan(method)], 5
    )
    assert (note is None) if said is None else note.endswith(f"of 5 folds: expect {said}")


def test_each_candidate_is_told_of_and_an_interrupt_leaves_those_that_are_done(rng, monkeypatch):
    monkeypatch.setattr(trying, "_WORTH_WATCHING", 0.0)
    logits, labels = drawn(rng, 400, 4)
    data, plans = opened(logits, labels), make_plans(["none", "temperature", "svs"], ["nll"])
    lines = []

    def watch(tried):
        lines.append(str(tried))
        if len(lines) == interrupted_at:
            raise KeyboardInterrupt

    interrupted_at = 0
    board = compare_plans(data, plans, Panel(), watch=watch)
    assert [line.split(",")[0] for line in lines] == [
        "1 of 3: none",
        "2 of 3: temperature",
        "3 of 3: svs",
    ]
    assert "to come, about" in lines[1]
    by_name = {standing.trial.name: standing for standing in board.standings}
    for line in lines:
        nll = by_name[line.split(": ")[1].split(",")[0]].evaluation.values["nll"]
        assert f"held-out NLL {nll:.4g}," in line
    lines, interrupted_at = [], 2
    with pytest.raises(trying.ComparisonInterrupted, match="after 2 of 3 candidates") as interrupt:
        compare_plans(data, plans, Panel(), watch=watch)
    names = {standing.trial.name for standing in interrupt.value.board.standings}
    assert names == {"none", "temperature"}


@pytest.mark.parametrize("command", ["compare", "fit"])
def test_a_leaderboard_is_shown_after_an_interrupt(command, rng, calib_here, monkeypatch, tmp_path):
    monkeypatch.setattr(trying, "_WORTH_WATCHING", 0.0)
    logits, labels = drawn(rng, 400, 4)
    np.savez(tmp_path / "rows.npz", logits=logits, labels=labels)

    def stop(_, candidate):
        if candidate.number == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("calibcli.cli.console.Talk.tried", stop)
    options = ("-m", "auto") if command == "fit" else ()
    code, out, err = calib_here(command, "rows.npz", *options)
    shown = out if command == "compare" else err
    assert code == 130
    assert "temperature" in shown
    assert "svs" not in shown
    assert "interrupted after 2 of" in err
    assert [path.name for path in tmp_path.iterdir()] == ["rows.npz"]


def test_what_is_not_clearly_ahead_of_nothing_is_not_taken_and_it_is_said(rng, monkeypatch):
    monkeypatch.setattr(choosing, "_AHEAD", {True: math.inf, False: math.inf})
    monkeypatch.setattr(choosing, "_TOO_MUCH", math.inf)
    logits, labels = drawn(rng, 300, 3)
    plans = make_plans(["none", "temperature", "svs"], ["nll"])
    board = compare_plans(opened(3 * logits, labels), plans, Panel())
    best = board.standings[0].trial.name
    assert board.chosen.trial.name == "none" != best
    assert board.why.startswith(f"{best} has the lowest held-out NLL")
    assert "not clearly ahead of none, which changes nothing and is taken (behind by" in board.why


def test_of_few_rows_it_is_said_what_doing_nothing_may_lose(rng):
    few, many = (
        compare_plans(opened(*drawn(rng, rows, 3)), make_plans(["none", "svs"], ["nll"]), Panel())
        for rows in (24, 4000)
    )
    assert few.chosen.trial.name == many.chosen.trial.name == "none"
    assert re.search(r"; as far as 24 rows tell, svs may still be up to \d+ % better", few.why)
    assert "rows tell" not in many.why


@pytest.mark.parametrize("seed", range(20))
def test_the_least_of_a_quadratic_without_negative_numbers(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 7))
    factor = rng.standard_normal((size, size))
    hessian, gradient = factor @ factor.T + 0.01 * np.eye(size), rng.standard_normal(size)
    start = np.maximum(rng.standard_normal(size), 0)
    point = nonnegative_minimum(hessian, gradient, start)

    def model(x):
        return gradient @ (x - start) + (x - start) @ hessian @ (x - start) / 2

    assert (point >= 0).all()
    values = []
    for free in itertools.product([False, True], repeat=size):
        chosen, x = np.flatnonzero(free), np.zeros(size)
        goal = (hessian @ start - gradient)[chosen]
        x[chosen] = np.linalg.solve(hessian[np.ix_(chosen, chosen)], goal)
        if (x >= 0).all():
            values.append(model(x))
    assert model(point) == pytest.approx(min(values), rel=1e-9, abs=1e-12)


def test_members_that_are_alike_need_few_steps() -> None:
    rng = np.random.default_rng(0)
    truth = rng.standard_normal((400, 5))
    logits = np.stack([truth + 0.02 * rng.standard_normal(truth.shape) for _ in range(12)])
    log_probs = logits - np.log(np.exp(logits).sum(axis=2, keepdims=True))
    labels = (truth + rng.gumbel(size=truth.shape)).argmax(axis=1)
    solution = fit_weights(log_probs, labels, np.full(400, 1 / 400), np.full(12, 1 / 12), 1e-4)
    assert solution.converged
    assert solution.iterations <= 8


def test_a_choice_and_its_stack_are_the_same_to_the_byte_on_any_number_of_threads(rng, tmp_path):
    logits, labels = drawn(rng, 1500, 20, scale=0.7, bias=rng.normal(size=20))
    files = []
    for threads in (1, 2, 3):
        fitted = calibcli.fit(
            logits.astype(np.float32), labels, method="auto", stack=True, threads=threads
        )
        files.append(tmp_path / f"{threads}.json")
        fitted.save(files[-1])
    first, *others = [file.read_bytes() for file in files]
    assert json.loads(first)
    assert all(other == first for other in others)


def test_what_cross_fitted_maps_make_of_few_rows_is_kept_and_of_labels_always(rng):
    logits, labels = drawn(rng, 500, 4)
    data = opened(logits, labels).keeping_outputs()
    trial = try_plan(data, make_plan("svs"))
    calls = []

    class Counted(CrossFitted):
        def _logits(self, tile):
            calls.append(tile.start)
            return super()._logits(tile)

    def looked_at(data):
        calls.clear()
        first, second = (Counted.of(trial.by_fold, data) for _ in range(2))
        for predictor in (first, second):
            predictor.label_log_probs(tile)
            predictor(tile)
        return len(calls)

    tile = Tile(0, np.asfortranarray(logits), labels, None)
    assert looked_at(data) == 1
    # Without room for logits: once for the labels, and each time that all are asked for.
    assert looked_at(replace(data, outputs=KeptOutputs(labels=KeptTiles(1 << 20, 10)))) == 3
    assert looked_at(opened(logits, labels)) == 4
    expected = log_softmax(CrossFitted(trial.by_fold, data.split)(tile))[np.arange(500), labels]
    found = CrossFitted.of(trial.by_fold, data).label_log_probs(tile)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
