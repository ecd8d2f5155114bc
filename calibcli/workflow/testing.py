"""Tests of calibration with p-values, of what a map makes of the data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from calibcli.calibrators.affine import VectorMap
from calibcli.calibrators.base import Calibrator, SmoothMap
from calibcli.calibrators.temperature import TemperatureMap
from calibcli.engine.data import Data
from calibcli.errors import CalibError
from calibcli.fitting.stages import fit_stages
from calibcli.metrics.hypothesis_tests import LogisticRecalibration, Spiegelhalter, TestResult
from calibcli.metrics.kernel_calibration import KernelTest
from calibcli.metrics.panel import Panel
from calibcli.objectives.nll import NegativeLogLikelihood
from calibcli.workflow.measuring import Through, measure

_ROWS_A_PARAMETER = 10
"""With fewer rows a chi-squared distribution is a poor guide."""


def run_tests(data: Data, stages: Sequence[Calibrator] = (), seed: int = 0) -> list[TestResult]:
    """All tests of calibration.

    Parameters
    ----------
    data : Data
    stages : sequence of Calibrator
        What the rows are run through first.
    seed : int
        Of the kernel test's features.
    """
    brier, logistic, kernel = Spiegelhalter(), LogisticRecalibration(), KernelTest(seed)
    panel = Panel(["nll"], also=(brier, logistic, kernel))
    (evaluation,) = measure(data, [Through(tuple(stages))], panel)
    passed = data.after(*stages) if stages else data
    nll = evaluation.values["nll"]
    return [
        *evaluation.also[brier],
        *evaluation.also[logistic],
        likelihood_ratio(passed, nll, TemperatureMap(), 1),
        likelihood_ratio(passed, nll, VectorMap(penalty=0.0), _vector_degrees(passed)),
        evaluation.also[kernel],
    ]


def likelihood_ratio(data: Data, nll: float, family: SmoothMap, degrees: int) -> TestResult:
    """Whether a family of maps fits the rows better than chance lets it.

    Twice the gain in log-likelihood is chi-squared with as many degrees of freedom as the family
    has parameters, if the probabilities are right (Wilks).

    Parameters
    ----------
    nll : float
        Mean over the rows as they are.
    """
    result = TestResult(
        f"likelihood_ratio_{family.name}",
        f"likelihood ratio, {family.name}",
        f"no gain in likelihood by the {family.name} family; chi-squared",
        degrees=degrees,
    )
    if data.source.has_weights:
        return replace(result, note="weights have no likelihood")
    if data.rows < _ROWS_A_PARAMETER * degrees:
        return replace(result, note=f"needs {_ROWS_A_PARAMETER} rows for each degree of freedom")
    if not math.isfinite(nll):
        return replace(result, note="a label was given probability 0")
    try:
        fit = fit_stages(data, [family], NegativeLogLikelihood())
    except CalibError as error:
        return replace(result, note=str(error))
    (after,) = measure(data, [Through(fit.calibrators)], Panel(["nll"]))
    gain = max(2 * data.rows * (nll - after.values["nll"]), 0.0)
    if not fit.converged:
        return replace(result, note="the fit did not converge")
    from scipy.special import chdtrc

    return replace(result, statistic=gain, p=float(chdtrc(degrees, gain)))


def _vector_degrees(data: Data) -> int:
    """A scale and a bias a class that has rows, one of the biases being free."""
    present = int((data.survey.class_rows > 0).sum())
    return max(2 * present - 1, 1)
