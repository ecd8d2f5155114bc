"""Rebuild the sample data: logits of small networks that are too sure of themselves.

Two networks are trained on scikit-learn's handwritten digits, without weight decay and for many
epochs after they know every training image by heart. What they say about images that they have
not seen is stored. Run from anywhere::

    python sample_data/make.py [FOLDER]

The files are written beside this one, or into FOLDER, and a table of what they hold is printed.
The same versions of scikit-learn, NumPy and PyArrow write the same bytes.
"""

from __future__ import annotations

import json
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

Array = np.ndarray[Any, Any]

SEED = 20230619
CLASSES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]

NOISY_SHARE = 1 / 3
NOISE = 3.0  # standard deviation, where ink runs from 0 to 16

TRAINING_ROWS = VALIDATION_ROWS = 600  # of 1,797; the rest is the test set
EPOCHS = 400  # every training image is right after about 60

# The long-tailed pair: class 0 has this many training rows, class 9 a tenth, and so has validation.
HEAD_ROWS = 66
IMBALANCE = 10.0
BALANCED_ROWS = 44  # test rows of each class


@dataclass(frozen=True)
class Digits:
    """Pixels (n, 64) from 0 to 1, labels (n,), and whether noise was added to the image (n,)."""

    pixels: Array
    labels: Array
    noisy: Array


@dataclass(frozen=True)
class Table:
    """Rows of one file: numbers of the images (n,), logits (n, 10) and labels (n,)."""

    images: Array
    logits: Array
    labels: Array


def noisy_digits(rng: np.random.Generator) -> Digits:
    """All digits of scikit-learn, a third of them with noise, as a bad scanner would add."""
    digits = load_digits()
    pixels = digits.data.copy()
    noisy = rng.random(len(pixels)) < NOISY_SHARE
    pixels[noisy] += NOISE * rng.standard_normal((int(noisy.sum()), pixels.shape[1]))
    return Digits(pixels / 16, digits.target.astype(np.int64), noisy)


def natural_split(digits: Digits) -> tuple[Array, Array, Array]:
    """Numbers of the training, validation and test images, every class in equal shares."""
    images = np.arange(len(digits.labels))
    training, rest = train_test_split(
        images, train_size=TRAINING_ROWS, stratify=digits.labels, random_state=SEED
    )
    validation, test = train_test_split(
        rest, train_size=VALIDATION_ROWS, stratify=digits.labels[rest], random_state=SEED
    )
    return training, validation, test


def long_tailed_split(digits: Digits, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Numbers of the images: long-tailed training and validation sets, a balanced test set."""
    parts: tuple[list[Array], list[Array], list[Array]] = ([], [], [])
    for label in range(10):
        images = rng.permutation(np.flatnonzero(digits.labels == label))
        rows = round(HEAD_ROWS * IMBALANCE ** (-label / 9))
        parts[0].append(images[:rows])
        parts[1].append(images[rows : 2 * rows])
        parts[2].append(images[-BALANCED_ROWS:])
    training, validation, test = (rng.permutation(np.concatenate(part)) for part in parts)
    return training, validation, test


def train(digits: Digits, images: Array) -> MLPClassifier:
    """A network with two hidden layers, trained for far too long on some of the images."""
    network = MLPClassifier(
        hidden_layer_sizes=(64, 32),
        alpha=0.0,  # no weight decay
        learning_rate_init=3e-3,
        max_iter=EPOCHS,
        n_iter_no_change=EPOCHS,
        tol=0.0,
        random_state=SEED,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return network.fit(digits.pixels[images], digits.labels[images])


def ask(network: MLPClassifier, digits: Digits, images: Array) -> Table:
    """What the network says about some of the images, before its softmax."""
    hidden = digits.pixels[images]
    for weights, bias in zip(network.coefs_[:-1], network.intercepts_[:-1], strict=True):
        hidden = np.maximum(hidden @ weights + bias, 0)
    logits = hidden @ network.coefs_[-1] + network.intercepts_[-1]
    # Matrix products differ in their last bits between processors: four decimals do not.
    return Table(images, logits.round(4).astype(np.float32), digits.labels[images])


def write_parquet(path: Path, table: Table, digits: Digits) -> None:
    """Write a table with its image numbers and how they were scanned, and the class names."""
    values = pa.array(table.logits.ravel())
    storage = pa.FixedSizeListArray.from_arrays(values, table.logits.shape[1])
    tensor = pa.fixed_shape_tensor(pa.float32(), [table.logits.shape[1]])
    scan = np.where(digits.noisy[table.images], "noisy", "clean")
    columns = {
        "id": pa.array(table.images),
        "scan": pa.array(scan.tolist()),
        "label": pa.array(table.labels),
        "logits": pa.ExtensionArray.from_storage(tensor, storage),
    }
    metadata = {"calib.classes": json.dumps(CLASSES)}
    pq.write_table(
        pa.table(columns).replace_schema_metadata(metadata),
        path,
        compression="zstd",
        use_dictionary=["scan"],
    )


def figures(table: Table) -> dict[str, float]:
    """Accuracy, NLL, ECE (15 bins of equal width), and the temperature with the smallest NLL."""
    rows = np.arange(len(table.labels))
    logits = table.logits.astype(np.float64)

    def nll(temperature: float) -> float:
        return float(-log_softmax(logits / temperature, axis=1)[rows, table.labels].mean())

    confidence = np.exp(log_softmax(logits, axis=1)).max(axis=1)
    gaps = (logits.argmax(axis=1) == table.labels) - confidence
    bins = np.ceil(confidence * 15).astype(int)
    ece = np.abs(np.bincount(bins, weights=gaps)).sum() / len(gaps)
    temperature = minimize_scalar(nll, bounds=(0.05, 20), method="bounded").x
    return {
        "accuracy": float((logits.argmax(axis=1) == table.labels).mean()),
        "nll": nll(1.0),
        "ece": float(ece),
        "temperature": float(temperature),
        "nll_at_temperature": nll(temperature),
    }


def describe(tables: dict[str, Table]) -> str:
    """The figures of some files as a Markdown table."""
    lines = [
        "| file | rows | accuracy | NLL | ECE | best temperature | NLL at it |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, table in tables.items():
        row = figures(table)
        lines.append(
            f"| `{name}` | {len(table.labels)} | {row['accuracy']:.1%} | {row['nll']:.3f} "
            f"| {row['ece']:.3f} | {row['temperature']:.2f} | {row['nll_at_temperature']:.3f} |"
        )
    return "\n".join(lines)


def build(folder: Path) -> dict[str, Table]:
    """Train both networks, write the four files into a folder, and return what they hold."""
    rng = np.random.default_rng(SEED)
    digits = noisy_digits(rng)
    tables = {}
    training, validation, test = natural_split(digits)
    network = train(digits, training)
    for name, images in {"digits_val": validation, "digits_test": test}.items():
        table = tables[f"{name}.parquet"] = ask(network, digits, images)
        write_parquet(folder / f"{name}.parquet", table, digits)
    training, validation, test = long_tailed_split(digits, rng)
    network = train(digits, training)
    for name, images in {"digits_longtail_val": validation, "digits_longtail_test": test}.items():
        table = tables[f"{name}.npz"] = ask(network, digits, images)
        np.savez(folder / f"{name}.npz", logits=table.logits, labels=table.labels)
    return tables


def main() -> None:
    """Write the files and print their figures."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    folder.mkdir(parents=True, exist_ok=True)
    sys.stdout.write(describe(build(folder)) + "\n")


if __name__ == "__main__":
    main()
