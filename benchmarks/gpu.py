"""Fits and figures on a GPU, beside the CPU of the same machine and beside plain torch.

    python benchmarks/gpu.py                    on cuda:0, in less than six minutes
    python benchmarks/gpu.py --bundle gpu.pyz   all in one file, to be run where torch and NumPy are
    python gpu.pyz

First the tests of the engine and the losses are run on the device, where pytest is installed and
the tests are there, and then figures of device and host are compared. ``--device cpu:0`` runs all
of it on torch's CPU, as the tests of this package do with ``--small``.
"""

from __future__ import annotations

import argparse
import importlib.util
import platform
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from calibcli.calibrators.chain import calibrate
from calibcli.engine.data import Data, open_data
from calibcli.engine.engine import Engine
from calibcli.engine.source import ArraySource
from calibcli.fitting.stages import fit_stages
from calibcli.metrics.panel import Panel
from calibcli.metrics.resampling import Bootstrap
from calibcli.workflow.applying import calibrated_chunks, chunk_rows
from calibcli.workflow.automatic import make_any_plan
from calibcli.workflow.fitting import fit_and_measure
from calibcli.workflow.measuring import Through, measure
from calibcli.workflow.plans import make_plan

SIZES = ((50_000, 1000), (1_000_000, 10), (4000, 128_256))
SMALL_SIZES = ((300, 20), (200, 40))
METHODS = ("temperature", "svs", "sms", "monotone", "curved-sms")
MOST_MATRIX_CLASSES = 1000
"""A matrix of more classes is as large as the rows."""

AT_MOST_SUMS, AT_MOST_OF_TORCH = 10.0, 1 / 20
"""Goals: a temperature beside a sum of all scores, and beside L-BFGS in plain torch."""

_LEAVES = {
    torch.Tensor.cpu,
    torch.Tensor.numpy,
    torch.Tensor.tolist,
    torch.Tensor.item,
    torch.Tensor.__array__,
    torch.Tensor.__float__,
    torch.Tensor.__int__,
    torch.Tensor.__bool__,
}
"""What brings numbers of a tensor to the host."""


class Transfers(TorchFunctionMode):
    """Counts what leaves the device while it is active; on torch's CPU, what would leave it.

    Attributes
    ----------
    elements : list of int
        Numbers of each transfer.
    """

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[int] = []

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function in _LEAVES:
            self.elements.append(int(args[0].numel()))
        return function(*args, **(kwargs or {}))


@dataclass(frozen=True)
class Row:
    """A line of the table: seconds, and what they are compared with."""

    case: str
    what: str
    device: float
    sums: float | None = None
    cpu: float | None = None
    plain: float | None = None
    note: str = ""

    def cells(self) -> list[str]:
        """The line as text."""
        ratios = [
            "" if other is None else f"{self.device / other:.3g}"
            for other in (self.sums, self.cpu, self.plain)
        ]
        return [self.case, self.what, f"{self.device:.4f}", *ratios, self.note]


HEADINGS = ["rows x classes", "what", "seconds", "of x.sum()", "of the CPU", "of plain torch", ""]


@dataclass
class Bench:
    """What is measured, on which device, and until when.

    Attributes
    ----------
    device : str
    deadline : float
        By `time.monotonic`; what would begin later is left out, and said.
    """

    device: str
    deadline: float
    rows: list[Row] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def wait(self) -> None:
        """Wait for the device."""
        if self.device.startswith("cuda"):
            torch.cuda.synchronize(self.device)

    def timed(self, work: Callable[[], Any], times: int = 2) -> float:
        """The least seconds of some calls, the first of which warms up."""
        seconds = []
        for _ in range(times):
            self.wait()
            begin = time.perf_counter()
            work()
            self.wait()
            seconds.append(time.perf_counter() - begin)
        return min(seconds)

    def has_time(self, what: str) -> bool:
        """Whether something may still begin."""
        if time.monotonic() < self.deadline:
            return True
        self.left_out.append(what)
        return False


def draw(rows: int, classes: int, half: bool) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels from half of them: the truth is a temperature of 2."""
    generator = np.random.default_rng(0)
    logits = np.empty((rows, classes), np.float16 if half else np.float32)
    labels = np.empty(rows, np.int64)
    step = max((1 << 24) // classes, 1)
    for begin in range(0, rows, step):
        part = slice(begin, min(begin + step, rows))
        drawn = 2 * generator.standard_normal(logits[part].shape, dtype=np.float32)
        confident = generator.integers(classes, size=len(drawn))
        drawn[np.arange(len(drawn)), confident] += 12 * generator.random(len(drawn))
        noise = -np.log(generator.standard_exponential(drawn.shape, dtype=np.float32) + 1e-30)
        logits[part], labels[part] = drawn, (drawn / 2 + noise).argmax(axis=1)
    return logits, labels


def on(device: str, logits: np.ndarray, labels: np.ndarray) -> Data:
    """The rows opened on a device."""
    return open_data(Engine(device=device), ArraySource(logits, labels), 5)


def fit(data: Data, method: str, loss: str = "nll") -> Any:
    """A fit of a method to all rows."""
    plan = make_plan(method, loss)
    return fit_stages(data, plan.families, plan.objective)


def plain_temperature(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """A temperature as it is published: L-BFGS on the logits as they are (Guo et al., 2017)."""
    scale = torch.nn.Parameter(torch.ones(1, device=logits.device))
    optimiser = torch.optim.LBFGS([scale], lr=0.1, max_iter=50, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(logits.float() * scale, labels)
        loss.backward()
        return loss

    optimiser.step(closure)
    return float(scale.detach())


def plain_ece(logits: torch.Tensor, labels: torch.Tensor, bins: int = 15) -> float:
    """The calibration error in bins of equal width, as torchmetrics computes it."""
    confidence, prediction = logits.float().softmax(dim=1).max(dim=1)
    right = (prediction == labels).float()
    place = (confidence * bins).long().clamp(max=bins - 1)
    sums = torch.zeros(3, bins, device=logits.device)
    for number, values in enumerate((torch.ones_like(right), confidence, right)):
        sums[number].index_add_(0, place, values)
    return float((sums[1] - sums[2]).abs().sum() / len(labels))


def apply(data: Data, calibrators: Any) -> None:
    """The calibrated probabilities of all rows, on the host."""
    source, engine = data.source, data.engine
    chunks = source.chunks(chunk_rows(engine, source))
    for _ in calibrated_chunks(engine, source, chunks, calibrators):
        pass


def table_of(bench: Bench, rows: int, classes: int, half: bool) -> None:
    """All lines of one size and precision."""
    case = f"{rows:,} x {classes:,}, {'float16' if half else 'float32'}"
    if not bench.has_time(case):
        return
    logits, labels = draw(rows, classes, half)
    data, host = on(bench.device, logits, labels), on("cpu", logits, labels)
    scores, of_rows = data.source.scores, data.source.labels
    accumulated = {"dtype": torch.float32} if half else {}
    sums = bench.timed(lambda: float(scores.sum(**accumulated)), 5)
    bench.rows.append(Row(case, "x.sum()", sums))
    plain = bench.timed(partial(plain_temperature, scores, of_rows))

    def line(what: str, work: Callable[[Data], Any], **compared: float) -> None:
        if not bench.has_time(f"{case}: {what}"):
            return
        with Transfers() as transfers:
            seconds = bench.timed(lambda: work(data))
        cpu = None
        if not half and bench.has_time(f"{case}: {what} on the CPU"):
            begin = time.perf_counter()
            work(host)
            cpu = time.perf_counter() - begin
        largest = max(transfers.elements, default=0)
        note = f"at most {largest:,} numbers at once to the host"
        bench.rows.append(Row(case, what, seconds, sums, cpu, compared.get("plain"), note))

    line("temperature", lambda data: fit(data, "temperature"), plain=plain)
    for method in METHODS[1:]:
        if "sms" not in method or classes <= MOST_MATRIX_CLASSES:
            line(method, lambda data, method=method: fit(data, method))
    line("temperature by class-wise loss", lambda data: fit(data, "temperature", "class-wise"))
    panel = Panel(bootstrap=Bootstrap())
    ece = bench.timed(partial(plain_ece, scores, of_rows))
    line(
        "evaluate, with intervals; plain: ECE",
        lambda data: measure(data, [Through()], panel),
        plain=ece,
    )
    calibrators = fit(data, "temperature").calibrators
    line("apply", lambda data: apply(data, calibrators))
    if classes <= MOST_MATRIX_CLASSES and not half:
        auto = make_any_plan("auto")
        line("auto", lambda data: fit_and_measure(data, auto, Panel(("nll",))))


def check(device: str) -> list[str]:
    """What differs between the device and the host, of fits, figures and probabilities."""
    wrong = []
    for method in METHODS:
        logits, labels = draw(600, 12, half=False)
        data, host = on(device, logits, labels), on("cpu", logits, labels)
        there, here = (fit(each, method).calibrators for each in (data, host))
        probs = to_host(calibrate(there, data.source.scores).softmax(dim=1))
        expected = to_host(calibrate(here, torch.from_numpy(logits)).softmax(dim=1))
        apart = float(np.abs(probs - expected).max())
        if not apart < 1e-4:
            wrong.append(f"{method}: probabilities are {apart:.2g} apart")
    return wrong


def to_host(tensor: torch.Tensor) -> np.ndarray:
    """A tensor as an array of NumPy."""
    array: np.ndarray = tensor.detach().cpu().numpy()
    return array


def run_tests(seconds: float) -> str:
    """Run the package's own tests on the GPU, where they and pytest are there, and say how."""
    tests = Path(__file__).parent.parent / "tests"
    if not tests.is_dir() or importlib.util.find_spec("pytest") is None:
        return "the package's tests are not here, or pytest is not; figures alone are compared"
    names = [str(tests / f"test_torch_{what}.py") for what in ("engine", "losses")]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-k", "cuda", *names]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds, check=False, cwd=tests.parent
        )
    except subprocess.TimeoutExpired:
        return f"the tests had not ended after {seconds:.0f} s"
    return (done.stdout.strip().splitlines() or ["no test was run"])[-1]


def described(device: str) -> str:
    """The device and the versions, in words."""
    name = platform.processor() or platform.machine()
    if device.startswith("cuda"):
        name = torch.cuda.get_device_name(device)
    return f"{device}: {name}; torch {torch.__version__}, numpy {np.__version__}"


def report(bench: Bench) -> str:
    """The table as Markdown."""
    lines = [HEADINGS, ["---"] * len(HEADINGS), *(row.cells() for row in bench.rows)]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    missed = [
        f"{row.case}: {row.what}"
        for row in bench.rows
        if row.what == "temperature"
        and not (
            row.device <= AT_MOST_SUMS * (row.sums or 1)
            and row.device <= AT_MOST_OF_TORCH * (row.plain or 1)
        )
    ]
    goals = f"goals: at most {AT_MOST_SUMS:g} x.sum(), 1/{1 / AT_MOST_OF_TORCH:.0f} of plain torch"
    text += f"\n\n{goals}; missed: {', '.join(missed) or 'none'}"
    if bench.left_out:
        text += f"\nno time was left for: {'; '.join(bench.left_out)}"
    return text


def bundle(path: Path) -> None:
    """Write a file that holds this script with all that it imports beside torch and NumPy."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(__file__, "__main__.py")
        for name in ("calibcli", "array_api_compat", "threadpoolctl"):
            spec = importlib.util.find_spec(name)
            assert spec is not None
            assert spec.origin is not None
            origin = Path(spec.origin)
            if spec.submodule_search_locations is None:
                archive.write(origin, origin.name)
                continue
            for file in sorted(origin.parent.rglob("*.py")):
                archive.write(file, file.relative_to(origin.parent.parent))


def main() -> None:
    """Check, measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--seconds", type=float, default=330, help="after which nothing begins")
    parser.add_argument("--small", action="store_true", help="sizes that only show that it runs")
    parser.add_argument("--bundle", type=Path, metavar="FILE", help="write all in one file")
    options = parser.parse_args()
    if options.bundle is not None:
        bundle(options.bundle)
        return
    begin = time.monotonic()
    print(described(options.device), flush=True)
    if options.device.startswith("cuda"):
        print(f"tests: {run_tests(options.seconds / 3)}", flush=True)
    wrong = check(options.device)
    print(f"device and host: {'; '.join(wrong) or 'the same'}", flush=True)
    bench = Bench(options.device, begin + options.seconds)
    for rows, classes in SMALL_SIZES if options.small else SIZES:
        for half in (False, True):
            table_of(bench, rows, classes, half)
    print(report(bench))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
