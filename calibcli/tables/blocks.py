"""Rows of NumPy arrays, as blocks of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from calibcli.engine.source import NumpyArray
from calibcli.tables.fields import RowError, Vector

NUMPY_TYPE = b"calib.numpy"
"""Field metadata: the NumPy type of a column of strings, which has a fixed width."""


class ArrayBlock:
    """Rows of the arrays of a file.

    Parameters
    ----------
    arrays : dict of str to array
        With the same number of rows.
    rows : int
    """

    def __init__(self, arrays: Mapping[str, NumpyArray], rows: int) -> None:
        self.arrays = arrays
        self._rows = rows

    def __len__(self) -> int:
        return self._rows

    def matrix(self, names: Sequence[str], width: int | None) -> NumpyArray:
        """Scores (n, C): a view of the one array, or one scalar array a class side by side."""
        if len(names) > 1:
            return np.stack([_native(self.arrays[name]) for name in names], axis=1)
        matrix = _native(self.arrays[names[0]])
        return matrix[:, None] if matrix.ndim == 1 else matrix

    def vector(self, name: str) -> Vector:
        """One value a row; strings as indices into their distinct values."""
        array = self.arrays[name].reshape(len(self))
        if array.dtype.kind == "S":
            try:
                array = np.char.decode(array, "utf-8")
            except UnicodeDecodeError as error:
                raise RowError(0, f"key {name!r} has bytes that are not UTF-8 text") from error
        if array.dtype.kind == "U":
            names, codes = np.unique(array, return_inverse=True)
            return Vector(codes.reshape(-1), tuple(map(str, names)))
        return Vector(_native(array))

    def columns(self, names: Sequence[str]) -> Any:
        """The arrays as a `pyarrow.RecordBatch`; more than two axes become a tensor column."""
        import pyarrow as pa

        arrays = [_arrow(self.arrays[name]) for name in names]
        fields = [
            pa.field(
                name,
                array.type,
                metadata={NUMPY_TYPE: kind.str} if kind.kind in "US" else None,
            )
            for name, array, kind in zip(
                names, arrays, (self.arrays[name].dtype for name in names), strict=True
            )
        ]
        return pa.record_batch(arrays, schema=pa.schema(fields))


def _native(array: NumpyArray) -> NumpyArray:
    return np.asarray(array, array.dtype.newbyteorder("="))


def _arrow(array: NumpyArray) -> Any:
    import pyarrow as pa

    array = np.require(_native(array), requirements=["C", "A"])
    if array.ndim == 1:
        return pa.array(array)
    values = pa.array(array.reshape(-1))
    storage = pa.FixedSizeListArray.from_arrays(values, int(np.prod(array.shape[1:])))
    if array.ndim == 2:
        return storage
    kind = pa.fixed_shape_tensor(values.type, list(array.shape[1:]))
    return pa.ExtensionArray.from_storage(kind, storage)
