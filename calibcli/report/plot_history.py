"""The figure of ``calib history``: a metric over runs, its intervals, its band and its trend."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from calibcli.errors import UsageError
from calibcli.report.comparison import metric_title
from calibcli.report.plot import MOST_OVERLAID
from calibcli.report.plot_decisions import lay_out
from calibcli.report.plot_sheet import (
    BAND,
    BLUE,
    DIAGONAL,
    RULE,
    VERMILION,
    Kind,
    encode_figure,
    house_style,
)
from calibcli.report.run_history import series_title
from calibcli.visible import visible
from calibcli.workflow.texts import cut_inside

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from calibcli.schema.documents import HistoryDocument, SeriesPart

_WIDE, _HIGH = 5.6, 1.9
_LONGEST_TITLE, _LONGEST_LABEL, _MOST_LABELS = 60, 12, 14


def plot_history(document: HistoryDocument, kind: Kind) -> bytes:
    """A panel for each input.

    Parameters
    ----------
    document : dict
        Of ``calib history``.
    kind : str
        ``"png"``, ``"svg"`` or ``"pdf"``.

    Returns
    -------
    bytes
        Of the file; the same for the same document.

    Raises
    ------
    UsageError
        There are more inputs than a figure has panels for.
    """
    parts = document["inputs"]
    if len(parts) > MOST_OVERLAID:
        raise UsageError(
            f"--plot has a panel for each input: at most {MOST_OVERLAID}, here are {len(parts)}; "
            "see --input"
        )
    with house_style():
        figure, axes = lay_out(len(parts), _WIDE, _HIGH, stacked=True)
        for axis, part in zip(axes, parts, strict=True):
            _draw(axis, part)
            axis.set_ylabel(metric_title(document["metric"]), parse_math=False)
            if len(parts) > 1:
                title = cut_inside(visible(series_title(part)), _LONGEST_TITLE)
                axis.set_title(title, parse_math=False)
        return encode_figure(figure, kind)


def _draw(axis: Axes, part: SeriesPart) -> None:
    runs = part["runs"]
    places = np.array([run["number"] for run in runs], dtype=float)
    number, low, high, band_low, band_high = np.array(
        [
            (
                *(run.get("estimate", run["value"]), run["low"], run["high"]),
                *(run["band_low"], run["band_high"]),
            )
            for run in runs
        ],
        dtype=float,  # what is None becomes NaN, and is not drawn
    ).T
    axis.use_sticky_edges = False
    axis.bar(places, band_high - band_low, 1.0, band_low, color=BAND, lw=0)
    out = np.array([run["signal"] in ("high", "low") for run in runs], dtype=bool)
    for chosen, shade, size in ((~out, BLUE, 14), (out, VERMILION, 22)):
        axis.vlines(places[chosen], low[chosen], high[chosen], color=shade, lw=0.9, zorder=2)
        axis.scatter(places[chosen], number[chosen], size, color=shade, zorder=3)
    slope, start = part["trend"]["slope"], part["trend"]["start"]
    if slope is not None and start is not None:
        line = start + slope * (places - places[0])
        axis.plot(places, line, color=DIAGONAL, lw=0.8, ls=(0, (4, 3)), zorder=1)
    axis.set_xlim(places[0] - 0.6, places[-1] + 0.6)
    step = -(-len(runs) // _MOST_LABELS)
    names = [visible(run["name"] or str(run["number"])) for run in runs]
    names = [cut_inside(name, _LONGEST_LABEL) for name in names]
    turned = any(run["name"] for run in runs)
    axis.set_xticks(
        places[::step],
        names[::step],
        rotation=30 if turned else 0,
        ha="right" if turned else "center",
        parse_math=False,
    )
    axis.tick_params(axis="x", color=RULE)
    axis.set_xlabel("" if turned else "run")
