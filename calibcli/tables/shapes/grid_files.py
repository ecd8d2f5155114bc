"""The table that is made of arrays with several axes: a row a place on the axes that remain.

Arrays are mapped and copied tile by tile; a copy of the whole with its axes in another order is
never made.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal, TypeAlias

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.tables.formats.base import (
    UNKNOWN_ROWS,
    Batch,
    DataFile,
    Field,
    GridShape,
    RowError,
    Values,
)
from calibcli.tables.formats.npy import ArrayBatch
from calibcli.tables.shapes.base import ReshapedFile
from calibcli.tables.shapes.geometry import Geometry
from calibcli.tables.storage import Spool

_SPLIT_ROWS = 1 << 16
"""Rows of a partition of a mapped array."""

_CACHED_IMAGES = 4

_SEED = 0

Part: TypeAlias = Literal["scores", "places", "single", "images"]
"""What an array is to the scores: has their shape; has their places; has these and an axis of
length 1 where the classes are; has a row for each image."""


def full_shape(field: Field) -> tuple[int, ...]:
    """The shape of an array, rows and all."""
    return (field.rows, *field.shape)


def index_names(geometry: Geometry) -> tuple[str, ...]:
    """What an image and a place in it are called; nothing where the places are rows."""
    if len(geometry.places) < 2:
        return ()
    last = len(geometry.shape) - 1
    is_text = len(geometry.shape) == 3 and geometry.classes == last and geometry.members is None
    return ("sequence", "token") if is_text else ("image", "pixel")


def part_of(field: Field, geometry: Geometry, about: Sequence[str]) -> Part | None:
    """What an array is to the scores, by its shape; None where it has nothing to do with them."""
    shape = full_shape(field)
    if shape == geometry.shape:
        return "scores"
    if shape in (geometry.place_shape, (*geometry.place_shape, 1)):
        return "places"
    if shape == geometry.single_shape:
        return "single"
    per_image = field.rows == geometry.shape[0] and field.axes < 3
    return "images" if geometry.has_images and per_image and field.name not in about else None


def unrolled(
    file: DataFile,
    parts: Mapping[str, Part | None],
    geometry: Geometry,
    sample: int | None,
    roles: Mapping[str, str],
    spool: Spool,
    titles: tuple[str, ...] | None = None,
) -> GridFile:
    """A file as a table.

    Parameters
    ----------
    file : DataFile
    parts : dict of str to Part or None
        What its arrays are to the scores.
    geometry : Geometry
    sample : int or None
        Places of each image that are rows; None for all.
    roles : dict of str to str
    spool : Spool
    titles : tuple of str or None
        What an image and a place are called; by default as the axes suggest.
    """
    known = {name: part for name, part in parts.items() if part is not None}
    taken = {field.name for field in file.fields}
    titles = index_names(geometry) if titles is None else titles
    names = tuple(f"{name}_index" if name in taken else name for name in titles)
    grid = GridFile.over(
        file,
        fields=(),
        roles=roles,
        file=file.laid_out(list(known), spool, one_row=not geometry.has_images),
        parts=known,
        geometry=geometry,
        sample=sample if (sample or 0) < geometry.per_image else None,
        titles=titles,
        index_names=names,
    )
    fields = (grid.made_field(field) for field in file.fields)
    index = (Field(name, "int64", "integer", 1, None, "int64", grid.rows) for name in names)
    return replace(grid, fields=(*fields, *index), grid=grid.grid_shape())


def members_as_rows(
    file: DataFile, scores: str | None, members: tuple[int, ...], first: int, spool: Spool
) -> GridFile:
    """A row for each member of each row; the rows of one row are a cluster.

    Parameters
    ----------
    file : DataFile
    scores : str or None
        The field whose rows are (M, C), if it is there.
    members : tuple of int
        M and C.
    first : int
        The number of the first row.
    spool : Spool
    """
    rows = next((field.rows for field in file.fields if field.name == scores), file.fields[0].rows)
    geometry = Geometry((rows, *members), 2)
    parts = {field.name: part_of(field, geometry, file.about) for field in file.fields}
    titles = ("row", "member")
    roles = dict(file.roles) if scores is None else {**file.roles, "logits": scores}
    grid = unrolled(file, parts, geometry, None, roles, spool, titles)
    roles |= {"cluster": grid.index_names[0]}
    return replace(grid, first_image=first, roles=roles, grid=None)


@dataclass(eq=False, kw_only=True)
class GridFile(ReshapedFile):
    """Arrays with several axes as a table: a row is a place on the axes that remain.

    Attributes
    ----------
    parts : dict of str to Part
        What the arrays of the file are to the scores.
    geometry : Geometry
    sample : int or None
        Places of each image that are rows, chosen at random; all of them where it is None.
    titles : tuple of str
        What an image and a place within one are called; nothing where places are rows.
    index_names : tuple of str
        The fields that number the images and the places within one; there may be none.
    first_image : int
        The number of the first image: those of the files before come before it.
    """

    parts: Mapping[str, Part]
    geometry: Geometry
    sample: int | None
    titles: tuple[str, ...]
    index_names: tuple[str, ...]
    first_image: int = 0

    @property
    def rows_per_image(self) -> int:
        """Rows of the table for each image."""
        return self.geometry.per_image if self.sample is None else self.sample

    @property
    def per_row(self) -> int:
        """Rows of the table for each row of the file."""
        return self.geometry.images_per_row * self.rows_per_image

    @property
    def images(self) -> int:
        """How many images there are."""
        return self.geometry.images

    @property
    def rows(self) -> int:
        """Rows of the table; -1 where they are not known."""
        return UNKNOWN_ROWS if self.images < 0 else self.images * self.rows_per_image

    def made_field(self, field: Field) -> Field:
        """A field of the file as one of the table, where it is one."""
        part = self.parts.get(field.name)
        if part is None:
            return field
        if part == "images":
            return replace(field, rows=self.rows, in_memory=False)
        shape = self.geometry.tail if part == "scores" else ()
        kind = field.type.partition("[")[0]
        return Field(
            field.name,
            f"{kind}[{', '.join(map(str, shape))}]" if shape else kind,
            field.element,
            len(shape) + 1,
            shape[0] if len(shape) == 1 else None,
            field.dtype,
            self.rows,
            carried=field.carried,
            shape=shape,
        )

    def grid_shape(self) -> GridShape | None:
        """How the shape of the scores is given back."""
        geometry = self.geometry
        if self.sample is not None or len(geometry.places) < 2:
            return None
        return GridShape(
            geometry.place_shape,
            geometry.output_axis,
            geometry.classes is None or geometry.shape[geometry.classes] == 1,
            self.index_names,
            tuple(name for name, part in self.parts.items() if part == "images"),
            geometry.per_image,
        )

    def sources(self, names: Sequence[str]) -> list[str]:
        return [name for name in names if name in self.parts]

    def locate(self, row: int) -> str:
        if not self.index_names:
            return super().locate(row)
        image, place = divmod(row, self.rows_per_image)
        if self.sample is not None:
            place = int(
                _chosen(self.first_image + image, self.geometry.per_image, self.sample)[place]
            )
        at = np.unravel_index(place, self.geometry.image_shape)
        listed = ", ".join(str(int(index)) for index in at)
        listed = f"({listed})" if len(at) > 1 else listed
        return f"{self.location.name}, {self.titles[0]} {image}, {self.titles[1]} {listed}"

    def splits(self, rows: int) -> Sequence[int]:
        """The first rows of images, or any rows where arrays are mapped."""
        used = [field for field in self.file.fields if field.name in self.parts]
        if all(field.in_memory for field in used):
            return range(0, max(rows, 1), _SPLIT_ROWS)
        return [begin * self.per_row for begin in self.file.splits(rows // self.per_row)]

    def read(self, names: Sequence[str], begin: int, end: int, rows: int) -> Iterator[GridBatch]:
        """Rows ``begin`` to before ``end``: a copy of each tile, its axes in the right order."""
        per_row = max(self.per_row, 1)
        first = begin // per_row
        last = end if end < 0 else -(-end // per_row)
        at = first * per_row
        for batch in self.file.read(self.sources(names), first, last, max(1, rows // per_row)):
            after = at + len(batch) * per_row
            stop = after if end < 0 else min(end, after)
            for start in range(max(begin, at), stop, rows):
                upto = min(start + rows, stop)
                yield GridBatch(self, batch, at, start - at, upto - at)
                if upto < stop:
                    batch.release()
            at = after

    def head(self, names: Sequence[str], begin: int, rows: int) -> Batch | None:
        if self.rows == UNKNOWN_ROWS:
            inner = self.file.head(
                self.sources(names), begin // self.per_row, -(-rows // self.per_row)
            )
            return inner and GridBatch(self, inner, 0, 0, min(rows, len(inner) * self.per_row))
        end = min(begin + rows, self.rows)
        return next(self.read(names, begin, end, rows), None) if begin < end else None


class GridBatch:
    """Rows of a `GridFile`; a `Batch`.

    Parameters
    ----------
    file : GridFile
    batch : Batch
        Some rows of the file that it is made of.
    first : int
        Row of the table that the batch begins with.
    begin, end : int
        Rows of the table, counted from there.
    """

    def __init__(self, file: GridFile, batch: Batch, first: int, begin: int, end: int) -> None:
        self._file, self._batch, self._begin, self._end = file, batch, begin, end
        self._first_image = file.first_image + first // max(file.rows_per_image, 1)
        self.release = batch.release

    def __len__(self) -> int:
        return self._end - self._begin

    def _places(self) -> NumpyArray:
        """The places (n,) of the rows, counted from the beginning of the batch."""
        rows = np.arange(self._begin, self._end)
        sample, per_image = self._file.sample, self._file.geometry.per_image
        if sample is None:
            return rows
        images, inside = np.divmod(rows, sample)
        places = np.empty(len(rows), np.int64)
        for image in np.unique(images).tolist():
            here = images == image
            places[here] = _chosen(self._first_image + image, per_image, sample)[inside[here]]
        return images * per_image + places

    def matrix(self, names: Sequence[str], width: int | None) -> NumpyArray:
        """Scores (n, C), copied in this order."""
        if len(names) > 1:
            return np.stack([self.array(name) for name in names], axis=1)
        scores = self.array(names[0])
        return scores[:, None] if scores.ndim == 1 else scores

    def array(self, name: str) -> NumpyArray:
        geometry = self._file.geometry
        if name in self._file.index_names:
            images, places = np.divmod(self._places(), geometry.per_image)
            return places if name == self._file.index_names[1] else images + self._first_image
        try:
            stored = self._batch.array(name)
        except RowError as error:
            row = max(0, error.row * self._file.per_row - self._begin)
            raise RowError(row, str(error)) from error
        part = self._file.parts[name]
        if part == "images":
            repeated: NumpyArray = stored[self._places() // geometry.per_image]
            return repeated
        return self._taken(geometry.places_first(stored, part))

    def _taken(self, array: NumpyArray) -> NumpyArray:
        """The rows (n, …) of an array whose first axes are the places."""
        count = len(self._file.geometry.row_places) + 1
        lead, tail = array.shape[:count], array.shape[count:]
        total = math.prod(lead)
        if self._file.sample is None:
            if len(self) == total:
                return np.ascontiguousarray(array.reshape(total, *tail))
            try:
                view = array.reshape((total, *tail), copy=False)
            except ValueError:
                pass  # the places do not follow one another at equal distances
            else:
                return np.ascontiguousarray(view[self._begin : self._end])
        return np.ascontiguousarray(array[np.unravel_index(self._places(), lead)])

    def values(self, name: str) -> Values:
        if self._file.parts.get(name) != "images":
            return ArrayBatch({name: self.array(name)}, len(self)).values(name)
        stored = self._batch.values(name)
        images = self._places() // self._file.geometry.per_image
        missing = None if stored.missing is None else stored.missing[images]
        return Values(stored.values[images], stored.names, missing)

    def columns(self, names: Sequence[str]) -> Any:
        import pyarrow as pa

        repeated = [name for name in names if self._file.parts.get(name) == "images"]
        images = pa.array(self._places() // self._file.geometry.per_image)
        stored = self._batch.columns(repeated)
        made = ArrayBatch(
            {name: self.array(name) for name in names if name not in repeated}, len(self)
        ).columns([name for name in names if name not in repeated])
        arrays = [
            stored.column(name).take(images) if name in repeated else made.column(name)
            for name in names
        ]
        fields = [(stored if name in repeated else made).schema.field(name) for name in names]
        return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))


@lru_cache(maxsize=_CACHED_IMAGES)
def _chosen(image: int, places: int, count: int) -> NumpyArray:
    """Places (count,) of an image, chosen at random, ascending; the same ones every time."""
    random = np.random.default_rng([_SEED, image])
    chosen: NumpyArray = np.sort(random.choice(places, count, replace=False))
    return chosen
