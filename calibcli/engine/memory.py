"""How much memory there is, how it is asked for, and how the allocator is told to keep it."""

from __future__ import annotations

import ctypes
import os
import re
import sys
from functools import cache
from pathlib import Path

from calibcli.errors import UsageError

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def parse_memory(text: str) -> int:
    """Bytes in ``"256M"``, ``"2G"``, ``"1.5GiB"`` or ``"800000000"``; units are powers of 1024."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?\s*", text, re.IGNORECASE)
    if match is None:
        raise UsageError(f"--memory {text!r} is not a size; write it as 256M or 2G")
    size = int(float(match[1]) * _UNITS[match[2].upper()])
    if size < 16 << 20:
        raise UsageError(f"--memory {text} is too little to work with; give at least 16M")
    return size


def default_memory() -> int:
    """Half of the memory that is free now, in bytes, within the limit of a container."""
    return max(available_memory() // 2, 64 << 20)


def available_memory() -> int:
    """Memory in bytes that can be taken without swapping, as far as the system tells."""
    found = [_control_group_room()]
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
        match = re.search(r"MemAvailable:\s+(\d+) kB", text)
        found.append(int(match[1]) << 10 if match else None)
    except OSError:
        if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
            found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)
    known = [size for size in found if size is not None]
    return min(known) if known else 2 << 30


def _control_group_room() -> int | None:
    root = Path("/sys/fs/cgroup")
    try:
        limit = (root / "memory.max").read_text(encoding="ascii").strip()
        used = (root / "memory.current").read_text(encoding="ascii").strip()
        return None if limit == "max" else max(int(limit) - int(used), 0)
    except (OSError, ValueError):
        return None


@cache
def keep_freed_memory() -> None:
    """Let the C library keep what temporaries of a block free, for the next block.

    glibc returns blocks of more than 128 KiB to the system and page-faults them in again at the
    next allocation, which at cache-sized blocks costs more than the arithmetic (five times, for
    the plain expression of a softmax). Other C libraries don't have the setting; nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_THRESHOLD, 32 << 20)
    mallopt(_M_TRIM_THRESHOLD, 256 << 20)
