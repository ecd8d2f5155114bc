"""Which axes of an array of scores are classes and members: what the shape of its labels proves."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from calibcli.arrays import NumpyArray


@dataclass(frozen=True)
class Geometry:
    """The axes of an array of scores.

    Attributes
    ----------
    shape : tuple of int
    classes : int or None
        The axis of the classes; None where each place has one score, that of class 1.
    members : int or None
        The axis of the members of an ensemble.
    """

    shape: tuple[int, ...]
    classes: int | None
    members: int | None = None

    @property
    def places(self) -> tuple[int, ...]:
        """The axes that remain, in order: a row of the table is one place on them."""
        taken = (self.classes, self.members)
        return tuple(axis for axis in range(len(self.shape)) if axis not in taken)

    @property
    def place_shape(self) -> tuple[int, ...]:
        """The lengths of these axes."""
        return tuple(self.shape[axis] for axis in self.places)

    @property
    def single_shape(self) -> tuple[int, ...] | None:
        """The shape of labels that have the axis of the classes, of length 1."""
        if self.classes is None:
            return None
        kept = [axis for axis in range(len(self.shape)) if axis != self.members]
        return tuple(1 if axis == self.classes else self.shape[axis] for axis in kept)

    @property
    def has_images(self) -> bool:
        """Whether the first axis of the array are images, each of which can be read alone."""
        return self.places[0] == 0

    @property
    def row_places(self) -> tuple[int, ...]:
        """The lengths of the axes of places in what is read at once: an image, or the array."""
        return self.place_shape[1:] if self.has_images else self.place_shape

    @property
    def image_shape(self) -> tuple[int, ...]:
        """The shape of an image; the first places are images where they come before the classes."""
        first = self.places[0]
        leads = self.has_images or self.classes is None or first < self.classes
        return self.place_shape[1:] if leads and len(self.places) > 1 else self.place_shape

    @property
    def per_image(self) -> int:
        """Places of an image."""
        return math.prod(self.image_shape)

    @property
    def images_per_row(self) -> int:
        """Images in what is read at once."""
        return math.prod(self.row_places) // max(self.per_image, 1)

    @property
    def images(self) -> int:
        """Images in the array; -1 where they are not known."""
        return self.shape[0] if self.has_images else self.images_per_row

    @property
    def tail(self) -> tuple[int, ...]:
        """The shape of a row of the table: the members if there are any, and the classes."""
        classes = () if self.classes is None else (self.shape[self.classes],)
        return classes if self.members is None else (self.shape[self.members], *(classes or (1,)))

    @property
    def output_axis(self) -> int | None:
        """The axis of the classes in an array without that of the members."""
        if self.classes is None or self.members is None:
            return self.classes
        return self.classes - (self.members < self.classes)

    def places_first(self, array: NumpyArray, part: str) -> NumpyArray:
        """A view of rows of an array with their places first, then members, then classes.

        Parameters
        ----------
        array : array (n, …)
            Images; or one row, the whole array.
        part : str
            ``"scores"``, ``"places"`` or ``"single"``.
        """
        before = 0 if self.has_images else 1
        if part == "places":
            return array
        if part == "single":
            return np.moveaxis(array, before + (self.output_axis or 0), -1)[..., 0]
        axes = [before + axis for axis in (self.members, self.classes) if axis is not None]
        moved = np.moveaxis(array, axes, range(-len(axes), 0))
        return moved[..., None] if self.members is not None and self.classes is None else moved

    @property
    def is_table(self) -> bool:
        """Whether the first axis are the rows, and the last one the classes."""
        last = len(self.shape) - 1
        return self.places == (0,) and self.classes == last

    def words(self) -> str:
        """The axes, for a person."""
        classes = "one score a place" if self.classes is None else f"classes on axis {self.classes}"
        members = "" if self.members is None else f", members on axis {self.members}"
        return f"({', '.join(map(str, self.shape))}): {classes}{members}"


def fitting(
    scores: tuple[int, ...],
    labels: tuple[int, ...],
    classes: int | None = None,
    members: int | None = None,
) -> list[Geometry]:
    """All geometries of scores that leave the shape of their labels, which lack the class axis.

    Labels may also have a class axis of length 1, as ``(N, 1, H, W)``. Where the scores have two
    axes more than their labels, the members of an ensemble come before the classes.

    Parameters
    ----------
    scores, labels : tuple of int
        The shapes.
    classes, members : int or None
        Axes that are known.
    """
    extra = len(scores) - len(labels)
    axes = range(len(scores))
    if extra == 0:
        single = [axis for axis in axes if labels[axis] == 1]
        found = [Geometry(scores, axis) for axis in single if _agree(scores, labels, axis)]
    elif extra == 1:
        found = [Geometry(scores, axis) for axis in axes]
        found = [each for each in found if each.place_shape == labels]
    elif extra == 2:
        pairs: Sequence[tuple[int, int]] = list(itertools.combinations(axes, 2))
        if classes is not None or members is not None:
            pairs = list(itertools.permutations(axes, 2))
        found = [Geometry(scores, last, first) for first, last in pairs]
        found = [each for each in found if each.place_shape == labels]
    else:
        found = []
    if not found and len(labels) > 1 and labels[-1] == 1:
        return fitting(scores, labels[:-1], classes, members)
    found = [each for each in found if classes in (None, each.classes)]
    return _different([each for each in found if members in (None, each.members)])


def _agree(scores: tuple[int, ...], labels: tuple[int, ...], but: int) -> bool:
    return all(
        score == label
        for axis, (score, label) in enumerate(zip(scores, labels, strict=True))
        if axis != but
    )


def _different(found: list[Geometry]) -> list[Geometry]:
    """Those that make different tables: which of several axes of length 1 is left out is one."""
    lengths = {(each.shape[each.classes or 0], each.members) for each in found}
    if len(found) > 1 and lengths == {(1, None)}:
        return [each for each in found if each.classes == 1] or found[-1:]
    return found
