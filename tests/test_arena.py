"""The arena of the benchmarks: splits, figures, win rates, resuming, and methods without end."""

from __future__ import annotations

import math
import os
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import calibcli

pytest.importorskip("resource", reason="the workers of the arena need a POSIX system")
# Last, so that no module there hides a package.
sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))

from arena import Arena, choose, make_jobs
from arena_contenders import BASE, Contender
from arena_data import (
    SPLITS,
    Scores,
    experiment_shape,
    find_sets,
    open_experiment,
    stratified_halves,
)
from arena_report import by_kind, unfinished
from arena_results import CAPPED, DONE, FAILED, Record, append_record, forget, read_records
from arena_standings import (
    by_set,
    errors_of_sets,
    errors_of_splits,
    excess_nll,
    figures,
    made_worse,
    rates_by_kind,
    standings,
    win_rates,
)
from arena_workers import Job, Worker

CAP = 0.4


def as_they_are(_scores, _labels):
    return Scores.probs


def raises(_scores, _labels):
    raise ValueError("not with\nthese rows")


def spins(_scores, _labels):
    while True:
        pass


def dies(_scores, _labels):
    os._exit(7)


def gives_nothing(_scores, _labels):
    return lambda rows: np.full(rows.values.shape, np.nan)


FITS = {
    BASE: as_they_are,
    "raises": raises,
    "spins": spins,
    "dies": dies,
    "gives nothing": gives_nothing,
}


def prepared(name):
    return FITS[name]


def fakes():
    """What the workers of these tests import."""
    found = {name: Contender(partial(prepared, name), "fakes", name == "dies") for name in FITS}
    found["two classes"] = Contender(partial(prepared, BASE), "fakes", binary_only=True)
    return found


@pytest.fixture
def data(tmp_path, rng) -> Path:
    """A set in one file with three classes, a larger one, and one in two files with two."""

    def arrays(rows, classes):
        return {
            "logits": rng.normal(size=(rows, classes)).astype(np.float32),
            "labels": rng.integers(classes, size=rows),
        }

    folder = tmp_path / "data"
    for name, rows in (("one", 60), ("larger", 80)):
        (folder / name).mkdir(parents=True)
        np.savez(folder / name / "all.npz", **arrays(rows, 3))
    (folder / "two").mkdir()
    np.savez(folder / "two" / "val.npz", **arrays(50, 2))
    np.savez(folder / "two" / "test.npz", **arrays(30, 2))
    (folder / "top").mkdir()
    np.savez(folder / "top" / "top1.npz", conf=np.ones(3))
    return folder


def play(data: Path, csv: Path, methods=None, seconds=60.0, budget=math.inf) -> Arena:
    splits, _ = find_sets(data)
    shapes = {name: experiment_shape(data, name) for name in splits}
    field = {name: one for name, one in fakes().items() if methods is None or name in methods}
    jobs = make_jobs(field, splits, shapes)
    arena = Arena(jobs, field, shapes, read_records(csv), csv, budget)
    worker = Worker(fakes, partial(open_experiment, data), CAP)
    try:
        arena.play([worker], seconds)
    finally:
        worker.close()
    return arena


def record(**changes) -> Record:
    plain = Record("set", 0, "method", "lib", "1.0", 3, 10, 12, DONE, 0.5, 0.3, 0.1, 0.9, 0, 1.0, 2)
    return replace(plain, **changes)


@given(st.lists(st.integers(0, 4), min_size=2, max_size=60), st.integers(0, 9))
def test_halves_share_the_rows_of_every_label(labels, seed):
    labels = np.array(labels)
    fit, test = stratified_halves(labels, seed)
    assert sorted([*fit, *test]) == list(range(len(labels)))
    assert 0 <= len(fit) - len(test) <= 1
    counts = [np.bincount(labels[rows], minlength=5) for rows in (fit, test)]
    assert np.abs(counts[0] - counts[1]).max() <= 1


def test_halves_depend_on_the_seed_alone():
    labels = np.arange(100) % 7
    again = stratified_halves(labels, 1)
    assert np.array_equal(stratified_halves(labels, 1)[0], again[0])
    assert not np.array_equal(stratified_halves(labels, 2)[0], again[0])


def test_sets_are_found_and_the_rest_is_named(data):
    splits, left_out = find_sets(data)
    assert splits == {"one": SPLITS, "larger": SPLITS, "two": 1}
    assert "top1.npz" in left_out["top"]


def test_figures_are_those_of_an_evaluation(rng):
    probs = rng.dirichlet(np.ones(4), size=500)
    labels = rng.integers(4, size=500)
    values = calibcli.evaluate(probs, labels).values
    found = figures(probs, labels)
    for name in ("nll", "brier", "ece", "accuracy"):
        assert found[name] == pytest.approx(values[name], rel=1e-9), name
    assert found["clipped"] == 0


def test_an_infinite_loss_is_cut_and_counted():
    found = figures(np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([1, 1]))
    assert found["clipped"] == 1
    assert found["nll"] == pytest.approx((87.3365448 + np.log(2)) / 2)


@pytest.mark.parametrize("probs", [np.ones((3, 2)), np.full((2, 2), np.nan), np.ones(2)])
def test_figures_refuse_what_is_no_prediction(probs):
    with pytest.raises(ValueError, match="rows"):
        figures(probs, np.array([0, 1]))


def test_win_rates_by_hand():
    losses = {
        "a": {"x": 1.0, "y": 1.0},
        "b": {"x": 2.0, "y": 1.0},
        "c": {"x": 3.0},
    }
    rates = win_rates(losses)
    # a: beats both on x, ties with b on y. c has no figure for y and takes no part there.
    assert rates == pytest.approx({"a": 0.75, "b": 0.5, "c": 0.0})
    assert win_rates(losses, ["b"]) == pytest.approx({"a": 0.75, "c": 0.0})


def test_errors_of_win_rates_by_hand():
    losses = {"a": {"x": 1.0, "y": 1.0}, "b": {"x": 2.0, "y": 0.0}}
    # a wins one of two sets: shares 1 and 0, of which the standard deviation is 1 / sqrt 2.
    assert errors_of_sets(losses)["a"] == pytest.approx(0.5)
    wins = [(0.0, 1.0), (0.0, 1.0), (1.0, 0.0), (0.0, 1.0)]
    records = [
        record(set=name, split=split, method=method, nll=nll)
        for name in ("x", "y")
        for split, pair in enumerate(wins)
        for method, nll in zip("ab", pair, strict=True)
    ]
    # Each set: shares 1, 1, 0, 1, whose variance is 1 / 4; two sets have half the error of one.
    expected = math.sqrt(2 * (1 / 4) / 4) / 2
    assert errors_of_splits(records, {"x": 4, "y": 4}, "nll")["a"] == pytest.approx(expected)
    assert errors_of_splits(records, {"x": 1, "y": 1}, "nll") == {}


def test_win_rates_by_kind_of_set():
    records = [
        record(set=name, method=method, nll=nll, classes=classes, fit_rows=rows)
        for name, classes, rows, pair in (("x", 2, 50, (0, 1)), ("y", 100, 5000, (1, 0)))
        for method, nll in zip("ab", pair, strict=True)
    ]
    rates = rates_by_kind(records, {"x": 1, "y": 1})
    assert rates["2 classes"]["a"]["rate"] == rates["under 1,000 rows"]["a"]["rate"] == 1
    assert rates["over 20 classes"]["a"]["rate"] == rates["1,000 to 9,999"]["a"]["rate"] == 0
    assert "| `a` | 1.00 | 0.00 | 1.00 | 0.00 |" in by_kind(records, {"x": 1, "y": 1}, ["a"])


def test_what_did_not_end_is_counted():
    records = [record(method="a"), record(method="a", split=1, status=CAPPED), record(method="b")]
    lines = unfinished(records, {"a": 5, "b": 1}).splitlines()
    assert lines[2:] == ["| `a` | 5 | 1 | 1 | 0 | 3 |"]
    assert unfinished(records, {"b": 1}) == ""


def test_the_excess_is_the_divergence_from_the_truth():
    truth = np.array([[0.5, 0.5], [0.9, 0.1]])
    assert excess_nll(truth, truth) == 0
    expected = (truth * np.log(truth / 0.5)).sum() / 2
    assert excess_nll(np.full((2, 2), 0.5), truth) == pytest.approx(expected)


def test_a_set_counts_once_and_only_when_all_its_splits_are_done():
    records = [
        record(method="a", split=0, nll=1.0),
        record(method="a", split=1, nll=3.0),
        record(method="b", split=0, nll=9.0),
        record(method="b", split=1, nll=None, status=CAPPED),
    ]
    assert by_set(records, {"set": 2}, "nll") == {"a": {"set": 2.0}}


def test_sets_made_worse_and_the_rival():
    nll = {BASE: (1.0, 1.0, 1.0), "a": (1.004, 1.006, 0.5), "b": (0.9, 0.9, 0.9)}
    records = [
        record(set=f"set {number}", method=method, nll=value, library=library)
        for method, values in nll.items()
        for number, value in enumerate(values)
        for library in ["probmetrics" if method == "b" else "calib"]
    ]
    splits = {f"set {number}": 1 for number in range(3)}
    assert made_worse(by_set(records, splits, "nll"), "a") == pytest.approx(1 / 3)
    table = {one.method: one for one in standings(records, splits, "b")}
    assert table["a"].beats == table["a"].by_nll_of_peers == pytest.approx(1 / 3)
    assert np.isnan(table["b"].beats)
    assert next(iter(table)) == "b"


def test_records_survive_the_file_and_a_line_that_was_cut_off(tmp_path):
    csv = tmp_path / "there" / "results.csv"
    first = record(note='a "note", with commas')
    second = record(split=1, status=FAILED, nll=None, clipped=None)
    for one in (first, second, record(split=2)):
        append_record(csv, one)
    csv.write_text(csv.read_text()[:-20])
    assert read_records(csv) == [first, second]
    assert forget(csv, {"another"}) == [first, second]
    append_record(csv, record(split=2))
    assert read_records(csv) == [first, second, record(split=2)]
    assert forget(csv, {"method"}) == read_records(csv) == []


def test_methods_are_chosen_by_name_or_library():
    assert choose(fakes(), "raises dies") == {"raises", "dies"}
    assert choose(fakes(), "fakes") == set(fakes())
    with pytest.raises(SystemExit, match="nobody"):
        choose(fakes(), "nobody")


def test_the_arena_goes_on_whatever_a_method_does(data, tmp_path):
    csv = tmp_path / "results.csv"
    arena = play(data, csv, {BASE, "raises", "dies", "gives nothing", "two classes"})
    assert arena.records == read_records(csv)
    status = {record.key: (record.status, record.note) for record in arena.records}
    assert status["one", 3, BASE][0] == status["two", 0, BASE][0] == DONE
    assert status["one", 0, "raises"] == (FAILED, "ValueError: not with these rows")
    assert status["two", 0, "dies"] == (FAILED, "the process ended with exit code 7")
    assert status["one", 0, "gives nothing"][0] == FAILED
    assert {key[0] for key in status if key[2] == "two classes"} == {"two"}
    assert len(status) == len(arena.records) == 3 * (2 * SPLITS + 1) + 2


def test_a_method_without_end_is_stopped_and_not_tried_on_as_much_data(data, tmp_path):
    csv = tmp_path / "results.csv"
    records = play(data, csv, {BASE, "spins"}).records
    spun = [record for record in records if record.method == "spins"]
    assert {record.status for record in spun} == {CAPPED}
    tried = [record.key[:2] for record in spun if not record.note.startswith("not tried")]
    assert sorted(tried) == [("one", 0), ("two", 0)]
    assert all(record.status == DONE for record in records if record.method == BASE)


def test_a_method_gets_no_more_than_its_budget(data, tmp_path):
    csv = tmp_path / "results.csv"
    records = play(data, csv, {BASE, "spins"}, budget=0.5).records
    # A job that was stopped has cost all that it may.
    assert len([record for record in records if record.method == "spins"]) == 1
    assert play(data, csv, {"spins"}, budget=0.5).records == records
    assert len(play(data, csv, {"spins"}).records) > len(records)


def test_a_run_does_what_is_missing(data, tmp_path):
    csv = tmp_path / "results.csv"
    assert play(data, csv, {BASE}, seconds=0.0).records == []
    whole = play(data, csv, {BASE}).records
    kept = [record for record in whole if record.set != "larger"]
    lines = csv.read_text().splitlines(keepends=True)
    csv.write_text("".join(line for line in lines if not line.startswith("larger")))
    again = play(data, csv, {BASE}).records
    assert again[: len(kept)] == kept
    assert {record.key for record in again} == {record.key for record in whole}
    assert Job("one", 0, BASE) not in play(data, csv, {BASE, "raises"}).jobs
    assert len([record for record in read_records(csv) if record.method == BASE]) == len(whole)
