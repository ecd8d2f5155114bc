"""Samples of lm-evaluation-harness: a row a question, with the log-likelihood of each choice.

The files are those of ``lm_eval --log_samples``, ``samples_TASK_TIME.jsonl``: a row has
``filtered_resps`` (pairs of a log-likelihood and whether the choice is what greedy decoding gives),
``target``, and ``arguments`` with the texts of the choices. The scores are what ``acc`` is
computed of: the log-likelihoods, without a correction for the lengths of the choices.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any, Literal, TypeAlias

from calibcli.errors import DataError, UsageError
from calibcli.tables.formats.base import UNKNOWN_ROWS, Batch, DataFile
from calibcli.tables.read_options import ReadOptions
from calibcli.tables.shapes.base import OpenedFiles, row_count
from calibcli.tables.storage import Spool

_RESPONSES = ("filtered_resps", "resps")
_TIME = re.compile(r"_\d{4}-\d\d-\d\dT[\d.-]+$")
Digits: TypeAlias = Literal["number", "text"]
"""What a target of digits is: the number of a choice, as the harness logs it, or its text."""

_ROWS = 256
"""Questions read at a time; each may come with pages of examples."""


def read_samples(opened: OpenedFiles, options: ReadOptions, spool: Spool) -> OpenedFiles:
    """Make tables of samples: scores, labels, and where each row is from.

    Raises
    ------
    UsageError
        Another file beside them is no sample.
    DataError
        The samples are no questions with choices, or contradict themselves.
    """
    are_samples = [_is_sample(file) for file in opened.files]
    if not any(are_samples) or options.logits is not None:
        return opened
    if not all(are_samples):
        other = opened.files[are_samples.index(False)]
        raise UsageError(
            f"{other.location.name}: is no file of samples, but others are; leave it out"
        )
    files = tuple(_table(file, spool) for file in opened.files)
    return OpenedFiles(files, opened.labels)


def _is_sample(file: DataFile) -> bool:
    names = {field.name for field in file.fields}
    known = row_count(file) != UNKNOWN_ROWS
    return {"target"} < names and bool(names & set(_RESPONSES)) and known


def _table(file: DataFile, spool: Spool) -> DataFile:
    import pyarrow as pa

    from calibcli.tables.formats.text import typed_copy

    schema = pa.schema(
        [
            ("logits", pa.list_(pa.float64())),
            ("label", pa.int64()),
            ("task", pa.string()),
            ("subject", pa.string()),
            ("doc_id", pa.string()),
        ]
    )
    copy = typed_copy(file.location, file.format, schema, _batches(file, schema), spool, {})
    said = "of lm-evaluation-harness; scores are the log-likelihoods of the choices, as for its acc"
    roles = {"logits": "logits", "labels": "label"}
    return replace(copy, roles=roles, picked={"samples": said})


def _batches(file: DataFile, schema: Any) -> Iterator[Any]:
    import pyarrow as pa

    fields = {field.name: field for field in file.fields}
    wanted = (*_RESPONSES, "target", "arguments", "acc", "filter", "doc_id", "doc")
    names = [name for name in wanted if name in fields]
    if all(name in names for name in _RESPONSES):
        names.remove("resps")
    texts = {name for name in names if fields[name].element == "string"}
    task = _task(file.location.name)
    filters: set[str] = set()
    digits: Digits | None = None
    at = 0
    for batch in file.read(names, 0, row_count(file), _ROWS):
        made: dict[str, list[Any]] = {name: [] for name in schema.names}
        for question in _questions(batch, names, texts):
            where, stored = file.locate(at), question.stored
            filters.add(str(stored.get("filter")))
            if len(filters) > 1:
                listed = ", ".join(sorted(filters))
                raise DataError(
                    f"{where}: the samples are there once for each filter ({listed}); take those "
                    f'of one: grep \'"filter": "{min(filters)}"\' {file.location.name!r} | '
                    "calib evaluate -"
                )
            made["logits"].append(question.likelihoods(where))
            if digits is None and question.has_digits and len(question.possible(where, None)) > 1:
                digits = _digits(file, names, texts)
            made["label"].append(question.label(where, digits))
            made["task"].append(task)
            made["subject"].append(question.subject or task)
            made["doc_id"].append(f"{task}/{stored.get('doc_id', at)}")
            at += 1
        yield pa.RecordBatch.from_pydict(made, schema=schema)


def _questions(batch: Batch, names: list[str], texts: set[str]) -> Iterator[_Question]:
    for stored in batch.columns(names).to_pylist():
        yield _Question({key: _parsed(key, value, texts) for key, value in stored.items()})


def _digits(file: DataFile, names: list[str], texts: set[str]) -> Digits:
    """What targets of digits are: numbers of choices, or texts, whichever fits all rows.

    Raises
    ------
    UsageError
        Both do, or neither.
    """
    fits: dict[Digits, bool] = {"number": True, "text": True}
    for batch in file.read(names, 0, row_count(file), _ROWS):
        for question in _questions(batch, names, texts):
            for digits in fits if question.has_digits else ():
                fits[digits] &= bool(question.possible(file.location.name, digits))
    if fits["number"] != fits["text"]:
        return "number" if fits["number"] else "text"
    name = shlex.quote(file.location.name)
    ways = " or ".join(
        f"jq -c '.target |= {change}' {name} | calib evaluate -"
        for change in ("tonumber", '(.+" ")')
    )
    raise UsageError(
        f"{file.location.name}: its targets may be the numbers of choices, from 0, or the texts of "
        f"these, which are numbers too; for numbers and for texts: {ways}"
    )


def _parsed(name: str, value: Any, texts: set[str]) -> Any:
    """A value that was kept as JSON since rows have several types in its place."""
    if name in texts and isinstance(value, str) and value[:1] in ("[", "{", '"'):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _task(name: str) -> str:
    """The name of the task, from that of the file."""
    stem = PurePath(name).name
    for suffix in (".gz", ".zst", ".jsonl", ".json", ".parquet"):
        stem = stem.removesuffix(suffix)
    return _TIME.sub("", stem.removeprefix("samples_"))


@dataclass(frozen=True)
class _Question:
    """A sample.

    Attributes
    ----------
    stored : dict
    """

    stored: dict[str, Any]

    def likelihoods(self, where: str) -> list[float]:
        """The log-likelihoods of the choices.

        Raises
        ------
        DataError
            There are none: the answer is a text.
        """
        responses = next(self.stored[name] for name in _RESPONSES if name in self.stored)
        try:
            values = [_likelihood(each) for each in responses]
        except (ValueError, TypeError, IndexError) as error:
            raise DataError(
                f"{where}: has no log-likelihoods of choices, as multiple_choice tasks of "
                "lm-evaluation-harness have; texts that were generated have no scores"
            ) from error
        # Twice as many where the choices are also scored without the question.
        texts = self.choices()
        if len(texts) == len(values) and len(values) % 2 == 0:
            half = len(values) // 2
            if half > 1 and texts[:half] == texts[half:]:
                values = values[:half]
        if len(values) < 2:
            raise DataError(f"{where}: has one choice only")
        return values

    def choices(self) -> list[str]:
        """The texts of the choices, as far as they are there."""
        arguments = self.stored.get("arguments")
        if isinstance(arguments, dict):
            arguments = [each for each in arguments.values() if each is not None]
            arguments = [
                list(each.values()) if isinstance(each, dict) else each for each in arguments
            ]
        if not isinstance(arguments, list):
            return []
        return [
            str(each[1]).strip() if isinstance(each, list) and len(each) > 1 else ""
            for each in arguments
        ]

    @property
    def subject(self) -> str | None:
        """What the question is about, where its document says so."""
        document = self.stored.get("doc")
        subject = document.get("subject") if isinstance(document, dict) else None
        return subject if isinstance(subject, str) and subject else None

    @property
    def has_digits(self) -> bool:
        """Whether the target is a text of digits: the number of a choice, or a choice's text."""
        target = self.stored["target"]
        return isinstance(target, str) and target.isdigit()

    def label(self, where: str, digits: Digits | None) -> int:
        """The number of the right choice, which must agree with ``acc`` where that is there.

        Raises
        ------
        DataError
            It is not known, or the file contradicts itself.
        """
        possible = self.possible(where, digits)
        if len(possible) != 1:
            problem = "may be several" if possible else "is none"
            accuracy = self.stored.get("acc")
            raise DataError(
                f"{where}: the target {str(self.stored['target'])[:40]!r} {problem} of the "
                f"{len(self.likelihoods(where))} choices"
                f"{'' if accuracy is None else f' with acc {accuracy}'}"
            )
        return possible[0]

    def possible(self, where: str, digits: Digits | None) -> list[int]:
        """The choices that may be right; with ``digits`` those where targets of digits are this."""
        values = self.likelihoods(where)
        best, accuracy = values.index(max(values)), self.stored.get("acc")
        possible = self._meant(len(values), digits)
        if accuracy in (0, 1):
            possible = [each for each in possible if (each == best) == bool(accuracy)]
            is_free = digits is None and not isinstance(self.stored["target"], int)
            if not possible and len(values) == 2 and is_free:
                possible = [best if accuracy else 1 - best]
        return possible

    def _meant(self, choices: int, digits: Digits | None) -> list[int]:
        """The choices that the target may mean."""
        target = self.stored["target"]
        if isinstance(target, int | float) and not isinstance(target, bool):
            return [int(target)] if target == int(target) and 0 <= target < choices else []
        if not isinstance(target, str):
            return []
        text = target.strip()
        same = [k for k, each in enumerate(self.choices()[:choices]) if each == text]
        if self.has_digits:
            numbers = [int(text)] if int(text) < choices else []
            meant: dict[Digits | None, list[int]] = {"number": numbers, "text": same}
            return meant.get(digits) or ([] if digits else sorted({*numbers, *same}))
        letter = ord(text) - ord("A") if len(text) == 1 else -1
        return same or ([letter] if 0 <= letter < choices and not self.choices() else [])


def _likelihood(response: Any) -> float:
    """The log-likelihood in a response: of a pair, or of a list of one."""
    if isinstance(response, list) and len(response) == 1:
        response = response[0]
    if isinstance(response, list):
        likelihood, greedy = response
        if str(greedy).lower() not in ("true", "false"):
            raise ValueError(greedy)
        return float(likelihood)
    if isinstance(response, str):
        raise TypeError(response)
    return float(response)
