"""A thousand classes: fits of structured maps beside a temperature's, and `auto` as a process."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from data import Size, read_arrays, write_arrays, write_npz
from harness import Line, calib, elsewhere, median_run, race

SIZE = Size(50_000, 1000)
_MOST_TEMPERATURES = {"monotone": 8, "gap-temperature": 6, "curved-svs": 25, "svs": 8}
"""Times the temperature's."""

_ROUNDS = 3


def fit(method: str, folder: Path) -> Callable[[], None]:
    """The fit alone, with the checks of the data that come before it."""
    from calibcli.engine.data import open_data
    from calibcli.engine.engine import Engine
    from calibcli.engine.source import ArraySource
    from calibcli.fitting.stages import fit_stages
    from calibcli.workflow.plans import make_plan

    source, plan = ArraySource(*read_arrays(folder)), make_plan(method)

    def run() -> None:
        fit_stages(open_data(Engine(), source), plan.families, plan.objective)

    return run


def benchmark(folder: Path) -> list[Line]:
    """A line for each map, and for `auto` and its stack."""
    elsewhere(write_arrays, folder, SIZE)
    methods = ("temperature", *_MOST_TEMPERATURES)
    timings = race({method: partial(fit, method) for method in methods}, folder)
    plain = timings["temperature"].median
    lines = [
        Line(
            "classes",
            f"{method}, {SIZE}",
            "time, temperature",
            timings[method].median,
            plain,
            at_most=most,
        )
        for method, most in _MOST_TEMPERATURES.items()
    ]
    return lines + _choices(folder)


def _choices(folder: Path) -> list[Line]:
    """The seconds of whole processes that choose."""
    lines = []
    for size, stacked, most in (
        (Size(25_000, 1000), False, 60),
        (Size(25_000, 1000), True, 120),
        (Size(5_000, 100), True, 5),
    ):
        path = folder / f"{size.rows}x{size.classes}.npz"
        if not path.exists():
            elsewhere(write_npz, path, size, 0)
        title = "-m auto --stack" if stacked else "-m auto"
        rest = ["--stack"] if stacked else []
        outputs = ["-p", folder / "params.json", "-o", folder / "out.parquet", "--force", "-q"]
        command = calib("fit", path, "-m", "auto", *rest, *outputs)
        usage = median_run({title: list(map(str, command))}, _ROUNDS)[title]
        lines.append(Line("classes", f"{title}, {size}", "time", usage.seconds, at_most=most))
    return lines
