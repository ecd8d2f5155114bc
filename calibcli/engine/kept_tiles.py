"""What was made of rows and is needed again, kept as far as there is room; and samples of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock, local
from typing import Any


class LastResults:
    """The last few results by name; a thread that needs what another one computes waits for it.

    Parameters
    ----------
    most : int
        How many are kept.
    """

    def __init__(self, most: int) -> None:
        self._most, self._lock = most, Lock()
        self._made: dict[Hashable, Any] = {}

    def once(self, name: Hashable, make: Callable[[], Any]) -> Any:
        """What ``make`` returns, or has returned by this name before; it may not ask for others."""
        with self._lock:
            if name not in self._made:
                made = make()
                while len(self._made) >= self._most:
                    self._made.pop(next(iter(self._made)))
                self._made[name] = made
            return self._made[name]


class KeptTiles:
    """What was made of the tiles of some rows; threads may ask at once.

    Work that holds it can be sent elsewhere. There it is another one, which keeps nothing; but for
    the work of a job, of which a worker has the same one again, until it forgets the job.

    Parameters
    ----------
    room : int
        Bytes that may be kept.
    most_keys : int
        Of how many keys.
    job : str
        Of the workers that may be sent work that holds it; empty: of none.
    name : (str, str), optional
        Of one that was sent: its job, and which of the job's it is.
    """

    def __init__(
        self, room: int = 0, most_keys: int = 1, job: str = "", name: tuple[str, str] | None = None
    ) -> None:
        self._room, self._lock = room, Lock()
        self._name = (job, os.urandom(8).hex()) if job else name
        self._made: dict[Hashable, dict[int, Any]] = {}
        self._usual = self._most_keys = most_keys
        self._last = local()

    def __reduce__(self) -> tuple[Callable[..., KeptTiles], tuple[Any, ...]]:
        if self._name is None:
            return KeptTiles, ()
        return _of_worker, (self._name, self._room, self._usual, self._most_keys)

    @contextmanager
    def shared_by(self, count: int) -> Iterator[None]:
        """So many fits ask for the tiles in turn, each for what it makes of them."""
        self._most_keys = count
        try:
            yield
        finally:
            self._most_keys, self._last = self._usual, local()

    def hold_for(self, count: int) -> None:
        """Keep what is made for so many keys from now on."""
        self._most_keys = count

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
        if self._most_keys > self._usual:
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


_OF_WORKER: dict[tuple[str, str], KeptTiles] = {}
"""What this process keeps, where it is a worker, by job and name."""


def _of_worker(name: tuple[str, str], room: int, usual: int, most_keys: int) -> KeptTiles:
    # With its name: a scheduler unpickles work, and sends it on.
    kept = _OF_WORKER.setdefault(name, KeptTiles(room, usual, name=name))
    kept.hold_for(most_keys)
    return kept


def forget_tiles(job: str) -> None:
    """Give up what this process keeps for a job."""
    for name in [name for name in tuple(_OF_WORKER) if name[0] == job]:
        _OF_WORKER.pop(name, None)


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


@dataclass(frozen=True)
class KeptOutputs:
    """What fitted maps made of the tiles of some rows.

    Attributes
    ----------
    whole : KeptTiles
        Their logits (n, K).
    labels : KeptTiles
        What little is made of these, a number a row.
    """

    whole: KeptTiles = field(default_factory=KeptTiles)
    labels: KeptTiles = field(default_factory=KeptTiles)
