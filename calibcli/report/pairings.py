"""What a document keeps so that another run of the same rows can be paired with it, and how."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.metrics.paired_changes import Run, paired_changes, why_unpaired
from calibcli.metrics.pairing import PairingRecord
from calibcli.metrics.resampling import Bagged, Interval, Units

if TYPE_CHECKING:
    from calibcli.schema.parts import MeasurementPart, PairingPart

MOST_BYTES = 200_000
"""What a document keeps at most, for all its inputs together."""

_CLUSTERS = "cluster"
_NUMBERS = np.dtype("<f4")


def pairing_part(record: PairingRecord | None) -> PairingPart | None:
    """A record as the document has it: numbers as float32, little-endian, in base64."""
    if record is None or not record.metrics:
        return None
    units = record.bagged.units
    return {
        "rows": record.rows,
        "seed": units.seed,
        "units": units.count,
        "clusters": units.role is not None,
        "bags": _encoded(record.bagged.bags),
        "metrics": {name: _encoded(numbers) for name, numbers in record.metrics.items()},
    }


def pairing_bytes(part: PairingPart | None) -> int:
    """About how long a record is in a document."""
    if part is None:
        return 0
    metrics = part["metrics"]
    return 300 + len(part["bags"]) + sum(30 + len(name) + len(metrics[name]) for name in metrics)


def trim_pairings(results: Sequence[dict[str, Any]]) -> None:
    """Leave out the records of inputs for which there is no room beside those before them."""
    room = MOST_BYTES
    for result in results:
        room -= pairing_bytes(result.get("pairing"))
        if room < 0:
            result.pop("pairing", None)


def read_run(part: MeasurementPart | None) -> Run:
    """A measurement of a document, with what it keeps.

    Raises
    ------
    ValueError
        What it keeps cannot be read.
    """
    metrics = part["metrics"] if part else {}
    figures = {n: _number(each.get("estimate", each["value"])) for n, each in metrics.items()}
    ends = {
        n: Interval(*(_number(each.get(e)) for e in ("low", "high"))) for n, each in metrics.items()
    }
    intervals = {name: each for name, each in ends.items() if not math.isnan(each.low + each.high)}
    return Run(figures, intervals, _record(part.get("pairing") if part else None))


class Joined(NamedTuple):
    """How a run is compared with another one.

    Attributes
    ----------
    changes : dict of str to Interval
        95 % intervals of the changes of figures, of the metrics that can be paired.
    reason : str
        Why they cannot; empty where they can.
    """

    changes: Mapping[str, Interval]
    reason: str


def join_runs(now: MeasurementPart | None, then: MeasurementPart) -> Joined:
    """Compare two measurements of documents."""
    here, there = read_run(now), read_run(then)
    return Joined(paired_changes(here, there), why_unpaired(here, there))


def _record(part: Any) -> PairingRecord | None:
    if part is None:
        return None
    try:
        role = _CLUSTERS if part["clusters"] else None
        units = Units(int(part["units"]), role, int(part["seed"]))
        bags = _decoded(part["bags"])
        metrics = {str(name): _decoded(text) for name, text in part["metrics"].items()}
        if len(bags) != units.bags() or not all(map(len, metrics.values())):
            raise ValueError("lengths")
        return PairingRecord(str(part["rows"]), Bagged(units, bags), metrics)
    except (AttributeError, KeyError, TypeError, binascii.Error) as error:
        raise ValueError("pairing") from error


def _encoded(numbers: NumpyArray) -> str:
    return base64.b64encode(numbers.astype(_NUMBERS).tobytes()).decode("ascii")


def _decoded(text: str) -> NumpyArray:
    return np.frombuffer(base64.b64decode(text, validate=True), _NUMBERS)


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
