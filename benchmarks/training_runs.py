"""A job of `benchmarks/training.py`: small networks trained with a loss, all seeds and options.

Networks this small take longer to call than to compute, so those of a job are trained side by side,
as the groups of one convolutional network. They share nothing: gradients are clipped one by one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import training_data
from torch import nn
from training_data import Task

import calibcli
from calibcli import torch_losses

LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 0.1, 0.9, 5e-4
LARGEST_GRADIENT = 2.0


class Plan(NamedTuple):
    """How long and in which batches networks are trained, and what becomes of a batch's losses."""

    epochs: int
    batch: int
    reduction: torch_losses.Reduction


# A sum over pixels is thousands of times their mean, and would leave the clipping to do all.
ROWS, PIXELS = Plan(30, 50, "sum"), Plan(150, 2, "mean")

OPTIONS: dict[str, tuple[dict[str, Any], ...]] = {
    "cals": ({"margin": 10.0}, {"margin": 5.0}),
    "cals-hr": ({"margin": 10.0}, {"margin": 5.0}),
    "mbls": ({"margin": 10.0}, {"margin": 5.0}),
    "acls": ({"margin": 10.0}, {"margin": 5.0}),
    "bsce": ({"gamma": 2.0}, {"gamma": 1.0}),
    "bsce-gra": ({"gamma": 2.0}, {"gamma": 1.0}),
    "focal": ({"gamma": 2.0}, {"gamma": 1.0}),
    "focal-gra": ({"gamma": 2.0}, {"gamma": 1.0}),
    "dual-focal": ({"gamma": 5.0}, {"gamma": 2.0}),
    "dual-focal-gra": ({"gamma": 5.0}, {"gamma": 2.0}),
    "inverse-focal": ({"gamma": 2.0}, {"gamma": 1.0}),
    "label-smoothing": ({"smoothing": 0.05}, {"smoothing": 0.1}),
    "adafocal": ({"rate": 1.0}, {"rate": 3.0}),
    "mmce": ({"strength": 1.0}, {"strength": 3.0}),
}
"""What is tried of each loss; the others have nothing to choose."""


@dataclass(frozen=True)
class Job:
    """What is to be run: one of `training_data.TASKS`, a loss of `LOSSES`, so many seeds."""

    data: str
    loss: str
    seeds: int

    @property
    def plan(self) -> Plan:
        """How its networks are trained."""
        return PIXELS if self.data == "segmentation" else ROWS

    def way(self) -> dict[str, Any]:
        """All that figures depend on beside the job and its data, as JSON has it."""
        return {"plan": list(self.plan), "options": list(settings_of(self.loss))}


def settings_of(loss: str) -> tuple[dict[str, Any], ...]:
    """The options that are tried of a loss."""
    return OPTIONS.get(loss, ({},))


def make_networks(task: Task, count: int) -> nn.Sequential:
    """Three small convolutions and a linear map, so many times over: (B, count, ...) inputs.

    For MNIST-1D it is the network of the data's authors; that for images keeps their size.
    """
    layers: list[nn.Module]
    if task.pixels:
        shapes = ((1, 24, 3, 1), (24, 24, 3, 2), (24, 24, 3, 4), (24, task.classes, 1, 0))
        layers = [
            nn.Conv2d(i * count, o * count, k, padding=wide, dilation=max(wide, 1), groups=count)
            for i, o, k, wide in shapes
        ]
    else:
        layers = [
            nn.Conv1d(count, 25 * count, 5, stride=2, padding=1, groups=count),
            nn.Conv1d(25 * count, 25 * count, 3, stride=2, padding=1, groups=count),
            nn.Conv1d(25 * count, 25 * count, 3, stride=2, padding=1, groups=count),
            nn.Conv1d(25 * count, task.classes * count, 5, groups=count),
        ]
    return nn.Sequential(
        *(part for layer in layers[:-1] for part in (layer, nn.ReLU())), layers[-1]
    )


def make_loss(job: Job, options: dict[str, Any], task: Task) -> torch_losses.Loss:
    """The loss of a job with some options."""
    if job.loss == "macro":
        labels = task.training.labels
        counts = torch.bincount(labels[labels >= 0], minlength=task.classes)
        options = options | {"class_counts": counts}
    return torch_losses.loss(job.loss, reduction=job.plan.reduction, **options)


def train(job: Job, tasks: list[Task]) -> nn.Sequential:
    """The networks after the last epoch, all seeds of the first options first.

    Networks with the same seed start from the same weights and see the same batches, whatever
    their loss.
    """
    settings = settings_of(job.loss)
    networks = make_networks(tasks[0], len(settings) * job.seeds)
    for seed in range(job.seeds):
        torch.manual_seed(seed)
        for target, source in zip(networks, make_networks(tasks[0], 1), strict=True):
            for name, values in source.state_dict().items():
                for group in _group_of(getattr(target, name).data, len(settings), job.seeds, seed):
                    group.copy_(values)
    losses = [make_loss(job, options, task) for options in settings for task in tasks]
    epochs, size, _ = job.plan
    rows = min(len(task.training.inputs) for task in tasks)
    optimiser = torch.optim.SGD(
        networks.parameters(), LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
    )
    steps = epochs * -(-rows // size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, LEARNING_RATE, steps, pct_start=0.2, cycle_momentum=False
    )
    orders = [torch.Generator().manual_seed(seed) for seed in range(job.seeds)]
    for _ in range(epochs):
        shuffled = [torch.randperm(rows, generator=order) for order in orders]
        for start in range(0, rows, size):
            batches = [order[start : start + size] for order in shuffled]
            inputs = [t.training.inputs[b] for t, b in zip(tasks, batches, strict=True)]
            labels = [t.training.labels[b] for t, b in zip(tasks, batches, strict=True)]
            optimiser.zero_grad()
            outputs = networks(torch.cat(inputs * len(settings), dim=1)).chunk(len(losses), dim=1)
            sum(
                loss(*flattened(logits, labels[k % job.seeds]))
                for k, (loss, logits) in enumerate(zip(losses, outputs, strict=True))
            ).backward()
            clip(networks, len(losses))
            optimiser.step()
            schedule.step()
        if isinstance(losses[0], torch_losses.SteeredLoss):
            outputs = ask(networks, [task.validation.inputs for task in tasks], len(settings))
            for k, (loss, logits) in enumerate(zip(losses, outputs, strict=True)):
                loss.update(*flattened(logits, tasks[k % job.seeds].validation.labels))
    return networks


def _group_of(values: torch.Tensor, settings: int, seeds: int, seed: int) -> torch.Tensor:
    """The parameters of one seed: of (settings * seeds * m, ...) those (settings, m, ...)."""
    return values.view(settings, seeds, -1, *values.shape[1:])[:, seed]


def clip(networks: nn.Module, count: int) -> None:
    """Shorten the gradients of each network to `LARGEST_GRADIENT`."""
    gradients = [parameter.grad.view(count, -1) for parameter in networks.parameters()]
    norms = sum((each * each).sum(dim=1) for each in gradients) ** 0.5
    shares = (LARGEST_GRADIENT / (norms + 1e-6)).clamp(max=1)
    for each in gradients:
        each.mul_(shares[:, None])


def flattened(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A row a pixel: (B, K, ...) and (B, ...) -> (n, K) and (n,); one position drops out."""
    if logits.ndim == 3:
        return logits[:, :, 0], labels
    return logits.movedim(1, -1).reshape(-1, logits.shape[1]), labels.reshape(-1)


@torch.no_grad()
def ask(networks: nn.Module, inputs: list[torch.Tensor], settings: int) -> list[torch.Tensor]:
    """Logits (n, K, ...) of each network, for inputs of each seed."""
    joined = torch.cat(inputs, dim=1)
    parts = []
    for part in joined.split(500):
        outputs = networks(torch.cat([part] * settings, dim=1))
        parts.append(torch.stack(outputs.chunk(settings * len(inputs), dim=1)))
    return list(torch.cat(parts, dim=1))


def run(job: Job) -> list[dict[str, float]]:
    """Figures of each network, before and, with ``_after``, after temperature scaling.

    Returns
    -------
    list of dict
        With ``seed`` and ``setting``, a position in the options of the loss; ``temperature``,
        fitted on the validation rows, and their ``validation_nll`` with it, by which options are
        chosen; of the test rows
        ``accuracy``, ``nll``, ``brier``, ``ece``, ``chance`` (the ECE that these probabilities
        would have if they were right), and ``auroc_NAME``: how well confidence tells test rows
        from those of each shifted set.
    """
    torch.set_num_threads(1)
    tasks = [training_data.TASKS[job.data](seed) for seed in range(job.seeds)]
    settings = len(settings_of(job.loss))
    networks = train(job, tasks)
    held_out = ask(networks, [task.validation.inputs for task in tasks], settings)
    tested = ask(networks, [task.test.inputs for task in tasks], settings)
    shifted = {
        name: ask(networks, [task.shifted[name] for task in tasks], settings)
        for name in tasks[0].shifted
    }
    found = []
    for k, logits in enumerate(tested):
        setting, seed = divmod(k, job.seeds)
        task = tasks[seed]
        validation, test = known(held_out[k], task.validation), known(logits, task.test)
        temperature = float(calibcli.fit(*validation, folds=0).stages[0].temperature)
        figures = {
            "seed": seed,
            "setting": setting,
            "temperature": temperature,
            "validation_nll": _nll(validation[0] / temperature, validation[1]),
        }
        for suffix, scale in (("", 1.0), ("_after", temperature)):
            scaled = test[0] / scale
            of_test = _figures(scaled, test[1], seed)
            figures |= {name + suffix: value for name, value in of_test.items()}
            inside = softmax(scaled).max(axis=1)
            for name, outputs in shifted.items():
                outside = softmax(outputs[k][:, :, 0].double().numpy() / scale).max(axis=1)
                figures[f"auroc_{name}{suffix}"] = _auroc(inside, outside)
        found.append(figures)
    return found


def known(logits: torch.Tensor, part: training_data.Part) -> tuple[np.ndarray, np.ndarray]:
    """Logits (n, K) and labels (n,) of the rows that count."""
    rows, labels = flattened(logits, part.labels)
    counts = labels >= 0
    return rows[counts].double().numpy(), labels[counts].numpy()


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities (n, K)."""
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def _figures(logits: np.ndarray, labels: np.ndarray, seed: int) -> dict[str, float]:
    probs = softmax(logits)
    confidence, correct = probs.max(axis=1), probs.argmax(axis=1) == labels
    rng = np.random.default_rng(seed)
    chances = [_ece(confidence, rng.random(len(confidence)) < confidence) for _ in range(5)]
    label_probs = probs[np.arange(len(labels)), labels]
    return {
        "accuracy": float(correct.mean()),
        "nll": _nll(logits, labels),
        "brier": float(((probs**2).sum(axis=1) - 2 * label_probs + 1).mean()),
        "ece": _ece(confidence, correct),
        "chance": float(np.mean(chances)),
    }


def _nll(logits: np.ndarray, labels: np.ndarray) -> float:
    shifted = logits - logits.max(axis=1, keepdims=True)
    total = np.log(np.exp(shifted).sum(axis=1))
    return float((total - shifted[np.arange(len(labels)), labels]).mean())


def _ece(confidence: np.ndarray, correct: np.ndarray, bins: int = 15) -> float:
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(place, confidence - correct, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))


def _auroc(inside: np.ndarray, outside: np.ndarray) -> float:
    """Share of pairs in which the row from inside is the surer one; ties count half."""
    ordered = np.sort(outside)
    below = np.searchsorted(ordered, inside, side="left")
    upto = np.searchsorted(ordered, inside, side="right")
    return float((below + upto).mean() / 2 / len(outside))
