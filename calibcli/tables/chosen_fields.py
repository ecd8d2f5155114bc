"""The fields of files that are read, and what their labels mean: by names, types and values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from shlex import quote
from typing import Any

from calibcli.arrays import InputKind
from calibcli.engine.folds import CLUSTER
from calibcli.errors import DataError, NoLabelsError, UsageError
from calibcli.tables.formats.base import DataFile, Field, RowError
from calibcli.tables.labels import NO_LABEL, LabelRule, NumberedLabels, whole_numbers
from calibcli.tables.layout import LABEL_ROWS
from calibcli.tables.names import (
    FileFields,
    Scores,
    check_labels,
    check_order,
    check_texts,
    find_key,
    find_labels,
    find_scores,
    find_weights,
    other_labels,
    proposed_labels,
)
from calibcli.tables.read_options import SKIP, ReadOptions
from calibcli.tables.sampling import SAMPLED_ROWS, SAMPLED_VALUES

ENOUGH_LABELS = 20
"""Labels must be this many before it says anything that all of them are the predicted class."""


@dataclass(frozen=True)
class ChosenFields:
    """The fields of the first file that are read, and the file of labels if there is one.

    Attributes
    ----------
    file : FileFields
        All fields of the file.
    scores : Scores
    labels : Field or None
        In the file, or in the file of labels.
    label_file : DataFile or None
    weights : Field or None
    keys : dict of str to Field
        The key columns by role.
    """

    file: FileFields
    scores: Scores
    labels: Field | None
    label_file: DataFile | None
    weights: Field | None
    keys: dict[str, Field]

    @property
    def score_names(self) -> tuple[str, ...]:
        """The names of the fields of scores."""
        return tuple(field.name for field in self.scores.fields)

    @property
    def label_name(self) -> str | None:
        """The field of labels, where these are in the file."""
        return None if self.labels is None or self.label_file else self.labels.name

    @property
    def rows(self) -> int:
        """The rows of the scores."""
        return self.scores.fields[0].rows

    def names(self) -> list[str]:
        """What is read of every file."""
        weights = [] if self.weights is None else [self.weights.name]
        labels = [] if self.label_name is None else [self.label_name]
        return [*self.score_names, *labels, *weights, *(key.name for key in self.keys.values())]

    def picked(self) -> dict[str, str]:
        """The fields in words, by what they are."""
        picked = {"logits": self.scores.title}
        if self.label_file is not None and self.labels is not None:
            picked["labels"] = f"{self.label_file.location.name} ({self.labels.type})"
        elif self.labels is not None:
            picked["labels"] = self.file.title(self.labels)
        if self.weights is not None:
            picked["weights"] = self.file.title(self.weights)
        return picked | {role: self.file.title(key) for role, key in self.keys.items()}


def choose_fields(
    file: DataFile, label_file: DataFile | None, options: ReadOptions
) -> ChosenFields:
    """The fields to read: those that were asked for, or that names and types show.

    Raises
    ------
    UsageError, DataError
        A field is not there, or is not what it should be.
    NoLabelsError
        There are no labels, where they are required.
    """
    fields = FileFields.of(file)
    # A pattern that was asked for may have become one field.
    logits = file.roles.get("logits", options.logits)
    scores = find_scores(fields, logits, options.classes or file.class_names)
    known = None if options.like is None else options.like.classes
    if known is not None and scores.class_names and sorted(known) == sorted(scores.class_names):
        scores = find_scores(fields, logits, known)
    check_texts(file, scores)
    if label_file is not None:
        labels: Field | None = label_file.fields[0]
        check_labels(FileFields.of(label_file), label_file.fields[0])
    else:
        asked = file.roles.get("labels", options.labels)
        labels = find_labels(fields, asked, scores, required=options.labels_required)
    if labels is None and options.labels_required:
        proposed = proposed_labels(fields).lstrip()
        unit = "name" if fields.unit == "array" else fields.unit
        way = f"if these are the labels, add {proposed}; " if proposed else ""
        raise NoLabelsError(
            f"{fields.name}: no labels were found; {fields.listing()}; {way}--labels takes a "
            f"{unit} or a file LABELS.npy"
        )
    if labels is not None and options.labels_required:
        check_order(fields, scores, labels)
    weights = find_weights(fields, file.roles.get("weights", options.weights))
    columns = dict(options.keys)
    if CLUSTER in file.roles and options.labels_required:
        columns.setdefault(CLUSTER, file.roles[CLUSTER])
    keys = {role: find_key(fields, role, name) for role, name in columns.items()}
    return ChosenFields(fields, scores, labels, label_file, weights, keys)


def labels_are_read(
    file: DataFile, fields: ChosenFields, options: ReadOptions, classes: tuple[str, ...] | None
) -> bool:
    """Whether labels become class numbers, or are left as they are.

    Where nothing depends on them, only integers become class numbers: names say more than
    numbers, and a column ``target`` of a file may be something else altogether.
    """
    assert fields.labels is not None
    if not options.labels_required and fields.label_file is None:
        single = fields.labels.axes == 1 or fields.labels.width == 1
        return single and fields.labels.element in ("integer", "bool")
    if fields.labels.element != "string" or classes is not None:
        return True
    raise UsageError(
        f"{fields.file.name}: {fields.picked()['labels']} holds class names, whose order is not "
        f"known; {_ways_to_order(fields.label_file or file, fields.labels)}"
    )


def _ways_to_order(file: DataFile, labels: Field) -> str:
    """How to give the order of class names, whichever of it the first labels leave open."""
    batch = file.head((labels.name,), 0, SAMPLED_ROWS)
    try:
        names = [] if batch is None else sorted(set(batch.values(labels.name).names or ()))
    except RowError:
        names = []
    if any(not name or "," in name or name != name.strip() for name in names):
        names = []
    if len(names) == 2:
        ways = (",".join(names), ",".join(reversed(names)))
        return "say which comes first: " + " or ".join(f"--classes {quote(way)}" for way in ways)
    listed = f", which are {', '.join(names[:8])}{', …' if names[8:] else ''}" if names else ""
    return f"give it with --classes 'first,second,…'{listed}"


def label_rule(
    files: Sequence[DataFile],
    rows: list[int],
    fields: ChosenFields,
    options: ReadOptions,
    names: tuple[str, ...] | None,
    scores: tuple[InputKind, int],
    picked: dict[str, str],
) -> tuple[LabelRule, dict[str, Any]]:
    """What the labels mean, said in `picked`, and what of it is to be remembered.

    Raises
    ------
    UsageError
        Another column may be the truth.
    """
    kind, width = scores
    also = _other_labels(fields, options)
    if also:
        picked["labels"] += f"; also there: {', '.join(also)}"
    numbers, is_decided = options.label_numbers, options.label_numbers is not None
    are_places = fields.label_name is not None and fields.label_name == files[0].notes.get("labels")
    if numbers is not None and len(numbers) != max(width, 2):
        raise UsageError(
            f"{fields.file.name}: there are {len(numbers)} numbers for the labels, but "
            f"{max(width, 2)} classes"
        )
    if not is_decided and not are_places:
        numbers, is_decided = _label_numbers(files, rows, fields, options, names, max(width, 2))
    places = tuple(range(max(width, 2)))
    decisions = {"label_numbers": list(numbers or places)} if is_decided else {}
    if numbers == places:
        numbers = None
    if numbers is not None and fields.labels is not None and fields.labels.element != "string":
        picked["labels"] += f", {_numbering(numbers)}"
    skips = options.unlabelled == SKIP
    rule = LabelRule(names, options.ignored, options.labels_required, numbers, skips)
    if options.labels_required and _labels_are_predictions(files[0], fields, rule, kind, width):
        looked_at = _looked_at(width)
        where = "every row" if sum(rows) <= looked_at else f"each of the first {looked_at:,} rows"
        _ask_whether_labels_are_the_truth(fields, also, picked, where)
    return rule, decisions


def _other_labels(fields: ChosenFields, options: ReadOptions) -> list[str]:
    """What else could be the labels, where they were not asked for."""
    if fields.label_name is None or fields.labels is None or options.labels is not None:
        return []
    return other_labels(fields.file, fields.labels, fields.scores)


def _looked_at(width: int) -> int:
    """How many of the first rows are compared with their labels."""
    return max(2, min(SAMPLED_ROWS, SAMPLED_VALUES // width))


def _labels_are_predictions(
    file: DataFile, fields: ChosenFields, rule: LabelRule, kind: InputKind, width: int
) -> bool:
    """Whether the label is the most probable class in each of the first rows."""
    if fields.label_name is None or not fields.rows:
        return False
    batch = file.head((*fields.score_names, fields.label_name), 0, _looked_at(width))
    if batch is None:
        return False
    try:
        scores = batch.matrix(fields.score_names, width)
        labels = rule.decode(batch.values(fields.label_name))
    except RowError:
        return False  # whoever reads the rows says what is wrong
    middle = 0.5 if kind == "probs" else 0
    predicted = (scores[:, 0] > middle) if width == 1 else scores.argmax(axis=1)
    kept = labels != NO_LABEL
    return bool(kept.sum() >= ENOUGH_LABELS and (predicted == labels)[kept].all())


def _ask_whether_labels_are_the_truth(
    fields: ChosenFields, also: list[str], picked: dict[str, str], where: str
) -> None:
    """Say that labels are the predicted classes; refuse to choose where there are other labels.

    Raises
    ------
    UsageError
        Another column may be the truth.
    """
    if not also:
        picked["labels"] += f", the most probable class in {where}: is this the truth?"
        return
    ways = " or ".join(f"--labels {name}" for name in (*also, fields.label_name))
    raise UsageError(
        f"{fields.file.name}: {picked['labels'].partition(';')[0]} is the most probable class in "
        f"{where}, as a prediction is; say which column is the truth: {ways}"
    )


def _label_numbers(
    files: Sequence[DataFile],
    rows: list[int],
    fields: ChosenFields,
    options: ReadOptions,
    names: tuple[str, ...] | None,
    classes: int,
) -> tuple[tuple[int, ...] | None, bool]:
    """The numbers that stand for the classes where these are not their places, else None.

    Also whether the labels had to decide that, since the classes are named by other numbers. Only
    where that is possible all labels are read for it, until one shows that it is not so.
    """
    labels, label_file = fields.labels, fields.label_file
    if labels is None or labels.element == "string" or not options.labels_required:
        return None, False
    if names is None and fields.scores.first_number:
        named: tuple[int, ...] | None = tuple(range(1, classes + 1))
    else:
        named = whole_numbers(names or ())
    numbering = NumberedLabels(classes, named)
    rule = LabelRule(None, options.ignored, skips=options.unlabelled == SKIP)
    read = list(zip(files, rows, strict=True)) if label_file is None else [(label_file, sum(rows))]
    for file, count in read:
        if not numbering.is_settled and count:
            for batch in file.read((labels.name,), 0, count, LABEL_ROWS):
                try:
                    numbering.look_at(rule.decode(batch.values(labels.name)))
                except RowError:
                    return None, False  # whoever reads the rows says which one it is
                if numbering.is_settled:
                    break
    numbers = numbering.numbers
    return numbers, numbers is not None or named not in (None, tuple(range(classes)))


def _numbering(numbers: tuple[int, ...]) -> str:
    """How labels are numbered, for a person."""
    listed = ", ".join(map(str, numbers[:3]))
    return f"{listed}{', …' if numbers[3:] else ''} for the classes in this order"


def classes_of(
    files: Sequence[DataFile], fields: ChosenFields, options: ReadOptions
) -> tuple[tuple[str, ...] | None, str]:
    """The class names and where they are from."""
    if options.classes is not None:
        return options.classes, "from --classes"
    stored = files[0].class_names
    for file in files:
        if file.class_names != stored:
            raise DataError(
                f"{file.location.name}: its metadata has other class names than "
                f"{files[0].location.name}; --classes says which are meant"
            )
    if stored is not None:
        return stored, "from the file's metadata"
    if fields.scores.class_names is None and fields.labels is not None:
        owned = [fields.label_file] if fields.label_file else files
        orders = {_ordered_names(file, fields.labels) for file in owned}
        if orders != {()} and len(orders) == 1:
            return orders.pop(), f"the order of {fields.labels.name!r}"
    if fields.scores.class_names is None and options.like is not None and options.like.classes:
        return options.like.classes, f"from {options.like.origin}"
    return fields.scores.class_names, f"from the {fields.file.unit} names"


def _ordered_names(file: DataFile, labels: Field) -> tuple[str, ...]:
    """The classes in the order that the type of the labels gives them; none where it has none.

    Arrow's dictionaries are stored, or made by a reader of Parquet of what comes first: where all
    values come in their order, there is no telling.
    """
    field = FileFields.of(file).find(labels.name)
    if field is None or field.categories or not field.is_ordered:
        return () if field is None else field.categories
    batch = file.head((field.name,), 0, SAMPLED_ROWS)
    try:
        stored = None if batch is None else batch.values(field.name)
    except RowError:
        return ()  # whoever reads the rows says what is wrong
    if stored is None or stored.names is None:
        return ()
    codes = stored.values if stored.missing is None else stored.values[~stored.missing]
    first = list(dict.fromkeys(codes.tolist()))
    is_known = first != list(range(len(stored.names))) and len(set(stored.names)) > 1
    return stored.names if is_known else ()
