"""Calibrators from arrays: fitted, read from a file, and compared with each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from calibcli.api.arguments import (
    array_source,
    bootstrap_of,
    check_counts,
    event_of,
    grouped_source,
    key_title,
    known_kind,
    labelled_source,
    option_settings,
    score_precision,
)
from calibcli.arrays import InputKind
from calibcli.calibrators.base import GROUP, Calibrator
from calibcli.calibrators.groups import groups_in
from calibcli.engine.data import open_data
from calibcli.engine.engine import Engine
from calibcli.engine.machine import choose_device
from calibcli.engine.source import ArraySource
from calibcli.errors import DataError, UsageError
from calibcli.metrics.panel import Panel
from calibcli.metrics.registry import LEADERBOARD_METRICS
from calibcli.metrics.view import ViewChoice
from calibcli.params import Params, encode
from calibcli.tables.atomic import atomic_write
from calibcli.workflow.applying import Predictions, calibrated_chunks, chunk_rows
from calibcli.workflow.automatic import compare_plans, make_any_plan
from calibcli.workflow.choosing import Leaderboard, candidates
from calibcli.workflow.fit_rows import TargetPrior
from calibcli.workflow.fitting import Outcome, fit_and_measure
from calibcli.workflow.plans import ReducedTo, make_plans
from calibcli.workflow.pricing import CostsLike, given_costs, make_decider
from calibcli.workflow.records import read_calibrators, to_params


@dataclass(frozen=True)
class FittedCalibrator:
    """A fitted calibrator.

    Attributes
    ----------
    params : Params
        What a parameter file holds: stages, classes, how it was fitted, metrics.
    stages : tuple of Calibrator
        The maps, applied in order.
    outcome : Outcome or None
        The fit and its evaluation; None for one that was loaded.
    """

    params: Params
    stages: tuple[Calibrator, ...]
    outcome: Outcome | None = None

    def predict_proba(
        self, logits: ArrayLike, input: InputKind | None = None, *, by: ArrayLike | None = None
    ) -> Any:
        """Calibrated probabilities (n, K), float32, or float64 for float64 scores.

        Parameters
        ----------
        logits : array (n, K), or (n,) for two classes
            Scores of the kind that the calibrator was fitted on, or of the kind ``input``.
        by : array (n,), optional
            The group of each row. A row of a group that the fit did not know, and every row if
            this is left out, gets the map of all rows.

        Examples
        --------
        >>> calibrator = fit([[3, 0, 0], [0, 3, 0], [0, 0, 3], [0, 3, 0]], [0, 1, 2, 2], folds=0)
        >>> calibrator.predict_proba([[0, 0, 0], [3, 0, 0]]).round(3)
        array([[0.333, 0.333, 0.333],
               [0.75 , 0.125, 0.125]])
        """
        source = self._read(logits, input)
        groups = groups_in(self.stages)
        if by is not None and groups is not None:
            source = grouped_source(source, GROUP, by, "by", groups.names)
        empty = np.empty((0, self.params.classes), score_precision(source))
        return np.concatenate([empty, *(part.probs for part in self._calibrated(source))])

    def predict_interval(
        self, logits: ArrayLike, input: InputKind | None = None
    ) -> tuple[Any, Any]:
        """Lower and upper bound (n,) of the probability of each row's predicted class.

        Parameters are those of `predict_proba`.

        Raises
        ------
        UsageError
            The last stage offers no interval; that of the method ``venn-abers`` does.

        Examples
        --------
        >>> logits, labels = [2.9, -2.9, 2.9, -2.9] * 5, [1, 0, 1, 1] * 5
        >>> calibrator = fit(logits, labels, method="venn-abers", folds=0)
        >>> low, high = calibrator.predict_interval([2.9])
        >>> [round(float(end[0]), 2) for end in (low, high)]
        [0.91, 1.0]
        """
        source = self._read(logits, input)
        empty = np.empty(0, score_precision(source))
        lower, upper = [empty], [empty]
        for part in self._calibrated(source, intervals=True):
            if part.interval is None:
                last = self.stages[-1].kind if self.stages else "none"
                raise UsageError(f"{last} offers no intervals; venn-abers does, as the last stage")
            lower.append(part.interval[0])
            upper.append(part.interval[1])
        return np.concatenate(lower), np.concatenate(upper)

    def decide(
        self,
        logits: ArrayLike,
        input: InputKind | None = None,
        *,
        threshold: float | str | None = None,
        costs: CostsLike | None = None,
        positive: int | None = None,
        by: ArrayLike | None = None,
    ) -> Any:
        """Decisions (n,), int64: classes by a threshold, or by what errors cost.

        Parameters
        ----------
        logits, input, by
            As for `predict_proba`.
        threshold : float or str, optional
            Of two classes: the positive one is decided for from this probability on; ``"best"`` is
            the threshold that `fit` has learnt with ``costs``.
        costs : mapping or array (K, K), optional
            Of two classes ``{"fp": 1, "fn": 50}``, or by true class and decision: the decision of
            least expected cost.
        positive : int, optional
            The positive class of two; that of the fit's costs, or class 1, if left out.

        Raises
        ------
        UsageError, ParamsError
            There is not one of threshold and costs, or it is none for these classes.

        Examples
        --------
        >>> logits, labels = [[2, 0], [0, 2], [2, 0], [0, 2]], [0, 1, 1, 1]
        >>> calibrator = fit(logits, labels, method="temperature", folds=0)
        >>> calibrator.predict_proba([[2, 0], [0, 2]])[:, 1].round(2)
        array([0.25, 0.75])
        >>> calibrator.decide([[2, 0], [0, 2]], costs={"fp": 1, "fn": 9})
        array([1, 1])
        """
        given = None if costs is None else given_costs(costs)
        name = None if positive is None else str(positive)
        decider = make_decider(self.params, threshold, given, name)
        return decider(self.predict_proba(logits, input, by=by))

    def _read(self, logits: ArrayLike, input: InputKind | None) -> ArraySource:
        source = array_source(logits, None, None, input or known_kind(self.params.input))
        if max(source.columns, 2) != self.params.classes:
            raise DataError(
                f"the scores have {max(source.columns, 2)} classes, the calibrator "
                f"{self.params.classes}"
            )
        return source

    def _calibrated(self, source: ArraySource, *, intervals: bool = False) -> Iterator[Predictions]:
        engine = Engine()
        chunks = source.chunks(chunk_rows(engine, source))
        return calibrated_chunks(engine, source, chunks, self.stages, intervals=intervals)

    def save(self, path: str | Path, *, force: bool = False) -> None:
        """Write a parameter file: JSON, or safetensors if the name ends so.

        Raises
        ------
        UsageError
            There is such a file, without ``force``; or it cannot be written there.

        Examples
        --------
        >>> from tempfile import TemporaryDirectory
        >>> calibrator = fit([[3, 0], [0, 3], [3, 0], [0, 3]], [0, 1, 1, 1], folds=0)
        >>> with TemporaryDirectory() as folder:
        ...     calibrator.save(f"{folder}/params.json")
        ...     again = load(f"{folder}/params.json")
        >>> bool((again.predict_proba([[1, 0]]) == calibrator.predict_proba([[1, 0]])).all())
        True
        """
        with atomic_write(str(path), force=force) as file:
            file.write(encode(self.params, safetensors=str(path).endswith(".safetensors")))


def fit(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    method: str | None = None,
    loss: str = "nll",
    weights: ArrayLike | None = None,
    input: InputKind = "logits",
    options: Mapping[str, Any] | None = None,
    link: bool = True,
    target_prior: TargetPrior | None = None,
    tune: bool = False,
    average_folds: bool = False,
    by: ArrayLike | None = None,
    reduce: ReducedTo | None = None,
    stack: bool = False,
    folds: int = 5,
    cluster: ArrayLike | None = None,
    bootstrap: int = 0,
    costs: CostsLike | None = None,
    seed: int = 0,
    device: str = "auto",
    threads: int = 0,
) -> FittedCalibrator:
    """Fit a calibrator.

    Parameters
    ----------
    logits : array (n, K), or (n,) for two classes: the score of class 1
    labels : integer array (n,), from 0 to K - 1
    method : str, optional
        A name of ``calib methods``, or several with commas, applied in order; ``"auto"`` chooses
        by held-out loss. If left out: ``"temperature"``, and for two classes the best of a few
        cheap ones, by held-out loss.
    loss : str
        A name of ``calib losses``.
    weights : array (n,), optional
    input : str
        ``"logits"``, ``"log-probs"`` or ``"probs"``: what the scores are.
    options : mapping, optional
        ``{"vector.penalty": 1e-4}``, as ``--set`` on the command line.
    link : bool
        Whether to put the link behind a loss that is not proper but has one.
    target_prior : str or tuple of float, optional
        ``"balanced"``, or a share for each class, to fit for instead of the shares of the rows.
    tune : bool
        Whether to choose the penalties of the method by cross-validation.
    average_folds : bool
        Whether the last stage is to be the average of the fits without each fold.
    by : array (n,), optional
        Groups of the rows, whole numbers or texts: each gets a map of its own, drawn towards that
        of all rows as far as it helps.
    reduce : str, optional
        ``"top"`` calibrates the confidence alone.
    stack : bool
        Whether ``"auto"`` may mix its candidates.
    folds : int
        Of the cross-fitting that measures the calibrator; 0 leaves it out. Where something else
        needs folds, there are five then.
    cluster : array (n,), optional
        What rows belong together (a patient, a document), whole numbers or texts: they are held
        out, and resampled, together. There are at most as many folds as clusters.
    bootstrap : int
        Samples behind the 95 % intervals of the metrics before and after; 0: no intervals.
    costs : mapping or array (K, K), optional
        What errors cost: of two classes ``{"fp": 1, "fn": 50}``, or by true class and decision.
        The outcome then has `decisions`, and `FittedCalibrator.decide` a best threshold.
    seed : int
        Of the folds and of the intervals.

    Raises
    ------
    UsageError, DataError
        With one line that says what is wrong, and where.

    Examples
    --------
    A model that is certain (2.9 is the log-odds of 95 %) and right three times out of four:

    >>> logits, labels = [[2.9, 0.0], [0.0, 2.9], [2.9, 0.0], [0.0, 2.9]], [0, 1, 1, 1]
    >>> calibrator = fit(logits, labels, method="temperature", folds=2)
    >>> round(calibrator.params.stages[0].parameters["temperature"], 2)
    2.64
    >>> calibrator.predict_proba([[2.9, 0.0]]).round(2)
    array([[0.75, 0.25]])
    """
    check_counts(folds, threads, bootstrap, seed)
    plan = make_any_plan(
        method,
        loss,
        option_settings(options),
        link=link,
        prior=target_prior,
        tune=tune,
        average_folds=average_folds,
        by=None if by is None else key_title(by),
        reduce=reduce,
        stacked=stack,
    )
    source = labelled_source("a fit", logits, labels, weights, input, cluster)
    if by is not None:
        source = grouped_source(source, GROUP, by, "by")
    chooses = plan.chooses(max(source.columns, 2))
    holds_out = chooses or tune or average_folds or by is not None
    needed = 5 if folds < 2 and holds_out else folds
    data = open_data(Engine(choose_device(device), threads), source, needed, seed)
    resampling = bootstrap_of(bootstrap, seed, cluster)
    priced = None if costs is None else given_costs(costs).of(data.classes, "auto")
    panel = Panel(bootstrap=resampling, costs=priced)
    outcome = fit_and_measure(data, plan, panel, cross_fitted=folds >= 2)
    params = to_params(outcome, classes=data.classes, kind=input, rows=data.rows, seed=seed)
    return FittedCalibrator(params, outcome.fit.calibrators, outcome)


def load(path: str | Path) -> FittedCalibrator:
    """The calibrator in a parameter file.

    Raises
    ------
    ParamsError
        The file is not a valid parameter file.

    Examples
    --------
    `FittedCalibrator.save` writes one:

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     fit([[3, 0], [0, 3]] * 9, [0, 1, 1] * 6, folds=0).save(f"{folder}/params.json")
    ...     load(f"{folder}/params.json").params.classes
    2
    """
    params, stages = read_calibrators(path)
    return FittedCalibrator(params, stages)


def compare(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    methods: Sequence[str] | None = None,
    losses: Sequence[str] = ("nll",),
    weights: ArrayLike | None = None,
    input: InputKind = "logits",
    options: Mapping[str, Any] | None = None,
    stack: bool = False,
    folds: int = 5,
    cluster: ArrayLike | None = None,
    bootstrap: int = 0,
    seed: int = 0,
    view: ViewChoice = "auto",
    positive: int | None = None,
    device: str = "auto",
    threads: int = 0,
) -> Leaderboard:
    """Methods from the best to the worst by their loss on held-out rows, and which one to take.

    Parameters
    ----------
    logits : array (n, K), or (n,) for two classes: the score of class 1
    labels : integer array (n,), from 0 to K - 1
    methods : sequence of str, optional
        Names of ``calib methods``; if left out what suits so many classes and rows.
    losses : sequence of str
        Names of ``calib losses``, each with every method.
    stack : bool
        Whether a mixture of all is one more candidate.
    folds : int
        At least 2.
    weights, input, options, cluster, bootstrap, seed
        As for `fit`; with ``cluster`` standard errors are over clusters too.
    view, positive
        As for `evaluate`.

    Raises
    ------
    UsageError, DataError
        With one line that says what is wrong, and where.

    Examples
    --------
    >>> logits = [[2.9, 0.0], [0.0, 2.9], [2.9, 0.0], [0.0, 2.9]] * 10
    >>> board = compare(logits, [0, 1, 1, 1] * 10, methods=["none", "temperature"])
    >>> [standing.trial.name for standing in board.standings]
    ['temperature', 'none']
    """
    check_counts(folds, threads, bootstrap, seed)
    source = labelled_source("a comparison", logits, labels, weights, input, cluster)
    data = open_data(Engine(choose_device(device), threads), source, folds, seed)
    names = candidates(data.classes, data.weight) if methods is None else methods
    plans = make_plans(names, losses, option_settings(options))
    event = event_of(view, positive, data.classes)
    resampling = bootstrap_of(bootstrap, seed, cluster)
    panel = Panel(LEADERBOARD_METRICS, bootstrap=resampling, event=event)
    return compare_plans(data, plans, panel, stacked=stack)
