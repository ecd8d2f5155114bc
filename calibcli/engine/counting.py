"""Tiles with their scores by value, where rows have many classes in half precision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.calibrators.base import Calibrator
from calibcli.calibrators.chain import calibrate_by_value, log_probs_by_value
from calibcli.engine.engine import Engine, Tile
from calibcli.engine.kept_tiles import KeptTiles
from calibcli.engine.source import Source
from calibcli.value_counts import LEAST_CLASSES, CountedScores, ValueBlock, ValueCounts


def is_countable(
    engine: Engine, source: Source, stages: Sequence[Calibrator], *, brief: bool = False
) -> bool:
    """Whether scores can be worked on by value, also after stages.

    Rows that were looked at are known to be ``brief`` or not (`Survey.brief`); of others the type
    tells, but for bfloat16.
    """
    return (
        (source.dtype == np.float16 or brief)
        and source.kind == "logits"
        and source.columns >= LEAST_CLASSES
        and engine.device == "cpu"
        and all(stage.by_value for stage in stages)
    )


def counted(kept: KeptTiles, stages: tuple[Calibrator, ...], tile: Tile) -> Tile:
    """A tile of half precision with its scores by value, after stages.

    Parameters
    ----------
    kept : KeptTiles
        What was made of the rows before; it is used, and added to.
    stages : tuple of Calibrator
    tile : Tile
        Its logits as stored; none is NaN or infinite, unless ``-inf``.
    """
    counts = kept.of(ValueCounts, tile.start, partial(ValueCounts.of, tile.logits))
    scores = CountedScores(counts, tile.logits)
    return replace(tile, counted=scores.after(partial(_log_probs, stages)) if stages else scores)


def calibrated(scores: CountedScores, stages: tuple[Calibrator, ...]) -> CountedScores:
    """Calibrated logits by value, by the same stages for every row."""
    return scores.after(partial(_calibrated, stages)) if stages else scores


def _calibrated(stages: tuple[Calibrator, ...], block: ValueBlock) -> NumpyArray:
    return calibrate_by_value(stages, block.values, block.counts)


def _log_probs(stages: tuple[Calibrator, ...], block: ValueBlock) -> NumpyArray:
    return log_probs_by_value(stages, block.values, block.counts)
