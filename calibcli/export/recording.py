"""The graph of a fitted calibrator: what is done to a row of scores, from the file to the label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from calibcli.arrays import (
    Array,
    NumpyArray,
    argmax,
    known_kind,
    largest,
    log_softmax,
    scores_to_logits,
    softmax,
    sum_classes,
)
from calibcli.calibrators.base import GROUP, Calibrator
from calibcli.calibrators.chain import calibrate, for_rows
from calibcli.calibrators.groups import groups_in
from calibcli.errors import UsageError
from calibcli.export.evaluation import evaluate_graph
from calibcli.export.graph import ROW_COUNT, Graph, Recording, Traced, UntraceableError, input_of
from calibcli.params import Params

MOST_GROUPS_EXPORTED = 64
"""Every row goes through the maps of all groups, and takes its own."""

_VECTORS = 64

_TOLERANCE = {np.dtype(np.float32): 1e-5, np.dtype(np.float64): 1e-9}
"""By which probabilities may differ: the temperature of a network is off by so much in float32."""


@dataclass(frozen=True, eq=False)
class RecordedCalibrator:
    """A calibrator as a graph, and what a person or a program should know of it.

    Attributes
    ----------
    params : Params
    graph : Graph
        From ``scores`` (n, K), and ``group`` (n,) where there are groups, to ``probs`` (n, K),
        ``label`` (n,) and ``confidence`` (n,).
    groups : tuple of str
        The values that a row's group may have, by number; any other number is another group.
    group_column : str or None
        The column of the groups.
    """

    params: Params
    graph: Graph
    groups: tuple[str, ...] = ()
    group_column: str | None = None

    @property
    def classes(self) -> int:
        """The number K of classes."""
        return self.params.classes

    @property
    def class_names(self) -> tuple[str, ...]:
        """A name a class; the numbers where the file has none."""
        return self.params.class_names or tuple(map(str, range(self.classes)))

    @property
    def stages(self) -> tuple[str, ...]:
        """The kinds of the stages in their order."""
        return tuple(stage.kind for stage in self.params.stages)


@dataclass(frozen=True, eq=False)
class Vectors:
    """Rows to test a program with: scores, groups where there are some, and what must come out."""

    scores: NumpyArray
    groups: NumpyArray | None
    probs: NumpyArray

    def arrays(self) -> dict[str, NumpyArray]:
        """The inputs of a program by their names."""
        groups = {} if self.groups is None else {"group": self.groups}
        return {"scores": self.scores, **groups}


def record(
    params: Params, stages: Sequence[Calibrator], dtype: Any = np.float64
) -> RecordedCalibrator:
    """The program of a calibrator.

    Parameters
    ----------
    params : Params
    stages : sequence of Calibrator
        The calibrators that the parameters describe.
    dtype : numpy dtype
        float32 or float64: the precision of the scores.

    Raises
    ------
    UsageError
        A stage computes in a way that cannot be recorded, or that depends on how it is run; the
        line names it.
    """
    recording = Recording()
    scores = Traced(input_of("scores", (ROW_COUNT, params.classes), dtype), recording)
    inputs = [scores.node]
    groups, recorded = groups_in(stages), tuple(stages)
    if groups is not None:
        if len(groups.names) > MOST_GROUPS_EXPORTED:
            raise UsageError(
                f"{len(groups.names)} groups are too many to export: {MOST_GROUPS_EXPORTED} are "
                "possible; calib apply takes any number"
            )
        numbers: Any = Traced(input_of("group", (ROW_COUNT,), np.int64), recording)
        inputs.append(numbers.node)
        recorded = for_rows(stages, {GROUP: numbers})
    probs = _probabilities(recording, recorded, read_scores(params, scores))
    outputs = {"probs": probs, "label": argmax(probs), "confidence": largest(probs)}
    graph = Graph(tuple(inputs), {name: array.node for name, array in outputs.items()})
    program = RecordedCalibrator(params, graph)
    if groups is not None:
        program = replace(program, groups=groups.names, group_column=groups.column)
    _check(program, make_vectors(params, stages, dtype))
    return program


def _check(program: RecordedCalibrator, vectors: Vectors) -> None:
    """Refuse a program that gives other probabilities than the calibrator itself."""
    probs = evaluate_graph(program.graph, vectors.arrays())["probs"]
    worst = float(np.abs(probs - vectors.probs).max())
    if not worst <= _TOLERANCE[vectors.probs.dtype]:
        kinds = ", ".join(repr(kind) for kind in program.stages)
        raise UsageError(
            f"the stages {kinds} cannot be exported: as recorded they give probabilities that "
            f"differ by {worst:.1g}"
        )


def make_vectors(params: Params, stages: Sequence[Calibrator], dtype: Any = np.float64) -> Vectors:
    """Rows to test a program of a calibrator with: common, extreme and tied ones."""
    rng = np.random.default_rng(0)
    classes = params.classes
    logits = rng.normal(size=(_VECTORS, classes)) * rng.choice([0.1, 1, 5, 30], (_VECTORS, 1))
    logits[0], logits[1, 1:] = 0, 0
    logits[2:4, :2] = logits[2:4].max(axis=1, keepdims=True)
    logits[4:6, 0] = [700, -700]
    if params.input == "logits":
        # A class that is impossible, and rows in which one alone is possible.
        logits[6:9, 0] = -np.inf
        logits[8, 2:] = -np.inf
        logits[9, 1:] = -np.inf
    scores = {"logits": logits, "log-probs": log_softmax(logits), "probs": softmax(logits)}
    rows = scores[params.input].astype(dtype)
    if params.reading.get("input") == "percent":
        rows = rows * 100
    groups = groups_in(stages)
    numbers = None if groups is None else np.arange(_VECTORS) % (len(groups.names) + 1) - 1
    recorded = stages if numbers is None else for_rows(stages, {GROUP: numbers})
    with np.errstate(all="ignore"):
        probs = softmax(calibrate(recorded, read_scores(params, rows)))
    return Vectors(rows, numbers, probs)


def read_scores(params: Params, scores: Array) -> Array:
    """Logits (n, K) of scores (n, K) as the fit read them: per cent, or to be divided by a sum."""
    reading = params.reading
    if reading.get("input") == "percent":
        scores = scores / 100
    if reading.get("renormalise"):
        scores = scores / sum_classes(scores)[:, None]
    return scores_to_logits(scores, known_kind(params.input))


def _probabilities(recording: Recording, stages: Sequence[Calibrator], logits: Traced) -> Traced:
    for place, stage in enumerate(stages):
        recording.stage = stage.kind
        try:
            logits = stage.logits(logits) if place == len(stages) - 1 else stage.log_probs(logits)
        except UntraceableError as error:
            raise UsageError(f"the stage {stage.kind!r} cannot be exported: it {error}") from None
        except Exception as error:  # noqa: BLE001 (whatever somebody's stage does with it)
            trouble = " ".join(f"{type(error).__name__}: {error}".split())
            raise UsageError(
                f"the stage {stage.kind!r} cannot be exported: it takes arrays of NumPy alone "
                f"({trouble})"
            ) from None
    recording.stage = "probabilities"
    probs: Traced = softmax(logits)
    return probs
