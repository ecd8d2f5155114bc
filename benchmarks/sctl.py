"""The official results of class-wise scaling (SCTL), side by side with those of `calib`.

Fits on the long-tailed validation rows of the official logit sets and judges on their balanced test
rows, with and without class-wise scaling, for the four calibrators of the paper. ECE in percent.

    python benchmarks/sctl.py FOLDER_OF_THE_SETS
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

import calibcli

VECTORS = Path(__file__).resolve().parents[1] / "tests" / "vectors" / "vectors.json"

# The official code mixes logits in its ensemble, and its network has neither bounds nor |T|.
CALIBRATORS = {
    "TS": ("temperature", {}),
    "ETS": ("ensemble-temperature", {"ensemble-temperature.mixture": "logits"}),
    "PTS": ("parameterized-temperature", {"parameterized-temperature.form": "official"}),
    "CTS": ("class-temperature", {}),
}
OURS = {
    "ETS, mixture of probabilities": ("ensemble-temperature", {}),
    "PTS, as published": ("parameterized-temperature", {}),
    "CTS, by prediction": ("class-temperature", {"class-temperature.by": "prediction"}),
}
LOSSES = {"CE": "nll", "CL_GN": "class-wise"}
LARGEST_DIFFERENCE = 0.15


def judge(folder: Path, method: str, options: dict[str, str], loss: str) -> tuple[float, float]:
    """ECE and accuracy on the test rows, in percent."""
    val, test = np.load(folder / "val.npz"), np.load(folder / "test.npz")
    calibrator = calibcli.fit(
        val["logits"], val["labels"], method=method, loss=loss, options=options, folds=0
    )
    probs = calibrator.predict_proba(test["logits"])
    values = calibcli.evaluate(probs, test["labels"]).values
    return 100 * values["ece"], 100 * values["accuracy"]


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder with the sets, one folder each")
    data: Path = parser.parse_args().data
    vectors = json.loads(VECTORS.read_text("utf-8"))
    logs = vectors["sctl_official_logs_ece_acc_percent"]
    begin, far = time.perf_counter(), 0
    print("| logits | calibrator | nll | official | class-wise | official | gain | official |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    for folder in sorted(data.glob("sctl_*_cifar10lt")):
        name = folder.name.removeprefix("sctl_").removesuffix("_cifar10lt")
        official = logs[f"{name}_c10_LT"]
        for title, (method, options) in CALIBRATORS.items():
            ours = [judge(folder, method, options, loss)[0] for loss in LOSSES.values()]
            theirs = [official[f"{title}|{key}"][0] for key in LOSSES]
            far += sum(abs(a - b) > LARGEST_DIFFERENCE for a, b in zip(ours, theirs, strict=True))
            gains = [ours[0] - ours[1], theirs[0] - theirs[1]]
            cells = [ours[0], theirs[0], ours[1], theirs[1], *gains]
            print(f"| {name} | {title} | " + " | ".join(f"{cell:.2f}" for cell in cells) + " |")
        for title, (method, options) in OURS.items():
            ours = [judge(folder, method, options, loss)[0] for loss in LOSSES.values()]
            cells = [f"{ours[0]:.2f}", "", f"{ours[1]:.2f}", "", f"{ours[0] - ours[1]:.2f}", ""]
            print(f"| {name} | {title} | " + " | ".join(cells) + " |")
    print(
        f"\n{far} of the figures differ from the official logs by more than "
        f"{LARGEST_DIFFERENCE} points; {time.perf_counter() - begin:.0f} s."
    )


if __name__ == "__main__":
    main()
