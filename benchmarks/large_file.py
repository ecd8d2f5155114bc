"""A Parquet file that is larger than the memory `calib` may use."""

from __future__ import annotations

from pathlib import Path

from data import Size, write_parquet
from harness import Line, calib, elsewhere, run

SIZE = Size(2_000_000, 100)
MEMORY = "256M"

_PEAK_MEGABYTES = 600


def benchmark(folder: Path) -> list[Line]:
    """Fit, apply and evaluate, once each, and evaluate with all metrics."""
    data, params = folder / "large.parquet", folder / "params.json"
    fitted, applied = folder / "fitted.parquet", folder / "applied.parquet"
    elsewhere(write_parquet, data, SIZE)
    lines = []
    for name, command in (
        ("fit", calib("fit", data, "-p", params, "-o", fitted)),
        ("apply", calib("apply", params, data, "-o", applied)),
        ("evaluate", calib("evaluate", data, "--params", params)),
        ("evaluate --metrics all", calib("evaluate", data, "--metrics", "all")),
    ):
        usage = run([*command, "--memory", MEMORY])
        case = f"{name} --memory {MEMORY}, {SIZE}"
        peak = usage.peak_bytes / 1e6
        size = data.stat().st_size / 1e9
        lines += [
            Line("large file", case, "time", usage.seconds, note=f"{size:.2f} GB of Parquet"),
            Line("large file", case, "peak memory", peak, unit="MB", at_most=_PEAK_MEGABYTES),
        ]
        # The disk need not hold more than one of them.
        for path in (fitted, applied):
            path.unlink(missing_ok=True)
    return lines
