"""Arrow's arrays as NumPy's, and the other way.

Arrow's own conversions import pandas where it is installed, which takes longer than most commands.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from calibcli.arrays import NumpyArray


def host_array(array: Any) -> NumpyArray:
    """The values (n,) of an array: numbers and truth values as they are, without a copy if it may.

    Parameters
    ----------
    array : pyarrow.Array
        Without nulls, unless Arrow has something to say for them in NumPy.
    """
    import pyarrow as pa

    kind = array.type
    if array.null_count or isinstance(array, pa.ChunkedArray) or not len(array):
        return _by_arrow(array)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        numbers: NumpyArray = np.from_dlpack(array)
        return numbers
    if pa.types.is_boolean(kind):
        packed = np.frombuffer(array.buffers()[1], np.uint8)
        begin, end = array.offset, array.offset + len(array)
        bits = np.unpackbits(packed[begin // 8 : -(-end // 8)], bitorder="little")
        truths: NumpyArray = bits[begin % 8 :][: len(array)].view(bool)
        return truths
    return _by_arrow(array)


def _by_arrow(array: Any) -> NumpyArray:
    import pyarrow as pa

    if isinstance(array, pa.ChunkedArray):
        whole: NumpyArray = array.to_numpy()
        return whole
    values: NumpyArray = array.to_numpy(zero_copy_only=False)
    return values


def arrow_array(values: NumpyArray, missing: NumpyArray | None = None) -> Any:
    """Values (n,) as an Arrow array: numbers without a copy, if they lie side by side.

    Parameters
    ----------
    values : array (n,)
    missing : bool array (n,), optional
        Which of them are null.
    """
    import pyarrow as pa

    if values.dtype.kind not in "iuf" or not values.dtype.isnative or values.dtype.itemsize > 8:
        return pa.array(values, mask=missing)
    values = np.ascontiguousarray(values)
    absent = 0 if missing is None else int(missing.sum())
    there = None
    if missing is not None and absent:
        there = pa.py_buffer(np.packbits(~missing, bitorder="little"))
    kind = pa.from_numpy_dtype(values.dtype)
    # A buffer of no bytes would have no address.
    buffers = [there, pa.py_buffer(values) if len(values) else pa.py_buffer(b"\0")]
    return pa.Array.from_buffers(kind, len(values), buffers, absent)
