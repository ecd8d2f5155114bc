"""Rows that belong together (of a patient, a document) are held out, and resampled, together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import stdtrit

import calibcli
from calibcli.arrays import hashed
from calibcli.calibrators.base import GROUP
from calibcli.engine.data import Data, open_data
from calibcli.engine.engine import Engine
from calibcli.engine.folds import CLUSTER, Folds, Subset, share_out
from calibcli.engine.source import ArraySource, Chunk
from calibcli.metrics.panel import Panel
from calibcli.metrics.resampling import Bootstrap
from calibcli.tables import ReadOptions, open_dataset
from calibcli.workflow.automatic import compare_plans, make_any_plan
from calibcli.workflow.cluster_hint import likely_clusters
from calibcli.workflow.fitted_plans import fit_plan
from calibcli.workflow.fitting import Outcome, fit_and_measure
from calibcli.workflow.measuring import Through, measure
from calibcli.workflow.plans import make_plan

NLL = Panel(("nll",))
FORCE = {"fit": ("--force",), "compare": (), "evaluate": ()}
Rows = tuple[np.ndarray, np.ndarray, np.ndarray]


def patients(count: int, rows: int, classes: int = 5, seed: int = 0, effect: float = 1.0) -> Rows:
    """Logits, labels and the patient of each row: patients have classes of their own.

    The model shifts the logits of each patient by random effects; what a fit could learn of the
    patient from them is worth much on other rows of the patient, and nothing on new patients.
    """
    generator = np.random.default_rng(seed)
    shares = generator.dirichlet(np.full(classes, 0.2), count)
    labels = np.concatenate([generator.choice(classes, rows, p=share) for share in shares])
    patient = np.repeat(np.arange(count), rows)
    effects = effect * generator.normal(size=(count, classes))[patient]
    noise = 0.5 * generator.normal(size=(count * rows, classes))
    logits = 1.5 * (2.5 * np.eye(classes)[labels] + effects + noise)
    return logits.astype(np.float32), labels, patient


def opened(rows: Rows, folds: int = 5, *, clustered: bool = True, **more: Any) -> Data:
    logits, labels, patient = rows
    keys = {CLUSTER: patient} if clustered else {}
    names = {CLUSTER: tuple(map(str, range(patient.max() + 1)))} if clustered else {}
    keys |= more.pop("keys", {})
    names |= more.pop("key_names", {})
    source = ArraySource(logits, labels, keys=keys or None, key_names=names, **more)
    return open_data(Engine(threads=1), source, folds)


def nll_on(rows: Rows, stages: Any) -> float:
    return measure(opened(rows, 1, clustered=False), [Through(stages)], NLL)[0].values["nll"]


def held_out(outcome: Outcome) -> float:
    assert outcome.after is not None
    return outcome.after.values["nll"]


class TestAssigner:
    def test_rows_without_clusters_go_by_their_number_and_the_seed(self) -> None:
        np.testing.assert_array_equal(
            Folds(5).at(np.arange(12)), [0, 0, 4, 4, 2, 0, 3, 0, 4, 0, 1, 1]
        )
        np.testing.assert_array_equal(Folds(7, 3).at(np.arange(99)), hashed(np.arange(99), 3, 7))

    @pytest.mark.parametrize("seed", range(5))
    def test_folds_of_clusters_weigh_about_the_same(self, seed: int) -> None:
        weights = np.random.default_rng(seed).pareto(1.5, 200) + 1
        sums = np.bincount(share_out(weights, 5, seed), weights)
        assert sums.max() - sums.min() < max(0.02 * weights.sum(), weights.max())

    def test_clusters_of_one_size_are_spread_evenly(self) -> None:
        folds = share_out(np.ones(23), 5, 0)
        assert sorted(np.bincount(folds)) == [4, 4, 5, 5, 5]
        assert not np.array_equal(folds, share_out(np.ones(23), 5, 1))
        np.testing.assert_array_equal(folds, share_out(np.ones(23), 5, 0))

    def test_clusters_that_weigh_nothing_fill_no_fold(self) -> None:
        weights = np.array([0.0, 3.0, 0.0, 2.0, 0.0, 2.0])
        folds = share_out(weights, 3, 0)
        assert sorted(folds[weights > 0]) == [0, 1, 2]

    def test_units_are_whole_clusters(self) -> None:
        rng = np.random.default_rng(0)
        keys = rng.integers(0, 30, 500)
        split = Folds(4, 0, share_out(np.bincount(keys), 4, 0))
        chunk = Chunk(0, np.zeros((500, 2)), keys={CLUSTER: keys})
        cell = split.of(chunk) * 40 + split.unit_of(chunk, 40)
        for number in range(30):
            assert len(set(cell[keys == number])) == 1
        assert len(set(cell)) == 30
        assert np.flatnonzero(split.filled_units(40).ravel()).tolist() == sorted(set(cell))

    def test_there_are_no_more_folds_than_clusters(self) -> None:
        data = opened(patients(3, 20), 5)
        assert (data.folds, data.clusters) == (3, 3)
        assert opened(patients(3, 20), 5, clustered=False).clusters is None

    def test_memory_threads_and_format_have_no_part_in_it(self, tmp_path: Path) -> None:
        logits, labels, patient = patients(30, 200)
        order = np.random.default_rng(0).permutation(len(labels))
        logits, labels, patient = logits[order], labels[order], patient[order]
        np.savez(tmp_path / "val.npz", logits=logits, labels=labels, patient=patient)
        weights = []
        for engine in (Engine(threads=1), Engine(threads=3), Engine(memory=1 << 12)):
            options = ReadOptions(keys={CLUSTER: "patient"})
            with open_dataset([str(tmp_path / "val.npz")], options) as dataset:
                data = open_data(engine, dataset, 5)
                weights.append((data.split.of_cluster, data.survey.class_weights))
        for folds, by_class in weights[1:]:
            np.testing.assert_array_equal(folds, weights[0][0])
            np.testing.assert_array_equal(by_class, weights[0][1])

    def test_weights_are_what_is_balanced(self) -> None:
        logits, labels, patient = patients(10, 20)
        heavy = np.where(patient == 0, 9.0, 1.0)
        data = opened((logits, labels, patient), 2, weights=heavy)
        np.testing.assert_array_equal(data.survey.class_weights.sum(axis=1), [180, 180])

    def test_an_inner_split_keeps_clusters_whole_and_has_some_on_both_sides(self) -> None:
        data = opened(patients(6, 30), 5)
        for fold in range(data.folds):
            rows, validation = data.without_fold(fold).inner_split()
            assert rows.weight > 0
            assert validation.weight > 0
            assert rows.weight + validation.weight == data.without_fold(fold).weight
            (chunk,) = data.source.chunks(data.rows)
            inside = validation.parts[-1].chosen(chunk)
            assert chunk.keys is not None
            for number in range(6):
                assert len(set(inside[chunk.keys[CLUSTER] == number])) == 1

    def test_a_subset_is_of_whole_clusters(self) -> None:
        data = opened(patients(10, 7), 5)
        (chunk,) = data.source.chunks(data.rows)
        chosen = Subset(data.split, 2).chosen(chunk)
        np.testing.assert_array_equal(chosen.reshape(10, 7).std(axis=1), 0)
        assert 0 < chosen.sum() < data.rows


WAYS: dict[str, dict[str, Any]] = {
    "temperature": {"method": "temperature"},
    "stages": {"method": "temperature,svs"},
    "tuned": {"method": "svs", "tune": True},
    "averaged": {"method": "svs", "average_folds": True},
    "reduced": {"method": "platt", "reduce": "top"},
    "steered": {"method": "svs", "loss": "adafocal"},
    "rounds": {"method": "svs", "loss": "class-wise"},
    "several starts": {"method": "ensemble-temperature"},
    "prior": {"method": "vector", "prior": "balanced"},
    "groups": {"method": "svs", "by": "scanner"},
    "steered groups": {"method": "svs", "by": "scanner", "loss": "adafocal"},
    "stack": {"method": "auto", "stacked": True},
}


@pytest.mark.parametrize("way", WAYS)
def test_no_row_is_held_out_by_itself(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = patients(12, 40, 4)
    scanner = {"keys": {GROUP: rows[2] % 2}, "key_names": {GROUP: ("a", "b")}}
    data = opened(rows, 4, **scanner)
    splits = []
    plain = Folds.at

    def watched(self: Folds, numbers: np.ndarray, keys: Any = None) -> np.ndarray:
        splits.append(self)
        return plain(self, numbers, keys)

    monkeypatch.setattr(Folds, "at", watched)
    fit_and_measure(data, make_any_plan(**WAYS[way]), NLL)
    assert splits
    assert all(split.of_cluster is not None or split.count == 1 for split in splits)


class TestLeak:
    def test_auto_takes_nothing_that_is_worse_for_new_patients(self) -> None:
        rows, new = patients(40, 400, 4), patients(400, 40, 4, seed=1)
        outcome = fit_and_measure(opened(rows), make_any_plan("auto"), NLL)
        truth = nll_on(new, outcome.fit.calibrators) - nll_on(new, ())
        before = outcome.before.values["nll"]  # type: ignore[union-attr]
        assert truth < 0.005
        assert abs(held_out(outcome) - before - truth) < 0.05

    @pytest.mark.parametrize("method", ["svs", "matrix", "venn-abers"])
    def test_patients_that_were_seen_look_better_than_new_ones(self, method: str) -> None:
        """40 patients with 400 rows each: what stands under "after" is that of new patients."""
        rows, new = patients(40, 400), patients(400, 40, seed=1)
        plan = make_any_plan(method)
        whole = fit_and_measure(opened(rows), plan, NLL)
        split = fit_and_measure(opened(rows, clustered=False), plan, NLL)
        # By how much calibration makes patients worse (or better) that were not seen.
        truth = nll_on(new, whole.fit.calibrators) - nll_on(new, ())
        before = whole.before.values["nll"]  # type: ignore[union-attr]
        assert truth > -0.005
        assert held_out(whole) - before > -0.02
        seen = nll_on(new, split.fit.calibrators) - nll_on(new, ())
        assert held_out(split) - before < min(seen, 0.0) - 0.05

    @pytest.mark.parametrize("method", ["svs", "sms", "matrix"])
    def test_held_out_loss_is_that_of_new_patients_in_the_mean(self, method: str) -> None:
        plan, new = make_plan(method), patients(2000, 5, 4, seed=999, effect=0.7)
        bias: dict[bool, list[float]] = {True: [], False: []}
        for seed in range(16):
            rows = patients(20, 40, 4, seed=seed, effect=0.7)
            for clustered, found in bias.items():
                data = opened(rows, clustered=clustered)
                # The fits of the folds themselves: what they are worth on patients that are new.
                parts = [plan.finished(fit) for fit in fit_plan(data, plan).without_folds]
                truth = np.mean([nll_on(new, part.calibrators) for part in parts])
                found.append(held_out(fit_and_measure(data, plan, NLL)) - truth)
        whole, split = np.array(bias[True]), np.array(bias[False])
        assert abs(whole.mean()) < 2.5 * whole.std() / 4
        assert (split - whole).mean() < -4 * (split - whole).std() / 4


class TestChoice:
    def test_standard_errors_are_over_clusters(self) -> None:
        rows = patients(20, 100)
        logits, labels, patient = rows
        plans = [make_plan("none"), make_plan("svs")]
        board = compare_plans(opened(rows), plans, NLL)
        by_row = compare_plans(opened(rows, clustered=False), plans, NLL)
        (worse,) = [each for each in board.standings if each.behind > 0]
        data = opened(rows)
        (svs,) = [each for each in board.standings if each.trial.name == "svs"]
        losses = []
        for stages in ([()] * data.folds, svs.trial.by_fold):
            fold = data.split.at(np.arange(len(labels)), {CLUSTER: patient})
            nll = np.empty(len(labels))
            for number, part in enumerate(stages):
                logit = logits[fold == number].astype(float)
                for stage in part:
                    logit = stage.log_probs(logit)
                logit = logit - np.log(np.exp(logit).sum(axis=1, keepdims=True))
                nll[fold == number] = -logit[np.arange(len(logit)), labels[fold == number]]
            losses.append(nll)
        difference = losses[0] - losses[1]
        sums = np.bincount(patient, difference - difference.mean())
        assert worse.behind_error == pytest.approx(
            np.sqrt(20 / 19 * (sums**2).sum()) / len(labels), rel=1e-4
        )
        assert worse.behind_error > 2 * max(each.behind_error for each in by_row.standings)

    def test_clusters_of_one_row_change_no_standard_error(self) -> None:
        logits, labels, _ = patients(20, 20)
        alone = (logits, labels, np.arange(len(labels)))
        data = opened(alone, 5)
        split = Folds(5, 0, Folds(5).at(np.arange(len(labels))))
        whole = opened(alone, 5, clustered=False)
        data = Data(data.engine, data.source, whole.survey, split=split)
        plans = [make_plan("none"), make_plan("temperature")]
        boards = [compare_plans(each, plans, NLL) for each in (data, whole)]
        ours, theirs = (max(s.behind_error for s in board.standings) for board in boards)
        assert ours == pytest.approx(theirs * np.sqrt(400 / 399), rel=1e-6)


class TestInterface:
    def test_python_has_clusters_and_intervals(self) -> None:
        logits, labels, patient = patients(30, 40)
        names = np.array([f"patient {number}" for number in patient])
        fitted = calibcli.fit(logits, labels, method="svs", cluster=names, bootstrap=200)
        expected = fit_and_measure(opened((logits, labels, patient)), make_plan("svs"), NLL)
        assert fitted.outcome is not None
        assert held_out(fitted.outcome) == held_out(expected)
        assert fitted.outcome.after is not None
        assert set(fitted.outcome.after.intervals) >= {"nll", "ece"}
        evaluation = calibcli.evaluate(
            logits, labels, input="logits", cluster=patient, bootstrap=200
        )
        panel = Panel(bootstrap=Bootstrap(role=CLUSTER))
        (again,) = measure(opened((logits, labels, patient), 1), [Through()], panel)
        assert evaluation.intervals == again.intervals
        rowwise = calibcli.evaluate(logits, labels, input="logits", bootstrap=200)
        low, high = rowwise.intervals["nll"]
        assert evaluation.intervals["nll"].high - evaluation.intervals["nll"].low > 2 * (high - low)
        assert calibcli.evaluate(logits, labels, input="logits").intervals == {}

    def test_intervals_of_few_clusters_are_of_student(self) -> None:
        """Of 4 clusters the mean of each is an observation."""
        logits, labels, patient = patients(4, 50)
        found = calibcli.evaluate(logits, labels, input="logits", cluster=patient, bootstrap=200)
        log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        nll = -log_probs[np.arange(200), labels].reshape(4, 50).mean(axis=1)
        half = stdtrit(3, 0.975) * nll.std(ddof=1) / 2
        low, high = found.intervals["nll"]
        assert (high - low) / 2 == pytest.approx(half, rel=0.05)
        assert (high + low) / 2 == pytest.approx(nll.mean(), abs=0.05 * half)

    def test_python_compares(self) -> None:
        logits, labels, patient = patients(40, 50)
        methods = ["none", "temperature", "matrix"]
        split = calibcli.compare(logits, labels, methods=methods)
        whole = calibcli.compare(logits, labels, methods=methods, cluster=patient, bootstrap=100)
        assert split.standings[0].trial.name == "matrix"
        assert whole.standings[-1].trial.name == "matrix"
        assert whole.standings[0].evaluation.intervals
        with pytest.raises(
            calibcli.DataError, match=r"cluster must be numbers or texts of the sha"
        ):
            calibcli.compare(logits, labels, cluster=patient[:-1])
        with pytest.raises(calibcli.DataError, match="all rows are in one cluster"):
            calibcli.fit(logits, labels, cluster=np.zeros(len(labels), int))

    @pytest.fixture
    def few(self, tmp_path: Path) -> Path:
        logits, labels, patient = patients(12, 30, 4)
        scanner, one = np.array(["a", "b"])[patient % 2], np.zeros_like(patient)
        np.savez(
            tmp_path / "few.npz",
            logits=logits,
            labels=labels,
            patient=patient,
            scanner=scanner,
            one=one,
        )
        return tmp_path

    def test_commands_take_them(self, calib_here: Any, few: Path) -> None:
        for command in (
            ("fit", "few.npz", "-m", "svs"),
            ("fit", "few.npz", "--by", "scanner", "-p", "by.json", "-o", "by.npz"),
            ("compare", "few.npz", "--methods", "none,svs"),
            ("evaluate", "few.npz", "--refit", "svs"),
            ("evaluate", "few.npz", "--by", "scanner", "--by-class"),
        ):
            code, printed, said = calib_here(*command, "--cluster", "patient", "--format", "json")
            assert code == 0, said
            document = json.loads(printed)
            assert document["input"]["clusters"] == {"column": "patient", "count": 12}
            assert "12 clusters are few" in said
            if command[0] == "fit":
                printed = calib_here(*command, "--format", "json", "-q", "--force")[1]
                plain = json.loads(printed)
                assert plain["input"]["clusters"] is None
                assert plain["after"]["metrics"] != document["after"]["metrics"]
        page = calib_here("fit", "few.npz", "--cluster", "patient", "-q", "--force")[1]
        assert "a fit that has seen no row of the same patient" in " ".join(page.split())
        assert "12 of patient, never split (few" in " ".join(page.split())

    @pytest.mark.parametrize("command", [("fit",), ("compare",), ("evaluate",)])
    def test_one_cluster_is_refused(
        self, calib_here: Any, few: Path, command: tuple[str, ...]
    ) -> None:
        code, _, said = calib_here(*command, "few.npz", "-q", "--cluster", "one")
        assert code == 2
        assert "all rows are in one cluster" in said
        assert not list(few.glob("few.*.json"))


class TestHint:
    """A column that looks like clusters is named on stderr, and nothing is refused for it."""

    @staticmethod
    def hint(rows: Rows, **columns: np.ndarray) -> str | None:
        logits, labels, _ = rows
        numbers = {
            name: np.unique(values, return_inverse=True)[1] for name, values in columns.items()
        }
        hint = likely_clusters(Chunk(0, logits, labels, keys=numbers), "logits")
        return None if hint is None else hint.column

    def test_patients_are_seen(self) -> None:
        rows = patients(40, 50)
        noise = np.random.default_rng(0).integers(0, 40, 2000)
        assert self.hint(rows, noise=noise, patient=rows[2], row=np.arange(2000)) == "patient"

    def test_what_is_no_cluster_is_left_alone(self) -> None:
        """Chance, rows of their own, names of classes, few values, independent rows."""
        logits, labels, patient = rows = patients(40, 50, 12)
        assert self.hint(rows, row=np.arange(2000)) is None
        assert self.hint(rows, label=labels) is None
        assert self.hint(rows, predicted=logits.argmax(axis=1)) is None
        assert self.hint(rows, scanner=patient % 9) is None
        for seed in range(200):
            noise = np.random.default_rng(seed).integers(0, 40, 2000)
            assert self.hint(rows, noise=noise) is None

    def test_independent_rows_are_no_clusters_whatever_their_logits(self) -> None:
        for seed in range(50):
            generator = np.random.default_rng(seed)
            patient = np.repeat(np.arange(40), 50)
            logits = generator.normal(size=(2000, 5)) + 2 * generator.normal(size=(40, 5))[patient]
            probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
            labels = (probs.cumsum(axis=1) < generator.random((2000, 1))).sum(axis=1)
            assert self.hint((logits, np.minimum(labels, 4), patient), patient=patient) is None

    def test_it_is_said_once_and_not_for_what_was_named(
        self, calib_here: Any, tmp_path: Path
    ) -> None:
        logits, labels, patient = patients(20, 50)
        np.savez(tmp_path / "x.npz", logits=logits, labels=labels, patient=patient)
        for command in (("evaluate",), ("compare", "--methods", "none"), ("fit",)):
            code, _, said = calib_here(*command, "x.npz")
            assert (code, said.count("--cluster patient holds them out")) == (0, 1)
            code, _, said = calib_here(
                *command, "x.npz", "--cluster", "patient", *FORCE[command[0]]
            )
            assert (code, "go together" in said) == (0, False)
        code, _, said = calib_here("evaluate", "x.npz", "--by", "patient")
        assert (code, "go together" in said) == (0, False)
        assert calib_here("evaluate", "x.npz", "-q")[2] == ""
