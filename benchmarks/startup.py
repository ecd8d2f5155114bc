"""What a user waits for when there is little to compute."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from harness import Line, calib, median_run

ROUNDS = 15

_SAMPLES = Path(__file__).parent.parent / "sample_data"
_TEST = _SAMPLES / "digits_test.parquet"

_BARE = "import numpy, pyarrow, typer, rich"
_GOALS = {"calib --help": 0.7, "calib apply": 1.6, "calib evaluate": 2.0}
"""Times what the bare imports take on the same machine."""


def benchmark(folder: Path) -> list[Line]:
    """The commands and the bare imports in turns, compiled as an installed package is."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    params, output = folder / "startup.json", folder / "startup.parquet"
    fit = calib("fit", _SAMPLES / "digits_val.parquet", "-p", params, "--force", "--quiet")
    commands = {
        _BARE: [sys.executable, "-c", _BARE],
        "calib --help": calib("--help"),
        "calib apply": calib("apply", params, _TEST, "-o", output, "--force"),
        "calib evaluate": calib("evaluate", _TEST),
    }
    # Each once before it counts, which compiles what it imports.
    median_run({"calib fit": fit}, 1)
    median_run(commands, 1)
    usages = median_run(commands, ROUNDS)
    bare = usages[_BARE].seconds
    return [
        Line("startup", name, "time, bare imports", usages[name].seconds, bare, at_most=goal)
        for name, goal in _GOALS.items()
    ]
