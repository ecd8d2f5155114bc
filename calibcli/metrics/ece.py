"""ECE and MCE: the calibration errors over 15 equal-width bins of the confidence.

Every error of this kind is a norm of the bins' residuals, the sums of weight x (confidence -
correct): `expected_error` is ECE wherever it is computed, of all rows, of a class or a slice, of
the sample or of a replicate.

>>> import numpy as np
>>> logits = np.log([[0.9, 0.1], [0.9, 0.1], [0.7, 0.3], [0.6, 0.4]])
>>> labels = np.array([0, 1, 0, 0])
>>> round(ECE.measure(logits, labels), 6)  # (|1.8 - 1| + |0.7 - 1| + |0.6 - 1|) / 4
0.375
>>> round(MCE.measure(logits, labels), 6)  # in the bins of 0.9, 0.7 and 0.6 that is 0.4, 0.3, 0.4
0.4

References
----------
Naeini, Cooper and Hauskrecht (2015), Obtaining Well Calibrated Probabilities Using Bayesian
Binning, doi:10.1609/aaai.v29i1.9602 (ECE, MCE); Guo, Pleiss, Sun and Weinberger (2017), On
Calibration of Modern Neural Networks, arXiv:1706.04599 (the 15 bins).
"""

from __future__ import annotations

import math

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.metrics.base import SHARE, Metric
from calibcli.metrics.bins import BINS, ReliabilityBins, title_over_bins
from calibcli.metrics.confidence_cells import BinNorm


def expected_error(excess: NumpyArray, total: float) -> NumpyArray:
    r"""ECE (...): the sum over bins of \|excess\|, relative to the weight of all rows.

    Parameters
    ----------
    excess : array (..., b)
        Sums over the rows of each bin of weight x (probability - whether it came true).
    total : float
        Weight of all rows; 0 gives NaN.
    """
    errors: NumpyArray = np.abs(excess).sum(axis=-1)
    return errors / total if total else errors * math.nan


def gaps(excess: NumpyArray, weight: NumpyArray) -> NumpyArray:
    """Mean confidence - accuracy (..., b) of the bins; 0 of those without rows.

    Parameters
    ----------
    excess : array (..., b)
    weight : array (b,)
        Weight of the rows of each bin.
    """
    zeros = np.zeros_like(excess)
    differences: NumpyArray = np.divide(excess, weight, out=zeros, where=weight > 0)
    return differences


def _mean_gap(excess: NumpyArray, weight: NumpyArray) -> NumpyArray:
    return expected_error(excess, float(weight.sum()))


def _largest_gap(excess: NumpyArray, weight: NumpyArray) -> NumpyArray:
    largest: NumpyArray = np.abs(gaps(excess, weight)).max(axis=-1)
    return largest


MEAN_GAP = BinNorm(_mean_gap)


def ece_of_bins(bins: int, name: str) -> Metric:
    """ECE over so many bins, by its name: ``ece@10``."""
    norm = BinNorm(_mean_gap, bins)
    return Metric(
        range=SHARE,
        name=name,
        title=title_over_bins("ECE", bins),
        convention=(
            f"expected calibration error: {bins} equal-width bins (lower, upper] of the "
            "confidence, mean over rows of |mean confidence - accuracy|"
        ),
        statistic=ReliabilityBins(bins),
        value=norm.value,
        resampling=norm,
    )


def mce_of_bins(bins: int, name: str) -> Metric:
    """MCE over so many bins, by its name: ``mce@10``."""
    norm = BinNorm(_largest_gap, bins)
    return Metric(
        range=SHARE,
        name=name,
        title=title_over_bins("MCE", bins),
        convention=(
            f"maximum calibration error: {bins} equal-width bins (lower, upper] of the "
            "confidence, largest |mean confidence - accuracy|, however few the rows"
        ),
        statistic=ReliabilityBins(bins),
        value=norm.value,
        resampling=norm,
    )


ECE = ece_of_bins(BINS, "ece")
MCE = mce_of_bins(BINS, "mce")
