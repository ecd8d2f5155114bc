"""Values within values: fields of nested columns by their path, and JSON in the cells of a text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from calibcli.errors import DataError, UsageError
from calibcli.tables.formats.arrow_arrays import host_array
from calibcli.tables.formats.base import UNKNOWN_ROWS, DataFile, RowError, locating_rows
from calibcli.tables.names import SCORES, FileFields
from calibcli.tables.read_options import ReadOptions
from calibcli.tables.shapes.base import OpenedFiles, row_count
from calibcli.tables.shapes.derived import first_rows, with_derived
from calibcli.tables.storage import Spool

_LOOKED_AT = 64
"""Rows whose texts are looked at to see whether they are JSON."""

_ROWS = 4096
_LISTED = 12


def read_nested(opened: OpenedFiles, options: ReadOptions, _: Spool) -> OpenedFiles:
    """Make columns of the paths that options name, such as ``response.logprobs``.

    A column that has the dot in its name is taken first.

    Raises
    ------
    UsageError
        A path leads nowhere.
    """
    asked = [options.logits, options.labels, options.weights, *options.keys.values()]
    paths = [name for name in dict.fromkeys(asked) if name is not None and "." in name]
    return OpenedFiles(tuple(_with_paths(file, paths) for file in opened.files), opened.labels)


def _with_paths(file: DataFile, paths: list[str]) -> DataFile:
    fields = FileFields.of(file)
    derived: dict[str, Path] = {}
    for path in paths:
        if fields.find(path) is None:
            found = _path(file, fields, path)
            if found is not None:
                derived[path] = found
    return with_derived(file, derived) if derived else file


def _path(file: DataFile, fields: FileFields, asked: str) -> Path | None:
    """Where a name leads; None where it does not begin with a column that has fields."""
    parts = asked.replace("[", ".").replace("]", "").split(".")
    for count in range(len(parts) - 1, 0, -1):
        root = fields.find(".".join(parts[:count]))
        if root is not None and root.type.startswith(("struct", "list", "large_list", "fixed")):
            kind = getattr(first_rows(file, root.name, 1), "type", None)
            if kind is None:
                return None
            steps, kind = _steps(file, root.name, kind, parts[count:])
            return Path(root.name, steps, kind)
    return None


def _steps(
    file: DataFile, root: str, kind: Any, parts: list[str]
) -> tuple[tuple[int | str, ...], Any]:
    """The fields and places along a path, and the type at its end.

    Raises
    ------
    UsageError
    """
    import pyarrow as pa

    steps: list[int | str] = []
    walked = root
    while parts:
        inside = f"{file.location.name}: no field {parts[0]!r} in {walked!r}; "
        if pa.types.is_struct(kind):
            names = [field.name for field in kind]
            # A field may have a dot in its name, too.
            joined = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
            name = next((each for each in joined if each in names), None)
            if name is None:
                raise UsageError(f"{inside}there are {', '.join(names[:_LISTED])}")
            parts = parts[name.count(".") + 1 :]
            kind = kind.field(name).type
            steps.append(name)
        elif pa.types.is_nested(kind) and not pa.types.is_map(kind):
            if not parts[0].isdigit():
                raise UsageError(f"{inside}it is a list, of which a place is taken: {walked}.0")
            steps.append(int(parts[0]))
            kind, parts = kind.value_type, parts[1:]
        else:
            raise UsageError(f"{inside}it is {kind}")
        walked = f"{walked}.{steps[-1]}"
    return tuple(steps), kind


@dataclass(frozen=True)
class Path:
    """A value within a nested column; a `Derivation`.

    Attributes
    ----------
    root : str
        The column.
    steps : tuple of str or int
        Names of fields and places in lists, from the outside to the inside.
    type : pyarrow.DataType
    """

    root: str
    steps: tuple[int | str, ...]
    type: Any

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.root,)

    def column(self, batch: Any) -> Any:
        """The value of each row; none where the path breaks off."""
        import pyarrow.compute as pc

        column = batch.column(self.root)
        for step in self.steps:
            column = (
                pc.struct_field(column, [column.type.get_field_index(step)])
                if isinstance(step, str)
                else _element(column, step)
            )
        return column


def _element(lists: Any, place: int) -> Any:
    """An element of each list; none where a list is too short."""
    import pyarrow as pa
    import pyarrow.compute as pc

    lengths = host_array(pc.fill_null(pc.list_value_length(lists), 0))
    flat = lists.flatten()  # without the lists that are missing
    starts = lengths.cumsum() - lengths
    return flat.take(pa.array(starts + place, pa.int64(), mask=lengths <= place))


# JSON in cells


def read_json_cells(opened: OpenedFiles, options: ReadOptions, _: Spool) -> OpenedFiles:
    """Make lists of the texts in the column of scores, where they are JSON.

    Raises
    ------
    DataError
        They are lists as NumPy prints them, which are cut short.
    """
    return OpenedFiles(
        tuple(_without_json(file, options.logits) for file in opened.files), opened.labels
    )


def _without_json(file: DataFile, asked: str | None) -> DataFile:
    fields = FileFields.of(file)
    names = SCORES if asked is None else (asked,)
    possible = fields.named(names)
    for field in possible:
        if field.element == "string" and field.axes == 1:
            kind = _json_type(file, field.name)
            if kind is not None:
                return with_derived(file, {field.name: JsonCells(field.name, kind)})
    return file


def _json_type(file: DataFile, name: str) -> Any | None:
    """The type of the values of a column of JSON; None where it is none."""
    from calibcli.tables.formats.json_lines import type_of_values

    texts = [text for text in first_rows(file, name, _LOOKED_AT) if text.as_py() is not None]
    if not texts or not all(text.as_py().lstrip()[:1] in ("[", "{") for text in texts):
        return None
    try:
        kind = type_of_values([json.loads(text.as_py()) for text in texts])
    except (ValueError, RecursionError):
        if all(text.as_py().lstrip()[:1] == "[" for text in texts):
            raise _printed(file, name, texts[0].as_py()) from None
        return None
    # Later objects may have names that the first ones have not.
    return type_of_values(_all_values(file, name)) if "struct<" in str(kind) else kind


def _all_values(file: DataFile, name: str) -> Iterator[Any]:
    """The values that all texts of a column hold as JSON.

    Raises
    ------
    UsageError
        They are of a stream that is read once.
    DataError
        A text is no JSON.
    """
    rows = row_count(file)
    if rows == UNKNOWN_ROWS:
        raise UsageError(f"{file.location.name}: JSON in {name!r} is read twice; save the stream")
    at = 0
    for batch in file.read((name,), 0, rows, _ROWS):
        with locating_rows(file, at):
            for row, text in enumerate(batch.columns((name,)).column(0).to_pylist()):
                try:
                    yield None if text is None else json.loads(text)
                except (ValueError, RecursionError) as error:
                    raise _unlike(row, name) from error
        at += len(batch)


def _printed(file: DataFile, name: str, text: str) -> DataError:
    return DataError(
        f"{file.location.name}: column {name!r} holds lists that are no JSON ({text[:40]!r}); as "
        "NumPy prints them they have lost digits: write them as json.dumps(row.tolist()) where "
        "they are made"
    )


@dataclass(frozen=True)
class JsonCells:
    """The values that the texts of a column hold as JSON; a `Derivation`.

    Attributes
    ----------
    name : str
    type : pyarrow.DataType
    """

    name: str
    type: Any

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.name,)

    def column(self, batch: Any) -> Any:
        """The value of each row.

        Raises
        ------
        RowError
            A text is no JSON, or holds something else than the first ones.
        """
        import pyarrow as pa

        from calibcli.tables.formats.json_lines import as_typed

        wrong = (ValueError, TypeError, AttributeError, RecursionError, pa.ArrowException)
        values: list[Any] = []
        for row, text in enumerate(batch.column(self.name).to_pylist()):
            try:
                values.append(None if text is None else as_typed(json.loads(text), self.type))
            except wrong as error:
                raise _unlike(row, self.name) from error
        try:
            return pa.array(values, self.type)
        except wrong:
            for row, value in enumerate(values):
                try:
                    pa.scalar(value, self.type)
                except wrong as error:
                    raise _unlike(row, self.name) from error
            raise


def _unlike(row: int, name: str) -> RowError:
    return RowError(row, f"{name!r} is no JSON like that of the first rows")
