"""Opening inputs, and describing them in result documents."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from calibcli.cli.configured import same_file
from calibcli.cli.shared_options import InputOptions
from calibcli.errors import CalibError, DataError, ParamsError, UsageError
from calibcli.tables import is_folder, is_inside

if TYPE_CHECKING:
    from calibcli.calibrators.base import Calibrator
    from calibcli.cli.console import Talk
    from calibcli.engine.data import Data
    from calibcli.metrics.panel import Panel
    from calibcli.params import Params
    from calibcli.schema.parts import ClustersPart, InputPart
    from calibcli.tables.atomic import Outputs
    from calibcli.tables.dataset import Dataset
    from calibcli.tables.read_options import Reading


_LISTED = 5


@contextmanager
def opened(
    inputs: Sequence[str],
    options: InputOptions,
    talk: Talk,
    *,
    labels_required: bool = True,
    single_pass: bool = False,
    labels_where_there: bool = False,
    keys: Mapping[str, str] | None = None,
    key_names: Mapping[str, tuple[str, ...]] | None = None,
    like: Reading | None = None,
    with_columns: bool = True,
) -> Iterator[Dataset]:
    """A dataset of one or several files; what was picked is said.

    Key columns and the values that are numbered first are those of `ReadOptions`. What was decided
    about the input of a fit is repeated, where ``like`` has it. Columns that ride along need not go
    together where nothing is written of them.
    """
    from calibcli.tables import open_dataset

    chosen = options.read_options(labels_required=labels_required, single_pass=single_pass)
    chosen = replace(
        chosen,
        keys=keys or {},
        key_names=key_names or {},
        with_columns=with_columns,
        labels_where_there=labels_where_there,
    )
    if like is not None:
        chosen = chosen.repeating(like)
    with open_dataset(inputs, chosen) as dataset:
        talk.picked(dataset.name, dataset.picked)
        if dataset.dropped_rows:
            none = " or since they have none" if dataset.layout.rule.skips else ""
            talk.say(
                f"{dataset.name}: left out {dataset.dropped_rows} of the rows for their label{none}"
            )
        yield dataset


def reading_of(params: Params, path: str) -> Reading:
    """How the input of a fit was read, as its parameter file says."""
    from calibcli.params import title
    from calibcli.tables.read_options import Reading

    return Reading(title(path), params.reading, params.class_names, params.classes)


def group_keys(
    stages: Sequence[Calibrator], params: str | None, by: str | None = None
) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """Key columns and names for `opened`, so that rows find the map of their group if it has one.

    Parameters
    ----------
    stages : sequence of Calibrator
        Of a parameter file.
    params : str or None
        The file.
    by : str or None
        The column to take the groups from, instead of the one that the file names.

    Raises
    ------
    UsageError
        A column for a file that has no maps for groups.
    """
    if stages:
        from calibcli.calibrators.base import GROUP
        from calibcli.calibrators.groups import groups_in

        groups = groups_in(stages)
        if groups is not None:
            return {GROUP: by or groups.column}, {GROUP: groups.names}
    if by is not None:
        raise UsageError(f"--by {by}: {params} has no maps for groups (calib fit --by makes them)")
    return {}, {}


def talk_about_groups(dataset: Dataset, known: Mapping[str, tuple[str, ...]], talk: Talk) -> None:
    """Say which groups have no map, once the rows were read."""
    for role, names in known.items():
        new = dataset.key_names(role)[len(names) :]
        if new:
            listed = f"{', '.join(new[:_LISTED])}{', …' if new[_LISTED:] else ''}"
            talk.say(
                f"{dataset.name}: {len(new)} groups have no map of their own, but that of all "
                f"rows: {listed}"
            )


def describe(dataset: Dataset, data: Data) -> InputPart:
    """The input's entry in a result document."""
    import numpy as np

    absent = np.flatnonzero(data.survey.class_rows == 0).tolist()
    names = dataset.class_names
    part: InputPart = {
        "name": dataset.name,
        "files": list(dataset.files),
        "kind": dataset.kind,
        "picked": dict(dataset.picked),
        "absent_classes": [names[k] for k in absent] if names else absent,
        "clusters": _clusters(dataset, data),
    }
    if dataset.dropped_rows:
        part["dropped_rows"] = dataset.dropped_rows
    return part


def _clusters(dataset: Dataset, data: Data) -> ClustersPart | None:
    from calibcli.engine.folds import CLUSTER

    if data.clusters is None:
        return None
    return {"column": dataset.layout.keys[CLUSTER].column, "count": data.clusters}


def talk_about(data: Data, name: str, talk: Talk) -> None:
    """Say what the survey found that a user should know."""
    from calibcli.metrics.resampling import FEW_CLUSTERS

    if data.survey.zeros:
        talk.say(f"{name}: {data.survey.zeros} probabilities of 0 are read as 1e-12")
    if data.impossible:
        talk.say(f"{name}: logits of -inf mark impossible classes; they keep probability 0")
    if data.clusters is not None and data.clusters < FEW_CLUSTERS:
        talk.say(
            f"{name}: {data.clusters} clusters are few: intervals allow for that by Student's t "
            f"with their number, and are rough below {FEW_CLUSTERS} clusters"
        )


def talk_about_metrics(panel: Panel, talk: Talk) -> None:
    """Say which metrics are left out, or have no interval, since the classes are too many."""
    if panel.note is not None:
        talk.say(panel.note)


def talk_about_clusters(data: Data, dataset: Dataset, talk: Talk) -> None:
    """Say which column looks like clusters, where none was named and somebody listens."""
    from calibcli.workflow.cluster_hint import likely_clusters, rows_to_look_at

    if talk.quiet or data.clusters is not None:
        return
    try:
        chunk = dataset.first_rows(rows_to_look_at(data.classes))
        hint = None if chunk is None else likely_clusters(chunk, dataset.kind)
    except CalibError:
        # A column that nobody asked for is no reason to stop.
        return
    if hint is not None:
        talk.say(
            f"{dataset.name}: rows with the same {hint.column!r} go together ({hint.values} values "
            f"in {len(chunk or ()):,} rows, correlation of residuals {hint.correlation:.2f}); "
            f"--cluster {hint.column} holds them out and resamples them as a whole"
        )


def talk_about_output(dataset: Dataset, talk: Talk) -> None:
    """Say which columns of an input the output leaves out."""
    if dataset.left_out:
        talk.say(f"{dataset.name}: not in the output: {', '.join(dataset.left_out)}")


def talk_about_left_out(files: Outputs, talk: Talk) -> None:
    """Say which columns of an input the format of an output cannot hold."""
    for path, names in files.left_out.items():
        them = "it" if len(names) == 1 else "them"
        talk.say(f"{path}: not in it: {', '.join(names)} (.parquet and .arrow can hold {them})")


def named_inputs(inputs: Sequence[str]) -> list[tuple[str | None, str]]:
    """The name that each input is given as ``NAME=INPUT``, None for none, and the input.

    What is a file, a folder or a pattern that files match as it stands is one, whatever is in its
    name.

    Raises
    ------
    UsageError
        Two inputs of one name.
    """
    from glob import glob

    named: list[tuple[str | None, str]] = []
    for text in inputs:
        match = _NAMED.fullmatch(text)
        is_file = Path(text).exists() or bool(glob(text))  # noqa: PTH207 (it may be absolute)
        named.append((match[1].strip(), match[2]) if match and not is_file else (None, text))
    names = [name for name, _ in named if name is not None]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"{twice}: two inputs have this name")
    return named


_NAMED = re.compile(r"([^=/\\:*?\[]*[^=/\\:*?\[\s][^=/\\:*?\[]*)=(.+)", re.DOTALL)
"""``NAME=INPUT``; neither a folder, a URL nor a pattern has its first ``=`` behind a bare name."""


def distinct(names: Sequence[str], inputs: Sequence[str]) -> list[str]:
    """The names of some inputs, those that are the same with their folders, or else numbered."""
    from calibcli.workflow.texts import short_names

    alike = {name for name in names if names.count(name) > 1}
    longer = dict(zip(inputs, short_names(inputs), strict=True))
    shown: list[str] = []
    for name, text in zip(names, inputs, strict=True):
        each = base = longer[text] if name in alike else name
        number = 1
        while each in shown:
            number += 1
            each = f"{base} ({number})"
        shown.append(each)
    return shown


def check_parts(inputs: Sequence[str], options: InputOptions) -> None:
    """Refuse inputs that are no parts of one table, but have the same labels: several models.

    Raises
    ------
    UsageError
    """
    from calibcli.tables import open_dataset

    check_stdin(inputs)
    if len(inputs) < 2 or "-" in inputs:
        return
    chosen = options.read_options(labels_required=True, single_pass=False)
    by_labels: dict[tuple[int, str], str] = {}
    for text in inputs:
        with open_dataset([text], chosen) as dataset:
            # A file of labels is for the rows of all inputs together.
            if dataset.layout.labels is None or dataset.layout.label_file is not None:
                return
            key = (dataset.rows, _hash_of_labels(dataset))
        if key in by_labels:
            raise UsageError(
                f"{by_labels[key]} and {text} have the same labels, as models of the same rows do: "
                "calib evaluate compares these, calib compare chooses a method for one model "
                "(parts of one table can be given as a folder or a pattern)"
            )
        by_labels[key] = text


def _hash_of_labels(dataset: Dataset) -> str:
    from hashlib import sha256

    digest = sha256()
    for labels in dataset.labels():
        digest.update(labels.tobytes())
    return digest.hexdigest()


def check_stdin(names: Sequence[str | None]) -> None:
    """Refuse standard input as more than one of some inputs."""
    if names.count("-") > 1:
        raise UsageError("standard input (-) can be read only once")


def keep_apart(outputs: Iterable[tuple[str, str]]) -> None:
    """Refuse two outputs of one name, of which only one would be there in the end.

    Outputs are paths with the options that name them; ``-`` is standard output.
    """
    taken: dict[Path, str] = {}
    for option, path in outputs:
        other = taken.get(Path(path).resolve())
        taken[Path(path).resolve()] = option
        if other == option:
            raise UsageError(f"{option} {path} is given twice; each needs a name of its own")
        if other is not None and path == "-":
            raise UsageError(f"{other} - and {option} -: only one can go to standard output")
        if other is not None:
            raise UsageError(f"{other} and {option} are both {path}; each needs a name of its own")


def keep_inputs(outputs: Iterable[tuple[str, str]], *datasets: Dataset | None) -> None:
    """Refuse to write over a file that is read: the output has no logits, which would be lost."""
    files = [file for dataset in filter(None, datasets) for file in dataset.files]
    for option, path in outputs:
        if any(same_file(path, file) for file in files):
            raise UsageError(f"{option} {path}: is an input; give the output another name")
        if is_folder(path) and any(is_inside(file, path) for file in files):
            raise UsageError(f"{option} {path}: an input is in it; give the output another name")


def check_params_classes(params: Params, classes: int, path: str, dataset: Dataset) -> None:
    """Refuse data whose classes are not those of the parameter file."""
    other = _other_name(params.class_names, dataset)
    if params.classes != classes:
        counts = f"{path} is for {params.classes} classes, but {dataset.name} has {classes}"
        raise ParamsError(counts + _way_to_columns(params.class_names, dataset))
    if other is not None:
        raise ParamsError(f"{path}: {other}{_way_to_columns(params.class_names, dataset)}")


def check_test_classes(data: Dataset, test: Dataset) -> None:
    """Refuse test data whose classes are not those of the data of the fit."""
    classes, test_classes = max(data.columns, 2), max(test.columns, 2)
    if classes != test_classes:
        raise DataError(f"{test.name} has {test_classes} classes, {data.name} has {classes}")
    other = _other_name(data.class_names, test)
    if other is not None:
        raise DataError(f"{data.name}: {other}")


def _way_to_columns(names: tuple[str, ...] | None, dataset: Dataset) -> str:
    """How columns that are named for other classes than a fit knows are made to fit it."""
    from calibcli.tables.recipes import renamed_columns, with_columns

    theirs, columns = dataset.class_names or (), dataset.layout.scores
    if not names or len(columns) != len(theirs):
        return ""
    by_name = dict(zip(theirs, columns, strict=True))
    by_folded = {name.casefold(): column for name, column in by_name.items()}
    absent = [name for name in names if name not in by_name]
    begin = by_name[theirs[0]].removesuffix(theirs[0])
    if not absent:
        unknown = ", ".join(name for name in theirs if name not in names)
        listed = shlex.quote(",".join(by_name[name] for name in names))
        return f"; it does not know {unknown}: --logits {listed} leaves that out of every row"
    if dataset.format != "parquet":
        return ""
    file = dataset.files[0]
    if len(by_folded) == len(names) and all(name.casefold() in by_folded for name in names):
        new = {by_folded[name.casefold()]: begin + name for name in absent}
        return f"; if these are the same, call them so: {renamed_columns(file, new)}"
    value = "0.0" if dataset.kind == "probs" else "float('-inf')"
    filled = with_columns(file, [begin + name for name in absent], value)
    return f"; there is no score of {', '.join(absent)}; where they are impossible: {filled}"


def _other_name(names: tuple[str, ...] | None, dataset: Dataset) -> str | None:
    """Which class has another name in a dataset, if both have names."""
    from calibcli.tables.labels import composed

    for k, pair in enumerate(zip(names or (), dataset.class_names or (), strict=False)):
        if composed(pair[0]) != composed(pair[1]):
            return f"class {k} is {pair[0]!r} there, but {pair[1]!r} in {dataset.name}"
    return None
