"""What reading and writing takes by itself: NPZ in, as many numbers out as Parquet.

Usage: pyarrow_script.py READ.npz [READ.npz ...] OUT.parquet
"""

from __future__ import annotations

import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


def main(*paths: str) -> None:
    """Read all files, and write the scores and labels of the last one."""
    *inputs, output = paths
    for path in inputs:
        with np.load(path) as file:
            scores, labels = file["logits"], file["labels"]
    column = pa.FixedSizeListArray.from_arrays(pa.array(scores.reshape(-1)), scores.shape[1])
    pq.write_table(pa.table({"probs": column, "label": labels}), output)


if __name__ == "__main__":
    main(*sys.argv[1:])
