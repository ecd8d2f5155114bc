"""Rows with labels as they are given in Python, some of which stand for several.

A row with a count, with a distribution over the classes or with several labels becomes the rows
that `calibcli.tables.shapes` makes of it in a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from calibcli.api.arguments import array_source, grouped_source, key_title, numbers_given
from calibcli.arrays import InputKind, NumpyArray
from calibcli.calibrators.base import GROUP
from calibcli.engine.folds import CLUSTER
from calibcli.engine.source import ArraySource
from calibcli.errors import DataError, UsageError
from calibcli.metrics.resampling import Bootstrap
from calibcli.tables.read_options import LABEL_NAME

_MOST_ROWS = 1 << 31
"""Rows that may be made of those that were given."""


@dataclass(frozen=True)
class LabelledRows:
    """Rows with labels, as a source of what is computed of them.

    Attributes
    ----------
    source : ArraySource
        The rows (m,), as often as those that were given stand for one.
    stored : int array (m,) or None
        The row that was given for each; None where they are the same.
    given : int
        How many were given.
    label_names : tuple of str
        The names of the labels, where each row is one for each of them.
    """

    source: ArraySource
    stored: NumpyArray | None
    given: int
    label_names: tuple[str, ...] = ()

    def grouped(self, role: str, values: Any, title: str) -> LabelledRows:
        """The rows with groups of a role, of which one value a row was given."""
        title = key_title(values, title)
        if self.stored is not None:
            values = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)
            if values.shape != (self.given,):
                raise DataError(f"{title} must have the shape ({self.given},), not {values.shape}")
            values = values[self.stored]
        return replace(self, source=grouped_source(self.source, role, values, title))

    @property
    def reading(self) -> dict[str, Any]:
        """What a calibrator of them remembers, as in `Params.reading`."""
        if not self.label_names:
            return {}
        return {"multi_label": True, "label_names": list(self.label_names)}

    def with_maps(self, by: ArrayLike | None, *targets: object) -> LabelledRows:
        """The rows with the groups that have a map each: those of ``by``, or their labels.

        Raises
        ------
        UsageError
            Labels have maps, and there is another reason for maps: groups, or targets.
        """
        if not self.label_names:
            return self if by is None else self.grouped(GROUP, by, "by")
        if any(each is not None for each in (by, *targets)):
            raise UsageError("multi_label fits each label by itself: leave out by and targets")
        names = np.tile(np.array(self.label_names), self.source.rows // len(self.label_names))
        return replace(self, source=grouped_source(self.source, GROUP, names, LABEL_NAME))

    def bootstrap(self, replicates: int, seed: int) -> Bootstrap:
        """Replicates, over clusters where there are any; 0 replicates are no intervals."""
        return Bootstrap(replicates, seed, CLUSTER if CLUSTER in self.source.key_roles else None)


def labelled_rows(
    what: str,
    scores: ArrayLike,
    labels: ArrayLike | None,
    weights: ArrayLike | None,
    kind: InputKind,
    cluster: ArrayLike | None,
    *,
    counts: ArrayLike | None = None,
    multi_label: bool | Sequence[str] = False,
) -> LabelledRows:
    """The rows of arrays, with clusters where there are any.

    Parameters
    ----------
    what : str
        Of what needs them, for messages.
    scores : array (n, K), or (n,) for two classes
    labels : integer array (n,), or array (n, K) of one-hot rows, distributions, votes or labels
    weights, counts, cluster : array (n,) or None
    kind : InputKind
    multi_label : bool or sequence of str
        Whether any number of labels may be right in a row; their names.

    Raises
    ------
    UsageError, DataError
        With one line that says what is wrong, and where.
    """
    if labels is None:
        raise DataError(f"{what} needs labels")
    truth = numbers_given("labels", labels)
    if counts is None and not multi_label and (truth.ndim < 2 or truth.shape[1:] == (1,)):
        source = array_source(scores, labels, weights, kind)
        rows = LabelledRows(source, None, source.rows)
        return rows if cluster is None else rows.grouped(CLUSTER, cluster, "cluster")
    given = array_source(scores, None, weights, kind)
    shapes = (given.rows,), (given.rows, 1), (given.rows, max(given.columns, 2 - bool(multi_label)))
    if truth.shape not in shapes:
        raise DataError(f"labels must have the shape {shapes[0]} or {shapes[2]}, not {truth.shape}")
    index = np.arange(given.rows)
    if counts is not None:
        index = np.repeat(index, _row_counts(counts, given.rows))
    expanded, together = _expanded(given, truth, index, multi_label=bool(multi_label))
    rows = replace(expanded, label_names=_names(multi_label, given.columns))
    if cluster is not None:
        return rows.grouped(CLUSTER, cluster, "cluster")
    if together is None:
        return rows
    return replace(rows, source=grouped_source(rows.source, CLUSTER, together, "row"))


def _expanded(
    given: ArraySource, truth: NumpyArray, index: NumpyArray, *, multi_label: bool
) -> tuple[LabelledRows, NumpyArray | None]:
    """The rows of an index with their labels, and which of them are of one row."""
    from calibcli.tables.shapes.expanded import shares_of

    scores, shares, labels = given.scores, None, truth[index]
    together: NumpyArray | None = np.arange(len(index))
    if multi_label:
        _check_memberships(truth, scores.shape)
        together = np.repeat(np.arange(len(index)), given.columns)
        scores, labels = scores[index].reshape(-1, 1), labels.reshape(-1)
        index = np.repeat(index, given.columns)
    elif truth.ndim == 1 or truth.shape[1] == 1:
        together, scores = None, scores[index]
    elif _is_one_hot(truth):
        together, scores, labels = None, scores[index], labels.argmax(axis=1)
    else:
        together, labels, shares = shares_of(labels.astype(np.float64))
        index = index[together]
        scores = scores[index]
    weights = None if given.weights is None else given.weights[index]
    if shares is not None:
        weights = shares if weights is None else weights * shares
    source = array_source(scores, labels, weights, given.kind)
    return LabelledRows(source, index, given.rows), together


def _row_counts(counts: ArrayLike, rows: int) -> NumpyArray:
    """How many rows each row stands for (n,), int64."""
    values = numbers_given("counts", counts)
    if values.shape != (rows,):
        raise DataError(f"counts must have the shape ({rows},), not {values.shape}")
    wrong = ~((values >= 0) & (values == np.floor(values)) & (values < _MOST_ROWS))
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(f"row {row}: the count {values[row]} is no whole number of rows")
    whole: NumpyArray = values.astype(np.int64)
    if not 0 < int(whole.sum()) < _MOST_ROWS:
        raise DataError(f"counts make {whole.sum():,} rows")
    return whole


def _is_one_hot(truth: NumpyArray) -> bool:
    """Whether rows (n, K) are one-hot, and no distributions or votes.

    Raises
    ------
    UsageError, DataError
        They are nothing of that.
    """
    from calibcli.tables.formats.base import RowError
    from calibcli.tables.shapes.expanded import LabelVectors

    vectors = LabelVectors()
    try:
        vectors.look_at(truth.astype(np.float64), 0)
    except RowError as error:
        raise DataError(f"row {error.row}: {error}") from None
    if vectors.several is not None and vectors.only_bits:
        raise UsageError(
            f"row {vectors.several}: has several classes, or none; if any number of labels may be "
            "right in a row, multi_label=True; where these are votes, divide each row by its sum"
        )
    if vectors.shape is None:
        raise DataError(
            "labels (n, K) are neither one-hot nor shares that sum to 1 nor counts of votes"
        )
    return vectors.shape == "one-hot"


def _check_memberships(truth: NumpyArray, shape: tuple[int, ...]) -> None:
    """Refuse labels that do not say of each score whether its label is right."""
    if truth.shape != shape:
        raise DataError(f"labels must have the shape {shape} of the scores, not {truth.shape}")
    wrong = ~np.isin(truth, (0, 1)).all(axis=1)
    if wrong.any():
        raise DataError(f"row {int(wrong.argmax())}: a label is neither 0 nor 1")


def _names(multi_label: bool | Sequence[str], labels: int) -> tuple[str, ...]:
    """The names of the labels: as given, or their numbers; none where a row has one label."""
    if isinstance(multi_label, bool):
        return tuple(map(str, range(labels))) if multi_label else ()
    names = tuple(multi_label)
    if len(set(names)) != labels or not all(isinstance(name, str) for name in names):
        raise UsageError(f"multi_label takes a name for each of the {labels} labels, once each")
    return names
