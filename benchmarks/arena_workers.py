"""Processes that fit and judge, one job after the other, and that can be stopped.

A worker lives from job to job, so that imports are not paid each time. It limits the processor
time of a job by a timer of the operating system, whose signal ends it whatever library it is in.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing.connection import Connection
from typing import Any

from arena_contenders import Contender
from arena_data import Experiment
from arena_results import CAPPED, DONE, FAILED

Table = Callable[[], Mapping[str, Contender]]
"""All contenders; a function of a module, which the worker imports."""

Opener = Callable[[str, int], Experiment]
"""The experiment of a set and a split; the worker gets it by its name, or as a `partial`."""

Result = dict[str, Any]
"""Fields of a `Record`."""

_SPAWN = multiprocessing.get_context("spawn")
_WALL_CLOCK = 30
_MEMORY_BYTES = 16 << 30
_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
_XLA_FLAGS = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"


@dataclass(frozen=True)
class Job:
    """A method on a split of a set."""

    set: str
    split: int
    method: str


class Worker:
    """A process that does jobs.

    Parameters
    ----------
    table : Table
    opener : Opener
    cap : float
        Seconds of processor time for a fit and its prediction. Where a job does not use its
        processor, thirty times as many by the clock.
    """

    def __init__(self, table: Table, opener: Opener, cap: float) -> None:
        self._settings = (table, opener, cap)
        self._cap = cap
        self.job: Job | None = None
        self._begin = 0.0
        self._start()

    def _start(self) -> None:
        os.environ.update(dict.fromkeys(_THREADS, "1"), XLA_FLAGS=_XLA_FLAGS)
        self.pipe, end = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_serve, args=(end, *self._settings), daemon=True)
        self._process.start()
        end.close()

    def give(self, job: Job) -> None:
        """Start a job."""
        self.job, self._begin = job, time.perf_counter()
        self.pipe.send(job)

    def result(self) -> Result | None:
        """What came of the job, or None if there is nothing yet.

        A worker that was ended, or has to be, is replaced.
        """
        late = time.perf_counter() - self._begin > _WALL_CLOCK * self._cap
        if not late and not self.pipe.poll():
            return None
        try:
            result = {"status": CAPPED} if late and not self.pipe.poll() else self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self._process.join()
            result = _ending(self._process.exitcode)
            late = True
        if "broken" in result:
            raise RuntimeError(f"no contenders:\n{result['broken']}")
        if late:
            self.close()
            self._start()
        if result["status"] == CAPPED:
            result["note"] = f"no end after {self._cap:g} s"
        self.job = None
        return result

    def close(self) -> None:
        """End the process, by force if it is at work."""
        self.pipe.close()
        if self.job is not None:
            self._process.kill()
        self._process.join()


def _ending(code: int | None) -> Result:
    if code == -signal.SIGPROF:
        return {"status": CAPPED}
    return {"status": FAILED, "note": f"the process ended with exit code {code}"}


def _serve(pipe: Connection, table: Table, opener: Opener, cap: float) -> None:
    # A memory that is too small is a method's failure, not that of everybody on the machine.
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY_BYTES, _MEMORY_BYTES))
    warnings.simplefilter("ignore")
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    try:
        contenders = table()
    except Exception:  # noqa: BLE001 (the parent raises it)
        pipe.send({"broken": traceback.format_exc()})
        return
    experiment = lru_cache(maxsize=1)(opener)
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        pipe.send(_play(contenders[job.method], experiment(job.set, job.split), cap))


def _play(contender: Contender, experiment: Experiment, cap: float) -> Result:
    from arena_standings import excess_nll, figures

    try:
        fit = contender.prepare()
        signal.setitimer(signal.ITIMER_PROF, cap)
        begin = time.process_time()
        unlabelled = (experiment.test,) if contender.unlabelled else ()
        predict = fit(experiment.fit, experiment.fit_labels, *unlabelled)
        fitted = time.process_time()
        probs = predict(experiment.test)
        predicted = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, 0)
        result: Result = dict(figures(probs, experiment.test_labels))
        if experiment.truth is not None:
            result["excess"] = excess_nll(probs, experiment.truth)
    except Exception as error:  # noqa: BLE001 (whatever a peer raises, the others go on)
        signal.setitimer(signal.ITIMER_PROF, 0)
        said = " ".join(str(error).split())
        return {"status": FAILED, "note": f"{type(error).__name__}: {said}"[:200]}
    times = {"fit_seconds": fitted - begin, "predict_seconds": predicted - fitted}
    return {"status": DONE, **result, **{name: round(value, 5) for name, value in times.items()}}
