"""The most probable tokens or classes of each row, as APIs of language models return them.

Of a row there are a few tokens with their log-probabilities, and the rest of the probability is
that of all others. A class that is not listed is less probable than the least that is, and no more
probable than the rest: it has its share of the rest, which is divided by the classes that are not
listed, but at most the least listed probability (``"share"``), or the latter (``"floor"``). The
classes of a row are then divided by their sum: what other tokens have is left out.

Forms: lists of structs (``token``, ``logprob``), maps from a token to its log-probability, and two
columns ``topk_index`` and ``topk_logprob``, with the rest in ``topk_rest`` where it is known
better.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from calibcli.arrays import SMALLEST_PROBABILITY, NumpyArray
from calibcli.engine.kept_columns import TOP_INDEX, TOP_LOGPROB, TOP_REST
from calibcli.errors import UsageError
from calibcli.tables.formats.arrow_arrays import host_array
from calibcli.tables.formats.base import DataFile, Field, RowError, locating_rows
from calibcli.tables.names import FAMILIES, LABELS, SCORES, FileFields
from calibcli.tables.read_options import KEEP, REST_SHARED, STRIP, ReadOptions
from calibcli.tables.shapes.base import OpenedFiles
from calibcli.tables.shapes.derived import first_rows, with_derived
from calibcli.tables.storage import Spool

COUNTS = "choices"
"""The column that says how many of the classes are choices of a row."""

_NAMES = ("top_logprobs", "topk_logprobs", "top_log_probs", *SCORES)
_TOKEN = ("token", "decoded_token", "text")
_VALUE = ("logprob", "log_prob")
_NESTED = ("list<struct", "large_list<struct", "map<", "struct<")
_LOOKED_AT, _LISTED = 1024, 8
_TOLERANCE = 0.02


def read_top_tokens(opened: OpenedFiles, options: ReadOptions, _: Spool) -> OpenedFiles:
    """Make a row of log-probabilities of all classes where a file has the most probable tokens.

    Raises
    ------
    UsageError
        The classes are not known, or the tokens lie deeper in a column.
    """
    first = opened.files[0]
    fields = FileFields.of(first)
    if (
        options.logits in (None, TOP_LOGPROB)
        and fields.find(TOP_LOGPROB)
        and fields.find(TOP_INDEX)
    ):
        return _from_numbers(opened, options)
    field = _column(fields, options.logits)
    if field is None:
        if options.logits is None:
            _propose_path(first, fields)
        return opened
    rows = first_rows(first, field.name, _LOOKED_AT)
    form = _form(rows.type) if len(rows) else None
    if form is None:
        return opened
    if form == "positions":
        raise UsageError(
            f"{fields.name}: {fields.title(field)[:80]} is a list of the tokens of an answer; say "
            f"of which one the alternatives are the classes, such as the first: --logits "
            f"{field.name}.0.top_logprobs"
        )
    classes = _class_names(first, options)
    if classes is None:
        raise UsageError(
            f"{fields.name}: column {field.name!r} has the most probable tokens of each row; say "
            f"which tokens are the classes: --classes {_proposal(first, fields, options)!r}"
        )
    top = TopTokens(
        field.name,
        classes,
        options.topk_rest or REST_SHARED,
        strips=options.topk_spaces == STRIP,
        refuses=options.topk_spaces is None or options.repeats("topk_spaces"),
        counts=COUNTS if _counts_choices(first, classes) else None,
    )
    with locating_rows(first, 0):
        seen = top.tokens(rows)
        # A space before a word belongs to many a token, and never to the name of a class.
        is_open = options.topk_spaces is None and not set(classes) & seen
        if is_open and set(classes) & {token.strip() for token in seen}:
            top = replace(top, strips=True)
        share = top.masses(rows).sum(axis=1).mean()
    said = f"{top.said}; the classes have {share:.0%} of the probability in the first rows"
    near = sorted(seen & _likely(seen, classes)) if not top.strips else []
    if near:
        said += f"; other tokens: {', '.join(map(repr, near[:_LISTED]))}"
    return _derived(opened, field.name, top, said, classes)


def _counts_choices(file: DataFile, classes: tuple[str, ...]) -> bool:
    """Whether a column says how many of the classes are choices of the row."""
    field = FileFields.of(file).find(COUNTS)
    return field is not None and field.element == "integer" and file.class_names == classes


def _from_numbers(opened: OpenedFiles, options: ReadOptions) -> OpenedFiles:
    first = opened.files[0]
    names = _class_names(first, options)
    count = len(names) if names else options.num_classes or options.class_count
    if count is None:
        raise UsageError(
            f"{first.location.name}: has the most probable classes alone; say how many there are: "
            "--num-classes N"
        )
    has_rest = FileFields.of(first).find(TOP_REST) is not None
    top = TopClasses(count, options.topk_rest or REST_SHARED, TOP_REST if has_rest else None)
    return _derived(opened, TOP_LOGPROB, top, top.said, names)


def _derived(
    opened: OpenedFiles,
    name: str,
    top: TopTokens | TopClasses,
    said: str,
    classes: tuple[str, ...] | None,
) -> OpenedFiles:
    files = tuple(
        with_derived(
            file,
            {name: top},
            decisions={**file.decisions, **top.decisions},
            picked={**file.picked, "top": said},
            roles={**file.roles, "logits": name},
            score_kind="log-probs",
            class_names=classes if file.class_names is None else file.class_names,
        )
        for file in opened.files
    )
    return OpenedFiles(files, opened.labels)


def _class_names(file: DataFile, options: ReadOptions) -> tuple[str, ...] | None:
    """The names of the classes: as asked for, those of the file, or those of a fit."""
    fitted = None if options.like is None else options.like.classes
    return options.classes or file.class_names or fitted


def _column(fields: FileFields, asked: str | None) -> Field | None:
    names = _NAMES if asked is None else (asked,)
    return next((field for field in fields.named(names) if field.type.startswith(_NESTED)), None)


def _form(kind: Any) -> str | None:
    """``"structs"``, ``"map"`` or ``"object"``, or ``"positions"`` of an answer; None otherwise."""
    import pyarrow as pa

    if pa.types.is_map(kind):
        value = kind.item_type
        if pa.types.is_floating(value):
            return "map"
        return "map" if pa.types.is_struct(value) and _member(value, _VALUE) else None
    if pa.types.is_struct(kind):
        numbers = [pa.types.is_floating(field.type) for field in kind]
        return "object" if len(numbers) > 1 and all(numbers) else None
    value = getattr(kind, "value_type", None)
    if value is None or not pa.types.is_struct(value):
        return None
    if not (_member(value, _TOKEN) and _member(value, _VALUE)):
        return None
    return "positions" if value.get_field_index("top_logprobs") >= 0 else "structs"


def _member(kind: Any, names: tuple[str, ...]) -> str | None:
    return next((name for name in names if kind.get_field_index(name) >= 0), None)


def _propose_path(file: DataFile, fields: FileFields) -> None:
    """Name the path of top tokens that lie within a column, where nothing else can be the scores.

    Raises
    ------
    UsageError
    """
    if any(fields.find(name) for name in SCORES) or any(
        field.name.startswith(family.rstrip("*")) for field in fields.fields for family in FAMILIES
    ):
        return
    for field in fields.fields:
        if field.type.startswith(_NESTED):
            kind = getattr(first_rows(file, field.name, 1), "type", None)
            for path in _paths(kind, field.name):
                raise UsageError(
                    f"{fields.name}: no column holds scores, but {field.name!r} holds the most "
                    f"probable tokens: --logits {path}, with --classes for those that are classes"
                )


def _paths(kind: Any, path: str) -> Iterator[str]:
    """The paths of top tokens within a type, of each list its first place."""
    import pyarrow as pa

    if kind is None:
        return
    form = _form(kind)
    if form in ("structs", "map") or (form == "object" and path.endswith("top_logprobs.0")):
        yield path
    elif pa.types.is_struct(kind):
        for field in kind:
            yield from _paths(field.type, f"{path}.{field.name}")
    elif hasattr(kind, "value_type"):
        yield from _paths(kind.value_type, f"{path}.0")


def _proposal(file: DataFile, fields: FileFields, options: ReadOptions) -> str:
    """The names that the labels have, as a list of classes; an example where they have none."""
    names = LABELS if options.labels is None else (options.labels,)
    label = next(iter(fields.named(names)), None)
    batch = None if label is None else file.head((label.name,), 0, _LOOKED_AT)
    if label is None or batch is None or label.element != "string":
        return "Yes,No"
    return ",".join(sorted(set(batch.values(label.name).in_order())))


def _likely(tokens: set[str], classes: tuple[str, ...]) -> set[str]:
    """Tokens that differ from a class by spaces or capitals alone."""
    known = {name.casefold() for name in classes}
    return {each for each in tokens if each not in classes and each.strip().casefold() in known}


@dataclass(frozen=True)
class _Listed:
    """What is listed, one entry after the other.

    Attributes
    ----------
    rows : int array (m,)
        The row of each entry.
    tokens : array (m,)
        Texts, or class numbers.
    logs : array (m,)
        Log-probabilities; ``-inf`` of those that were cut off.
    count : int
        Rows.
    """

    rows: NumpyArray
    tokens: NumpyArray
    logs: NumpyArray
    count: int

    def masses(self, codes: NumpyArray, classes: int, rest: NumpyArray | None, how: str) -> Any:
        """The probabilities (n, K) of the classes; what is not listed by the rule ``how``.

        Parameters
        ----------
        codes : int array (m,)
            The class of each entry; negative of those that are none.
        classes : int
        rest : array (n,) or None
            The probability that is not listed; None: what is missing to 1.
        how : str
        """
        self._check()
        probs = np.exp(self.logs)
        listed = self.logs > -np.inf
        totals = np.bincount(self.rows, probs, self.count)
        if (totals > 1 + _TOLERANCE).any():
            row = int(totals.argmax())
            raise RowError(row, f"the probabilities listed sum to {totals[row]:.6g}")
        least = np.full(self.count, np.inf)
        np.minimum.at(least, self.rows[listed], probs[listed])
        if np.isinf(least).any():
            raise RowError(int(np.isinf(least).argmax()), "no token has a log-probability")
        of_class = listed & (codes >= 0)
        places = self.rows[of_class], codes[of_class]
        masses = np.zeros((self.count, classes))
        np.add.at(masses, places, probs[of_class])
        has_mass = np.zeros((self.count, classes), bool)
        has_mass[places] = True
        fill = least
        if how == REST_SHARED:
            left = np.maximum(1 - totals, 0) if rest is None else rest
            fill = np.minimum(left / np.maximum(classes - has_mass.sum(axis=1), 1), least)
        return np.where(has_mass, masses, np.maximum(fill, SMALLEST_PROBABILITY)[:, None])

    def _check(self) -> None:
        wrong = ~(self.logs <= _TOLERANCE)
        if wrong.any():
            at = int(wrong.argmax())
            raise RowError(
                int(self.rows[at]), f"the log-probability {self.logs[at]:.6g} is none (above 0)"
            )


def _logarithms(masses: NumpyArray) -> Any:
    """Rows of masses as log-probabilities that sum to 1, in lists of a fixed size."""
    import pyarrow as pa

    with np.errstate(divide="ignore"):  # a class that is no choice of the row
        logs = np.log(masses) - np.log(masses.sum(axis=1, keepdims=True))
    return pa.FixedSizeListArray.from_arrays(pa.array(logs.reshape(-1)), masses.shape[1])


@dataclass(frozen=True)
class TopTokens:
    """Log-probabilities of classes from the most probable tokens; a `Derivation`.

    Attributes
    ----------
    name : str
        The column of tokens.
    classes : tuple of str
    rest : str
        How what is not listed is shared, one of `TOPK_RESTS`.
    strips : bool
        Whether spaces around a token do not matter; tokens of one class are added up.
    refuses : bool
        Whether, where they do, a row is refused that lists classes with spaces alone.
    counts : str or None
        The column that says how many classes, from the first on, are possible in a row.
    """

    name: str
    classes: tuple[str, ...]
    rest: str
    strips: bool = False
    refuses: bool = True
    counts: str | None = None

    @property
    def decisions(self) -> dict[str, str]:
        """What must mean the same for other rows, see `DataFile.decisions`."""
        return {"topk_rest": self.rest, "topk_spaces": STRIP if self.strips else KEEP}

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.name,) if self.counts is None else (self.name, self.counts)

    @property
    def type(self) -> Any:
        import pyarrow as pa

        return pa.list_(pa.float64(), len(self.classes))

    @property
    def said(self) -> str:
        """What is done, for a person."""
        spaces = ", spaces around them left out" if self.strips else ""
        return f"the most probable tokens{spaces}; a class not listed has {_SAID[self.rest]}"

    def column(self, batch: Any) -> Any:
        """The log-probabilities of the classes, as lists of a fixed size.

        Raises
        ------
        RowError
            A log-probability is missing or none.
        """
        masses = self.masses(batch.column(self.name))
        if self.counts is not None:
            counts = host_array(batch.column(self.counts))
            masses[np.arange(len(self.classes)) >= counts[:, None]] = 0
        return _logarithms(masses)

    def tokens(self, column: Any) -> set[str]:
        """The tokens that are listed."""
        return set(_listed(column, self.name).tokens.tolist())

    def masses(self, column: Any) -> NumpyArray:
        """The probabilities (n, K) of the classes, before they are divided by their sums."""
        listed = _listed(column, self.name)
        numbers = {name: number for number, name in enumerate(self.classes)}
        texts = listed.tokens.tolist()
        if self.strips:
            texts = [text.strip() for text in texts]
        codes = np.array([numbers.get(text, -1) for text in texts], np.int64)
        if self.refuses and not self.strips:
            self._check(listed, codes)
        masses: NumpyArray = listed.masses(codes, len(self.classes), None, self.rest)
        return masses

    def _check(self, listed: _Listed, codes: NumpyArray) -> None:
        """Refuse rows whose only classes have spaces around them."""
        has_class = np.bincount(listed.rows[codes >= 0], minlength=listed.count) > 0
        for at in np.flatnonzero(~has_class[listed.rows]).tolist():
            token = listed.tokens[at]
            if token.strip() in self.classes:
                raise RowError(
                    int(listed.rows[at]),
                    f"lists {token!r} and no class without spaces, as other rows do; --topk-spaces "
                    f"{STRIP} takes it for the class, --topk-spaces {KEEP} for another token",
                )


@dataclass(frozen=True)
class TopClasses:
    """Log-probabilities of all classes from those of the most probable; a `Derivation`.

    Attributes
    ----------
    classes : int
    rest : str
        How what is not listed is shared, one of `TOPK_RESTS`.
    left : str or None
        The column of the probability that is not listed.
    """

    classes: int
    rest: str
    left: str | None

    @property
    def decisions(self) -> dict[str, str]:
        """What must mean the same for other rows, see `DataFile.decisions`."""
        return {"topk_rest": self.rest}

    @property
    def sources(self) -> tuple[str, ...]:
        return (TOP_INDEX, TOP_LOGPROB, *(() if self.left is None else (self.left,)))

    @property
    def type(self) -> Any:
        import pyarrow as pa

        return pa.list_(pa.float64(), self.classes)

    @property
    def said(self) -> str:
        """What is done, for a person."""
        return (
            f"the most probable of {self.classes} classes; another one has {_SAID[self.rest]}; so "
            "NLL, Brier and class-wise errors are approximate"
        )

    def column(self, batch: Any) -> Any:
        """The log-probabilities of all classes, as lists of a fixed size.

        Raises
        ------
        RowError
            A class is none, or is listed twice, or a log-probability is missing or none.
        """
        from calibcli.tables.formats.arrow_types import flattened, numbers_in

        numbers, counts = flattened(batch.column(TOP_INDEX), TOP_INDEX)
        values, lengths = flattened(batch.column(TOP_LOGPROB), TOP_LOGPROB)
        if (counts != lengths).any():
            row = int((counts != lengths).argmax())
            raise RowError(row, f"{TOP_INDEX} and {TOP_LOGPROB} have different lengths")
        rows = np.repeat(np.arange(len(counts)), counts)
        codes = host_array(numbers)
        wrong = ~((codes >= 0) & (codes < self.classes))
        if wrong.any():
            at = int(wrong.argmax())
            raise RowError(int(rows[at]), f"the class {codes[at]} is none of {self.classes}")
        codes = codes.astype(np.int64)
        places = rows * self.classes + codes
        if len(np.unique(places)) < len(places):
            order = np.sort(places)
            twice = int(order[:-1][order[1:] == order[:-1]][0])
            raise RowError(twice // self.classes, "a class is listed twice")
        logs = host_array(values).astype(np.float64)
        rest = None
        if self.left is not None:
            rest = numbers_in(batch.column(self.left), self.left).astype(np.float64)
            wrong = ~((rest >= 0) & (rest <= 1 + _TOLERANCE))
            if wrong.any():
                raise RowError(int(wrong.argmax()), f"{self.left} is no probability")
        listed = _Listed(rows, codes, logs, len(counts))
        return _logarithms(listed.masses(codes, self.classes, rest, self.rest))


_SAID = {
    REST_SHARED: "its share of the rest, at most the least that is listed (--topk-rest share)",
    "floor": "the least probability that is listed (--topk-rest floor)",
}


def _listed(column: Any, name: str) -> _Listed:
    """The tokens of a column of any form."""
    form = _form(column.type)
    if form == "object":
        rows, tokens, logs = _of_object(column)
    else:
        rows, tokens, logs = _of_lists(column, name)
    return _Listed(rows, tokens, logs, len(column))


def _of_object(column: Any) -> tuple[NumpyArray, NumpyArray, NumpyArray]:
    """Fields are tokens; those without a value are not listed."""
    names = [field.name for field in column.type]
    values = np.stack(
        [_floats(each) for each in column.flatten()] or [np.empty(len(column))], axis=1
    )
    rows, places = np.nonzero(~np.isnan(values))
    return rows, np.array(names, object)[places], values[rows, places]


def _of_lists(column: Any, name: str) -> tuple[NumpyArray, NumpyArray, NumpyArray]:
    import pyarrow as pa

    from calibcli.tables.formats.arrow_types import flattened

    if pa.types.is_map(column.type):
        if column.null_count:
            raise RowError(int(host_array(column.is_null()).argmax()), "no token")
        offsets = column.offsets.to_numpy()
        lengths, first = np.diff(offsets), int(offsets[0])
        count = int(offsets[-1]) - first
        tokens, values = (each.slice(first, count) for each in (column.keys, column.items))
        if pa.types.is_struct(values.type):
            named = _member(values.type, ("decoded_token",))
            tokens = tokens if named is None else values.field(named)
            values = values.field(_member(values.type, _VALUE))
    else:
        items, lengths = flattened(column, name)
        tokens, values = (items.field(_member(items.type, names)) for names in (_TOKEN, _VALUE))
    rows = np.repeat(np.arange(len(column)), lengths)
    texts = np.array([str(text) for text in tokens.to_pylist()], object)
    return rows, texts, _floats(values)


def _floats(array: Any) -> NumpyArray:
    values: NumpyArray = host_array(array).astype(np.float64)
    return values
