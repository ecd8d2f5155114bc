"""The shapes of data that become tables, in the order in which they are tried.

A new shape is a file of this package and an entry of `SHAPES`: a function
``(OpenedFiles, ReadOptions, Spool) -> OpenedFiles``, and what there always is where it may be
there, so that it is imported for no other file. The function goes by names, types, shapes and
options alone and then by proof: where its shape is not there it returns what it was given, and
where two meanings fit it raises a `UsageError` of one line that holds the command for each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from calibcli.cached import cached_property
from calibcli.tables.formats.base import DataFile, Field
from calibcli.tables.formats.registry import import_from
from calibcli.tables.names import (
    LABELS,
    OTHER_LABELS,
    SCORES,
    FileFields,
    named_labels,
    named_scores,
)
from calibcli.tables.read_options import ReadOptions
from calibcli.tables.shapes.base import OpenedFiles
from calibcli.tables.storage import Spool


class Signs:
    """What fields and options show of the shapes that files may have.

    Attributes
    ----------
    opened : OpenedFiles
    options : ReadOptions
    """

    def __init__(self, opened: OpenedFiles, options: ReadOptions) -> None:
        self.opened, self.options = opened, options

    @cached_property
    def fields(self) -> list[Field]:
        """Those of all files, and of the file of labels."""
        labels = self.opened.labels
        files: list[DataFile] = [*self.opened.files, *(() if labels is None else (labels,))]
        return [field for file in files for field in file.fields]

    def any_field(self, test: Callable[[Field], bool]) -> bool:
        """Whether one of the fields is such."""
        return any(map(test, self.fields))

    def has_type(self, *parts: str) -> bool:
        """Whether the type of a field has one of these parts."""
        return self.any_field(lambda field: any(part in field.type for part in parts))

    def has_name(self, *names: str, prefix: bool = False) -> bool:
        """Whether a field has one of these names, or a name that begins with one."""
        if prefix:
            return self.any_field(lambda field: field.name.lower().startswith(names))
        return self.any_field(lambda field: field.name.lower() in names)

    @property
    def has_paths(self) -> bool:
        """Whether a name that was asked for has a dot."""
        options = self.options
        asked = [options.logits, options.labels, options.weights, *options.keys.values()]
        return any("." in name for name in asked if name is not None)

    @property
    def has_texts_as_scores(self) -> bool:
        """Whether a field of text has a name of scores."""
        names = {*SCORES, (self.options.logits or "").lower()}
        return self.any_field(lambda f: f.element == "string" and f.name.lower() in names)

    @property
    def has_axes(self) -> bool:
        """Whether a row of a field has more axes than one."""
        return self.any_field(lambda field: field.axes > 2)

    @property
    def has_other_vectors(self) -> bool:
        """Whether a field of vectors, or a file of labels, is beside the scores."""
        scores = {field.name for field in named_scores(FileFields.of(self.opened.files[0]))}
        is_other = self.any_field(lambda field: field.axes == 2 and field.name not in scores)
        return is_other or self.opened.labels is not None

    @property
    def has_several_vectors(self) -> bool:
        """Whether a file has several fields of vectors of floats."""
        vectors = [
            sum(field.axes == 2 and field.element == "float" for field in file.fields)
            for file in self.opened.files
        ]
        return max(vectors) > 1

    @property
    def has_other_rows(self) -> bool:
        """Whether fields have different numbers of rows."""
        return len({field.rows for field in self.fields}) > 1

    @property
    def lacks_names(self) -> bool:
        """Whether no name is known for scores, or none for labels."""
        fields = FileFields.of(self.opened.files[0])
        return not named_scores(fields) or named_labels(fields) is None

    @property
    def has_lists_of_labels(self) -> bool:
        """Whether labels may be lists, or a column for each score."""
        prefixes = [f"{name}_" for name in (*LABELS, *OTHER_LABELS)]
        return self.has_name(*prefixes, prefix=True) or self.any_field(
            lambda field: field.axes == 2 and field.width is None
        )


@dataclass(frozen=True)
class Shape:
    """A shape of data.

    Attributes
    ----------
    reader : str
        ``"module:name"`` of this package.
    may_be_there : callable
        Whether fields and options allow it; where not, the reader would change nothing.
    """

    reader: str
    may_be_there: Callable[[Signs], bool]

    def read(self, opened: OpenedFiles, options: ReadOptions, spool: Spool) -> OpenedFiles:
        """The files as tables, where they have this shape."""
        if not self.may_be_there(Signs(opened, options)):
            return opened
        tables: OpenedFiles = import_from(__package__, self.reader)(opened, options, spool)
        return tables


def _is_list_of_floats(field: Field) -> bool:
    return field.axes == 2 and field.element == "float" and "list" in field.type


SHAPES: tuple[Shape, ...] = (
    Shape("cells:read_nested", lambda signs: signs.has_paths),
    Shape("cells:read_json_cells", lambda signs: signs.has_texts_as_scores),
    Shape("raw_bytes:read_bytes", lambda signs: signs.any_field(lambda f: f.element == "other")),
    Shape(
        "top_tokens:read_top_tokens",
        lambda signs: signs.has_type("struct<", "map<") or signs.has_name("topk_index"),
    ),
    Shape("harness:read_samples", lambda signs: signs.has_name("resps", "filtered_resps")),
    Shape("nested:give_shapes", lambda signs: signs.has_axes),
    Shape("label_files:with_label_files", lambda signs: signs.options.labels is not None),
    Shape(
        "row_labels:stand_up",
        lambda signs: signs.opened.labels is not None or signs.any_field(lambda f: f.rows == 1),
    ),
    Shape(
        "multilabel:as_labels",
        lambda signs: signs.options.multi_label or signs.has_lists_of_labels,
    ),
    Shape(
        "grids:as_grids",
        lambda signs: (
            signs.has_axes
            or signs.has_other_rows
            or (signs.options.class_axis, signs.options.sample) != (None, None)
        ),
    ),
    Shape(
        "members:as_members",
        lambda signs: (
            signs.has_axes
            or signs.has_several_vectors
            or (signs.options.members, signs.options.member_axis) != (None, None)
        ),
    ),
    Shape("choices:pad_choices", lambda signs: signs.any_field(_is_list_of_floats)),
    Shape("unnamed:find_unnamed", lambda signs: signs.lacks_names),
    Shape("expanded:expand_counts", lambda signs: signs.options.counts is not None),
    Shape("expanded:read_label_vectors", lambda signs: signs.has_other_vectors),
)


def as_tables(opened: OpenedFiles, options: ReadOptions, spool: Spool) -> OpenedFiles:
    """The files as tables; those that are tables already stay as they are.

    Raises
    ------
    UsageError
        Two meanings fit, or an option does not.
    DataError
        A file cannot be read.
    """
    for shape in SHAPES:
        opened = shape.read(opened, options, spool)
    return opened
