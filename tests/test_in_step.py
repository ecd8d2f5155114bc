"""Fits without each fold share their passes over the rows, and find what they found alone."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest

from calibcli.calibrators.temperature import Temperature
from calibcli.engine import in_step as module
from calibcli.engine.data import Data, open_data
from calibcli.engine.engine import Engine, Tile
from calibcli.engine.in_step import in_step
from calibcli.engine.source import ArraySource, Chunk
from calibcli.errors import DataError
from calibcli.workflow.fitted_plans import FittedPlan, fit_plan
from calibcli.workflow.plans import make_plan


class Streamed:
    """Rows that are read again with every pass, and counted."""

    kind, has_labels, has_weights, key_roles = "logits", True, False, ()

    def __init__(self, rows: ArraySource) -> None:
        self._rows = rows
        self.rows, self.columns, self.dtype = rows.rows, rows.columns, rows.dtype
        self.reads = 0
        self.broken = False

    def chunks(self, rows: int) -> Iterator[Chunk]:
        self.reads += 1
        for chunk in self._rows.chunks(rows):
            if self.broken:
                raise DataError("row 7 cannot be read")
            yield chunk

    def resident(self) -> bool:
        return False

    def cut(self, rows: int) -> list[Streamed]:
        return [self]

    def locate(self, row: int) -> str:
        return f"row {row}"


def streamed(rows: int = 90_000, classes: int = 12) -> tuple[Streamed, Data]:
    rng = np.random.default_rng(5)
    scores = (2 * rng.standard_normal((rows, classes))).astype(np.float32)
    labels = (scores / 1.5 + rng.gumbel(size=scores.shape)).argmax(axis=1)
    source = Streamed(ArraySource(scores, labels))
    return source, open_data(Engine(memory=1 << 20), source, folds=5)


def fitted(method: str, data: Data) -> FittedPlan:
    plan = make_plan(method)
    return fit_plan(plan.rows_of(data), plan)


@pytest.mark.parametrize("method", ["svs", "vector", "monotone", "gap-temperature", "monotone,svs"])
def test_each_fold_has_the_bits_of_a_fit_by_itself(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, data = streamed()
    whole, before = fitted(method, data), source.reads
    together = whole.without_folds
    passes = source.reads - before
    monkeypatch.setattr(module, "_is_worth_it", lambda *_: False)
    alone = fitted(method, data).without_folds
    for one, other in zip(together, alone, strict=True):
        assert repr([each.parameters() for each in one.calibrators]) == repr(
            [each.parameters() for each in other.calibrators]
        )
        assert one.passes == other.passes
    # A few folds that weigh their classes, and one that takes more passes than others.
    assert passes <= max(fit.passes for fit in together) + 6


def test_a_temperature_needs_no_pass_for_its_folds() -> None:
    source, data = streamed()
    whole, before = fitted("temperature", data), source.reads
    assert all(fit.converged for fit in whole.without_folds)
    assert source.reads == before


def test_passes_that_are_said_are_those_over_the_rows() -> None:
    for method in ("temperature", "svs", "monotone", "gap-temperature"):
        source, data = streamed()
        before = source.reads
        fit = fitted(method, data).fit
        assert abs(source.reads - before - fit.passes) <= 1, method


def test_rows_that_cannot_be_read_end_all() -> None:
    source, data = streamed()
    whole = fitted("svs", data)
    source.broken = True
    with pytest.raises(DataError, match="row 7"):
        _ = whole.without_folds


def test_an_error_of_one_ends_the_others_and_is_raised() -> None:
    _, data = streamed()

    def task(number: int, rows: Data) -> float:
        for _ in range(3):
            total = float(rows.fold(len_of, max))
            if number == 1:
                raise DataError("number 1 cannot")
        return total

    with pytest.raises(DataError, match="number 1"):
        in_step(data, [partial(task, number) for number in range(3)])


def test_an_interrupt_in_a_pass_is_raised_where_it_came() -> None:
    _, data = streamed()

    def interrupted(_: object) -> int:
        raise KeyboardInterrupt

    def task(rows: Data) -> int:
        return rows.fold(interrupted, max)

    with pytest.raises(KeyboardInterrupt):
        in_step(data, [task, task])


def test_they_may_end_at_different_times() -> None:
    _, data = streamed()

    def task(number: int, rows: Data) -> list[int]:
        return [rows.fold(len_of, max) for _ in range(number)]

    ended = in_step(data, [partial(task, number) for number in (0, 3, 1)])
    assert [len(each) for each in ended] == [0, 3, 1]


def len_of(tile: object) -> int:
    return len(tile)  # type: ignore[arg-type]


class Mapped(Streamed):
    """Rows that are in memory as a file has them."""

    def resident(self) -> bool:
        return True


def test_what_stages_make_of_mapped_rows_is_kept() -> None:
    rng = np.random.default_rng(1)
    scores = rng.standard_normal((5000, 30)).astype(np.float32)
    source = Mapped(ArraySource(scores, np.zeros(5000, np.int64)))
    data = open_data(Engine(), source)
    passed = data.after(Temperature(2.0))
    reads = source.reads
    assert isinstance(passed.source, ArraySource)
    assert passed.stages == ()
    total = passed.fold(sum_of, max)
    assert source.reads == reads
    again = Data(data.engine, source, data.survey, (Temperature(2.0),), normalised=True)
    assert again.fold(sum_of, max) == total


def sum_of(tile: Tile) -> float:
    return float(tile.logits.sum())
