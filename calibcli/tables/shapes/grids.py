"""Pixels, voxels and tokens: arrays of scores with several axes, as a table of a row a place.

``(N, C, H, W)``, ``(C, Z, Y, X)``, ``(N, H, W, C)``, ``(B, L, V)`` and ``(M, N, K)`` differ in
nothing but which axis has the classes, which one the members of an ensemble, and whether the first
axis are the images. The shape of the labels, which have one axis less, proves it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from calibcli.errors import DataError, NoLabelsError, UsageError
from calibcli.tables.formats.base import DataFile, Field
from calibcli.tables.names import (
    FAMILIES,
    OTHER_SCORES,
    OTHER_VECTORS,
    PREDICTIONS,
    FileFields,
    choose_labels,
    named_scores,
)
from calibcli.tables.read_options import NO_CLASS_AXIS, ReadOptions
from calibcli.tables.shapes.base import OpenedFiles
from calibcli.tables.shapes.geometry import Geometry, fitting
from calibcli.tables.shapes.grid_files import (
    GridFile,
    full_shape,
    index_names,
    part_of,
    unrolled,
)
from calibcli.tables.storage import Spool

MASKS = ("seg", "segmentation", "mask", "masks")
"""Names of labels that are tried after all others, where scores have the shape of images."""

_OTHERS = ("pred", "output")
"""Names of scores, the same."""

_TITLES = {"--class-axis": "classes", "--member-axis": "members"}


def as_grids(opened: OpenedFiles, options: ReadOptions, spool: Spool) -> OpenedFiles:
    """Make tables of files whose scores have more axes than a table; see `SHAPES`."""
    first = opened.files[0]
    if options.sample is not None and not options.labels_required:
        raise UsageError(f"--sample {options.sample}: every row is read where no labels are needed")
    scores = grid_scores(first, options) or _lying_scores(opened, options)
    if not scores:
        _refuse_idle_options(first, options)
        return opened
    labels = _labels(opened, scores, options)
    geometry = _geometry(opened, scores[0], labels, options)
    decisions = _decisions(geometry, options)
    if geometry.is_table:
        if options.sample is not None:
            _refuse_idle_options(first, options)
        return replace(opened, files=tuple(_deciding(file, decisions) for file in opened.files))
    files: list[GridFile] = []
    images = 0
    for file in opened.files:
        axes = _same_axes(file, scores[0], geometry)
        grid = _grid(file, scores, labels if opened.labels is None else None, axes, options, spool)
        files.append(replace(grid, first_image=images))
        images += grid.images
    words = {"axes": _words(geometry, scores[0], images, options)}
    files[0] = replace(files[0], picked={**files[0].picked, **words})
    made = tuple(_deciding(file, decisions) for file in files)
    return OpenedFiles(made, _label_grid(opened, labels, geometry, options, spool))


def _decisions(geometry: Geometry, options: ReadOptions) -> dict[str, int | str]:
    """The axes that were asked for, counted from 0."""
    axes = {"class_axis": geometry.classes, "member_axis": geometry.members}
    return {
        name: NO_CLASS_AXIS if axis is None else axis
        for name, axis in axes.items()
        if getattr(options, name) is not None
    }


def _deciding(file: DataFile, decisions: Mapping[str, int | str]) -> DataFile:
    """A file with what was decided about its axes."""
    return replace(file, decisions={**file.decisions, **decisions})


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
        if len({full_shape(field) for field in family}) == 1 and len(family[0].shape) > 1:
            return tuple(field.name for field in family if field.element == "float")
    return _unnamed(fields) if options.logits is None else ()


def _lying_scores(opened: OpenedFiles, options: ReadOptions) -> tuple[str, ...]:
    """Scores (C, N), whose second axis has as many values as there are labels."""
    file = opened.files[0]
    fields = FileFields.of(file)
    asked = file.roles.get("logits", options.logits)
    named = named_scores(fields) if asked is None else [*filter(None, [fields.find(asked)])]
    if file.unit == "column" or len(named) != 1 or len(named[0].shape) != 1:
        return ()
    (classes, rows), name = full_shape(named[0]), named[0].name
    if classes == rows or classes < 2:
        return ()
    labels = _labels(opened, (name,), options)
    if labels is None:
        lies = classes == options.class_count != rows and not options.labels_required
    else:
        lies = fitting((classes, rows), full_shape(labels[1])) == [Geometry((classes, rows), 0)]
    return (name,) if lies and len(opened.files) == 1 else ()


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
    for name in ("class_axis", "sample"):
        option, value = f"--{name.replace('_', '-')}", getattr(options, name)
        if value is not None and not options.repeats(name):
            raise UsageError(
                f"{option} {value}: {file.location.name} has a row of scores for each example, "
                "and no array of them with more axes"
            )


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
    shape = full_shape(fields.require(scores[0]))
    free = [each for each in file.fields if each.name not in scores and each.element != "other"]
    fits = [each for each in free if fitting(shape, full_shape(each)) or full_shape(each) == shape]
    named = choose_labels(fields, fits.__contains__, more=MASKS)
    named = named or choose_labels(fields, free.__contains__, more=MASKS)
    numbers = [
        each
        for each in fits
        if each.element in ("integer", "bool") and each.name.lower() not in PREDICTIONS
    ]
    field = numbers[0] if named is None and len(numbers) == 1 else named
    return None if field is None else (file, field)


def _geometry(
    opened: OpenedFiles,
    scores: str,
    labels: tuple[DataFile, Field] | None,
    options: ReadOptions,
) -> Geometry:
    """The geometry that is proved, or else the one that was asked for.

    Axes that are repeated from a fit are not asked for: the file may have others.
    """
    if options.repeats("class_axis") or options.repeats("member_axis"):
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
    shape, title = full_shape(field), f"{fields.name}: {fields.title(field)}"
    if opened.labels is not None and len(opened.files) > 1:
        rows = [FileFields.of(file).require(scores).rows for file in opened.files]
        shape = (sum(rows), *shape[1:])
    classes = _axis(options.class_axis, shape, "--class-axis", title)
    members = _axis(options.member_axis, shape, "--member-axis", title)
    if labels is None:
        return _asked(shape, title, classes, members, options)
    file, label = labels
    stored = full_shape(label)
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
    shape = full_shape(FileFields.of(file).require(scores))
    if len(shape) != len(geometry.shape):
        raise DataError(
            f"{file.location.name}: the scores have the shape {shape}, those of the first file "
            f"{geometry.shape}; all files must have the same axes"
        )
    return replace(geometry, shape=shape)


def _words(geometry: Geometry, scores: str, images: int, options: ReadOptions) -> str:
    """What was decided, in words."""
    words = f"of {scores!r} {geometry.words()}"
    if not index_names(geometry):
        return words
    image, place = index_names(geometry)
    words += f", a row for each {place}"
    if options.sample is not None:
        words += f" of {options.sample} an {image}, chosen at random"
    if images > 1 and options.labels_required and "cluster" not in options.keys:
        words += f"; --cluster {image} holds out and resamples each {image} as a whole"
    return words


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
    parts = {field.name: part_of(field, geometry, file.about) for field in file.fields}
    return unrolled(file, parts, geometry, options.sample, {**file.roles, **roles}, spool)


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
    parts = {field.name: part_of(field, geometry, ())}
    return unrolled(file, parts, geometry, options.sample, {}, spool)
