"""Each metric has an example; that they print what they show is tested with all others."""

from __future__ import annotations

import importlib
import pkgutil

from calibcli import metrics
from calibcli.metrics.base import Metric
from calibcli.metrics.registry import METRICS

MODULES = [f"calibcli.metrics.{module.name}" for module in pkgutil.iter_modules(metrics.__path__)]


def test_each_metric_has_an_example() -> None:
    without = {metric.name for metric in METRICS.values()}
    for name in MODULES:
        module = importlib.import_module(name)
        shown = module.__doc__ or ""
        for constant, value in vars(module).items():
            entries = value if isinstance(value, tuple) else (value,)
            used = f">>> round({constant}.measure(" in shown or f" in {constant}]" in shown
            if used:
                without -= {entry.name for entry in entries if isinstance(entry, Metric)}
    assert without == set()
