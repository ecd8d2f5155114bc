"""Which commands read some files: what the refusals propose is tried until one is taken."""

from __future__ import annotations

import re
import shlex
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, get_type_hints

from calibcli.cli.option_values import value_type
from calibcli.cli.shared_options import InputOptions
from calibcli.errors import CalibError, NoLabelsError

if TYPE_CHECKING:
    from calibcli.engine.data import Data
    from calibcli.engine.engine import Engine
    from calibcli.tables.dataset import Dataset
    from calibcli.tables.formats.base import DataFile
    from calibcli.tables.storage import Spool

_MOST_TRIES, _MOST_WAYS, _MOST_STEPS = 12, 4, 3
_POINTS = ",.:"
_OPTION = re.compile(r"""--([a-z][a-z-]*)(?:[ =]('(?:[^']|'"'"')*'|"[^"]*"|[^\s;)"']+))?""")


@dataclass(frozen=True)
class Ways:
    """How some files are read.

    Attributes
    ----------
    dataset : Dataset or None
        As they are read with the options that were given; None where they are refused.
    data : Data or None
        The same after a look at all rows; None where one of them cannot be used.
    refusal : str or None
        Why `calib evaluate` does not read them so.
    commands : tuple of str
        What to type next; of each it was tried that it reads the files.
    """

    dataset: Dataset | None
    data: Data | None
    refusal: str | None
    commands: tuple[str, ...]


def ways_to_read(
    name: str, files: tuple[DataFile, ...], given: InputOptions, spool: Spool, engine: Engine
) -> Ways:
    """Read open files with some options, and with what refusals propose instead.

    Parameters
    ----------
    name : str
        Of the input, as it was typed.
    files : tuple of DataFile
    given : InputOptions
    spool : Spool
    engine : Engine
    """
    first, proposed = _read(files, given, spool, engine)
    if first.refusal is None:
        return replace(first, commands=_commands(name, given, first.dataset))
    found: list[str] = []
    waiting = deque((each, 1) for each in proposed)
    known, tries = [given], 0
    unlabelled: list[tuple[InputOptions, Dataset]] = []
    while waiting and tries < _MOST_TRIES and len(found) < 2 * _MOST_WAYS:
        options, steps = waiting.popleft()
        if options in known:
            continue
        known.append(options)
        tries += 1
        way, proposed = _read(files, options, spool, engine)
        if way.refusal is None:
            found += _commands(name, options, way.dataset)
        elif steps < _MOST_STEPS:
            waiting += [(each, steps + 1) for each in proposed]
        if way.dataset is not None and not way.dataset.has_labels:
            unlabelled.append((options, way.dataset))
    if first.dataset is not None and not first.dataset.has_labels:
        unlabelled = [(given, first.dataset)]
    for options, dataset in unlabelled[:1]:
        found += _commands(name, options, dataset)
    return replace(first, commands=tuple(dict.fromkeys(found)))


def _read(
    files: tuple[DataFile, ...], given: InputOptions, spool: Spool, engine: Engine
) -> tuple[Ways, list[InputOptions]]:
    """Files read with some options; if they are refused, what to try instead."""
    from calibcli.engine.data import open_data
    from calibcli.tables.opening import read_as

    dataset, data, refusal = None, None, None
    proposed: list[InputOptions] = []
    try:
        options = given.read_options(labels_required=True, single_pass=False)
        try:
            dataset = read_as(files, options, spool)
        except NoLabelsError as error:
            refusal = str(error)
            proposed = [*_proposed(refusal, given), *_labels(files[0], given)]
            dataset = read_as(files, replace(options, labels_required=False), spool)
        data = open_data(engine, dataset)
    except CalibError as error:
        proposed += _proposed(str(error), given)
        refusal = refusal or str(error)
    return Ways(dataset, data, refusal, ()), proposed


def _labels(file: DataFile, given: InputOptions) -> list[InputOptions]:
    """Every field that could be the labels, but for predicted classes."""
    from calibcli.tables.names import PREDICTIONS

    kinds = ("integer", "bool", "string")
    names = [each.name for each in file.fields if each.axes == 1 and each.element in kinds]
    return [
        replace(given, labels=name)
        for name in names
        if name not in file.about and name.lower() not in PREDICTIONS
    ]


def _commands(name: str, options: InputOptions, dataset: Dataset | None) -> tuple[str, ...]:
    """The commands that read an input with some options."""
    words = shlex.join([name, *_spelled(options)])
    if dataset is not None and not dataset.has_labels:
        return (f"calib apply PARAMS.json {words} -o calibrated.parquet",)
    return (f"calib evaluate {words}", f"calib fit {words}")


def _spelled(options: InputOptions) -> Iterator[str]:
    """Options that are not as they are by default, as they are typed."""
    for entry in fields(options):
        value = getattr(options, entry.name)
        if value == entry.default:
            continue
        flag = f"--{entry.name.replace('_', '-')}"
        for each in value if isinstance(value, list) else [value]:
            text = str(each.value if isinstance(each, Enum) else each)
            if each is True:
                yield flag
            elif text.startswith("-"):
                yield f"{flag}={text}"
            else:
                yield from (flag, text)


def _proposed(refusal: str, given: InputOptions) -> list[InputOptions]:
    """What a refusal proposes: the options that stand in it, one behind the other or apart."""
    hints = get_type_hints(InputOptions, include_extras=True)
    runs: list[list[tuple[str, Any]]] = []
    end = -2
    for match in _OPTION.finditer(refusal):
        name = match[1].replace("-", "_")
        if name not in hints:
            continue
        kind = value_type(hints[name])
        after = match.end(1) if kind is bool else match.end()
        if match.start() != end + 1:
            runs.append([])
        runs[-1].append((name, True if kind is bool else _value(match[2], kind)))
        # A comma behind a value is one of the sentence.
        end = -2 if refusal[after - 1] in _POINTS else after
    return [
        replace(given, **_merged(given, run))
        for run in runs
        if all(value is not None for _, value in run)
    ]


def _merged(given: InputOptions, run: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Changes of the options, with what is repeatable behind what was there."""
    changes = dict(run)
    if "ignore_label" in changes:
        added = [value for name, value in run if name == "ignore_label"]
        changes["ignore_label"] = [*(given.ignore_label or ()), *added]
    return changes


def _value(text: str | None, kind: type) -> Any:
    """The value of an option as it stands in a sentence; None where it is none."""
    if text is None or "…" in text:
        return None
    try:
        (word,) = shlex.split(text if text[0] in "'\"" else text.rstrip(_POINTS))
        return kind(word)
    except ValueError:
        return None
