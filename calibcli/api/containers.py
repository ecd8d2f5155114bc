"""Scores as callers have them, opened to arrays, and probabilities in the same kind of container.

A container is known by the library of its type, so that nothing is imported which the caller has
not imported before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.errors import DataError

Closed: TypeAlias = Callable[[NumpyArray], Any]
"""Probabilities (n, K) -> a container of them."""


def open_scores(
    scores: Any, classes: int, names: Sequence[str] | None = None
) -> tuple[NumpyArray, Closed]:
    """Scores (n, C) as an array, and how probabilities of these rows become what the caller has.

    Parameters
    ----------
    scores : array (n, K), row (K,), or (n,) or a number for two classes
        Or such a container: lists, a torch tensor, and what pandas, Polars and Arrow have.
    classes : int
    names : sequence of str, optional
        What the columns of a frame of probabilities are called.

    Raises
    ------
    DataError
        It is no array of numbers, or has a null.
    """
    library = type(scores).__module__.partition(".")[0]
    array, closed = _OPENED.get(library, _open_array)(scores, names)
    if array.dtype.kind not in "biuf":
        raise DataError(f"scores must be numbers, not of type {array.dtype}")
    if array.ndim == 1 and classes == 2:
        return array[:, None], closed
    # A row of its own, or of two classes a number; its probabilities are a row too.
    if array.shape in ((), (classes,)) and (array.ndim or classes == 2):
        return array.reshape(1, -1), lambda probs: closed(probs[0])
    if array.ndim != 2 or not array.shape[1]:
        raise DataError(f"scores must have the shape (n, K), not {array.shape}")
    return array, closed


def _open_array(scores: Any, names: Sequence[str] | None) -> tuple[NumpyArray, Closed]:
    del names
    try:
        array = np.asarray(scores)
    except (TypeError, ValueError) as error:
        raise DataError(f"scores cannot be made an array: {error}") from None
    # Whole numbers are exact in float64; in half precision nothing is computed.
    exact = array.astype(np.float64) if array.dtype.kind in "biu" else array
    return exact, lambda probs: probs


def _open_tensor(scores: Any, names: Sequence[str] | None) -> tuple[NumpyArray, Closed]:
    import torch

    del names
    if not isinstance(scores, torch.Tensor):
        return _open_array(scores, None)
    device, scores = scores.device, _wide(scores)
    return scores.cpu().numpy(), lambda probs: torch.from_numpy(probs).to(device)


def tensor_on_device(scores: Any, classes: int) -> Any:
    """Scores (n, K) that are a torch tensor on a GPU; None where they are not."""
    if getattr(getattr(scores, "device", None), "type", None) != "cuda":
        return None
    scores = _wide(scores)
    return scores if scores.ndim == 2 and scores.shape[1] == classes and len(scores) else None


def _wide(scores: Any) -> Any:
    """A tensor without its history, in a precision to compute in."""
    import torch

    scores = scores.detach()
    return scores if scores.dtype in (torch.float32, torch.float64) else scores.float()


def _open_pandas(scores: Any, names: Sequence[str] | None) -> tuple[NumpyArray, Closed]:
    import pandas as pd

    if isinstance(scores, pd.DataFrame):
        array, _ = _open_array(scores.to_numpy(), None)
        columns = names if names is not None else None if array.shape[1] == 1 else scores.columns
    else:
        values = scores.tolist() if scores.dtype == object else scores.to_numpy()
        array, columns = _open_array(values, None)[0], names

    def closed(probs: NumpyArray) -> Any:
        if probs.ndim == 1:
            return pd.Series(probs, index=names)
        return pd.DataFrame(probs, index=scores.index, columns=columns)

    return array, closed


def _open_polars(scores: Any, names: Sequence[str] | None) -> tuple[NumpyArray, Closed]:
    import polars as pl

    if not isinstance(scores, pl.DataFrame):
        _refuse_nulls(scores.is_null().to_numpy())
        values = scores.to_list() if isinstance(scores.dtype, pl.List) else scores.to_numpy()
        name = scores.name
        return _open_array(values, None)[0], lambda probs: pl.Series(name, probs)
    array, _ = _open_array(scores.to_numpy(), None)
    columns = names if names is not None else None if array.shape[1] == 1 else scores.columns
    return array, lambda probs: pl.DataFrame(probs, schema=None if columns is None else [*columns])


def _open_arrow(scores: Any, names: Sequence[str] | None) -> tuple[NumpyArray, Closed]:
    import pyarrow as pa

    if isinstance(scores, (pa.Table, pa.RecordBatch)):
        columns = [column.to_numpy(zero_copy_only=False) for column in scores.itercolumns()]
        array, _ = _open_array(np.column_stack(columns), None)
        taken = scores.schema.names if len(columns) > 1 else [str(k) for k in range(2)]
        titles = list(names or taken)
        kind = type(scores)
        return array, lambda probs: kind.from_arrays([*map(pa.array, probs.T)], titles)
    whole = scores.combine_chunks() if isinstance(scores, pa.ChunkedArray) else scores
    _refuse_nulls(whole.is_null().to_numpy(zero_copy_only=False))
    values: Any = _arrow_matrix(whole) if pa.types.is_nested(whole.type) else whole.to_numpy()
    array, _ = _open_array(values, None)
    return array, _arrow_rows


def _arrow_matrix(lists: Any) -> Any:
    """Lists of equal lengths as an array (n, K); others as lists, to be refused."""
    flat = lists.flatten()
    if not len(lists) or len(flat) % len(lists) or flat.null_count or hasattr(flat, "flatten"):
        return lists.to_pylist()
    width = len(flat) // len(lists)
    lengths = {*np.asarray(lists.value_lengths())} if hasattr(lists, "value_lengths") else {width}
    return (
        flat.to_numpy(zero_copy_only=False).reshape(-1, width)
        if lengths == {width}
        else lists.to_pylist()
    )


def _arrow_rows(probs: NumpyArray) -> Any:
    import pyarrow as pa

    if probs.ndim == 1:
        return pa.array(probs)
    return pa.FixedSizeListArray.from_arrays(pa.array(probs.ravel()), probs.shape[-1])


def _refuse_nulls(nulls: NumpyArray) -> None:
    if nulls.any():
        raise DataError(f"row {int(np.argmax(nulls))}: the scores are null")


_OPENED: dict[str, Callable[[Any, Sequence[str] | None], tuple[NumpyArray, Closed]]] = {
    "torch": _open_tensor,
    "pandas": _open_pandas,
    "polars": _open_polars,
    "pyarrow": _open_arrow,
}
