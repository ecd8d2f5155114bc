"""The Python interface, for notebooks and services, on arrays.

`fit`, `load`, `evaluate` and `compare` do what the commands of these names do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from calibcli.arrays import InputKind, NumpyArray
from calibcli.calibrators.base import GROUP, Calibrator
from calibcli.calibrators.groups import groups_in
from calibcli.engine.data import open_data
from calibcli.engine.engine import Engine
from calibcli.engine.folds import CLUSTER
from calibcli.engine.machine import choose_device
from calibcli.engine.source import ArraySource
from calibcli.errors import DataError, UsageError
from calibcli.metrics.decisions import Decisions
from calibcli.metrics.paired_changes import (
    Difference,
    Run,
    paired_differences,
    why_unpaired,
)
from calibcli.metrics.panel import Evaluation, Panel
from calibcli.metrics.resampling import Bootstrap
from calibcli.metrics.view import ViewChoice, choose_event
from calibcli.params import Params, encode
from calibcli.tables.formats.base import RowError
from calibcli.tables.keys import KeyNumbers
from calibcli.workflow.applying import Predictions, calibrated_chunks, chunk_rows
from calibcli.workflow.automatic import (
    LEADERBOARD_METRICS,
    AutoPlan,
    compare_plans,
    make_any_plan,
)
from calibcli.workflow.choosing import Leaderboard, candidates
from calibcli.workflow.deciding import measure_decisions
from calibcli.workflow.fit_rows import TargetPrior
from calibcli.workflow.fitting import Outcome, fit_and_measure
from calibcli.workflow.measuring import ID, Through, measure
from calibcli.workflow.plans import ReducedTo, make_plans
from calibcli.workflow.pricing import CostsLike, given_costs, make_decider
from calibcli.workflow.records import read_calibrators, to_params

LARGEST_SEED = (1 << 63) - 1


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
            source = _grouped(source, GROUP, by, "by", groups.names)
        empty = np.empty((0, self.params.classes), _precision(source))
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
        empty = np.empty(0, _precision(source))
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
        source = _source(logits, None, None, input or _kind(self.params.input))
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
        from calibcli.tables.atomic import atomic_write

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
    _check_counts(folds, threads, bootstrap, seed)
    plan = make_any_plan(
        method,
        loss,
        _settings(options),
        link=link,
        prior=target_prior,
        tune=tune,
        average_folds=average_folds,
        by=None if by is None else _title(by),
        reduce=reduce,
        stacked=stack,
    )
    source = _labelled("a fit", logits, labels, weights, input, cluster)
    if by is not None:
        source = _grouped(source, GROUP, by, "by")
    chooses = isinstance(plan, AutoPlan) and plan.chooses(max(source.columns, 2))
    holds_out = chooses or tune or average_folds or by is not None
    needed = 5 if folds < 2 and holds_out else folds
    data = open_data(Engine(choose_device(device), threads), source, needed, seed)
    resampling = _bootstrap(bootstrap, seed, cluster)
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


def evaluate(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    input: InputKind = "probs",
    metrics: tuple[str, ...] | None = None,
    view: ViewChoice = "auto",
    positive: int | None = None,
    cluster: ArrayLike | None = None,
    ids: ArrayLike | None = None,
    bootstrap: int = 0,
    costs: CostsLike | None = None,
    seed: int = 0,
) -> Evaluation:
    """Metrics and reliability bins of scores (n, K) and labels (n,).

    Parameters
    ----------
    scores : array (n, K), or (n,) for two classes: the score of class 1
    labels : integer array (n,), from 0 to K - 1
    weights : array (n,), optional
    input : str
        ``"probs"``, ``"logits"`` or ``"log-probs"``: what the scores are.
    metrics : tuple of str, optional
        Names of ``calib metrics``; those that are usually shown if left out.
    view : str
        What confidence is: ``"top"``, the probability of the predicted class, or ``"positive"``,
        that of the positive class of two; ``"auto"`` is that of the positive class of two, and of
        the predicted one of more.
    positive : int, optional
        The positive class of two; class 1 if left out.
    cluster : array (n,), optional
        What rows belong together (a patient, a document), whole numbers or texts: they are
        resampled together.
    ids : array (n,), optional
        Names of the rows, whole numbers or texts, by which `differences` sees that they are those
        of another evaluation; labels, weights and clusters show it too.
    bootstrap : int
        Samples behind the 95 % intervals, which are in `Evaluation.intervals`; 0: no intervals.
    costs : mapping or array (K, K), optional
        What errors cost: of two classes ``{"fp": 1, "fn": 50}``, or by true class and decision.
        ``values`` then has ``cost`` and ``argmax_cost``; `evaluate_decisions` says more.
    seed : int
        Of the intervals.

    Raises
    ------
    UsageError, DataError
        An unknown metric, or values that cannot be used, with their row.

    Examples
    --------
    >>> evaluation = evaluate([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.9, 0.1]], [0, 1, 1, 0])
    >>> {name: round(evaluation.values[name], 3) for name in ("accuracy", "nll", "brier")}
    {'accuracy': 0.75, 'nll': 0.338, 'brier': 0.21}

    With 95 % intervals:

    >>> evaluate([0.2, 0.7] * 200, [0, 1, 1, 1] * 100, bootstrap=1000).intervals["ece"].low > 0
    True
    """
    _check_counts(0, 0, bootstrap, seed)
    source = _labelled("an evaluation", scores, labels, weights, input, cluster)
    if ids is not None:
        source = _grouped(source, ID, ids, "ids")
    data = open_data(Engine(), source, seed=seed)
    resampling = _bootstrap(bootstrap, seed, cluster)
    names = Panel().names if metrics is None else metrics
    event = choose_event(view, None if positive is None else str(positive), data.classes)
    priced = None if costs is None else given_costs(costs).of(data.classes, event)
    panel = Panel(names, bootstrap=resampling, recorded=True, event=event, costs=priced)
    return measure(data, [Through()], panel)[0]


def differences(
    evaluations: Mapping[str, Evaluation], against: str | None = None
) -> dict[str, dict[str, Difference]]:
    """How models of the same rows differ from one of them, with paired intervals.

    Parameters
    ----------
    evaluations : mapping of str to Evaluation
        By the names of the models: what `evaluate` gave with ``bootstrap``, of the same rows in the
        same order, and with the same seed.
    against : str, optional
        The model that the others are compared with; the first one if left out.

    Returns
    -------
    dict of str to dict of str to Difference
        By model, but for the one that the others are compared with, and metric. P-values are
        adjusted for the number of all of them (Holm).

    Raises
    ------
    UsageError, DataError
        There is no such model, or the evaluations are not of the same rows, or have no intervals.

    Examples
    --------
    >>> labels = [0, 1, 1, 0] * 50
    >>> sure, unsure = [0.2, 0.8, 0.8, 0.2] * 50, [0.4, 0.6, 0.6, 0.4] * 50
    >>> models = {"sure": evaluate(sure, labels, bootstrap=200)}
    >>> models["unsure"] = evaluate(unsure, labels, bootstrap=200)
    >>> nll = differences(models)["unsure"]["nll"]
    >>> round(nll.value, 3), nll.clear
    (0.288, True)
    """
    if not evaluations:
        return {}
    name = next(iter(evaluations)) if against is None else against
    if name not in evaluations:
        raise UsageError(f"against {name!r}: the models are {', '.join(evaluations)}")
    runs = {model: Run.of(evaluation) for model, evaluation in evaluations.items()}
    reference = runs.pop(name)
    for model, run in runs.items():
        other_view = evaluations[model].event != evaluations[name].event
        reason = "another view" if other_view else why_unpaired(run, reference)
        if reason:
            raise DataError(f"{model} cannot be compared with {name}: {reason}")
    return dict(zip(runs, paired_differences(list(runs.values()), reference), strict=True))


def evaluate_decisions(
    scores: ArrayLike,
    labels: ArrayLike,
    costs: CostsLike,
    *,
    weights: ArrayLike | None = None,
    input: InputKind = "probs",
    positive: int | None = None,
    cluster: ArrayLike | None = None,
    folds: int = 5,
    bootstrap: int = 0,
    seed: int = 0,
) -> Decisions:
    """What decisions by scores (n, K) cost: by rule, by threshold, and on the surest rows.

    Parameters
    ----------
    scores, labels, weights, input, positive, cluster, bootstrap, seed
        As for `evaluate`.
    costs : mapping or array (K, K)
        What errors cost: of two classes ``{"fp": 1, "fn": 50}``, or by true class and decision.
    folds : int
        Of the choice of the best threshold of two classes; below 2 it is not judged.

    Raises
    ------
    UsageError, DataError
        With one line that says what is wrong, and where.

    Examples
    --------
    >>> probs, labels = [0.9, 0.1, 0.3, 0.2], [1, 0, 1, 0]
    >>> decisions = evaluate_decisions(probs, labels, {"fp": 1, "fn": 4}, folds=0)
    >>> {rule.name: rule.cost.value for rule in decisions.rules}
    {'least': 0.25, 'argmax': 1.0, 'always': 0.5, 'never': 2.0}
    """
    _check_counts(folds, 0, bootstrap, seed)
    source = _labelled("an evaluation", scores, labels, weights, input, cluster)
    data = open_data(Engine(), source, folds, seed)
    event = choose_event("auto", None if positive is None else str(positive), data.classes)
    priced = given_costs(costs).of(data.classes, event)
    panel = Panel(bootstrap=_bootstrap(bootstrap, seed, cluster), event=event, costs=priced)
    return measure_decisions(data, [Through()], panel)[0]


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
    _check_counts(folds, threads, bootstrap, seed)
    source = _labelled("a comparison", logits, labels, weights, input, cluster)
    data = open_data(Engine(choose_device(device), threads), source, folds, seed)
    names = candidates(data.classes, data.weight) if methods is None else methods
    plans = make_plans(names, losses, _settings(options))
    event = choose_event(view, None if positive is None else str(positive), data.classes)
    resampled_by = _bootstrap(bootstrap, seed, cluster)
    panel = Panel(LEADERBOARD_METRICS, bootstrap=resampled_by, event=event)
    return compare_plans(data, plans, panel, stacked=stack)


def _check_counts(folds: int, threads: int, bootstrap: int, seed: int) -> None:
    if min(folds, threads, bootstrap) < 0 or not 0 <= seed <= LARGEST_SEED:
        raise UsageError(
            f"folds, threads, bootstrap and seed count from 0 (seed up to {LARGEST_SEED})"
        )


def _settings(options: Mapping[str, Any] | None) -> list[str]:
    """Options as ``--set`` takes them."""
    return [f"{name}={value}" for name, value in (options or {}).items()]


def _bootstrap(replicates: int, seed: int, cluster: ArrayLike | None) -> Bootstrap:
    return Bootstrap(replicates, seed, None if cluster is None else CLUSTER)


def _labelled(
    what: str,
    scores: ArrayLike,
    labels: ArrayLike | None,
    weights: ArrayLike | None,
    kind: InputKind,
    cluster: ArrayLike | None,
) -> ArraySource:
    """Rows with labels, and with clusters where there are any."""
    source = _source(scores, labels, weights, kind)
    if not source.has_labels:
        raise DataError(f"{what} needs labels")
    return source if cluster is None else _grouped(source, CLUSTER, cluster, "cluster")


def _source(
    scores: ArrayLike, labels: ArrayLike | None, weights: ArrayLike | None, kind: InputKind
) -> ArraySource:
    array = _numbers("scores", scores)
    if array.dtype not in (np.float16, np.float32, np.float64):
        array = array.astype(np.float64)
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or not array.shape[1]:
        raise DataError(f"scores must have the shape (n, K), not {array.shape}")
    return ArraySource(
        array,
        None if labels is None else _whole(_vector("labels", labels, len(array))),
        None if weights is None else _vector("weights", weights, len(array)).astype(np.float64),
        _kind(kind),
    )


def _grouped(
    source: ArraySource, role: str, given: Any, title: str, known: tuple[str, ...] = ()
) -> ArraySource:
    """The rows with groups of a role, those that are known having the first numbers."""
    values = np.asarray(given.detach().cpu() if hasattr(given, "detach") else given)
    if values.shape != (source.rows,) or values.dtype.kind not in "biufUSO":
        raise DataError(
            f"{title} must be numbers or texts of the shape ({source.rows},), not {values.dtype} "
            f"of {values.shape}"
        )
    numbers = KeyNumbers(_title(given, title), known)
    try:
        keys = numbers.encode_array(values)
    except RowError as error:
        raise DataError(f"row {error.row}: {error}") from None
    names = {**source.key_names, role: numbers.names}
    return replace(source, keys={**(source.keys or {}), role: keys}, key_names=names)


def _title(given: Any, otherwise: str = "by") -> str:
    """What groups are called: the name of a pandas or polars series, or that of the parameter."""
    name = getattr(given, "name", None)
    return name if isinstance(name, str) and name else otherwise


def _precision(source: ArraySource) -> type[Any]:
    """The type of what is computed from the scores."""
    return np.float64 if source.dtype == np.float64 else np.float32


def _numbers(name: str, values: Any) -> NumpyArray:
    """Anything like an array of numbers, a torch tensor on a GPU included."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        # NumPy has no such type.
        values = values.float() if "bfloat16" in str(values.dtype) else values
    try:
        array = np.asarray(values)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name} cannot be made an array: {error}") from None
    if array.dtype.kind not in "biuf":
        raise DataError(f"{name} must be numbers, not of type {array.dtype}")
    return array


def _vector(name: str, values: ArrayLike, rows: int) -> NumpyArray:
    vector = _numbers(name, values)
    if vector.shape not in ((rows,), (rows, 1)):
        raise DataError(f"{name} must have the shape ({rows},), not {vector.shape}")
    return vector.reshape(rows)


def _whole(labels: NumpyArray) -> NumpyArray:
    with np.errstate(invalid="ignore"):
        numbers = labels.astype(np.int64)
    if (wrong := np.flatnonzero(numbers != labels)).size:
        raise DataError(f"row {wrong[0]}: the label {labels[wrong[0]]} is no class number")
    return numbers


def _kind(name: str) -> InputKind:
    for kind in ("logits", "log-probs", "probs"):
        if name == kind:
            return kind
    raise UsageError(f"input {name!r} is not known; use logits, log-probs or probs")
