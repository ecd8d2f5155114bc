"""Workers that are processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from threading import Thread
from typing import Any

from calibcli.cached import cached_property
from calibcli.engine.workers import Workers, WorkersError, forget_rows
from calibcli.errors import UsageError

_TRIES = 3

_Begun = tuple[int, Callable[[], Any], "Future[Any]"]


@dataclass
class ProcessWorkers(Workers):
    """``processes:N``: N processes of this machine, started anew where one is lost.

    Each is a pool of its own, so that a piece goes where its rows are.
    """

    name = "processes"
    form = "processes:N"
    elsewhere = False

    def __post_init__(self) -> None:
        if not (self.place.isascii() and self.place.isdigit() and 0 < int(self.place) <= 1024):
            raise UsageError(
                f"--workers processes:{self.place}: give the number of processes, as in processes:4"
            )
        self.threads = self.threads or max(_cores() // int(self.place), 1)

    @property
    def slots(self) -> int:
        return int(self.place)

    @cached_property
    def _pools(self) -> list[ProcessPoolExecutor]:
        return [_pool() for _ in range(self.slots)]

    def submit(self, slot: int, task: Callable[[], Any]) -> _Begun:
        try:
            return slot, task, self._pools[slot].submit(task)
        except BrokenProcessPool:
            self._pools[slot] = _pool()
            return slot, task, self._pools[slot].submit(task)

    def result(self, begun: _Begun) -> Any:
        for _ in range(_TRIES):
            try:
                return begun[2].result()
            except BrokenProcessPool:
                begun = self.submit(*begun[:2])
        raise WorkersError(
            f"--workers {self.name}:{self.place}: a process was killed {_TRIES} times at the same "
            "rows; is there too little memory? Fewer processes, or a smaller --memory, take less"
        )

    def cancel(self, begun: _Begun) -> None:
        begun[2].cancel()

    def forget(self, job: str) -> None:
        for pool in self.__dict__.get("_pools", ()):
            try:
                pool.submit(forget_rows, job)
            except BrokenProcessPool:
                continue  # with what it held


def _pool() -> ProcessPoolExecutor:
    # A fork would copy locks that threads of this process hold.
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _begin)


def _begin() -> None:
    """Leave an interrupt to the process that waits for the results, and end when that one does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_follow, name="calib-parent", daemon=True).start()


def _follow() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
