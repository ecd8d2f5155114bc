"""Metrics of arrays of scores and labels, differences of models, and decisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from numpy.typing import ArrayLike

from calibcli.api.arguments import check_counts, event_of
from calibcli.api.labelled_rows import labelled_rows
from calibcli.arrays import InputKind
from calibcli.engine.data import open_data
from calibcli.engine.engine import Engine
from calibcli.errors import DataError, UsageError
from calibcli.metrics.decisions import Decisions
from calibcli.metrics.paired_changes import (
    Difference,
    Run,
    paired_differences,
    why_unpaired,
)
from calibcli.metrics.panel import Evaluation, Panel
from calibcli.metrics.view import ViewChoice
from calibcli.workflow.deciding import measure_decisions
from calibcli.workflow.measurement_parts import measurement
from calibcli.workflow.measuring import ID, Through, measure
from calibcli.workflow.pricing import CostsLike, given_costs
from calibcli.workflow.verdict import Verdict


def evaluate(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    counts: ArrayLike | None = None,
    multi_label: bool = False,
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
        Or an array (n, K): one-hot, a distribution over the classes, or their votes. The mean over
        a row is then that over its classes, and the row is resampled as a whole.
    weights : array (n,), optional
    counts : integer array (n,), optional
        The rows that each stands for.
    multi_label : bool
        Whether any number of labels may be right in a row: ``labels`` are zeros and ones (n, K),
        and each is two classes. The metrics are then over all labels (micro), and the labels of a
        row are resampled together.
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

    Votes of five people a row:

    >>> round(evaluate([[0.8, 0.2], [0.4, 0.6]], [[4, 1], [2, 3]]).values["nll"], 3)
    0.587

    With 95 % intervals:

    >>> evaluate([0.2, 0.7] * 200, [0, 1, 1, 1] * 100, bootstrap=1000).intervals["ece"].low > 0
    True
    """
    check_counts(0, 0, bootstrap, seed)
    rows = labelled_rows(
        *("an evaluation", scores, labels, weights, input, cluster),
        counts=counts,
        multi_label=multi_label,
    )
    rows = rows if ids is None else rows.grouped(ID, ids, "ids")
    data = open_data(Engine(), rows.source, seed=seed)
    resampling = rows.bootstrap(bootstrap, seed)
    names = Panel().names if metrics is None else metrics
    event = event_of(view, positive, data.classes)
    priced = None if costs is None else given_costs(costs).of(data.classes, event)
    panel = Panel(names, bootstrap=resampling, recorded=True, event=event, costs=priced)
    return measure(data, [Through()], panel)[0]


def verdict_of(evaluation: Evaluation, class_names: Sequence[str] | None = None) -> Verdict:
    """What an evaluation says in one sentence, as `calib evaluate` has it first.

    Intervals belong to it: without them (``bootstrap=0``) less speaks for or against calibration.

    Parameters
    ----------
    evaluation : Evaluation
    class_names : sequence of str, optional
        By which the positive class of two is called.

    Examples
    --------
    >>> evaluation = evaluate([0.2, 0.7] * 200, [0, 1, 1, 1] * 100, bootstrap=200)
    >>> verdict_of(evaluation).kind
    'under'
    >>> verdict_of(evaluation, ["real", "fraud"]).text
    'too low: P(fraud) says 45 %, came 75 %'
    """
    return Verdict.of(measurement(evaluation, class_names))


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
    counts: ArrayLike | None = None,
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
    scores, labels, weights, counts, input, positive, cluster, bootstrap, seed
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
    check_counts(folds, 0, bootstrap, seed)
    what = "an evaluation"
    rows = labelled_rows(what, scores, labels, weights, input, cluster, counts=counts)
    data = open_data(Engine(), rows.source, folds, seed)
    event = event_of("auto", positive, data.classes)
    priced = given_costs(costs).of(data.classes, event)
    panel = Panel(bootstrap=rows.bootstrap(bootstrap, seed), event=event, costs=priced)
    return measure_decisions(data, [Through()], panel)[0]
