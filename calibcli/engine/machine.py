"""What the machine has, and how it is used: devices, memory, threads of linear algebra."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from calibcli.errors import UsageError


def choose_device(wanted: str = "auto") -> str:
    """``"cpu"``, ``"cuda"`` or ``"cuda:N"`` for ``auto|cpu|cuda|cuda:N``.

    ``auto`` takes a GPU when a CUDA driver, a visible device and torch are there; torch is
    imported only then.

    Raises
    ------
    UsageError
        For another name, also Apple's ``mps``, or when CUDA is asked for by name and is not there.
    """
    if wanted == "cpu":
        return "cpu"
    if wanted.partition(":")[0] == "mps":
        raise UsageError(
            f"--device {wanted}: Apple's GPUs have no float64, in which all sums are kept; use "
            "--device cpu"
        )
    if wanted != "auto" and not re.fullmatch(r"cuda(:\d+)?", wanted):
        raise UsageError(f"--device {wanted!r} is not known; use auto, cpu, cuda or cuda:N")
    reason = _why_no_cuda(wanted)
    if reason is None:
        return "cuda:0" if wanted in ("auto", "cuda") else wanted
    if wanted == "auto":
        return "cpu"
    raise UsageError(f"--device {wanted}: {reason}; use --device cpu")


def _why_no_cuda(wanted: str) -> str | None:
    if os.environ.get("CUDA_VISIBLE_DEVICES", "all") in ("", "-1"):
        return "CUDA_VISIBLE_DEVICES hides every GPU"
    if not any(Path(node).exists() for node in ("/dev/nvidiactl", "/dev/dxg", "/dev/nvidia0")):
        return "no CUDA driver is loaded"
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed (pip install 'calibcli[gpu]')"
    import torch

    if not torch.cuda.is_available():
        return "torch finds no usable GPU"
    index = int(wanted.partition(":")[2] or 0)
    if index >= torch.cuda.device_count():
        return f"there are only {torch.cuda.device_count()} GPUs"
    return None


def device_memory(device: str) -> int:
    """Free memory of a torch device in bytes; for the CPU, a nominal amount."""
    import torch

    if device.startswith("cuda"):
        free, _ = torch.cuda.mem_get_info(device)
        return int(free)
    return 1 << 30


def to_device(array: Any, device: str, dtype: Any = None) -> Any:
    """An array (or None) as a torch tensor on the device, of a NumPy dtype where one is given."""
    import torch

    if array is None:
        return None
    if isinstance(array, np.ndarray):
        array = np.ascontiguousarray(array, array.dtype.newbyteorder("="))
        # torch has no read-only tensors, and memory-mapped files are read-only.
        array = torch.from_numpy(array if array.flags.writeable else array.copy())
    return array.to(device, None if dtype is None else getattr(torch, np.dtype(dtype).name))


_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_LARGEST_SIZE = 1 << 60
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def parse_size(text: str, option: str) -> int:
    """Bytes in ``"256M"``, ``"2G"``, ``"1.5GiB"`` or ``"800000000"``; units are powers of 1024.

    Raises
    ------
    UsageError
        It is no size, or more than any machine has.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?\s*", text, re.IGNORECASE)
    if match is None:
        raise UsageError(f"{option} {text!r} is not a size; write it as 256M or 2G")
    size = float(match[1]) * _UNITS[match[2].upper()]
    if size >= _LARGEST_SIZE:
        raise UsageError(f"{option} {text[:20]}{'…' * (len(text) > 20)} is more than there can be")
    return int(size)


def parse_memory(text: str) -> int:
    """Bytes of ``--memory``, see `parse_size`; at least 16M."""
    size = parse_size(text, "--memory")
    if size < 16 << 20:
        raise UsageError(f"--memory {text} is too little to work with; give at least 16M")
    return size


def default_memory() -> int:
    """Half of the memory that is free now, in bytes, within the limit of a container."""
    return max(available_memory() // 2, 64 << 20)


def available_memory() -> int:
    """Memory in bytes that can be taken without swapping, as far as the system tells."""
    sizes = [_control_group_room()]
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
        match = re.search(r"MemAvailable:\s+(\d+) kB", text)
        sizes.append(int(match[1]) << 10 if match else None)
    except OSError:
        if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
            sizes.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)
    known = [size for size in sizes if size is not None]
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
