"""The results as a table that reads well in a terminal and in Markdown, and as JSON."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from harness import Line

_HEADINGS = ("benchmark", "case", "measure", "calib", "peer", "ratio", "goal", "holds", "note")
_PACKAGES = (
    "calibcli",
    "numpy",
    "pyarrow",
    "torch",
    "probmetrics",
    "scikit-learn",
    "netcal",
    "torchmetrics",
)


def table(lines: Sequence[Line]) -> str:
    """A Markdown table with aligned columns."""
    rows = [_HEADINGS, *map(_cells, lines)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEADINGS))]
    rows.insert(1, tuple("-" * width for width in widths))
    return "\n".join(
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |"
        for row in rows
    )


def summary(lines: Sequence[Line]) -> str:
    """How many goals hold, and which don't."""
    judged = [line for line in lines if line.holds is not None]
    missed = [f"{line.case}: {line.measure}" for line in judged if not line.holds]
    text = f"{len(judged) - len(missed)} of {len(judged)} goals hold"
    return text + (f"; missed: {'; '.join(missed)}" if missed else "")


def machine() -> str:
    """What it ran on, in one line."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    system = f"{platform.system()}, Python {platform.python_version()}"
    return f"{cores} cores ({_processor()}), {system}"


def versions() -> str:
    """The packages that took part, in one line."""
    present = {distribution.name: distribution.version for distribution in distributions()}
    return ", ".join(f"{name} {present[name]}" for name in _PACKAGES if name in present)


def code() -> str:
    """What the code is, in a word: a part of the hash of all modules of the package."""
    package = Path(__file__).parent.parent / "calibcli"
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def staleness(recorded: str) -> str | None:
    """What is to be said of recorded results of other code than that which is here; or None."""
    match = re.search(r"^Code: ([0-9a-f]{12})", recorded, re.MULTILINE)
    if match is None:
        return "does not say which code it measured, and is older than what is here"
    if match[1] == code():
        return None
    return f"measured other code ({match[1]}) than what is here ({code()}); --record writes it anew"


def document(results: Mapping[str, Sequence[Line]]) -> dict[str, Any]:
    """The lines of each benchmark, and of what they are, for `json`."""
    lines = {
        name: [{**asdict(line), "figure": line.figure, "holds": line.holds} for line in each]
        for name, each in results.items()
    }
    return {**_measured(), "results": lines}


def write_json(path: Path, results: Mapping[str, Sequence[Line]]) -> None:
    """The document in a file."""
    text = json.dumps(document(results), indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, list[Line]]:
    """The lines in a file by benchmark; none where it is of other code, or another machine."""
    if not path.exists():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))
    if any(found.get(key) != value for key, value in _measured().items()):
        return {}
    derived = {"figure", "holds"}
    return {
        name: [Line(**{key: each[key] for key in each.keys() - derived}) for each in lines]
        for name, lines in found["results"].items()
    }


def _measured() -> dict[str, str]:
    return {"machine": machine(), "versions": versions(), "code": code()}


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    text = info.read_text(encoding="utf-8") if info.exists() else ""
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return match[1].strip() if match else platform.processor() or platform.machine()


def _cells(line: Line) -> tuple[str, ...]:
    compared = line.theirs is not None
    goal = ""
    if line.at_most is not None:
        goal = f"≤ {_ratio(line.at_most) if compared else _quantity(line.at_most, line.unit)}"
    return (
        line.benchmark,
        line.case,
        line.measure,
        _quantity(line.ours, line.unit),
        _quantity(line.theirs, line.unit),
        _ratio(line.figure) if compared else "",
        goal,
        {True: "yes", False: "NO", None: ""}[line.holds],
        line.note,
    )


def _quantity(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    if not unit:
        return f"{value:.1e}"
    return f"{value:.0f} {unit}" if unit == "MB" else f"{value:.3g} {unit}"


def _ratio(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if value >= 1 else f"1/{1 / value:.3g}"
