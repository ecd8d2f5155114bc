"""Which fields hold scores, labels and weights: by what was asked for, or by their names."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import PurePath

from calibcli.cached import cached_property
from calibcli.engine.kept_columns import LABEL_PROB
from calibcli.errors import DataError, UsageError
from calibcli.params import first_twice
from calibcli.tables.formats.base import DataFile, Field
from calibcli.tables.locations import STDIN_NAME
from calibcli.tables.recipes import bytes_as_floats, integers_as_floats

SCORES = (
    "logits",
    "logit",
    "scores",
    "outputs",
    "log_probs",
    "logprobs",
    "log_probabilities",
    "probs",
    "probabilities",
    "probability",
)
FAMILIES = (
    "logits_*",
    "logit_*",
    "log_probs_*",
    "log_prob_*",
    "logprob_*",
    "probs_*",
    "prob_*",
    "probability_*",
)
LABELS = ("label", "labels", "y", "target", "targets", "y_true")
"""Names that are tried without asking, in this order and whatever their case."""

OTHER_SCORES = (
    "prob",
    "proba",
    "probas",
    "softmax",
    "score",
    "y_score",
    "y_scores",
    "y_prob",
    "y_proba",
    "y_probs",
    "y_logits",
    "pred_prob",
    "pred_probs",
    "pred_proba",
    "predict_proba",
)
OTHER_VECTORS = ("predictions", "preds", "y_pred", "confidences")
OTHER_FAMILIES = (".pred_*", "proba_*", "softmax_*")
OTHER_LABELS = ("label_ids", "ground_truth", "groundtruth", "truth", "gt", "gold", "gold_index")
"""Names that are tried where none of those above is there, if only one of them is there; single
numbers by the names of vectors are predicted classes, and no scores."""

PREDICTIONS = ("prediction", "predicted", "pred", "pred_class", "pred_label", "predicted_class")
"""Names of predicted classes, which are never proposed as labels."""

_LISTED = 12
_TEXT_ROWS = 1 << 12
_MOST_PROPOSED = 3


@dataclass(frozen=True)
class Scores:
    """The fields that hold the scores.

    Attributes
    ----------
    fields : tuple of Field
        One, or one scalar field a class.
    title : str
        As shown: ``"column 'logits' (fixed_size_list<float>[10])"``.
    hint : str
        The name that tells what kind of scores they are.
    class_names : tuple of str or None
        From the names of scalar fields: ``prob_cat``, ``prob_dog``.
    file_order : tuple of str or None
        The same in the order of the file, where the order was not asked for.
    first_number : int
        What the first of numbered scalar fields is called: 0 or 1.
    texts : tuple of str
        Fields of text that a pattern matches too, and that are left out.
    """

    fields: tuple[Field, ...]
    title: str
    hint: str
    class_names: tuple[str, ...] | None = None
    file_order: tuple[str, ...] | None = None
    first_number: int = 0
    texts: tuple[str, ...] = ()


@dataclass(frozen=True)
class FileFields:
    """The fields of a file, with the words to speak of them.

    Attributes
    ----------
    name : str
        What messages call the file.
    unit : str
        ``"column"``, ``"key"`` or ``"array"``.
    fields : tuple of Field
    """

    name: str
    unit: str
    fields: tuple[Field, ...]

    @classmethod
    def of(cls, file: DataFile) -> FileFields:
        """The fields of a data file."""
        return cls(file.location.name, file.unit, file.fields)

    def title(self, field: Field) -> str:
        """A field, as shown."""
        if self.unit == "array":
            return f"the array ({field.type})"
        return f"{self.unit} {field.name!r} ({field.type})"

    def find(self, name: str) -> Field | None:
        """The field of a name; if there is none, the only one that differs in case."""
        alike = self._alike.get(name.lower(), ())
        exact = next((field for field in alike if field.name == name), None)
        return alike[0] if exact is None and len(alike) == 1 else exact

    @cached_property
    def _alike(self) -> dict[str, list[Field]]:
        """The fields by their names in small letters: a file may have very many."""
        alike: dict[str, list[Field]] = {}
        for field in self.fields:
            alike.setdefault(field.name.lower(), []).append(field)
        return alike

    def named(self, names: Iterable[str]) -> list[Field]:
        """The fields that have one of these names, in the order of the names."""
        fields = map(self.find, names)
        return [field for field in fields if field is not None]

    def require(self, name: str, purpose: str = "") -> Field:
        """The field of a name; ``purpose`` is for the message, such as ``" for --weights"``.

        Raises
        ------
        UsageError
            There is none.
        """
        field = self.find(name)
        if field is None:
            raise UsageError(f"{self.name}: no {self.unit} {name!r}{purpose}; {self.listing()}")
        return field

    def listing(self) -> str:
        """The names of the fields, for messages."""
        names = [field.name for field in self.fields]
        more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
        return f"the {self.unit}s are {', '.join(names[:_LISTED])}{more}"


def natural(name: str) -> tuple[tuple[bool, int, str], ...]:
    """A sort key that puts ``logit_2`` before ``logit_10``."""
    words = re.split(r"([0-9]+)", name)
    return tuple((word.isdigit(), int(word) if word.isdigit() else 0, word) for word in words)


def find_scores(file: FileFields, asked: str | None, classes: tuple[str, ...] | None) -> Scores:
    """The scores: what was asked for, or the first of `SCORES` and then of `FAMILIES`.

    Parameters
    ----------
    file : FileFields
    asked : str or None
        A name, a pattern, or names with commas between them in the order of the classes.
    classes : tuple of str or None
        Class names, where they are known: scalar fields that end in them are put in their order.

    Raises
    ------
    UsageError
        What was asked for is not there, or nothing was found.
    DataError
        The fields do not hold floating-point numbers, or a class is missing among them.
    """
    if asked is not None:
        return _asked_scores(file, asked, classes)
    if file.unit == "array":
        single = _checked(file, file.fields[0])
        return Scores((single,), file.title(single), PurePath(file.name).stem)
    names = _score_names(file)
    if not names:
        for field in file.named(SCORES):
            _checked(file, field)
        raise UsageError(
            f"{file.name}: no {file.unit} with a name such as logits or probs; "
            f"{file.listing()}; {_proposed_scores(file)}"
        )
    scores = _asked_scores(file, names[0], classes)
    if names[1:] and names[0].lower() not in SCORES:
        raise _several(file, "scores", "--logits", names)
    also = f"; also there: {', '.join(names[1:])}" if names[1:] else ""
    return replace(scores, title=scores.title + also)


def _several(file: FileFields, what: str, option: str, names: Iterable[str]) -> UsageError:
    """The error where several fields have names that are tried last."""
    ways = " or ".join(f"{option} {shlex.quote(name)}" for name in names)
    return UsageError(f"{file.name}: there may be several {what}; say which are meant: {ways}")


def _asked_scores(file: FileFields, asked: str, classes: tuple[str, ...] | None) -> Scores:
    """The scores of a name, a pattern, or a list of names."""
    if file.find(asked) is None and re.search(r"[*?\[]", asked):
        return _family(file, asked, classes)
    if file.find(asked) is None and "," in asked:
        return _listed(file, asked, classes)
    single = _checked(file, file.require(asked))
    return Scores((single,), file.title(single), single.name)


def _can_be_scores(field: Field) -> bool:
    return field.element == "float" and field.axes < 3


def _is_family(file: FileFields, pattern: str) -> bool:
    return sum(_is_scalar_score(field, pattern) for field in file.fields) > 1


def _score_names(file: FileFields) -> list[str]:
    """The names and patterns of scores, those of the first kind there is: the likeliest first."""
    names = [field.name for field in file.named(SCORES) if _can_be_scores(field)]
    if names:
        return names
    families = [pattern for pattern in FAMILIES if _is_family(file, pattern)]
    if families:
        return families[:1]
    vectors = [field for field in file.named(OTHER_VECTORS) if field.axes == 2]
    usable = [*file.named(OTHER_SCORES), *vectors]
    names = [field.name for field in usable if _can_be_scores(field)]
    return [*names, *(pattern for pattern in OTHER_FAMILIES if _is_family(file, pattern))]


def named_scores(file: FileFields) -> list[Field]:
    """The fields that are scores by their names: one, or one a class; empty where there are none.

    Of an NPY file it is the one array.
    """
    if file.unit == "array":
        return list(file.fields)
    asked = next(iter(_score_names(file)), None)
    if asked is None:
        return file.named(SCORES)
    single = file.find(asked)
    family = [field for field in file.fields if _is_scalar_score(field, asked)]
    return family if single is None else [single]


def _proposed_scores(file: FileFields) -> str:
    """What to add to the command, by the types of fields."""
    if file.find(LABEL_PROB):
        return (
            f"{LABEL_PROB} is the probability of each label alone, which says nothing of "
            "calibration; write the file again with --keep confidence or top:K too"
        )
    usable = [field for field in file.fields if _can_be_scores(field)]
    vectors = [field.name for field in usable if field.axes == 2]
    single = [field.name for field in usable if field.axes == 1]
    ways = vectors[:_MOST_PROPOSED]
    if not vectors and len(single) == 1:
        ways = single
    elif not vectors and 1 < len(single) <= _LISTED:
        ways = [",".join(single)]
    labels = proposed_labels(file)
    text = " or ".join(f"--logits {shlex.quote(name)}{labels}" for name in ways)
    if text:
        return f"if these are the scores, add {text}"
    way = "name one with --logits, or scalar columns with --logits 'logit_*'"
    look = f"; calib inspect {shlex.quote(file.name)} shows what is in it"
    return way if file.name == STDIN_NAME else way + look


def proposed_labels(file: FileFields) -> str:
    """The option that names the only field that could be labels, if no name says which one is."""
    if named_labels(file) is not None:
        return ""
    kinds = ("integer", "bool", "string")
    rows = max((field.rows for field in file.fields), default=0)
    fitting = [
        field
        for field in file.fields
        if field.axes == 1 and field.element in kinds and field.rows == rows
    ]
    fitting = [field for field in fitting if field.name.lower() not in PREDICTIONS]
    return f" --labels {shlex.quote(fitting[0].name)}" if len(fitting) == 1 else ""


def _is_scalar_score(field: Field, pattern: str) -> bool:
    return fnmatchcase(field.name.lower(), pattern) and field.element == "float" and field.axes == 1


def _checked(file: FileFields, field: Field) -> Field:
    if field.element == "other" and 0 in field.shape:
        raise DataError(f"{file.name}: the rows of scores are empty")
    if field.element != "float" or field.axes > 2:
        way = ""
        if field.element == "integer" and field.axes == 2 and field.width != 1:
            labels = named_labels(file)
            named = None if labels is None else labels.name
            way = "; " + integers_as_floats(file.name, file.unit, field.name, named)
        elif field.type.startswith("void8"):
            way = "; " + bytes_as_floats(file.name, field.name)
        elif re.match("void|(fixed_size_|large_)?binary", field.type):
            way = "; save numbers of another type with .astype('float32')"
        raise DataError(
            f"{file.name}: {file.title(field)} cannot be scores; they are vectors (or, for two "
            f"classes, single values) of float16, float32 or float64{way}"
        )
    return field


def _family(file: FileFields, pattern: str, classes: tuple[str, ...] | None) -> Scores:
    matching = [each for each in file.fields if fnmatchcase(each.name.lower(), pattern.lower())]
    texts = [each.name for each in matching if each.element == "string" and each.axes == 1]
    fields = [each for each in matching if each.name not in texts]
    wrong = next((field for field in fields if not _is_scalar_score(field, "*")), None)
    if wrong is not None:
        raise DataError(_no_score(file, wrong, pattern))
    if not fields:
        numbers = " of numbers" if texts else ""
        raise UsageError(
            f"{file.name}: no {file.unit}{numbers} matches --logits {pattern!r}; {file.listing()}"
        )
    in_file = [_suffix(field.name, pattern) for field in fields]
    fields.sort(key=lambda field: natural(field.name))
    suffixes = [_suffix(field.name, pattern) for field in fields]
    names: tuple[str, ...] | None = None
    file_order: tuple[str, ...] | None = None
    first_number = 0
    if all(suffix.isdigit() for suffix in suffixes):
        _check_numbers(file, pattern, [int(suffix) for suffix in suffixes])
        first_number = int(suffixes[0])
    elif classes is None:
        _check_words(file, pattern, suffixes)
        names, file_order = tuple(suffixes), tuple(in_file)
    elif sorted(classes) == sorted(suffixes):
        by_name = dict(zip(suffixes, fields, strict=True))
        names, fields = classes, [by_name[name] for name in classes]
    else:
        raise DataError(
            f"{file.name}: the {file.unit}s {pattern} are named for the classes "
            f"{', '.join(suffixes[:_LISTED])}, but the class names given are "
            f"{', '.join(classes[:_LISTED])}"
        )
    first, last = fields[0], fields[-1]
    title = f"{len(fields)} {file.unit}s {first.name} … {last.name} ({first.type}), in this order"
    if texts:
        title += f"; left out, since it is text: {', '.join(texts)}"
    return Scores(tuple(fields), title, pattern, names, file_order, first_number, tuple(texts))


def _listed(file: FileFields, asked: str, classes: tuple[str, ...] | None) -> Scores:
    """The fields of a list of names, one a class, in this order."""
    names = [name.strip() for name in asked.split(",")]
    fields = [file.require(name, f" for --logits {asked}") for name in names]
    wrong = next((field for field in fields if not _is_scalar_score(field, "*")), None)
    if wrong is not None:
        raise DataError(
            f"{file.name}: {file.title(wrong)} of --logits {asked} is not one floating-point "
            "number a row"
        )
    twice = first_twice([field.name for field in fields])
    if twice is not None:
        raise UsageError(f"{file.name}: {file.unit} {twice!r} is there twice in --logits {asked}")
    ordered = sorted(field.name for field in fields)
    pairs = zip(ordered[0], ordered[-1], strict=False)
    common = next((place for place, (one, other) in enumerate(pairs) if one != other), 0)
    prefix = re.sub(r"[^_.]*$", "", ordered[0][:common])
    words = tuple(field.name.removeprefix(prefix) for field in fields)
    first_number = int(words[0]) if words[0] in ("0", "1") else 0
    in_order = words == tuple(str(first_number + place) for place in range(len(words)))
    named: tuple[str, ...] | None = None if in_order else words
    if not in_order and classes is not None and set(classes) != set(words):
        raise DataError(
            f"{file.name}: the {file.unit}s of --logits {asked} are named for the classes "
            f"{', '.join(words[:_LISTED])}, but the class names given are "
            f"{', '.join(classes[:_LISTED])}"
        )
    if not in_order and classes is not None:
        by_name = dict(zip(words, fields, strict=True))
        named, fields = classes, [by_name[word] for word in classes]
    title = (
        f"{len(fields)} {file.unit}s {fields[0].name} … {fields[-1].name} ({fields[0].type}), in "
        "this order"
    )
    return Scores(tuple(fields), title, prefix, named, None, first_number if in_order else 0)


def _suffix(name: str, pattern: str) -> str:
    """What the wildcards of a pattern stand for in a name."""
    before = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
    after = re.split(r"[*?\]]", pattern)[-1]
    return name[len(before) : len(name) - len(after)]


def _check_numbers(file: FileFields, pattern: str, numbers: list[int]) -> None:
    """Numbered fields are classes only if none is missing."""
    first = numbers[0]
    expected = range(first, first + len(numbers))
    missing = next((k for k, number in zip(expected, numbers, strict=True) if k != number), None)
    absent = missing if first in (0, 1) else 0
    if absent is not None:
        raise DataError(
            f"{file.name}: the {file.unit}s {pattern} are not numbered from 0 or 1 without a "
            f"gap ({pattern.replace('*', str(absent))} is not there)"
        )


def _check_words(file: FileFields, pattern: str, suffixes: list[str]) -> None:
    """Refuse numbers among words, or a word among numbers: one of them is no class."""
    numbers = [suffix for suffix in suffixes if suffix.isdigit()]
    if not numbers:
        return
    words = [suffix for suffix in suffixes if not suffix.isdigit()]
    odd, kind = (words, "a number") if len(numbers) >= len(words) else (numbers, "a word")
    named = ", ".join(pattern.replace("*", each) for each in odd[:_LISTED])
    others = " ".join(f"--logits {pattern.replace('*', '[0-9]*')!r}" for _ in words[:1])
    ways = f"{others} takes those with a number" if kind == "a number" else "rename it"
    raise DataError(
        f"{file.name}: {named} is no class like the other {file.unit}s {pattern}, which end in "
        f"{kind}; {ways}"
    )


def check_texts(file: DataFile, scores: Scores) -> None:
    """Refuse texts among scores that are numbers but for some rows, as a reader of CSV gives them.

    Raises
    ------
    DataError
        A field of text that was left out begins with a number.
    """
    batch = file.head(scores.texts, 0, _TEXT_ROWS) if scores.texts else None
    if batch is None:
        return
    fields = FileFields.of(file)
    for name in scores.texts:
        if any(map(_is_number, batch.values(name).names or ())):
            raise DataError(_no_score(fields, fields.require(name), scores.hint))


def _no_score(file: FileFields, field: Field, pattern: str) -> str:
    return (
        f"{file.name}: {file.title(field)} matches {pattern!r} but is not one floating-point "
        "number a row"
    )


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "."))
    except ValueError:
        return False
    return True


def check_order(file: FileFields, scores: Scores, labels: Field) -> None:
    """Refuse to guess which class 0 is, where names and the file put the classes in two orders.

    Raises
    ------
    UsageError
        The labels are numbers, and the scores are fields that are named for the classes and stand
        in another order than that of their names.
    """
    if labels.element == "string" or scores.file_order in (None, scores.class_names):
        return
    orders = (",".join(order or ()) for order in (scores.file_order, scores.class_names))
    in_file, by_name = orders
    raise UsageError(
        f"{file.name}: the labels are numbers, and which class is 0 is not known: the {file.unit}s "
        f"stand in the order {in_file}, which is not that of their names; say which is meant: "
        f"--classes {in_file} or --classes {by_name}"
    )


def find_labels(
    file: FileFields, asked: str | None, scores: Scores, *, required: bool
) -> Field | None:
    """The field of labels: the one asked for, or the first of `LABELS`; None if there is none.

    Where labels are not required, a field that cannot be labels is passed over.

    Raises
    ------
    UsageError
        What was asked for is not there.
    DataError
        It cannot be labels.
    """
    if asked is not None:
        field: Field | None = file.require(asked)
    else:
        taken = {field.name for field in scores.fields}
        free = replace(file, fields=tuple(each for each in file.fields if each.name not in taken))
        named = free.named(LABELS)
        # Other names are not tried where the first ones are there and hold something else.
        is_wrong = required and named and not any(map(_can_be_labels, named))
        field = named[0] if is_wrong else choose_labels(free, _can_be_labels)
    if field is not None:
        check_labels(file, field)
    return field


def choose_labels(
    file: FileFields, *fitting: Callable[[Field], bool], more: tuple[str, ...] = ()
) -> Field | None:
    """The field of labels by its name: the first of `LABELS`, or the only one of the others.

    Parameters
    ----------
    file : FileFields
    *fitting : callable
        Whether a field may be labels by what it holds: of the first such there is. By default any.
    more : tuple of str
        Names that are tried after all others.

    Raises
    ------
    UsageError
        There are several of the names that are tried last.
    """
    for names in (LABELS, OTHER_LABELS, more):
        named = file.named(names)
        for fits in fitting or (named.__contains__,):
            usable = [field for field in named if fits(field)]
            if len(usable) > 1 and names is not LABELS:
                raise _several(file, "labels", "--labels", [field.name for field in usable])
            if usable:
                return usable[0]
    return None


def likely_labels(
    file: DataFile, asked: str | None, *fitting: Callable[[Field], bool]
) -> Field | None:
    """The field that will be taken as labels; what was asked for need not be there yet.

    Raises
    ------
    UsageError
        There are several, see `choose_labels`.
    """
    fields = FileFields.of(file)
    asked = file.roles.get("labels", asked)
    return choose_labels(fields, *fitting) if asked is None else fields.find(asked)


def named_labels(file: FileFields) -> Field | None:
    """The field that is labels by its name; None where there is none, or no telling which."""
    try:
        return choose_labels(file, _can_be_labels)
    except UsageError:
        return None


def other_labels(file: FileFields, labels: Field, scores: Scores) -> list[str]:
    """The names of fields that could be the labels as well, one-hot ones among them."""
    taken = {labels.name, *(field.name for field in scores.fields)}
    possible = [field for field in file.named(LABELS) if field.axes < 3 and field.name not in taken]
    return [field.name for field in possible if field.element != "other"]


def check_labels(file: FileFields, field: Field) -> None:
    """Refuse a field that cannot be labels.

    Raises
    ------
    DataError
        It does not hold one number or name a row.
    """
    if not _can_be_labels(field):
        raise DataError(
            f"{file.name}: {file.title(field)} cannot be labels; they are one class number "
            "(from 0) or class name a row"
        )


def _can_be_labels(field: Field) -> bool:
    # Lists of any length may all have one label; whoever reads the rows says which one has not.
    single = field.axes == 1 or (field.axes == 2 and field.width in (1, None))
    return single and field.element != "other"


def find_weights(file: FileFields, asked: str | None) -> Field | None:
    """The field of weights, if one was asked for.

    Raises
    ------
    UsageError
        It is not there.
    DataError
        It does not hold one number a row.
    """
    if asked is None:
        return None
    field = file.require(asked, " for --weights")
    if field.axes != 1 or field.element not in ("float", "integer", "bool"):
        raise DataError(
            f"{file.name}: {file.title(field)} cannot be weights; they are one number a row"
        )
    return field


def find_key(file: FileFields, role: str, asked: str) -> Field:
    """The field whose values put the rows into the groups of a role.

    Raises
    ------
    UsageError
        It is not there.
    DataError
        It does not hold one number, text or truth value a row.
    """
    field = file.require(asked, " for --cluster" if role == "cluster" else " for --by")
    if field.axes != 1 or field.element == "other":
        raise DataError(
            f"{file.name}: {file.title(field)} cannot be groups; they are one whole number, text "
            "or truth value a row"
        )
    return field
