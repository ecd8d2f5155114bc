"""Logits of images and sequences as rows, without moving them in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from calibcli.errors import DataError


def check_shapes(logits: Any, labels: Any, class_axis: int) -> Any:
    """The shape of the labels: that of the logits without the class axis.

    Raises
    ------
    DataError
        Other shapes or precisions.
    """
    if not -logits.ndim <= class_axis < logits.ndim or logits.ndim < 2 or 0 in logits.shape:
        raise DataError(
            f"logits must have the shape (n, K), or more axes with the classes at {class_axis}, "
            f"not {tuple(logits.shape)}"
        )
    shape = list(logits.shape)
    del shape[class_axis]
    if not logits.is_floating_point():
        raise DataError(f"logits must be floating-point numbers, not {logits.dtype}")
    if labels.is_floating_point():
        if labels.shape != logits.shape:
            raise DataError(
                f"labels must be whole numbers, or probabilities in the shape of the logits, "
                f"{tuple(logits.shape)}, not {labels.dtype} {tuple(labels.shape)}"
            )
    elif list(labels.shape) != shape:
        raise DataError(f"labels must have the shape {tuple(shape)}, not {tuple(labels.shape)}")
    elif labels.dtype == torch.bool:
        raise DataError(f"labels must be whole numbers, not {labels.dtype}")
    return shape


def as_images(logits: Any, class_axis: int) -> Any:
    """Logits (B, N, K) of B images of N rows, in a precision to compute in: a view if possible.

    Rows that lie one behind the other are those of a single image.
    """
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    logits = logits.movedim(class_axis, -1)
    count = 1 if logits.ndim == 2 or logits.is_contiguous() else logits.shape[0]
    return logits.reshape(count, -1, logits.shape[-1])


def row_labels(labels: Any, class_axis: int) -> Any:
    """Labels (n,) of all rows, or their probabilities (n, K)."""
    if labels.is_floating_point():
        labels = labels.movedim(class_axis, -1)
        return labels.reshape(-1, labels.shape[-1])
    return labels.reshape(-1).long()


def some_rows(images: Any, begin: int, end: int) -> Any:
    """Those rows (m, K) of images (B, N, K), one behind the other in memory."""
    parts = [part.reshape(-1, images.shape[2]) for part in _parts(images, begin, end)]
    return parts[0].contiguous() if len(parts) == 1 else torch.cat(parts)


def put_rows(images: Any, begin: int, rows: Any) -> None:
    """Write rows (m, K) into images (B, N, K), from that row on."""
    for part in _parts(images, begin, begin + len(rows)):
        count = part.numel() // images.shape[2]
        part.copy_(rows[:count].view(part.shape))
        rows = rows[count:]


def _parts(images: Any, begin: int, end: int) -> Iterator[Any]:
    """Views of whole images and of parts of one that together are the rows."""
    size = images.shape[1]
    while begin < end:
        image, row = divmod(begin, size)
        whole = 0 if row else (end - begin) // size
        if whole:
            yield images[image : image + whole]
            begin += whole * size
        else:
            stop = min(row + end - begin, size)
            yield images[image, row:stop]
            begin += stop - row
