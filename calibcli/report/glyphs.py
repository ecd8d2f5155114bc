"""The characters that a terminal can show."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from rich.console import Console

from calibcli.workflow.texts import INFINITE, NO_VALUE, PLUS_MINUS


@dataclass(frozen=True)
class Glyphs:
    """Characters for tables and diagrams, each one cell wide.

    Attributes
    ----------
    partial : str
        Bars of 1/n, 2/n, ... of a cell, the last one full.
    short, beyond, marker : str
        What a bar lacks to its mark, what it has beyond it, and the mark.
    """

    partial: str
    short: str
    beyond: str
    marker: str
    lower: str
    higher: str
    missing: str
    infinite: str
    minus: str
    plus_minus: str
    ellipsis: str

    def bar(self, length: float) -> str:
        """A bar of so many cells; a length above 0 is never invisible."""
        steps = len(self.partial)
        filled = max(round(length * steps), 1 if length > 0 else 0)
        whole, rest = divmod(filled, steps)
        return self.partial[-1] * whole + (self.partial[rest - 1] if rest else "")

    def number(self, text: str) -> str:
        """A formatted number with the signs of this set."""
        if text == NO_VALUE:
            return self.missing
        text = re.sub(rf"\b{INFINITE}\b", self.infinite, text)
        # A hyphen inside a word is none.
        signed = re.sub(rf"-(?=[\d.{self.infinite}]|{INFINITE})", self.minus, text)
        return signed.replace(PLUS_MINUS, self.plus_minus)


UNICODE = Glyphs("▏▎▍▌▋▊▉█", "▒", "▓", "┃", "↓", "↑", "–", "∞", "−", PLUS_MINUS, "…")  # noqa: RUF001
ASCII = Glyphs("#", ".", "+", "|", "v", "^", "-", "inf", "-", "+/-", "~")


def glyphs_for(console: Console, environ: Mapping[str, str] = os.environ) -> Glyphs:
    """Unicode where the console's encoding has it, unless ``CALIB_ASCII`` or a dumb terminal.

    Any value of ``CALIB_ASCII`` but the empty one and ``0`` asks for plain ASCII.
    """
    if environ.get("CALIB_ASCII", "0") not in ("", "0") or environ.get("TERM") == "dumb":
        return ASCII
    try:
        "".join(vars(UNICODE).values()).encode(console.encoding)
    except (UnicodeEncodeError, LookupError):
        return ASCII
    return UNICODE
