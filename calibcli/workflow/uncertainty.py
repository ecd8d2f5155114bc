"""Intervals for what is measured: a panel that keeps what the bootstrap needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from calibcli.engine.data import Data
from calibcli.engine.memory_source import names_of_keys
from calibcli.errors import DataError
from calibcli.metrics.panel import Evaluation, Panel
from calibcli.metrics.resampling import Units
from calibcli.metrics.uncertainty import Resampling


@dataclass(frozen=True)
class BootstrapPanel:
    """A panel with what its bootstrap needs beside it.

    Parameters
    ----------
    panel : Panel
        As it was asked for.
    resampling : Resampling or None
        None where no intervals were asked for.
    """

    panel: Panel
    resampling: Resampling | None

    @classmethod
    def of(cls, panel: Panel, data: Data) -> BootstrapPanel:
        """For rows of some data.

        Raises
        ------
        DataError
            There is only one cluster.
        """
        bootstrap = panel.bootstrap
        if bootstrap is None or not bootstrap.replicates:
            return cls(panel, None)
        units = Units(data.rows, None, bootstrap.seed)
        if bootstrap.role is not None:
            count = len(names_of_keys(data.source, (bootstrap.role,))[bootstrap.role])
            if count < 2:
                raise DataError("--cluster: all rows are in one cluster, so intervals mean nothing")
            units = Units(count, bootstrap.role, bootstrap.seed)
        return cls(panel, Resampling(panel.metrics, units, bootstrap.replicates))

    @property
    def wide(self) -> Panel:
        """The panel to fold with."""
        if self.resampling is None:
            return self.panel
        return replace(self.panel, also=(*self.panel.also, *self.resampling.statistics))

    def with_intervals(self, evaluations: Sequence[Evaluation]) -> list[Evaluation]:
        """What `wide` found of several models, with intervals.

        Changes are from the first model to each of the others, rows being paired.
        """
        if self.resampling is None:
            return list(evaluations)
        judged = self.resampling.judge([(each.also, each.values) for each in evaluations])
        return [
            replace(
                evaluation,
                **found._asdict(),
                also={each: evaluation.also[each] for each in self.panel.also},
            )
            for evaluation, found in zip(evaluations, judged, strict=True)
        ]
