"""The interval of an area under an ROC curve, of few rows above all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibcli.metrics.confidence_cells import area_interval

Draw = Callable[[np.random.Generator, int], tuple[Any, Any]]


def areas(scores: Any, events: Any) -> tuple[float, float]:
    """The area and its variance by placements (DeLong et al. 1988)."""
    above = np.sign(scores[events][:, None] - scores[~events][None, :]) / 2 + 0.5
    of_events, of_others = above.mean(axis=1), above.mean(axis=0)
    variance = of_events.var() / len(of_events) + of_others.var() / len(of_others)
    return float(above.mean()), float(variance)


def normal_scores(distance: float, share: float, step: float = 0.0) -> Draw:
    def draw(rng: np.random.Generator, rows: int) -> tuple[Any, Any]:
        events = rng.random(rows) < share
        scores = rng.standard_normal(rows) + distance * events
        return (np.round(scores / step) if step else scores), events

    return draw


@pytest.mark.parametrize("rows", [30, 100])
@pytest.mark.parametrize(
    "draw",
    [
        normal_scores(1.0, 0.5),
        normal_scores(2.5, 0.3),
        normal_scores(2.5, 0.1),
        normal_scores(1.5, 0.3, step=1.0),
    ],
    ids=["half", "sure", "rare", "ties"],
)
def test_it_holds_the_area_as_often_as_it_should(draw: Draw, rows: int) -> None:
    rng = np.random.default_rng(3)
    truth, _ = areas(*draw(rng, 8000))
    held, widths = [], []
    while len(held) < 400:
        scores, events = draw(rng, rows)
        count = int(events.sum())
        if not 1 < count < rows - 1:
            continue
        low, high = area_interval(*areas(scores, events), (count, rows - count), 1.96)
        held.append(low <= truth <= high)
        widths.append(high - low)
    # A standard error of 1.1 points.
    assert 0.92 <= np.mean(held) <= 0.995
    assert np.median(widths) < (0.5 if rows == 30 else 0.25)


@given(
    st.floats(0, 1),
    st.floats(0, 0.25),
    st.tuples(st.floats(0.5, 1e6), st.floats(0.5, 1e6)),
)
def test_it_is_within_0_and_1_and_holds_the_area(
    area: float, variance: float, outcomes: tuple[float, float]
) -> None:
    low, high = area_interval(area, variance, outcomes, 1.96)
    assert 0 <= low <= area <= high <= 1


def test_of_few_rows_an_area_of_1_is_not_certain() -> None:
    few, many = (area_interval(1.0, 0.0, (rows, rows), 1.96) for rows in (10, 1000))
    assert few.high == many.high == 1
    assert few.low < 0.9
    assert many.low > 0.99
