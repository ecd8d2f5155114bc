"""The data of a fit for those who read the confidence alone: was the top class right."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from calibcli.arrays import NumpyArray, host_weights, to_numpy
from calibcli.calibrators.chain import log_probs_after
from calibcli.calibrators.top import top_scores
from calibcli.engine.data import Data, survey_source
from calibcli.engine.engine import Tile
from calibcli.engine.source import ArraySource, Keys, join_keys, names_of_keys
from calibcli.errors import DataError

_Rows = tuple[NumpyArray, NumpyArray, NumpyArray, Keys | None]


def confidence_rows(data: Data) -> Data:
    """The same rows with two classes, wrong and right, and the log-odds of the top class.

    It holds a few numbers a row in memory, however many classes there are. Folds, weights and
    groups are those of the rows. Rows with a single possible class have weight 0: nothing can
    change their confidence.

    Raises
    ------
    DataError
        No row has more than one possible class.
    """
    work = partial(_reduced, data)
    parts = list(data.engine.map(data.source, work, data.precision))
    scores, labels, weights = (np.concatenate([part[i] for part in parts]) for i in range(3))
    if not weights.any():
        raise DataError("no row has more than one possible class: there is nothing to calibrate")
    keys = join_keys([part[3] for part in parts])
    source = ArraySource(
        scores[:, None],
        labels,
        None if (weights == 1).all() else weights,
        keys=keys,
        key_names=names_of_keys(data.source, keys or {}),
    )
    engine = replace(data.engine, executor=None, on_rows=None)
    reduced = survey_source(engine, source, data.split)
    return replace(reduced, parts=data.parts)


def _reduced(data: Data, tile: Tile) -> _Rows:
    rows = top_scores(log_probs_after(data.stages, tile.logits))
    right = to_numpy(rows.top) == to_numpy(tile.labels)
    weights = host_weights(tile.labels, tile.weights)
    undecided = np.isfinite(to_numpy(rows.rest))
    return to_numpy(rows.score), right.astype(np.int64), weights * undecided, tile.keys
