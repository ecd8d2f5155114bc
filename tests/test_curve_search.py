"""Cells of curves: every way to search gives what NumPy's search gives, to the point."""

from __future__ import annotations

import numpy as np
import pytest

from calibcli.calibrators.curve_search import Cells
from calibcli.calibrators.curves import Interpolation, OneVsRest

RNG = np.random.default_rng(0)
HUGE = 1e16


def searched(scores: np.ndarray, counts: list[int], at: np.ndarray) -> np.ndarray:
    """The last point at or below each place, by NumPy's search in each curve by itself."""
    ends = np.cumsum(counts)
    low = np.empty(at.shape, np.int64)
    for k, (begin, end) in enumerate(zip(ends - counts, ends, strict=True)):
        found = np.searchsorted(scores[begin:end], at[:, k], side="right") - 1
        low[:, k] = begin + np.maximum(found, 0)
    return low


def curve(kind: str, count: int) -> np.ndarray:
    """Scores (count,) of a curve, ascending."""
    if kind == "even":
        scores = np.linspace(-5, 5, count)
    elif kind == "normal":
        scores = RNG.normal(size=count)
    elif kind == "pairs":
        low = RNG.normal(size=(count + 1) // 2)
        scores = np.concatenate((low, np.nextafter(low, np.inf)))[:count]
    elif kind == "crowded":
        scores = 1 + np.arange(count) * np.spacing(1.0)
    elif kind == "far":
        scores = np.concatenate(([-HUGE], RNG.normal(size=max(count - 2, 0)), [HUGE]))[:count]
    else:
        scores = np.concatenate(([-np.inf], RNG.normal(size=count - 1)))
    return np.sort(scores)


KINDS = ("even", "normal", "pairs", "crowded", "far", "from minus infinity")


@pytest.mark.parametrize("rows", [1, 5, 300])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("kind", [*KINDS, "all"])
def test_cells_are_found_exactly(kind, order, rows):
    for counts in ([1], [2], [7, 1, 300], [40] * 9, [1, 1, 1], [2000, 3]):
        kinds = KINDS if kind == "all" else (kind,)
        curves = [curve(kinds[k % len(kinds)], count) for k, count in enumerate(counts)]
        scores = np.concatenate(curves)
        at = 2 * RNG.normal(size=(rows, len(counts)))
        # At the points themselves, just beside them, and as far out as there is anything.
        for k, points in enumerate(curves):
            near = np.concatenate([np.nextafter(points, s) for s in (-np.inf, np.inf)] + [points])
            far = [-np.inf, np.inf, 0.0, -0.0, 5e-324, 1e300, -1e300, HUGE, -HUGE]
            picked = RNG.choice(np.concatenate((near, far)), size=rows)
            at[:, k] = np.where(RNG.random(rows) < 0.7, picked, at[:, k])
        low, last = Cells(scores, np.array(counts, float)).find(np.array(at, order=order))
        assert np.array_equal(low, searched(scores, counts, at))
        assert np.array_equal(last, np.cumsum(counts) - 1)


def test_a_place_that_is_no_number_has_some_cell():
    cells = Cells(np.array([0.0, 1.0, 0.0, 1.0]), np.array([2.0, 2.0]))
    for rows in (1, 3, 300):
        low, _ = cells.find(np.full((rows, 2), np.nan))
        assert ((low >= 0) & (low < 4)).all()


@pytest.mark.parametrize("interpolation", ["linear", "step"])
@pytest.mark.parametrize("classes", [2, 5])
def test_a_row_by_itself_has_the_values_that_it_has_among_others(
    classes: int, interpolation: Interpolation
):
    counts = [12] * (1 if classes == 2 else classes)
    scores = np.concatenate([curve("normal", count) for count in counts])
    values = np.concatenate([np.sort(RNG.random(count)) for count in counts])
    values[:3], values[-2:] = 0.0, 1.0
    stage = OneVsRest(np.array(counts, float), scores, values, interpolation)
    at = 2 * RNG.normal(size=(200, len(counts)))
    at[0], at[1], at[2] = scores[:: counts[0]], np.nan, 1e6
    together = stage.log_values(at.copy())
    alone = np.concatenate([stage.log_values(at[i : i + 1].copy()) for i in range(len(at))])
    assert np.array_equal(together, alone, equal_nan=True)
    assert np.isnan(together[1]).all()
