"""What diagrams are drawn from, whoever draws them: bins, curve, classes and slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias, cast

import numpy as np

from calibcli.metrics.bins import EDGES
from calibcli.metrics.consistency import ConsistencyBand, CorpCurve, consistency_bars, corp_curve
from calibcli.metrics.diagrams import ClassDiagrams, Sums, bins_of
from calibcli.schema import EvaluateDocument, MeasurementPart, SlicePart, SlicesPart

Style: TypeAlias = Literal["binned", "corp"]
"""How reliability is drawn: 15 equal-width bins, or the CORP curve."""


_PART_DRAWS = 200


@dataclass(frozen=True, eq=False)
class Diagram:
    """The bins of a reliability diagram.

    Attributes
    ----------
    title : str
    bins : Sums
        Of the 15 bins (15,).
    bars : ConsistencyBand
        The consistency band of each bin (15,).
    """

    title: str
    bins: Sums
    bars: ConsistencyBand

    @property
    def shares(self) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """The share of the weight in each bin (15,); 0 where there is none at all."""
        total = float(self.bins.weight.sum())
        return self.bins.weight / total if total else np.zeros(len(EDGES) - 1)

    @property
    def rows(self) -> int:
        """The number of rows."""
        return int(self.bins.rows.sum())

    @property
    def error(self) -> float:
        """The ECE of the bins; NaN without rows."""
        total = float(self.bins.weight.sum())
        return float(self.bins.gap.sum()) / total if total else np.nan

    @property
    def excess(self) -> float:
        """Mean confidence minus accuracy; NaN without rows."""
        total = float(self.bins.weight.sum())
        return float((self.bins.confidence - self.bins.correct).sum()) / total if total else np.nan


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
    slices : Sums or None
        Of the bins of every slice (S, 15); None where the rows were not divided by a column.
    slice_names : tuple of str
        Of all S.
    """

    title: str
    part: MeasurementPart
    lattice: Sums
    classes: ClassDiagrams | None = None
    class_names: tuple[str, ...] | None = None
    seed: int = 0
    slices: Sums | None = None
    slice_names: tuple[str, ...] = ()

    @cached_property
    def diagram(self) -> Diagram:
        """The reliability diagram of all rows."""
        bins = bins_of(self.lattice)
        return Diagram(self.title, bins, consistency_bars(bins, self.seed))

    @cached_property
    def curve(self) -> CorpCurve:
        """The CORP curve of all rows, and its band."""
        return corp_curve(self.lattice, self.seed)

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
        bins = self.classes.bins.select(np.asarray(numbers, dtype=np.intp))
        return self._diagrams([self.class_name(number) for number in numbers], bins)

    def of_slices(self, names: Sequence[str]) -> list[Diagram]:
        """The diagrams of some slices; an empty one where there is no slice of a name."""
        assert self.slices is not None
        places = {name: place for place, name in enumerate(self.slice_names)}
        missing = len(places)
        index = np.array([places.get(name, missing) for name in names], dtype=np.intp)
        padded = Sums(*(np.pad(sums, ((0, 1), (0, 0))) for sums in vars(self.slices).values()))
        return self._diagrams(names, padded.select(index))

    def _diagrams(self, titles: Sequence[str], bins: Sums) -> list[Diagram]:
        """A diagram of each line of bins (n, 15)."""
        bars = consistency_bars(bins, self.seed, _PART_DRAWS)
        return [
            Diagram(title, bins.select(place), bars.select(place))
            for place, title in enumerate(titles)
        ]


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
