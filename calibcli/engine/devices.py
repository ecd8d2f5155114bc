"""Which device the arithmetic runs on, found out before torch is imported."""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path
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
        For another name, or when CUDA is asked for by name and is not there.
    """
    if wanted == "cpu":
        return "cpu"
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
