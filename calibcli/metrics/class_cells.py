"""Residuals by class and bin of a class's probability, and what chance makes of errors by class.

By class, bin and bag of rows, residuals are summed: those of the labels, and those of labels that
are drawn from the probabilities. `ClassNorm` is the resampling of an error that is a norm of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from calibcli.arrays import (
    Array,
    NumpyArray,
    is_by_class,
    is_numpy_array,
    namespace,
    to_numpy,
)
from calibcli.metrics.base import Metric
from calibcli.metrics.bins import BINS, bin_index, edges_of
from calibcli.metrics.drawn_labels import drawn_labels
from calibcli.metrics.error_intervals import (
    EndOfInterval,
    NormSample,
    blocks_of,
    less_noise,
    pooled,
    pooled_smoothly,
)
from calibcli.metrics.lattice import CellSums
from calibcli.metrics.pairing import MOST_VALUES, Recorded, change_by_spread
from calibcli.metrics.resampling import LEVEL, Bagged, Chance, Interval, Units, percentiles
from calibcli.metrics.residual_cells import OTHER_STREAM, CellResiduals
from calibcli.metrics.view import View

THRESHOLD = 0.01
"""Probabilities up to this count for nothing in the thresholded error."""

_MOST_SUMS = 1 << 22
"""Sums by set of labels, bag, class and bin in all; of many classes there are fewer."""

BAGS_OF_CLASSES, FEWEST_BAGS = 32, 16
"""Bags of rows of which each replicate has one of the sets of labels."""

_MOST_SETS, _FEWEST_SETS = 16, 4
_MANY_ROWS = 1 << 14
"""So many rows have noise enough in the fewest sets."""

_MOST_REPLICATES = 600
_MOST_NOISE = 1 << 21
"""Residuals of all replicates, unless more replicates are asked for."""

Forecasts: TypeAlias = Literal["all", "thresholded", "predicted"]
"""Which probabilities: of all classes, those above the threshold, or of the predicted class."""


class Labels(NamedTuple):
    """Labels that are forecasts: row, class and probability of each."""

    rows: NumpyArray
    classes: NumpyArray
    probability: NumpyArray


@dataclass(frozen=True)
class ClassCells(CellResiduals):
    """Residuals by class and equal-width bin of a class's probability; of cells (m,) with weight.

    Attributes
    ----------
    drawn : float32 array (D, B, m)
        Sums of residuals of the sets of labels that are drawn from the probabilities.
    codes : int array (m,)
        ``bins`` x class + bin of each cell.
    classes, rows, bins : int
    paired : PairedSums or None
        Of another model than the first of the same rows.
    """

    drawn: NumpyArray
    codes: NumpyArray
    classes: int
    rows: int
    bins: int
    paired: PairedSums | None = None

    @property
    def class_of(self) -> NumpyArray:
        """The class (m,) of each cell."""
        classes: NumpyArray = self.codes // self.bins
        return classes

    @property
    def bin_of(self) -> NumpyArray:
        """The bin (m,) of each cell."""
        bins: NumpyArray = self.codes % self.bins
        return bins

    @cached_property
    def variance(self) -> NumpyArray:
        """The variance (m,) of the residuals, if the model is calibrated."""
        by_rows: NumpyArray = self.squared_weight * self.mean * (1 - self.mean)
        return by_rows * self.design_effect

    @cached_property
    def design_effect(self) -> float:
        """The variance of the residuals relative to that of rows by themselves; 1 at least.

        All cells together, as far as bags of clusters differ.
        """
        if self.units.role is None or self.units.count >= self.rows or self.filled < 2:
            return 1.0
        apart = self.excess - self.bags[:, None] / self.bags.sum() * self.residuals
        variance = float((apart**2).sum()) * self.filled / (self.filled - 1)
        by_rows = float((self.squared_weight * self.mean * (1 - self.mean)).sum())
        return max(variance / by_rows, 1.0) if by_rows > 0 else 1.0

    @cached_property
    def effective_rows(self) -> NumpyArray:
        """Independent rows (m,) without weights that have as much noise as those of a cell."""
        rows: NumpyArray = self.weight**2 / (self.squared_weight * self.design_effect)
        return rows

    @cached_property
    def noise(self) -> NumpyArray:
        """Residuals (R, m), float32, of labels drawn from the probabilities.

        A replicate has one of the sets of labels in each bag, so that a row that is wrong moves all
        the cells that it is in.
        """
        return self.noise_of(self.drawn)

    def noise_of(self, drawn: NumpyArray) -> NumpyArray:
        """The noise (R, m) of other sets of labels (D, B, m), in the same choice of them."""
        sets, bags, cells = drawn.shape
        most = min(_MOST_REPLICATES, _MOST_NOISE // (self.bins * self.classes))
        replicates = max(self.units.replicates, most)
        generator = np.random.Generator(np.random.Philox(key=self.units.seed + OTHER_STREAM))
        chosen = generator.integers(0, sets, (replicates, bags)) * bags + np.arange(bags)
        takes = np.zeros((replicates, sets * bags), dtype=np.float32)
        takes[np.arange(replicates)[:, None], chosen] = math.sqrt(self.design_effect)
        noise: NumpyArray = takes @ drawn.reshape(-1, cells)
        return noise

    @property
    def tail(self) -> float:
        """The share of replicates to leave out at each end: Student's where clusters are few."""
        return super().tail if self.design_effect > 1 else (1 - LEVEL) / 2


class PairedSums(NamedTuple):
    """What is known of two models of the same rows, sums by bag, class and bin (B, b K).

    Attributes
    ----------
    here : array
        Of weight x (probability - the first model's), in the cells of this model.
    there : array
        The negative, in the cells of the first.
    drawn : CellSums or float32 array (D, B, m)
        By set and bag, in the cells of this model: the weight of labels that are drawn from the
        first model's probabilities; when finished, the residuals of those labels.
    """

    here: NumpyArray
    there: NumpyArray
    drawn: Any


class ClassBagSums(NamedTuple):
    """Sums by bag, class and bin, and totals by class and bin.

    Attributes
    ----------
    rows : int
    bags : array (B,)
        Weight of the rows of each bag.
    columns : array (B, K) or None
        Sums of weight x probability of the first bin, where those are wanted.
    excess : CellSums
        Residuals by bag, class and bin; without ``columns``.
    probability : CellSums
        Weight x probability by bag, class and bin; without ``columns``.
    drawn : CellSums
        By set, bag, class and bin: the weight of labels drawn from the probabilities.
    totals : tuple of CellSums
        By class and bin: weight and its square, without the first bin where there are ``columns``.
    squared_weight : float
        Sum over all rows.
    """

    rows: int
    bags: NumpyArray
    columns: NumpyArray | None
    excess: CellSums
    probability: CellSums
    drawn: CellSums
    totals: tuple[CellSums, CellSums]
    squared_weight: float
    paired: PairedSums | None


@dataclass(frozen=True)
class ClassBags:
    """The statistic: by bag, class and equal-width bin of a class's probability, its residuals.

    And those of labels that are drawn from the probabilities, several sets of them: a row's label
    is drawn by its number, the same one whatever the blocks, and much the same one for models that
    are much the same. ``merge`` takes over its left argument.
    """

    units: Units
    forecasts: Forecasts = "all"
    bins: int = BINS

    def sets_and_bags(self, classes: int) -> tuple[int, int]:
        """The numbers of sets and of bags, such that there are not too many sums."""
        room = _MOST_SUMS // (self.bins * classes)
        most = BAGS_OF_CLASSES if room >= BAGS_OF_CLASSES * _FEWEST_SETS else FEWEST_BAGS
        bags = self.units.bags(most)
        sets = _MOST_SETS if self.units.count <= _MANY_ROWS else _FEWEST_SETS
        return min(sets, room // bags), bags

    def partial(self, view: View) -> ClassBagSums | None:
        """The sums over one block; None of so many classes that there are too few sets."""
        sets, bags = self.sets_and_bags(view.classes)
        if sets < _FEWEST_SETS:
            return None
        row_bags = self.units.bags_of(view, bags)
        rows, columns, values = self._forecasts(view)
        mass = view.weights[rows] * values
        cells, each = self._cells(columns, values), view.classes * self.bins
        codes = row_bags[rows] * each + cells
        labels = self._among_forecasts(view, view.labels, view.true_prob)
        first = None
        if self.forecasts == "all":
            beyond = np.bincount(
                row_bags[rows] * view.classes + columns, mass, minlength=bags * view.classes
            )
            first = column_sums(view, row_bags, bags) - beyond.reshape(bags, -1)
        label_cells = self._cells(labels.classes, labels.probability)
        label_codes = row_bags[labels.rows] * each + label_cells
        return ClassBagSums(
            len(view),
            np.bincount(row_bags, view.weights, minlength=bags),
            first,
            CellSums.of(
                np.append(codes, label_codes),
                np.append(mass, -view.weights[labels.rows]),
                bags * each,
            ),
            CellSums.of(codes, mass, bags * each),
            self._drawn(view, view, row_bags),
            (
                CellSums.of(cells, view.weights[rows], each),
                CellSums.of(cells, view.weights[rows] ** 2, each),
            ),
            float((view.weights**2).sum()),
            self._paired(view, row_bags),
        )

    def _drawn(self, view: View, model: View, row_bags: NumpyArray) -> CellSums:
        """The weight of labels drawn from a model's probabilities, by set, bag, class and bin."""
        sets, bags = self.sets_and_bags(view.classes)
        each = view.classes * self.bins
        codes, weights = [], []
        for number, labels in enumerate(drawn_labels(model, self.units.seed, sets)):
            drawn = self._among_forecasts(view, labels, view.probability_of(labels))
            cells = self._cells(drawn.classes, drawn.probability)
            codes.append((number * bags + row_bags[drawn.rows]) * each + cells)
            weights.append(view.weights[drawn.rows])
        return CellSums.of(np.concatenate(codes), np.concatenate(weights), sets * bags * each)

    def _paired(self, view: View, row_bags: NumpyArray) -> PairedSums | None:
        if view.first is None:
            return None
        here = self._apart(view, view.first, row_bags)
        there = self._apart(view.first, view, row_bags)
        return PairedSums(here, there, self._drawn(view, view.first, row_bags))

    def _apart(self, view: View, other: View, row_bags: NumpyArray) -> NumpyArray:
        """Sums (B, b K) of weight x (probability - another model's), in the cells of a view."""
        rows, columns, values = self._forecasts(view)
        _, bags = self.sets_and_bags(view.classes)
        more = view.weights[rows] * (values - elements_at(other.probs, rows, columns))
        size, starts = view.classes * self.bins, row_bags[rows]
        codes = starts * size + self._cells(columns, values)
        sums = np.bincount(codes, more, bags * size).reshape(bags, size)
        if self.forecasts == "all":
            codes = starts * view.classes + columns
            beyond = np.bincount(codes, more, bags * view.classes).reshape(bags, -1)
            difference = column_sums(view, row_bags, bags) - column_sums(other, row_bags, bags)
            sums[:, :: self.bins] += difference - beyond
        return sums

    def merge(self, left: ClassBagSums | None, right: ClassBagSums | None) -> ClassBagSums | None:
        if left is None or right is None:
            return None
        first = left.columns
        if first is not None:
            first += right.columns
        weight, squares = (a.plus(b) for a, b in zip(left.totals, right.totals, strict=True))
        return ClassBagSums(
            left.rows + right.rows,
            left.bags + right.bags,
            first,
            left.excess.plus(right.excess),
            left.probability.plus(right.probability),
            left.drawn.plus(right.drawn),
            (weight, squares),
            left.squared_weight + right.squared_weight,
            _paired_plus(left.paired, right.paired),
        )

    def finish(self, state: ClassBagSums | None) -> ClassCells | None:
        """The sums of the cells that are not empty."""
        if state is None:
            return None
        bags = len(state.bags)
        excess = state.excess.everywhere().reshape(bags, -1)
        probability = state.probability.everywhere().reshape(bags, -1)
        weight, squares = (each.everywhere() for each in state.totals)
        if state.columns is not None:
            excess[:, :: self.bins] += state.columns
            probability[:, :: self.bins] += np.maximum(state.columns, 0.0)
            in_others = weight.reshape(-1, self.bins).sum(axis=1)
            # Rounding leaves some of those above the edge in the first bin.
            in_first = np.maximum(state.bags.sum() - in_others, 0.0)
            weight[:: self.bins] += in_first
            squares[:: self.bins] += in_first * (state.squared_weight / state.bags.sum())
        (codes,) = np.nonzero(weight > 0)
        drawn = state.drawn.everywhere().reshape(-1, bags, len(weight))
        paired = state.paired
        if paired is not None:
            by_bag = probability[:, codes] - paired.here[:, codes]
            labels = paired.drawn.everywhere().reshape(-1, bags, len(weight))
            paired = paired._replace(
                drawn=np.subtract(by_bag, labels[:, :, codes], dtype=np.float32)
            )
        return ClassCells(
            units=self.units,
            bags=state.bags,
            weight=weight[codes],
            squared_weight=squares[codes],
            probability=probability.sum(axis=0)[codes],
            excess=excess[:, codes],
            drawn=np.subtract(probability[:, codes], drawn[:, :, codes], dtype=np.float32),
            codes=codes,
            classes=len(weight) // self.bins,
            rows=state.rows,
            bins=self.bins,
            paired=paired,
        )

    def _cells(self, classes: NumpyArray, probability: NumpyArray) -> NumpyArray:
        """The cells (m,) of probabilities of some classes: b x class + bin."""
        cells: NumpyArray = classes * self.bins + bin_index(probability, self.bins)
        return cells

    def _forecasts(self, view: View) -> tuple[NumpyArray, NumpyArray, NumpyArray]:
        """Row, class and value of the probabilities; of ``"all"`` those beyond the first bin."""
        if self.forecasts == "predicted":
            return np.arange(len(view)), view.prediction, view.top_confidence
        threshold = THRESHOLD if self.forecasts == "thresholded" else float(edges_of(self.bins)[1])
        return elements_above(view.probs, threshold)

    def _among_forecasts(self, view: View, labels: NumpyArray, probs: NumpyArray) -> Labels:
        """Those of labels (n,), with their probabilities (n,), that are forecasts."""
        if self.forecasts == "predicted":
            (rows,) = np.nonzero(view.prediction == labels)
            return Labels(rows, labels[rows], view.top_confidence[rows])
        (rows,) = np.nonzero(probs > (THRESHOLD if self.forecasts == "thresholded" else 0))
        return Labels(rows, labels[rows], probs[rows])


def _paired_plus(left: PairedSums | None, right: PairedSums | None) -> PairedSums | None:
    if left is None or right is None:
        return None
    here, there = left.here + right.here, left.there + right.there
    return PairedSums(here, there, left.drawn.plus(right.drawn))


def elements_above(probs: Array, threshold: float) -> tuple[NumpyArray, NumpyArray, NumpyArray]:
    """Row, class and value (float64) of every probability above a threshold, as host vectors."""
    xp = namespace(probs)
    turned = is_numpy_array(probs) and probs.flags.f_contiguous
    # One axis in the order of memory: NumPy finds the true ones of a vector fastest.
    flat = xp.reshape(probs.T if turned else probs, (-1,))
    (places,) = xp.nonzero(flat > _largest_below_edge(probs, threshold))
    values = to_numpy(xp.take(flat, places)).astype(np.float64)
    index, length = to_numpy(places), probs.shape[0 if turned else 1]
    outer = index // length
    inner = index - outer * length
    return (inner, outer, values) if turned else (outer, inner, values)


def _largest_below_edge(probs: Array, edge: float) -> float:
    """The largest number of the array's precision that is not above a float64 edge.

    Comparing float32 probabilities with 1/15 itself would round 1/15 up and lose an element.
    """
    if namespace(probs).finfo(probs.dtype).bits > 32:
        return edge
    nearest = np.float32(edge)
    return float(nearest if float(nearest) <= edge else np.nextafter(nearest, np.float32(0)))


def elements_at(probs: Array, rows: NumpyArray, columns: NumpyArray) -> NumpyArray:
    """Elements (m,), float64 on the host, of a matrix on any device."""
    xp = namespace(probs)
    device = getattr(probs, "device", None)
    index = (xp.asarray(rows, device=device), xp.asarray(columns, device=device))
    return to_numpy(probs[index]).astype(np.float64)


def column_sums(view: View, bags: NumpyArray, count: int) -> NumpyArray:
    """Sums (count, K) of weight x probability over the rows of each bag, float64; kept."""
    key = ("columns", count)
    if key not in view.kept:
        view.kept[key] = _column_sums(view, bags, count)
    return view.kept[key]


def _column_sums(view: View, bags: NumpyArray, count: int) -> NumpyArray:
    probs = view.probs
    if is_by_class(probs):
        columns = probs.T * view.weights if view.weighted else probs.T
        return np.stack([np.bincount(bags, c, minlength=count) for c in columns], axis=1)
    if is_numpy_array(probs):
        order = np.argsort(bags, kind="stable")
        ordered = probs[order]
        if view.weighted:
            ordered *= view.weights[order, None].astype(ordered.dtype)
        sums = np.zeros((count, view.classes))
        starts = np.flatnonzero(np.diff(bags[order], prepend=-1))
        sums[bags[order][starts]] = np.add.reduceat(ordered, starts, axis=0)
        return sums
    xp = namespace(probs)
    members = np.zeros((count, len(view)))
    members[bags, np.arange(len(view))] = view.weights
    device = getattr(probs, "device", None)
    return to_numpy(xp.asarray(members, dtype=probs.dtype, device=device) @ probs).astype(
        np.float64
    )


@dataclass(frozen=True)
class ClassSample(NormSample):
    r"""A calibration error by class, with the noise of labels drawn from probabilities.

    Those are the model's less what the signal says that they are off by. The noise is that of the
    model's own, each cell's scaled by its standard deviation, and centred at the exact mean of the
    \|residual\| of a binomial: cells of a few rows do not scale.

    Attributes
    ----------
    cells : ClassCells
    shares : array (m,)
        What each cell's \|residual\| counts.
    signals, tail, unseen
        As of `NormSample`.
    """

    cells: ClassCells
    shares: NumpyArray
    signals: NumpyArray
    tail: float
    unseen: float = 0.0

    @cached_property
    def value(self) -> float:
        """The error of the rows."""
        return float(np.abs(self.cells.residuals) @ self.shares)

    def error(self, signal: NumpyArray) -> float:
        """The error of a signal (m,) without noise."""
        return float(np.abs(self._possible(signal)) @ self.shares)

    def _possible(self, signals: NumpyArray) -> NumpyArray:
        """Signals (..., m) as far as labels allow them: a class comes true in 0 to all rows.

        A multiple of a faint signal would otherwise claim errors that no labels can have.
        """
        cells = self.cells
        return np.clip(signals, cells.probability - cells.weight, cells.probability)

    @cached_property
    def interval(self) -> Interval:
        """As of `NormSample`, and of a model that is all but sure at least what rows vary by.

        Labels that are drawn from its probabilities hardly vary, however often it is wrong.
        """
        interval = super().interval
        spread = self._spread_of_bags
        if spread <= _SCALES[1] * float(self.simulated.std()):
            return interval
        reach = _DEVIATIONS * spread
        low, high = min(interval.low, self.estimate - reach), max(interval.high, self.value + reach)
        return Interval(max(low, 0.0), high)

    @property
    def _spread_of_bags(self) -> float:
        """The standard deviation of the error, as far as its sums differ from bag to bag."""
        cells = self.cells
        if cells.filled < 2:
            return 0.0
        apart = cells.excess - cells.bags[:, None] / cells.bags.sum() * cells.residuals
        moves = apart @ (np.sign(cells.residuals) * self.shares)
        return math.sqrt(float((moves**2).sum()) * cells.filled / (cells.filled - 1))

    @property
    def sums(self) -> NumpyArray:
        """The residuals (m,)."""
        return self.cells.residuals

    @property
    def noise_of_sums(self) -> NumpyArray:
        """Their noise (R, m), if the model is calibrated."""
        return self.cells.noise

    @cached_property
    def by_chance(self) -> NumpyArray:
        """Errors (R,) of labels that are drawn from the model's probabilities."""
        cells = self.cells
        nothing = np.zeros_like(cells.mean)
        return self._errors(nothing, cells.noise, cells.mean, nothing)

    @property
    def is_paired(self) -> bool:
        """Whether the rows were seen together with those of the first model."""
        return self.cells.paired is not None

    def apart_from(self, first: ClassSample) -> tuple[NumpyArray, NumpyArray]:
        """How far this model's probabilities are apart from the first; see `NormSample`."""
        paired, takes = self.cells.paired, self.cells.draws()
        assert paired is not None
        return takes @ paired.here[:, self.cells.codes], takes @ paired.there[:, first.cells.codes]

    def simulated_with(self, before: ClassSample) -> tuple[NumpyArray, NumpyArray]:
        """Errors (R,) of two models with the same noise; see `NormSample`.

        Labels are drawn from the first model's probabilities. With other rows the models would be
        apart by more or less; where the truth lies between them says how much of that is whose.
        """
        cells, paired = self.cells, self.cells.paired
        assert paired is not None
        here, there = paired.here[:, cells.codes], paired.there[:, before.cells.codes]
        between, back = here.sum(axis=0), there.sum(axis=0)
        place = self._place(before, back, between)
        takes = cells.draws(len(cells.noise)) - 1.0
        of_first = np.clip((cells.probability - between) / cells.weight, 0.0, 1.0)
        one = before._errors(
            before.multiples.at(before.likeliest),
            before.cells.noise + (place * takes) @ there,
            before.cells.mean,
            before.off,
        )
        other = self._errors(
            self.multiples.at(self.likeliest),
            cells.noise_of(paired.drawn) + ((1 - place) * takes) @ here,
            of_first,
            self.off,
        )
        return one, other

    def _place(self, before: ClassSample, back: NumpyArray, between: NumpyArray) -> float:
        """Where the truth most likely is between the models (0: the first), by least squares."""
        here, there = self.cells, before.cells
        sides = ((there, back, there.residuals), (here, -between, here.residuals - between))
        weight = product = 0.0
        for cells, direction, target in sides:
            inverse = 1 / np.maximum(cells.variance, _LEAST_VARIANCE * cells.weight)
            weight += float((inverse * direction**2).sum())
            product += float((inverse * direction * target).sum())
        return min(max(product / weight, 0.0), 1.0) if weight > 0 else 0.5

    @cached_property
    def off(self) -> NumpyArray:
        """The error (m,) of each probability, as far as chance does not explain it."""
        return self._possible(explained(self.cells)) / self.cells.weight

    def norms(self, signals: NumpyArray) -> NumpyArray:
        """The errors (R,) of signals (R, m) without noise."""
        errors: NumpyArray = np.abs(signals) @ self.shares
        return errors

    def errors(self, signal: NumpyArray, end: EndOfInterval = "middle") -> NumpyArray:
        """The error of a signal (m,) with noise, in every replicate (R,); see `NormSample`.

        The noise is that of labels from the model's probabilities less what they are off by: less
        the signal itself, all that was found, or what of this chance does not explain.
        """
        off = self.off
        if end != "middle":
            off = self._possible(signal if end == "low" else self.signals[0]) / self.cells.weight
        return self._errors(signal, self.cells.noise, self.cells.mean, off)

    def _errors(
        self, signal: NumpyArray, noise: NumpyArray, drawn_from: NumpyArray, off: NumpyArray
    ) -> NumpyArray:
        """The error with noise that is scaled, of labels drawn from other probabilities (m,).

        To be that of labels drawn from the model's less what they are ``off`` by.
        """
        cells = self.cells
        signal = self._possible(signal)
        true = np.clip(cells.mean - off, 0.0, 1.0)
        # The square is for rows of a cell that are off by more than others.
        variance = true * (1 - true) + off**2
        by_model = np.maximum(drawn_from * (1 - drawn_from), _LEAST_VARIANCE)
        scale = np.clip(np.sqrt(variance / by_model), *_SCALES)
        shift, factor = signal.astype(np.float32), scale.astype(np.float32)
        shares = self.shares.astype(np.float32)
        errors = np.concatenate(
            [np.abs(noise[block] * factor + shift) @ shares for block in blocks_of(*noise.shape)]
        ).astype(np.float64)
        compared = true + signal / cells.weight
        inside = np.clip(compared, 0.0, 1.0)
        exact = mean_deviations(cells.effective_rows, inside, true, variance)
        exact += np.abs(compared - inside)
        centred: NumpyArray = errors - errors.mean() + float((exact * cells.weight) @ self.shares)
        return centred


def explained(cells: ClassCells) -> NumpyArray:
    """The residuals (m,) less what chance explains: of all classes together, and of each."""
    bins = cells.bin_of
    alike = pooled_smoothly(cells.residuals, cells.weight, bins, cells.variance)
    return alike + less_noise(cells.residuals - alike, cells.variance)


_LEAST_VARIANCE = 1e-12
_SCALES = 0.1, 4.0
_DEVIATIONS = 1.96
_FEW = 30.0
"""A binomial with fewer expected is not taken for normal."""

_TOGETHER = 256
"""Cells whose binomials are summed at once."""


def mean_deviations(
    rows: NumpyArray, mean: NumpyArray, true: NumpyArray, variance: NumpyArray
) -> NumpyArray:
    r"""The mean (m,) of \|share that comes true - mean\| over labels with true probabilities.

    Exact where fewer than 30 of the rows are expected on either side, else that of a normal
    distribution.

    Parameters
    ----------
    rows : array (m,)
        Not whole where rows have weights.
    mean, true : array (m,)
        Probabilities: those that are compared, and those of the labels.
    variance : array (m,)
        Of a row.
    """
    few = rows * np.minimum(true, 1 - true) < _FEW
    deviations = np.empty_like(mean)
    deviations[few] = _of_binomials(rows[few], mean[few], true[few])
    n, shift = rows[~few], (mean - true)[~few]
    deviation = np.sqrt(np.maximum(variance[~few], _LEAST_VARIANCE) / n)
    z = shift / deviation
    density = np.exp(-0.5 * z * z) * math.sqrt(2 / math.pi)
    # SciPy has this for arrays, and its import would take longer than a table of small data.
    inside = np.array([math.erf(each) for each in (z / math.sqrt(2)).tolist()])
    deviations[~few] = deviation * (density + z * inside)
    return deviations


def _of_binomials(rows: NumpyArray, mean: NumpyArray, true: NumpyArray) -> NumpyArray:
    r"""The mean (m,) of \|X / rows - mean\| of binomials X, of which few are expected on a side."""
    swapped = true > 0.5
    rare, compared = np.where(swapped, 1 - true, true), np.where(swapped, 1 - mean, mean)
    expected = rows * rare
    # What is above a binomial's mean by 8 standard deviations has no probability to speak of.
    last = np.floor(np.minimum(rows * compared, expected + 8 * np.sqrt(expected) + 10))
    below = np.empty_like(mean)
    # E|X - a| = E X - a + 2 E max(a - X, 0), and the last is a short sum. Cells of the same length
    # go together.
    for places in np.array_split(np.argsort(last), len(last) // _TOGETHER + 1):
        n, p, a = (values[places, None] for values in (rows, rare, compared))
        k = np.arange(last[places].max(initial=0.0) + 1)
        shares = np.empty((len(places), len(k)))
        shares[:, :1] = np.exp(n * np.log1p(-p))
        shares[:, 1:] = (n - k[:-1]) / k[1:] * (p / (1 - p))
        np.cumprod(shares, axis=1, out=shares)
        below[places] = (np.maximum(a - k / n, 0.0) * shares).sum(axis=1)
    deviations: NumpyArray = rare - compared + 2 * below
    return deviations


@dataclass(frozen=True)
class ClassNorm:
    r"""The resampling of a calibration error that is a norm of residuals by class and bin.

    Attributes
    ----------
    forecasts : str
        Which probabilities it looks at.
    shares : callable
        Cells -> what each cell's \|residual\| counts (m,); a function of a module.
    bins : int
        Their number.
    """

    forecasts: Forecasts
    shares: Callable[[ClassCells], NumpyArray]
    bins: int = BINS

    description = "inverted test of the error; noise and chance range by labels drawn anew"

    def statistic(self, metric: Metric, units: Units) -> ClassBags:
        """The residuals by bag, class and bin."""
        return ClassBags(units, self.forecasts, self.bins)

    def sample(self, metric: Metric, cells: ClassCells, value: float) -> ClassSample:
        """The error, and the noise of labels that are drawn from the probabilities.

        Without noise the residuals may be much as they are, or as if all classes were off alike, as
        far as chance explains it or not.
        """
        residuals, bins = cells.residuals, cells.bin_of
        alike = pooled(residuals, cells.weight, bins)
        signals = [alike + less_noise(residuals - alike, cells.variance), alike]
        smooth = pooled_smoothly(residuals, cells.weight, bins, cells.variance)
        if smooth.any():
            signals.append(smooth)
        shares = self.shares(cells)
        # What one class lacks another one has too much of.
        by_class = np.sort(np.bincount(cells.class_of, cells.weight * shares))
        unseen = cells.unseen_share * float(by_class[-2:].sum())
        return ClassSample(cells, shares, np.stack(signals), cells.tail, unseen)

    def chance(self, metric: Metric, cells: ClassCells) -> Chance:
        """The error of labels that are drawn from the probabilities."""
        errors = self.sample(metric, cells, math.nan).by_chance
        return Chance(float(errors.mean()), *percentiles(errors, cells.tail))

    def record(self, finished: ClassCells, sample: ClassSample) -> NumpyArray:
        """The errors with the noise of drawn labels, if the likeliest signal is the truth."""
        return sample.simulated[:MOST_VALUES]

    def change(self, metric: Metric, now: Recorded, then: Recorded, bagged: Bagged) -> Interval:
        """The interval of the difference of two errors, by those with labels of the same draws."""
        return change_by_spread(now, then)
