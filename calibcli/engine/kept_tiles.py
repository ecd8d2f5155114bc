"""What was made of rows and is needed again, kept as far as there is room; and samples of them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from threading import Lock, local
from typing import Any


class KeptTiles:
    """What was made of the tiles of some rows; threads may ask at once.

    It keeps nothing where it is unpickled, so that work that holds it can be sent elsewhere.

    Parameters
    ----------
    room : int
        Bytes that may be kept.
    """

    def __init__(self, room: int = 0) -> None:
        self._room, self._lock = room, Lock()
        self._made: dict[Hashable, dict[int, Any]] = {}
        self._most_keys = 1
        self._last = local()

    def __reduce__(self) -> tuple[type[KeptTiles], tuple[()]]:
        return KeptTiles, ()

    @contextmanager
    def shared_by(self, count: int) -> Iterator[None]:
        """So many fits ask for the tiles in turn, each for what it makes of them."""
        self._most_keys = count
        try:
            yield
        finally:
            self._most_keys, self._last = 1, local()

    def of(self, key: Hashable, start: int, make: Callable[[], Any]) -> Any:
        """What ``make`` makes of the tile that begins at row ``start``, or has made of it before.

        Parameters
        ----------
        key : hashable
            What it depends on beside the rows. What was kept for another one is given up, but for
            those of as many fits as share the rows.
        start : int
        make : callable
            What it returns has its size, ``nbytes``, or is None.
        """
        kept = self._made.get(key)
        if kept is not None and start in kept:
            return kept[start]
        # Fits that share the rows ask for a tile one after the other, also where none is kept.
        place = (key, start)
        if getattr(self._last, "place", None) == place:
            return self._last.made
        made = make()
        size = 0 if made is None else made.nbytes
        if self._most_keys > 1:
            self._last.place, self._last.made = place, made
        with self._lock:
            while key not in self._made and len(self._made) >= self._most_keys:
                self._made.pop(next(iter(self._made)))
            tiles = self._made.setdefault(key, {})
            if self._used() + size <= self._room:
                tiles[start] = made
        return made

    def _used(self) -> int:
        tiles = (made for kept in self._made.values() for made in kept.values())
        return sum(0 if made is None else made.nbytes for made in tiles)


class KeptSample:
    """The last sample of some rows; threads may ask at once, of which one takes it.

    It keeps nothing where it is unpickled.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._made: tuple[int, Any] | None = None

    def __reduce__(self) -> tuple[type[KeptSample], tuple[()]]:
        return KeptSample, ()

    def of(self, step: int, take: Callable[[], Any]) -> Any:
        """What ``take`` takes of every ``step``-th row, or has taken before."""
        with self._lock:
            if self._made is None or self._made[0] != step:
                self._made = step, take()
            return self._made[1]
