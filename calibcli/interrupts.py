"""Signals that end a command, and the moments at which they have to wait.

A handler of Python raises where the main thread happens to be. That is right while numbers are
computed, and wrong between two renames of files that belong together. So that step holds signals
back, and once the files of a command are there the first signal no longer stops it: what is left is
to say what was done.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

_ENDING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
"""Signals that end a process."""


class _Interrupts:
    """What has come so far, and what the command has written by then."""

    def __init__(self) -> None:
        self.taken_over = False
        self.count = 0
        self.raised = False
        self.lost = False
        self.ending = False
        self.files: tuple[str, ...] = ()

    def handle(self, _number: int, _frame: object) -> None:
        """End the command, unless its files are there and it is the first signal.

        It ends once: a second exception in the middle of the cleaning up for the first would leave
        files, and locks in a state in which nobody expects them.
        """
        self.count += 1
        let_pass = self.files and self.count == 1
        on_its_way = self.raised and not self.lost
        if let_pass or on_its_way or self.ending:
            return
        self.raised = True
        raise KeyboardInterrupt

    def notice_lost(self, event: Any) -> None:
        """Remember an interrupt that was raised where nothing can be raised, as in a destructor."""
        if issubclass(event.exc_type, KeyboardInterrupt):
            self.lost = True
        else:
            sys.__unraisablehook__(event)


_state = _Interrupts()


@contextmanager
def taken_over() -> Iterator[None]:
    """Let ending signals raise KeyboardInterrupt, once, at a moment when it can be obeyed.

    That of a terminal which hangs up is one of them, so that temporary files go then as well. A
    signal that the caller has the process ignore stays ignored.
    """
    global _state  # noqa: PLW0603 (a process has one set of signals)
    _state = _Interrupts()
    _state.taken_over = True
    hook, sys.unraisablehook = sys.unraisablehook, _state.notice_lost
    before = {}
    for number in _ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, _state.handle)
    try:
        yield
    finally:
        # Everything is cleaned up: whatever the caller had is right from here on.
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        sys.unraisablehook = hook


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Signals that come meanwhile are delivered when the context is left."""
    if threading.current_thread() is not threading.main_thread():
        # Python runs handlers in the main thread, and nothing is raised here.
        yield
        return
    came: list[int] = []
    before = {}
    for number in _ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            # None is a handler that was not set from Python.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        for number in came:
            signal.raise_signal(number)


def as_ended(error: BaseException | None) -> BaseException | None:
    """What a command ended with, given what went up to its caller; no signal counts from here on.

    An interrupt hits a library where it may not expect one, and what goes up can then be anything
    (an error of a lock that was let go twice, say) or nothing. It came first, so it is what counts.
    """
    _state.ending = True
    interrupted = _state.raised and not _state.files
    if interrupted and not isinstance(error, KeyboardInterrupt):
        return KeyboardInterrupt()
    return error


def check_interrupts() -> None:
    """Raise the interrupt that got lost, if there was one and there is something to stop.

    Raises
    ------
    KeyboardInterrupt
        A signal came where an exception goes nowhere.
    """
    if _state.lost and not _state.files:
        raise KeyboardInterrupt


def files_written() -> tuple[str, ...]:
    """The files that the running command has written, as the user named them."""
    return _state.files


def note_files(paths: Sequence[str]) -> None:
    """Remember that files are there; the first signal from here on lets the command finish."""
    if _state.taken_over:
        _state.files += tuple(paths)
