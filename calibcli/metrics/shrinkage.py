"""Which residuals are signal: a smooth estimate that leaves out what chance explains.

References
----------
Stein (1981), Estimation of the mean of a multivariate normal distribution,
doi:10.1214/aos/1176345632; Cai (1999), Adaptive wavelet estimation: a block thresholding and oracle
inequality approach, doi:10.1214/aos/1018031262 (blocks of frequencies).
"""

from __future__ import annotations

import math

import numpy as np

from calibcli.arrays import NumpyArray

_LEAST = float(np.finfo(np.float64).tiny)
_GROUPS = 32
_BLOCKS = (0, 1, 2, 4, 8, 16)
"""The first frequency of each block."""


def smoothed(found: NumpyArray, noise: NumpyArray, weight: NumpyArray) -> NumpyArray:
    """Residuals (m,) of cells in order of confidence, less what the noise explains.

    They are summed in 32 groups of equal mass and transformed to frequencies; each block of these
    is shrunk by the share of it that is noise (James and Stein), low frequencies by themselves.
    Where all of it may be noise the residuals are returned as they are.

    Parameters
    ----------
    found : array (m,)
    noise : array (R, m)
        Of the bootstrap.
    weight : array (m,)
    """
    middle = np.cumsum(weight) - weight / 2
    group = np.minimum((middle / weight.sum() * _GROUPS).astype(np.intp), _GROUPS - 1)
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    count = len(starts)
    frequencies = _cosines(count)
    signal = frequencies @ np.add.reduceat(found, starts)
    variance = (np.add.reduceat(noise, starts, axis=1) @ frequencies.T).var(axis=0)
    kept = np.zeros(count)
    for first, following in zip(_BLOCKS, (*_BLOCKS[1:], _GROUPS), strict=True):
        block = slice(first, following)
        energy = float((signal[block] ** 2).sum())
        if energy > 0:
            kept[block] = max(0.0, 1 - float(variance[block].sum()) / energy)
    if not kept.any():
        return found
    in_group = np.add.reduceat(weight, starts)
    lengths = np.diff(starts, append=len(weight))
    smooth: NumpyArray = weight * np.repeat(frequencies.T @ (kept * signal) / in_group, lengths)
    return smooth


def pooled(found: NumpyArray, weight: NumpyArray, bins: NumpyArray) -> NumpyArray:
    """Residuals (m,) of cells by class and bin, if all classes were off alike: shared by weight."""
    share = np.bincount(bins, found) / np.maximum(np.bincount(bins, weight), _LEAST)
    return weight * share[bins]


def shrunken(found: NumpyArray, variance: NumpyArray) -> NumpyArray:
    """Residuals (m,) of cells without an order, each less the share of it that is noise.

    Parameters
    ----------
    found, variance : array (m,)
        The variance is that of the noise.
    """
    kept = np.maximum(found**2 - variance, 0.0)
    signal: NumpyArray = np.divide(kept, found, out=np.zeros_like(found), where=found != 0)
    return signal


def _cosines(count: int) -> NumpyArray:
    """The orthonormal discrete cosine transform of the second kind, as a matrix."""
    place = (np.arange(count) + 0.5) / count
    matrix: NumpyArray = np.cos(math.pi * np.arange(count)[:, None] * place) * math.sqrt(2 / count)
    matrix[0] /= math.sqrt(2)
    return matrix
