"""`calib inspect`: what is in any file, why it is not read, and commands that do read it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from calibcli.cli.app import run

ROWS = 300
RANDOM = np.random.default_rng(8)
P = RANDOM.dirichlet(np.ones(3), ROWS)
Y = RANDOM.integers(0, 3, ROWS)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def inspected(capfd: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert run(["inspect", *arguments, "--format", "json"]) == 0, capfd.readouterr().err
    output = capfd.readouterr()
    assert not output.err
    document: dict[str, Any] = json.loads(output.out)
    return document


def test_fields_are_shown_with_some_of_their_values(capfd: pytest.CaptureFixture[str]) -> None:
    texts = [None if k == 3 else f"t{k % 2}" for k in range(ROWS)]
    scores = P.copy()
    scores[5, 1] = np.nan
    pq.write_table(
        pa.table({"probs": list(scores), "label": Y, "note": texts, "x": [{"a": 1}] * ROWS}), "f"
    )
    fields = {part["name"]: part for part in inspected(capfd, "f")["fields"]}
    assert list(fields) == ["probs", "label", "note", "x"]
    probs, label, note = fields["probs"], fields["label"], fields["note"]
    assert probs["least"] == np.nanmin(scores)
    assert probs["largest"] == np.nanmax(scores)
    assert probs["odd"] == ["NaN"]
    assert (label["least"], label["largest"], label["rows"]) == (0, 2, ROWS)
    assert sorted(label["values"]) == ["0", "1", "2"]
    assert (note["values"], note["missing"]) == (["t0", "t1"], 1)
    assert fields["x"]["values"] == ["{'a': 1}"]


@pytest.mark.parametrize(
    ("arrays", "commands"),
    [
        ({"logits": P, "labels": Y}, ["--input probs", "--input logits"]),
        (
            {"my scores": 100 * P, "it's": Y},
            ["--logits 'my scores' --labels 'it'\"'\"'s' --input percent"],
        ),
        ({"probs": P, "labels": np.where(Y == 1, -100, Y)}, ["--ignore-label=-100"]),
        (
            {"logits": np.stack([P, P]) * 9, "labels": Y},
            [f"--members {way}" for way in ("mean-probs", "mean-logits", "each")],
        ),
        (
            {"logits": P[:, 0] * 9, "labels": np.array(["no", "yes"])[Y % 2]},
            ["--classes no,yes", "--classes yes,no"],
        ),
        ({"logits": P * 9, "who": Y, "when": np.arange(ROWS)}, ["--labels who"]),
    ],
)
def test_the_commands_are_those_that_read_the_file(
    arrays: dict[str, np.ndarray], commands: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    np.savez("in.npz", **arrays)
    document = inspected(capfd, "in.npz")
    assert run(["evaluate", "in.npz"]) == 2
    assert document["refused"] in capfd.readouterr().err
    proposed = [each for each in document["commands"] if each.startswith("calib evaluate")]
    assert proposed == [f"calib evaluate in.npz {each}" for each in commands]
    for command in document["commands"]:
        words = shlex.split(command)[1:]
        more = ["-p", "p.json", "-o", "o.npz", "--force"] if words[0] == "fit" else []
        if words[0] in ("evaluate", "fit"):
            assert run([*words, *more, "-q", "--bootstrap", "0"]) == 0, capfd.readouterr().err


def test_a_file_that_is_read_as_it_is_needs_no_options(capfd: pytest.CaptureFixture[str]) -> None:
    np.savez("a b.npz", logits=9 * P, labels=Y)
    document = inspected(capfd, "a b.npz")
    assert document["refused"] is None
    assert document["commands"] == ["calib evaluate 'a b.npz'", "calib fit 'a b.npz'"]
    assert run(["inspect", "a b.npz"]) == 0
    assert "\nnext\n  calib evaluate 'a b.npz'\n" in capfd.readouterr().out


def test_options_that_were_given_stay_in_the_commands(capfd: pytest.CaptureFixture[str]) -> None:
    np.savez("in.npz", z=9 * P, labels=np.where(Y == 0, -1, Y))
    document = inspected(capfd, "in.npz", "--logits", "z", "--ignore-label", "7")
    expected = "calib evaluate in.npz --logits z --ignore-label 7 --ignore-label=-1"
    assert document["commands"][0] == expected


def test_impossible_values_are_shown_and_counted(capfd: pytest.CaptureFixture[str]) -> None:
    scores = P.copy()
    scores[88] = (-0.01, 0.5, 0.51)
    scores[200:250, 0] -= 0.015
    scores[200:250, 1] += 0.015
    bad = int((scores < 0).any(axis=1).sum())
    np.savez("in.npz", probs=scores, labels=Y)
    document = inspected(capfd, "in.npz")
    assert document["fields"][0]["least"] == scores.min()
    assert "is not a number between 0 and 1: -0.0" in document["refused"]
    assert document["refused"].endswith(f"; {bad} of {ROWS} rows cannot be used")
    assert document["commands"] == []


def test_rows_without_labels_are_for_apply(capfd: pytest.CaptureFixture[str]) -> None:
    np.savez("in.npz", logits=9 * P)
    document = inspected(capfd, "in.npz")
    assert document["commands"] == ["calib apply PARAMS.json in.npz -o calibrated.parquet"]
    assert (document["rows"], document["labels"]) == (ROWS, "none")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("empty.bin", b"", "the file is empty"),
        ("some.bin", bytes(range(256)), "the format is not known"),
        ("model.pkl", b"\x80\x04]\x94.", "docs/converting.md"),
        ("cut.parquet", b"PAR1" + bytes(40), "not a readable Parquet file"),
        ("cut.npz", b"PK\x03\x04" + bytes(40), "not a readable NPZ file"),
        ("a.json", b'{"a": 1}', "no column with a name such as logits"),
        ("a.csv", b"a,b\n1,x\n", "no column with a name such as logits"),
    ],
)
def test_what_is_not_read_is_described(
    name: str, content: bytes, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    Path(name).write_bytes(content)
    document = inspected(capfd, name)
    assert said in document["refused"]
    assert ("begins_with" in document) == (document["kind"] == "unknown")
    assert run(["inspect", name]) == 0
    assert said in capfd.readouterr().out


def test_what_is_not_there_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", "nothing.npz"]) == 2
    assert len(capfd.readouterr().err.splitlines()) == 1


def test_a_refusal_that_knows_no_way_names_this_command(
    capfd: pytest.CaptureFixture[str],
) -> None:
    pq.write_table(pa.table({"note": ["a", "b"]}), "a b.parquet")
    assert run(["evaluate", "a b.parquet"]) == 2
    assert "; calib inspect 'a b.parquet' shows what is in it" in capfd.readouterr().err
