"""Figures for papers about decisions and periods, drawn by matplotlib from a document.

Of decisions: cost and net benefit by threshold, and the cost of the surest rows. Of periods: how
far what came is from what was expected, and the control limits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from calibcli.errors import UsageError
from calibcli.report.document import measurements, results_of
from calibcli.report.plot import MOST_OVERLAID, colours
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
from calibcli.workflow.texts import cut_inside, short_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from calibcli.schema.documents import Document
    from calibcli.schema.parts import DecisionsPart, NumberPart, PeriodsPart

_SIDE, _HIGH, _WIDE_PANEL = 2.0, 1.9, 5.6
_LEFT, _RIGHT, _BOTTOM, _TOP, _GAP = 0.62, 0.24, 0.72, 0.24, 0.7
_LONGEST_TITLE, _MOST_LABELS = 34, 12
_DASHES = (0, (4, 3))
_TICKS = (0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999)
_TICK_LABELS = ("0.1 %", "1 %", "10 %", "50 %", "90 %", "99 %", "99.9 %")


def plot_decisions(document: Document, kind: Kind) -> bytes:
    """What decisions cost: by threshold, as net benefit, and on the surest rows.

    Parameters
    ----------
    document : dict
        With ``decisions`` in its measurements.
    kind : str
        ``"png"``, ``"svg"`` or ``"pdf"``.

    Returns
    -------
    bytes
        Of the file; the same for the same document.

    Raises
    ------
    UsageError
        More measurements than can be told apart in one panel.
    """
    names, parts = _decisions(document)
    if len(parts) > MOST_OVERLAID:
        raise UsageError(
            "--plot-of decisions lays measurements over each other: at most "
            f"{MOST_OVERLAID} inputs, here are {len(parts)}"
        )
    shades = colours(names) if len(parts) > 1 else [BLUE]
    with house_style():
        panels: list[Callable[[Axes, Sequence[DecisionsPart], Sequence[str]], None]]
        panels = [_cost_by_threshold, _net_benefit, _surest]
        if any(not part["curve"] for part in parts):
            panels = [_surest]
        figure, axes = lay_out(len(panels), _SIDE, _SIDE)
        for axis, draw in zip(axes, panels, strict=True):
            draw(axis, parts, shades)
        if len(panels) > 1 or len(parts) > 1:
            _name_lines(figure, names, shades, theoretical=len(panels) > 1)
        return encode_figure(figure, kind)


def plot_periods(document: Document, kind: Kind) -> bytes:
    """How far what came is from what was expected, by period, with the control limits.

    Parameters and errors are those of `plot_decisions`; the document has ``periods``.
    """
    results = [each for each in results_of(document) if each["command"] == "evaluate"]
    names = short_names([result["input"]["name"] for result in results])
    parts = [part for result in results if (part := result.get("periods")) is not None]
    if len(parts) > MOST_OVERLAID:
        raise UsageError(
            f"--plot-of periods has a panel for each input: at most {MOST_OVERLAID}, here are "
            f"{len(parts)}"
        )
    with house_style():
        figure, axes = lay_out(len(parts), _WIDE_PANEL, _HIGH, stacked=True)
        for axis, part, name in zip(axes, parts, names, strict=True):
            _control_chart(axis, part)
            if len(parts) > 1:
                axis.set_title(cut_inside(name, _LONGEST_TITLE), parse_math=False)
        return encode_figure(figure, kind)


def _decisions(document: Document) -> tuple[list[str], list[DecisionsPart]]:
    """The names of measurements, and the decisions of each."""
    results = results_of(document)
    names = short_names([result["input"]["name"] for result in results])
    titles, parts = [], []
    for result, name in zip(results, names, strict=True):
        for stage, part in measurements(result).items():
            if "decisions" in part:
                titles.append(stage or name)
                parts.append(part["decisions"])
    return titles, parts


def lay_out(
    count: int, width: float, height: float, *, stacked: bool = False
) -> tuple[Figure, list[Axes]]:
    """A figure with panels of a size in inches, side by side or one below the other."""
    from matplotlib.figure import Figure

    across, down = (1, count) if stacked else (count, 1)
    step = height + _BOTTOM
    wide = _LEFT + across * width + (across - 1) * _GAP + _RIGHT
    high = _TOP + down * step + (0.0 if stacked else 0.1)
    figure = Figure(figsize=(wide, high))
    axes = []
    for place in range(count):
        left = _LEFT + (0 if stacked else place * (width + _GAP))
        bottom = high - _TOP - height - (place * step if stacked else 0)
        corner = (left / wide, bottom / high, width / wide, height / high)
        axes.append(figure.add_axes(corner))
    return figure, axes


def _name_lines(
    figure: Figure, names: Sequence[str], shades: Sequence[str], *, theoretical: bool
) -> None:
    from matplotlib.lines import Line2D

    lines: list[Any] = []
    texts: list[str] = []
    for name, shade in zip(names, shades, strict=True):
        lines.append(Line2D([], [], color=shade, lw=1.3))
        texts.append(cut_inside(name, _LONGEST_TITLE) if len(names) > 1 else "decisions")
    if theoretical:
        lines.append(Line2D([], [], color=DIAGONAL, lw=0.8, ls=_DASHES))
        texts.append("fp / (fp + fn)")
        lines.append(Line2D([], [], color=RULE, lw=0.8))
        texts.append("always, never")
    figure.legend(lines, texts, loc="lower center", ncols=len(lines), frameon=False)


def _logit(share: Any) -> Any:
    share = np.asarray(share, dtype=float)
    return np.log(share) - np.log1p(-share)


def _threshold_axis(axis: Axes, part: DecisionsPart) -> None:
    thresholds = [point["threshold"] for point in _inner(part)]
    low, high = min(thresholds), max(thresholds)
    kept = [place for place, tick in enumerate(_TICKS) if low <= tick <= high]
    axis.set_xlim(_logit(low), _logit(high))
    axis.set_xticks(_logit([_TICKS[k] for k in kept]), [_TICK_LABELS[k] for k in kept])
    axis.set_xlabel("threshold")
    theoretical = part["threshold"]
    if theoretical is not None and 0 < theoretical < 1:
        axis.axvline(_logit(theoretical), color=DIAGONAL, lw=0.8, ls=_DASHES, zorder=1)


def _inner(part: DecisionsPart) -> list[Any]:
    """The thresholds that have log-odds."""
    return [point for point in part["curve"] if 0 < point["threshold"] < 1]


def _line(axis: Axes, places: Any, numbers: Sequence[NumberPart], shade: str) -> None:
    """Values, and their intervals as a band."""
    values, low, high = (
        np.array([np.nan if number[end] is None else number[end] for number in numbers])
        for end in ("value", "low", "high")
    )
    axis.fill_between(places, low, high, color=shade, alpha=0.18, lw=0)
    axis.plot(places, values, color=shade, lw=1.3, zorder=3)


def _cost_by_threshold(axis: Axes, parts: Sequence[DecisionsPart], shades: Sequence[str]) -> None:
    constant = [
        rule["cost"]["value"] for rule in parts[-1]["rules"] if rule["rule"] in ("always", "never")
    ]
    for value in constant:
        axis.axhline(np.nan if value is None else value, color=RULE, lw=0.8, zorder=1)
    for part, shade in zip(parts, shades, strict=True):
        points = _inner(part)
        places = _logit([point["threshold"] for point in points])
        _line(axis, places, [point["cost"] for point in points], shade)
    _threshold_axis(axis, parts[-1])
    axis.set_ylabel("cost of a row")


def _net_benefit(axis: Axes, parts: Sequence[DecisionsPart], shades: Sequence[str]) -> None:
    points = _inner(parts[-1])
    places = _logit([point["threshold"] for point in points])
    everybody = np.array([point["treat_all"] for point in points], dtype=float)
    axis.plot(places, everybody, color=RULE, lw=0.8, zorder=1)
    axis.axhline(0, color=RULE, lw=0.8, zorder=1)
    largest = everybody.max()
    for part, shade in zip(parts, shades, strict=True):
        benefits = [point["net_benefit"] for point in _inner(part)]
        _line(axis, places, benefits, shade)
        largest = max(largest, *(number["value"] or 0.0 for number in benefits))
    _threshold_axis(axis, parts[-1])
    # Deciding for all rows has no bottom, which would press all else flat.
    axis.set_ylim(-0.3 * largest, 1.1 * largest)
    axis.set_ylabel("net benefit")


def _surest(axis: Axes, parts: Sequence[DecisionsPart], shades: Sequence[str]) -> None:
    for part, shade in zip(parts, shades, strict=True):
        places = [each["coverage"] for each in part["abstention"]]
        _line(axis, places, [each["cost"] for each in part["abstention"]], shade)
    axis.set_xlim(0, 1)
    axis.set_xticks((0, 0.5, 1), ("0", "50 %", "100 %"))
    axis.set_xlabel("rows that are decided")
    axis.set_ylabel("cost of such a row")


def _control_chart(axis: Axes, part: PeriodsPart) -> None:
    periods = part["periods"]
    places = np.arange(len(periods))
    # In percentage points.
    weight = np.array([each["weight"] for each in periods]) / 100
    expected = np.array([each["expected"] for each in periods])
    gap = (np.array([each["observed"] for each in periods]) - expected) / weight
    low, high = (
        (np.array([np.nan if each[end] is None else each[end] for each in periods]) - expected)
        / weight
        for end in ("low", "high")
    )
    axis.bar(places, high - low, 1.0, low, color=BAND, lw=0)
    axis.axhline(0, color=DIAGONAL, lw=0.8, ls=_DASHES)
    axis.plot(places, gap, color=BLUE, lw=0.8, zorder=2)
    out = np.array([each["signal"] in ("high", "low") for each in periods], dtype=bool)
    few = np.array([each["signal"] == "too few" for each in periods], dtype=bool)
    within = ~out & ~few
    axis.scatter(places[within], gap[within], 14, color=BLUE, zorder=3)
    axis.scatter(places[out], gap[out], 22, color=VERMILION, zorder=4)
    axis.scatter(places[few], gap[few], 14, facecolor="white", edgecolor=BLUE, lw=0.8, zorder=3)
    axis.set_xlim(-0.6, len(periods) - 0.4)
    step = -(-len(periods) // _MOST_LABELS)
    names = [cut_inside(each["name"], _LONGEST_TITLE // 3) for each in periods]
    axis.set_xticks(places[::step], names[::step], rotation=30, ha="right", parse_math=False)
    reached = float(np.nanmax(np.abs(np.concatenate((gap, low, high)))))
    axis.set_ylim(-1.1 * reached, 1.1 * reached)
    axis.set_ylabel("came - expected, % of rows")
