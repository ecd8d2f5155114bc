"""What diagrams are drawn from, whoever draws them: bins, curve, classes and slices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.cached import cached_property
from calibcli.metrics.bins import EDGES
from calibcli.metrics.consistency import ConsistencyBand, CorpCurve, consistency_bars, corp_curve
from calibcli.metrics.diagrams import (
    RARE,
    ClassDiagrams,
    EdgedSums,
    KeyBins,
    Sums,
    bins_of,
    pooled_by_mass,
    pooled_cells,
    rare_event_bins,
)
from calibcli.metrics.lattice import lattice_edges
from calibcli.visible import visible
from calibcli.workflow.texts import cut_inside

if TYPE_CHECKING:
    from calibcli.schema.documents import EvaluateDocument
    from calibcli.schema.parts import MeasurementPart, SlicePart, SlicesPart

Style: TypeAlias = Literal["binned", "corp"]
"""How reliability is drawn: by bins, or as the CORP curve."""

_PART_DRAWS = 200


_PER_DECADE = 4
"""Bars of a histogram, on a logarithmic axis."""

_LONGEST_EVENT = 24

_MOSTLY = 0.75
"""Where so much of the rows is rarer than `RARE`, axes are logarithmic."""

_LEAST_LOW, _MOST_LOW = 1e-6, 1e-2
"""Where a logarithmic axis may begin."""


@dataclass(frozen=True)
class Scale:
    """The axes of diagrams that are to be compared.

    Attributes
    ----------
    low, high : float
        Where both axes begin and end; a logarithmic one never begins at 0.
    """

    low: float = 0.0
    high: float = 1.0

    @property
    def is_logarithmic(self) -> bool:
        """Whether equal distances are equal ratios."""
        return self.low > 0

    @property
    def edges(self) -> NumpyArray:
        """The edges of the bars of a histogram, from the lowest to the highest."""
        if not self.is_logarithmic:
            return EDGES
        bars = round(_PER_DECADE * np.log10(self.high / self.low))
        return np.geomspace(self.low, self.high, bars + 1)


@dataclass(frozen=True, eq=False)
class Diagram:
    """The bins of a reliability diagram.

    Attributes
    ----------
    title : str
    edges : array (b + 1,)
    bins : Sums
        Of the bins (b,), 15 of equal width or at most 15 of equal mass.
    bars : ConsistencyBand
        The consistency band of each bin (b,).
    even : Sums
        Of the 15 bins of equal width.
    cells : Sums or None
        Of the cells of an event's lattice.
    """

    title: str
    edges: NumpyArray
    bins: Sums
    bars: ConsistencyBand
    even: Sums
    cells: Sums | None = None

    @property
    def shares(self) -> NumpyArray:
        """The share of the weight in each bin (b,); 0 where there is none at all."""
        return weight_shares(self.bins)

    @property
    def spans(self) -> tuple[NumpyArray, NumpyArray]:
        """Where each bin begins and ends (b,), as far as there are rows."""
        left, right = self.edges[:-1], self.edges[1:]
        if self.cells is not None and self.cells.filled.any():
            filled = np.flatnonzero(self.cells.filled)
            ends = lattice_edges(len(self.cells.weight))[[filled[0], filled[-1] + 1]]
            left, right = np.maximum(left, ends[0]), np.minimum(right, ends[1])
        return left, right

    @property
    def rows(self) -> int:
        """The number of rows."""
        return int(self.bins.rows.sum())

    @property
    def error(self) -> float:
        """The ECE, of bins of equal width; NaN without rows."""
        total = float(self.even.weight.sum())
        return float(self.even.gap.sum()) / total if total else np.nan

    @property
    def excess(self) -> float:
        """Mean confidence minus accuracy; NaN without rows."""
        total = float(self.bins.weight.sum())
        return float((self.bins.confidence - self.bins.correct).sum()) / total if total else np.nan

    def histogram(self, scale: Scale) -> EdgedSums:
        """Where the rows are: bars of equal width on the axis; the first has what is below it."""
        if not scale.is_logarithmic or self.cells is None:
            return EdgedSums(EDGES, self.even)
        # Edges of cells, so that every row is counted where it is.
        starts = np.searchsorted(lattice_edges(len(self.cells.weight)), scale.edges[1:-1])
        return pooled_cells(self.cells, np.unique(np.append(0, starts)))


def weight_shares(bins: Sums) -> NumpyArray:
    """The share of the weight in each bin (b,); 0 where there is none at all."""
    total = float(bins.weight.sum())
    shares: NumpyArray = bins.weight / total if total else np.zeros(len(bins.weight))
    return shares


@dataclass(frozen=True, eq=False)
class Picture:
    """A measurement, as diagrams show it.

    Attributes
    ----------
    title : str
        ``"before"``, ``"after"``, or the short name of an input.
    part : MeasurementPart
    lattice : Sums
        Of the cells of the confidence (3840,).
    classes : ClassDiagrams or None
        None where they were not asked for.
    class_names : tuple of str or None
    seed : int
    slices : KeyBins or None
        Of every slice; None where the rows were not divided by a column.
    slice_names : tuple of str
        Of all S.
    event : Sums or None
        Of the cells of the probability of the positive class (2048,); None where the confidence is
        that of the predicted class.
    design_effect : float
        As of `Evaluation`, for the bands.
    """

    title: str
    part: MeasurementPart
    lattice: Sums
    classes: ClassDiagrams | None = None
    class_names: tuple[str, ...] | None = None
    seed: int = 0
    slices: KeyBins | None = None
    slice_names: tuple[str, ...] = ()
    event: Sums | None = None
    design_effect: float = 1.0

    @property
    def positive(self) -> str | None:
        """The class whose probability the confidence is; None: the predicted one."""
        positive = self.part.get("positive")
        return visible(positive["name"]) if positive else None

    @cached_property
    def is_rare(self) -> bool:
        """Whether the positive class is so rare that bins have equal mass."""
        return rare_event_bins(self.event) is not None

    @cached_property
    def diagram(self) -> Diagram:
        """The reliability diagram of all rows, of the bins that the document has."""
        even = bins_of(self.lattice)
        edges, bins = rare_event_bins(self.event) or EdgedSums(EDGES, even)
        bars = consistency_bars(bins, self.seed, design_effect=self.design_effect)
        return Diagram(self.title, edges, bins, bars, even, self.event)

    @cached_property
    def curve(self) -> CorpCurve:
        """The CORP curve of all rows, and its band."""
        rare = self.event if self.is_rare else None
        cells = self.lattice if rare is None else rare
        return corp_curve(cells, self.seed, design_effect=self.design_effect)

    def metric(self, name: str) -> float | None:
        """The value of a metric, or None where it was not measured."""
        metric = self.part["metrics"].get(name)
        return metric["value"] if metric else None

    def slices_by_column(self) -> SlicesPart | None:
        """The slices by a column, if there are any."""
        # What was measured at once has its slices beside the metrics.
        parts = cast("EvaluateDocument", self.part).get("slices", [])
        return next((part for part in parts if part["column"] is not None), None)

    def class_name(self, number: int) -> str:
        """What a class is called; its number where it has no name."""
        return self.class_names[number] if self.class_names else str(number)

    def of_classes(self, numbers: Sequence[int]) -> list[Diagram]:
        """The diagrams of the rows that are predicted to be of some classes."""
        assert self.classes is not None
        even = self.classes.bins.select(np.asarray(numbers, dtype=np.intp))
        return self._diagrams([self.class_name(number) for number in numbers], even, None)

    def of_slices(self, names: Sequence[str]) -> list[Diagram]:
        """The diagrams of some slices; an empty one where there is no slice of a name."""
        assert self.slices is not None
        places = {name: place for place, name in enumerate(self.slice_names)}
        index = [places.get(name, len(places)) for name in names]
        padded = Sums(*(np.pad(sums, ((0, 1), (0, 0))) for sums in vars(self.slices.bins).values()))
        cells = self.slices.cells if self.is_rare else None
        return self._diagrams(
            names, padded.select(index), None if cells is None else [cells.of(k) for k in index]
        )

    def _diagrams(
        self, titles: Sequence[str], even: Sums, cells: Sequence[Sums] | None
    ) -> list[Diagram]:
        """A diagram of each line of bins (n, 15), or of the cells of each by bins of equal mass."""
        if cells is None:
            binned = [EdgedSums(EDGES, even.select(place)) for place in range(len(titles))]
        else:
            binned = [pooled_by_mass(of_title) for of_title in cells]
        if not binned:
            return []
        sums = [vars(bins).values() for _, bins in binned]
        joined = Sums(*map(np.concatenate, zip(*sums, strict=True)))
        bars = consistency_bars(joined, self.seed, _PART_DRAWS, self.design_effect)
        ends = np.cumsum([len(bins.rows) for _, bins in binned])
        return [
            Diagram(
                title,
                edges,
                bins,
                bars.select(slice(end - len(bins.rows), end)),
                even.select(place),
                None if cells is None else cells[place],
            )
            for place, (title, (edges, bins), end) in enumerate(
                zip(titles, binned, ends, strict=True)
            )
        ]


def axis_names(pictures: Sequence[Picture]) -> tuple[str, str]:
    """What the axes of all rows are called."""
    events = {picture.positive for picture in pictures}
    if events <= {None}:
        return "confidence", "accuracy"
    event = events.pop() if len(events) == 1 else None
    said = f"P({cut_inside(event, _LONGEST_EVENT)})" if event else "P(positive class)"
    return said, "observed share"


def bin_words(pictures: Sequence[Picture]) -> str:
    """How the bins of some measurements were made, for a legend."""
    rare = {picture.is_rare for picture in pictures}
    return "bins of equal mass" if rare == {True} else "bins" if len(rare) == 2 else "15 bins"


def common_scale(pictures: Sequence[Picture], diagrams: Sequence[Diagram] = ()) -> Scale:
    """The axes of some measurements, and of further diagrams of their rows.

    They are logarithmic where in some measurement of a rare event most rows have probabilities
    below `RARE`, and end there where all have, and the event comes no more often in any bin.
    """
    events = [picture.event for picture in pictures if picture.event is not None]
    is_rare = all(picture.is_rare for picture in pictures)
    if not is_rare or max(map(_share_below, events)) < _MOSTLY:
        return Scale()
    drawn = [picture.diagram for picture in pictures]
    drawn_bins = [one.bins.select(one.bins.filled) for one in (*drawn, *diagrams) if one.rows]
    lowest = min(float(bins.mean_confidence.min()) for bins in drawn_bins)
    exponent = math.floor(math.log10(max(lowest, _LEAST_LOW)) + 1e-9)
    ends = [float(cells.mean_confidence[cells.filled].max()) for cells in events]
    ends += [float(bins.accuracy.max()) for bins in drawn_bins]
    return Scale(min(10.0**exponent, _MOST_LOW), RARE if max(ends) <= RARE else 1.0)


def _share_below(cells: Sums) -> float:
    """The share of the weight whose probability of a rare event is below `RARE`."""
    below = cells.confidence < RARE * cells.weight
    return float(cells.weight[below].sum()) / float(cells.weight.sum())


@dataclass(frozen=True)
class Multiple:
    """One of several small diagrams: the same rows of every measurement, under one title."""

    title: str
    diagrams: tuple[Diagram, ...]


def worst_classes(pictures: Sequence[Picture], most: int) -> list[int]:
    """All classes where they are not more than ``most``, as they are numbered.

    Otherwise those that add most to the last measurement's top-label error, worst first.
    """
    classes = pictures[-1].classes
    assert classes is not None
    if classes.classes <= most:
        return list(range(classes.classes))
    gap = classes.bins.gap.sum(axis=1)
    worst: list[int] = np.argsort(-gap, kind="stable")[:most].tolist()
    return worst


def worst_slices(pictures: Sequence[Picture], most: int) -> list[str]:
    """The names of the last measurement's slices by a column, the worst first."""
    return [entry["name"] for entry in _slice_entries(pictures)[:most]]


def count_slices(pictures: Sequence[Picture]) -> int:
    """How many slices by a column the last measurement has."""
    return len(_slice_entries(pictures))


def _slice_entries(pictures: Sequence[Picture]) -> Sequence[SlicePart]:
    part = pictures[-1].slices_by_column()
    return part["slices"] if part else []


def slice_multiples(pictures: Sequence[Picture], most: int) -> list[Multiple]:
    """Small diagrams of the slices, the worst first."""
    names = worst_slices(pictures, most)
    diagrams = [picture.of_slices(names) for picture in pictures]
    return [Multiple(of_slice[-1].title, of_slice) for of_slice in zip(*diagrams, strict=True)]


def class_multiples(pictures: Sequence[Picture], most: int) -> list[Multiple]:
    """Small diagrams of the classes, or of the worst of them."""
    diagrams = [picture.of_classes(worst_classes(pictures, most)) for picture in pictures]
    return [Multiple(of_class[-1].title, of_class) for of_class in zip(*diagrams, strict=True)]
