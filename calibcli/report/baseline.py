"""The document of an earlier run, read again to be compared with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from calibcli.errors import BaselineError
from calibcli.metrics.costs import COST
from calibcli.report.document import is_fit, results_of
from calibcli.report.pairings import Joined, join_runs
from calibcli.version import SCHEMA_VERSION
from calibcli.workflow.quantities import Metrics

if TYPE_CHECKING:
    from calibcli.schema.documents import Judged
    from calibcli.schema.parts import MeasurementPart

_READABLE = (1, SCHEMA_VERSION)

COMMANDS = ("evaluate", "fit")
"""Whose documents have measurements to compare with."""


class Baseline:
    """The metrics of an earlier run: of an input by its name, or of the only one there is.

    Parameters
    ----------
    content : bytes
        What ``calib evaluate`` or ``calib fit`` printed with ``--format json``.
    name : str
        What messages call it.

    Raises
    ------
    BaselineError
        It is no such document.
    """

    def __init__(self, content: bytes, name: str) -> None:
        self.name = name
        self._parts = _measurements(_parse(content, name), name)

    def metrics(self, source: str, measured: MeasurementPart | None) -> Metrics:
        """The metrics of an input, to be compared with those that were measured of it.

        Raises
        ------
        BaselineError
            There are several inputs, and none of this name; or it was another view.
        """
        return _metrics(self._part(source, measured))

    def joined(self, source: str, measured: MeasurementPart | None) -> Joined:
        """How the measurement of an input is compared with what was measured of it then.

        Raises
        ------
        BaselineError
            As of `metrics`; or what was kept for it cannot be read.
        """
        try:
            return join_runs(measured, self._part(source, measured))
        except ValueError:
            raise BaselineError(
                f"{self.name}: has no pairing as calib writes it; make it anew"
            ) from None

    def _part(self, source: str, measured: MeasurementPart | None) -> MeasurementPart:
        part = (
            next(iter(self._parts.values())) if len(self._parts) == 1 else self._parts.get(source)
        )
        if part is None:
            listed = ", ".join(self._parts)
            raise BaselineError(
                f"{self.name}: has no {source}, with which to compare; it has {listed}"
            )
        then, view = _view_in_words(part), _view_in_words(measured)
        if then != view:
            raise BaselineError(
                f"{self.name}: is of {then}, here it is {view}; make it anew, or set --view"
            )
        priced = COST.name in part["metrics"] and measured and COST.name in measured["metrics"]
        if priced and _costs(part) != _costs(measured):
            raise BaselineError(
                f"{self.name}: errors had other costs there; make it anew, or set --cost"
            )
        return part

    def check(self, metrics: Sequence[str]) -> None:
        """Refuse metrics that were not measured then.

        Raises
        ------
        BaselineError
        """
        for metric in metrics:
            if any(metric not in part["metrics"] for part in self._parts.values()):
                raise BaselineError(
                    f"{self.name}: {metric} was not measured there; make it anew with "
                    f"--metrics default,{metric}"
                )


def _parse(content: bytes, name: str) -> Judged:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        raise BaselineError(
            f"{name}: is no JSON; a baseline is what --format json prints"
        ) from None
    if not isinstance(document, dict) or "schema_version" not in document:
        raise BaselineError(
            f"{name}: has no schema_version; a baseline is what --format json prints"
        )
    if document["schema_version"] not in _READABLE:
        raise BaselineError(
            f"{name}: has schema_version {document['schema_version']!r}, and this version of calib "
            f"reads up to {SCHEMA_VERSION}; make it anew"
        )
    if document.get("command") not in COMMANDS:
        other = document.get("command", "another command")
        raise BaselineError(f"{name}: is of calib {other}; a baseline is of calib evaluate or fit")
    return cast("Judged", document)


def _measurements(document: Judged, name: str) -> dict[str, MeasurementPart]:
    """Measurements by the name of the input; of a fit those afterwards."""
    parts: dict[str, MeasurementPart] = {}
    try:
        for result in results_of(document):
            part = result["after"] if is_fit(result) else cast("MeasurementPart", result)
            parts[str(result["input"]["name"])] = part  # type: ignore[assignment]
        for part in parts.values():
            _view_in_words(part)
            for entry in _metrics(part).values():
                _check_numbers(entry)
    except (AttributeError, KeyError, TypeError, ValueError):
        raise BaselineError(
            f"{name}: has no metrics where calib writes them; make it anew"
        ) from None
    if not parts:
        raise BaselineError(f"{name}: has no results")
    return parts


def _metrics(part: MeasurementPart) -> Metrics:
    return {str(metric): {**entry} for metric, entry in part["metrics"].items()}


def _view_in_words(part: MeasurementPart | None) -> str:
    """What the confidence of a measurement is; that of the top label before there were views."""
    event = None if part is None else part.get("positive")
    return "the view of the top label" if event is None else f"P({event['name']})"


def _costs(part: MeasurementPart | None) -> Any:
    """What errors cost; None where it is not said."""
    decisions = None if part is None else part.get("decisions")
    return decisions.get("costs") if isinstance(decisions, Mapping) else None


def _check_numbers(entry: Mapping[str, Any]) -> None:
    for key in ("value", "low", "high"):
        number = entry.get(key)
        if number is not None and (isinstance(number, bool) or not isinstance(number, int | float)):
            raise TypeError(key)
