"""Candidates that `auto` does not try, as those with more penalty tell enough."""

from __future__ import annotations

import numpy as np
import pytest

from calibcli.engine.data import Data, open_data
from calibcli.engine.engine import Engine
from calibcli.engine.source import ArraySource
from calibcli.metrics.panel import Panel
from calibcli.workflow.automatic import compare_plans
from calibcli.workflow.fitted_plans import try_plan
from calibcli.workflow.plans import make_plan, make_plans
from calibcli.workflow.racing import is_left_out, may_be_left_out

METHODS = ["temperature", "sms", "sms*10", "sms/10"]


def rows_of(
    rng: np.random.Generator, rows: int, classes: int, mixed: float, threads: int = 1
) -> Data:
    """Logits of which a share is mixed between the classes, which a matrix can undo."""
    true = rng.normal(size=(rows, classes)) * 2
    labels = (true + rng.gumbel(size=true.shape)).argmax(axis=1)
    logits = true @ (np.eye(classes) + mixed * rng.normal(size=(classes, classes)))
    return open_data(Engine(threads=threads), ArraySource(logits, labels.astype(np.int64)), 5)


def names_of(data: Data, **options: bool) -> tuple[list[str], str]:
    board = compare_plans(data, make_plans(METHODS, ["nll"]), Panel(), **options)
    return sorted(each.trial.name for each in board.standings), board.why


def test_less_penalty_is_not_tried_where_more_is_better(rng: np.random.Generator) -> None:
    data = rows_of(rng, 400, 20, 0.0)
    raced, why = names_of(data, raced=True)
    assert raced == ["sms", "sms*10", "temperature"]
    assert why.endswith("; not tried, as they do worse with less penalty: sms/10")
    # Who names the methods gets all of them.
    everything, why = names_of(data)
    assert everything == sorted(METHODS)
    assert "not tried" not in why


def test_it_is_tried_where_less_is_better(rng: np.random.Generator) -> None:
    raced, why = names_of(rows_of(rng, 4000, 5, 0.5), raced=True)
    assert raced == sorted(METHODS)
    assert "not tried" not in why


def test_of_candidates_on_several_threads_the_same_ones_are_tried(rng: np.random.Generator) -> None:
    state = rng.bit_generator.state
    found = []
    for threads in (1, 3):
        rng.bit_generator.state = state
        found.append(names_of(rows_of(rng, 400, 20, 0.0, threads), raced=True))
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("plan", "needed"),
    [
        ("sms/10", {"sms", "sms*10"}),
        # Where there is no more penalty, as much as there may be: without the last stage.
        ("temperature,sms/10", {"temperature,sms", "temperature"}),
    ],
)
def test_it_takes_the_two_with_more_penalty(
    rng: np.random.Generator, plan: str, needed: set[str]
) -> None:
    data = rows_of(rng, 400, 20, 0.0)
    trials = [try_plan(data, make_plan(each)) for each in sorted(needed)]
    assert is_left_out(data, make_plan(plan), trials)
    for trial in trials:
        assert not is_left_out(data, make_plan(plan), [trial])


def test_only_less_penalty_may_be_left_out() -> None:
    assert [each for each in METHODS if may_be_left_out(make_plan(each))] == ["sms/10"]
