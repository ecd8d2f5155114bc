"""One training run: scikit-learn's digits, a small convolutional network, a loss and a seed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

import calibcli
from calibcli import torch_losses

Vector = np.ndarray[Any, Any]

EPOCHS = 40
BATCH = 32
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 0.1, 0.9, 5e-4
LARGEST_GRADIENT = 2.0

# The digits as they are: so few training images that the network gets some of the others wrong.
TRAINING_ROWS = VALIDATION_ROWS = 300
# The long-tailed cut: so many training images of digit 0, a tenth of that of digit 9, as many again
# for validation, and a test set with the same number of each.
HEAD_ROWS, IMBALANCE, BALANCED_ROWS = 64, 10.0, 46

METRICS = ("accuracy", "nll", "ece")
_DRAWS = 10


@dataclass(frozen=True)
class Job:
    """What is to be run: see `SPLITS` and `calibcli.torch_losses.LOSSES`."""

    data: str
    loss: str
    seed: int


@dataclass(frozen=True)
class Split:
    """Numbers of the training, validation and test images."""

    training: Vector
    validation: Vector
    test: Vector


@cache
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """All 1,797 images (n, 1, 8, 8) with ink from 0 to 1, and their labels (n,)."""
    loaded = load_digits()
    images = torch.tensor(loaded.images / 16, dtype=torch.float32)[:, None]
    return images, torch.tensor(loaded.target, dtype=torch.int64)


def natural_split(labels: Vector, seed: int) -> Split:
    """Every class in equal shares everywhere."""
    images = np.arange(len(labels))
    training, rest = train_test_split(
        images, train_size=TRAINING_ROWS, stratify=labels, random_state=seed
    )
    validation, test = train_test_split(
        rest, train_size=VALIDATION_ROWS, stratify=labels[rest], random_state=seed
    )
    return Split(training, validation, test)


def long_tailed_split(labels: Vector, seed: int) -> Split:
    """Long-tailed training and validation sets, a balanced test set."""
    rng = np.random.default_rng(seed)
    parts: tuple[list[Vector], list[Vector], list[Vector]] = ([], [], [])
    for label in range(10):
        images = rng.permutation(np.flatnonzero(labels == label))
        rows = round(HEAD_ROWS * IMBALANCE ** (-label / 9))
        parts[0].append(images[:rows])
        parts[1].append(images[rows : 2 * rows])
        parts[2].append(images[-BALANCED_ROWS:])
    return Split(*map(np.concatenate, parts))


SPLITS = {"digits": natural_split, "long-tailed digits": long_tailed_split}


def make_network() -> nn.Module:
    """Two convolutions and a linear layer, 10,000 parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 16, 10),
    )


def make_loss(name: str, training_labels: torch.Tensor) -> torch_losses.Loss:
    """A loss with its default options."""
    if name == "macro":
        return torch_losses.Macro(torch.bincount(training_labels))
    return torch_losses.loss(name)


def train(job: Job, split: Split) -> nn.Module:
    """The network after the last epoch.

    Networks with the same seed start from the same weights and see the same batches.
    """
    torch.manual_seed(job.seed)
    images, labels = digits()
    training, validation = torch.tensor(split.training), torch.tensor(split.validation)
    network = make_network()
    loss = make_loss(job.loss, labels[training])
    optimiser = torch.optim.SGD(
        network.parameters(), LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
    )
    steps = EPOCHS * -(-len(training) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, LEARNING_RATE, steps, pct_start=0.2, cycle_momentum=False
    )
    for _ in range(EPOCHS):
        for batch in training[torch.randperm(len(training))].split(BATCH):
            optimiser.zero_grad()
            loss(network(images[batch]), labels[batch]).backward()
            nn.utils.clip_grad_norm_(network.parameters(), LARGEST_GRADIENT)
            optimiser.step()
            schedule.step()
        if isinstance(loss, torch_losses.SteeredLoss):
            loss.update(ask(network, images[validation]), labels[validation])
    return network


@torch.no_grad()
def ask(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """The logits of some images."""
    logits: torch.Tensor = network(images)
    return logits


def run(job: Job) -> dict[str, dict[str, float]]:
    """Figures on the test images, before and after temperature scaling on the validation images.

    Returns
    -------
    dict
        By how the test images are weighted: ``"test"``, as they are, and ``"prior"``, so that the
        classes have the shares that they have in training. ``chance`` is the ECE that the scaled
        probabilities would show if labels were drawn from them.
    """
    torch.set_num_threads(1)
    images, labels = digits()
    split = SPLITS[job.data](labels.numpy(), job.seed)
    network = train(job, split)
    logits, scaled = (ask(network, images[part]).numpy() for part in (split.test, split.validation))
    validation_labels, test_labels = labels.numpy()[split.validation], labels.numpy()[split.test]
    calibrator = calibcli.fit(scaled, validation_labels, folds=0)
    probs = calibrator.predict_proba(logits)
    prior = np.bincount(labels.numpy()[split.training]) / np.bincount(test_labels)
    figures = {}
    for name, weights in {"test": None, "prior": prior[test_labels]}.items():
        before = calibcli.evaluate(
            logits, test_labels, weights=weights, input="logits", metrics=METRICS
        )
        after = calibcli.evaluate(probs, test_labels, weights=weights, metrics=METRICS)
        figures[name] = {
            **before.values,
            **{f"{metric}_after": value for metric, value in after.values.items()},
            "temperature": calibrator.stages[0].temperature,
            "chance": chance(probs, weights, job.seed),
        }
    return figures


def chance(probs: Vector, weights: Vector | None, seed: int) -> float:
    """Mean ECE of probabilities (n, K) for labels that are drawn from them."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(_DRAWS):
        drawn = np.argmax(np.cumsum(probs, axis=1) > rng.random((len(probs), 1)), axis=1)
        evaluation = calibcli.evaluate(probs, drawn, weights=weights, metrics=("ece",))
        found.append(evaluation.values["ece"])
    return float(np.mean(found))
