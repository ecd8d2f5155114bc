"""Class shares of unlabelled rows, and how far they explain that the rows are others.

Under label shift the scores of a class are distributed as they were, and only the shares of the
classes are others. Then the likelihood of unlabelled scores is concave in the shares (Saerens,
Latinne and Decaestecker, Neural Computation 2002), and their maximum is consistent and efficient
where the probabilities of the source are calibrated with a bias a class (Alexandari, Kundaje and
Shrikumar, ICML 2020). Black-box shift estimation (Lipton, Wang and Smola, ICML 2018) needs a
confusion matrix alone and is a check on it.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from functools import partial

import numpy as np

from calibcli.arrays import NumpyArray, host_weights, log_softmax, to_numpy
from calibcli.calibrators.affine import BiasCorrectedTemperatureMap, VectorScaling
from calibcli.calibrators.base import Calibrator
from calibcli.calibrators.chain import log_probs_after
from calibcli.engine.data import Data
from calibcli.engine.engine import Tile
from calibcli.errors import DataError
from calibcli.fitting.stages import fit_stages
from calibcli.objectives.nll import NegativeLogLikelihood

MOST_CLASSES = 2000
"""Covariances of the shares are matrices (K, K)."""

_MOST_ROWS = 200_000
"""Rows that the shares are estimated from; more tell them no better than the rows of the fit."""

_STEPS = 200
_TOLERANCE = 1e-10

_Z95 = 1.959964

_SHIFT_P, _SHIFT_GAP = 0.01, 0.02
"""A difference of confidences is worth a warning below this p, where it is as large as this."""

_LARGEST_GAP = 0.2
"""Where so many rows have other confidences than class shares explain, these are not told."""


@dataclass(frozen=True)
class ConfidenceGap:
    """How the confidences of unlabelled rows differ from what class shares explain.

    Attributes
    ----------
    statistic : float
        The largest difference of the distribution functions (Kolmogorov and Smirnov), the rows of
        the fit being weighted to the estimated class shares.
    p : float
        Of no difference; slightly too large, since the shares were fitted to the same rows.
    mean, expected_mean : float
        The mean confidence of the rows, and that of the weighted rows of the fit.
    at : float
        The confidence at which the difference is largest.
    above, expected_above : float
        Share of the rows above it.
    """

    statistic: float
    p: float
    mean: float
    expected_mean: float
    at: float
    above: float
    expected_above: float

    @property
    def clear(self) -> bool:
        """Whether there is more than other class shares, and by more than a trifle."""
        return self.p < _SHIFT_P and self.statistic > _SHIFT_GAP

    @property
    def excludes_label_shift(self) -> bool:
        """Whether the rows are so different that estimated class shares mean nothing."""
        return self.clear and self.statistic > _LARGEST_GAP


@dataclass(frozen=True, eq=False)
class LabelShift:
    """Class shares of unlabelled rows beside those of the rows of a fit.

    Attributes
    ----------
    source : float64 array (K,)
        Shares of the rows of the fit; what has none there has none anywhere.
    shares : float64 array (K,)
        Of the unlabelled rows, by maximum likelihood (MLLS).
    low, high : float64 array (K,)
        95 % intervals of these.
    by_confusion : float64 array (K,)
        The same shares by black-box shift estimation (BBSE); NaN where that cannot tell.
    used : float64 array (K,)
        ``shares``, drawn towards ``source`` as far as noise could explain the difference.
    drawn : float
        How far: 0 leaves the estimate as it is, 1 is the shares of the fit. It is 1 too where the
        rows differ in so much more than class shares that these cannot be told.
    rows : int
        Unlabelled rows that the estimate is from.
    confidence : ConfidenceGap
    """

    source: NumpyArray
    shares: NumpyArray
    low: NumpyArray
    high: NumpyArray
    by_confusion: NumpyArray
    used: NumpyArray
    drawn: float
    rows: int
    confidence: ConfidenceGap

    @property
    def correction(self) -> VectorScaling:
        """The stage that turns probabilities for the shares of the fit into those for ``used``."""
        ratio = np.zeros(len(self.source))
        present = self.source > 0
        ratio[present] = np.log(self.used[present] / self.source[present])
        return VectorScaling(np.ones(len(ratio)), ratio - ratio.mean())


def estimate_label_shift(data: Data, target: Data) -> LabelShift:
    """The class shares of unlabelled rows, given labelled rows of the same classes.

    Parameters
    ----------
    data : Data
        Labelled rows.
    target : Data
        Rows whose labels, if any, are not looked at.

    Raises
    ------
    DataError
        Fewer than two classes have labelled rows, or there are too many classes.
    """
    source = data.class_weights / data.class_weights.sum()
    present = source > 0
    if present.sum() < 2:
        raise DataError("--target: class shares need rows of two classes at least in the fit")
    if len(source) > MOST_CLASSES:
        raise DataError(
            f"--target estimates the shares of at most {MOST_CLASSES:,} classes, and there are "
            f"{len(source):,}; give them with --target-prior"
        )
    target = target.sample(_MOST_ROWS) or target
    calibrated = fit_stages(
        data, (BiasCorrectedTemperatureMap(prior=0.0),), NegativeLogLikelihood()
    )
    model = _Model(calibrated.calibrators, present, np.log(source[present]))
    prior = source[present]
    shares = _most_likely(target, model, prior)
    errors = _standard_errors(data, target, model, shares)
    low, high = _interval(shares, errors)
    surprise = _surprise(data, target, model, prior)
    # By noise alone it is the number of free shares in the mean. Below twice that, as for Akaike,
    # nothing is gained; above, the part that noise explains is taken back (James and Stein).
    free = len(prior) - 1
    strength = 1 - free / surprise if surprise > 2 * free else 0.0
    confidence = _confidence_gap(data, target, model, shares / prior)
    if confidence.excludes_label_shift:
        strength = 0.0
    # The logarithm of a share counts, and one that could be 0 has none.
    likely = _means_above_zero(shares, errors)
    likely = np.where(shares < prior, np.minimum(likely, prior), likely)
    used = prior * np.exp(strength * np.log(likely / prior))
    used /= used.sum()
    return LabelShift(
        source=source,
        shares=_for_all(shares, present),
        low=_for_all(low, present),
        high=_for_all(high, present),
        by_confusion=_for_all(_by_confusion(data, target, model), present),
        used=_for_all(used, present),
        drawn=1 - strength,
        rows=target.rows,
        confidence=confidence,
    )


@dataclass(frozen=True, eq=False)
class _Model:
    """Calibrated probabilities of the classes that the labelled rows have.

    Attributes
    ----------
    stages : tuple of Calibrator
    present : bool array (K,)
    log_prior : float64 array (L,)
        Log-shares of the L classes that are present.
    """

    stages: tuple[Calibrator, ...]
    present: NumpyArray
    log_prior: NumpyArray

    def scores(self, tile: Tile) -> NumpyArray:
        """Stored log-probabilities (n, L), which the temperature and the biases are for."""
        logits = to_numpy(log_softmax(tile.logits)).astype(np.float64)
        return np.ascontiguousarray(logits[:, self.present])

    def log_probs(self, tile: Tile) -> NumpyArray:
        """Calibrated log-probabilities (n, L)."""
        logits = to_numpy(log_probs_after(self.stages, tile.logits)).astype(np.float64)
        log_probs: NumpyArray = log_softmax(np.ascontiguousarray(logits[:, self.present]))
        return log_probs

    def labels(self, tile: Tile) -> NumpyArray:
        """Labels (n,) among the classes that are present; a row of weight 0 may have any."""
        places = np.maximum(np.cumsum(self.present) - 1, 0)
        labels: NumpyArray = places[to_numpy(tile.labels)]
        return labels


def _weights(tile: Tile) -> NumpyArray:
    return host_weights(tile.logits, tile.weights)


def _for_all(values: NumpyArray, present: NumpyArray) -> NumpyArray:
    every = np.zeros(len(present))
    every[present] = values
    return every


# --- maximum likelihood -------------------------------------------------------------------------


def _most_likely(target: Data, model: _Model, prior: NumpyArray) -> NumpyArray:
    """Shares (L,) of the largest posterior.

    The prior is a single row with the shares of the fit: no share is 0, and its logarithm finite.
    Newton's steps are taken where they ascend, those of EM, which always do, elsewhere.
    """
    shares = prior.copy()
    value, mean, products, weight = _posterior(target, model, prior, shares)
    for _ in range(_STEPS):
        total = weight + 1
        gradient = mean + prior - total * shares
        information = total * (np.diag(shares) - np.outer(shares, shares))
        information -= np.diag(mean) - products
        step = np.linalg.pinv(information, rcond=1e-12, hermitian=True) @ gradient
        for proposal in (_moved(shares, step), (mean + prior) / total):
            new = _posterior(target, model, prior, proposal)
            if new[0] >= value:
                break
        change = float(np.abs(proposal - shares).max())
        shares = proposal
        value, mean, products, weight = new
        if change < _TOLERANCE:
            break
    return shares


def _moved(shares: NumpyArray, step: NumpyArray) -> NumpyArray:
    """Shares after a step of their logarithms; long ones, which curvature misleads, are cut."""
    step = step - step.mean()
    largest = float(np.abs(step).max())
    moved = shares * np.exp(step * min(1.0, 2.0 / max(largest, 1e-300)))
    moved = np.maximum(moved, 1e-300)
    result: NumpyArray = moved / moved.sum()
    return result


_Sums = tuple[float, NumpyArray, NumpyArray, float]


def _posterior(target: Data, model: _Model, prior: NumpyArray, shares: NumpyArray) -> _Sums:
    """Log-posterior of shares; the sum of the rows' probabilities, of their products, of 1."""
    change = np.log(shares) - model.log_prior
    value, mean, products, weight = target.fold(partial(_sums, model, change), _added)
    return value + float(prior @ np.log(shares)), mean, products, weight


def _sums(model: _Model, change: NumpyArray, tile: Tile) -> _Sums:
    weights = _weights(tile)
    probs, log_total = _corrected(model.log_probs(tile), change)
    weighted = weights[:, None] * probs
    return (
        float(weights @ log_total),
        weighted.sum(axis=0),
        weighted.T @ probs,
        float(weights.sum()),
    )


def _added(left: _Sums, right: _Sums) -> _Sums:
    return (left[0] + right[0], left[1] + right[1], left[2] + right[2], left[3] + right[3])


def _corrected(log_probs: NumpyArray, change: NumpyArray) -> tuple[NumpyArray, NumpyArray]:
    """Probabilities (n, L) under other class shares, and the logarithms (n,) of their sums."""
    moved = log_probs + change
    top = moved.max(axis=1, keepdims=True)
    probs = np.exp(moved - top)
    total = probs.sum(axis=1, keepdims=True)
    return probs / total, (top + np.log(total))[:, 0]


# --- their noise ---------------------------------------------------------------------------------


def _standard_errors(data: Data, target: Data, model: _Model, shares: NumpyArray) -> NumpyArray:
    """Standard errors (L,) of the most likely shares.

    The delta method through all that was estimated: the shares from the unlabelled rows, the
    temperature, the biases and the class shares of the fit from the labelled ones. It is of the
    shares, not of their logarithms, as those of a share near 0 have no normal distribution.
    """
    equations = _equations(data, target, model, shares, null=False)
    inverse = np.linalg.pinv(equations.slope, rcond=1e-12, hermitian=True)
    # Each share but the largest is free, which takes what they leave.
    spread = equations.contrasts.T @ inverse
    variances = ((spread @ equations.noise) * spread).sum(axis=1)
    errors: NumpyArray = np.sqrt(np.maximum(variances, 0))
    return errors


def _surprise(data: Data, target: Data, model: _Model, prior: NumpyArray) -> float:
    """How far the rows are from the shares of the fit, in squares of its noise (a score test).

    If these are theirs it is L - 1 in the mean. Unlike the distance of the estimate from them it
    needs no normal distribution of an estimate that may be at an end of its range.
    """
    equations = _equations(data, target, model, prior, null=True)
    inverse = np.linalg.pinv(equations.noise, rcond=1e-12, hermitian=True)
    return float(equations.value @ inverse @ equations.value)


@dataclass(frozen=True, eq=False)
class _Equations:
    """The slopes of the likelihood by the L - 1 free shares, which are 0 at the most likely ones.

    Attributes
    ----------
    contrasts : float64 array (L - 1, L)
        A free share up, and the largest down.
    value : float64 array (L - 1,)
    slope : float64 array (L - 1, L - 1)
        Minus the derivatives of the value by the free shares.
    noise : float64 array (L - 1, L - 1)
        Covariance of the value.
    """

    contrasts: NumpyArray
    value: NumpyArray
    slope: NumpyArray
    noise: NumpyArray


def _equations(
    data: Data, target: Data, model: _Model, shares: NumpyArray, *, null: bool
) -> _Equations:
    """The equations at some shares; ``null``: at those of the fit, whose noise is theirs too.

    A labelled row's part in an estimate is its score times the inverse information.
    """
    contrasts = np.delete(np.eye(len(shares)), shares.argmax(), axis=0)
    contrasts[:, shares.argmax()] = -1.0
    change = np.log(shares) - model.log_prior
    ratios, products, squares, by_bias, by_scale = target.fold(
        partial(_target_scores, model, change), _added_all
    )
    (of_parameters,) = data.fold(partial(_parameter_information, model), _added_all)
    # Biases have a constant that nothing depends on.
    inverse = np.linalg.pinv(of_parameters, rcond=1e-12, hermitian=True)
    by_parameters = contrasts @ np.column_stack((by_scale, by_bias)) @ inverse
    by_log_prior = -np.diag(ratios) if null else -by_bias
    by_counts = contrasts @ by_log_prior / (data.weight * np.exp(model.log_prior))
    (of_rows,) = data.fold(partial(_source_scores, model, by_parameters, by_counts), _added_all)
    return _Equations(
        contrasts,
        contrasts @ ratios,
        contrasts @ products @ contrasts.T,
        contrasts @ squares @ contrasts.T + of_rows,
    )


_Arrays = tuple[NumpyArray, ...]


def _added_all(left: _Arrays, right: _Arrays) -> _Arrays:
    return tuple(a + b for a, b in zip(left, right, strict=True))


def _target_scores(model: _Model, change: NumpyArray, tile: Tile) -> _Arrays:
    """Sums over rows of likelihoods u (L,) over that of the mixture, which are slopes by shares.

    Also of their products (L, L), by weight and squared weight, and of the derivatives of u by the
    biases (L, L) and by the scale (L,).
    """
    weights, scores = _weights(tile), _finite(model.scores(tile))
    log_probs = model.log_probs(tile)
    probs, log_total = _corrected(log_probs, change)
    ratios = np.exp(log_probs - model.log_prior - log_total[:, None])
    weighted = weights[:, None] * ratios
    centred = scores - (probs * scores).sum(axis=1, keepdims=True)
    return (
        weighted.sum(axis=0),
        weighted.T @ ratios,
        weighted.T @ weighted,
        np.diag(weighted.sum(axis=0)) - weighted.T @ probs,
        (weighted * centred).sum(axis=0),
    )


def _parameter_information(model: _Model, tile: Tile) -> _Arrays:
    """The information of the scale and the biases (1 + L, 1 + L)."""
    weights, scores = _weights(tile), _finite(model.scores(tile))
    probs = np.exp(model.log_probs(tile))
    weighted = weights[:, None] * probs
    centred = scores - (probs * scores).sum(axis=1, keepdims=True)
    with_scale = weighted * centred
    scale = float((with_scale * centred).sum())
    biases = np.diag(weighted.sum(axis=0)) - weighted.T @ probs
    row = with_scale.sum(axis=0)
    return (np.block([[np.array([[scale]]), row[None]], [row[:, None], biases]]),)


def _source_scores(
    model: _Model, by_parameters: NumpyArray, by_counts: NumpyArray, tile: Tile
) -> _Arrays:
    """Sums of squares (L - 1, L - 1) of the labelled rows' parts in the equations."""
    weights, scores = _weights(tile), _finite(model.scores(tile))
    rows, labels = np.arange(len(tile)), model.labels(tile)
    errors = -np.exp(model.log_probs(tile))
    errors[rows, labels] += 1.0
    counts = np.tile(-np.exp(model.log_prior), (len(tile), 1))
    counts[rows, labels] += 1.0
    both = np.column_stack(((errors * scores).sum(axis=1), errors))
    parts = weights[:, None] * (both @ by_parameters.T + counts @ by_counts.T)
    return (parts.T @ parts,)


def _finite(scores: NumpyArray) -> NumpyArray:
    """Scores of classes that are impossible have no part in any mean."""
    return np.where(np.isfinite(scores), scores, 0.0)


def _interval(shares: NumpyArray, errors: NumpyArray) -> tuple[NumpyArray, NumpyArray]:
    """95 % intervals: symmetric in the log-odds of shares clear of 0 and 1, and cut elsewhere."""
    room = shares * (1 - shares)
    clear = room > 2 * errors
    odds = np.log(shares) - np.log1p(-shares)
    half = _Z95 * errors / np.where(clear, room, 1.0)
    low = np.where(clear, 1 / (1 + np.exp(half - odds)), shares - _Z95 * errors)
    high = np.where(clear, 1 / (1 + np.exp(-half - odds)), shares + _Z95 * errors)
    return np.maximum(low, 0.0), np.minimum(high, 1.0)


def _means_above_zero(shares: NumpyArray, errors: NumpyArray) -> NumpyArray:
    """Means (L,) of normal distributions around the shares of which nothing is below 0."""
    errors = np.maximum(errors, 1e-12)
    z = shares / errors
    density = np.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    above = np.array([0.5 * math.erfc(-each / math.sqrt(2)) for each in z])
    means: NumpyArray = shares + errors * density / above
    return means


# --- checks --------------------------------------------------------------------------------------


def _by_confusion(data: Data, target: Data, model: _Model) -> NumpyArray:
    """Shares (L,) that give the rows' decisions their frequencies; NaN where none is told.

    Decided is for the class whose likelihood is largest, which decides for rare classes too.
    """
    (confusion,) = data.fold(partial(_decided_by_label, model), _added_all)
    (decided,) = target.fold(partial(_decided, model), _added_all)
    matrix = confusion / confusion.sum(axis=0)
    if np.linalg.matrix_rank(matrix, tol=1e-6) < len(matrix):
        return np.full(len(matrix), np.nan)
    shares = np.maximum(np.linalg.solve(matrix, decided / decided.sum()), 0.0)
    result: NumpyArray = shares / shares.sum()
    return result


def _decided_by_label(model: _Model, tile: Tile) -> _Arrays:
    decisions = (model.log_probs(tile) - model.log_prior).argmax(axis=1)
    classes = len(model.log_prior)
    cells = decisions * classes + model.labels(tile)
    return (np.bincount(cells, _weights(tile), classes**2).reshape(classes, classes),)


def _decided(model: _Model, tile: Tile) -> _Arrays:
    decisions = (model.log_probs(tile) - model.log_prior).argmax(axis=1)
    return (np.bincount(decisions, _weights(tile), len(model.log_prior)),)


def _confidence_gap(data: Data, target: Data, model: _Model, factors: NumpyArray) -> ConfidenceGap:
    """How the confidences differ from those of the labelled rows, weighted by class (L,)."""
    expected = _joined(data, partial(_labelled_confidences, model, factors))
    observed = _joined(target, partial(_confidences, model))
    at = np.concatenate((expected[0], observed[0]))
    shares = [weights / weights.sum() for _, weights in (expected, observed)]
    steps = np.concatenate((-shares[0], shares[1]))
    order = np.argsort(at, kind="stable")
    at, difference = at[order], np.cumsum(steps[order])
    # Equal confidences are one step.
    ends = np.append(at[1:] != at[:-1], True)
    place = int(np.abs(np.where(ends, difference, 0.0)).argmax())
    statistic = float(abs(difference[place]))
    rows = 1 / sum(float(each @ each) for each in shares)
    above = [
        float(each[confidences > at[place]].sum())
        for (confidences, _), each in zip((expected, observed), shares, strict=True)
    ]
    means = [
        float(confidences @ each)
        for (confidences, _), each in zip((expected, observed), shares, strict=True)
    ]
    p = _kolmogorov_tail(math.sqrt(rows) * statistic)
    return ConfidenceGap(statistic, p, means[1], means[0], float(at[place]), above[1], above[0])


def _joined(data: Data, work: partial[_Arrays]) -> _Arrays:
    """The arrays of all tiles, one after the other."""
    parts: list[_Arrays] = data.fold(partial(_in_list, work), operator.add)
    return tuple(np.concatenate([part[i] for part in parts]) for i in range(2))


def _in_list(work: partial[_Arrays], tile: Tile) -> list[_Arrays]:
    return [work(tile)]


def _confidences(model: _Model, tile: Tile) -> _Arrays:
    return np.exp(model.log_probs(tile).max(axis=1)), _weights(tile)


def _labelled_confidences(model: _Model, factors: NumpyArray, tile: Tile) -> _Arrays:
    confidences, weights = _confidences(model, tile)
    return confidences, weights * factors[model.labels(tile)]


def _kolmogorov_tail(value: float) -> float:
    """The probability of a larger Kolmogorov-Smirnov statistic times the root of the rows."""
    if value < 0.2:
        return 1.0
    terms = ((-1.0) ** (k - 1) * math.exp(-2 * (k * value) ** 2) for k in range(1, 101))
    return min(1.0, max(0.0, 2 * math.fsum(terms)))
