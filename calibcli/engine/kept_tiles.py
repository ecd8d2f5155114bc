"""What was made of tiles and is needed in every pass, kept as far as there is room."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from threading import Lock
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
        self._made: dict[tuple[Hashable, int], Any] = {}

    def __reduce__(self) -> tuple[type[KeptTiles], tuple[()]]:
        return KeptTiles, ()

    def of(self, key: Hashable, start: int, make: Callable[[], Any]) -> Any:
        """What ``make`` makes of the tile that begins at row ``start``, or has made of it before.

        Parameters
        ----------
        key : hashable
            What it depends on beside the rows. What was kept for another one is given up.
        start : int
        make : callable
            What it returns has its size, ``nbytes``, or is None.
        """
        place = (key, start)
        if place in self._made:
            return self._made[place]
        made = make()
        size = 0 if made is None else made.nbytes
        with self._lock:
            if any(other != key for other, _ in self._made):
                self._made.clear()
            used = sum(0 if each is None else each.nbytes for each in self._made.values())
            if used + size <= self._room:
                self._made[place] = made
        return made
