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
    if params.class_names and dataset.class_names and params.class_names != dataset.class_names:
        pairs = zip(params.class_names, dataset.class_names, strict=True)
        place = next(k for k, (a, b) in enumerate(pairs) if a != b)
        raise ParamsError(
            f"{path}: class {place} is {params.class_names[place]!r} there, but "
            f"{dataset.class_names[place]!r} in {dataset.name}"
        )
