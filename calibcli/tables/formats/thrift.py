"""Structs of Thrift's compact protocol, in which Parquet has headers of pages and footers.

https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from __future__ import annotations

from collections.abc import Iterator

_DEEPEST, MOST_FIELD_VALUES = 64, 100_000
"""Structs and lists within each other, and values; the header of a page has three, and some 30."""

_TRUE, _FALSE, _BYTE, I16, I32, I64, _DOUBLE, _BINARY, LIST, _SET, _MAP, STRUCT, _UUID = range(
    1, 14
)
_SIZES = {_TRUE: 1, _FALSE: 1, _BYTE: 1, _DOUBLE: 8, _UUID: 16}
_LONG_LIST = 15
"""A list of fewer values has their number in its first byte."""
_MORE = 128
"""The bit of a byte that says that the number goes on."""


class DamagedError(Exception):
    """Bytes that are no struct of Thrift's compact protocol."""


class CompactStruct:
    """A struct of Thrift's compact protocol.

    Parameters
    ----------
    content : bytes
    place : int
        Where in them it begins. Afterwards where it ended.
    most : int
        Values that are looked at.
    """

    def __init__(self, content: bytes, place: int = 0, most: int = MOST_FIELD_VALUES) -> None:
        self.content = content
        self._left = most
        self.place = place

    def numbers(self, wanted: int, path: tuple[int, ...] = ()) -> list[tuple[int, int]]:
        """The fields of a kind of whole number, in their order.

        Parameters
        ----------
        wanted : int
            `I32` or `I64`.
        path : tuple of int
            The fields that lead to the structs which are meant; lists are all their elements.

        Raises
        ------
        IndexError
            It goes on behind the last byte.
        DamagedError
            It is no such struct.
        ValueError
            It has more values than could be looked at in time.
        """
        numbers: list[tuple[int, int]] = []
        for field, kind in self.fields():
            if path and field == path[0] and kind == STRUCT:
                numbers += self.numbers(wanted, path[1:])
            elif path and field == path[0] and kind == LIST:
                count, (element,) = self.list_head()
                for _ in range(count):
                    if element == STRUCT:
                        numbers += self.numbers(wanted, path[1:])
                    else:
                        self.skip(element)
            elif kind == wanted and not path:
                number = self.number()
                numbers.append((field, signed(number & 0xFFFFFFFF if kind == I32 else number)))
            else:
                self.skip(kind)
        return numbers

    def fields(self) -> Iterator[tuple[int, int]]:
        """Number and kind of each field, but for truth values, which are kinds."""
        field = 0
        while head := self._byte():
            field = field + (head >> 4) if head >> 4 else signed(self.number())
            if head & 15 not in (_TRUE, _FALSE):
                yield field, head & 15

    def _byte(self) -> int:
        self.place += 1
        return self.content[self.place - 1]

    def number(self) -> int:
        """A number of seven bits a byte, the lowest first."""
        number = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            number |= (byte & (_MORE - 1)) << shift
            if byte < _MORE:
                return number
        raise DamagedError(number)

    def _leave(self, size: int) -> None:
        self.place += size
        if self.place > len(self.content):
            raise IndexError(self.place)

    def skip(self, kind: int, depth: int = _DEEPEST) -> None:
        """Pass over a value of any kind."""
        self._left -= 1
        if self._left < 0:
            raise ValueError("the header of a page has more values than any needs")
        if kind in _SIZES:
            self._leave(_SIZES[kind])
        elif kind in (I16, I32, I64):
            self.number()
        elif kind == _BINARY:
            self._leave(self.number())
        elif depth == 0 or kind not in (LIST, _SET, _MAP, STRUCT):
            raise DamagedError(kind)
        elif kind == STRUCT:
            for _, each in self.fields():
                self.skip(each, depth - 1)
        else:
            count, kinds = self._map() if kind == _MAP else self.list_head()
            for _ in range(count):
                for each in kinds:
                    self.skip(each, depth - 1)

    def list_head(self) -> tuple[int, tuple[int, ...]]:
        """How many values a list has, and their kind."""
        head = self._byte()
        return head >> 4 if head >> 4 < _LONG_LIST else self.number(), (head & 15,)

    def _map(self) -> tuple[int, tuple[int, ...]]:
        """How many entries a map has, and the kinds of key and value."""
        count = self.number()
        kinds = self._byte() if count else 0
        return count, (kinds >> 4, kinds & 15)


def signed(number: int) -> int:
    """The whole number of which 0, -1, 1, -2 are stored as 0, 1, 2, 3."""
    return (number >> 1) ^ -(number & 1)


def folded(number: int) -> int:
    """What is stored of a whole number: 0, 1, 2, 3 for 0, -1, 1, -2."""
    return number << 1 if number >= 0 else ~(number << 1)


def as_stored(number: int) -> bytes:
    """The bytes of a number from 0 on, seven bits each, the lowest first."""
    content = bytearray()
    while number >= _MORE:
        content.append(number & (_MORE - 1) | _MORE)
        number >>= 7
    content.append(number)
    return bytes(content)
