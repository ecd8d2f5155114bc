"""Calibrators from arrays: fitted, and compared with each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from numpy.typing import ArrayLike

from calibcli.api.arguments import (
    array_source,
    check_counts,
    event_of,
    key_title,
    kind_given,
    numbers_given,
    option_settings,
)
from calibcli.api.fitted import FittedCalibrator
from calibcli.api.labelled_rows import labelled_rows
from calibcli.arrays import InputKind
from calibcli.engine.data import Data, open_data
from calibcli.engine.engine import Engine
from calibcli.engine.machine import choose_device
from calibcli.errors import DataError
from calibcli.metrics.panel import Panel
from calibcli.metrics.registry import LEADERBOARD_METRICS
from calibcli.metrics.view import ViewChoice
from calibcli.tables.read_options import LABEL_NAME
from calibcli.workflow.automatic import compare_plans, make_any_plan
from calibcli.workflow.candidates import candidates
from calibcli.workflow.choosing import Leaderboard, Preference
from calibcli.workflow.fit_rows import TargetPrior
from calibcli.workflow.fitting import fit_and_measure
from calibcli.workflow.plans import ReducedTo, make_plans
from calibcli.workflow.pricing import CostsLike, given_costs
from calibcli.workflow.records import to_params


def fit(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    method: str | None = None,
    loss: str = "nll",
    weights: ArrayLike | None = None,
    counts: ArrayLike | None = None,
    multi_label: bool | Sequence[str] = False,
    input: InputKind | None = None,
    options: Mapping[str, Any] | None = None,
    link: bool = True,
    target_prior: TargetPrior | None = None,
    target: ArrayLike | None = None,
    tune: bool = False,
    average_folds: bool = False,
    by: ArrayLike | None = None,
    reduce: ReducedTo | None = None,
    stack: bool = False,
    prefer: Preference = "accurate",
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
        Or an array (n, K), as for `evaluate`.
    method : str, optional
        A name of ``calib methods``, or several with commas, applied in order; ``"auto"`` chooses
        by held-out loss. If left out: ``"temperature"``, and for two classes the best of a few
        cheap ones, by held-out loss.
    loss : str
        A name of ``calib losses``.
    weights : array (n,), optional
    counts : integer array (n,), optional
        The rows that each stands for.
    multi_label : bool or sequence of str
        Whether any number of labels may be right in a row, or the names of these labels: ``labels``
        are zeros and ones (n, K), and each label gets a map of its own, of two classes. Then
        `FittedCalibrator.predict_proba` gives a probability (n, K) for each.
    input : str, optional
        ``"logits"``, ``"log-probs"`` or ``"probs"``: what the scores are. If left out:
        probabilities where every row lies in [0, 1] and sums to 1 (single scores: where 20 or more
        all lie in [0, 1]), otherwise logits; ``params.input`` of the calibrator says which.
    options : mapping, optional
        ``{"vector.penalty": 1e-4}``, as ``--set`` on the command line.
    link : bool
        Whether to put the link behind a loss that is not proper but has one.
    target_prior : str or tuple of float, optional
        ``"balanced"``, or a share for each class, to fit for instead of the shares of the rows.
    target : array (m, K), or (m,), optional
        Scores without labels of where the calibrator will be used: its class shares are estimated
        and corrected for (``outcome.shift``).
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
    prefer : str
        What is taken of several methods: ``"accurate"`` for the least expected loss, ``"simple"``
        for the simplest within a standard error of the best.
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

    The same rows as counts, and labels of which any number may be right:

    >>> rows, counts = [[2.9, 0.0], [0.0, 2.9], [2.9, 0.0]], [1, 2, 1]
    >>> counted = fit(rows, [0, 1, 1], counts=counts, method="temperature", folds=0)
    >>> round(counted.params.stages[0].parameters["temperature"], 2)
    2.64
    >>> tags = fit([[2, -2], [2, 2], [-2, 2], [2, -2]], [[1, 0], [1, 1], [0, 0], [0, 0]],
    ...            multi_label=["cat", "dog"], method="temperature", folds=0)
    >>> tags.predict_proba([[2, 2]]).shape
    (1, 2)
    """
    check_counts(folds, threads, bootstrap, seed)
    column = LABEL_NAME if multi_label else None if by is None else key_title(by)
    more: dict[str, Any] = {"link": link, "tune": tune, "average_folds": average_folds}
    more |= {"by": column, "pooled": not multi_label, "reduce": reduce, "prior": target_prior}
    settings = option_settings(options)
    plan = make_any_plan(method, loss, settings, stacked=stack, prefer=prefer, **more)
    scores = numbers_given("scores", logits)
    kind = kind_given(input, scores, single=bool(multi_label))
    given = ("a fit", scores, labels, weights, kind, cluster)
    rows = labelled_rows(*given, counts=counts, multi_label=multi_label)
    rows = rows.with_maps(by, target_prior, target)
    holds_out = plan.chooses(max(rows.source.columns, 2)) or tune or average_folds or plan.by
    engine = Engine(choose_device(device), threads)
    data = open_data(engine, rows.source, 5 if folds < 2 and holds_out else folds, seed)
    priced = None if costs is None else given_costs(costs).of(data.classes, "auto")
    panel = Panel(bootstrap=rows.bootstrap(bootstrap, seed), costs=priced)
    unlabelled = None if target is None else _unlabelled(data, target, kind)
    outcome = fit_and_measure(data, plan, panel, cross_fitted=folds >= 2, target=unlabelled)
    params = to_params(outcome, classes=data.classes, kind=kind, rows=data.rows, seed=seed)
    params = replace(params, reading=rows.reading)
    return FittedCalibrator(params, outcome.fit.calibrators, outcome)


def _unlabelled(data: Data, target: ArrayLike, kind: InputKind) -> Data:
    """Scores without labels, as rows of the same classes as those of a fit."""
    unlabelled = open_data(data.engine, array_source(target, None, None, kind))
    if unlabelled.classes != data.classes:
        raise DataError(
            f"the scores of the target have {unlabelled.classes} classes, those of the fit "
            f"{data.classes}"
        )
    return unlabelled


def compare(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    methods: Sequence[str] | None = None,
    losses: Sequence[str] = ("nll",),
    weights: ArrayLike | None = None,
    counts: ArrayLike | None = None,
    multi_label: bool = False,
    input: InputKind | None = None,
    options: Mapping[str, Any] | None = None,
    stack: bool = False,
    prefer: Preference = "accurate",
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
        Or an array (n, K), as for `evaluate`.
    methods : sequence of str, optional
        Names of ``calib methods``; if left out what suits so many classes and rows.
    losses : sequence of str
        Names of ``calib losses``, each with every method.
    stack : bool
        Whether a mixture of all is one more candidate.
    prefer : str
        As for `fit`.
    folds : int
        At least 2.
    weights, counts, multi_label, input, options, cluster, bootstrap, seed
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
    scores = numbers_given("scores", logits)
    kind = kind_given(input, scores, single=bool(multi_label))
    given = ("a comparison", scores, labels, weights, kind, cluster)
    rows = labelled_rows(*given, counts=counts, multi_label=multi_label).with_maps(None)
    data = open_data(Engine(choose_device(device), threads), rows.source, folds, seed)
    names = candidates(data.classes, data.weight) if methods is None else methods
    plans = make_plans(names, losses, option_settings(options))
    if multi_label:
        plans = [replace(plan, by=LABEL_NAME, pooled=False) for plan in plans]
    event = event_of(view, positive, data.classes)
    resampling = rows.bootstrap(bootstrap, seed)
    panel = Panel(LEADERBOARD_METRICS, bootstrap=resampling, event=event)
    return compare_plans(data, plans, panel, stacked=stack, prefer=prefer)
