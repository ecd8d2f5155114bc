"""Gates: their grammar, how they judge, and what they are compared with."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from gate_documents import entry, evaluated
from hypothesis import given
from hypothesis import strategies as st

from calibcli.errors import DataError, UsageError
from calibcli.metrics.registry import METRICS
from calibcli.metrics.slices import SLICE_METRICS
from calibcli.report.baseline import Baseline
from calibcli.workflow.conditions import ENDS, OPERATORS, STAGES, Gate, parse_gate
from calibcli.workflow.gates import check_gates, gate_metrics, judge
from calibcli.workflow.quantities import (
    Division,
    Estimate,
    FailedPeriods,
    FailedSlices,
    Quantity,
    SliceQuantity,
    Subject,
    WorstSlice,
    simultaneous,
    unpaired,
)

FIT = {"before", "after", "delta"}


def subject(**parts: Any) -> Subject:
    return Subject("test.npz", **{"now": {}, **parts})


def passes(text: str, on: Subject, *, significant: bool = False) -> bool:
    return judge(parse_gate(text), on, significant=significant).passed


# The grammar


@pytest.mark.parametrize(
    ("text", "gate"),
    [
        ("ece > 0.02", Gate(Quantity("ece"), ">", 0.02, "0.02")),
        ("  ece<=-.5e-3 ", Gate(Quantity("ece"), "<=", -0.0005, "-.5e-3")),
        ("top3_accuracy!=1", Gate(Quantity("top3_accuracy"), "!=", 1.0, "1")),
        (
            "nll.after > nll.before",
            Gate(Quantity("nll", "after"), ">", Quantity("nll", "before"), "nll.before"),
        ),
        (
            "ece.low >= ece.chance.high",
            Gate(
                Quantity("ece", "", "low"),
                ">=",
                Quantity("ece", "chance", "high"),
                "ece.chance.high",
            ),
        ),
        ("ece.estimate>.02", Gate(Quantity("ece", "", "estimate"), ">", 0.02, ".02")),
        ("nll.change > 0", Gate(Quantity("nll", "change"), ">", 0.0, "0")),
        (
            "ece[subject=law] > 1",
            Gate(SliceQuantity("ece", Division("subject"), "law"), ">", 1.0, "1"),
        ),
        (
            """ece["a b" = 'it''s, "so"'].low > 1""",
            Gate(SliceQuantity("ece", Division("a b"), 'it\'s, "so"', end="low"), ">", 1.0, "1"),
        ),
        ("ece[class=3] > 1", Gate(SliceQuantity("ece", Division(None), "3"), ">", 1.0, "1")),
        ('ece["class"=3] > 1', Gate(SliceQuantity("ece", Division("class"), "3"), ">", 1.0, "1")),
        ("worst(ece) by subject>1", Gate(WorstSlice("ece", Division("subject")), ">", 1.0, "1")),
        (
            "worst (ece.low)by class > 1",
            Gate(WorstSlice("ece", Division(None), end="low"), ">", 1.0, "1"),
        ),
        ("slices.failed > 0", Gate(FailedSlices(), ">", 0.0, "0")),
        ("slices.failed by a > 0", Gate(FailedSlices(Division("a")), ">", 0.0, "0")),
        ("periods.failed > 0", Gate(FailedPeriods(), ">", 0.0, "0")),
        ("periods.failed by 'class' >= 2", Gate(FailedPeriods(Division("class")), ">=", 2.0, "2")),
    ],
)
def test_a_condition_is_read(text: str, gate: Gate) -> None:
    assert parse_gate(text) == gate
    assert parse_gate(gate.expression) == gate


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "it ends where there must be a metric (for example 'ece > 0.02' or"),
        ("ece", "it ends where there must be one of > >= < <= == != (for example 'ece > 0.02'"),
        ("ece", ", in quotes)"),
        ("ece > ", "it ends where there must be a number or a metric"),
        ("ece >> 1", "character 6 is '> 1' where there must be a number or a metric"),
        ("0.02 < ece", "character 1 is '0.02 < ece' where there must be a metric"),
        ("ece > 1 or 1", "character 9 is 'or 1' where there must be the end; --fail-if can be"),
        ("ece > 0.02 > 0.01", "character 12 is '> 0.01' where there must be the end"),
        ("__import__('os') > 1", "no metric '__import__'"),
        ("eec > 1", "did you mean ece"),
        ("smooth-ece > 1", "did you mean smooth_ece"),
        ("ece > nan", "no metric 'nan'"),
        ("ece > inf", "no metric 'inf'"),
        ("ece > 0x1", "character 7 is '0x1' where there must be a number or a metric"),
        ("ece > 1e999", "1e999 is too large"),
        ("ece > ٣", "character 7 is '٣' where there must be a number"),
        ("ece@0 > 1", "no metric 'ece@0'"),
        ("ece.dleta > 1", "did you mean .delta"),
        ("ece.low.before > 1", "character 8: there is no .before of ece here"),
        ("ece.low.before > 1", "then one of .estimate .low .high, or nothing for either)"),
        ("ece.chance.estimate > 1", "ece.chance has no .estimate; write ece.chance"),
        ("all > 1", "no metric 'all'"),
        ("ece..low > 1", "character 4: there is no . of ece here"),
        ("ece[subject=law > 1", "character 17 is '> 1' where there must be ]; a value with"),
        ("ece[subject=tax law] > 1", "character 17 is 'law] > 1' where there must be ]"),
        ("ece[subject] > 1", "character 12 is '] > 1' where there must be = and a value"),
        ("ece[subject=] > 1", "must be a value; one with spaces, commas or brackets stands in"),
        ("ece[=law] > 1", "must be a column, or class for the predicted class"),
        ('ece[subject="law] > 1', "character 13"),
        ("ece[subject=law].before > 1", "there is no .before of ece[…] here"),
        ("ks[subject=law] > 1", "ks is not measured by slice; nll, brier, ece, accuracy are"),
        ("worst(ks) by subject > 1", "ks is not measured by slice"),
        ("worst(ece) > 1", "must be by and a column, as in 'worst(ece) by subject > 0.05'"),
        ("worst(ece by subject > 1", "character 11 is 'by subject > 1' where there must be )"),
        ("worst(eec) by subject > 1", "character 7: there is no metric 'eec'; did you mean ece"),
        ("slices > 1", "character 7: there is no . of slices here; (it is slices, then .failed)"),
        ("slices.fialed > 1", "did you mean .failed"),
        ("slices.failed by > 1", "must be a column"),
        ("periods.failed by class > 1", "character 18: predicted classes are no periods"),
        ("periods > 1", "there is no . of periods here"),
    ],
)
def test_what_is_no_condition_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=r"^--fail-if ") as caught:
        parse_gate(text)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


METRIC_NAMES = st.sampled_from(sorted(METRICS))
QUANTITIES = st.builds(
    Quantity,
    METRIC_NAMES,
    st.sampled_from(["", *STAGES]),
    st.sampled_from(["", *ENDS]),
).filter(lambda each: each.end != "estimate" or each.stage in ("", "before", "after", "baseline"))
WORDS = st.text(min_size=1, max_size=6)
COLUMNS = st.builds(Division, st.one_of(st.none(), st.just("class"), WORDS))
SLICE_NAMES, SLICE_ENDS = st.sampled_from(SLICE_METRICS), st.sampled_from(["", "low", "high"])
OPERANDS = st.one_of(
    QUANTITIES,
    st.builds(SliceQuantity, SLICE_NAMES, COLUMNS, st.text(max_size=6), end=SLICE_ENDS),
    st.builds(WorstSlice, SLICE_NAMES, COLUMNS, end=SLICE_ENDS),
    st.builds(FailedSlices, st.one_of(st.none(), COLUMNS)),
)


CONDITIONS = st.builds(
    "{}{}{}{}".format,
    OPERANDS,
    st.sampled_from(["", " "]),
    st.sampled_from(sorted(OPERATORS)),
    st.one_of(OPERANDS, st.floats(-9, 9)),
)


def is_read_or_refused(text: str) -> bool:
    """Whether a text is a gate, which survives being written; if not, one line must say so."""
    try:
        gate = parse_gate(text)
    except UsageError as error:
        complaint = str(error)
    else:
        assert parse_gate(gate.expression) == gate
        return True
    assert complaint.startswith("--fail-if ")
    assert len(complaint.splitlines()) == 1
    return False


@given(CONDITIONS, st.integers(0), st.integers(0, 2), st.text(max_size=2))
def test_a_condition_with_a_change_is_read_or_refused(text, place, removed, added) -> None:
    at = place % (len(text) + 1)
    is_read_or_refused(text[:at] + added + text[at + removed :])
    assert is_read_or_refused(text)


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    is_read_or_refused(text)


@given(OPERANDS, st.sampled_from(sorted(OPERATORS)), st.one_of(OPERANDS, st.floats(-9, 9)))
def test_every_condition_survives_being_written(left, sign, right) -> None:
    gate = parse_gate(f"{left}{sign}{right!s}")
    assert (gate.left, gate.operator, gate.right) == (left, sign, right)


def test_the_metrics_of_gates_are_measured() -> None:
    gates = [parse_gate("nll > 1"), parse_gate("ece > smooth_ece"), parse_gate("nll < 0")]
    assert gate_metrics(gates) == ("nll", "ece", "smooth_ece")


# What can never be judged


@pytest.mark.parametrize(
    ("text", "options", "complaint"),
    [
        ("ece.delta > 0", {}, "needs --baseline FILE"),
        ("ece > ece.baseline", {}, "ece.baseline needs --baseline FILE"),
        ("ece.before > 0", {}, "only a fit measures before and after; write ece"),
        ("ece.after > 0", {}, "only a fit"),
        ("ece.low > 0", {"intervals": False}, "needs intervals"),
        ("ece > ece.chance", {"intervals": False}, "needs intervals"),
        ("ece > 0", {"intervals": False, "significant": True}, "--significant needs intervals"),
        ("ece == 0", {"significant": True}, "no interval shows that numbers are equal"),
        ("ece > nll", {"significant": True}, "interval of this difference is not known"),
        (
            "ece.delta > ece",
            {"significant": True, "measured": FIT},
            "interval of this difference is not known",
        ),
    ],
)
def test_gates_that_could_never_be_judged_are_refused(text, options, complaint) -> None:
    known = {"measured": set(), "intervals": True, "significant": False, **options}
    with pytest.raises(UsageError) as caught:
        check_gates([parse_gate(text)], **known)
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "ece > 0.02",
        "ece.after > ece.before",
        "ece.before < ece",
        "ece.delta >= 0",
        "ece > ece.baseline",
        "ece.baseline != ece.before",
        "ece > ece.chance.high",
        "ece > nll.low",
    ],
)
def test_gates_that_can_be_judged_by_intervals(text: str) -> None:
    check_gates([parse_gate(text)], measured={*FIT, "baseline"}, intervals=True, significant=True)


def test_slices_are_measured_by_evaluate_only() -> None:
    with pytest.raises(UsageError, match="only calib evaluate measures slices"):
        check_gates(
            [parse_gate("slices.failed > 0")],
            measured=FIT,
            intervals=True,
            significant=False,
            slices=False,
        )


# Judgement


def test_a_gate_fails_where_its_condition_holds() -> None:
    on = subject(now={"ece": entry(0.03)})
    assert not passes("ece > 0.02", on)
    assert passes("ece > 0.03", on)
    assert not passes("ece >= 0.03", on)
    assert passes("ece < 0.03", on)
    assert not passes("ece == 0.03", on)
    assert passes("ece != 0.03", on)


@pytest.mark.parametrize("value", [math.nan, None])
@pytest.mark.parametrize("sign", OPERATORS)
def test_what_is_not_known_does_not_pass(value: float | None, sign: str) -> None:
    here = judge(parse_gate(f"nll {sign} 1"), subject(now={"nll": entry(value)}))
    missing = judge(parse_gate(f"nll {sign} 1"), subject(now={}))
    there = judge(
        parse_gate(f"nll {sign} nll.baseline"),
        subject(now={"nll": entry(1.0)}, baseline={"nll": entry(value)}),
    )
    for found in (here, missing, there):
        assert not found.passed
    assert here.reason == missing.reason == "nll is not known"
    assert there.reason == "nll.baseline is not known"


def test_infinity_is_a_number() -> None:
    on = subject(now={"nll": entry(math.inf)}, before={"nll": entry(1.0)})
    assert not passes("nll > 0.5", on)
    assert passes("nll < 0.5", on)
    assert not passes("nll.delta > 0", on)
    on = subject(now={"nll": entry(math.inf)}, before={"nll": entry(math.inf)})
    assert judge(parse_gate("nll.delta > 0"), on).reason == "nll.delta is not known"


def test_delta_is_the_change_of_a_fit_unless_there_is_a_baseline() -> None:
    now, before, baseline = {"nll": entry(0.5)}, {"nll": entry(0.75)}, {"nll": entry(0.25)}
    gate = parse_gate("nll.delta > 0")
    assert judge(gate, subject(now=now, before=before)).left.value == -0.25
    assert judge(gate, subject(now=now, before=before, baseline=baseline)).left.value == 0.25
    assert judge(gate, subject(now=now, baseline=baseline)).left.value == 0.25


def test_the_change_of_a_fit_has_its_own_interval() -> None:
    now = {"nll": {**entry(0.5, 0.2, 0.8), "change": {"low": -0.3, "high": -0.1}}}
    on = subject(now=now, before={"nll": entry(0.7, 0.4, 1.0)})
    for text, low, high in [
        ("nll.after > nll.before", -0.3, -0.1),
        ("nll.before < nll", 0.1, 0.3),
        ("nll.delta > 0", -0.3, -0.1),
        ("nll.delta > 0.1", -0.4, -0.2),
    ]:
        found = judge(parse_gate(text), on, significant=True)
        assert (found.difference.low, found.difference.high) == pytest.approx((low, high)), text
    assert not passes("nll < nll.before", on, significant=True)


def test_a_baseline_is_another_sample() -> None:
    """Standard errors 3 and 4 make one of 5: 0.03 and 0.04 to the ends make 0.05."""
    on = subject(now={"ece": entry(0.2, 0.17, 0.23)}, baseline={"ece": entry(0.1, 0.06, 0.14)})
    found = judge(parse_gate("ece > ece.baseline"), on, significant=True)
    assert found.difference == pytest.approx((0.1, 0.05, 0.15))
    assert passes("ece.delta > 0.06", on, significant=True)
    assert not passes("ece.delta > 0.06", on)
    assert not passes("ece.delta > 0.04", on, significant=True)


def test_an_interval_must_be_clear_of_the_bound() -> None:
    on = subject(
        now={
            "ece": {**entry(0.03, 0.02, 0.05), "chance": {"mean": 0.01, "low": 0.0, "high": 0.015}}
        }
    )
    assert passes("ece > 0.02", on, significant=True)
    assert not passes("ece >= 0.02", on, significant=True)
    assert not passes("ece > 0.019", on, significant=True)
    assert passes("ece < 0.04", on, significant=True)
    assert not passes("ece < 0.06", on, significant=True)
    assert passes("ece != 0.04", on, significant=True)
    assert not passes("ece != 0.06", on, significant=True)
    assert not passes("ece > ece.chance.high", on, significant=True)
    assert passes("ece > ece.chance.high", subject(now={"ece": entry(0.03)})) is False


def test_a_metric_without_an_interval_cannot_be_judged_by_one() -> None:
    found = judge(parse_gate("ece > 9"), subject(now={"ece": entry(0.03)}), significant=True)
    assert not found.passed
    assert found.reason == "ece has no interval"
    assert not passes("ece.high > 9", subject(now={"ece": entry(0.03)}))


# Slices


def part(name: str, ece: tuple[float, float, float], p: float | None = 1.0) -> dict[str, Any]:
    value, low, high = ece
    numbers = {"ece": {"value": value, "low": low, "high": high}, "accuracy": 1 - value}
    return {"name": name, **numbers, "adjusted_p": p}


def sliced(*parts: dict[str, Any], column: str | None = "subject") -> Subject:
    return subject(slices=[{"column": column, "slices": list(parts)}])


LAW, TAX, ART = (
    part("law", (0.06, 0.02, 0.09), 0.01),
    part("tax law", (0.02, 0.0, 0.04), 0.8),
    part("art", (0.05, 0.04, 0.06), 0.05),
)


def test_a_slice_is_judged_by_its_own_rows() -> None:
    on = sliced(LAW, TAX)
    assert not passes("ece[subject=law] > 0.05", on)
    assert passes("ece[subject=law] > 0.07", on)
    assert passes('ece[subject="tax law"] > 0.05', on)
    assert passes("ece[subject=law].high >= 0.1", on)
    assert passes("ece[subject=law] > 0.05", on, significant=True)
    assert not passes("ece[subject=law] > 0.01", on, significant=True)
    assert not passes("accuracy[subject=law] < 0.95", on)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("ece[subject=lwa] > 1", "no row has subject=lwa; did you mean law?"),
        ("ece[subject=x] > 1", 'no row has subject=x; there are law, "tax law"'),
        ("ece[topic=law] > 1", "no row has topic=law; there are none"),
        ("ece[class=law] > 1", "no row has class=law; there are none"),
        ("nll[subject=law] > 1", "nll[subject=law] is not known"),
        ("worst(nll) by subject > 1", "nll[subject=law] is not known"),
        ("worst(ece) by topic > 1", "worst(ece) by topic is not known"),
        ("slices.failed by topic > 1", "slices.failed by topic is not known: there are no slices"),
    ],
)
def test_a_slice_that_is_not_there_does_not_pass(text: str, reason: str) -> None:
    judgement = judge(parse_gate(text), sliced(LAW, TAX))
    assert not judgement.passed
    assert judgement.reason == reason


def test_the_worst_slice_has_an_interval_for_all_of_them() -> None:
    """By hand: 2.3940 is the normal quantile of 1 - 0.05 / 6, 1.22144 times that of 0.975."""
    assert simultaneous(3) == pytest.approx(2.39398 / 1.959964, rel=1e-5)
    judgement = judge(parse_gate("worst(ece) by subject > 0.05"), sliced(LAW, TAX, ART))
    assert not judgement.passed
    assert judgement.left == pytest.approx(
        (0.06, 0.05 - 0.01 * 1.22144, 0.06 + 0.03 * 1.22144), rel=1e-4
    )
    assert judgement.slice == {"column": "subject", "name": "law", "of": 3}
    low = judge(parse_gate("worst(ece.low) by subject > 0.03"), sliced(LAW, TAX, ART))
    assert not low.passed
    assert low.slice == {"column": "subject", "name": "art", "of": 3}
    alone = judge(parse_gate("worst(ece) by subject > 0.05"), sliced(LAW))
    assert alone.left == pytest.approx((0.06, 0.02, 0.09))
    assert judge(parse_gate("worst(accuracy) by subject < 1"), sliced(LAW, TAX)).left[0] == 0.94


def test_failed_slices_are_counted() -> None:
    on = sliced(LAW, TAX, ART, part("odd", (0.1, 0.0, 0.2), None))
    judgement = judge(parse_gate("slices.failed > 0"), on, significant=True)
    assert not judgement.passed
    assert judgement.left.value == 2
    assert judgement.slice == {"column": None, "name": "law", "of": 4}
    assert passes("slices.failed > 0", sliced(TAX))
    assert passes("slices.failed by subject > 2", on)


def test_of_a_fit_the_change_is_after_minus_before_whatever_the_baseline() -> None:
    now, before, baseline = {"nll": entry(0.5)}, {"nll": entry(0.75)}, {"nll": entry(0.25)}
    on = subject(now=now, before=before, baseline=baseline)
    assert judge(parse_gate("nll.change > 0"), on).left.value == -0.25


def test_an_estimate_is_read_where_there_is_one() -> None:
    on = subject(now={"ece": {**entry(0.03, 0.0, 0.04), "estimate": 0.01}, "nll": entry(1.0)})
    assert judge(parse_gate("ece.estimate > 0.02"), on).left == (0.01, 0.0, 0.04)
    assert judge(parse_gate("nll.estimate > 2"), on).reason == "nll.estimate is not known"


NUMBERS = st.floats(-3, 3)


@st.composite
def estimates(draw: st.DrawFn) -> dict[str, Any]:
    low, value, high = sorted(draw(st.tuples(NUMBERS, NUMBERS, NUMBERS)))
    return entry(value, low, high)


SIGNS = st.sampled_from([sign for sign in OPERATORS if sign != "=="])


@given(estimates(), estimates(), SIGNS, NUMBERS)
def test_what_fails_significantly_fails(now, baseline, sign, bound) -> None:
    on = subject(now={"nll": now}, baseline={"nll": baseline})
    for text in (f"nll {sign} {bound!r}", f"nll {sign} nll.baseline"):
        assert passes(text, on, significant=True) or not passes(text, on)


@given(estimates(), estimates())
def test_differences_are_antisymmetric(left, right) -> None:
    first, second = Estimate(*left.values()), Estimate(*right.values())
    assert unpaired(first, second) == pytest.approx(unpaired(second, first).mirrored())


def test_intervals_of_differences_between_runs_cover() -> None:
    """Two means of 60 numbers each, 4000 times: the interval has the true difference in 95 %."""
    rng = np.random.default_rng(0)
    runs, size = 4000, 60
    means = [rng.normal(mean, 2.0, (runs, size)).mean(axis=1) for mean in (1.0, 0.4)]
    half = 1.96 * 2.0 / math.sqrt(size)
    found = [
        unpaired(Estimate(a, a - half, a + half), Estimate(b, b - half, b + half))
        for a, b in zip(*means, strict=True)
    ]
    covered = np.mean([low <= 0.6 <= high for _, low, high in found])
    assert 0.94 < covered < 0.96


# Baselines


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is no JSON"),
        (b"\x80PNG", "is no JSON"),
        (b"[" * 100_000, "is no JSON"),
        (b"[1]", "has no schema_version"),
        (b'{"schema_version": 3, "command": "fit"}', "has schema_version 3"),
        (b'{"schema_version": 1, "command": "apply"}', "is of calib apply"),
        (b'{"schema_version": 1, "command": "fit"}', "has no metrics"),
        (b'{"schema_version": 1, "command": "evaluate", "results": []}', "has no results"),
        (b'{"schema_version": 1, "command": "evaluate", "results": 3}', "has no metrics"),
        (
            (
                b'{"schema_version": 1, "command": "evaluate", "input": {"name": "a"},'
                b'"metrics": {"ece": {"value": "1"}}}'
            ),
            "has no metrics",
        ),
        (
            b'{"schema_version": 1, "command": "fit", "input": {"name": "a"}, "after": null}',
            "has no metrics",
        ),
    ],
)
def test_what_is_no_baseline_is_refused(content: bytes, complaint: str) -> None:
    with pytest.raises(DataError, match=r"^b\.json: ") as caught:
        Baseline(content, "b.json")
    assert complaint in str(caught.value)


TOP: dict[str, Any] = {"positive": None}


@pytest.mark.parametrize("then", [None, {"class": 0, "name": "eggs"}])
def test_a_baseline_of_another_view_is_refused(then: dict[str, Any] | None) -> None:
    document = {**evaluated("a", ece=entry(0.1)), "positive": then}
    baseline = Baseline(json.dumps(document).encode(), "b.json")
    assert baseline.metrics("a", {"positive": then})["ece"]["value"] == 0.1
    with pytest.raises(DataError, match=r"b\.json: is of .*, here it is P\(spam\)"):
        baseline.metrics("a", {"positive": {"class": 1, "name": "spam"}})


def test_a_baseline_finds_the_input_by_its_name() -> None:
    results = [evaluated("a", ece=entry(0.1)), evaluated("b", ece=entry(None))]
    document = {"schema_version": 1, "command": "evaluate", "results": results}
    baseline = Baseline(json.dumps(document).encode(), "b.json")
    assert baseline.metrics("a", TOP)["ece"]["value"] == 0.1
    with pytest.raises(DataError, match="has no c, with which to compare; it has a, b"):
        baseline.metrics("c", TOP)
    with pytest.raises(DataError, match="nll was not measured there; make it anew with --metrics"):
        baseline.check(["ece", "nll"])
    alone = Baseline(json.dumps(results[0]).encode(), "b.json")
    assert alone.metrics("any other name", TOP)["ece"]["value"] == 0.1


def in_order(*signals: str, column: str = "month") -> Subject:
    periods = [
        {
            "name": f"2025-{number:02d}",
            "low": None if signal == "too few" else 1.0,
            "signal": signal,
        }
        for number, signal in enumerate(signals, 1)
    ]
    return subject(periods={"column": column, "periods": periods})


def test_periods_out_of_their_limits_are_counted() -> None:
    on = in_order("too few", "within", "high", "low")
    judgement = judge(parse_gate("periods.failed > 1"), on)
    assert (judgement.passed, judgement.left.value) == (False, 2.0)
    assert judgement.slice == {"column": None, "name": "2025-03", "of": 4}
    assert judge(parse_gate("periods.failed by month > 2"), on).passed
    assert judge(parse_gate("periods.failed > 0"), in_order("within", "too few")).passed


@pytest.mark.parametrize(
    ("text", "on", "reason"),
    [
        ("periods.failed > 9", in_order("too few"), "every period is too small to tell"),
        ("periods.failed > 9", subject(), "there are no periods"),
        ("periods.failed by day > 9", in_order("within"), "there are no periods"),
    ],
)
def test_periods_of_which_nothing_is_known_do_not_pass(text, on, reason) -> None:
    judgement = judge(parse_gate(text), on)
    assert not judgement.passed
    assert judgement.reason == f"{text.split(' >')[0]} is not known: {reason}"
