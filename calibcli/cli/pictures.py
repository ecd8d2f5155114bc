"""The options ``--plot`` and ``--report``, and the files that they ask for."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

from calibcli.cli.option_values import Trait
from calibcli.cli.shared_options import options_in
from calibcli.errors import UsageError

if TYPE_CHECKING:
    from calibcli.engine.data import Data
    from calibcli.metrics.diagrams import KeyDiagrams
    from calibcli.metrics.panel import Evaluation, Panel
    from calibcli.report.plot_data import Picture
    from calibcli.report.plot_sheet import Kind
    from calibcli.schema.documents import Document, Judged
    from calibcli.tables import Outputs

_option = options_in("Pictures")
_SUFFIXES = {"--plot": (".png", ".svg", ".pdf"), "--report": (".html", ".htm", ".tex")}


class PlotStyle(StrEnum):
    """How reliability is drawn."""

    BINNED = "binned"
    CORP = "corp"


class PlotOf(StrEnum):
    """What a figure is about."""

    RELIABILITY = "reliability"
    DECISIONS = "decisions"
    PERIODS = "periods"


class PlotBy(StrEnum):
    """What a figure has a small diagram of each of."""

    CLASS = "class"
    SLICE = "slice"


@dataclass(frozen=True)
class PictureOptions:
    """Files to look at."""

    plot: Annotated[
        list[str] | None,
        _option(
            "--plot",
            metavar="FILE",
            help="Draw reliability diagrams, .png, .svg or .pdf (needs matplotlib); repeatable.",
            show_default=False,
        ),
        Trait.WRITES_FILE,
    ] = None
    plot_of: Annotated[
        PlotOf,
        _option(
            help="What --plot draws: reliability, what decisions cost (--cost), or what comes in "
            "each period (--in-order)."
        ),
    ] = PlotOf.RELIABILITY
    plot_style: Annotated[
        PlotStyle,
        _option(help="15 bins, or a curve without bins (isotonic regression)."),
    ] = PlotStyle.BINNED
    plot_by: Annotated[
        PlotBy | None,
        _option(
            help="A small diagram for each predicted class, or slice of --by; the worst 12.",
            show_default=False,
        ),
    ] = None
    plot_overlay: Annotated[
        bool, _option("--plot-overlay", help="Draw all inputs in one panel, up to 4.")
    ] = False
    plot_width: Annotated[
        str | None,
        _option(
            metavar="single|double|INCHES",
            help="Width of the figure: a journal's column (3.5 in), two (7.16 in), or inches.",
            show_default="as wide as its panels",
        ),
    ] = None
    title: Annotated[
        str | None,
        _option(metavar="TEXT", help="Title of figure, page and tables.", show_default=False),
    ] = None
    report: Annotated[
        list[str] | None,
        _option(
            "--report",
            metavar="FILE",
            help="Write a page with tables and interactive diagrams, .html, or tables for LaTeX, "
            ".tex; repeatable.",
            show_default=False,
        ),
        Trait.WRITES_FILE,
    ] = None


class Pictures:
    """The figures and the pages of one command.

    Parameters
    ----------
    options : PictureOptions
    force : bool
        Whether files that exist may be replaced.
    seed : int
        Of what calibrated models are drawn with.
    by : str or None
        The column that divides the rows into slices.
    shown : collection of str
        What there is to draw beside reliability: ``"decisions"``, ``"periods"``.

    Raises
    ------
    UsageError
        A file that could not be written at the end, options that say nothing together, or a
        library that is not installed.
    """

    def __init__(
        self,
        options: PictureOptions,
        *,
        force: bool,
        seed: int,
        by: str | None = None,
        shown: Collection[str] = (),
    ) -> None:
        self._shown = shown
        self._options, self._force, self._seed, self._by = options, force, seed, by
        self._evaluations: list[Evaluation] = []
        self._slice_names: list[tuple[str, ...]] = []
        self._class_names: tuple[str, ...] | None = None
        self._files: list[dict[str, Any]] = []
        self._check()

    def _check(self) -> None:
        from calibcli.tables import check_writable

        options = self._options
        given = {
            "--plot-by": options.plot_by is not None,
            "--plot-overlay": options.plot_overlay,
            "--plot-width": options.plot_width is not None,
        }
        lonely = next((flag for flag, is_given in given.items() if is_given), None)
        if not options.plot and lonely:
            raise UsageError(f"{lonely} says what --plot FILE draws; there is no --plot")
        if options.plot_by is not None and options.plot_overlay:
            raise UsageError("--plot-by lays all inputs over each other; leave out --plot-overlay")
        _width(options.plot_width)
        if options.plot_by is not None and options.plot_style is PlotStyle.CORP:
            raise UsageError("--plot-style corp draws all rows together: leave out --plot-by")
        if options.plot_of is not PlotOf.RELIABILITY:
            self._check_plot_of(options)
        if options.plot_by is PlotBy.SLICE and self._by is None:
            raise UsageError("--plot-by slice draws the slices of calib evaluate --by COL")
        for flag, path in self.paths:
            suffixes = _SUFFIXES[flag]
            if Path(path).suffix.lower() not in suffixes:
                *others, last = suffixes
                raise UsageError(
                    f"{flag} {path}: the name must end in {', '.join(others)} or {last}"
                )
            check_writable(path, force=self._force)
        if options.plot:
            from calibcli.report.plot import check_drawing_library

            check_drawing_library()

    def _check_plot_of(self, options: PictureOptions) -> None:
        of = options.plot_of.value
        needed = {"decisions": "--cost", "periods": "calib evaluate --by COL --in-order"}[of]
        if not options.plot:
            raise UsageError(f"--plot-of {of} says what --plot FILE draws; there is no --plot")
        if of not in self._shown:
            raise UsageError(f"--plot-of {of} draws what {needed} shows; add it")
        given = {
            "--plot-by": options.plot_by is not None,
            "--plot-style": options.plot_style is not PlotStyle.BINNED,
            "--plot-overlay": options.plot_overlay,
            "--plot-width": options.plot_width is not None,
        }
        about = next((flag for flag, is_given in given.items() if is_given), None)
        if about:
            raise UsageError(f"--plot-of {of}: {about} is about figures of reliability")

    def entitle(self, document: Judged) -> None:
        """Write the title into a document, if there is one."""
        if self._options.title:
            document["title"] = self._options.title

    @property
    def paths(self) -> list[tuple[str, str]]:
        """The files that are asked for, each with the option that names it."""
        figures, pages = self._options.plot or (), self._options.report or ()
        return [*(("--plot", path) for path in figures), *(("--report", path) for path in pages)]

    @property
    def wanted(self) -> bool:
        """Whether any picture is asked for."""
        return bool(self.paths)

    def panel(self, panel: Panel) -> Panel:
        """The panel, with what the pictures are drawn from."""
        from calibcli.metrics.diagrams import CONFIDENCE_LATTICE, EVENT_LATTICE, PREDICTED_CLASSES

        if not self.wanted:
            return panel
        by_class = bool(self._options.report) or self._options.plot_by is PlotBy.CLASS
        classes = (PREDICTED_CLASSES,) if by_class else ()
        return replace(panel, also=(*panel.also, CONFIDENCE_LATTICE, EVENT_LATTICE, *classes))

    def widened(self, panel: Panel, data: Data) -> Panel:
        """The panel, with what slices of some data are drawn from."""
        if not self._draws_slices:
            return panel
        from calibcli.metrics.slices import BY

        return replace(panel, also=(*panel.also, _slice_diagrams(data.key_names(BY))))

    @property
    def _draws_slices(self) -> bool:
        by_slice = self._options.plot_by is PlotBy.SLICE
        return self._by is not None and (by_slice or bool(self._options.report))

    def add(
        self,
        *evaluations: Evaluation | None,
        class_names: tuple[str, ...] | None,
        slice_names: tuple[str, ...] = (),
    ) -> None:
        """Remember what was measured, in the order of the document."""
        measured = [evaluation for evaluation in evaluations if evaluation is not None]
        self._evaluations += measured
        self._slice_names += [slice_names] * len(measured)
        self._class_names = self._class_names or class_names

    def add_files(self, role: str, prints: Sequence[dict[str, Any]]) -> None:
        """Remember which files were read, by their path, size and SHA-256, and what for."""
        self._files += [{"role": role, **entry} for entry in prints]

    @property
    def wants_fingerprints(self) -> bool:
        """Whether the files that are read shall be named by their SHA-256."""
        return bool(self._options.report)

    def write(self, document: Document, outputs: Outputs) -> list[str]:
        """Draw everything, and return the names of the files."""
        contents = self._draw(document) if self.wanted and self._evaluations else {}
        for path, content in contents.items():
            outputs.open(path).write(content)
        return list(contents)

    def _draw(self, document: Document) -> dict[str, bytes]:
        """The bytes of each file, by its path."""
        pictures = self._pictures(document)
        draw = {"--plot": self._figure, "--report": self._report}
        return {path: draw[flag](path, pictures, document) for flag, path in self.paths}

    def _report(self, path: str, pictures: Sequence[Picture], document: Document) -> bytes:
        if Path(path).suffix.lower() == ".tex":
            from calibcli.report.render_latex import to_latex

            return to_latex(document).encode(errors="backslashreplace")
        from calibcli.report.html import render_report

        page = render_report(
            document, pictures, files_read=self._files, made_with=_made_with(self._seed)
        )
        return page.encode(errors="backslashreplace")

    def _pictures(self, document: Document) -> list[Picture]:
        from calibcli.metrics.diagrams import CONFIDENCE_LATTICE, EVENT_LATTICE, PREDICTED_CLASSES
        from calibcli.report.comparison import judged_columns
        from calibcli.report.plot_data import Picture

        # Classes of inputs that differ in their number have nothing to do with each other.
        alike = len({evaluation.classes for evaluation in self._evaluations}) == 1
        return [
            Picture(
                column.title,
                column.part,
                evaluation.also[CONFIDENCE_LATTICE],
                evaluation.also.get(PREDICTED_CLASSES) if alike else None,
                self._class_names,
                self._seed,
                evaluation.also.get(_slice_diagrams(names)),
                names,
                evaluation.also[EVENT_LATTICE],
                evaluation.design_effect,
            )
            for column, evaluation, names in zip(
                judged_columns(document), self._evaluations, self._slice_names, strict=True
            )
        ]

    def _figure(self, path: str, pictures: Sequence[Picture], document: Document) -> bytes:
        from calibcli.report.plot import (
            MOST_MULTIPLES,
            FigureLayout,
            plot_multiples,
            plot_overlay,
            plot_reliability,
        )
        from calibcli.report.plot_data import class_multiples, count_slices, slice_multiples

        kind = cast("Kind", Path(path).suffix[1:].lower())
        if self._options.plot_of is not PlotOf.RELIABILITY:
            from calibcli.report.plot_decisions import plot_decisions, plot_periods

            of_decisions = self._options.plot_of is PlotOf.DECISIONS
            return (plot_decisions if of_decisions else plot_periods)(document, kind)
        layout = FigureLayout(_width(self._options.plot_width), self._options.title or "")
        if self._options.plot_by is None:
            draw = plot_overlay if self._options.plot_overlay else plot_reliability
            return draw(pictures, kind, self._options.plot_style.value, layout)
        if self._options.plot_by is PlotBy.SLICE:
            multiples, count = slice_multiples(pictures, MOST_MULTIPLES), count_slices(pictures)
            return plot_multiples(multiples, pictures, kind, of=count, noun="slice", layout=layout)
        classes = pictures[-1].classes
        if classes is None:
            raise UsageError("--plot-by class: the inputs differ in their number of classes")
        multiples = class_multiples(pictures, MOST_MULTIPLES)
        return plot_multiples(
            multiples, pictures, kind, of=classes.classes, noun="class", layout=layout
        )


def _width(text: str | None) -> float | None:
    """Inches of a column of journals by its name, or of a number.

    Raises
    ------
    UsageError
        It is neither, or a figure has no room in it.
    """
    if text is None:
        return None
    from calibcli.report.plot import COLUMN_WIDTHS, NARROWEST, WIDEST

    try:
        width = COLUMN_WIDTHS[text] if text in COLUMN_WIDTHS else float(text)
    except ValueError:
        raise UsageError(
            f"--plot-width {text}: is neither {', '.join(COLUMN_WIDTHS)} nor a number of inches"
        ) from None
    if not NARROWEST <= width <= WIDEST:
        raise UsageError(f"--plot-width {text}: a figure is {NARROWEST} to {WIDEST} inches wide")
    return width


def _slice_diagrams(names: tuple[str, ...]) -> KeyDiagrams:
    from calibcli.metrics.diagrams import KeyDiagrams
    from calibcli.metrics.slices import BY

    return KeyDiagrams(len(names), BY)


def fingerprint(path: str) -> list[dict[str, Any]]:
    """Path, size and SHA-256 of a local file; nothing of what is not one."""
    from hashlib import sha256

    file = Path(path)
    if not file.is_file():
        return []
    content = file.read_bytes()
    return [{"path": path, "bytes": len(content), "sha256": sha256(content).hexdigest()}]


def _made_with(seed: int) -> dict[str, str]:
    """Versions and settings that a page names."""
    import platform

    import numpy as np
    import pyarrow as pa

    from calibcli.version import __version__

    return {
        "calib": __version__,
        "Python": platform.python_version(),
        "NumPy": np.__version__,
        "pyarrow": pa.__version__,
        "seed": str(seed),
    }
