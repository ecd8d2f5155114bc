"""What `benchmarks/training.py` trains on: MNIST-1D, balanced and long-tailed, and drawn shapes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch

CACHE = Path(__file__).parent.parent / "build" / "bench" / "mnist1d.npz"

TEST_ROWS = 20_000
POOL_ROWS = 40_000
TRAINING_ROWS, VALIDATION_ROWS = 1000, 500
IMBALANCE = 20.0
NOISE = 1.0
PIXELS_IGNORED = -100
_SIDE = 32


@dataclass(frozen=True)
class Part:
    """Inputs and labels; `PIXELS_IGNORED` for those that don't count."""

    inputs: torch.Tensor
    labels: torch.Tensor


@dataclass(frozen=True)
class Task:
    """Rows to train on, to choose and scale on, and to judge on; inputs of shifted sets by name."""

    classes: int
    training: Part
    validation: Part
    test: Part
    shifted: dict[str, torch.Tensor]
    pixels: bool = False


@cache
def mnist1d() -> dict[str, np.ndarray]:
    """All rows: ``x`` (n, 40), ``y`` (n,), and ``unseen`` (m, 40), other shapes made alike."""
    if CACHE.exists():
        with np.load(CACHE) as stored:
            return dict(stored)
    from mnist1d.data import get_dataset_args, get_templates, make_dataset

    args = get_dataset_args()
    args.num_samples, args.train_split = POOL_ROWS + TEST_ROWS, 1.0
    made = make_dataset(args)
    templates = get_templates()
    # Walks with the length and the spread of the digits' templates, which none of them resembles.
    walks = np.random.default_rng(0).standard_normal(templates["x"].shape).cumsum(axis=1)
    walks -= walks.mean(axis=1, keepdims=True)
    walks /= walks.std(axis=1, keepdims=True)
    args.num_samples = 5000
    unseen = make_dataset(args, template=templates | {"x": (walks - walks[:, :1]) / 6})
    rows = {"x": made["x"], "y": made["y"], "unseen": unseen["x"]}
    rows = {name: rows[name].astype(np.int64 if name == "y" else np.float32) for name in rows}
    CACHE.parent.mkdir(parents=True, exist_ok=True)
    np.savez(CACHE, **rows)
    return rows


def _digits(seed: int, imbalance: float) -> Task:
    stored = mnist1d()
    x, y = stored["x"], stored["y"]
    rng = np.random.default_rng(seed)
    shares = imbalance ** (-np.arange(10) / 9)
    shares /= shares.sum()
    training, validation = [], []
    for label in range(10):
        rows = rng.permutation(np.flatnonzero(y[:POOL_ROWS] == label))
        first = max(round(TRAINING_ROWS * shares[label]), 1)
        second = first + max(round(VALIDATION_ROWS * shares[label]), 1)
        training.append(rows[:first])
        validation.append(rows[first:second])

    def part(rows: np.ndarray) -> Part:
        return Part(torch.tensor(x[rows][:, None]), torch.tensor(y[rows]))

    test = part(np.arange(POOL_ROWS, POOL_ROWS + TEST_ROWS))
    noisy = test.inputs[:5000] + NOISE * torch.randn(
        test.inputs[:5000].shape, generator=torch.Generator().manual_seed(seed)
    )
    shifted = {"noise": noisy, "unseen": torch.tensor(stored["unseen"][:, None])}
    return Task(10, part(np.concatenate(training)), part(np.concatenate(validation)), test, shifted)


def _shapes(rng: np.random.Generator, images: int) -> Part:
    """Noisy images (n, 1, 32, 32) of discs, squares, crosses and rings on a background.

    Of 100 shapes 50 are discs, 30 squares, 15 crosses and 5 rings. Shapes are drawn with a
    contrast that varies; labels on the border of a shape are ignored.
    """
    down, right = np.mgrid[:_SIDE, :_SIDE]
    pictures = np.zeros((images, _SIDE, _SIDE))
    labels = np.zeros((images, _SIDE, _SIDE), np.int64)
    for picture, label in zip(pictures, labels, strict=True):
        for kind in rng.choice(4, size=3, p=[0.5, 0.3, 0.15, 0.05]):
            size = rng.uniform(3, 6)
            y, x = (np.abs(axis - rng.uniform(4, _SIDE - 4)) for axis in (down, right))
            radius = np.hypot(x, y)
            edge = (
                radius - size,
                np.maximum(x, y) - size,
                np.maximum(np.minimum(x, y) - size / 3, np.maximum(x, y) - size),
                np.abs(radius - size * 0.75) - size / 4,
            )[kind]
            inside = edge <= 0
            picture[inside] = rng.uniform(0.5, 1.2)
            label[inside] = kind + 1
            label[np.abs(edge) < 0.5] = PIXELS_IGNORED
    pictures += 0.6 * rng.standard_normal(pictures.shape)
    return Part(torch.tensor(pictures[:, None], dtype=torch.float32), torch.tensor(labels))


def _segmentation(seed: int) -> Task:
    rng = np.random.default_rng(seed)
    training, validation = _shapes(rng, 10), _shapes(rng, 60)
    test = _shapes(np.random.default_rng(1000), 200)
    return Task(5, training, validation, test, {}, pixels=True)


TASKS: dict[str, Callable[[int], Task]] = {
    "balanced": lambda seed: _digits(seed, 1.0),
    "long-tailed": lambda seed: _digits(seed, IMBALANCE),
    "segmentation": _segmentation,
}
