"""Opening inputs, and describing them in result documents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calibcli.cli.options import InputOptions

if TYPE_CHECKING:
    from calibcli.cli.console import Talk
    from calibcli.engine.data import Data
    from calibcli.params import Params
    from calibcli.tables.dataset import Dataset


@contextmanager
def opened(
    inputs: Sequence[str],
    options: InputOptions,
    talk: Talk,
    *,
    labels_required: bool = True,
    single_pass: bool = False,
) -> Iterator[Dataset]:
    """A dataset of one or several files; what was picked is said."""
    from calibcli.tables import open_dataset

    chosen = options.read_options(labels_required=labels_required, single_pass=single_pass)
    with open_dataset(inputs, chosen) as dataset:
        for what, picked in dataset.picked.items():
            talk.say(f"{dataset.name}: {what} {picked}")
        if dataset.dropped_rows:
            talk.say(f"{dataset.name}: left out {dataset.dropped_rows} of the rows for their label")
        yield dataset


def describe(dataset: Dataset, data: Data) -> dict[str, Any]:
    """The input's entry in a result document."""
    import numpy as np

    absent = np.flatnonzero(data.survey.class_rows == 0).tolist()
    names = dataset.class_names
    return {
        "name": dataset.name,
        "files": list(dataset.files),
        "kind": dataset.kind,
        "picked": dict(dataset.picked),
        "absent_classes": [names[k] for k in absent] if names else absent,
    }


def talk_about(data: Data, name: str, talk: Talk) -> None:
    """Say what the survey found that a user should know."""
    if data.survey.zeros:
        talk.say(f"{name}: {data.survey.zeros} probabilities of 0 are read as 1e-12")
    if data.impossible:
        talk.say(f"{name}: logits of -inf mark impossible classes; they keep probability 0")


def talk_about_output(dataset: Dataset, talk: Talk) -> None:
    """Say what of an input has no place in the output."""
    if dataset.left_out:
        talk.say(f"{dataset.name}: not in the output: {', '.join(dataset.left_out)}")


def check_stdin(names: Sequence[str | None]) -> None:
    """Refuse standard input as more than one of some inputs."""
    from calibcli.errors import UsageError

    if names.count("-") > 1:
        raise UsageError("standard input (-) can be read only once")


def keep_inputs(output: str | None, *datasets: Dataset | None) -> None:
    """Refuse to write over a file that is read: the output has no logits, which would be lost."""
    from calibcli.errors import UsageError

    target = Path(output or "-")
    for dataset in filter(None, datasets):
        for file in dataset.files:
            if target.is_file() and Path(file).is_file() and target.samefile(file):
                raise UsageError(f"-o {output}: is an input; give the output another name")


def check_classes(params: Params, classes: int, path: str, dataset: Dataset) -> None:
    """Refuse data whose classes are not those of the parameter file."""
    from calibcli.errors import ParamsError

    if params.classes != classes:
        raise ParamsError(
            f"{path} is for {params.classes} classes, but {dataset.name} has {classes}"
        )
    other = _other_name(params.class_names, dataset)
    if other is not None:
        raise ParamsError(f"{path}: {other}")


def check_test_classes(data: Dataset, test: Dataset) -> None:
    """Refuse test data whose classes are not those of the data of the fit."""
    from calibcli.errors import DataError

    classes, found = max(data.columns, 2), max(test.columns, 2)
    if classes != found:
        raise DataError(f"{test.name} has {found} classes, {data.name} has {classes}")
    other = _other_name(data.class_names, test)
    if other is not None:
        raise DataError(f"{data.name}: {other}")


def _other_name(names: tuple[str, ...] | None, dataset: Dataset) -> str | None:
    """Which class has another name in a dataset, if both have names."""
    for k, pair in enumerate(zip(names or (), dataset.class_names or (), strict=False)):
        if pair[0] != pair[1]:
            return f"class {k} is {pair[0]!r} there, but {pair[1]!r} in {dataset.name}"
    return None
