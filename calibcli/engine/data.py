"""Rows ready to be folded over: a source, an engine, and what the survey found."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from operator import itemgetter
from typing import Any, TypedDict, TypeVar

import numpy as np

from calibcli.arrays import (
    LARGEST_LOGIT,
    NumpyArray,
    is_by_class,
    is_numpy_array,
    namespace,
    to_numpy,
    wide_values,
)
from calibcli.cached import cached_property
from calibcli.calibrators.base import Calibrator
from calibcli.calibrators.chain import for_rows, log_probs_after
from calibcli.calibrators.identity import Identity
from calibcli.engine.counting import counted, is_countable
from calibcli.engine.engine import AS_STORED, Engine, Tile
from calibcli.engine.folds import CLUSTER, Folds, Subset, share_out
from calibcli.engine.kept_tiles import KeptOutputs, KeptSample, KeptTiles, LastResults
from calibcli.engine.machine import to_device
from calibcli.engine.source import ArraySource, Source, each_key, hold, names_of_keys, read_all
from calibcli.engine.survey import LARGEST_LOG_PROB, Survey, TileSurvey, survey_tile
from calibcli.errors import DataError

State = TypeVar("State")

_SMALL = 1 << 18
"""Up to this many scores, arithmetic is in float64 whatever is stored: it costs little there."""


_MOST_OUTPUTS, _USUAL_MAPS, _MOST_MAPS = 128 << 20, 16, 1000
"""Bytes of what maps made of rows that are kept, and of how many maps."""

_MOST_SUMS = 2
"""Sums over rows that are remembered: those that fits begin with which differ in a penalty."""

_INNER_FOLDS, _INNER_SEED = 5, 7919
"""The split that steers adaptive objectives; its own seed keeps it apart from the folds."""


@dataclass(frozen=True, eq=False)
class Data:
    """Labelled rows that can be folded over, all of them or without one fold.

    Parameters
    ----------
    engine : Engine
    source : Source
    survey : Survey
    stages : tuple of Calibrator
        Maps that every tile passes before it is handed out.
    split : Folds
        The fold of each row.
    parts : tuple of Subset
        Only rows that belong to all of them count.
    class_factors : float64 array (K,) or None
        Factors of the weights by class, for another class prior.
    normalised : bool
        Whether the tiles are known to hold log-probabilities that sum to 1.
    kept : KeptTiles
        What was made of the tiles of the source.
    counts : KeptTiles
        Their scores by value.
    sampled : KeptSample
        What was picked of the rows of the source, before the stages.
    outputs : KeptOutputs
        What maps that were fitted made of the tiles, where several look at it.
    """

    engine: Engine
    source: Source
    survey: Survey
    stages: tuple[Calibrator, ...] = ()
    split: Folds = field(default_factory=Folds)
    parts: tuple[Subset, ...] = ()
    class_factors: NumpyArray | None = None
    normalised: bool = False
    kept: KeptTiles = field(default_factory=KeptTiles)
    counts: KeptTiles = field(default_factory=KeptTiles)
    sampled: KeptSample = field(default_factory=KeptSample)
    outputs: KeptOutputs = field(default_factory=KeptOutputs)

    @property
    def rows(self) -> int:
        """Number of rows, held out or not."""
        return self.survey.rows

    @property
    def folds(self) -> int:
        """Number of folds of the cross-validation."""
        return self.split.count

    @property
    def seed(self) -> int:
        """The seed of the folds, and of all other random choices."""
        return self.split.seed

    @property
    def clusters(self) -> int | None:
        """Number of clusters that are kept whole; None where rows go by themselves."""
        roles = getattr(self.source, "key_roles", ())
        return len(self.key_names(CLUSTER)) if CLUSTER in roles else None

    @property
    def classes(self) -> int:
        """Number of classes K."""
        return len(self.survey.class_rows)

    @property
    def impossible(self) -> bool:
        """Whether some logit is ``-inf``."""
        return self.survey.impossible

    @cached_property
    def class_weights(self) -> NumpyArray:
        """Sum of the weights of each class (K,)."""
        total: NumpyArray
        if not self.parts:
            total = self.survey.class_weights.sum(axis=0)
        elif self.parts == (Subset(self.split, self.parts[0].fold),):
            total = np.delete(self.survey.class_weights, self.parts[0].fold, axis=0).sum(axis=0)
        else:
            plain = replace(self, class_factors=None, stages=())
            total = plain.fold(partial(_class_weights, self.classes), np.add)
        return total if self.class_factors is None else total * self.class_factors

    def key_names(self, role: str) -> tuple[str, ...]:
        """The names of the groups of a role, by their numbers."""
        return names_of_keys(self.source, (role,))[role]

    @property
    def weight(self) -> float:
        """Sum of the weights."""
        return float(self.class_weights.sum())

    @property
    def precision(self) -> type[np.float64] | None:
        """What scores are computed with: float64 where that costs nothing, None as stored."""
        return np.float64 if self.rows * self.classes <= _SMALL else None

    @cached_property
    def sums(self) -> LastResults:
        """What was summed over these very rows, weights and stages, by name."""
        return LastResults(_MOST_SUMS)

    def fold(
        self,
        partial_state: Callable[[Tile], State],
        merge: Callable[[State, State], State],
        *,
        of_rows: bool = False,
    ) -> State:
        """The merged states of all tiles, in float64 where that costs little.

        Parameters
        ----------
        partial_state : callable
            Tile -> state.
        merge : callable
            Two states of neighbouring rows -> one.
        of_rows : bool
            Whether a state does not depend on where in a tile a row is: rows that do not count are
            left out then, in place of a weight of 0.
        """
        work: Callable[[Tile], State]
        work = self._weighted(partial_state, _left_out if of_rows else _restricted)
        if self.stages:
            work = partial(_through, self.stages, work)
        return self.engine.fold(self.source, work, merge, self.precision)

    @property
    def is_counted(self) -> bool:
        """Whether `fold_by_value` has the scores of its tiles by value."""
        return self.precision is None and self._is_countable(self.stages)

    def _is_countable(self, stages: tuple[Calibrator, ...]) -> bool:
        return is_countable(self.engine, self.source, stages, brief=self.survey.brief)

    def fold_by_value(
        self, partial_state: Callable[[Tile], State], merge: Callable[[State, State], State]
    ) -> State:
        """As `fold`, but with wide tiles that are `counted`, if `is_counted`.

        Counts are kept as far as there is room.
        """
        if not self.is_counted:
            return self.fold(partial_state, merge)
        weighted = self._weighted(partial_state, _restricted)
        work = partial(_counted, self.counts, self.stages, weighted)
        return self.engine.fold(self.source, work, merge, AS_STORED, wide=True)

    def fold_prepared(
        self,
        key: Hashable,
        prepare: Callable[[Tile], Any],
        partial_state: Callable[[Any, Tile], State],
        merge: Callable[[State, State], State],
        *,
        by_value: bool = False,
        of_rows: bool = False,
    ) -> State:
        """As `fold`, with what was made of each tile, which is kept as far as there is room.

        Parameters
        ----------
        key : hashable
            What it depends on beside the rows and the stages.
        prepare : callable
            Tile -> what is kept; it has a size, ``nbytes``.
        partial_state : callable
            What was made of a tile, and the tile as it is before the stages -> state.
        by_value : bool
            Whether it is made of a wide tile that is `counted`; the rows must be (`is_counted`).
        of_rows : bool
            As in `fold`. What is made is then of the rows that count alone, and kept for these.
        """
        stages = tuple(stage for stage in self.stages if not stage.changes_nothing)
        whole = key, stages, self.parts if of_rows else ()
        if by_value:
            make = partial(_of_counts, self.counts, self.stages, prepare)
            made = partial(_kept, self.kept, whole, make)
            work = self._weighted(partial(_with_made, made, partial_state), _restricted)
            return self.engine.fold(self.source, work, merge, AS_STORED, wide=True)
        made = partial(_kept, self.kept, whole, partial(_after_stages, self.stages, prepare))
        restricted = _left_out if of_rows else _restricted
        work = self._weighted(partial(_with_made, made, partial_state), restricted)
        return self.engine.fold(self.source, work, merge, self.precision)

    def _weighted(
        self, work: Callable[[Tile], State], restricted: Callable[..., Any]
    ) -> Callable[[Tile], State]:
        """Work on tiles in which only the rows that count do, with their weights."""
        if self.parts:
            work = partial(restricted, self.parts, work)
        if self.class_factors is not None:
            work = partial(_reweighted, self.class_factors, work)
        return work

    def without_fold(self, held_out: int) -> Data:
        """The same rows, those of one fold not counting."""
        return self.restricted(Subset(self.split, held_out))

    @property
    def is_one_tile(self) -> bool:
        """Whether a pass over the rows is work for one thread on a CPU."""
        engine = self.engine
        return engine.device == "cpu" and self.rows <= engine.tile_rows(self.classes)

    @property
    def spread(self) -> Callable[..., Iterator[Any]]:
        """As `map`; where a pass over the rows is work for one thread, all have an item at a time.

        What it calls may not call it.
        """
        alone = not self.is_one_tile or self.engine.is_elsewhere(self.source)
        return map if alone else self.engine.spread

    def by_themselves(self) -> Data:
        """The rows that count, as data of their own, where all are in one tile; else as they are.

        Rows that do not count take as long as others. That of a tile does not depend on where rows
        are: neither do the sums over what is left of it.
        """
        if not (self.parts and self.is_one_tile):
            return self
        (whole,) = self.engine.every(self.source, 1).chunks(self.rows)
        chosen = np.logical_and.reduce([part.chosen(whole) for part in self.parts])
        rows = np.flatnonzero(chosen)
        if not len(rows):
            return self
        source = ArraySource.of(
            whole.picked(rows), self.source, getattr(self.source, "origin", None)
        )
        labels = to_numpy(source.labels)
        survey = replace(
            self.survey,
            rows=len(rows),
            class_rows=np.bincount(labels, minlength=self.classes),
            class_weights=np.bincount(labels, source.weights, self.classes)[None].astype(float),
        )
        return self.of_others(source, survey, Folds(1, self.seed))

    def inner_split(self) -> tuple[Data, Data]:
        """Four fifths of the rows to fit, and one to steer the fit by; clusters stay whole."""
        seed, of_cluster, fold = self.seed + _INNER_SEED, None, 0
        if self.clusters is not None:
            # Clusters that are held out weigh nothing, so that those that count are shared evenly.
            plain = replace(self, class_factors=None, stages=())
            weights = plain.fold(_cluster_weights, _padded_sum)
            of_cluster = share_out(weights, _INNER_FOLDS, seed)
            fold = _typical(np.bincount(of_cluster, weights, _INNER_FOLDS))
        split = Folds(_INNER_FOLDS, seed, of_cluster)
        return self.restricted(Subset(split, fold)), self.restricted(Subset(split, fold, True))

    def keeping_outputs(self) -> Data:
        """The same rows, which keep what fitted maps make of them, as far as there is room.

        Logits are kept of so few rows that those of many maps find room.
        """
        room = min(self.engine.room // 8, _MOST_OUTPUTS)
        are_few = self.rows * self.classes * _DOUBLE * _USUAL_MAPS <= room
        whole = KeptTiles(room if are_few else 0, _MOST_MAPS)
        return replace(self, outputs=KeptOutputs(whole, KeptTiles(room, _MOST_MAPS)))

    def restricted(self, part: Subset) -> Data:
        """The same rows, only those of a part counting."""
        return replace(self, parts=(*self.parts, part))

    def of_others(self, source: ArraySource, survey: Survey, split: Folds) -> Data:
        """Other rows, which were surveyed and split, after the same stages."""
        return replace(
            self,
            source=source,
            survey=survey,
            split=split,
            parts=(),
            outputs=KeptOutputs(),
            **_rooms_beside(self.engine, source),
        )

    def reweighted(self, class_factors: NumpyArray) -> Data:
        """The same rows, their weights multiplied by factors (K,) of their classes."""
        before = self.class_factors
        return replace(self, class_factors=class_factors * (1 if before is None else before))

    def after(self, *calibrators: Calibrator) -> Data:
        """The same rows, their scores passed through calibrators; kept if there is room.

        What is worked on by value needs no more than the stages.
        """
        stages = (*self.stages, *calibrators)
        source = None if self._is_countable(stages) else self._at_hand()
        if source is None:
            # Its samples are its own, as where it is made: passes that are said are the same.
            own, none = KeptSample(), KeptOutputs()
            return replace(self, stages=stages, normalised=True, sampled=own, outputs=none)
        work = partial(_scores, stages)
        parts = self.engine.map(source, work, self.precision)
        if self.engine.device == "cpu":
            scores: Any = _gathered(parts, self.rows)
        else:
            import torch

            scores = torch.cat(list(parts))
        origin = source.origin or source
        passed = replace(source, scores=scores, kind="log-probs", origin=origin)
        room, none = _rooms_beside(self.engine, passed), KeptOutputs()
        return replace(self, source=passed, stages=(), normalised=True, outputs=none, **room)

    def _at_hand(self) -> ArraySource | None:
        """The rows as arrays, if they are in memory and there is room for as many again.

        Of a file that is mapped, no more than it takes itself, unless that is little.
        """
        source = self.source
        if isinstance(source, ArraySource):
            return source if self.engine.fits(source) else None
        stored = source.rows * source.columns * source.dtype.itemsize
        made = source.rows * self.classes * max(source.dtype.itemsize, _SINGLE)
        room = max(stored, _LEAST_ROOM)
        if self.engine.is_elsewhere(source) or not source.resident() or made > room:
            return None
        return hold(source) if self.engine.fits(source) else None

    def normalise(self) -> Data:
        """The same rows as log-probabilities, each tile when it is asked for."""
        stages = (*self.stages, Identity())
        return replace(self, stages=stages, normalised=True, outputs=KeptOutputs())

    def sample(self, rows: int) -> Data | None:
        """About this many rows, evenly spread by their numbers, or None if those are not fewer."""
        step = self._step_to(rows)
        if step < 4:
            return None
        thin, room = self.sampled.of(step, partial(self._taken, step))
        share = replace(self.survey, rows=thin.rows, class_weights=self.survey.class_weights / step)
        # Rows have other numbers in the sample, so parts don't carry over; it is but a first guess.
        none = KeptOutputs()
        return replace(self, source=thin, survey=share, parts=(), outputs=none, **room)

    def _step_to(self, rows: int) -> int:
        return self.rows // max(rows, 1)

    def has_taken(self, rows: int, other: Data, others: int) -> bool:
        """Whether a sample of so many rows is the one of ``others`` rows of other data."""
        return self.sampled is other.sampled and self._step_to(rows) == other._step_to(others)

    def _taken(self, step: int) -> tuple[ArraySource, _Rooms]:
        """Every so many-th row; fits without a fold all have the same."""
        thin = self.engine.every(self.source, step)
        return thin, _rooms_beside(self.engine, thin)


def open_data(engine: Engine, source: Source, folds: int = 1, seed: int = 0) -> Data:
    """Survey a source, bring it into memory (or onto the device) if it fits, and check it.

    Parameters
    ----------
    engine : Engine
    source : Source
        Where it has keys of the role `CLUSTER`, each cluster is in one fold, so that there are at
        most as many folds as clusters.
    folds : int
    seed : int

    Raises
    ------
    DataError
        No rows, no labels, or a row that can't be used, with its place.
    """
    if source.rows == 0:
        raise DataError(f"{source_name(source)} has no rows")
    if not engine.is_elsewhere(source) and engine.fits(source):
        if not source.resident():
            source = read_all(source, engine.chunk_rows(source))
        elif getattr(source, "key_roles", ()) and not isinstance(source, ArraySource):
            source = hold(source)
        if engine.device != "cpu":
            source = _on_device(source, engine)
    split = Folds(max(folds, 1), seed)
    if folds > 1 and CLUSTER in getattr(source, "key_roles", ()):
        weights = engine.fold(source, _cluster_weights, _padded_sum)
        count = max(min(folds, int(np.count_nonzero(weights))), 1)
        split = Folds(count, seed, share_out(weights, count, seed))
    return survey_source(engine, source, split)


def survey_source(engine: Engine, source: Source, split: Folds) -> Data:
    """Check the rows of a source that is where it is to be, with their folds.

    Raises
    ------
    DataError
        As `open_data`.
    """
    work = partial(survey_tile, source.kind, split)
    survey = engine.fold(source, work, TileSurvey.merge, AS_STORED).finished()
    if survey.trouble is not None:
        row, what = survey.trouble
        raise DataError(f"{source.locate(row)}: {what}{_extent(source, row, survey)}")
    if source.has_labels and survey.class_weights.sum() <= 0:
        raise DataError(f"{source_name(source)}: all weights are 0")
    return Data(engine, source, survey, split=split, **_rooms_beside(engine, source))


class _Rooms(TypedDict):
    """What is kept beside the rows of a source, see `Data`."""

    kept: KeptTiles
    counts: KeptTiles
    sampled: KeptSample


def _rooms_beside(engine: Engine, source: Source) -> _Rooms:
    """Room for what is made of the tiles of a source.

    It is as much as the source has itself, but for scores of half precision: what is made of them
    is twice as large, and files of them are.
    """
    stored = source.rows * source.columns * source.dtype.itemsize
    share = stored // 4 if source.dtype.itemsize < _SINGLE else stored + stored // 4
    room = min(max(share, _LEAST_ROOM), engine.room // 4)
    job = engine.workers.job if engine.workers is not None and engine.is_elsewhere(source) else ""
    kept, counts = KeptTiles(room, job=job), KeptTiles(room, job=job)
    return {"kept": kept, "counts": counts, "sampled": KeptSample()}


_SINGLE, _DOUBLE, _LEAST_ROOM = 4, 8, 256 << 20


def _kept(kept: KeptTiles, key: Hashable, make: Callable[[Tile], Any], tile: Tile) -> Any:
    return kept.of(key, tile.start, partial(make, tile))


def _after_stages(
    stages: tuple[Calibrator, ...], prepare: Callable[[Tile], Any], tile: Tile
) -> Any:
    return prepare(replace(tile, logits=_scores(stages, tile)))


def _of_counts(
    counts: KeptTiles, stages: tuple[Calibrator, ...], prepare: Callable[[Tile], Any], tile: Tile
) -> Any:
    return prepare(counted(counts, stages, tile))


def _counted(
    kept: KeptTiles,
    stages: tuple[Calibrator, ...],
    partial_state: Callable[[Tile], State],
    tile: Tile,
) -> State:
    return partial_state(counted(kept, stages, tile))


def _with_made(
    made: Callable[[Tile], Any], partial_state: Callable[[Any, Tile], State], tile: Tile
) -> State:
    return partial_state(made(tile), tile)


def _extent(source: Source, row: int, survey: Survey) -> str:
    """The score of a row that can't be used, and how many rows are so where others are."""
    value = _bad_value(source, row)
    text = "" if value is None else f": {value:.6g}"
    if survey.unusable > 1:
        text += f"; {survey.unusable:,} of {survey.rows:,} rows cannot be used"
    return text


def _bad_value(source: Source, row: int) -> float | None:
    """The first score of a row that is a number, but none of its kind."""
    least, largest = (0, 1) if source.kind == "probs" else (-LARGEST_LOGIT, LARGEST_LOGIT)
    largest = LARGEST_LOG_PROB if source.kind == "log-probs" else largest
    for chunk in source.chunks(_SEARCHED_ROWS):
        if row < chunk.start + len(chunk):
            # A limit of logits is none that float16 has.
            scores = wide_values(chunk.scores[row - chunk.start])
            wrong = scores[np.isfinite(scores) & ((scores < least) | (scores > largest))]
            return float(wrong[0]) if len(wrong) else None
    return None


_SEARCHED_ROWS = 1 << 16


def source_name(source: Source) -> str:
    """What messages call a source."""
    return str(getattr(source, "name", "the input"))


def _on_device(source: Source, engine: Engine) -> ArraySource:
    def move(array: Any) -> Any:
        return to_device(array, engine.device)

    held = hold(source)
    scores, labels, weights = move(held.scores), move(held.labels), move(held.weights)
    return replace(held, scores=scores, labels=labels, weights=weights)


def _scores(stages: tuple[Calibrator, ...], tile: Tile) -> Any:
    return log_probs_after(for_rows(stages, tile.keys), tile.logits)


def _gathered(parts: Iterator[Any], rows: int) -> NumpyArray:
    """Neighbouring tiles as one array, which lies in memory as they do."""
    first = next(parts)
    order: Any = "F" if is_by_class(first) else "C"
    whole = np.empty((rows, first.shape[1]), first.dtype, order)
    end = 0
    for part in chain((first,), parts):
        begin, end = end, end + len(part)
        whole[begin:end] = part
    return whole


def _class_weights(classes: int, tile: Tile) -> NumpyArray:
    weights = None if tile.weights is None else to_numpy(tile.weights)
    return np.bincount(to_numpy(tile.labels), weights, classes).astype(np.float64)


def _cluster_weights(tile: Tile) -> NumpyArray:
    """Weight of the rows of each cluster, as far as these have the first numbers (C,)."""
    assert tile.keys is not None
    numbers = tile.keys[CLUSTER]
    if tile.weights is None:
        return np.bincount(numbers).astype(np.float64)
    # What is no weight is reported by the survey, which says where it is.
    weights = np.nan_to_num(to_numpy(tile.weights), nan=0.0, posinf=0.0)
    return np.bincount(numbers, np.maximum(weights, 0.0))


def _padded_sum(left: NumpyArray, right: NumpyArray) -> NumpyArray:
    """The sum of arrays, the shorter one filled up with zeros."""
    if len(left) < len(right):
        left, right = right, left
    total = left.copy()
    total[: len(right)] += right
    return total


def _typical(weights: NumpyArray) -> int:
    """The fold whose weight is nearest to the mean, of those that weigh something."""
    distance = np.where(weights > 0, np.abs(weights - weights.mean()), np.inf)
    return int(distance.argmin())


def _restricted(
    parts: tuple[Subset, ...], partial_state: Callable[[Tile], State], tile: Tile
) -> State:
    """The state of a tile in which only rows that belong to all parts count."""
    chosen = np.ones(len(tile))
    for part in parts:
        chosen *= part.chosen(tile)
    xp = namespace(tile.logits)
    weights = xp.asarray(chosen, device=tile.logits.device)
    return partial_state(
        replace(tile, weights=weights if tile.weights is None else weights * tile.weights)
    )


def _left_out(
    parts: tuple[Subset, ...], partial_state: Callable[[Tile], State], tile: Tile
) -> State:
    """The state of the rows of a tile that belong to all parts; where there are none, of weight 0.

    To copy them takes little beside what is made of them.
    """
    chosen = np.logical_and.reduce([part.chosen(tile) for part in parts])
    rows = np.flatnonzero(chosen)
    if not len(rows) or not is_numpy_array(tile.logits):
        return _restricted(parts, partial_state, tile)
    logits = tile.logits
    by_class = is_by_class(logits)
    picked = np.take(logits.T, rows, axis=1).T if by_class else np.take(logits, rows, axis=0)
    return partial_state(
        replace(
            tile,
            logits=picked,
            labels=None if tile.labels is None else tile.labels[rows],
            weights=None if tile.weights is None else tile.weights[rows],
            keys=each_key(tile.keys, itemgetter(rows)),
        )
    )


def _reweighted(
    class_factors: NumpyArray, partial_state: Callable[[Tile], State], tile: Tile
) -> State:
    xp = namespace(tile.logits)
    factors = xp.asarray(class_factors, device=tile.logits.device)[tile.labels]
    weights = factors if tile.weights is None else factors * tile.weights
    return partial_state(replace(tile, weights=weights))


def _through(
    stages: tuple[Calibrator, ...], partial_state: Callable[[Tile], State], tile: Tile
) -> State:
    return partial_state(replace(tile, logits=_scores(stages, tile)))
