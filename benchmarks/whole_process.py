"""From an NPZ file of logits to a Parquet file of probabilities, as whole processes."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from data import Size, write_npz
from harness import Line, Usage, calib, elsewhere, median_run

SIZE = Size(50_000, 1000)
ROUNDS = 3

_SCRIPT = Path(__file__).with_name("probmetrics_script.py")
_PLAIN = Path(__file__).with_name("pyarrow_script.py")
_TIME_GOAL, _PLAIN_GOAL = 1 / 10, 2.5
_FILES, _MEGABYTE = 1.5, 1e6
_BASE_MEGABYTES = 150


def benchmark(folder: Path) -> list[Line]:
    """`calib fit` with cross-fitting and with a test file, against scripts.

    One has probmetrics do the same, the other reads and writes as much and computes nothing.
    """
    val, test = folder / "val.npz", folder / "test.npz"
    for seed, path in enumerate((val, test)):
        elsewhere(write_npz, path, SIZE, seed)
    params, output = folder / "params.json", folder / "probs.parquet"
    fit = calib("fit", val, "-p", params, "-o", output, "--force")
    script = [sys.executable, str(_SCRIPT)]
    lines = []
    for case, ours, theirs, files in (
        ("fit", fit, [*script, val, val, output], [val]),
        ("fit --test", [*fit, "--test", test], [*script, val, test, output], [val, test]),
    ):
        plain = [sys.executable, str(_PLAIN), *map(str, files), str(output)]
        commands = {"calib": list(map(str, ours)), "pyarrow": plain}
        if importlib.util.find_spec("probmetrics") is not None:
            commands["probmetrics"] = list(map(str, theirs))
        usages = median_run(commands, ROUNDS)
        megabytes = sum(path.stat().st_size for path in files) / _MEGABYTE
        lines += _lines(f"{case}, {SIZE}", usages, megabytes)
    return lines


def _lines(case: str, usages: dict[str, Usage], megabytes: float) -> list[Line]:
    ours, theirs = usages["calib"], usages.get("probmetrics")
    time = "time, probmetrics script"
    reading = Line(
        "process",
        case,
        "time, reading and writing by pyarrow",
        ours.seconds,
        usages["pyarrow"].seconds,
        at_most=_PLAIN_GOAL,
    )
    memory = Line(
        "process",
        case,
        "peak memory",
        ours.peak_bytes / _MEGABYTE,
        unit="MB",
        at_most=_FILES * megabytes + _BASE_MEGABYTES,
        note=f"goal: {_FILES} x {megabytes:.0f} MB + {_BASE_MEGABYTES} MB",
    )
    if theirs is None:
        missing = Line("process", case, time, note="no module named 'probmetrics'")
        return [missing, reading, memory]
    note = f"its peak {theirs.peak_bytes / _MEGABYTE:.0f} MB"
    return [
        Line("process", case, time, ours.seconds, theirs.seconds, at_most=_TIME_GOAL, note=note),
        reading,
        memory,
    ]
