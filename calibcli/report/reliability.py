"""The reliability diagram for the terminal: what the model says against how often it is right.

One line a bin of confidence, the most confident on top. A bar as long as the rows of the bin are
right, a mark at what the model says of them, the space between them filled according to its
direction; on the right how many rows there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from rich.text import Text

from calibcli.report.glyphs import Glyphs
from calibcli.workflow.texts import count, percent
from calibcli.workflow.verdict import Verdict

if TYPE_CHECKING:
    from calibcli.schema.parts import BinPart, MeasurementPart

SIDE_BY_SIDE = 110
"""From this width on two diagrams stand next to each other."""

GUTTER = 4
_PERCENT_WIDTH = 6
"""At least: shares very near to all have more characters."""
_GAP = 2
KEY_GAP = 3
WIDEST_BAR = 60
FEW_ROWS = 30
"""A bin with fewer rows is dimmed: its accuracy is mostly chance."""

_ENDS = (0.01, 0.02, 0.04, 0.1, 0.2, 0.4, 1.0)
"""The ends that scales may have; their quarters have few digits."""

_STYLES = {"right": "cyan", "over": "red", "under": "yellow", "mark": "bold", "rows": "blue"}
VERDICT_STYLES = {
    "over": "bold red",
    "under": "bold yellow",
    "mixed": "bold yellow",
    "good": "bold green",
    "none": "dim",
}

Bins: TypeAlias = "Sequence[BinPart]"


@dataclass(frozen=True)
class _Layout:
    """Widths in cells: of shares, of a bar from 0 % to the end, of rows and of their bar.

    Shares are ``fine`` where bins have equal mass, which are as narrow as there are rows.
    """

    percent: int
    bar: int
    count: int
    histogram: int
    end: float = 1.0
    fine: bool = False

    @classmethod
    def of(cls, bins: Bins, width: int) -> _Layout:
        """The layout of one diagram in a width."""
        rows = max([len("rows"), *(len(count(part["rows"])) for part in bins)])
        histogram, fine = max(4, min(12, width // 8)), have_equal_mass(bins)
        shares = [percent(share, fine=fine) for share in _shares(bins)]
        longest = max([_PERCENT_WIDTH, *map(len, shares)])
        rest = width - 2 * (longest + _GAP) - _GAP - rows - 1 - histogram
        # A multiple of four puts 25 %, 50 % and 75 % on the edges of cells.
        return cls(
            longest,
            max(4, min(WIDEST_BAR, rest // 4 * 4)),
            rows,
            histogram,
            _end(bins),
            fine,
        )


def reliability_diagrams(
    parts: Sequence[tuple[str, MeasurementPart]], glyphs: Glyphs, width: int
) -> list[Text]:
    """Diagrams of several measurements, as lines that are at most ``width`` wide.

    Two stand side by side where there is room, and then show the same range of confidence.

    Parameters
    ----------
    parts : sequence of (title, measurement)
        Measurements as in the document.
    """
    beside = len(parts) == 2 and width >= SIDE_BY_SIDE
    each = (width - GUTTER) // 2 if beside else width
    lowest = [_lowest_filled(part["reliability"]) for _, part in parts]
    if beside:
        lowest = [min(lowest)] * 2
    diagrams = [
        reliability_diagram(part, glyphs, each, heading=heading, lowest=start)
        for (heading, part), start in zip(parts, lowest, strict=True)
    ]
    lines: list[Text] = []
    if beside:
        for left, right in zip(*diagrams, strict=True):
            left.pad_right(each + GUTTER - left.cell_len)
            lines.append(left + right)
    else:
        for diagram in diagrams:
            lines += [*diagram, Text()]
        del lines[-1:]
    about_event = any(part.get("positive") for _, part in parts)
    return [*lines, Text(), *diagram_key(glyphs, width, about_event=about_event)]


def reliability_diagram(
    part: MeasurementPart, glyphs: Glyphs, width: int, *, heading: str, lowest: int = 0
) -> list[Text]:
    """One diagram: a heading with the verdict, the scale, and a line for each bin from some on."""
    bins = part["reliability"][lowest:]
    layout = _Layout.of(bins, width)
    verdict = Verdict.of(part)
    first = Text.assemble((heading, "bold"), "  " if heading else "")
    # The whole sentence stands with what was read; here it may have half of the width.
    text = f"{verdict.word}: {verdict.figures}" if verdict.figures else verdict.word
    first.append(text, VERDICT_STYLES[verdict.look])
    gap = " " * _GAP
    names = (f"{name:>{layout.percent}}{gap}" for name in ("says", verdict.came))
    scale = "".join(names) + _scale(layout.bar, layout.end) + gap + "rows".rjust(layout.count)
    largest = max((part["rows"] for part in bins), default=0) or 1
    lines = [_line(each, largest, layout, glyphs) for each in reversed(bins)]
    return [first, Text(scale, "dim"), *lines]


def diagram_key(glyphs: Glyphs, width: int, *, about_event: bool = False) -> list[Text]:
    """What the parts of a diagram mean, in as many lines as the width asks for."""
    meanings = ("is right", "says it is", "overconfident by", "underconfident by")
    if about_event:
        meanings = ("came true", "says it will", "too high by", "too low by")
    entries = [
        Text.assemble((mark, _STYLES[style]), f" {meaning}")
        for mark, style, meaning in zip(
            (glyphs.partial[-1] * 2, glyphs.marker, glyphs.short * 2, glyphs.beyond * 2),
            ("right", "mark", "over", "under"),
            meanings,
            strict=True,
        )
    ]
    lines = [entries[0]]
    for entry in entries[1:]:
        if lines[-1].cell_len + KEY_GAP + entry.cell_len <= width:
            lines[-1] = Text(" " * KEY_GAP).join([lines[-1], entry])
        else:
            lines.append(entry)
    return lines


def _lowest_filled(bins: Bins) -> int:
    return next((i for i, part in enumerate(bins) if part["weight"]), 0)


def _shares(bins: Bins) -> list[float]:
    """What filled bins say, and what came."""
    shares = (share for part in bins for share in (part["confidence"], part["accuracy"]))
    return [share for share in shares if share is not None]


def _end(bins: Bins) -> float:
    """Where the scale ends: at the first round share that is not below any that is shown."""
    largest = max(_shares(bins), default=1.0)
    return next((end for end in _ENDS if end >= largest), 1.0)


def have_equal_mass(bins: Bins) -> bool:
    """Whether bins are of equal mass, not of equal width."""
    widths = [part["upper"] - part["lower"] for part in bins]
    return bool(widths) and max(widths) > 1.01 * min(widths)


def _scale(width: int, last: float) -> str:
    """``0    25    50    75  100 %`` over a bar; each number above its place."""
    line = "0".ljust(width)
    if width >= 20:
        for quarter in (1, 2, 3):
            number = f"{25 * quarter * last:g}"
            start = quarter * width // 4 - len(number) // 2
            line = line[:start] + number + line[start + len(number) :]
    end = f"{100 * last:g}" + (" %" if width >= 32 else "")
    return line[: -len(end)] + end


def _line(part: BinPart, largest: int, layout: _Layout, glyphs: Glyphs) -> Text:
    confidence, accuracy = part["confidence"], part["accuracy"]
    gap = " " * _GAP
    if confidence is None or accuracy is None:
        return Text(gap.join([glyphs.missing.rjust(layout.percent)] * 2), "dim")
    line = Text()
    for share in (confidence, accuracy):
        line.append(percent(share, fine=layout.fine).rjust(layout.percent) + gap)
    line += _bar(confidence / layout.end, accuracy / layout.end, layout.bar, glyphs)
    line.append(gap + count(part["rows"]).rjust(layout.count) + " ")
    line.append(glyphs.bar(part["rows"] / largest * layout.histogram), _STYLES["rows"])
    if part["rows"] < FEW_ROWS:
        line.stylize("dim")
    return line


def _bar(confidence: float, accuracy: float, width: int, glyphs: Glyphs) -> Text:
    """A bar to the accuracy, a mark at the confidence, and what is between them."""
    mark = min(int(confidence * width), width - 1)
    steps = len(glyphs.partial)
    bar = Text()
    for cell in range(width):
        filled = round(min(max(accuracy * width - cell, 0.0), 1.0) * steps)
        if cell == mark:
            bar.append(glyphs.marker, _STYLES["mark"])
        elif cell > mark:
            bar.append(glyphs.beyond if 2 * filled > steps else " ", _STYLES["under"])
        elif filled:
            bar.append(glyphs.partial[filled - 1], _STYLES["right"])
        else:
            bar.append(glyphs.short, _STYLES["over"])
    return bar
