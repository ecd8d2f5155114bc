"""A result as one page for a browser: words, tables, and diagrams that answer the pointer.

The page holds everything that it needs, and asks the browser to load nothing. Chart.js draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from string import Template
from typing import Any

from calibcli.report.comparison import judged_columns
from calibcli.report.document import results_of
from calibcli.report.html_cells import escape
from calibcli.report.html_data import payload, to_script
from calibcli.report.html_parts import (
    conventions,
    gates_list,
    lead,
    measured_files,
    software,
    summary_list,
)
from calibcli.report.html_tables import further_tables, metrics_tables, slice_sections
from calibcli.report.plot_data import Picture, axis_names, bin_words, common_scale
from calibcli.report.texts import capitalised, short_names
from calibcli.schema import Document

LIBRARY = "chart.umd.min.js"

_NAMED = 3
"""So many inputs are named in the title."""


def render_report(
    document: Document,
    pictures: Sequence[Picture],
    *,
    files_read: Sequence[Mapping[str, Any]],
    made_with: Mapping[str, str],
) -> str:
    """The page.

    Parameters
    ----------
    document : Document
    pictures : sequence of Picture
        One for each of the document's columns, in their order.
    files_read : sequence of mapping
        ``role``, ``path``, ``bytes`` and ``sha256`` of each file.
    made_with : mapping of str to str
        Versions and settings, by what they are of.

    Returns
    -------
    str
        HTML; the same for the same arguments.
    """
    names = [column.title for column in judged_columns(document)]
    inputs = [result["input"]["name"] for result in results_of(document)]
    title = ", ".join(short_names(inputs)[:_NAMED]) + (" …" if len(inputs) > _NAMED else "")
    return Template(asset("report.html")).substitute(
        title=escape(title),
        command=escape(document["command"]),
        style=asset("report.css"),
        library=_without_map(asset(LIBRARY)),
        script=asset("report.js"),
        data=to_script(payload(pictures, names)),
        gates=gates_list(document),
        lead=lead(document),
        about=escape(_about(pictures)),
        bins=capitalised(bin_words(pictures)),
        summary=summary_list(document),
        metrics=metrics_tables(document),
        further=further_tables(document),
        slices=slice_sections(document),
        conventions=conventions(document),
        files=measured_files(files_read),
        software=software(made_with),
    )


def _about(pictures: Sequence[Picture]) -> str:
    """What the diagrams show, in a sentence or two."""
    if pictures[0].positive is None:
        return "What the model says against how often it is right."
    said, _ = axis_names(pictures)
    about = f"{said} against how often it came true."
    scale = common_scale(pictures)
    if scale.is_logarithmic:
        about += (
            " Equal distances are equal ratios; what never came true stands on the lower edge, and "
            "the first bar has all rows that are below it."
        )
    return about


def asset(name: str) -> str:
    """The text of a file in the folder ``assets``."""
    return (files("calibcli.report") / "assets" / name).read_text(encoding="utf-8")


def _without_map(script: str) -> str:
    """A script without the line that would have a browser look for its source map."""
    return script.partition("//# sourceMappingURL=")[0].rstrip()
