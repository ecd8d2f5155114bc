"""Scores and labels whose names say nothing: taken where the file proves which ones they are.

The shape of the rows stays; what is found out are the roles of fields.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from calibcli.tables.formats.base import DataFile, Field, RowError, locating_rows
from calibcli.tables.kinds import TOLERANCE
from calibcli.tables.names import PREDICTIONS, FileFields, named_labels, named_scores, natural
from calibcli.tables.read_options import ReadOptions
from calibcli.tables.shapes.base import OpenedFiles
from calibcli.tables.storage import Spool

POSITIONAL = ("arr_0", "arr_1")
"""What `numpy.savez` calls arrays without names."""

VERBAL = (("confidence", "confidences"), ("correct", "is_correct"))
"""Names of the probability that an answer is correct, and of whether it was."""

_ROWS = 1 << 16
"""Rows that are looked at."""


def find_unnamed(opened: OpenedFiles, options: ReadOptions, _: Spool) -> OpenedFiles:
    """Say which fields are scores and labels, where the names say nothing and the file proves it.

    - `numpy.savez` without names: one matrix of floats and one vector of whole numbers;
    - ``confidence`` beside ``correct``;
    - columns that are called like the classes, which are all values of the labels;
    - the only column of truth values, or of 0 and 1, beside single scores or pairs.
    """
    file, roles = opened.files[0], dict[str, str]()
    is_asked = options.logits is not None or "logits" in file.roles
    if not is_asked and not named_scores(FileFields.of(file)):
        roles = _verbal(file)
        if roles:
            # Class names are those of the answers, not of right and wrong.
            opened = _without_class_names(opened)
            file = opened.files[0]
        roles = roles or _roles(file, opened.labels, options)
    if not roles and _wants_labels(file, opened, options):
        roles = _flag(file, options)
    if not roles:
        return opened
    if options.labels is not None or opened.labels is not None:
        roles.pop("labels", None)
    picked = dict(file.picked)
    if set(roles) == {"labels"}:
        (field,) = (each for each in file.fields if each.name == roles["labels"])
        title = FileFields.of(file).title(field)
        picked["labels"] = f"{title}, the only {file.unit} of two values"
    first = replace(file, roles={**file.roles, **roles}, picked=picked)
    return replace(opened, files=(first, *opened.files[1:]))


def _wants_labels(file: DataFile, opened: OpenedFiles, options: ReadOptions) -> bool:
    asked = options.labels is not None or "labels" in file.roles or opened.labels is not None
    return options.labels_required and not asked and not named_labels(FileFields.of(file))


def _roles(file: DataFile, label_file: DataFile | None, options: ReadOptions) -> dict[str, str]:
    """The roles of fields, where no name says which ones are the scores."""
    data = [field for field in file.fields if field.name not in file.about]
    if sorted(field.name for field in data) == list(POSITIONAL):
        return _positional(data)
    if label_file is not None:
        return {}
    fields = FileFields.of(file)
    labels = fields.find(options.labels) if options.labels else named_labels(fields)
    return {} if labels is None else _class_columns(file, labels)


def _verbal(file: DataFile) -> dict[str, str]:
    """A confidence, and whether it was right."""
    fields = FileFields.of(file)
    confidence, correct = (next(iter(fields.named(names)), None) for names in VERBAL)
    if not (confidence and correct and _is_single(confidence, "float")):
        return {}
    is_truth = _is_single(correct, "bool") or _is_single(correct, "integer")
    return {"logits": confidence.name, "labels": correct.name} if is_truth else {}


def _without_class_names(opened: OpenedFiles) -> OpenedFiles:
    files = tuple(replace(file, class_names=None) for file in opened.files)
    return replace(opened, files=files)


def _positional(data: list[Field]) -> dict[str, str]:
    matrix = [each for each in data if each.axes == 2 and each.element == "float"]
    vector = [each for each in data if each.axes == 1 and each.element in ("integer", "bool")]
    if len(matrix) != 1 or len(vector) != 1 or matrix[0].rows != vector[0].rows:
        return {}
    return {"logits": matrix[0].name, "labels": vector[0].name}


def _is_single(field: Field, element: str) -> bool:
    return field.axes == 1 and field.element == element


def _class_columns(file: DataFile, labels: Field) -> dict[str, str]:
    """The columns that are called like the classes, if there are such."""
    floats = [each.name for each in file.fields if _is_single(each, "float")]
    numbers = [name for name in floats if name.isdigit()]
    if labels.element in ("integer", "bool") and len(numbers) > 1:
        ordered = sorted(numbers, key=int)
        first = int(ordered[0])
        expected = range(first, first + len(ordered))
        # Features are numbered columns too, and there may be as many as classes.
        if (
            [*map(int, ordered)] == [*expected]
            and first in (0, 1)
            and _sum_to_one(file, ordered)
            and _whole(file, labels.name) <= set(expected)
        ):
            return {"logits": ",".join(ordered)}
    if labels.element != "string" or labels.axes != 1:
        return {}
    values = _texts(file, labels.name)
    named = [name for name in floats if name in values]
    if values - set(floats) or len(named) < 2 or any("," in name for name in floats):
        return {}
    for names in (floats, named):
        # A class may have no rows, and a number such as an age may be no class.
        if len(named) == len(floats) or _sum_to_one(file, names):
            return {"logits": ",".join(sorted(names, key=natural))}
    return {}


def _whole(file: DataFile, name: str) -> set[int]:
    """The whole numbers of a field in the first rows."""
    batch = file.head((name,), 0, _ROWS)
    return set() if batch is None else set(np.unique(batch.values(name).values).tolist())


def _texts(file: DataFile, name: str) -> set[str]:
    """The texts of a field in the first rows."""
    batch = file.head((name,), 0, _ROWS)
    if batch is None:
        return set()
    stored = batch.values(name)
    codes = stored.values if stored.missing is None else stored.values[~stored.missing]
    names = stored.names or ()
    return {names[code] for code in np.unique(codes).tolist()}


def _sum_to_one(file: DataFile, names: list[str]) -> bool:
    batch = file.head(names, 0, 1 << 10)
    if batch is None:
        return False
    with locating_rows(file, 0):
        rows = batch.matrix(names, None)
    sums = rows.sum(axis=1, dtype=np.float64)
    return bool(rows.min() >= 0 and np.abs(sums - 1).max() <= TOLERANCE)


def _flag(file: DataFile, options: ReadOptions) -> dict[str, str]:
    """The only column of two values, beside scores of two classes."""
    fields = FileFields.of(file)
    scores = named_scores(fields)
    if options.logits is not None or not _has_two_classes(scores):
        return {}
    rows, taken = scores[0].rows, {*file.about, *(each.name for each in scores)}
    others = [
        each
        for each in file.fields
        if each.axes == 1 and each.rows == rows and each.name not in taken
    ]
    possible = [each for each in others if each.element != "other"]
    batch = file.head([each.name for each in possible], 0, _ROWS) if possible else None
    if batch is None:
        return {}
    two = []
    for each in possible:
        try:
            stored = batch.values(each.name)
        except RowError:
            return {}
        values = np.unique(stored.values)
        if each.element == "float":
            # Truth values that may be missing are floats in many a table; weights of 1 are not.
            is_possible = values[~np.isnan(values)].tolist() == [0, 1]
        else:
            is_possible = len(values) <= 2 or each.element == "bool"
        if is_possible and each.name.lower() not in PREDICTIONS:
            two.append((each, values))
    if len(two) != 1 or _is_predicted(file, scores, two[0][0]):
        return {}
    (field, values) = two[0]
    is_flag = field.element == "bool" or (
        field.element == "integer" and values.tolist() in ([0, 1], [0], [1])
    )
    return {"labels": field.name} if is_flag else {}


def _is_predicted(file: DataFile, scores: list[Field], field: Field) -> bool:
    """Whether a field is the more probable class in each of the first rows, as an output has it."""
    names = [each.name for each in scores]
    batch = file.head([*names, field.name], 0, _ROWS)
    if batch is None:
        return False
    try:
        rows, truth = batch.matrix(names, None), batch.values(field.name).values
    except RowError:
        return False  # whoever reads the rows says what is wrong
    if rows.shape[1] == 2:
        predicted = rows.argmax(axis=1)
    else:
        predicted = rows[:, 0] > (0.5 if rows.min() >= 0 and rows.max() <= 1 else 0)
    return bool((predicted == truth).all())


def _has_two_classes(scores: list[Field]) -> bool:
    if len(scores) == 1:
        return scores[0].axes == 1 or scores[0].width in (1, 2)
    return len(scores) == 2
