"""Tables of a page, cell by cell, as HTML."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape as escape_html

_MINUS = "\N{MINUS SIGN}"


def escape(text: object) -> str:
    """Text as HTML, whatever characters are in it."""
    return escape_html(str(text), quote=True)


def number(text: str) -> str:
    """Text with numbers in it as HTML, with minus signs instead of hyphens."""
    return escape(text.replace("-", _MINUS))


def sentence(text: str) -> str:
    """Text with a capital at its beginning."""
    return text[:1].upper() + text[1:]


def quiet(text: str) -> str:
    """A remark."""
    return f'<p class="quiet">{escape(text)}</p>'


@dataclass(frozen=True)
class Cell:
    """What a table says in one place.

    Attributes
    ----------
    text : str
    value : float or None
        What its column is sorted by; None where it is sorted by the text.
    interval : str
        Beside the text, or below it where there is no room.
    word : str
        What is to be thought of it.
    look, tip : str
        Its class, and what it says under the pointer.
    drawn : str
        HTML before the text.
    """

    text: str
    value: float | None = None
    interval: str = ""
    word: str = ""
    look: str = ""
    tip: str = ""
    drawn: str = ""

    def html(self) -> str:
        """The cell."""
        sorted_by = self.value is not None and math.isfinite(self.value)
        attributes = [
            f' class="{self.look}"' * bool(self.look),
            f' title="{escape(self.tip)}"' * bool(self.tip),
            f' data-v="{self.value:.6g}"' if sorted_by else "",
        ]
        parts = [
            f"{self.drawn}{number(self.text)}",
            f" <small>{escape(self.word)}</small>" * bool(self.word),
            f' <small class="range">{number(self.interval)}</small>' * bool(self.interval),
        ]
        return f"<td{''.join(attributes)}>{''.join(parts)}</td>"


@dataclass(frozen=True)
class Row:
    """A line of a table: HTML that names it, what the name says under the pointer, and cells."""

    name: str
    cells: Sequence[Cell]
    tip: str = ""
    look: str = ""

    def html(self) -> str:
        """The line."""
        look = f' class="{self.look}"' * bool(self.look)
        tip = f' title="{escape(self.tip)}"' * bool(self.tip)
        cells = "".join(cell.html() for cell in self.cells)
        return f'<tr{look}><th scope="row"{tip}>{self.name}</th>{cells}</tr>'


def table(headings: Sequence[str], lines: Sequence[str], kind: str, of: str = "") -> str:
    """A table of lines of HTML; the script sorts those that are ``sortable``.

    Parameters
    ----------
    of : str
        What its lines are, where a click draws them: ``"class"`` or ``"slice"``.
    """
    heads = "".join(f'<th scope="col">{escape(text)}</th>' for text in headings)
    of = f' data-of="{of}"' * bool(of)
    return (
        f'<div class="scroll{" tall" * ("sortable" in kind)}"><table class="{kind}"{of}>'
        f"<thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )
