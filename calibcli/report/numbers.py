"""Numbers for people: four significant digits, percentages, counts, times, p-values."""

from __future__ import annotations

import math
from collections.abc import Sequence

DIGITS = 4
_SMALLEST_P = 1e-4


def decimals(value: float) -> int:
    """Decimals that show four significant digits of a finite number."""
    if value == 0:
        return 0
    # The exponent after rounding: 0.99999 has the digits of 1.000.
    exponent = int(f"{value:.{DIGITS - 1}e}".partition("e")[2])
    return max(0, DIGITS - 1 - exponent)


def significant(value: float | None, *, missing: str = "-", infinite: str = "inf") -> str:
    """A number with four significant digits: ``0.04301``, ``1.837``, ``1.234e-06``."""
    if value is None or math.isnan(value):
        return missing
    if math.isinf(value):
        return infinite if value > 0 else f"-{infinite}"
    if value == 0 or 1e-4 <= abs(value) < 1e7:
        return f"{value:.{decimals(value)}f}"
    return f"{value:.{DIGITS - 1}e}"


def exact(value: float | None) -> str:
    """A number with all its digits; nothing where there is none."""
    return "" if value is None or math.isnan(value) else repr(value)


def p_value(p: float | None) -> str:
    """``0.031``, or ``< 0.0001``."""
    if p is None or math.isnan(p):
        return "-"
    return f"{p:.2g}" if p >= _SMALLEST_P else f"< {_SMALLEST_P:.4f}"


def difference(before: float | None, after: float | None, *, missing: str = "-") -> str:
    """``after - before`` with its sign, no finer than the two numbers are shown; ``0`` if equal."""
    if before is None or after is None or not math.isfinite(after - before):
        return missing
    change = after - before
    places = min(decimals(change), max(decimals(before), decimals(after)), 9)
    text = f"{change:+.{places}f}"
    return text if float(text) else "0"


def align_at_point(texts: Sequence[str]) -> list[str]:
    """The texts padded to one width, with their decimal points one below the other."""
    parts = [text.partition(".") for text in texts]
    whole = max((len(head) for head, _, _ in parts), default=0)
    fraction = max((len(point + tail) for _, point, tail in parts), default=0)
    return [head.rjust(whole) + (point + tail).ljust(fraction) for head, point, tail in parts]


def percent(share: float) -> str:
    """``84 %``; one decimal near 0 and 1, so that only a share of exactly 1 is ``100 %``."""
    if 0 < share < 0.01 or 0.99 < share < 1:
        return f"{math.floor(share * 1000) / 10:.1f} %"
    return f"{share * 100:.0f} %"


def count(number: int) -> str:
    """``1,234``, and from ten million on ``12.3 M``."""
    return f"{number:,}" if number < 10_000_000 else f"{number / 1e6:,.1f} M"


def plural(number: int, noun: str) -> str:
    """``1 row``, ``2,000 rows``, ``2 passes``."""
    ending = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{count(number)} {noun}{ending}"


def duration(seconds: float) -> str:
    """``0.031 s``, ``12.4 s``, ``3 min 20 s``."""
    if seconds < 100:
        return f"{seconds:.{max(1, min(3, 2 - math.floor(math.log10(seconds or 1e-3))))}f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"
