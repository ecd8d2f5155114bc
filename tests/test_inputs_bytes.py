"""Scores that are bytes in a cell, bfloat16 in Parquet, and whole numbers: proved, or refused."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from table_files import gather, opened

from calibcli.cli.app import run
from calibcli.errors import CalibError

RNG = np.random.default_rng(10)
ROWS = 300
LOGITS = (3 * RNG.normal(size=(ROWS, 3))).astype(np.float32)
PROBS = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
LABELS = (LOGITS / 2 + RNG.gumbel(size=LOGITS.shape)).argmax(axis=1)


def bits(array: np.ndarray) -> np.ndarray:
    """The upper halves of float32: bfloat16, cut."""
    return (np.ascontiguousarray(array, np.float32).view(np.uint32) >> 16).astype(np.uint16)


def from_bits(stored: np.ndarray) -> np.ndarray:
    return (stored.astype(np.uint32) << 16).view(np.float32)


def written(path: Path, scores: Any, labels: Any = LABELS) -> Path:
    pq.write_table(pa.table({"logits": scores, "label": labels}), path)
    return path


def cells(array: np.ndarray) -> list[bytes]:
    return [row.tobytes() for row in array]


def refusal(path: Path) -> str:
    with pytest.raises(CalibError) as caught:
        opened(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["f4", "f8", "f2"])
@pytest.mark.parametrize("is_fixed", [False, True])
def test_bytes_prove_their_type(tmp_path, kind, is_fixed):
    numbers = LOGITS.astype(kind)
    stored = pa.array(cells(numbers), pa.binary(numbers[0].nbytes) if is_fixed else pa.binary())
    with opened(written(tmp_path / "t.parquet", stored)) as dataset:
        scores, labels, _ = gather(dataset, 17)
    assert np.array_equal(scores, numbers)
    assert np.array_equal(labels, LABELS)


def test_bfloat16_is_proved_by_sums(tmp_path):
    stored = bits(PROBS)
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"probs": cells(stored), "label": LABELS}), path)
    with opened(path) as dataset:
        assert np.array_equal(gather(dataset, 17)[0], from_bits(stored))


@pytest.mark.parametrize("form", ["bytes", "numbers"])
def test_bfloat16_is_what_metadata_say(tmp_path, form):
    """As Lance writes it, and as whole numbers whose field says what they are."""
    stored = bits(LOGITS)
    if form == "bytes":
        item = pa.field("item", pa.binary(2), metadata={"ARROW:extension:name": "lance.bfloat16"})
        column = [[each.tobytes() for each in row] for row in stored]
        field = pa.field("logits", pa.list_(item, 3))
    else:
        column = stored.tolist()
        field = pa.field("logits", pa.list_(pa.uint16()), metadata={"dtype": "bfloat16"})
    schema = pa.schema([field, pa.field("label", pa.int64())])
    table = pa.table([pa.array(column, field.type), pa.array(LABELS)], schema=schema)
    pq.write_table(table, tmp_path / "t.parquet")
    with opened(tmp_path / "t.parquet") as dataset:
        assert np.array_equal(gather(dataset, 17)[0], from_bits(stored))


def programs(said: str) -> list[list[str]]:
    """The programs in a refusal, as words."""
    return [shlex.split(each) for each in re.findall(r'python -c "[^"]+"', said)]


def test_bytes_of_two_types_are_refused_with_a_program_for_each(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stored = bits(LOGITS)
    said = refusal(written(Path("t.parquet"), cells(stored)))
    half, bfloat = programs(said)
    for program, wanted in ((half, stored.view(np.float16)), (bfloat, from_bits(stored))):
        subprocess.run([sys.executable, *program[1:]], check=True)
        with opened("rows.npz") as dataset:
            assert np.array_equal(gather(dataset, 17)[0], wanted)


def test_rows_of_other_lengths_are_refused(tmp_path):
    column = [*cells(LOGITS), b"abc"]
    assert "has 3 bytes here, elsewhere 12" in refusal(
        written(tmp_path / "t.parquet", column, [*LABELS, 0])
    )
    assert "no numbers of 16, 32 or 64 bits" in refusal(
        written(tmp_path / "u.parquet", [b"abc"] * ROWS)
    )


def test_a_fit_and_what_it_is_applied_to(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    written(Path("t.parquet"), cells(LOGITS))
    written(Path("u.parquet"), LOGITS.tolist())
    figures = []
    for name in ("t.parquet", "u.parquet"):
        words = ["fit", name, "-m", "temperature", "-p", f"{name}.json", "-o", f"{name}.out"]
        words[-1] += ".parquet"
        assert run([*words, "--format", "csv", "-q"]) == 0
        figures.append(capsys.readouterr().out.replace(name, ""))
    assert figures[0] == figures[1]
    pq.write_table(pa.table({"logits": cells(LOGITS)}), "v.parquet")
    assert run(["apply", "u.parquet.json", "v.parquet", "-o", "o.parquet", "-q"]) == 0
    outputs = map(pq.read_table, ("o.parquet", "t.parquet.out.parquet"))
    probs = [each["probs"].to_pylist() for each in outputs]
    assert np.allclose(*probs)


def test_whole_numbers_are_refused_with_a_program(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    numbers = (LOGITS * 100).astype(int)
    written(Path("t.parquet"), numbers.tolist())
    np.savez("t.npz", logits=numbers, label=LABELS)
    for name in ("t.parquet", "t.npz"):
        said = refusal(Path(name))
        assert "with the scale that they have instead of 1.0" in said
        ((_, flag, program),) = programs(said)
        scaled = program.replace("1.0", "0.01")
        subprocess.run([sys.executable, flag, scaled], check=True)
        with opened("rows.npz") as dataset:
            scores, labels, _ = gather(dataset, 17)
        assert np.allclose(scores, numbers / 100)
        assert np.array_equal(labels, LABELS)


# Columns of other classes than a fit knows


@pytest.mark.parametrize("listed", ["cat dog", "cat dog fish zebra", "Cat Dog Fish"])
def test_columns_of_other_classes_are_refused_with_a_way(tmp_path, monkeypatch, capsys, listed):
    monkeypatch.chdir(tmp_path)
    names = tuple(listed.split())
    scores = np.concatenate([LOGITS, LOGITS[:, :1]], axis=1)

    def write(name: str, classes: tuple[str, ...]) -> None:
        columns = {f"logit_{each}": scores[:, k] for k, each in enumerate(classes)}
        pq.write_table(pa.table(columns | {"label": LABELS % len(classes)}), name)

    write("t.parquet", ("cat", "dog", "fish"))
    write("u.parquet", names)
    fit = ["fit", "t.parquet", "-m", "temperature", "-p", "p.json", "-o", "o.parquet", "-q"]
    assert run(fit) == 0
    capsys.readouterr()
    apply = ["apply", "p.json", "-o", "a.parquet", "-q"]
    assert run([*apply, "u.parquet"]) == 2
    said = capsys.readouterr().err
    if len(names) == 4:
        option = re.search(r"--logits \S+", said)[0].split()
        assert run([*apply, "u.parquet", *option]) == 0
    else:
        ((_, flag, program),) = programs(said)
        subprocess.run([sys.executable, flag, program], check=True)
        assert run([*apply, "rows.parquet"]) == 0
    probs = np.array(pq.read_table("a.parquet")["probs"].to_pylist())
    if len(names) == 2:
        assert not probs[:, 2].any()
    else:
        assert np.allclose(probs, pq.read_table("o.parquet")["probs"].to_pylist())
