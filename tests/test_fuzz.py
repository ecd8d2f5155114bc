"""The campaign of `make fuzz`, a little of it: files of every format are hurt and then read."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("resource", reason="limits need a POSIX system")
pytest.importorskip("pyarrow")
# Last, so that no module there hides a package.
sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))

import fuzz
from fuzz_inputs import FORMATS, mutation, samples

TRIES = 25


@pytest.mark.skipif(not hasattr(os, "fork"), reason="runs are forked")
@pytest.mark.parametrize("form", FORMATS)
def test_hurt_files_end_with_0_or_2(form: str) -> None:
    runs = fuzz.batch(form, range(TRIES), seed=2)
    assert [run.number for run in runs] == list(range(TRIES))
    assert [f"{run.number}: {run.fault}" for run in runs if run.fault] == []


@pytest.mark.parametrize("form", FORMATS)
def test_a_mutation_is_the_same_again_and_half_lie_past_the_header(form: str) -> None:
    hurt = [mutation(form, number, 3) for number in range(200)]
    assert hurt == [mutation(form, number, 3) for number in range(200)]
    assert sum(each.past for each in hurt) >= 100
    good = {sample.content for sample in samples(form)}
    assert sum(each.content in good for each in hurt) < 20


def test_faults_are_found() -> None:
    assert fuzz.fault_of(0, "fine\n", "calib: said\n", None) == ""
    assert fuzz.fault_of(70, "", "calib: a defect of calib\n", None).startswith("exit 70")
    assert "control" in fuzz.fault_of(2, "", "calib: \x1b[2J\n", None)
    assert "memory" in fuzz.fault_of(2, "", "calib: not enough memory (x)\n", None)
    output = '{"command": "evaluate", "metrics": {"nll": {"value": 1.0}}}'
    assert "another number" in fuzz.fault_of(0, output, "", [{"nll": {"value": 2.0}}])


def test_a_process_that_dies_is_a_fault_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def dies(_form: str, _path: Path, number: int, *_: object) -> fuzz.Run:
        if number == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if number == 2:
            signal.alarm(1)
            time.sleep(30)
        return fuzz.Run(number, 0, 0.0, 0, past=True)

    monkeypatch.setattr(fuzz, "_run_one", dies)
    faults = {run.number: run.fault for run in fuzz.batch("npy", range(4), seed=0)}
    assert faults == {0: "", 1: "ended by SIGKILL", 2: "ended by SIGALRM", 3: ""}
