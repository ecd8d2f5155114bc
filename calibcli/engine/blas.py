"""One thread a matrix product, while blocks of rows run on threads of their own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import Any


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Hold back the threads of NumPy's linear algebra until the last of all blocks is left.

    Threads of a product wait actively for each other: where several products run at once they take
    the cores from one another, and a fold of many small ones takes ten times as long.
    """
    if _is_held_back():
        yield
        return
    _USE.enter()
    try:
        yield
    finally:
        _USE.leave()


class _Use:
    """How many hold the threads back; the first one does it, the last one gives them free."""

    def __init__(self) -> None:
        self._lock, self._users = Lock(), 0
        self._limit: Any = None

    def enter(self) -> None:
        with self._lock:
            self._users += 1
            if self._users == 1:
                self._limit = _controller().limit(limits=1, user_api="blas")

    def leave(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._limit.restore_original_limits()


_USE = _Use()


@cache
def _is_held_back() -> bool:
    """Whether the environment did so before NumPy was imported, as the command line does."""
    return os.environ.get("OPENBLAS_NUM_THREADS") == os.environ.get("MKL_NUM_THREADS") == "1"


@cache
def _controller() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
