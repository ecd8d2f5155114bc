"""Options of ``calib evaluate`` that look closer: slices, tests, and what a refit takes away."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

from calibcli.cli.shared_options import complete_methods, options_in
from calibcli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calibcli.calibrators.base import Calibrator
    from calibcli.engine.data import Data
    from calibcli.metrics.base import Statistic
    from calibcli.metrics.panel import Evaluation, Panel
    from calibcli.metrics.slices import SliceSums
    from calibcli.schema.documents import EvaluateDocument
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
    in_order: Annotated[
        bool,
        _option(
            "--in-order",
            help="The values of --by are months, say: what is expected and what comes, in their "
            "order, with control limits.",
        ),
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

    def check(self) -> None:
        """Refuse options that say nothing together.

        Raises
        ------
        UsageError
        """
        if self.in_order and self.by is None:
            raise UsageError("--in-order is about the values of a column; add --by COL")

    def by_label(self) -> DiagnosticOptions:
        """The options with the labels of multi-label data as slices, where no others are."""
        from calibcli.tables.read_options import LABEL_NAME

        return self if self.by is not None else replace(self, by=LABEL_NAME)

    @property
    def pictured(self) -> set[str]:
        """What there is to draw of what they show."""
        return {"periods"} if self.in_order else set()

    @property
    def keys(self) -> dict[str, str]:
        """The key columns that they need, by role."""
        if self.by is None:
            return {}
        from calibcli.metrics.slices import BY

        return {BY: self.by}

    def slice_names(self, data: Data) -> tuple[str, ...]:
        """The values of the column of slices; none without such a column."""
        return tuple(name for role in self.keys for name in data.key_names(role))

    @property
    def folds(self) -> int:
        """Folds of the cross-fitting; 1 without any."""
        return 1 if self.refit is None else _FOLDS

    def statistics(self, data: Data) -> tuple[SliceSums, ...]:
        """The statistics of the slices, for the pass of the metrics."""
        if self.by is None and not self.by_class:
            return ()
        from calibcli.workflow.diagnostics import slices_of_classes, slices_of_column

        by_column = () if self.by is None else (slices_of_column(data, self.by),)
        return (*by_column, slices_of_classes(data)) if self.by_class else by_column

    def widened(self, panel: Panel, data: Data) -> Panel:
        """The panel, with the statistics of the slices."""
        also: tuple[Statistic, ...] = (*panel.also, *self.statistics(data))
        if self.in_order:
            from calibcli.workflow.diagnostics import periods_of_column

            also = (*also, periods_of_column(data))
        return replace(panel, also=also)

    def add_to(
        self,
        document: EvaluateDocument,
        data: Data,
        stages: Sequence[Calibrator],
        evaluation: Evaluation,
        panel: Panel,
        dataset: Dataset,
    ) -> None:
        """Look at the rows, and put what they show into the document."""
        from calibcli.metrics.resampling import Bootstrap

        bootstrap = panel.bootstrap or Bootstrap()
        statistics = self.statistics(data)
        if statistics:
            from calibcli.metrics.slices import BY, read_slices
            from calibcli.report.document import slices_part
            from calibcli.tables.read_options import LABEL_NAME

            classes = dataset.class_names or tuple(map(str, range(data.classes)))
            document["slices"] = [
                slices_part(
                    read_slices(
                        evaluation.also[each],
                        classes if each.role is None else data.key_names(BY),
                        bootstrap.seed,
                    ),
                    self.by if each.role else None,
                    macro=each.role is not None and self.by == LABEL_NAME,
                )
                for each in statistics
            ]
        if self.in_order and self.by is not None:
            self._add_periods(document, data, evaluation, self.by)
        if self.tests:
            from calibcli.report.document import test_parts
            from calibcli.workflow.diagnostics import run_tests

            results = run_tests(data, stages, bootstrap.seed, bootstrap.role, event=panel.event)
            document["tests"] = test_parts(results)
        if self.refit is not None:
            # It imports all that fits.
            from calibcli.report.document import refit_part
            from calibcli.workflow.refit import refit

            document["refit"] = refit_part(refit(data, self.refit, panel.bootstrap, stages))

    def _add_periods(
        self, document: EvaluateDocument, data: Data, evaluation: Evaluation, column: str
    ) -> None:
        from calibcli.metrics.periods import read_periods
        from calibcli.metrics.slices import BY
        from calibcli.report.document import periods_part
        from calibcli.workflow.diagnostics import periods_of_column

        sums = evaluation.also[periods_of_column(data)]
        periods = read_periods(sums, data.key_names(BY))
        document["periods"] = periods_part(periods, column, clustered=data.clusters is not None)
