"""Folds give the same bits whatever the threads, the memory limit and the cut into chunks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibcli.arrays import single_precision
from calibcli.calibrators.affine import VectorMap
from calibcli.calibrators.base import SmoothMap
from calibcli.calibrators.temperature import Temperature, TemperatureMap
from calibcli.engine.data import Data, open_data
from calibcli.engine.engine import Engine
from calibcli.engine.folds import Folds, Subset
from calibcli.engine.machine import choose_device, parse_memory
from calibcli.engine.source import ArraySource, Chunk
from calibcli.errors import DataError, UsageError
from calibcli.fitting.problem import Problem
from calibcli.fitting.results import StageFit
from calibcli.fitting.stages import Begun, fit_stages
from calibcli.metrics.panel import Panel
from calibcli.objectives.nll import NegativeLogLikelihood
from calibcli.workflow.measuring import Through, measure


def labelled(rows: int, classes: int, seed: int = 0, dtype: type = np.float32) -> ArraySource:
    rng = np.random.default_rng(seed)
    logits = (2 * rng.standard_normal((rows, classes))).astype(dtype)
    labels = (logits / 1.5 + rng.gumbel(size=logits.shape)).argmax(axis=1)
    return ArraySource(logits, labels)


@dataclass(frozen=True)
class Scattered(ArraySource):
    """The same rows, in chunks cut at given places, as files of odd sizes would give them."""

    cuts: tuple[int, ...] = ()

    def resident(self) -> bool:
        return False

    def chunks(self, rows: int) -> Iterator[Chunk]:
        whole = Chunk(0, self.scores, self.labels, self.weights)
        ends = [0, *sorted(c for c in self.cuts if 0 < c < self.rows), self.rows]
        for begin, end in pairwise(ends):
            for start in range(begin, end, rows):
                yield whole.rows(start, min(start + rows, end))


def scattered(source: ArraySource, *cuts: int) -> Scattered:
    return Scattered(source.scores, source.labels, source.weights, cuts=cuts)


def temperature(source: ArraySource, engine: Engine) -> float:
    data = open_data(engine, source)
    fit = fit_stages(data, [TemperatureMap()], NegativeLogLikelihood())
    (calibrator,) = fit.calibrators
    assert isinstance(calibrator, Temperature)
    return calibrator.temperature


@pytest.mark.parametrize("classes", [2, 10, 300])
def test_a_fit_has_the_same_bits_for_any_threads_memory_and_cut(classes: int) -> None:
    # More than the 2^20 scores up to which everything is in float64.
    source = labelled((1 << 20) // classes + 4321, classes)
    expected = temperature(source, Engine(threads=1))
    for engine in (Engine(threads=2), Engine(threads=5)):
        assert temperature(source, engine) == expected
    tight = Engine(threads=2, memory=1 << 20)
    streamed = scattered(source, 17, 1000, 1001, 40000)
    assert not tight.fits(streamed)
    assert temperature(streamed, tight) == expected
    assert temperature(scattered(source), tight) == expected


def test_metrics_have_the_same_bits_for_any_threads_memory_and_cut() -> None:
    source = labelled(150_000, 8)
    seen = {
        tuple(measure(open_data(engine, rows), [Through()], Panel())[0].values.values())
        for engine in (Engine(threads=1), Engine(threads=3), Engine(memory=1 << 20))
        for rows in (source, scattered(source, 5, 70_000, 149_999))
    }
    assert len(seen) == 1


@settings(max_examples=20)
@given(st.lists(st.integers(1, 4999), max_size=6), st.integers(1, 4))
def test_tiles_are_cut_at_the_same_places(cuts: list[int], threads: int) -> None:
    source = labelled(5000, 1000)
    engine = Engine(threads=threads)
    starts = list(engine.map(scattered(source, *cuts), lambda tile: (tile.start, len(tile))))
    step = engine.tile_rows(1000)
    assert starts == [(i, min(step, 5000 - i)) for i in range(0, 5000, step)]


@pytest.mark.parametrize("layout", ["C", "F", "swapped", "strided"])
def test_half_precision_is_converted_to_the_last_bit(layout: str) -> None:
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16).reshape(-1, 64)
    shuffled = np.random.default_rng(0).permutation(every.ravel()).reshape(-1, 64)
    # Blocks with few numbers that are small or infinite, with none, and with all of them.
    ordinary = np.linspace(-9, 9, 3 << 16, dtype=np.float16).reshape(-1, 64)
    halves = np.concatenate((every, shuffled, ordinary, every[:8]))
    if layout == "F":
        halves = np.asfortranarray(halves)
    elif layout == "swapped":
        halves = halves.astype(">f2")
    elif layout == "strided":
        halves = np.repeat(halves, 2, axis=1)[:, ::2]
    converted, expected = single_precision(halves), halves.astype(np.float32)
    assert converted.dtype == np.float32
    assert (converted.view(np.uint32) == expected.view(np.uint32)).all()


def test_chunks_that_are_done_are_reported() -> None:
    seen: list[int] = []
    source = scattered(labelled(3000, 10), 1000, 2000)
    list(Engine(on_rows=seen.append, memory=1 << 20).map(source, len))
    assert sum(seen) == 3000


def test_folds_depend_on_the_row_number_and_the_seed_alone() -> None:
    whole = Folds(5).at(np.arange(10_000))
    assert np.array_equal(whole[1234:5678], Folds(5).at(np.arange(1234, 5678)))
    assert np.bincount(whole).min() > 1850
    assert not np.array_equal(whole, Folds(5, seed=1).at(np.arange(10_000)))


def test_held_out_rows_do_not_count() -> None:
    source = labelled(2000, 4)
    fold = Folds(5).at(np.arange(2000))
    kept = ArraySource(source.scores[fold != 2], source.labels[fold != 2])
    data = open_data(Engine(), source, folds=5)
    held = fit_stages(data.without_fold(2), [TemperatureMap()], NegativeLogLikelihood())
    (calibrator,) = held.calibrators
    assert calibrator.temperature == pytest.approx(temperature(kept, Engine()), rel=1e-9)
    (whole,) = source.chunks(2000)
    assert np.array_equal(Subset(Folds(5), 2).chosen(whole), fold != 2)


class TestSurvey:
    @pytest.mark.parametrize(
        ("value", "kind", "message"),
        [
            (np.nan, "logits", "row 7: the score of class 1 is NaN"),
            (np.inf, "logits", "row 7: the score of class 1 is +inf"),
            (-0.1, "probs", "row 7: the score of class 1 is not a number between 0 and 1: -0.1"),
            (1.5, "probs", "row 7: the score of class 1 is a probability greater than 1: 1.5"),
        ],
    )
    def test_a_bad_score_is_refused_with_its_row(self, value, kind, message) -> None:
        scores = np.full((20, 2), 0.5, np.float32)
        scores[7, 1] = value
        with pytest.raises(DataError) as error:
            open_data(Engine(), ArraySource(scores, np.zeros(20, np.int64), None, kind))
        assert str(error.value) == message

    def test_a_refusal_says_how_many_rows_are_so(self) -> None:
        scores = np.full((20, 2), 0.5)
        scores[7:12, 1] = -0.01
        labels = np.zeros(20, np.int64)
        labels[15] = 9
        with pytest.raises(DataError, match=r"row 7: .*: -0\.01; 6 of 20 rows cannot be used$"):
            open_data(Engine(), ArraySource(scores, labels, None, "probs"))

    def test_limits_that_float16_has_not_are_no_trouble(self) -> None:
        scores = np.zeros((20, 2), np.float16)
        scores[3, 0] = np.nan
        with pytest.raises(DataError, match=r"row 3: the score of class 0 is NaN$"):
            open_data(Engine(), ArraySource(scores, np.zeros(20, np.int64)))

    @pytest.mark.parametrize("label", [-100, -1, 4, 10**12])
    def test_a_label_that_is_no_class_is_refused_with_its_row(self, label: int) -> None:
        source = labelled(30, 4)
        source.labels[11] = label
        with pytest.raises(
            DataError, match=rf"row 11: label {label} is none of the classes 0 to 3"
        ):
            open_data(Engine(), source)

    def test_an_impossible_label_is_refused(self) -> None:
        source = labelled(30, 4)
        source.scores[5, source.labels[5]] = -np.inf
        with pytest.raises(DataError, match=r"row 5: class . is the label, but its logit is -inf"):
            open_data(Engine(), source)

    @pytest.mark.parametrize("weight", [-1.0, np.nan, np.inf])
    def test_a_bad_weight_is_refused(self, weight: float) -> None:
        plain = labelled(30, 4)
        weights = np.ones(30)
        weights[29] = weight
        with pytest.raises(DataError, match="row 29: the weight"):
            open_data(Engine(), ArraySource(plain.scores, plain.labels, weights))

    def test_no_rows_and_no_weight_are_refused(self) -> None:
        with pytest.raises(DataError, match="has no rows"):
            open_data(Engine(), ArraySource(np.empty((0, 3), np.float32), np.empty(0, np.int64)))
        plain = labelled(3, 4)
        with pytest.raises(DataError, match="all weights are 0"):
            open_data(Engine(), ArraySource(plain.scores, plain.labels, np.zeros(3)))

    def test_counts(self) -> None:
        source = ArraySource(np.zeros((4, 3), np.float32), np.array([0, 2, 2, 0]))
        data = open_data(Engine(), source)
        assert data.survey.class_rows.tolist() == [2, 0, 2]
        assert data.weight == 4


class TestDevices:
    def test_cuda_is_refused_where_there_is_none(self, monkeypatch) -> None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        assert choose_device("auto") == "cpu"
        with pytest.raises(UsageError, match="hides every GPU; use --device cpu"):
            choose_device("cuda:1")

    def test_apple_gpus_are_refused_with_the_reason(self) -> None:
        with pytest.raises(UsageError, match="mps: Apple's GPUs have no float64"):
            choose_device("mps")

    @pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "tpu"])
    def test_an_unknown_name_is_refused(self, name: str) -> None:
        with pytest.raises(UsageError, match="use auto, cpu, cuda or cuda:N"):
            choose_device(name)


@pytest.mark.parametrize(
    ("text", "size"),
    [("256M", 256 << 20), ("2g", 2 << 30), ("1.5GiB", 3 << 29), ("80000000", 80_000_000)],
)
def test_sizes_of_memory(text: str, size: int) -> None:
    assert parse_memory(text) == size


@pytest.mark.parametrize("text", ["", "much", "-1G", "1K", "2 X", "1e9"])
def test_what_is_no_size_of_memory_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--memory"):
        parse_memory(text)


def test_memory_mapped_rows_beyond_the_limit_are_read_in_pieces() -> None:
    source = labelled(100_000, 10)
    tight = Engine(memory=1 << 20)
    assert tight.chunk_rows(source) < source.rows
    assert Engine().chunk_rows(source) == source.rows


def test_a_sample_holds_nothing_but_its_rows() -> None:
    source = labelled(5000, 10)
    for rows in (source, scattered(source, 17, 1000, 1001)):
        thin = Engine(memory=1).every(rows, 10)
        np.testing.assert_array_equal(thin.scores, source.scores[::10])
        np.testing.assert_array_equal(thin.labels, source.labels[::10])
        assert thin.scores.base is None
        assert thin.labels.base is None


def gradient_of(data: Data, family: SmoothMap) -> np.ndarray:
    problem = Problem(data, family, NegativeLogLikelihood(), family.start(data.classes, 1.0))
    value, gradient = problem.gradient(family.start(data.classes, 0.7))
    return np.append(gradient, value)


@pytest.mark.parametrize("classes", [3, 200])
@pytest.mark.parametrize("weighted", [False, True])
def test_rows_that_are_held_out_are_left_out_to_the_same_sums(classes: int, weighted: bool) -> None:
    rows = 3 * (1 << 19) // classes
    source = labelled(rows, classes)
    if weighted:
        source = replace(source, weights=np.random.default_rng(1).random(rows) + 0.5)
    part = open_data(Engine(threads=2), source, folds=5).without_fold(2)
    assert part.by_themselves() is part
    # As if they were in files, and all that is held were a few chunks.
    streamed = replace(scattered(source, 1000), weights=source.weights)
    other = open_data(Engine(threads=1, memory=16 << 20), streamed, folds=5).without_fold(2)
    family = VectorMap(penalty=0, prior=0)
    found = gradient_of(part, family)
    np.testing.assert_array_equal(gradient_of(other, family), found)
    zeros = part.split.at(np.arange(rows)) != 2
    weights = zeros if source.weights is None else zeros * source.weights
    alone = open_data(Engine(), replace(source, weights=weights.astype(float)))
    np.testing.assert_allclose(found, gradient_of(alone, family), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("weighted", [False, True])
def test_few_rows_outside_a_fold_are_data_of_their_own(weighted: bool) -> None:
    source = labelled(900, 7, dtype=np.float64)
    if weighted:
        source = replace(source, weights=np.random.default_rng(1).random(900) + 0.5)
    part = open_data(Engine(threads=2), source, folds=5).without_fold(2)
    alone = part.by_themselves()
    assert alone.rows < part.rows
    assert not alone.parts
    np.testing.assert_allclose(alone.class_weights, part.class_weights)
    family = VectorMap()
    np.testing.assert_allclose(gradient_of(alone, family), gradient_of(part, family), atol=1e-12)
    # Rows of no weight at all stay, with their places for messages.
    none = part.restricted(Subset(part.split, 2, inside=True))
    assert none.by_themselves() is none
    assert alone.source.locate(0) == "row 0"


def test_what_several_threads_begin_with_is_made_once() -> None:
    begun, made = Begun(), []

    def fit() -> StageFit:
        made.append(1)
        time.sleep(0.05)
        return StageFit(Temperature(1.0))

    with ThreadPoolExecutor(4) as pool:
        stages = list(pool.map(lambda _: begun.stage("temperature", fit), range(8)))
    assert len(made) == 1
    assert all(stage is stages[0] for stage in stages)
