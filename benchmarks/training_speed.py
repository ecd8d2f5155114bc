"""What losses cost in training beside cross-entropy, and what a large validation set needs."""

from __future__ import annotations

import math
import resource
import statistics
import sys
import time
from pathlib import Path

from harness import Line, elsewhere

SHAPES = {
    "128 x 10": (128, 10),
    "256 x 1000": (256, 1000),
    "8 x 21 x 256 x 256": (8, 21, 256, 256),
    "512 x 50,257": (512, 50_257),
}
ROUNDS = 15
PIXELS = 250_000_000
"""About those of the validation images of PASCAL VOC 2012."""

_RATIO_GOAL, _MEMORY_GOAL = 3.0, 500.0
_SMALL = 1 << 16
"""Logits below which the cost of calls counts, and there is no goal."""


def benchmark(folder: Path) -> list[Line]:
    """A line for every loss and shape, and two for the memory of an update."""
    del folder
    lines = []
    for case, shape in SHAPES.items():
        seconds = elsewhere(times, shape)
        goal = _RATIO_GOAL if math.prod(shape) > _SMALL else None
        lines += [
            Line("training", case, f"{name}, cross_entropy", own, seconds[""], at_most=goal)
            for name, own in seconds.items()
            if name
        ]
    for name in ("cals", "adafocal"):
        megabytes, passes = elsewhere(memory, name, PIXELS)
        note = f"{passes:.1f} times its forward and backward pass"
        measure = f"memory of an update of {name}"
        case = f"{PIXELS:,} pixels x 21"
        lines.append(
            Line("training", case, measure, megabytes, unit="MB", at_most=_MEMORY_GOAL, note=note)
        )
    return lines


def times(shape: tuple[int, ...], rounds: int = ROUNDS) -> dict[str, float]:
    """Least seconds of a forward and backward pass of each loss, in turns; "" is cross_entropy.

    Seconds are those of a single thread of the CPU. Memory is warmed up as by the layers of a
    network: in a process that has never freed a large block the allocator gives every matrix back
    at once, and its pages cost more than the arithmetic.
    """
    import torch

    from calibcli import torch_losses

    torch.set_num_threads(1)
    torch.ones(1 << 22)
    generator = torch.Generator().manual_seed(0)
    logits = (3 * torch.randn(shape, generator=generator)).requires_grad_()
    labels = torch.randint(shape[1], (shape[0], *shape[2:]), generator=generator)
    losses = {"": torch.nn.functional.cross_entropy}
    losses |= {name: torch_losses.loss(name) for name in torch_losses.LOSSES}
    seconds: dict[str, list[float]] = {name: [] for name in losses}
    for _ in range(1 + (rounds if math.prod(shape) < 1 << 22 else rounds // 5)):
        for name, loss in losses.items():
            logits.grad = None
            begin = time.process_time()
            loss(logits, labels).backward()
            seconds[name].append(time.process_time() - begin)
    return {name: min(values[1:]) for name, values in seconds.items()}


def memory(name: str, pixels: int, side: int = 512) -> tuple[float, float]:
    """Peak of a process (MB) that observes so many pixels, 21 classes, in batches of 4 images.

    And the time of it by that of a forward and backward pass over as many pixels.
    """
    import torch

    from calibcli import torch_losses
    from calibcli.torch_losses import SteeredLoss

    torch.set_num_threads(1)
    loss = torch_losses.loss(name)
    assert isinstance(loss, SteeredLoss)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn((4, 21, side, side), generator=generator)
    labels = torch.randint(21, (4, side, side), generator=generator)
    batches = -(-pixels // labels.numel())
    begin = time.process_time()
    with torch.no_grad(), loss.collecting():
        for number in range(batches):
            loss.observe(logits.mul_(1.5 if number % 2 else 1 / 1.5), labels)
    observing = (time.process_time() - begin) / batches
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    passes = []
    for _ in range(3):
        leaf = logits.clone().requires_grad_()
        begin = time.process_time()
        loss(leaf, labels).backward()
        passes.append(time.process_time() - begin)
    return peak, observing / statistics.median(passes)
