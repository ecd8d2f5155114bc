"""Hurt files of every format that is read, and what becomes of those who read them.

    python benchmarks/fuzz.py [--tries N] [--seed N] [--formats A,B] [--jobs N] [--keep FOLDER]
                              [--log FILE]

Each file goes through a command in a forked process with limits of time and memory. A command may
end with 0 or 2 and with nothing else; no message may hold a control character or be too long; and
where a checksum of the file covers what was changed, no number may come out changed. What breaks
that is printed and kept, and the exit code is 1. A campaign with a log goes on where it stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import json
import multiprocessing
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fuzz_inputs import (
    ANIMALS,
    FORMATS,
    SUFFIXES,
    Mutation,
    digest,
    mutation,
    rows,
    samples,
    tables,
)

SECONDS, MEMORY = 10, 1 << 30
"""Limits of one run: processor time, and memory above that of a process which has done nothing."""

LINE = 700
"""Characters; a longer line of a message shows a buffer, which tells nobody anything."""

PATIENCE = 120
"""Seconds after which a run is taken to hang, on a machine that has other work to do."""

BATCH = 100
"""Runs of one forked process, so that little time goes into forks."""

_CONTROL = re.compile("[\0-\x09\x0b-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class Run:
    """How one run ended.

    Attributes
    ----------
    number : int
        Of the mutation.
    code : int
        The exit code, or minus the signal.
    seconds : float
        Of processor time, all threads together.
    memory : int
        Bytes; the most that was resident above an idle process.
    past : bool
        Whether what is read first was as it should be.
    fault : str
        What was wrong with it, or nothing.
    """

    number: int
    code: int
    seconds: float
    memory: int
    past: bool
    fault: str = ""


@dataclass
class Tally:
    """The runs of a format."""

    runs: list[Run] = field(default_factory=list)

    @property
    def faults(self) -> list[Run]:
        """The runs with which something is wrong."""
        return [run for run in self.runs if run.fault]

    def row(self, form: str) -> str:
        """A line of the table."""
        codes = Counter(run.code for run in self.runs)
        count, good = len(self.runs), codes[0] + codes[2]
        past = sum(run.past for run in self.runs) / max(count, 1)
        longest = max((run.seconds for run in self.runs), default=0.0)
        largest = max((run.memory for run in self.runs), default=0) >> 20
        cells = (form, f"{count:,}", f"{past:.0%}", f"{codes[0]:,}", f"{codes[2]:,}", count - good)
        limits = (f"{longest:.1f} s", f"{largest} MB", len(self.faults))
        return f"| {' | '.join(map(str, (*cells, *limits)))} |"


HEAD = """\
| format | files | past the header | exit 0 | exit 2 | other | longest | memory | faults |
|---|--:|--:|--:|--:|--:|--:|--:|--:|"""


def commands(form: str, path: Path, number: int) -> list[list[str]]:
    """The commands that a file may go through."""
    name, folder = str(path), path.parent
    output = ["-o", str(folder / "output"), "--force", "-q"]
    measure = ["--format", "json", "--bootstrap", "0", "--memory", "64M", "--threads", "1"]
    if form == "toml":
        return [["evaluate", str(folder / "rows.npz"), "--config", name, *measure]]
    if form.startswith("params"):
        good = str(folder / "rows.npz")
        output[1] += ".npz"
        return [
            ["evaluate", good, "-p", name, "--labels", "label", *measure],
            ["apply", name, good, *output],
            ["inspect", name],
        ]
    labels = ["--labels", str(folder / "labels.npy")] if form == "npy" else []
    params = folder / ("tags.json" if form == "multi-label" else "params.json")
    if form == "multi-label":
        labels = ["--multi-label", "--classes", ",".join(ANIMALS)]
    column = {"lm-eval": "task", "helm": "trial"}.get(form, "lang")
    by = [] if form == "npy" else ["--by", column]
    output[1] += (".parquet", ".npz", ".arrow")[number % 3]
    return [
        ["evaluate", name, *labels, *measure],
        ["evaluate", name, *labels, *by, *measure],
        ["apply", str(params), name, *output],
        ["inspect", name],
    ]


def prepare(folder: Path) -> None:
    """The good files that go with the hurt ones."""
    import numpy as np

    data = rows()
    np.savez(folder / "rows.npz", **data)
    np.save(folder / "labels.npy", data["label"])
    (folder / "params.json").write_bytes(samples("params-json")[0].content)
    (folder / "tags.npz").write_bytes(samples("multi-label")[0].content)
    names = ["--multi-label", "--classes", ",".join(ANIMALS), "--bootstrap", "0", "--force"]
    outputs = ["-p", str(folder / "tags.json"), "-o", str(folder / "output.npz")]
    code, _, messages = one_run(["fit", str(folder / "tags.npz"), *names, "-m", "platt", *outputs])
    if code:
        raise RuntimeError(messages)


def describe_in_a_fork(command: Sequence[str], **_: Any) -> subprocess.CompletedProcess[bytes]:
    """Run the program that describes HDF5, as `subprocess.run` does, but in a fork.

    Its limits and what it says are the same; a new process would import h5py for each file.
    """
    from calibcli.tables.formats import hdf5_description

    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(theirs, 1)
        sys.argv = [*command[2:]]
        sys.stdout = os.fdopen(1, "w", encoding="utf-8")
        try:
            hdf5_description.print_description()
        finally:
            os._exit(1)
    os.close(theirs)
    with os.fdopen(ours, "rb") as said:
        content = said.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return subprocess.CompletedProcess(command, code, content, b"")


def one_run(arguments: list[str], content: bytes | None = None) -> tuple[int, str, str]:
    """Exit code, output and messages of the command line in this process."""
    from calibcli.cli.app import run

    stdout, stderr = (io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2))
    stdin = io.TextIOWrapper(io.BufferedReader(io.BytesIO(content or b"")))
    before = sys.stdin, sys.stdout, sys.stderr
    sys.stdin, sys.stdout, sys.stderr = stdin, stdout, stderr
    try:
        code = run(arguments)
    finally:
        sys.stdin, sys.stdout, sys.stderr = before
    said = []
    for stream in (stdout, stderr):
        stream.flush()
        said.append(stream.buffer.getvalue().decode("utf-8", "replace"))
    return code, said[0], said[1]


def metrics(output: str) -> Any:
    """The numbers of a result document."""
    from calibcli.report.document import results_of

    return [result["metrics"] for result in results_of(json.loads(output))]


def fault_of(code: int, output: str, messages: str, expected: Any) -> str:
    """What is wrong with how a command ended; nothing if all is well."""
    last = messages.strip().splitlines()[-1:] or [""]
    if code not in (0, 2):
        return f"exit {code}: {last[0][:200]}"
    if _CONTROL.search(output) or _CONTROL.search(messages):
        return "a control character was printed"
    if max(map(len, messages.splitlines()), default=0) > LINE:
        return f"exit {code}: a message that is too long: {last[0][:200]}"
    if "Traceback" in messages or "not enough memory" in messages:
        return f"exit {code}: {last[0][:200]}"
    if expected is not None and code == 0 and metrics(output) != expected:
        return "another number, in spite of a checksum"
    return ""


def work(form: str, numbers: Sequence[int], seed: int, pipe: Any) -> None:
    """Run mutations one after the other and send how each ended; the body of a forked process."""
    for ending in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(ending, signal.SIG_DFL)
    idle = _resident()
    limit = _virtual() + 4 * MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        folder = Path(name)
        prepare(folder)
        path = folder / f"hurt{SUFFIXES[form]}"
        expected: dict[bytes, Any] = {}
        for number in numbers:
            hurt = mutation(form, number, seed)
            pipe.send(("begin", number, hurt.past))
            pipe.send(_run_one(form, path, number, hurt, expected, idle))


def _run_one(
    form: str, path: Path, number: int, hurt: Mutation, expected: dict[bytes, Any], idle: int
) -> Run:
    choices = commands(form, path, number)
    arguments = choices[number % len(choices)] if hurt.same is None else choices[0]
    if hurt.same is not None and hurt.same not in expected:
        path.write_bytes(hurt.same)
        expected[hurt.same] = metrics(one_run(arguments)[1])
    path.write_bytes(hurt.content)
    stdin = form == "arrow-stream" and number % 2 == 1
    if stdin:
        arguments = ["-" if each == str(path) else each for each in arguments]
    before, begin = _forget_peak(), _processor_time()
    signal.alarm(PATIENCE)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    code, output, messages = one_run(arguments, hurt.content if stdin else None)
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.alarm(0)
    seconds = _processor_time() - begin
    wanted = None if hurt.same is None else expected[hurt.same]
    fault = fault_of(code, output, messages, wanted)
    # Where the peak cannot be forgotten, that of a run before is no fault of this one.
    memory = max(_resident() - idle, 0) if _resident() > before else 0
    if memory > MEMORY and not fault:
        fault = f"{memory >> 20} MB"
    return Run(number, code, seconds, memory, hurt.past, fault)


def _processor_time() -> float:
    """Seconds of this process and of those that it has started and seen end."""
    return sum(os.times()[:4])


def _forget_peak() -> int:
    """Set the peak of memory to what is resident, where the system can; return the peak."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        return 0
    return _resident()


def _resident() -> int:
    """The peak of resident memory in bytes."""
    with contextlib.suppress(OSError):
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        return int(status.split("VmHWM:")[1].split()[0]) << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _virtual() -> int:
    with contextlib.suppress(OSError):
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * 4096
    return 4 << 30


def batch(form: str, numbers: Sequence[int], seed: int) -> list[Run]:
    """The runs of some mutations; where a process dies, another one goes on behind the culprit."""
    runs: list[Run] = []
    left = list(numbers)
    context = multiprocessing.get_context("fork")
    while left:
        mine, theirs = context.Pipe(duplex=False)
        process = context.Process(target=work, args=(form, left, seed, theirs))
        process.start()
        theirs.close()
        begun: tuple[int, bool] | None = None
        with contextlib.suppress(EOFError):
            while True:
                message = mine.recv()
                if isinstance(message, Run):
                    runs.append(message)
                    begun = None
                else:
                    begun = message[1:]
        process.join()
        done = {run.number for run in runs}
        if begun is not None:
            code = process.exitcode or 0
            signal_name = signal.Signals(-code).name if code < 0 else f"exit {code}"
            runs.append(Run(begun[0], code, SECONDS, 0, begun[1], f"ended by {signal_name}"))
            done.add(begun[0])
        elif process.exitcode:
            raise RuntimeError(
                f"the campaign itself broke ({form}, {left[0]} and on: {process.exitcode})"
            )
        left = [number for number in left if number not in done]
    return runs


def campaign(form: str, tries: int, seed: int, jobs: int, log: str | None = None) -> Tally:
    """All runs of a format; those that a log holds are taken from there, the others added to it."""
    runs = [run for run in logged(log, form, seed) if run.number < tries]
    done = {run.number for run in runs}
    numbers = [number for number in range(tries) if number not in done]
    parts = [numbers[begin : begin + BATCH] for begin in range(0, len(numbers), BATCH)]
    with (
        ProcessPoolExecutor(jobs, multiprocessing.get_context("fork")) as pool,
        Path(log or os.devnull).open("a", encoding="utf-8") as file,
    ):
        for some in pool.map(functools.partial(_batch, form, seed), parts):
            runs += some
            lines = (json.dumps({"format": form, "seed": seed, **asdict(run)}) for run in some)
            file.writelines(f"{line}\n" for line in lines)
            file.flush()
    return Tally(runs)


def logged(log: str | None, form: str, seed: int) -> Iterator[Run]:
    """The runs of a format and a seed that a log holds."""
    if log is None or not Path(log).exists():
        return
    for line in Path(log).read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        if (entry.pop("format"), entry.pop("seed")) == (form, seed):
            yield Run(**entry)


def _batch(form: str, seed: int, numbers: Sequence[int]) -> list[Run]:
    return batch(form, numbers, seed)


def warm_up() -> None:
    """Import what commands import, so that forked processes need not, and build the parser once."""
    import typer.main

    os.environ["CALIB_CONFIG"] = ""
    if "hdf5" in FORMATS:
        # Before h5py is imported, as `calib` sets it for the process of its own.
        os.environ["HDF5_PLUGIN_PRELOAD"] = "::"
        import h5py  # noqa: F401

        from calibcli.tables.formats import hdf5

        hdf5.subprocess = SimpleNamespace(**{**vars(subprocess), "run": describe_in_a_fork})
    typer.main.get_command = functools.cache(typer.main.get_command)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        folder = Path(name)
        prepare(folder)
        for form in FORMATS:
            path = folder / f"good{SUFFIXES[form]}"
            path.write_bytes(samples(form)[0].content)
            for number, arguments in enumerate(commands(form, path, 0)):
                code, _, messages = one_run(arguments)
                if code:
                    raise RuntimeError(f"{form}, command {number} of a good file: {messages}")
    tables()


def faults(form: str, tally: Tally, seed: int, keep: str | None) -> Iterator[str]:
    """The faults of a format in words; the files are kept if a folder is given."""
    for run in tally.faults:
        content = mutation(form, run.number, seed).content
        name = f"{form}-{seed}-{run.number}-{digest(content)}{SUFFIXES[form]}"
        if keep is not None:
            Path(keep).mkdir(parents=True, exist_ok=True)
            (Path(keep) / name).write_bytes(content)
        yield f"{name}: {run.fault}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, run, print a table in Markdown and the faults."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tries", type=int, default=10_000, help="files of each format")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--formats", default=",".join(FORMATS))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--keep", help="a folder for the files that found a fault")
    parser.add_argument("--log", help="a file with a line of JSON for each run")
    options = parser.parse_args(arguments)
    warm_up()
    print(HEAD)
    found: list[str] = []
    for form in options.formats.split(","):
        tally = campaign(form, options.tries, options.seed, options.jobs, options.log)
        print(tally.row(form), flush=True)
        found += faults(form, tally, options.seed, options.keep)
    for line in found:
        print(line, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
