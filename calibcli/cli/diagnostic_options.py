"""Options of ``calib evaluate`` that look closer: slices, tests, and what a refit takes away."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

from calibcli.cli.shared_options import complete_methods, options_in

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calibcli.calibrators.base import Calibrator
    from calibcli.engine.data import Data
    from calibcli.metrics.panel import Evaluation, Panel
    from calibcli.metrics.slices import SliceSums
    from calibcli.tables.dataset import Dataset

_option = options_in("Looking closer")
_FOLDS = 5


@dataclass(frozen=True)
class DiagnosticOptions:
    """What to look at beside the metrics."""

    by: Annotated[
        str | None,
        _option(
            metavar="COL",
            help="Measure the rows of each value of a column, the worst first.",
            show_default=False,
        ),
    ] = None
    by_class: Annotated[
        bool,
        _option("--by-class", help="Measure the rows of each predicted class, the worst first."),
    ] = False
    tests: Annotated[
        bool,
        _option("--tests", help="Test whether the model may be calibrated, with p-values."),
    ] = False
    refit: Annotated[
        str | None,
        _option(
            metavar="METHOD",
            autocompletion=complete_methods,
            help="What METHOD, fitted to other rows, could still take off NLL and Brier.",
            show_default=False,
        ),
    ] = None

    @property
    def keys(self) -> dict[str, str]:
        """The key columns that they need, by role."""
        from calibcli.workflow.slicing import BY

        return {} if self.by is None else {BY: self.by}

    @property
    def folds(self) -> int:
        """Of the cross-fitting; 1 without any."""
        return 1 if self.refit is None else _FOLDS

    def statistics(self, data: Data) -> tuple[SliceSums, ...]:
        """The statistics of the slices, for the pass of the metrics."""
        from calibcli.workflow.slicing import slices_of_classes, slices_of_column

        found = () if self.by is None else (slices_of_column(data, self.by),)
        return (*found, slices_of_classes(data)) if self.by_class else found

    def widened(self, panel: Panel, data: Data) -> Panel:
        """The panel, with the statistics of the slices."""
        return replace(panel, also=(*panel.also, *self.statistics(data)))

    def document(
        self,
        data: Data,
        stages: Sequence[Calibrator],
        evaluation: Evaluation,
        panel: Panel,
        dataset: Dataset,
    ) -> dict[str, Any]:
        """What was found, for the result document."""
        from calibcli.metrics.resampling import Bootstrap
        from calibcli.report.document import slices_document
        from calibcli.workflow.slicing import BY, slices

        bootstrap = panel.bootstrap or Bootstrap()
        found: dict[str, Any] = {}
        statistics = self.statistics(data)
        if statistics:
            classes = dataset.class_names or tuple(map(str, range(data.classes)))
            found["slices"] = [
                slices_document(
                    slices(
                        evaluation,
                        each,
                        classes if each.role is None else data.key_names(BY),
                        bootstrap.seed,
                    ),
                    self.by if each.role else None,
                )
                for each in statistics
            ]
        if self.tests:
            from calibcli.report.document import tests_document
            from calibcli.workflow.testing import run_tests

            results = run_tests(data, stages, bootstrap.seed, bootstrap.role)
            found["tests"] = tests_document(results)
        if self.refit is not None:
            # It imports all that fits.
            from calibcli.report.document import refit_document
            from calibcli.workflow.refit import refit

            found["refit"] = refit_document(refit(data, self.refit, panel.bootstrap, stages))
        return found
