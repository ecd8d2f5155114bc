"""Workers in the process of a test, and files for them with rows that end anywhere."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from table_files import write_parquet

from calibcli.engine.workers import Workers


@dataclass
class NearWorkers(Workers):
    """Workers in this process, to which everything goes as bytes."""

    place: str = "3"

    name = "near"
    form = "near:N"

    @property
    def slots(self) -> int:
        return int(self.place)

    def submit(self, slot: int, task: Callable[[], Any]) -> bytes:
        return pickle.dumps(task)

    def result(self, begun: bytes) -> Any:
        return pickle.loads(pickle.dumps(pickle.loads(begun)()))  # noqa: S301 (our own)

    def cancel(self, begun: bytes) -> None:
        pass

    def forget(self, job: str) -> None:
        pass


def write_files(
    folder: Path, classes: int = 4, rows: Sequence[int] = (130, 1, 120), **others: Any
) -> str:
    """Files of odd sizes, with row groups that end anywhere; ``others`` are columns of all rows."""
    folder.mkdir(exist_ok=True)
    rng, begin = np.random.default_rng(3), 0
    for number, count in enumerate(rows):
        labels = rng.integers(0, classes, count)
        scores = rng.normal(size=(count, classes)).astype(np.float32)
        scores[np.arange(count), labels] += 2 * rng.random(count).astype(np.float32)
        carried = {name: values[begin : begin + count] for name, values in others.items()}
        write_parquet(folder / str(number), scores, labels, groups=97, **carried)
        begin += count
    return str(folder)
