"""How figures look: sizes, fonts and colours, and the bytes of a finished figure."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Kind: TypeAlias = Literal["png", "svg", "pdf"]

BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
"""Four colours that everybody can tell apart (Okabe and Ito, 2008)."""

COLOURS = (BLUE, VERMILION, GREEN, PURPLE)
BAND, DIAGONAL, TEXT, RULE = "#E3E3E3", "#8A8A8A", "#222222", "#666666"

_DOTS_PER_INCH = 300

_SETTINGS: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.linewidth": 0.6,
    "axes.edgecolor": RULE,
    "axes.labelcolor": TEXT,
    "text.color": TEXT,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": TEXT,
    "ytick.labelcolor": TEXT,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    # Publishers want fonts in the file, and the same figure should have the same bytes.
    "pdf.fonttype": 42,
    "svg.fonttype": "path",
    "svg.hashsalt": "calib",
}

# Everything that would differ between two runs or machines is left out.
_METADATA: dict[Kind, dict[str, None]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}


@contextmanager
def house_style() -> Iterator[None]:
    """Within it, figures are made in the style of this module."""
    import matplotlib as mpl

    with warnings.catch_warnings(), mpl.rc_context({**mpl.rcParamsDefault, **_SETTINGS}):
        # A name with a character that the font has not is drawn with a box for it.
        warnings.filterwarnings("ignore", message=r"Glyph \d+")
        yield


def encode_figure(figure: Figure, kind: Kind) -> bytes:
    """The bytes of a file with this figure, the same in every run."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=_DOTS_PER_INCH, metadata=_METADATA[kind])
    return buffer.getvalue()
