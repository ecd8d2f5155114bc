"""Numbers and names as short texts: four significant digits, percentages, counts, intervals."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from pathlib import PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from calibcli.schema.parts import DifferencePart, IntervalPart, MetricPart

DIGITS = 4
_SMALLEST_P = 1e-4

_FINEST = 1e-4
"""Shares closer to 0 or 1 are shown as being so."""

_SMALLEST_DECIMAL = 1e-4
"""Smaller numbers are shown with a power of ten."""

NO_VALUE, INFINITE = "-", "inf"
"""What stands for a number that is not known, and for infinity."""
PLUS_MINUS = "\N{PLUS-MINUS SIGN}"

LONGEST_NAME = 24
"""Characters of the name of a group or a slice in a table."""


def decimals(value: float) -> int:
    """Decimals that show four significant digits of a finite number."""
    if value == 0:
        return 0
    # The exponent after rounding: 0.99999 has the digits of 1.000.
    exponent = int(f"{value:.{DIGITS - 1}e}".partition("e")[2])
    return max(0, DIGITS - 1 - exponent)


def significant(value: float | None) -> str:
    """A number with four significant digits: ``0.04301``, ``1.837``, ``1.234e-06``."""
    if value is None or math.isnan(value):
        return NO_VALUE
    if math.isinf(value):
        return INFINITE if value > 0 else f"-{INFINITE}"
    if value == 0 or _SMALLEST_DECIMAL <= abs(value) < 1e7:
        return f"{value:.{decimals(value)}f}"
    return f"{value:.{DIGITS - 1}e}"


def exact(value: float | None) -> str:
    """A number with all its digits; nothing where there is none."""
    return "" if value is None or math.isnan(value) else repr(float(value))


def p_value(p: float | None) -> str:
    """``0.031``, or ``< 0.0001``."""
    if p is None or math.isnan(p):
        return NO_VALUE
    return f"{p:.2g}" if p >= _SMALLEST_P else f"< {_SMALLEST_P:.4f}"


def difference_text(before: float | None, after: float | None) -> str:
    """``after - before`` with its sign, no finer than the two numbers are shown; ``0`` if equal."""
    if before is None or after is None or not math.isfinite(after - before):
        return NO_VALUE
    change = after - before
    places = min(decimals(change), max(decimals(before), decimals(after)), 9)
    text = f"{change:+.{places}f}"
    return text if float(text) else "0"


def interval_text(part: IntervalPart | MetricPart | DifferencePart | None) -> str:
    """``[0.0236, 0.0537]``, of a part of a document with ``low`` and ``high``; or nothing.

    An end that is infinite has a round bracket: ``[0.95, inf)``.
    """
    ends = _ends(part)
    if ends is None:
        return ""
    first = "(" if ends[0] == f"-{INFINITE}" else "["
    return f"{first}{ends[0]}, {ends[1]}{')' if ends[1] == INFINITE else ']'}"


def range_text(
    part: IntervalPart | MetricPart | DifferencePart | None, value: float | None = None
) -> str:
    """``0.0066 to 0.0195``, of a part of a document with ``low`` and ``high``; or nothing.

    A value that is not within the range is not within the one that is shown either.
    """
    ends = _ends(part, *(() if value is None else (value,)))
    return f"{ends[0]} to {ends[1]}" if ends else ""


def upper_end_text(part: IntervalPart | MetricPart) -> str:
    """The upper end of an interval as `interval_text` shows it."""
    ends = _ends(part)
    return ends[1] if ends else NO_VALUE


_MORE_PLACES = 4


def _ends(
    part: IntervalPart | MetricPart | DifferencePart | None, *marks: float
) -> tuple[str, str] | None:
    """Both ends with the same decimals, three digits of the larger one, rounded outwards.

    A value at the very end of its interval so is shown inside it. An end has more decimals where
    it would reach 0, 1 or another mark that the interval leaves out.
    """
    low, high = (part.get("low"), part.get("high")) if part else (None, None)
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return None
    largest = max((abs(end) for end in (low, high) if math.isfinite(end)), default=0.0)
    if 0 < largest < _SMALLEST_DECIMAL:
        return _power(low, ROUND_FLOOR), _power(high, ROUND_CEILING)
    places = min(max(decimals(largest) - 1, 0), 9)
    every = (0.0, 1.0, *marks)
    return _end(low, places, ROUND_FLOOR, every), _end(high, places, ROUND_CEILING, every)


def _end(end: float, places: int, rounding: str, marks: Sequence[float]) -> str:
    """An end of an interval, which leaves out every mark that is beyond it."""
    if math.isinf(end):
        return significant(end)
    sign = 1 if rounding == ROUND_FLOOR else -1
    beyond = [mark for mark in marks if sign * mark < sign * end]
    texts = [_rounded(end, places + more, rounding) for more in range(_MORE_PLACES + 1)]
    reaches_none = (t for t in texts if all(sign * float(t) > sign * mark for mark in beyond))
    return next(reaches_none, texts[0])


def _power(end: float, rounding: str) -> str:
    """A number with three digits and a power of ten, up or down; ``0`` has none."""
    if end == 0 or math.isinf(end):
        return significant(end)
    exponent = math.floor(math.log10(abs(end)))
    digits = _rounded(end / 10.0**exponent, 2, rounding)
    return f"{float(f'{digits}e{exponent}'):.2e}"


def _rounded(end: float, places: int, rounding: str) -> str:
    """A number to some decimals, up or down; what is off by the noise of a float is on the spot."""
    number = Decimal(f"{end:.{places + 6}f}")
    text = f"{number.quantize(Decimal(1).scaleb(-places), rounding=rounding):f}"
    return text if float(text) else "0"


def align_at_point(texts: Sequence[str]) -> list[str]:
    """The texts padded to one width, with their decimal points one below the other."""
    parts = [text.partition(".") for text in texts]
    whole = max((len(head) for head, _, _ in parts), default=0)
    fraction = max((len(point + tail) for _, point, tail in parts), default=0)
    return [head.rjust(whole) + (point + tail).ljust(fraction) for head, point, tail in parts]


def percent(share: float, *, fine: bool = False) -> str:
    """``84 %``, rounded; with decimals near 0 and 1, so that only 1 itself is ``100 %``.

    Two shares in order are never shown in another order.

    Parameters
    ----------
    share : float
    fine : bool
        With decimals from 10 % and 90 % on, not from 1 % and 99 % on: what tells shares of rare
        events apart.
    """
    if share in (0, 1):
        return f"{100 * share:.0f} %"
    if share < _FINEST:
        return f"<{100 * _FINEST:g} %"
    if share > 1 - _FINEST:
        return f">{100 - 100 * _FINEST:g} %"
    rarer, high = min(share, 1 - share), share > 0.5
    if rarer < 0.01:
        # 99.97 % with one decimal would be all.
        return f"{100 * share:.{1 if high and not fine and rarer > 6e-4 else 2}f} %"
    return f"{100 * share:.{1 if fine and rarer < 0.1 else 0}f} %"


def count(number: int) -> str:
    """``1,234``, and from ten million on ``12.3 M``."""
    return f"{number:,}" if number < 10_000_000 else f"{number / 1e6:,.1f} M"


def plural(number: int, noun: str) -> str:
    """``1 row``, ``2,000 rows``, ``2 passes``."""
    ending = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{count(number)} {noun}{ending}"


def plural_noun(number: int, noun: str) -> str:
    """``5 subjects``, ``2 countries``; ``3 values of 'Age group'`` of what is no single word."""
    if not re.fullmatch("[a-z]+( [a-z]+)?", noun):
        return f"{plural(number, 'value')} of {noun!r}"
    if number != 1 and re.search("[^aeiou]y$", noun):
        return f"{count(number)} {noun[:-1]}ies"
    return plural(number, noun)


def duration(seconds: float) -> str:
    """``0.031 s``, ``12.4 s``, ``3 min 20 s``."""
    if seconds < 100:
        return f"{seconds:.{max(1, min(3, 2 - math.floor(math.log10(seconds or 1e-3))))}f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def short_names(names: Sequence[str]) -> list[str]:
    """The ends of paths, with as many folders as it takes to tell them apart."""
    parts = [PurePath(name).parts or (name,) for name in names]
    for length in range(1, max(map(len, parts), default=0) + 1):
        short = ["/".join(path[-length:]) for path in parts]
        if len(set(short)) == len(set(names)):
            return short
    return list(names)


def cut_end(name: str, longest: int | None = LONGEST_NAME) -> str:
    """The beginning of a name that is too long; all of it where None is."""
    return name if longest is None or len(name) <= longest else f"{name[: longest - 3]}..."


def cut_inside(name: str, longest: int, ellipsis: str = "…") -> str:
    """The beginning and the end of a name that is too long: paths differ at both."""
    if len(name) <= longest:
        return name
    end = longest // 2
    return name[: longest - end - 1] + ellipsis + name[-end:]


def capitalised(text: str) -> str:
    """Text with a capital at its beginning."""
    return text[:1].upper() + text[1:]
