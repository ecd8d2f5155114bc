"""What one writes without `calib`: fit a temperature, apply it, write the probabilities.

Usage: probmetrics_script.py FIT.npz APPLY.npz OUT.parquet
"""

from __future__ import annotations

import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from probmetrics.calibrators import get_calibrator
from probmetrics.distributions import CategoricalLogits


def main(fit: str, apply: str, out: str) -> None:
    """Fit on one file, apply to another (or the same), write Parquet."""
    with np.load(fit) as file:
        logits, labels = torch.from_numpy(file["logits"]), torch.from_numpy(file["labels"])
    calibrator = get_calibrator("temp-scaling")
    calibrator.fit_torch(CategoricalLogits(logits), labels)
    if apply != fit:
        with np.load(apply) as file:
            logits = torch.from_numpy(file["logits"])
    probs = calibrator.predict_proba_torch(CategoricalLogits(logits)).get_probs().float().numpy()
    column = pa.FixedSizeListArray.from_arrays(pa.array(probs.reshape(-1)), probs.shape[1])
    pq.write_table(pa.table({"probs": column}), out)


if __name__ == "__main__":
    main(*sys.argv[1:])
