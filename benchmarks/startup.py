"""What a user waits for when there is little to compute."""

from __future__ import annotations

from pathlib import Path

from harness import Line, calib, median_run

ROUNDS = 15

_SAMPLE = Path(__file__).parent.parent / "sample_data" / "digits_test.parquet"
_GOALS = {"calib --help": 0.25, "calib evaluate digits_test.parquet": 0.5}


def benchmark(folder: Path) -> list[Line]:  # noqa: ARG001 (it needs no data)
    """The two commands, in turns."""
    commands = (calib("--help"), calib("evaluate", _SAMPLE))
    usages = median_run(dict(zip(_GOALS, commands, strict=True)), ROUNDS)
    return [
        Line("startup", name, "time", usages[name].seconds, at_most=goal)
        for name, goal in _GOALS.items()
    ]
