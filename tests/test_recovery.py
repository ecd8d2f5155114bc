"""Known truths of the benchmark: the labels follow them, and no method comes below them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("resource", reason="the workers of the arena need a POSIX system")
# Last, so that no module there hides a package.
sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))

from arena_standings import excess_nll
from recovery import NEW_SCORES, WORLDS, draw, field, shapes


@pytest.mark.parametrize("world", WORLDS)
def test_labels_follow_the_truth(world):
    experiment = draw(f"{world}, 500", 0)
    assert experiment.shape == shapes()[f"{world}, 500"]
    truth, labels = experiment.truth, experiment.test_labels
    np.testing.assert_allclose(truth.sum(axis=1), 1)
    rows = np.arange(len(labels))
    # The NLL of the labels is the entropy, but for noise, and none is likelier than the truth.
    losses = -np.log(truth[rows, labels])
    entropy = -(truth * np.log(np.maximum(truth, 1e-300))).sum(axis=1)
    assert abs((losses - entropy).mean()) < 5 * losses.std() / np.sqrt(len(rows))
    frequencies = np.bincount(labels, minlength=truth.shape[1]) / len(labels)
    assert np.abs(frequencies - truth.mean(axis=0)).max() < 5 * 0.5 / np.sqrt(len(rows))
    assert excess_nll(experiment.test.probs(), truth) >= -1e-12


def test_a_sample_is_drawn_from_its_seed_alone():
    first, again, other = (draw("shift, 10, 500", sample) for sample in (0, 0, 1))
    assert np.array_equal(first.fit.values, again.fit.values)
    assert not np.array_equal(first.fit.values, other.fit.values)
    # New rows are the same for all samples, so that methods are compared on the same rows.
    assert np.array_equal(first.test.values, other.test.values)
    assert len(first.test) == NEW_SCORES // 10


def test_classes_of_the_shift_have_equal_shares_in_new_rows():
    experiment = draw("shift, 10, 5000", 0)
    shares = np.bincount(experiment.test_labels, minlength=10) / len(experiment.test)
    assert np.abs(shares - 0.1).max() < 0.015
    assert np.bincount(experiment.fit_labels).max() > 1000


def test_unlabelled_rows_bring_a_fit_near_the_truth_under_shift():
    experiment = draw("shift, 10, 5000", 0)
    excess = {}
    for name in ("svs", "svs/target"):
        contender = field()[name]
        unlabelled = (experiment.test,) if contender.unlabelled else ()
        predict = contender.prepare()(experiment.fit, experiment.fit_labels, *unlabelled)
        excess[name] = excess_nll(predict(experiment.test), experiment.truth)
    assert excess["svs/target"] < 0.05 * excess["svs"]
