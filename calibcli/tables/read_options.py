"""What a user may say about the input files; the same for every command."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from calibcli.errors import ParamsError, UsageError
from calibcli.params import first_twice
from calibcli.small_files import read_small
from calibcli.tables.kinds import PERCENT
from calibcli.tables.labels import composed

NO_CLASS_AXIS = "none"
"""What `ReadOptions.class_axis` is where each place has one score."""

LABEL_NAME = "label name"
"""The column that says which label a row is about, where there is a row for each label."""

MEMBERS = ("mean-probs", "mean-logits", "each")
"""What the members of an ensemble become."""

KINDS = ("logits", "log-probs", "probs", PERCENT)

REST_SHARED = "share"
TOPK_RESTS = (REST_SHARED, "floor")
"""What a class may have that is not listed: its share of the rest, or the least that is listed."""

STRIP, KEEP = "strip", "keep"
TOPK_SPACES = (STRIP, KEEP)
"""Whether a token with spaces around the name of a class is this class."""

REFUSE, SKIP = "refuse", "skip"
"""What becomes of rows without a label."""

_MOST_AXES = 32
_AXES = f"whole number, below {_MOST_AXES}"


@dataclass(frozen=True)
class Remembered:
    """That a calibrator is for an option of its input, which its parameter file holds.

    Attributes
    ----------
    read : callable
        JSON -> value; raises ValueError or TypeError.
    shape, meaning : str
        The values in words, and what was decided, for the reference.
    """

    read: Callable[[Any], Any]
    shape: str
    meaning: str


def _remembered(read: Callable[[Any], Any], shape: str, meaning: str) -> dict[str, Any]:
    return {_REMEMBERED: Remembered(read, shape, meaning)}


_REMEMBERED = "remembered"


def _only(*allowed: object, meaning: str, shape: str = "") -> dict[str, Any]:
    """The metadata of an option that is remembered where it has one of some values."""

    def read(value: object) -> object:
        if not any(type(value) is type(each) and value == each for each in allowed):
            raise ValueError
        return value

    listed = " or ".join(f"`{json.dumps(each)}`" for each in allowed)
    return _remembered(read, shape or listed, meaning)


def _whole_numbers(value: object) -> tuple[int, ...]:
    numbers = tuple(value) if isinstance(value, list) else ()
    if not numbers or any(type(each) is not int for each in numbers) or len(set(numbers)) < 2:
        raise ValueError
    return numbers


def _texts(value: object) -> tuple[str, ...]:
    texts = tuple(value) if isinstance(value, list) else ()
    if not texts or not all(isinstance(each, str) for each in texts):
        raise ValueError
    return texts


def _count(value: object) -> int:
    if type(value) is not int or value < 1:
        raise ValueError
    return value


@dataclass(frozen=True)
class Reading:
    """How the input of a fit was read: what other inputs of its calibrator have to be read by.

    Attributes
    ----------
    origin : str
        What messages call the file that says so.
    decisions : dict
        Values as JSON has them, by the field of `ReadOptions`; see `Layout.decisions`.
    classes : tuple of str or None
        The names of the classes.
    class_count : int or None
        How many there are.
    """

    origin: str
    decisions: Mapping[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] | None = None
    class_count: int | None = None


@dataclass(frozen=True)
class ReadOptions:
    """How the columns of the input are found and read.

    Attributes
    ----------
    logits : str or None
        Name of the column or NPZ key of scores; or scalar columns, one a class: a pattern such as
        ``logit_*``, or their names with commas between them. None: well-known names are tried.
    labels : str or None
        Name of the column or key of labels, the path of an ``.npy`` file of them, or a folder with
        a file of labels for each input, of the same name.
    weights : str or None
        Name of the column or key of row weights. They are never used without being asked for.
    counts : str or None
        Name of the column or key of the numbers of rows that each row stands for. Where labels are
        not required, a row is a row.
    input : str
        ``"auto"``, or what the scores are: ``"logits"``, ``"log-probs"``, ``"probs"`` or
        ``"percent"``.
    renormalise : bool
        Whether each row of probabilities is divided by its sum.
    classes : tuple of str or None
        Class names in the order of the score columns.
    ignore_label : int, str, tuple of these, or None
        Rows with one of these labels are left out. Where labels are not required nothing is left
        out.
    unlabelled : str
        What becomes of rows without a label where labels are required: ``"refuse"`` or ``"skip"``.
    labels_required : bool
        Whether labels must be there. Otherwise they are read where they are found.
    single_pass : bool
        Whether one pass is all that is needed: an Arrow IPC stream on standard input is then
        read from the pipe as it comes, and the number of rows is not known (-1).
    with_columns : bool
        Whether the columns that ride along will be read: only then must those of several files go
        together.
    keys : dict of str to str
        Columns or keys whose values put the rows into groups, by the role of these groups:
        ``"group"`` (a map each), ``"by"`` (slices) or ``"cluster"``.
    key_names : dict of str to tuple of str
        Values, as text, that are numbered first, so that their numbers mean the same in several
        data sets; by role.
    multi_label : bool
        Whether any number of labels may be right in a row: each becomes a problem of two classes.
    label_names : tuple of str or None
        The names of these labels, where a fit has them. Otherwise ``classes`` are their names.
    class_axis : int, ``"none"`` or None
        The axis of the classes in scores with more axes than a table, from 0; ``"none"`` where each
        place has one score, that of class 1. By default the shape of the labels proves it.
    member_axis : int or None
        The axis of the members of an ensemble.
    members : str or None
        What the members of an ensemble become: one of `MEMBERS`.
    sample : int or None
        Places of each image that are read, chosen at random, the same ones every time.
    member_count : int or None
        How many members of an ensemble become one model.
    num_classes : int or None
        How many classes there are, where the rows have fewer scores: those that a row has not are
        impossible. None: as many as the longest row.
    topk_rest : str or None
        What a class has that is not among the most probable ones of a row, where only these are
        stored: one of `TOPK_RESTS`; None for the first.
    topk_spaces : str or None
        Whether spaces around tokens are left out: one of `TOPK_SPACES`; None: where no class is
        among the first tokens otherwise.
    positive : int or None
        The positive class of two. Nothing that is read depends on it: it is what measures and
        decisions are about.
    spool_limit : int or None
        Bytes that a stream, or a compressed array of an NPZ file, may take on this machine; by
        default those of `Spool`.
    label_numbers : tuple of int or None
        The number that stands for each class in the labels; None: found from the labels.
    like : Reading or None
        What the options that were not given are repeated from, see `repeating`. Its class names
        are those of files that have none.
    labels_where_there : bool
        Whether labels that are required need not be there: without any, they are not required.
    noted : bool
        Whether the kind of the scores is what the file says of itself, see `noting`.
    """

    logits: str | None = None
    labels: str | None = None
    weights: str | None = None
    counts: str | None = None
    input: str = field(
        default="auto",
        metadata=_only(
            PERCENT, "probs", meaning="what the scores are; the second beside `renormalise`"
        ),
    )
    renormalise: bool = field(
        default=False,
        metadata=_only(True, meaning="each row of probabilities was divided by its sum"),
    )
    classes: tuple[str, ...] | None = None
    ignore_label: int | str | tuple[int | str, ...] | None = None
    unlabelled: str = REFUSE
    labels_required: bool = True
    single_pass: bool = False
    with_columns: bool = True
    keys: Mapping[str, str] = field(default_factory=dict)
    key_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    multi_label: bool = field(
        default=False,
        metadata=_only(True, meaning="any number of labels may be right in a row"),
    )
    label_names: tuple[str, ...] | None = field(
        default=None,
        metadata=_remembered(_texts, "list of strings", "the names of these labels, in order"),
    )
    class_axis: int | str | None = field(
        default=None,
        metadata=_only(
            *range(_MOST_AXES),
            NO_CLASS_AXIS,
            meaning="the axis of the classes in grids of scores; the last: one score a place",
            shape=f'{_AXES}, or `"{NO_CLASS_AXIS}"`',
        ),
    )
    member_axis: int | None = field(
        default=None,
        metadata=_only(
            *range(_MOST_AXES), meaning="the axis of the members of an ensemble", shape=_AXES
        ),
    )
    members: str | None = field(
        default=None, metadata=_only(*MEMBERS, meaning="what the members of an ensemble became")
    )
    sample: int | None = None
    member_count: int | None = field(
        default=None,
        metadata=_remembered(_count, "whole number", "how many members became one model"),
    )
    num_classes: int | None = field(
        default=None,
        metadata=_remembered(
            _count, "whole number", "what shorter rows were padded to with impossible classes"
        ),
    )
    topk_rest: str | None = field(
        default=None,
        metadata=_only(
            *TOPK_RESTS, meaning="what classes had that are not among the most probable of a row"
        ),
    )
    topk_spaces: str | None = field(
        default=None,
        metadata=_only(*TOPK_SPACES, meaning="whether spaces around tokens were left out"),
    )
    positive: int | None = field(
        default=None, metadata=_only(0, 1, meaning="the positive class of two, by number")
    )
    spool_limit: int | None = None
    label_numbers: tuple[int, ...] | None = field(
        default=None,
        metadata=_remembered(
            _whole_numbers,
            "list of K whole numbers",
            "the number in the labels that stands for each class, where the labels had to show "
            "it: -1 and 1, or the numbers that the classes are named by",
        ),
    )
    like: Reading | None = None
    labels_where_there: bool = False
    noted: bool = False

    def noting(self, notes: Mapping[str, str]) -> ReadOptions:
        """The options with what a file says of itself in place of those that were not given.

        It says it of rows that were read by options of their own: nothing of these is repeated, as
        a fit of the rows before would ask for.
        """
        if not notes or self.logits not in (None, notes.get("logits")):
            return self
        repeated = {} if self.like is None else self.like.decisions
        defaults: dict[str, Any] = {each.name: each.default for each in fields(self)}
        plain: ReadOptions = replace(self, **{name: defaults[name] for name in repeated})
        changes: dict[str, Any] = {
            name: notes[name]
            for name in ("logits", "labels", "weights", "input")
            if name in notes and getattr(plain, name) == defaults[name]
        }
        count = notes.get("num_classes", "")
        if count.isdecimal() and plain.num_classes is None:
            changes["num_classes"] = int(count)
        if "cluster" in notes and self.labels_required:
            changes["keys"] = {"cluster": notes["cluster"], **self.keys}
        like = None if self.like is None else replace(self.like, decisions={})
        return replace(plain, **changes, like=like, noted="input" in changes)

    def repeating(self, reading: Reading) -> ReadOptions:
        """The options with what a fit remembers in place of those that were not given.

        Raises
        ------
        UsageError
            An option contradicts it.
        ParamsError
            It has something that is not known here.
        """
        options = remembered_options()
        defaults = {each.name: each.default for each in fields(self)}
        changes: dict[str, Any] = {}
        repeated: dict[str, Any] = {}
        for name, stored in reading.decisions.items():
            try:
                value = options[name].read(stored)
            except (KeyError, ValueError, TypeError):
                raise ParamsError(
                    f"{reading.origin}: its 'reading' has {name} = {stored!r}, which this calib "
                    "does not know"
                ) from None
            given = getattr(self, name)
            if given not in (defaults[name], value):
                raise UsageError(
                    f"{_spelled(name, given)}: {reading.origin} was fitted with "
                    f"{_spelled(name, value)}, and what it says holds for no other rows; leave it "
                    "out, or fit again"
                )
            changes[name] = value
            if given != value:
                repeated[name] = stored
        return replace(self, **changes, like=replace(reading, decisions=repeated))

    @property
    def of_table(self) -> ReadOptions:
        """The options for what has become a table: labels that are rows are no classes."""
        return replace(self, classes=None) if self.multi_label else self

    @property
    def class_count(self) -> int | None:
        """The number of classes, where a fit says it."""
        return None if self.like is None else self.like.class_count

    def repeats(self, name: str) -> bool:
        """Whether an option was not given, and is that of a fit."""
        return self.like is not None and name in self.like.decisions

    @property
    def repeated(self) -> str:
        """What is repeated from a fit, for a person; empty where nothing is."""
        names = () if self.like is None else self.like.decisions
        return " ".join(_spelled(name, getattr(self, name)) for name in names)

    @property
    def ignored(self) -> tuple[int | str, ...]:
        """The labels of rows to be left out."""
        if self.ignore_label is None:
            return ()
        return self.ignore_label if isinstance(self.ignore_label, tuple) else (self.ignore_label,)

    def __post_init__(self) -> None:
        if self.input not in ("auto", *KINDS):
            raise UsageError(
                f"--input {self.input}: there is no such kind of scores; "
                f"use auto, {', '.join(KINDS)}"
            )
        if self.unlabelled not in (REFUSE, SKIP):
            raise UsageError(f"--unlabelled {self.unlabelled}: use {REFUSE} or {SKIP}")
        if self.renormalise and self.input not in ("probs", PERCENT):
            raise UsageError("--renormalise divides probabilities by their sum: add --input probs")
        if self.num_classes is not None and self.num_classes < 2:
            raise UsageError(f"--num-classes {self.num_classes}: there are at least two")
        if self.topk_rest not in (None, *TOPK_RESTS):
            raise UsageError(f"--topk-rest {self.topk_rest}: use {' or '.join(TOPK_RESTS)}")
        if self.topk_spaces not in (None, *TOPK_SPACES):
            raise UsageError(f"--topk-spaces {self.topk_spaces}: use {' or '.join(TOPK_SPACES)}")
        if self.classes is not None:
            check_classes(self.classes, "--classes")


def remembered_options() -> dict[str, Remembered]:
    """The options that hold for every input of a calibrator, by name."""
    return {
        each.name: each.metadata[_REMEMBERED]
        for each in fields(ReadOptions)
        if _REMEMBERED in each.metadata
    }


def parse_class_axis(text: str) -> int | str:
    """The axis that ``--class-axis`` names: a number, or `NO_CLASS_AXIS`.

    Raises
    ------
    UsageError
        It is neither.
    """
    if text == NO_CLASS_AXIS:
        return text
    try:
        return int(text)
    except ValueError:
        raise UsageError(
            f"--class-axis {text}: give the number of an axis, from 0, or {NO_CLASS_AXIS}"
        ) from None


def _spelled(name: str, value: object) -> str:
    """An option as a person types it."""
    flag = f"--{name.replace('_', '-')}"
    if isinstance(value, tuple):
        listed = ",".join(map(str, value[:_LISTED]))
        return f"{name.replace('_', ' ')} {listed}{',…' if value[_LISTED:] else ''}"
    return flag if value is True else f"{flag} {value}"


_LISTED = 5


def parse_classes(text: str) -> tuple[str, ...]:
    """Class names from ``"cat,dog,fish"``, or from a file that has one name a line.

    Raises
    ------
    UsageError
        Fewer than two names, an empty name, a name twice, or a file that cannot be read.
    """
    names = [name.strip() for name in text.split(",")]
    # A single name is never a list of classes, so it can only be a file.
    if len(names) == 1:
        try:
            lines = read_small(text).decode("utf-8-sig").splitlines()
        except (OSError, ValueError) as error:
            raise UsageError(
                f"--classes {text}: give at least two names ('cat,dog'), or a text file "
                f"with one name a line ({getattr(error, 'strerror', None) or 'not text'})"
            ) from error
        names = [line.strip() for line in lines if line.strip()]
    check_classes(names, f"--classes {text}")
    return tuple(names)


def check_classes(names: tuple[str, ...] | list[str], where: str) -> None:
    """Refuse class names that cannot be told apart.

    Raises
    ------
    UsageError
        Fewer than two names, an empty name, or a name twice.
    """
    if len(names) < 2:
        raise UsageError(f"{where}: at least two class names are needed")
    if not all(names):
        raise UsageError(f"{where}: a class name is empty")
    twice = first_twice([composed(name) for name in names])
    if twice is not None:
        raise UsageError(f"{where}: class {twice!r} is there twice")
