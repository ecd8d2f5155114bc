"""Calibrators as scikit-learn's estimators, and those of other libraries as parameter files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.model_selection import cross_val_predict
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from calibcli.api.calibrating import fit
from calibcli.api.fitted import FittedCalibrator
from calibcli.arrays import InputKind, NumpyArray, softmax
from calibcli.calibrators.affine import MatrixScaling, VectorScaling
from calibcli.calibrators.base import Calibrator
from calibcli.calibrators.binary import Beta, Platt
from calibcli.calibrators.curves import OneVsRest
from calibcli.calibrators.laplace import LaplaceMixture
from calibcli.calibrators.temperature import Temperature
from calibcli.errors import CalibError, UsageError
from calibcli.params import Params, Stage
from calibcli.tables.kinds import are_probabilities


class CalibratorEstimator(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A calibrator as a classifier whose features are the scores of another one, or that has it.

    Parameters
    ----------
    estimator : classifier, optional
        Where there is one, X are its features: its scores of each row come from a fit without the
        row's fold, and the calibrator is fitted to them. If left out X are the scores.
    cv : int or cross-validation generator
        Those folds.
    method, loss, input, options, link, target_prior, tune, reduce, stack, prefer, folds, seed, \
device, threads
        As for `calibcli.fit`; ``folds`` are 0 unless the choice of a method needs some.
    classes : array (K,), optional
        The labels in the order of the columns of the scores; by default those in ``y``, sorted.

    Attributes
    ----------
    classes_ : array (K,)
    calibrator_ : FittedCalibrator
        To be saved as a parameter file: `FittedCalibrator.save`.
    estimator_ : classifier
        Fitted to all rows, where there is one.
    n_features_in_ : int

    Examples
    --------
    >>> scores, labels = [[2.9, 0.0], [0.0, 2.9], [2.9, 0.0], [0.0, 2.9]], ["a", "b", "b", "b"]
    >>> estimator = CalibratorEstimator(method="temperature").fit(scores, labels)
    >>> estimator.predict_proba([[2.9, 0.0]]).round(2)
    array([[0.75, 0.25]])
    >>> estimator.predict([[2.9, 0.0]])
    array(['a'], dtype='<U1')
    """

    def __init__(
        self,
        method: str | None = None,
        *,
        estimator: Any = None,
        cv: Any = 5,
        loss: str = "nll",
        input: InputKind | None = None,
        options: Mapping[str, Any] | None = None,
        link: bool = True,
        target_prior: Any = None,
        tune: bool = False,
        reduce: Any = None,
        stack: bool = False,
        prefer: Any = "accurate",
        folds: int = 0,
        seed: int = 0,
        device: str = "cpu",
        threads: int = 0,
        classes: ArrayLike | None = None,
    ) -> None:
        self.method = method
        self.estimator = estimator
        self.cv = cv
        self.loss = loss
        self.input = input
        self.options = options
        self.link = link
        self.target_prior = target_prior
        self.tune = tune
        self.reduce = reduce
        self.stack = stack
        self.prefer = prefer
        self.folds = folds
        self.seed = seed
        self.device = device
        self.threads = threads
        self.classes = classes

    def fit(self, X: Any, y: Any, sample_weight: ArrayLike | None = None) -> Self:  # noqa: N803
        """Fit the calibrator, and the estimator if there is one.

        Parameters
        ----------
        X : array (n, K), or (n,) or (n, 1) for two classes: the score of the second
            Scores; features (n, F) where there is an estimator.
        y : array (n,)
            Labels of any kind.
        sample_weight : array (n,), optional
            Rows of weight 0 are left out.

        Raises
        ------
        ValueError
            With one line that says what is wrong.
        """
        rows, y = validate_data(self, self._as_rows(X), y, **self._checks)
        check_classification_targets(y)
        weights = None
        if sample_weight is not None:
            weights = _check_sample_weight(
                sample_weight, rows, dtype=np.float64, ensure_non_negative=True
            )
            rows, y, weights = (each[weights > 0] for each in (rows, y, weights))
        self.classes_, numbers = self._numbered(y)
        scores = rows if self.estimator is None else self._held_out(rows, y, weights)
        columns = 1 if scores.ndim == 1 else scores.shape[1]
        if max(columns, 2) != len(self.classes_):
            raise ValueError(
                f"the scores have {columns} columns and the labels {len(self.classes_)} classes; "
                "there is a column for each class, or one for two"
            )
        options = self.get_params(deep=False)
        for name in ("classes", "estimator", "cv"):
            del options[name]
        options["input"] = self._input(scores)
        try:
            fitted = fit(scores, numbers, weights=weights, **options)
        except CalibError as error:
            raise ValueError(str(error)) from error
        # What was measured is no part of the map, and is not pickled with it.
        self.calibrator_ = replace(fitted, outcome=None)
        return self

    @property
    def _checks(self) -> dict[str, Any]:
        """How rows are validated: a logit of -inf is an impossible class."""
        if self.estimator is not None:
            return {}
        return {"dtype": [np.float64, np.float32], "ensure_all_finite": False}

    def _as_rows(self, X: Any) -> Any:  # noqa: N803
        """Scores of the second of two classes (n,) as a column (n, 1)."""
        if self.estimator is None and np.ndim(X) == 1:
            return np.reshape(np.asarray(X), (-1, 1))
        return X

    @property
    def _response(self) -> str:
        """The function of the estimator that gives the scores."""
        has_scores = hasattr(self.estimator, "decision_function")
        return "decision_function" if has_scores else "predict_proba"

    def _input(self, scores: NumpyArray) -> InputKind:
        if self.estimator is None:
            # Whatever is an array of numbers is to be fitted to, so that nothing is refused here.
            rows = scores.reshape(len(scores), -1)
            return self.input or ("probs" if are_probabilities(rows) else "logits")
        return "logits" if self._response == "decision_function" else "probs"

    def _held_out(self, X: Any, y: Any, weights: NumpyArray | None) -> NumpyArray:  # noqa: N803
        """Scores of each row by a fit without it; the estimator is fitted to all rows besides."""
        given = {} if weights is None else {"sample_weight": weights}
        self.estimator_ = clone(self.estimator).fit(X, y, **given)
        scores: NumpyArray = cross_val_predict(
            clone(self.estimator), X, y, cv=self.cv, method=self._response, params=given
        )
        return scores

    def _numbered(self, y: NumpyArray) -> tuple[NumpyArray, NumpyArray]:
        """The classes (K,), and the number of each label (n,)."""
        seen, numbers = np.unique(y, return_inverse=True)
        if self.classes is None:
            if len(seen) < 2:
                raise ValueError(
                    f"the labels have {len(seen)} class; say by classes= what the columns stand for"
                )
            return seen, numbers
        classes = np.asarray(self.classes)
        places = {label: place for place, label in enumerate(classes.tolist())}
        unknown = [label for label in seen.tolist() if label not in places]
        if unknown:
            raise ValueError(f"the label {unknown[0]!r} is none of classes=")
        return classes, np.array([places[label] for label in seen.tolist()])[numbers]

    def predict_proba(self, X: Any) -> NumpyArray:  # noqa: N803
        """Calibrated probabilities (n, K) of rows as those of the fit."""
        check_is_fitted(self)
        rows = validate_data(self, self._as_rows(X), reset=False, **self._checks)
        scores = rows if self.estimator is None else getattr(self.estimator_, self._response)(rows)
        try:
            probs: NumpyArray = self.calibrator_.predict_proba(
                scores[:, None] if scores.ndim == 1 else scores
            )
        except CalibError as error:
            raise ValueError(str(error)) from error
        return probs

    def predict(self, X: Any) -> NumpyArray:  # noqa: N803
        """The most probable label (n,) of each row; the first of equals."""
        probs = self.predict_proba(X)
        labels: NumpyArray = self.classes_[np.argmax(probs, axis=1)]
        return labels


# Calibrators of other libraries

_SAME = 1e-6
"""How far probabilities may be apart for two maps to be the same: some compute in float32."""

Reader = Callable[[Any], "Found"]


class Found:
    """A calibrator of another library, described as one of this package.

    Parameters
    ----------
    classes : int
    input : str
        What the scores of the other one are.
    stages : sequence of Calibrator
        The same map.
    predict : callable
        The probabilities (n, K) of the other one for scores (n, K), to compare with.
    """

    def __init__(
        self,
        classes: int,
        input: InputKind,
        stages: Sequence[Calibrator],
        predict: Callable[[NumpyArray], Any],
    ) -> None:
        self.classes, self.input, self.stages, self.predict = classes, input, stages, predict


def from_sklearn(calibrator: Any) -> FittedCalibrator:
    """A calibrator that another library has fitted, as one of this package, to be saved.

    The maps are compared on rows of all kinds before it is returned. Scores are what the other one
    takes: for a `CalibratedClassifierCV` the output of its classifier's ``decision_function``.

    Parameters
    ----------
    calibrator : object
        In memory: a `CalibratedClassifierCV` with one calibrated classifier around a prefit or
        frozen one (or ``ensemble=False``), an `IsotonicRegression` of the logit of class 1; of
        netcal a `TemperatureScaling`, `LogisticCalibration` or `BetaCalibration`; of probmetrics
        one of temperature, vector, matrix, structured vector or structured matrix scaling, or a
        mixture of one with the uniform distribution. A `CalibratorEstimator` gives its own.

    Raises
    ------
    UsageError
        There is no such map here, with one line that says why.

    Examples
    --------
    >>> from sklearn.isotonic import IsotonicRegression
    >>> isotonic = IsotonicRegression(out_of_bounds="clip").fit([-2, -1, 1, 2], [0, 1, 0, 1])
    >>> from_sklearn(isotonic).predict_proba([0.0])
    array([[0.5, 0.5]])
    """
    if isinstance(calibrator, CalibratorEstimator):
        check_is_fitted(calibrator)
        return calibrator.calibrator_
    name = type(calibrator).__name__
    library = type(calibrator).__module__.partition(".")[0]
    reader = _READERS.get((library, name))
    if reader is None:
        known = ", ".join(sorted({each for _, each in _READERS}))
        raise UsageError(f"{library}'s {name} cannot be read; these can: {known}")
    try:
        found = reader(calibrator)
    except AttributeError as error:
        raise UsageError(f"{name} is not fitted, or of an unknown version: {error}") from None
    params = Params(
        found.classes,
        found.input,
        tuple(Stage(stage.kind, stage.parameters()) for stage in found.stages),
        fit={"method": f"{library} {name}"},
    )
    fitted = FittedCalibrator(params, tuple(found.stages))
    _compare(fitted, found, name)
    return fitted


def _compare(fitted: FittedCalibrator, found: Found, name: str) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(512, found.classes)) * rng.choice([0.1, 1, 4], (512, 1))
    scores = softmax(logits) if found.input == "probs" else logits
    theirs = np.asarray(found.predict(scores), dtype=np.float64)
    apart = float(np.abs(fitted.predict_proba(scores) - theirs).max())
    if not apart <= _SAME:
        raise UsageError(
            f"{name} computes otherwise than the map that it is described by: probabilities "
            f"differ by up to {apart:.1g}"
        )


def _read_calibrated_classifier(calibrator: Any) -> Found:
    if len(calibrator.calibrated_classifiers_) != 1:
        raise UsageError(
            f"CalibratedClassifierCV averages {len(calibrator.calibrated_classifiers_)} "
            "classifiers; ensemble=False has one"
        )
    (calibrated,) = calibrator.calibrated_classifiers_
    classes = len(calibrated.classes)
    if not hasattr(calibrated.estimator, "decision_function"):
        raise UsageError(
            f"CalibratedClassifierCV is of probabilities, as {type(calibrated.estimator).__name__} "
            "has no decision_function; a map here is of their log-odds"
        )
    if calibrated.method != "temperature" and classes > 2:
        raise UsageError(
            f"CalibratedClassifierCV maps each of {classes} classes by itself "
            f"({calibrated.method}), by scores that are not normalised; no map here does"
        )
    if calibrated.method == "temperature":
        inner = calibrated.calibrators[0]
        # Of two classes there is one score f, for the logits -f and f.
        scale = float(inner.beta_) * (2 if classes == 2 else 1)
        return Found(
            classes,
            "logits",
            [Temperature(1 / scale)],
            lambda z: inner.predict(z[:, 1] - z[:, 0] if classes == 2 else z),
        )
    (inner,) = calibrated.calibrators
    if calibrated.method == "sigmoid":
        stage = Platt(-float(inner.a_), -float(inner.b_))
        return Found(2, "logits", [stage], lambda z: _two(inner.predict(z[:, 1] - z[:, 0])))
    return _read_isotonic(inner)


def _read_isotonic(calibrator: Any) -> Found:
    if calibrator.out_of_bounds != "clip":
        raise UsageError(
            f"IsotonicRegression has out_of_bounds={calibrator.out_of_bounds!r}; a curve here is "
            "constant beyond its ends, which is 'clip'"
        )
    scores = np.asarray(calibrator.X_thresholds_, dtype=np.float64)
    values = np.asarray(calibrator.y_thresholds_, dtype=np.float64)
    if values.min() < 0 or values.max() > 1:
        raise UsageError("IsotonicRegression has values that are no probabilities")
    stage = OneVsRest(np.array([float(len(scores))]), scores, values, "linear")
    return Found(2, "logits", [stage], lambda z: _two(calibrator.predict(z[:, 1] - z[:, 0])))


def _two(probs: ArrayLike) -> NumpyArray:
    """Probabilities (n, 2) of those (n,) of the second class."""
    second = np.asarray(probs, dtype=np.float64).reshape(-1)
    return np.stack([1 - second, second], axis=1)


def _netcal_sites(calibrator: Any) -> tuple[list[NumpyArray], int]:
    """The weights and biases of a logistic model of netcal, and the number of classes."""
    if calibrator.detection or calibrator.independent_probabilities:
        raise UsageError(f"{type(calibrator).__name__} is of detections or of each class by itself")
    if calibrator.method not in ("mle", "momentum"):
        raise UsageError(f"{type(calibrator).__name__} draws its parameters ({calibrator.method})")
    sites = [
        np.asarray(site["values"], dtype=np.float64).reshape(-1)
        for site in calibrator._sites.values()  # noqa: SLF001 (there is no other way to them)
    ]
    return sites, max(int(calibrator.num_classes), 2)


def _netcal_predict(calibrator: Any, classes: int) -> Callable[[NumpyArray], Any]:
    if classes == 2:
        return lambda probs: _two(calibrator.transform(probs[:, 1]))
    return calibrator.transform  # type: ignore[no-any-return]


def _read_netcal_temperature(calibrator: Any) -> Found:
    (weights, *_), classes = _netcal_sites(calibrator)
    stage = Temperature(1 / float(weights[0]))
    return Found(classes, "probs", [stage], _netcal_predict(calibrator, classes))


def _read_netcal_logistic(calibrator: Any) -> Found:
    (weights, biases), classes = _netcal_sites(calibrator)
    stage: Calibrator = VectorScaling(weights, biases)
    if classes == 2:
        stage = Platt(float(weights[0]), float(biases[0]))
    return Found(classes, "probs", [stage], _netcal_predict(calibrator, classes))


def _read_netcal_beta(calibrator: Any) -> Found:
    (weights, biases), classes = _netcal_sites(calibrator)
    if classes > 2:
        raise UsageError(f"BetaCalibration is of {classes} classes; such maps here are of two")
    stage = Beta(*map(float, (*weights, *biases)))
    return Found(2, "probs", [stage], _netcal_predict(calibrator, 2))


def _probmetrics_stages(calibrator: Any) -> Iterator[Calibrator]:
    name = type(calibrator).__name__
    if name == "MixtureCalibrator":
        if calibrator.input_constant != 0:
            raise UsageError("MixtureCalibrator mixes its input; no map here does")
        yield from _probmetrics_stages(calibrator.cal_)
        yield LaplaceMixture(calibrator.output_constant / (calibrator.n_samples_ + 1))
    elif name == "TemperatureScalingCalibrator":
        yield Temperature(1 / float(calibrator.invtemp_))
    elif name == "VectorScalingCalibrator":
        yield VectorScaling(1 / _array(calibrator.temp_), _array(calibrator.bias_))
    elif name == "MatrixScalingCalibrator":
        yield MatrixScaling(_array(calibrator.itemp_).T, _array(calibrator.bias_))
    elif name == "SVSCalibrator":
        yield from _probmetrics_stages(calibrator.ts_)
        yield VectorScaling(_array(calibrator.v_), _array(calibrator.b_))
    elif name == "SMSCalibrator":
        yield from _probmetrics_stages(calibrator.ts_)
        matrix = _array(calibrator.W_)
        yield MatrixScaling(matrix[:, :-1].copy(), matrix[:, -1].copy())
    else:
        raise UsageError(f"probmetrics' {name} cannot be read")


def _array(values: Any) -> NumpyArray:
    if hasattr(values, "detach"):
        values = values.detach().cpu()
    return np.asarray(values, dtype=np.float64)


def _read_probmetrics(calibrator: Any) -> Found:
    classes = len(calibrator.classes_)
    stages = list(_probmetrics_stages(calibrator))
    return Found(classes, "probs", stages, calibrator.predict_proba)


_READERS: dict[tuple[str, str], Reader] = {
    ("sklearn", "CalibratedClassifierCV"): _read_calibrated_classifier,
    ("sklearn", "IsotonicRegression"): _read_isotonic,
    ("netcal", "TemperatureScaling"): _read_netcal_temperature,
    ("netcal", "LogisticCalibration"): _read_netcal_logistic,
    ("netcal", "BetaCalibration"): _read_netcal_beta,
    **{
        ("probmetrics", f"{name}Calibrator"): _read_probmetrics
        for name in (
            *("TemperatureScaling", "VectorScaling", "MatrixScaling", "SVS", "SMS", "Mixture"),
        )
    },
}
