"""Labels that are a row, (1, N), beside N rows of scores: the column of numbers that they mean."""

from __future__ import annotations

from dataclasses import replace

from calibcli.tables.formats.base import DataFile, Field
from calibcli.tables.formats.npz import ArrayData
from calibcli.tables.names import LABELS, OTHER_LABELS, FileFields, named_scores
from calibcli.tables.read_options import ReadOptions
from calibcli.tables.shapes.base import OpenedFiles
from calibcli.tables.storage import Spool


def stand_up(opened: OpenedFiles, options: ReadOptions, spool: Spool) -> OpenedFiles:
    """Make vectors of labels that are a single row; see `SHAPES`."""
    if opened.labels is not None and len(opened.files) == 1:
        rows = _score_rows(opened.files[0], options)
        return replace(opened, labels=_standing(opened.labels, {"array"}, rows, spool))
    names = {*LABELS, *OTHER_LABELS} if options.labels is None else {options.labels.lower()}
    files = [
        _standing(file, names, _score_rows(file, options), spool) if _has_rows(file) else file
        for file in opened.files
    ]
    return replace(opened, files=tuple(files))


def _has_rows(file: DataFile) -> bool:
    return any(_is_row(field) for field in file.fields)


def _is_row(field: Field) -> bool:
    return field.rows == 1 and len(field.shape) == 1 and field.shape[0] > 1


def _score_rows(file: DataFile, options: ReadOptions) -> int:
    """The rows of the scores; 0 where they are not known by their name."""
    fields = FileFields.of(file)
    asked = file.roles.get("logits", options.logits)
    scores = named_scores(fields) if asked is None else [*filter(None, [fields.find(asked)])]
    return scores[0].rows if scores else 0


def _standing(file: DataFile, names: set[str], rows: int, spool: Spool) -> DataFile:
    """A file whose arrays (1, rows) of these names are vectors."""
    if not isinstance(file, ArrayData):
        return file
    fields, members = list(file.fields), list(file.members)
    for index, (field, member) in enumerate(zip(file.fields, file.members, strict=True)):
        if field.name.lower() in names and _is_row(field) and field.shape[0] == rows:
            whole = member.spooled(f"{file.location.name}, key {field.name!r}", spool)
            header = replace(whole.header, shape=field.shape, fortran=False)
            members[index] = replace(whole, header=header, checksum=None)
            fields[index] = header.field(field.name, in_memory=field.in_memory)
    return replace(file, fields=tuple(fields), members=tuple(members))
