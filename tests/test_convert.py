"""`calib convert`: the table that it writes has the figures of what it was made of, to the bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from calibcli.cli.app import run

ROWS = 240
RANDOM = np.random.default_rng(12)
Z = (2 * RANDOM.normal(size=(ROWS, 3))).astype(np.float32)
Y = (Z + RANDOM.gumbel(size=Z.shape)).argmax(axis=1)
P = np.exp(Z.astype(float)) / np.exp(Z.astype(float)).sum(axis=1, keepdims=True)
GROUPS = np.arange(ROWS) // 4
WEIGHTS = RANDOM.integers(1, 4, ROWS)
NAMES = np.array(["cat", "dog", "fish"])


def columns(matrix: np.ndarray, pattern: str, names: list[str]) -> dict[str, np.ndarray]:
    return {pattern.replace("*", name): matrix[:, k] for k, name in enumerate(names)}


def parquet(path: Path, **arrays: object) -> str:
    pq.write_table(pa.table(arrays), path / "in.parquet")
    return str(path / "in.parquet")


def npz(path: Path, **arrays: np.ndarray) -> str:
    np.savez(path / "in.npz", **arrays)
    return str(path / "in.npz")


def text(path: Path, name: str, content: str) -> str:
    (path / name).write_text(content)
    return str(path / name)


def csv_of(path: Path) -> str:
    rows = [f"{','.join(map(repr, z.tolist()))},{NAMES[y]}" for z, y in zip(Z, Y, strict=True)]
    return text(path, "in.csv", "\n".join(["logit_cat,logit_dog,logit_fish,label", *rows]) + "\n")


def jsonl_of(path: Path) -> str:
    rows = [
        json.dumps({"response": {"scores": z.tolist()[: 3 - (k % 3 == 0 and y < 2)]}, "y": int(y)})
        for k, (z, y) in enumerate(zip(Z, Y, strict=True))
    ]
    return text(path, "in.jsonl", "\n".join(rows) + "\n")


def files_of(path: Path) -> str:
    for k in range(2):
        half = slice(k * 100, k * 100 + 100)
        np.savez(path / f"part_{k}.npz", logits=Z[half], labels=Y[half], image=GROUPS[half])
    return str(path / "part_*.npz")


def labels_beside(path: Path) -> str:
    np.save(path / "z.npy", Z)
    np.save(path / "y.npy", Y)
    return str(path / "z.npy")


IMAGES = Z[:192].reshape(4, 6, 8, 3).transpose(0, 3, 1, 2)
MASKS = np.where(RANDOM.random(192) < 0.1, 255, Y[:192]).reshape(4, 6, 8)
MEMBERS = np.stack([Z, Z + RANDOM.normal(size=Z.shape).astype("f4")])
CASES: dict[str, tuple[Callable[[Path], str], str]] = {
    "logits": (lambda p: npz(p, logits=Z, labels=Y), ""),
    "float16": (lambda p: npz(p, logits=Z.astype("f2"), labels=Y), ""),
    "float64": (lambda p: npz(p, logits=Z.astype("f8"), labels=Y), ""),
    "log-probs": (lambda p: npz(p, log_probs=np.log(P), labels=Y), ""),
    "logits-like-probs": (lambda p: npz(p, logits=P, labels=Y), "--input logits"),
    "probs-called-logits": (lambda p: npz(p, logits=P, labels=Y), "--input probs"),
    "percent": (lambda p: npz(p, scores=100 * P, labels=Y), "--input percent"),
    "sums": (lambda p: npz(p, probs=1.04 * P, labels=Y), "--input probs --renormalise"),
    "one-probability": (lambda p: npz(p, probs=P[:, 0], labels=(Y == 0).astype(int)), ""),
    "signs": (lambda p: npz(p, logits=Z[:, 1], labels=2 * (Y == 1) - 1), ""),
    "names-are-numbers": (lambda p: npz(p, logits=Z, labels=10 * Y + 10), "--classes 10,20,30"),
    "absent-class": (
        lambda p: npz(p, logits=Z[Y > 0], labels=Y[Y > 0] + 1),
        "--classes 1,2,3",
    ),
    "class-columns": (
        lambda p: parquet(p, **columns(Z, "logit_*", list(NAMES)), label=NAMES[Y]),
        "",
    ),
    "list-of-columns": (
        lambda p: parquet(p, **columns(P, "*", list(NAMES)), animal=NAMES[Y], age=Z[:, 0]),
        "--logits cat,dog,fish --labels animal",
    ),
    "ignored": (
        lambda p: npz(p, logits=Z, labels=np.where(Y == 1, -100, Y)),
        "--ignore-label=-100",
    ),
    "weights": (lambda p: npz(p, logits=Z, labels=Y, w=WEIGHTS), "--weights w"),
    "cluster": (lambda p: npz(p, logits=Z, labels=Y, user=GROUPS), "--cluster user"),
    "two-truths": (lambda p: npz(p, logits=Z, label=Y, target=Z.argmax(1)), "--labels target"),
    "csv": (csv_of, ""),
    "jsonl-ragged": (jsonl_of, "--logits response.scores"),
    "files": (files_of, "--cluster image"),
    "labels-beside": (labels_beside, "--labels {folder}/y.npy"),
    "pixels": (
        lambda p: npz(p, logits=IMAGES, labels=MASKS),
        "--ignore-label 255 --cluster image",
    ),
    "tokens": (
        lambda p: npz(p, logits=Z.reshape(12, 20, 3), labels=Y.reshape(12, 20)),
        "--sample 7",
    ),
    "mean-probs": (lambda p: npz(p, logits=MEMBERS, labels=Y), "--members mean-probs"),
    "mean-logits": (lambda p: npz(p, logits=MEMBERS, labels=Y), "--members mean-logits"),
    "each": (lambda p: npz(p, logits=MEMBERS, labels=Y), "--members each"),
}


def figures(capfd: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    """What `calib evaluate` measures, without the name of the file."""
    code = run(["evaluate", *arguments, "--format", "csv", "--bootstrap", "10", "-q"])
    out, err = capfd.readouterr()
    assert code == 0, err
    return [line.partition(",")[2] for line in out.splitlines()]


@pytest.mark.parametrize("suffix", [".parquet", ".npz", ".arrow"])
@pytest.mark.parametrize("case", CASES)
def test_a_converted_file_has_the_same_figures_without_options(
    case: str, suffix: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    make, options = CASES[case]
    given = [make(tmp_path), *options.format(folder=tmp_path).split()]
    output = str(tmp_path / f"out{suffix}")
    expected = figures(capfd, *given)
    assert run(["convert", *given, "-o", output, "-q"]) == 0, capfd.readouterr().err
    assert figures(capfd, output) == expected
    assert len(expected) > 6


def test_a_fit_of_the_rows_reads_them_converted_or_not(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    written = ["-o", str(tmp_path / "fitted.parquet"), "--force", "-q"]
    path = npz(tmp_path, scores=100 * P, labels=Y)
    params, output = str(tmp_path / "p.json"), str(tmp_path / "out.parquet")
    assert run(["fit", path, "--input", "percent", "-p", params, *written]) == 0
    assert run(["convert", path, "--input", "percent", "-o", output, "-q"]) == 0
    capfd.readouterr()
    expected = figures(capfd, path, "-p", params)
    assert figures(capfd, output, "-p", params) == expected
    again = str(tmp_path / "again.json")
    assert run(["fit", output, "-p", again, *written]) == 0
    capfd.readouterr()
    assert figures(capfd, output, "-p", again) == expected


def test_other_columns_ride_along_and_names_are_kept(tmp_path: Path) -> None:
    path = parquet(tmp_path, logits=list(Z), label=NAMES[Y], note=[f"n{k}" for k in range(ROWS)])
    output = str(tmp_path / "out.parquet")
    assert run(["convert", path, "--classes", "cat,dog,fish", "-o", output, "-q"]) == 0
    table = pq.read_table(output)
    assert table.column_names == ["logits", "label", "note"]
    assert table["note"].to_pylist() == [f"n{k}" for k in range(ROWS)]
    np.testing.assert_array_equal(table["label"].to_numpy(), Y)
    np.testing.assert_array_equal(np.stack(table["logits"].to_numpy()), Z)
    metadata = table.schema.metadata
    assert json.loads(metadata[b"calib.classes"]) == list(NAMES)
    notes = {"logits": "logits", "input": "logits", "labels": "label"}
    assert json.loads(metadata[b"calib.reading"]) == notes


def test_rows_without_labels_are_converted(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path, output = npz(tmp_path, logits=Z), str(tmp_path / "out.npz")
    assert run(["convert", path, "-o", output, "--format", "json"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert (document["command"], document["rows"], document["classes"]) == ("convert", ROWS, 3)
    with np.load(output) as arrays:
        np.testing.assert_array_equal(arrays["logits"], Z)
        assert "label" not in arrays


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("out.npy", "holds one array"),
        ("out.csv", "suffix must be one of"),
        ("in.npz", "is an input"),
    ],
)
def test_what_cannot_be_written_is_refused_before_reading(
    output: str, message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = npz(tmp_path, logits=Z, labels=Y)
    assert run(["convert", path, "-o", str(tmp_path / output)]) == 2
    assert message in capfd.readouterr().err
    assert sorted(each.name for each in tmp_path.iterdir()) == ["in.npz"]


@pytest.mark.parametrize(
    "notes",
    ["{", "[]", '{"input": "percent"}', '{"input": "probs", "logits": 3}', '{"input": {}}'],
)
def test_metadata_that_calib_did_not_write_say_nothing(
    notes: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    plain = figures(capfd, npz(tmp_path, logits=Z, labels=Y))
    table = pa.table({"logits": list(Z), "labels": Y})
    path = tmp_path / "noted.parquet"
    pq.write_table(table.replace_schema_metadata({"calib.reading": notes}), path)
    if '"logits"' not in notes:
        assert figures(capfd, str(path)) == plain


def test_what_was_picked_is_said_once_for_files_of_one_layout(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in "abc":
        np.savez(tmp_path / f"{name}.npz", logits=Z, labels=Y)
    np.savez(tmp_path / "d.npz", probs=P, labels=Y)
    inputs = [str(tmp_path / f"{name}.npz") for name in "abcd"]
    assert run(["evaluate", *inputs, "--bootstrap", "0", "--metrics", "nll"]) == 0
    lines = [
        line for line in capfd.readouterr().err.splitlines() if "key '" in line or ": input" in line
    ]
    assert [line.split(":")[1].strip() for line in lines] == ["a.npz"] * 3 + ["d.npz"] * 2
    assert "key 'probs'" in lines[3]
