"""How many rows a gate takes: worlds of known truth, and the numbers that they lead to."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from calibcli.errors import UsageError
from calibcli.workflow.planning import (
    GatePlan,
    Sampling,
    World,
    plan_gate,
    plan_gates,
    standard_world,
)

CalibHere = Callable[..., tuple[int, str, str]]

ALIKE = World("three classes", np.log([[8.0, 1.0, 1.0]]))
"""Every row says 80 %."""


def right(temperature: float) -> float:
    """How often `ALIKE` is right where labels follow its logits divided by a temperature."""
    odds = 8 ** (1 / temperature)
    return odds / (odds + 2)


@pytest.mark.parametrize("temperature", [1.0, 1.3, 2.0, 5.0])
def test_the_true_error_of_a_model_is_exact(temperature: float) -> None:
    expected = pytest.approx(0.8 - right(temperature), abs=1e-12)
    assert ALIKE.error("ece", temperature) == expected
    assert ALIKE.error("ks", temperature) == expected


@pytest.mark.parametrize("error", [0.001, 0.02, 0.3])
def test_a_temperature_gives_the_error(error: float) -> None:
    assert right(ALIKE.temperature("ece", error)) == pytest.approx(0.8 - error, abs=1e-6)
    world = standard_world()
    assert world.error("ece", world.temperature("ece", error)) == pytest.approx(error, abs=1e-6)
    assert world.confidence == pytest.approx(0.9, abs=0.005)


def test_labels_follow_the_probabilities() -> None:
    logits, labels = ALIKE.draw(np.random.default_rng(0), 20_000, 2.0)
    assert logits.shape == (20_000, 3)
    expected = np.array([right(2.0), *[(1 - right(2.0)) / 2] * 2])
    assert np.bincount(labels) / 20_000 == pytest.approx(expected, abs=0.012)


@pytest.mark.slow
def test_a_plain_gate_takes_the_rows_that_theory_says() -> None:
    """Of rows alike ECE is |mean - 0.8|: it is below 0.1 in 90 % if 1.645 x 0.4 / sqrt(n) = 0.1."""
    plain, proves, shows = plan_gates(Sampling(ALIKE, "ece"), 0.1, 0.9)
    assert plain.condition == "ece > 0.1"
    assert plain.rows == pytest.approx((1.645 * 0.4 / 0.1) ** 2, rel=0.4)
    assert plain.at_limit == pytest.approx(0.5, abs=0.15)
    # The interval is 1.96 standard errors on either side of what was found.
    assert (proves.condition, proves.goal, proves.error) == ("ece.high >= 0.1", "pass", 0.0)
    assert plain.rows < proves.rows < 2.5 * plain.rows * ((1.645 + 1.96) / 1.645) ** 2
    assert (shows.condition, shows.goal, shows.error) == ("ece.low > 0.1", "fail", 0.2)
    assert shows.rows > plain.rows


def test_a_smaller_limit_takes_more_rows() -> None:
    few, many = (plan_gate(Sampling(ALIKE, "ece"), limit, 0.8, 0.0) for limit in (0.1, 0.05))
    assert many.rows / few.rows == pytest.approx(4, rel=0.4)


def test_more_rows_than_are_simulated_are_extrapolated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("calibcli.workflow.planning.MOST_ROWS", 100)
    plain = plan_gate(Sampling(ALIKE, "ece"), 0.01, 0.9, 0.0)
    assert not plain.simulated
    assert plain.rows == pytest.approx((1.645 * 0.4 / 0.01) ** 2, rel=0.4)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"limit": 0.0}, "--good 0 --limit 0 --bad 0: each must be smaller than the next"),
        ({"limit": math.nan}, "each must be smaller than the next"),
        ({"bad": 0.05}, "--good 0 --limit 0.1 --bad 0.05: each must be smaller"),
        ({"good": 0.1}, "--good 0.1 --limit 0.1"),
        ({"power": 1.0}, "--power 1: must be between 0.5 and 1"),
        ({"power": 0.5}, "--power 0.5"),
        ({"bad": 0.7}, "three classes has an ece of at most 0.467"),
        ({"metric": "nll"}, "--metric nll: rows are planned for errors of the confidence"),
        ({"metric": "class_wise_ece"}, "--metric class_wise_ece: rows are planned for"),
        ({"metric": "eec"}, "did you mean ece"),
    ],
)
def test_what_cannot_be_planned_is_refused(options, complaint: str) -> None:
    chosen = {"metric": "ece", "limit": 0.1, "power": 0.9, **options}
    with pytest.raises(UsageError) as caught:
        plan_gates(Sampling(ALIKE, chosen.pop("metric")), **chosen)
    assert complaint in str(caught.value)


def test_a_plan_of_a_file_needs_no_labels(
    calib_here: CalibHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(0)
    np.savez("model.npz", logits=3 * generator.standard_normal((300, 5)).astype(np.float32))
    monkeypatch.setattr("calibcli.workflow.planning._ROUNDS", (5, 10))
    arguments = ("gates", "plan", "model.npz", "--limit", "0.15", "--format", "json", "-q")
    code, out, err = calib_here(*arguments)
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert document["model"]["name"] == "model.npz"
    assert [plan["condition"] for plan in document["plans"]] == [
        "ece > 0.15",
        "ece.high >= 0.15",
        "ece.low > 0.15",
    ]
    assert calib_here(*arguments)[1] == out
    code, out, _ = calib_here("gates", "plan", "model.npz", "--limit", "0.15", "-q")
    assert code == 0
    for plan in document["plans"]:
        assert f"--fail-if '{plan['condition']}'" in out
        assert f"{plan['rows']:,}" in out


def test_refusals_of_a_plan(calib_here: CalibHere) -> None:
    for arguments, complaint in [
        (("plan", "--limit", "0"), "each must be smaller than the next"),
        (("plan", "-p", "x.json"), "-p x.json: there is no INPUT"),
        (("plan", "none.npz"), "none.npz"),
        (("paln",), "paln"),
    ]:
        code, out, err = calib_here("gates", *arguments)
        assert (code, out) == (2, "")
        assert complaint in err
        assert err.count("\n") == 1


def test_every_key_of_a_plan_is_documented() -> None:
    page = Path(__file__).resolve().parents[1] / "docs" / "json.md"
    section = page.read_text(encoding="utf-8").split("## `calib gates plan`")[1].split("\n## ")[0]
    keys = [each.name for each in fields(GatePlan)]
    assert all(f"`{key}`" in section for key in [*keys, "model", "plans", "confidence"])
