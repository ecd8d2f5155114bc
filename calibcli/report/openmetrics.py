"""Metrics, gates and the verdict, in the text format of OpenMetrics 1.0.

Prometheus, GitLab's metrics report and most that collect time series read it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from calibcli.report.comparison import measured_input
from calibcli.report.document import gates_of, measurements, results_of
from calibcli.visible import visible
from calibcli.workflow.verdict import WORDS, Verdict

if TYPE_CHECKING:
    from calibcli.schema.documents import Document


class _Sample(NamedTuple):
    labels: Mapping[str, str]
    value: float | None


_NUMBERS: Final = ("value", "estimate", "low", "high")
"""The numbers of a metric that are shown."""

_FAMILIES = {
    "calib_metric": "A metric of calibration or of accuracy.",
    "calib_metric_estimate": "A calibration error without what noise adds to it.",
    "calib_metric_low": "Lower end of its 95 % interval.",
    "calib_metric_high": "Upper end of its 95 % interval.",
    "calib_rows": "Rows that were measured.",
    "calib_gate_passed": "Whether a gate passed.",
    "calib_verdict": "What all figures say together.",
    "calib_verdict_text": "The verdict as a sentence.",
}

_TYPES = {"calib_verdict": "stateset", "calib_verdict_text": "info"}
"""Of the families that are no gauges."""


def to_openmetrics(document: Document) -> str:
    """Gauges with the labels ``input``, ``stage`` and ``metric``, and the verdict.

    The stage is ``before`` or ``after`` a fit, or else ``measured``. Of the verdict every kind is a
    state, of which one is 1; its sentence is an info.
    """
    families: dict[str, list[_Sample]] = {name: [] for name in _FAMILIES}
    for family, sample in _samples(document):
        families[family].append(sample)
    lines = [line for name, samples in families.items() for line in _family(name, samples)]
    return "\n".join([*lines, "# EOF"]) + "\n"


def _samples(document: Document) -> Iterator[tuple[str, _Sample]]:
    for result in results_of(document):
        for stage, part in measurements(result).items():
            place = {"input": measured_input(result), "stage": stage or "measured"}
            yield "calib_rows", _Sample(place, part["rows"])
            for metric, entry in part["metrics"].items():
                labels = {**place, "metric": metric}
                for key in _NUMBERS:
                    if key in entry:
                        family = "calib_metric" + f"_{key}" * (key != "value")
                        yield family, _Sample(labels, entry[key])
            verdict = Verdict.of(part)
            for kind in WORDS:
                yield (
                    "calib_verdict",
                    _Sample({**place, "calib_verdict": kind}, kind == verdict.kind),
                )
            yield "calib_verdict_text", _Sample({**place, "text": verdict.text}, 1)
    for gate in gates_of(document):
        labels = {"input": gate["input"], "gate": gate["expression"]}
        yield "calib_gate_passed", _Sample(labels, gate["passed"])


def _family(name: str, samples: list[_Sample]) -> Iterator[str]:
    if not samples:
        return
    yield f"# HELP {name} {_FAMILIES[name]}"
    kind = _TYPES.get(name, "gauge")
    yield f"# TYPE {name} {kind}"
    suffix = "_info" if kind == "info" else ""
    written = set()
    for labels, value in samples:
        labelled = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
        # The same input or gate twice is one series.
        if labelled not in written:
            written.add(labelled)
            yield f"{name}{suffix}{{{labelled}}} {_number(value)}"


def _number(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return repr(value) if isinstance(value, float) else str(int(value))


def _escaped(text: str) -> str:
    return visible(text).replace("\\", "\\\\").replace('"', '\\"')
