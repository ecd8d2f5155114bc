"""What an HDF5 file says of its datasets, as JSON on standard output.

A program of its own, since libhdf5 is known to crash on damaged files: then this process ends, and
whoever started it refuses the file. It reads descriptions alone, and texts of any length, which lie
all over a file. It imports nothing of calib, and writes the texts into a folder that it is given.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MOST_OBJECTS, MOST_CHUNKS = 10_000, 1 << 21
TEXT_ROWS = 1 << 14
BFLOAT16 = (15, 7, 8, 0, 7)
"""Where sign, exponent and fraction lie: `H5Tget_fields`."""

FILTERS = {"deflate": 1, "shuffle": 2, "fletcher32": 3, "zstd": 32015}
MEMORY_BYTES = 4 << 30


def limit_resources(seconds: int) -> None:
    """End rather than work without end, or fill the memory; the seconds are of the processor."""
    try:
        import resource
    except ImportError:
        return
    for what, most in ((resource.RLIMIT_CPU, seconds), (resource.RLIMIT_AS, MEMORY_BYTES)):
        soft, hard = resource.getrlimit(what)
        lowest = min(each for each in (soft, hard, most) if each != resource.RLIM_INFINITY)
        resource.setrlimit(what, (lowest, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def datasets(path: str, folder: str, text_bytes: int) -> Iterator[dict[str, Any]]:
    """Describe each dataset, or why it cannot be read (``"unread"``)."""
    import h5py

    with h5py.File(path, "r", locking=False) as file:
        groups: list[tuple[str, Any]] = [("", file)]
        seen: set[Any] = set()
        while groups:
            prefix, group = groups.pop()
            for name in group:
                key = prefix + name
                link = group.get(name, getlink=True)
                if not isinstance(link, h5py.HardLink):
                    kind = "soft link" if isinstance(link, h5py.SoftLink) else "external link"
                    yield {"name": key, "unread": f"{kind} to {link.path}"}
                    continue
                item = group[name]
                address = h5py.h5o.get_info(item.id).addr
                if isinstance(item, h5py.Group):
                    if address not in seen:
                        groups.append((f"{key}/", item))
                elif isinstance(item, h5py.Dataset):
                    yield {"name": key, **_dataset(item, folder, len(seen), text_bytes)}
                seen.add(address)
                if len(seen) > MOST_OBJECTS:
                    raise ValueError(f"it has more than {MOST_OBJECTS:,} objects")


def _dataset(data: Any, folder: str, number: int, text_bytes: int) -> dict[str, Any]:
    import h5py

    if data.shape is None:
        return {"unread": "empty"}
    shape = {"shape": list(data.shape)}
    kind, plan = data.id.get_type(), data.id.get_create_plist()
    texts = isinstance(kind, h5py.h5t.TypeStringID) and kind.is_variable_str()
    dtype, bfloat = ("|S0", False) if texts else _numpy_type(data, kind)
    filters = [_filter(plan.get_filter(index)) for index in range(plan.get_nfilters())]
    layout = plan.get_layout()
    unread = _why_not(dtype, filters, plan, layout, is_matrix_of_texts=texts and data.ndim != 1)
    if unread:
        return {"unread": unread.format(data.dtype), **shape}
    described = {**shape, "dtype": dtype, "bfloat": bfloat}
    if texts or layout == h5py.h5d.COMPACT:
        target = Path(folder) / f"dataset-{number}"
        if texts:
            described["dtype"] = _write_texts(data, target, text_bytes)
        else:
            target.write_bytes(data[()].tobytes())
        return {**described, "copy": str(target)}
    if layout == h5py.h5d.CONTIGUOUS:
        return {**described, "offset": data.id.get_offset()}
    fill = b"" if bfloat else data.fillvalue.tobytes()
    return {
        **described,
        "chunks": list(data.chunks),
        "stored": _chunks(data),
        "filters": filters,
        "fill": fill.hex(),
    }


def _why_not(
    dtype: str, filters: list[Any], plan: Any, layout: int, *, is_matrix_of_texts: bool
) -> str:
    """Why a dataset is not read, ``{}`` for its type; empty if it is."""
    import h5py

    if not dtype or is_matrix_of_texts:
        return "{}"
    if plan.get_external_count():
        return "{} stored in other files"
    if layout == h5py.h5d.VIRTUAL:
        return "{} of other datasets"
    unknown = [name or str(number) for number, _, name in filters if number not in FILTERS.values()]
    return "{} packed by " + ", ".join(unknown) if unknown else ""


def _filter(described: tuple[Any, ...]) -> tuple[int, list[int], str]:
    """Number, options and name."""
    number, _, options, name = described
    return number, list(options)[:8], name.decode("utf-8", "replace")


def _chunks(data: Any) -> list[int]:
    """First row and so on, offset, bytes, and filters left out, of each chunk, one by one."""
    count = data.id.get_num_chunks()
    if count > MOST_CHUNKS:
        raise ValueError(f"it has {count:,} chunks")
    stored: list[int] = []

    def add(chunk: Any) -> None:
        stored.extend((*chunk.chunk_offset, chunk.byte_offset, chunk.size, chunk.filter_mask))

    if count:
        data.id.chunk_iter(add)
    return stored


def _numpy_type(data: Any, kind: Any) -> tuple[str, bool]:
    """The NumPy type that is stored, and whether it is bfloat16; empty of any other type."""
    import h5py
    import numpy as np

    if isinstance(kind, h5py.h5t.TypeFloatID) and kind.get_size() == 2:
        order = ">" if kind.get_order() == h5py.h5t.ORDER_BE else "<"
        if kind.get_fields() == BFLOAT16 and kind.get_ebias() == 127:
            return f"{order}u2", True
    if isinstance(kind, h5py.h5t.TypeStringID):
        return f"|S{kind.get_size()}", False
    dtype = data.dtype
    if dtype.kind not in "fiub" or h5py.check_dtype(enum=dtype) is not None:
        return "", False
    same = h5py.h5t.py_create(np.dtype(dtype), logical=True) == kind
    return (dtype.str if same else ""), False


def _write_texts(data: Any, target: Path, most: int) -> str:
    """Write texts as UTF-8 of one width, and return the NumPy type."""
    import numpy as np

    rows = data.shape[0]
    parts = (data[begin : begin + TEXT_ROWS] for begin in range(0, rows, TEXT_ROWS))
    width = max((len(text) for part in parts for text in part), default=0) or 1
    if width * rows > most:
        raise ValueError(f"its texts would take {width * rows:,} bytes")
    with target.open("xb") as file:
        for begin in range(0, rows, TEXT_ROWS):
            file.write(np.asarray(data[begin : begin + TEXT_ROWS], f"S{width}").tobytes())
    return f"|S{width}"


def print_description() -> None:
    """Describe the file named first, given a folder and bytes for its texts, and seconds."""
    path, folder, text_bytes, seconds = sys.argv[1:]
    limit_resources(int(seconds))
    try:
        described: dict[str, Any] = {"datasets": list(datasets(path, folder, int(text_bytes)))}
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, MemoryError) as error:
        described = {"error": str(error).splitlines()[0] if str(error) else type(error).__name__}
    json.dump(described, sys.stdout)
    sys.stdout.flush()
    # Whatever libhdf5 would do at the end with what is damaged.
    os._exit(0)


if __name__ == "__main__":
    print_description()
