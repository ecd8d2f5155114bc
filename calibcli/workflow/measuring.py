"""Metrics of probabilities that some map makes of the data, several maps in one pass."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from operator import itemgetter
from typing import Any, Literal, TypeAlias, TypedDict

import numpy as np

from calibcli.arrays import (
    Array,
    NumpyArray,
    is_numpy_array,
    log_softmax,
    namespace,
    pick,
    to_numpy,
)
from calibcli.calibrators.base import Calibrator
from calibcli.calibrators.chain import calibrate, calibrate_by_value, for_rows
from calibcli.engine.counting import calibrated
from calibcli.engine.data import Data
from calibcli.engine.engine import Tile
from calibcli.engine.folds import CLUSTER, Folds
from calibcli.engine.kept_tiles import KeptOutputs
from calibcli.engine.machine import one_blas_thread
from calibcli.engine.source import Keys, each_key, names_of_keys
from calibcli.errors import DataError
from calibcli.metrics.counted_view import CountedView
from calibcli.metrics.pairing import RowsIdentity, hash_of_names
from calibcli.metrics.panel import Evaluation, Panel
from calibcli.metrics.resampling import Units
from calibcli.metrics.view import Event, View
from calibcli.value_counts import CountedScores, ValueBlock

MeasuredOn: TypeAlias = Literal["test", "cross-fit", "nothing"]
"""Rows that the fit has not seen: of a test input, or of the input fold by fold; or none."""

ID = "id"
"""Role of the key column that names the rows."""


class Predictor(ABC):
    """Makes calibrated logits of the rows of a tile."""

    @abstractmethod
    def __call__(self, tile: Tile) -> Array:
        """Calibrated logits (n, K)."""

    def label_log_probs(self, tile: Tile, view: View | None = None) -> NumpyArray:
        """The log-probabilities (n,), float64, of the labels; its ``view`` may be at hand."""
        if view is not None:
            return view.true_log_prob
        return to_numpy(pick(log_softmax(self(tile)), tile.labels)).astype(np.float64)

    @property
    def by_value(self) -> bool:
        """Whether there is `of_values`."""
        return False

    def of_values(self, tile: Tile) -> CountedScores:
        """The same of a tile that is `counted`."""
        raise NotImplementedError


@dataclass(frozen=True)
class Through(Predictor):
    """Calibrated logits, by the same stages for every row."""

    stages: tuple[Calibrator, ...] = ()

    def __call__(self, tile: Tile) -> Array:
        return calibrate(for_rows(self.stages, tile.keys), tile.logits)

    @property
    def by_value(self) -> bool:
        return all(stage.by_value for stage in self.stages)

    def of_values(self, tile: Tile) -> CountedScores:
        assert tile.counted is not None
        return calibrated(tile.counted, self.stages)


@dataclass(frozen=True)
class CrossFitted(Predictor):
    """Calibrated logits of each row, by the stages that were fitted without its fold.

    Parameters
    ----------
    by_fold : tuple of tuple of Calibrator
    split : Folds
    outputs : KeptOutputs
        Of the data whose tiles it is given: what it makes of them is kept there and not to be
        written into.
    """

    by_fold: tuple[tuple[Calibrator, ...], ...]
    split: Folds
    outputs: KeptOutputs = field(default_factory=KeptOutputs)

    @classmethod
    def of(cls, by_fold: tuple[tuple[Calibrator, ...], ...], data: Data) -> CrossFitted:
        """What was fitted without each fold of some data, for these."""
        return cls(by_fold, data.split, data.outputs)

    @property
    def by_value(self) -> bool:
        return all(stage.by_value for stages in self.by_fold for stage in stages)

    def of_values(self, tile: Tile) -> CountedScores:
        assert tile.counted is not None
        return tile.counted.after(partial(self._step, self.split.of(tile)))

    def _step(self, folds: NumpyArray, block: ValueBlock) -> NumpyArray:
        result = np.empty_like(block.values)
        for position, stages in enumerate(self.by_fold):
            rows = np.flatnonzero(folds[block.rows] == position)
            if len(rows):
                values, counts = block.values[rows], block.counts[rows]
                result[rows] = calibrate_by_value(stages, values, counts)
        return result

    def __call__(self, tile: Tile) -> Array:
        key = _Same(self.by_fold)
        return self.outputs.whole.of(key, tile.start, partial(self._logits, tile))

    def label_log_probs(self, tile: Tile, view: View | None = None) -> NumpyArray:
        make = partial(super().label_log_probs, tile, view)
        made: NumpyArray = self.outputs.labels.of(_Same(self.by_fold), tile.start, make)
        return made

    def _logits(self, tile: Tile) -> Array:
        logits = tile.logits
        fold = self.split.of(tile)
        result = namespace(logits).empty_like(logits)
        for position, stages in enumerate(self.by_fold):
            rows = np.flatnonzero(fold == position)
            if len(rows):
                keys = each_key(tile.keys, itemgetter(rows))
                result[rows] = calibrate(for_rows(stages, keys), logits[rows])
        if is_numpy_array(result):
            result.flags.writeable = False
        return result


@dataclass(frozen=True, eq=False)
class _Same:
    """A key that is equal where it holds the very same object."""

    held: object

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.held is other.held

    def __hash__(self) -> int:
        return id(self.held)


def measure(data: Data, predictors: Sequence[Predictor], panel: Panel) -> list[Evaluation]:
    """An evaluation for each predictor, from one pass over the data.

    Where the panel has a bootstrap, with intervals, and those of the differences from the first.
    """
    panel = resampled(panel, data)
    work, merge = partial(_states, tuple(predictors), panel), partial(_merge, panel)
    by_value = all(predictor.by_value for predictor in predictors)
    states = (data.fold_by_value if by_value else data.fold)(work, merge)
    # Linear algebra in one thread of each of ours: so any number of them gives the same bits.
    with one_blas_thread():
        return panel.finish_all(states, data.engine.spread)


def check_clusters(data: Data) -> None:
    """Refuse to hold out rows of which all belong together.

    Raises
    ------
    DataError
    """
    if data.clusters is not None and data.folds < 2:
        raise DataError("--cluster: all rows are in one cluster, so that none can be held out")


def clustered(panel: Panel, data: Data) -> Panel:
    """A panel whose bootstrap resamples the clusters, where the rows have any."""
    if panel.bootstrap is None or data.clusters is None:
        return panel
    return replace(panel, bootstrap=replace(panel.bootstrap, role=CLUSTER))


def resampled(panel: Panel, data: Data) -> Panel:
    """A panel for so many classes, which also folds what its intervals need, if it has a bootstrap.

    Raises
    ------
    DataError
        There is only one cluster.
    """
    panel = clustered(replace(panel, classes=data.classes), data)
    bootstrap = panel.bootstrap
    if bootstrap is None or not bootstrap.replicates:
        return panel
    count, role = data.rows, bootstrap.role
    if role is None and data.clusters is not None:
        role = CLUSTER  # rows that were made of one
    if role is not None:
        count = len(names_of_keys(data.source, (role,))[role])
        if count < 2:
            raise DataError("--cluster: all rows are in one cluster, so intervals mean nothing")
    units = Units(count, role, bootstrap.seed, bootstrap.replicates)
    return replace(panel, units=units, identity=_identity(panel, data, units))


def _identity(panel: Panel, data: Data, units: Units) -> RowsIdentity | None:
    """What tells the rows from others, if that is to be kept: without the columns of slices."""
    if not panel.recorded:
        return None
    known = getattr(data.source, "key_roles", ())
    names = names_of_keys(data.source, [role for role in (CLUSTER, ID) if role in known])
    hashes = tuple((role, hash_of_names(each)) for role, each in names.items())
    return RowsIdentity(units, hashes)


class _Place(TypedDict):
    """What a view knows of its rows beside scores, labels and weights."""

    start: int
    keys: Keys | None
    event: Event


def view_of(tile: Tile, predictor: Predictor, event: Event) -> View:
    """A block of rows with what a predictor makes of them; the confidence is of an event."""
    weights = None if tile.weights is None else to_numpy(tile.weights)
    place: _Place = {"start": tile.start, "keys": tile.keys, "event": event}
    if tile.counted is not None:
        return CountedView(predictor.of_values(tile), to_numpy(tile.labels), weights, **place)
    return View(predictor(tile), tile.labels, weights, **place)


def _states(predictors: tuple[Predictor, ...], panel: Panel, tile: Tile) -> list[Any]:
    first: View | None = None
    states = []
    for predictor in predictors:
        view = view_of(tile, predictor, panel.event)
        if panel.units is not None:
            view.first = first
            first = view if first is None else first
        states.append(panel.partial(view))
    return states


def _merge(panel: Panel, left: list[Any], right: list[Any]) -> list[Any]:
    return [panel.merge(a, b) for a, b in zip(left, right, strict=True)]
