"""The recipes of docs/training.md for other libraries and for several processes, run as written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 300


def recipe(word: str) -> str:
    """The block of the page that has a word in it."""
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python not-run\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    (block,) = (block for block in blocks if word in block)
    return str(block)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    return tmp_path


@pytest.mark.filterwarnings("ignore")
def test_a_lightning_module_learns_at_the_end_of_each_validation(elsewhere: Path) -> None:
    names: dict[str, Any] = {"__name__": "recipe"}
    exec(recipe("pytorch_lightning"), names)  # noqa: S102
    classifier, trainer = names["classifier"], names["trainer"]
    assert classifier.loss.objective.state.updates == 3
    trainer.save_checkpoint(elsewhere / "checkpoint")
    saved = torch.load(elsewhere / "checkpoint", weights_only=True)["state_dict"]
    fresh = names["Classifier"]()
    fresh.load_state_dict(saved)
    assert fresh.loss.trace() == classifier.loss.trace()
    # The statistic is that of all validation rows at the weights after the last epoch.
    before = names["Classifier"]()
    rows = [classifier.trainer.val_dataloaders.dataset[i] for i in range(200)]
    inputs, labels = (torch.stack(part) for part in zip(*rows, strict=True))
    with torch.no_grad():
        before.loss.update(classifier.network(inputs), labels)
    assert before.loss.trace()["constraint"] == pytest.approx(
        classifier.loss.trace()["constraint"], abs=1e-5
    )


@pytest.mark.filterwarnings("ignore")
def test_the_trainer_of_transformers_gets_the_mean_over_the_tokens_of_a_step(
    elsewhere: Path,
) -> None:
    names: dict[str, Any] = {"__name__": "recipe"}
    exec(recipe("from transformers"), names)  # noqa: S102
    assert names["loss"].objective.state.updates == 3
    assert names["loss"].trace() != {}
    # With another number of batches in a step of as many rows all weights come out the same.
    weights = []
    for size, steps in ((20, 1), (5, 4), (2, 10)):
        torch.manual_seed(0)
        network = names["Tagger"]()
        arguments = names["TrainingArguments"](
            str(elsewhere),
            max_steps=4,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=steps,
            label_names=["labels"],
            report_to=[],
            save_strategy="no",
            use_cpu=True,
            learning_rate=0.1,
            optim="sgd",
            train_sampling_strategy="sequential",
        )
        names["Trainer"](
            network,
            arguments,
            train_dataset=names["rows"][:40],
            compute_loss_func=names["compute_loss"],
        ).train()
        weights.append(network.linear.weight.detach())
    torch.testing.assert_close(weights[1], weights[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(weights[2], weights[0], rtol=1e-5, atol=1e-6)


def test_two_processes_train_with_one_loss(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(recipe("DistributedDataParallel"), encoding="utf-8")
    finished = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run"),
            *("--standalone", "--nproc-per-node", "2"),
            # A file for each, as what they print in pieces into one pipe may mix.
            *("--redirects", "1", "--log-dir", str(tmp_path / "printed")),
            str(script),
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    printed = (tmp_path / "printed").rglob("stdout.log")
    lines = sorted(file.read_text(encoding="utf-8") for file in printed)
    assert [line[0] for line in lines] == ["0", "1"]
    assert lines[0][1:] == lines[1][1:] != " [1.0, 1.0, 1.0, 1.0]\n"
