"""Memory-mapped files whose pages can be given back while the mapping stays."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np

from calibcli.engine.source import NumpyArray


class Mapping:
    """A local file as read-only memory. Arrays made from it keep it alive.

    Parameters
    ----------
    path : str
        An existing file that is not empty.
    """

    def __init__(self, path: str) -> None:
        with Path(path).open("rb") as file:
            self.memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.bytes: NumpyArray = np.frombuffer(self.memory, np.uint8)

    def owns(self, address: int) -> bool:
        """Whether an address lies in the mapped file."""
        start = int(self.bytes.ctypes.data)
        return start <= address < start + len(self.bytes)

    def release(self) -> None:
        """Give all pages back, so that resident memory does not grow with what was read.

        Arrays stay valid: what is touched again is fetched again from the system's file cache.
        """
        if hasattr(mmap, "MADV_DONTNEED"):
            self.memory.madvise(mmap.MADV_DONTNEED)
