"""Logs of Inspect and scenario states of HELM: documents with a question somewhere within a list.

Inspect (https://inspect.aisi.org.uk) writes ``.eval``, a ZIP archive with a document for each
sample, or one JSON document. A question has the alternatives of the token that is its answer, where
it was run with ``--logprobs --top-logprobs``. HELM (https://github.com/stanford-crfm/helm) writes
``scenario_state.json``: with the adapters ``multiple_choice_separate_*`` each choice has a request
of its own, whose log-probability is that of the prompt and the choice; what all choices have in
common cancels. Any other adapter gives the probability of the text that came, and whether it is
right, of which HELM computes its calibration error.
"""

from __future__ import annotations

import json
import math
import re
import shlex
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa

from calibcli.errors import DataError
from calibcli.tables.formats.base import DataFile
from calibcli.tables.formats.text import typed_copy
from calibcli.tables.locations import Location
from calibcli.tables.storage import BROKEN_ZIP, Spool

INSPECT_DOCUMENT = rb'\s*\{\s*"version"\s*:\s*\d+\s*,\s*"status"[^{]*"eval"\s*:'
HELM_DOCUMENT = rb'\s*\{\s*"adapter_spec"\s*:[\s\S]*"request_states"\s*:'
"""How the documents begin."""

_LARGEST_DOCUMENT = 512 << 20
_BATCH = 256
_ANSWER = re.compile(r"(?i)ANSWER\s*:\s*([A-Za-z])(?:[^\w]|$)")
"""What the solver of Inspect for questions with choices asks for."""

_TOP = pa.list_(pa.struct([("token", pa.string()), ("logprob", pa.float64())]))
_INSPECT_SCHEMA = pa.schema(
    [
        ("top_logprobs", _TOP),
        ("label", pa.string()),
        ("choices", pa.int64()),
        ("sample", pa.string()),
        ("epoch", pa.int64()),
    ]
)
_FROM_HELM = [
    ("instance", pa.string()),
    ("trial", pa.int64()),
    ("perturbation", pa.string()),
    ("split", pa.string()),
]
_CHOICES_SCHEMA = pa.schema(
    [("logits", pa.list_(pa.float64())), ("label", pa.int64()), *_FROM_HELM]
)
_ANSWERS_SCHEMA = pa.schema([("confidence", pa.float64()), ("correct", pa.bool_()), *_FROM_HELM])


class _LogError(Exception):
    """What is wrong with a sample; whoever knows the file says which one."""


def open_harness_log(location: Location, head: bytes, spool: Spool) -> DataFile | None:
    """A document of Inspect or HELM as a table; None of any other.

    Raises
    ------
    DataError
        It holds no scores, or cannot be read.
    """
    if re.match(INSPECT_DOCUMENT, head):
        samples = _document(location).get("samples")
        return _inspect_table(location, _listed(location, samples, "samples"), spool)
    if re.match(HELM_DOCUMENT, head):
        document = _document(location)
        states = _listed(location, document.get("request_states"), "request states")
        return _helm_table(location, document, states, spool)
    return None


def is_inspect_archive(names: Iterable[str]) -> bool:
    """Whether a ZIP archive of such files is a log of Inspect."""
    known = set(names)
    about = {"header.json", "results.json", "_journal/start.json", "start.json"}
    return bool(about & known) and any(each.startswith("samples/") for each in known)


def open_inspect_archive(location: Location, spool: Spool) -> DataFile:
    """An ``.eval`` file as a table.

    Raises
    ------
    DataError
        It holds no scores, or cannot be read.
    """
    return _inspect_table(location, _archived(location, spool), spool)


def _archived(location: Location, spool: Spool) -> Iterator[Any]:
    """The samples of an archive, one by one, in the order in which they were written."""
    try:
        with zipfile.ZipFile(location.path) as archive:
            for entry in archive.infolist():
                if not re.fullmatch(r"samples/[^/]+\.json", entry.filename):
                    continue
                where = f"{location.name}, {entry.filename}"
                spool.expansion.check(where, entry.file_size, entry.compress_size)
                yield json.loads(archive.read(entry))
    except (*BROKEN_ZIP, RecursionError) as error:
        raise DataError(
            f"{location.name}: cannot be read ({error}); the library can write it anew: "
            f"inspect log convert --to json --output-dir logs {shlex.quote(location.name)}"
        ) from error


def _document(location: Location) -> dict[str, Any]:
    with location.open() as file:
        content = file.read(_LARGEST_DOCUMENT + 1)
    if len(content) > _LARGEST_DOCUMENT:
        raise DataError(
            f"{location.name}: has more than {_LARGEST_DOCUMENT >> 20} MB in one document; "
            "write fewer samples to a file"
        )
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{location.name}: is no readable JSON ({error})") from error
    return document if isinstance(document, dict) else {}


def _listed(location: Location, items: Any, title: str) -> list[Any]:
    if not isinstance(items, list) or not items:
        raise DataError(f"{location.name}: the log holds no {title}")
    return items


def _batches(rows: Iterable[dict[str, Any]], schema: Any) -> Iterator[Any]:
    waiting: list[dict[str, Any]] = []
    for row in rows:
        waiting.append(row)
        if len(waiting) == _BATCH:
            yield pa.RecordBatch.from_pylist(waiting, schema)
            waiting = []
    if waiting:
        yield pa.RecordBatch.from_pylist(waiting, schema)


# Inspect


def _inspect_table(location: Location, samples: Iterable[Any], spool: Spool) -> DataFile:
    counts: set[int] = set()

    def rows() -> Iterator[dict[str, Any]]:
        for number, sample in enumerate(samples):
            try:
                row = _inspect_row(sample)
            except _LogError as error:
                raise DataError(f"{location.name}, sample {number}: {error}") from error
            except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
                raise DataError(
                    f"{location.name}, sample {number}: is no sample of Inspect"
                ) from error
            counts.add(row["choices"])
            yield row

    batches = _batches(rows(), _INSPECT_SCHEMA)
    copy = typed_copy(location, "json", _INSPECT_SCHEMA, batches, spool, {})
    if not counts:
        raise DataError(f"{location.name}: the log holds no samples")
    most = max(counts)
    if most and 0 in counts:
        raise DataError(f"{location.name}: some samples have choices, and others have none")
    names = tuple(chr(ord("A") + k) for k in range(most)) if most > 1 else None
    said = "of Inspect; scores are the alternatives of the token that is the answer"
    return replace(copy, class_names=names, picked={"samples": said})


def _inspect_row(sample: Mapping[str, Any]) -> dict[str, Any]:
    choices = sample.get("choices") or []
    output = sample["output"]
    answers = output.get("choices") or [{}]
    listed = (answers[0].get("logprobs") or {}).get("content")
    if not listed:
        raise _LogError(
            "has no log-probabilities; run it with: inspect eval TASK --logprobs --top-logprobs 20"
        )
    target = sample["target"]
    targets = target if isinstance(target, list) else [target]
    if len(targets) != 1:
        raise _LogError(f"has {len(targets)} targets, and one is the label")
    token = _answer(listed, str(output.get("completion") or "")) if choices else listed[0]
    alternatives = token.get("top_logprobs") or [token]
    return {
        "top_logprobs": [
            {"token": str(each["token"]), "logprob": float(each["logprob"])}
            for each in alternatives
        ],
        "label": str(targets[0]),
        "choices": len(choices),
        "sample": str(sample.get("id")),
        "epoch": int(sample.get("epoch", 1)),
    }


def _answer(tokens: list[Mapping[str, Any]], completion: str) -> Mapping[str, Any]:
    """The token of an answer to a question with choices.

    Raises
    ------
    _LogError
        There is no telling which one it is, or choices were shuffled: then the text of the answer
        was changed afterwards, and the tokens were not.
    """
    texts = [str(each["token"]) for each in tokens]
    generated = "".join(texts)
    found = _ANSWER.search(generated)
    stripped = generated.strip()
    if found is None and not re.fullmatch(r"[A-Za-z]\W?", stripped):
        raise _LogError(f"has no answer such as 'ANSWER: A' in {generated[:40]!r}")
    place = generated.index(stripped) if found is None else found.start(1)
    after = _ANSWER.search(completion)
    said = after.group(1) if after else completion.strip()[:1]
    if said and said.upper() != generated[place].upper():
        raise _LogError(
            f"answers {generated[place]!r} by its tokens and {said!r} by its text: choices were "
            "shuffled, so that the tokens are those of others; run it without shuffling"
        )
    end = 0
    for token, text in zip(tokens, texts, strict=True):
        end += len(text)
        if place < end:
            if text.strip().upper() != generated[place].upper():
                raise _LogError(f"has its answer within the token {text!r}")
            return token
    raise _LogError("has no token for its answer")


# HELM


def _helm_table(
    location: Location, document: Mapping[str, Any], states: list[Any], spool: Spool
) -> DataFile:
    method = str((document.get("adapter_spec") or {}).get("method"))
    separate = method.startswith("multiple_choice_separate")
    schema = _CHOICES_SCHEMA if separate else _ANSWERS_SCHEMA
    make = _choice_rows if separate else _answer_rows

    def rows() -> Iterator[dict[str, Any]]:
        try:
            yield from make(states)
        except _LogError as error:
            raise DataError(f"{location.name}, {error}") from error
        except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
            raise DataError(f"{location.name}: holds no results of HELM ({error!r})") from error

    copy = typed_copy(location, "json", schema, _batches(rows(), schema), spool, {})
    if separate:
        roles = {"logits": "logits", "labels": "label"}
        calibrated = ", less those of the choice alone" if method.endswith("calibrated") else ""
        said = f"of HELM; scores are the log-probabilities of the choices{calibrated}"
    else:
        roles = {"logits": "confidence", "labels": "correct"}
        said = "of HELM; scores are the probabilities of the answers, labels whether they are right"
    return replace(copy, roles=roles, picked={"samples": said})


def _helm_key(state: Mapping[str, Any]) -> dict[str, Any]:
    """Where a request is from."""
    instance = state["instance"]
    perturbation = instance.get("perturbation")
    return {
        "instance": str(instance.get("id")),
        "trial": int(state.get("train_trial_index", 0)),
        "perturbation": None if perturbation is None else json.dumps(perturbation, sort_keys=True),
        "split": instance.get("split"),
    }


def _logprob(state: Mapping[str, Any]) -> float:
    result = state.get("result")
    if not result or not result.get("completions"):
        raise _LogError(f"instance {state['instance'].get('id')}: the request has no result")
    return float(result["completions"][0]["logprob"])


def _choice_rows(states: list[Any]) -> Iterator[dict[str, Any]]:
    """A row for each question, from a request for each of its choices."""
    questions: dict[tuple[Any, ...], list[Any]] = {}
    for state in states:
        key = _helm_key(state)
        questions.setdefault(tuple(key.values()), []).append(state)
    for requests in questions.values():
        references = requests[0]["instance"]["references"]
        key = _helm_key(requests[0])
        right = [k for k, each in enumerate(references) if "correct" in each.get("tags", ())]
        if len(right) != 1:
            raise _LogError(f"instance {key['instance']}: {len(right)} choices are correct")
        scores = {"original": {}, "calibration": {}}  # type: dict[str, dict[int, float]]
        for state in requests:
            mode = state.get("request_mode") or "original"
            index = int(state["reference_index"])
            if index in scores[mode]:
                raise _LogError(f"instance {key['instance']}: choice {index} is there twice")
            scores[mode][index] = _logprob(state)
        logits = [
            scores["original"][k] - (scores["calibration"][k] if scores["calibration"] else 0)
            for k in range(len(references))
        ]
        yield {"logits": logits, "label": right[0], **key}


def _answer_rows(states: list[Any]) -> Iterator[dict[str, Any]]:
    """A row for each answer: its probability, and whether it is right."""
    for state in states:
        logprob = _logprob(state)
        text = str(state["result"]["completions"][0]["text"]).strip()
        mapping = state.get("output_mapping")
        if mapping is not None:
            text = str(mapping.get(text, mapping.get(text[:1], text)))
        right = [
            str(each["output"]["text"]).strip()
            for each in state["instance"]["references"]
            if "correct" in each.get("tags", ())
        ]
        if not right:
            raise _LogError(f"instance {state['instance'].get('id')}: no reference is correct")
        yield {
            "confidence": min(math.exp(min(logprob, 0)), 1.0),
            "correct": text in right,
            **_helm_key(state),
        }
