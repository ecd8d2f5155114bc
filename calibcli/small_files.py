"""Files that are read whole, up to a size; and named pipes, which are waited for aloud."""

from __future__ import annotations

import os
import stat
import sys
import threading
from pathlib import Path
from typing import BinaryIO

from calibcli.errors import UsageError
from calibcli.visible import visible

PATIENCE = 1.0
"""Seconds after which it is said that a pipe is waited for."""

LARGEST_TEXT = 64 << 20
"""Bytes of names, shares, settings or an earlier result; all of them are far smaller."""


def open_patiently(path: str | Path) -> BinaryIO:
    """The file, opened for reading. Where a named pipe has no writer, stderr says so.

    Raises
    ------
    OSError
        It cannot be opened.
    """
    if not stat.S_ISFIFO(os.stat(path).st_mode):  # noqa: PTH116 (a `Path` has no more to say)
        return Path(path).open("rb")
    line = visible(f"calib: {path}: waiting for somebody to write to this pipe")
    # stderr is looked up when the line is due: it may be another one by then.
    timer = threading.Timer(PATIENCE, lambda: sys.stderr.write(f"{line}\n"))
    timer.daemon = True
    timer.start()
    try:
        return Path(path).open("rb")
    finally:
        timer.cancel()


def read_small(path: str | Path, most: int = LARGEST_TEXT) -> bytes:
    """All bytes of a file, unless there are more than ``most``.

    Raises
    ------
    OSError
        It cannot be read.
    UsageError
        It is larger; a device may have no end.
    """
    with open_patiently(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise UsageError(f"{path}: has more than {most >> 20} MB, far more than can be meant")
    return content
