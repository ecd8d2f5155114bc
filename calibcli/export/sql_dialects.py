"""How dialects of SQL write names, texts, numbers and arithmetic."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from calibcli.errors import UsageError
from calibcli.visible import visible

ROW_ALIAS = "calib_rows"
"""What the table is called inside of the query."""


class Dialect(ABC):
    """A dialect, by what differs from the others.

    Arithmetic is that of IEEE 754 in none of them: a logarithm of 0 or a division by it is an
    error or a null, and in PostgreSQL so is a result that is too small to be told from 0. So every
    function is written with the cases that it must not see.

    Attributes
    ----------
    title : str
    real, infinity, nan : str
        The type of numbers in double precision, and two of them.
    source : str
        A row of the table as one value.
    barrier : str
        Behind the select of a level, so that the next one computes nothing twice.
    """

    title: ClassVar[str]
    real: ClassVar[str] = "DOUBLE"
    infinity: ClassVar[str] = "CAST('Infinity' AS DOUBLE)"
    nan: ClassVar[str] = "CAST('NaN' AS DOUBLE)"
    source: ClassVar[str] = ROW_ALIAS
    all_columns: ClassVar[str] = "source.*"
    barrier: ClassVar[str] = ""

    @abstractmethod
    def name(self, text: str) -> str:
        """The name of a column or table, whatever is in it.

        Raises
        ------
        UsageError
            The dialect has no such name.
        """

    @abstractmethod
    def text(self, text: str) -> str:
        """A text.

        Raises
        ------
        UsageError
            The dialect has no such text.
        """

    @abstractmethod
    def array(self, elements: Sequence[str]) -> str:
        """An array of numbers."""

    @abstractmethod
    def element(self, array: str, place: str) -> str:
        """An element of an array by its place from 0, which is an expression."""

    @abstractmethod
    def halved(self, number: str) -> str:
        """Half of a whole number that is not negative, rounded down."""

    def is_nan(self, x: str) -> str:
        """Whether a number is NaN."""
        return f"isnan({x})"

    def table(self, path: str) -> str:
        """The name of a table, and of the schemas before it behind dots."""
        return ".".join(map(self.name, path.split(".")))

    def number(self, value: Any) -> str:
        """A number with all its digits, of double precision unless it is whole."""
        if isinstance(value, (bool, np.bool_)):
            return "TRUE" if value else "FALSE"
        if isinstance(value, (int, np.integer)):
            return str(int(value))
        if np.isnan(value):
            return self.nan
        if np.isinf(value):
            return self.infinity if value > 0 else f"(-{self.infinity})"
        # Without an exponent it would be a decimal number.
        digits = repr(float(value))
        written = digits if "e" in digits else f"{digits}e0"
        return f"({written})" if written.startswith("-") else written

    def to_real(self, x: str) -> str:
        """A number in double precision."""
        return f"CAST({x} AS {self.real})"

    def product(self, x: str, y: str) -> str:
        """``x * y``."""
        return f"({x} * {y})"

    def scaled(self, x: str, factor: float) -> str:
        """``factor * x``."""
        return f"({x} * {self.number(factor)})"

    def quotient(self, x: str, y: str) -> str:
        """``x / y``, infinite or NaN for y = 0."""
        return (
            f"CASE WHEN {y} <> 0 THEN {x} / {y} WHEN {x} > 0 THEN {self.infinity} "
            f"WHEN {x} < 0 THEN -{self.infinity} ELSE {self.nan} END"
        )

    def exponential(self, x: str) -> str:
        """``exp(x)``, 0 where no number is as small."""
        return (
            f"CASE WHEN {x} < -745e0 THEN 0e0 WHEN {x} > 709.7e0 THEN {self.infinity} "
            f"ELSE exp({x}) END"
        )

    def logarithm(self, x: str) -> str:
        """``ln(x)``, ``-inf`` for 0."""
        return (
            f"CASE WHEN {x} > 0 THEN ln({x}) WHEN {x} = 0 THEN -{self.infinity} ELSE {self.nan} END"
        )


class DuckDB(Dialect):
    """DuckDB."""

    title = "DuckDB"

    def name(self, text: str) -> str:
        return _quoted(_without_nul(self, text), '"')

    def text(self, text: str) -> str:
        return _quoted(_without_nul(self, text), "'")

    def array(self, elements: Sequence[str]) -> str:
        return f"[{', '.join(elements)}]"

    def element(self, array: str, place: str) -> str:
        return f"{array}[{place} + 1]"

    def halved(self, number: str) -> str:
        return f"({number} // 2)"


class PostgreSQL(Dialect):
    """PostgreSQL from version 12 on."""

    title = "PostgreSQL"
    real = "double precision"
    infinity = "CAST('Infinity' AS double precision)"
    nan = "CAST('NaN' AS double precision)"
    all_columns = "(source).*"
    # It merges a select with the one around it, and would write out every level in the next.
    barrier = " OFFSET 0"

    def name(self, text: str) -> str:
        if len(text.encode("utf-8")) > 63:
            raise UsageError(
                f"{self.title} has no name of more than 63 bytes, such as {visible(text)!r}"
            )
        return _quoted(_without_nul(self, text), '"')

    def text(self, text: str) -> str:
        # Escapes work whatever the setting of `standard_conforming_strings`.
        return f"E'{_escaped(_without_nul(self, text))}'"

    def array(self, elements: Sequence[str]) -> str:
        return f"ARRAY[{', '.join(elements)}]"

    def element(self, array: str, place: str) -> str:
        return f"({array})[{place} + 1]"

    def halved(self, number: str) -> str:
        return f"({number} / 2)"

    def is_nan(self, x: str) -> str:
        return f"({x} = {self.nan})"

    def product(self, x: str, y: str) -> str:
        return f"CASE WHEN abs({x}) < 1e-150 AND abs({y}) < 1e150 THEN 0 ELSE {x} * {y} END"

    def scaled(self, x: str, factor: float) -> str:
        if abs(factor) > 1e150:
            return super().scaled(x, factor)
        return f"CASE WHEN abs({x}) < 1e-150 THEN 0 ELSE {super().scaled(x, factor)} END"

    def quotient(self, x: str, y: str) -> str:
        small = f"abs({x}) < 1e-290 AND abs({y}) > 1e-10"
        return super().quotient(x, y).replace("CASE", f"CASE WHEN {small} THEN 0", 1)


class _Backticks(Dialect):
    """What Spark and BigQuery have in common."""

    def text(self, text: str) -> str:
        return f"'{_escaped(text)}'"


class Spark(_Backticks):
    """Spark SQL from version 3.3 on, which does not write out a column twice that is no name."""

    title = "Spark SQL"
    source = f"struct({ROW_ALIAS}.*)"

    def name(self, text: str) -> str:
        # Settings are put into a query before it is read, and no mark keeps them out of a name.
        if "${" in text:
            raise UsageError(f"{self.title} has no name with '${{', such as {visible(text)!r}")
        return _quoted(text, "`")

    def array(self, elements: Sequence[str]) -> str:
        return f"array({', '.join(elements)})"

    def element(self, array: str, place: str) -> str:
        return f"{array}[{place}]"

    def halved(self, number: str) -> str:
        return f"({number} div 2)"


class BigQuery(_Backticks):
    """BigQuery's GoogleSQL."""

    title = "BigQuery"
    real = "FLOAT64"
    infinity = "CAST('inf' AS FLOAT64)"
    nan = "CAST('NaN' AS FLOAT64)"

    def name(self, text: str) -> str:
        if any(each in '!"$()*,./;?@[\\]^`{}~' or ord(each) < 32 for each in text):
            raise UsageError(f"{self.title} has no column of the name {visible(text)!r}")
        return f"`{text}`"

    def table(self, path: str) -> str:
        return ".".join(f"`{part}`" for part in path.split(".") if self.name(part))

    def array(self, elements: Sequence[str]) -> str:
        return f"[{', '.join(elements)}]"

    def element(self, array: str, place: str) -> str:
        return f"{array}[OFFSET({place})]"

    def halved(self, number: str) -> str:
        return f"DIV({number}, 2)"

    def is_nan(self, x: str) -> str:
        return f"IS_NAN({x})"


DIALECTS: dict[str, Dialect] = {
    "duckdb": DuckDB(),
    "postgres": PostgreSQL(),
    "spark": Spark(),
    "bigquery": BigQuery(),
}
"""By the name that ``--dialect`` takes."""


def _without_nul(dialect: Dialect, text: str) -> str:
    if "\0" in text:
        raise UsageError(f"{dialect.title} has no text with a NUL, such as {visible(text)!r}")
    return text


def _quoted(text: str, mark: str) -> str:
    return f"{mark}{text.replace(mark, mark * 2)}{mark}"


def _escaped(text: str) -> str:
    """A text with an escape for every character that is no letter, digit, space or underscore."""
    return "".join(
        each
        if each.isascii() and (each.isalnum() or each in " _")
        else f"\\u{ord(each):04x}"
        if ord(each) < 1 << 16
        else f"\\U{ord(each):08x}"
        for each in text
    )
