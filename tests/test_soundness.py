"""Fits that went wrong on rows that they have not seen, and what is said of them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import calibcli

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

from hard_sets import WORSE, hard_set, judge

METHODS = ["vector", "gap-temperature", "monotone", "curved-sms", "histogram", "auto", "auto/stack"]


def zeros():
    """Two classes, forecasts that are rounded so that some say 0 though the event came."""
    rng = np.random.default_rng(0)
    true = 1 / (1 + np.exp(-(rng.standard_normal(240) * 1.2 - 1)))
    labels = (rng.random(240) < true).astype(int)
    shown = np.clip(true + rng.normal(0, 0.25, 240), 0, 1).round(2)
    return np.stack([1 - shown, shown], axis=1), labels


class TestHardSets:
    @pytest.mark.parametrize("number", [0, 1, 2, 3, 8])
    def test_no_fit_fails_without_a_note_and_no_choice_fails(self, number: int) -> None:
        classes = hard_set(number).logits.shape[1]
        names = [*METHODS, *(["platt", "beta"] if classes == 2 else [])]
        for each in judge(number, names):
            assert each.excused or not each.failed, each
            if each.method.startswith("auto"):
                assert each.nll <= WORSE * each.temperature, each

    @pytest.mark.parametrize("number", [87, 131, 147, 191, 251, 267])
    def test_a_few_rows_of_a_model_that_is_too_sure_are_not_left_alone(self, number: int) -> None:
        # 12 or 30 rows, most of which say by luck that nothing need be changed.
        for each in judge(number, ["auto", "auto/stack"]):
            assert each.chosen[0] != "none"
            assert each.nll <= WORSE * each.temperature, each


class TestWarning:
    def test_a_fit_that_is_worse_in_a_fold_says_so(self) -> None:
        scores, labels = zeros()
        fitted = calibcli.fit(scores, labels, method="laplace", input="probs")
        assert any("worse on held-out rows than temperature" in n for n in fitted.outcome.notes)

    def test_a_fit_that_is_better_does_not(self) -> None:
        scores, labels = zeros()
        fitted = calibcli.fit(scores, labels, method="ensemble-temperature", input="probs")
        assert not any("worse on held-out rows" in note for note in fitted.outcome.notes)

    @pytest.mark.parametrize(
        ("options", "where"),
        [
            (["--test", "zeros.npz"], "on the test rows than temperature"),
            (["--target-prior", "balanced"], "class shares that it is for, than temperature"),
            (["--reduce", "top"], "on held-out rows than temperature"),
        ],
    )
    def test_so_does_one_of_other_rows(
        self, calib_here, tmp_path: Path, options: list[str], where: str
    ) -> None:
        scores, labels = zeros()
        np.savez(tmp_path / "zeros.npz", probs=scores, labels=labels)
        _, out, _ = calib_here("fit", "zeros.npz", "-m", "laplace", *options, "--format", "json")
        notes = json.loads(out)["fit"]["notes"]
        assert any(note.startswith("worse") and where in note for note in notes), notes

    def test_it_is_none_to_take(self) -> None:
        scores, labels = zeros()
        board = calibcli.compare(
            scores, labels, methods=["none", "temperature", "laplace"], input="probs"
        )
        by_name = {standing.trial.name: standing for standing in board.standings}
        assert by_name["laplace"].trial.warning
        assert not by_name["temperature"].trial.warning
        assert board.chosen.trial.name == "temperature"


class TestZeros:
    def test_a_temperature_says_which_rows_made_it_so_high(self) -> None:
        scores, labels = zeros()
        fitted = calibcli.fit(scores, labels, method="temperature", input="probs")
        assert fitted.stages[0].temperature > 10
        count = int((scores[np.arange(240), labels] == 0).sum())
        assert f"{count} of 240 rows have a label" in fitted.outcome.notes[0]

    def test_scores_with_some_impossible_labels_are_not_said_to_tell_nothing(self) -> None:
        labels = np.arange(230) % 2
        right = np.where(np.arange(230) % 8 < 6, labels, 1 - labels)
        shown = np.where(right == 1, 0.7, 0.3)
        shown[200:] = 1 - labels[200:]
        scores = np.stack([1 - shown, shown], axis=1)
        fitted = calibcli.fit(scores, labels, method="temperature", input="probs")
        assert fitted.stages[0].temperature == 1
        assert not any("tell nothing" in note for note in fitted.outcome.notes)
        assert (
            "30 of 230 rows have a label that the scores give less than 1e-6"
            in fitted.outcome.notes[0]
        )

    def test_a_mixture_with_the_uniform_is_a_candidate_of_two_classes(self) -> None:
        board = calibcli.compare(*zeros(), input="probs")
        losses = {each.trial.name: each.evaluation.values["nll"] for each in board.standings}
        assert losses["ensemble-temperature"] < losses["temperature"] - 0.05


class TestLeaderboard:
    def test_what_went_wrong_stands_under_it(self, calib_here, tmp_path: Path) -> None:
        scores, labels = zeros()
        np.savez(tmp_path / "zeros.npz", probs=scores, labels=labels)
        names = "none,temperature,laplace"
        _, out, _ = calib_here("compare", "zeros.npz", "--methods", names)
        assert "laplace: worse on held-out rows than temperature" in out
        assert "laplace! " in out

    def test_a_parameter_file_shows_it_too(self, calib_here, tmp_path: Path) -> None:
        scores, labels = zeros()
        np.savez(tmp_path / "zeros.npz", probs=scores, labels=labels)
        calib_here("fit", "zeros.npz", "-p", "p.json", "-o", "o.npz")
        _, out, _ = calib_here("inspect", "p.json")
        leaderboard = json.loads((tmp_path / "p.json").read_text())["fit"]["leaderboard"]
        shown = dict(line.split()[:2] for line in out.splitlines() if len(line.split()) > 1)
        for entry in leaderboard:
            mark = "*" if entry["chosen"] else ""
            nll = float(shown[entry["method"] + mark])
            assert nll == pytest.approx(entry["metrics"]["nll"], rel=1e-3)
        assert "leaderboard:" not in out

    def test_a_temperature_that_was_not_fitted_is_marked(self, calib_here, tmp_path: Path) -> None:
        labels = np.arange(60) % 3
        np.savez(tmp_path / "sure.npz", logits=5.0 * np.eye(3)[labels], labels=labels)
        _, out, _ = calib_here(
            "compare", "sure.npz", "--methods", "none,temperature,svs", "--format", "json"
        )
        entries = json.loads(out)["leaderboard"]
        marked = {entry["method"] for entry in entries if "warning" in entry}
        assert marked == {"temperature"}
