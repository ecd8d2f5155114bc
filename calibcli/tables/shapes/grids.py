"""Pixels, voxels and tokens: arrays of scores with several axes, as a table of a row a place.

``(N, C, H, W)``, ``(C, Z, Y, X)``, ``(N, H, W, C)``, ``(B, L, V)`` and ``(M, N, K)`` differ in
nothing but which axis has the classes, which one the members of an ensemble, and whether the first
axis are the images. The shape of the labels, which have one axis less, proves it.

Arrays are mapped and copied tile by tile; a copy of the whole with its axes in another order is
never made.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, Literal, TypeAlias

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.errors import DataError, NoLabelsError, UsageError
from calibcli.tables.formats.base import (
    UNKNOWN_ROWS,
    Batch,
    DataFile,
    Field,
    GridShape,
    RowError,
    Values,
    python_command,
)
from calibcli.tables.formats.npy import ArrayBatch
from calibcli.tables.names import (
    FAMILIES,
    LABELS,
    OTHER_LABELS,
    OTHER_SCORES,
    OTHER_VECTORS,
    FileFields,
    named_labels,
    named_scores,
)
from calibcli.tables.read_options import NO_CLASS_AXIS, ReadOptions
from calibcli.tables.shapes.base import OpenedFiles, ReshapedFile
from calibcli.tables.shapes.geometry import Geometry, fitting
from calibcli.tables.storage import Spool

MASKS = ("seg", "segmentation", "mask", "masks")
"""Names of labels that are tried after all others, where scores have the shape of images."""

_OTHERS = ("pred", "output")
"""Names of scores, the same."""

_SPLIT_ROWS = 1 << 16
"""Rows of a partition of a mapped array."""

_TITLES = {"--class-axis": "classes", "--member-axis": "members"}

_CACHED_IMAGES = 4

_SEED = 0

Part: TypeAlias = Literal["scores", "places", "single", "images"]
"""What an array is to the scores: has their shape; has their places; has these and an axis of
length 1 where the classes are; has a row for each image."""


def as_grids(opened: OpenedFiles, options: ReadOptions, spool: Spool) -> OpenedFiles:
    """Make tables of files whose scores have more axes than a table; see `SHAPES`."""
    first = opened.files[0]
    if options.sample is not None and not options.labels_required:
        raise UsageError(f"--sample {options.sample}: every row is read where no labels are needed")
    scores = grid_scores(first, options)
    if not scores:
        _refuse_idle_options(first, options)
        return opened
    labels = _labels(opened, scores, options)
    geometry = _geometry(opened, scores[0], labels, options)
    if geometry.is_table:
        if options.sample is not None:
            _refuse_idle_options(first, options)
        return opened
    files: list[GridFile] = []
    images = 0
    for file in opened.files:
        axes = _same_axes(file, scores[0], geometry)
        grid = _grid(file, scores, labels if opened.labels is None else None, axes, options, spool)
        files.append(replace(grid, first_image=images))
        images += grid.images
    words = {"axes": _words(geometry, scores[0], images, options)}
    files[0] = replace(files[0], picked={**files[0].picked, **words})
    asked = {"class_axis": options.class_axis, "member_axis": options.member_axis}
    settled = {"class_axis": geometry.classes, "member_axis": geometry.members}
    decisions = {
        name: NO_CLASS_AXIS if settled[name] is None else settled[name]
        for name, value in asked.items()
        if value is not None
    }
    files = [replace(file, decisions={**file.decisions, **decisions}) for file in files]
    return OpenedFiles(tuple(files), _label_grid(opened, labels, geometry, options, spool))


def grid_scores(file: DataFile, options: ReadOptions) -> tuple[str, ...]:
    """The field whose scores have more axes than a table; empty where there is none.

    Where scores of a name that is known make a table already, these are meant.
    """
    fields = FileFields.of(file)
    if options.logits is not None and (single := fields.find(options.logits)) is not None:
        named = [single]
    elif options.logits is not None:
        named = []
    else:
        named = named_scores(fields)
    if options.class_axis is None and any(field.axes < 3 for field in named):
        return ()
    deep = [field for field in named if field.element == "float" and field.shape]
    if deep or (options.logits is not None and named) or file.unit == "array":
        return tuple(field.name for field in deep[:1])
    for pattern in FAMILIES if options.logits is None else (options.logits,):
        family = [each for each in file.fields if fnmatchcase(each.name.lower(), pattern.lower())]
        if len({_shape(field) for field in family}) == 1 and len(family[0].shape) > 1:
            return tuple(field.name for field in family if field.element == "float")
    return _unnamed(fields) if options.logits is None else ()


def _unnamed(file: FileFields) -> tuple[str, ...]:
    """The only array with more axes than a table, or the only one of a name that may be scores.

    Raises
    ------
    UsageError
        Several have such names.
    """
    floats = [field for field in file.fields if field.element == "float"]
    deep = [field for field in floats if field.axes == 3]
    named = [
        field for field in deep if field.name.lower() in (*OTHER_SCORES, *OTHER_VECTORS, *_OTHERS)
    ]
    if len(named) > 1:
        ways = " or ".join(f"--logits {field.name}" for field in named)
        raise UsageError(f"{file.name}: there may be several scores; say which are meant: {ways}")
    if not named and len(deep) == 1 and not any(field.axes == 2 for field in floats):
        named = deep
    return tuple(field.name for field in named)


def _refuse_idle_options(file: DataFile, options: ReadOptions) -> None:
    """Refuse options that only mean something where there are images."""
    repeated = {} if options.like is None else options.like.decisions
    for name in ("class_axis", "sample"):
        option, value = f"--{name.replace('_', '-')}", getattr(options, name)
        if value is not None and name not in repeated:
            raise UsageError(
                f"{option} {value}: {file.location.name} has a row of scores for each example, "
                "and no array of them with more axes"
            )


def _shape(field: Field) -> tuple[int, ...]:
    return (field.rows, *field.shape)


def _labels(
    opened: OpenedFiles, scores: Sequence[str], options: ReadOptions
) -> tuple[DataFile, Field] | None:
    """The labels of the first file, and the file that has them."""
    if opened.labels is not None:
        return opened.labels, opened.labels.fields[0]
    file = opened.files[0]
    fields = FileFields.of(file)
    asked = file.roles.get("labels", options.labels)
    if asked is not None:
        return file, fields.require(asked)
    shape = _shape(fields.require(scores[0]))
    free = [each for each in file.fields if each.name not in scores and each.element != "other"]
    fits = [each for each in free if fitting(shape, _shape(each)) or _shape(each) == shape]
    names = (*LABELS, *OTHER_LABELS, *MASKS)
    for fields_left in (fits, free):
        named = [each for name in names for each in fields_left if each.name.lower() == name]
        if named:
            return file, named[0]
    numbers = [each for each in fits if each.element in ("integer", "bool")]
    return (file, numbers[0]) if len(numbers) == 1 else None


def _geometry(
    opened: OpenedFiles,
    scores: str,
    labels: tuple[DataFile, Field] | None,
    options: ReadOptions,
) -> Geometry:
    """The geometry that is proved, or else the one that was asked for.

    Axes that are repeated from a fit are not asked for: the file may have others.
    """
    if options.like is not None and {"class_axis", "member_axis"} & set(options.like.decisions):
        try:
            free = replace(options, class_axis=None, member_axis=None)
            return _proved(opened, scores, labels, free)
        except (UsageError, DataError):
            pass  # it takes the axes of the fit
    return _proved(opened, scores, labels, options)


def _proved(
    opened: OpenedFiles,
    scores: str,
    labels: tuple[DataFile, Field] | None,
    options: ReadOptions,
) -> Geometry:
    """The geometry that the labels prove, or that was asked for.

    Raises
    ------
    UsageError
        Two are possible.
    DataError
        None is.
    """
    fields = FileFields.of(opened.files[0])
    field = fields.require(scores)
    shape, title = _shape(field), f"{fields.name}: {fields.title(field)}"
    if field.axes > 2 and not field.shape:
        raise DataError(f"{title}: lists in lists have no fixed shape; {_as_array(fields, scores)}")
    if opened.labels is not None and len(opened.files) > 1:
        rows = [FileFields.of(file).require(scores).rows for file in opened.files]
        shape = (sum(rows), *shape[1:])
    classes = _axis(options.class_axis, shape, "--class-axis", title)
    members = _axis(options.member_axis, shape, "--member-axis", title)
    if labels is None:
        return _asked(shape, title, classes, members, options)
    file, label = labels
    stored = _shape(label)
    both = f"{title} and {FileFields.of(file).title(label)}"
    if options.class_axis == NO_CLASS_AXIS:
        axes = range(len(shape)) if options.members and members is None else (members,)
        found = [Geometry(shape, None, axis) for axis in axes]
        found = [each for each in found if each.place_shape == stored]
    elif stored == shape and classes is not None and stored[classes] > 1:
        return Geometry(shape, classes)
    else:
        found = fitting(shape, stored, classes, members)
    if stored == shape and not found:
        raise UsageError(
            f"{both}: scores and labels have the same shape; is it one score a place, that of "
            f"class 1: --class-axis {NO_CLASS_AXIS}, or a label for each class: --class-axis N?"
        )
    if not found:
        raise DataError(
            f"{both}: labels have the shape of the scores without the axis of the classes, such as "
            f"{Geometry(shape, 1).place_shape} for {shape}, not {stored}"
        )
    if len(found) > 1:
        raise UsageError(f"{both}: {_ways(found)}")
    return found[0]


def _axis(asked: int | str | None, shape: tuple[int, ...], option: str, title: str) -> int | None:
    """The axis that was asked for; the last one is -1 too."""
    if not isinstance(asked, int):
        return None
    if not -len(shape) <= asked < len(shape):
        raise UsageError(f"{title}: {option} {asked}: there are {len(shape)} axes, counted from 0")
    return asked % len(shape)


def _as_array(fields: FileFields, scores: str) -> str:
    """The command that makes an array of lists in lists, in a file that is read."""
    named = named_labels(fields)
    labels = "" if named is None else f", labels=t[{named.name!r}].to_numpy()"
    program = (
        f"import numpy, pyarrow.parquet as p; t = p.read_table({fields.name!r}); "
        f"numpy.savez('rows.npz', logits=numpy.array(t[{scores!r}].to_pylist()){labels})"
    )
    return f"save them as an array: {python_command(program)}"


def _asked(
    shape: tuple[int, ...],
    title: str,
    classes: int | None,
    members: int | None,
    options: ReadOptions,
) -> Geometry:
    """The geometry without labels.

    Raises
    ------
    UsageError
        It was not asked for.
    """
    if options.labels_required:
        raise NoLabelsError(
            f"{title}: no labels were found; --labels takes the name of an array or a file "
            f"LABELS.npy, of the shape of the scores without the axis of the classes"
        )
    known = [classes]
    if options.class_axis is None:
        known = [axis for axis, length in enumerate(shape) if length == options.class_count]
    found = [Geometry(shape, each, members) for each in known if members is None or each != members]
    if options.members is not None and members is None:
        count = options.member_count
        found = [
            Geometry(shape, each.classes, axis)
            for each in found
            for axis in range(each.classes or 0)
            if count in (None, shape[axis])
        ]
    if len(found) == 1:
        return found[0]
    axes = found or [Geometry(shape, axis) for axis in range(len(shape))]
    raise UsageError(f"{title}: {_ways(axes)}")


def _ways(found: Sequence[Geometry]) -> str:
    """The options of which each settles one geometry."""
    many = {
        "--class-axis": [each.classes for each in found],
        "--member-axis": [each.members for each in found],
    }
    options = [option for option, axes in many.items() if len(set(axes)) > 1]
    ways = [
        " ".join(f"{option} {many[option][index]}" for option in options)
        for index in range(len(found))
    ]
    what = " and the ".join(_TITLES[option] for option in options)
    return f"which axis is that of the {what}? {' or '.join(ways)}"


def _same_axes(file: DataFile, scores: str, geometry: Geometry) -> Geometry:
    """The geometry of another file of the same kind.

    Raises
    ------
    DataError
        It has another number of axes.
    """
    shape = _shape(FileFields.of(file).require(scores))
    if len(shape) != len(geometry.shape):
        raise DataError(
            f"{file.location.name}: the scores have the shape {shape}, those of the first file "
            f"{geometry.shape}; all files must have the same axes"
        )
    return replace(geometry, shape=shape)


def _words(geometry: Geometry, scores: str, images: int, options: ReadOptions) -> str:
    """What was decided, in words."""
    words = f"of {scores!r} {geometry.words()}"
    if not _index_names(geometry):
        return words
    image, place = _index_names(geometry)
    words += f", a row for each {place}"
    if options.sample is not None:
        words += f" of {options.sample} an {image}, chosen at random"
    if images > 1 and options.labels_required and "cluster" not in options.keys:
        words += f"; --cluster {image} holds out and resamples each {image} as a whole"
    return words


def _index_names(geometry: Geometry) -> tuple[str, ...]:
    """What an image and a place in it are called; nothing where the places are rows."""
    if len(geometry.places) < 2:
        return ()
    last = len(geometry.shape) - 1
    is_text = len(geometry.shape) == 3 and geometry.classes == last and geometry.members is None
    return ("sequence", "token") if is_text else ("image", "pixel")


def _grid(
    file: DataFile,
    scores: Sequence[str],
    labels: tuple[DataFile, Field] | None,
    geometry: Geometry,
    options: ReadOptions,
    spool: Spool,
) -> GridFile:
    """One file as a table."""
    roles = {"logits": scores[0]} if len(scores) == 1 else {}
    if labels is not None and options.labels is None:
        roles["labels"] = labels[1].name
    parts = {field.name: _part(field, geometry, file.about) for field in file.fields}
    return _unrolled(file, parts, geometry, options.sample, {**file.roles, **roles}, spool)


def _part(field: Field, geometry: Geometry, about: Sequence[str]) -> Part | None:
    """What an array is to the scores, by its shape; None where it has nothing to do with them."""
    shape = _shape(field)
    if shape == geometry.shape:
        return "scores"
    if shape == geometry.place_shape:
        return "places"
    if shape == geometry.single_shape:
        return "single"
    per_image = field.rows == geometry.shape[0] and field.axes < 3
    return "images" if geometry.has_images and per_image and field.name not in about else None


def _label_grid(
    opened: OpenedFiles,
    labels: tuple[DataFile, Field] | None,
    geometry: Geometry,
    options: ReadOptions,
    spool: Spool,
) -> DataFile | None:
    """The file of labels as a table of the same rows."""
    if opened.labels is None or labels is None:
        return None
    file, field = labels
    parts = {field.name: _part(field, geometry, ())}
    return _unrolled(file, parts, geometry, options.sample, {}, spool)


def _unrolled(
    file: DataFile,
    parts: Mapping[str, Part | None],
    geometry: Geometry,
    sample: int | None,
    roles: Mapping[str, str],
    spool: Spool,
    titles: tuple[str, ...] | None = None,
) -> GridFile:
    known = {name: part for name, part in parts.items() if part is not None}
    taken = {field.name for field in file.fields}
    titles = _index_names(geometry) if titles is None else titles
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
    parts = {field.name: _part(field, geometry, file.about) for field in file.fields}
    titles = ("row", "member")
    roles = dict(file.roles) if scores is None else {**file.roles, "logits": scores}
    grid = _unrolled(file, parts, geometry, None, roles, spool, titles)
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
