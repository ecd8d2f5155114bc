"""Several functions that fold the same rows, run so that one pass over the rows serves them all.

Fits without each fold of a cross-validation are iterations of their own, each of which asks for one
sum over the rows after the other. Each runs in a thread, which waits where it asks for a sum; once
all wait, the rows are read and prepared once, and every tile gives its state to each sum. The
numbers are those of one function after the other, to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from threading import Condition, Thread, current_thread
from typing import TYPE_CHECKING, Any, TypeVar

from calibcli.cached import cached_property
from calibcli.engine.data import Data
from calibcli.engine.engine import Engine, State, Tile
from calibcli.engine.machine import one_blas_thread
from calibcli.engine.source import Source

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

Result = TypeVar("Result")

_SINGLE = 4
"""Bytes of a number of single precision, below which a pass has numbers to convert."""


def in_step(data: Data, functions: Sequence[Callable[[Data], Result]]) -> list[Result]:
    """What some functions of the same rows return, each pass over the rows serving all of them.

    Where rows in memory are as they are needed a pass costs nothing that could be shared, and one
    function runs after the other; so it is where there is no room for what each makes of the rows.
    """
    if len(functions) < 2 or not _is_worth_it(data, len(functions)):
        return [function(data) for function in functions]
    meeting = _Meeting(data.engine, len(functions))
    shared = replace(data, engine=_SharedEngine.of(data.engine, meeting))
    # Solvers that wait for each other must not do so in threads of linear algebra.
    count = len(functions)
    with one_blas_thread(), data.kept.shared_by(count), data.counts.shared_by(count):
        return meeting.run([partial(function, shared) for function in functions])


def _is_worth_it(data: Data, count: int) -> bool:
    source, engine = data.source, data.engine
    if engine.is_elsewhere(source) or not (source.resident() and engine.fits(source)):
        return True
    # What is made of the rows may be kept by each function, which has twice their size at most.
    size = source.rows * source.columns * _SINGLE
    is_half = source.dtype.itemsize < _SINGLE
    return is_half and engine.device == "cpu" and count * size <= engine.room // 2


class _Stopped(BaseException):
    """Ends a function whose sum will not be computed, as another one failed."""


@dataclass(frozen=True)
class _Request:
    """A sum over the rows of a source, as `Engine.fold` takes it."""

    source: Source
    partial_state: Callable[[Tile], Any]
    merge: Callable[[Any, Any], Any]
    dtype: Any
    wide: bool

    def goes_with(self, other: _Request) -> bool:
        """Whether one pass over the rows can serve both."""
        alike = self.dtype == other.dtype and self.wide == other.wide
        return alike and self.source is other.source


class _Meeting:
    """Threads that wait for each other where they ask for sums.

    Parameters
    ----------
    engine : Engine
        That computes them, in the thread that has called `run`, where an interrupt comes.
    count : int
        Of the threads.
    """

    def __init__(self, engine: Engine, count: int) -> None:
        self._engine, self._count = engine, count
        self._changed = Condition()
        self._requests: dict[Thread, _Request] = {}
        self._answers: dict[Thread, Any] = {}
        self._results: list[Any] = [None] * count
        self._errors: dict[int, BaseException] = {}
        self._running: set[Thread] = set()
        self._stopped = False

    def has(self, thread: Thread) -> bool:
        """Whether a thread takes part."""
        return thread in self._running

    def run(self, functions: Sequence[Callable[[], Any]]) -> list[Any]:
        """What the functions return, in their order; the first error of one is raised."""
        threads = [
            Thread(target=self._work, args=each, name="calib-fit") for each in enumerate(functions)
        ]
        self._running.update(threads)
        try:
            for thread in threads:
                thread.start()
            while requests := self._all_requests():
                self._answer(requests)
        finally:
            with self._changed:
                self._stopped = True
                self._changed.notify_all()
            for thread in threads:
                if thread.ident is not None:
                    thread.join()
        for _, error in sorted(self._errors.items()):
            raise error
        return self._results

    def _work(self, place: int, function: Callable[[], Any]) -> None:
        try:
            self._results[place] = function()
        except _Stopped:
            pass
        except BaseException as error:  # noqa: BLE001 (`run` raises it again)
            self._errors[place] = error
        finally:
            with self._changed:
                self._running.discard(current_thread())
                self._changed.notify_all()

    def _all_requests(self) -> dict[Thread, _Request]:
        """The sums that all threads wait for; none once all have ended, or one has failed."""
        with self._changed:
            while len(self._requests) < len(self._running):
                self._changed.wait()
            if self._errors:
                return {}
            requests, self._requests = self._requests, {}
        return requests

    def _answer(self, requests: dict[Thread, _Request]) -> None:
        waiting = list(requests.items())
        answers: dict[Thread, Any] = {}
        while waiting:
            first = waiting[0][1]
            served = [(thread, each) for thread, each in waiting if each.goes_with(first)]
            waiting = [pair for pair in waiting if not pair[1].goes_with(first)]
            works = [each.partial_state for _, each in served]
            merges = [each.merge for _, each in served]
            each, merged = partial(_each, works), partial(_merged, merges)
            states = self._engine.fold(first.source, each, merged, first.dtype, wide=first.wide)
            answers.update(zip((thread for thread, _ in served), states, strict=True))
        with self._changed:
            self._answers.update(answers)
            self._changed.notify_all()

    def ask(self, request: _Request) -> Any:
        """The sum, once all others have asked for theirs too."""
        thread = current_thread()
        with self._changed:
            self._requests[thread] = request
            self._changed.notify_all()
            while thread not in self._answers:
                if self._stopped:
                    raise _Stopped
                self._changed.wait()
            return self._answers.pop(thread)


def _each(works: Sequence[Callable[[Tile], Any]], tile: Tile) -> list[Any]:
    return [work(tile) for work in works]


def _merged(
    merges: Sequence[Callable[[Any, Any], Any]], left: list[Any], right: list[Any]
) -> list[Any]:
    return [merge(a, b) for merge, a, b in zip(merges, left, right, strict=True)]


@dataclass(frozen=True)
class _SharedEngine(Engine):
    """An engine whose folds wait for those of others, in the threads of a meeting."""

    base: Engine = field(default_factory=Engine, compare=False)
    meeting: _Meeting | None = field(default=None, compare=False)

    @classmethod
    def of(cls, engine: Engine, meeting: _Meeting) -> _SharedEngine:
        """The engine of the threads of a meeting, for which another one works."""
        return cls(
            *(engine.device, engine.threads, engine.memory, engine.workers, engine.on_rows),
            engine,
            meeting,
        )

    @cached_property
    def room(self) -> int:
        return self.base.room

    @cached_property
    def pool(self) -> ThreadPoolExecutor:
        return self.base.pool

    def fold(
        self,
        source: Source,
        partial_state: Callable[[Tile], State],
        merge: Callable[[State, State], State],
        dtype: Any = None,
        *,
        wide: bool = False,
    ) -> State:
        if self.meeting is None or not self.meeting.has(current_thread()):
            return super().fold(source, partial_state, merge, dtype, wide=wide)
        state: State = self.meeting.ask(_Request(source, partial_state, merge, dtype, wide))
        return state
