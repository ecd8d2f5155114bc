"""Rows without a label: refused with the way out, or left out and counted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

RNG = np.random.default_rng(5)
LOGITS = RNG.normal(size=(120, 3))
LABELS = RNG.integers(0, 3, 120)
MISSING = np.arange(120) % 7 == 3
NAMES = np.array(["cat", "dog", "eel"])


def table(path: Path, label: pa.Array) -> None:
    pq.write_table(pa.table({"logits": LOGITS.tolist(), "label": label}), path)


FORMS = {
    "integers": pa.array(LABELS, mask=MISSING),
    "floats": pa.array(np.where(MISSING, np.nan, LABELS)),
    "floats and nulls": pa.array(np.where(MISSING, 0.5, LABELS), mask=MISSING),
    "names": pa.array(NAMES[LABELS], mask=MISSING),
    "categories": pa.array(NAMES[LABELS], mask=MISSING).dictionary_encode(),
}


@pytest.mark.parametrize("form", FORMS)
def test_rows_without_a_label_are_left_out_and_counted(calib_here, tmp_path, form) -> None:
    table(tmp_path / "t.parquet", FORMS[form])
    asked = ("evaluate", "t.parquet", "--classes", "cat,dog,eel")
    code, _, err = calib_here(*asked)
    assert code == 2
    assert "row 3" in err
    assert "--unlabelled skip leaves such rows out" in err
    code, out, err = calib_here(*asked, "--unlabelled", "skip", "--format", "json")
    assert code == 0, err
    document = json.loads(out)
    assert document["input"]["dropped_rows"] == MISSING.sum()
    assert document["rows"] == (~MISSING).sum()
    right = (LOGITS.argmax(axis=1) == LABELS)[~MISSING].mean()
    assert document["metrics"]["accuracy"]["value"] == pytest.approx(right)
    code, out, _ = calib_here(*asked, "--unlabelled", "skip", "-q")
    assert code == 0
    assert f"{MISSING.sum()} rows, for their label or since they have none" in " ".join(out.split())


def test_labels_that_are_unknown_are_left_out_beside(calib_here, tmp_path) -> None:
    labels = LABELS.copy()
    labels[:10], labels[10:15] = 255, -1
    gone = MISSING | (np.arange(120) < 15)
    table(tmp_path / "t.parquet", pa.array(labels, mask=MISSING))
    code, out, err = calib_here(
        *("evaluate", "t.parquet", "--unlabelled", "skip", "--format", "json"),
        *("--ignore-label", "255", "--ignore-label", "-1"),
    )
    assert code == 0, err
    assert json.loads(out)["input"]["dropped_rows"] == gone.sum()


def test_signs_are_seen_where_labels_are_missing(calib_here, tmp_path) -> None:
    signs = np.where(LABELS > 0, 1, -1)
    pq.write_table(
        pa.table({"logit": LOGITS[:, 0], "label": pa.array(signs, mask=MISSING)}),
        tmp_path / "t.parquet",
    )
    code, out, err = calib_here("evaluate", "t.parquet", "--unlabelled", "skip", "--format", "json")
    assert code == 0, err
    right = ((LOGITS[:, 0] > 0) == (LABELS > 0))[~MISSING].mean()
    assert json.loads(out)["metrics"]["accuracy"]["value"] == pytest.approx(right)


def test_a_fit_leaves_them_out_and_writes_all_that_were_read(calib_here, tmp_path) -> None:
    table(tmp_path / "t.parquet", FORMS["integers"])
    code, _, err = calib_here(
        *("fit", "t.parquet", "--unlabelled", "skip", "-m", "temperature", "-p", "p.json"),
        *("-o", "o.parquet"),
    )
    assert code == 0, err
    assert f"left out {MISSING.sum()} of the rows" in err
    assert json.loads((tmp_path / "p.json").read_text())["fit"]["rows"] == (~MISSING).sum()


def test_no_label_at_all_is_refused(calib_here, tmp_path) -> None:
    table(tmp_path / "t.parquet", pa.array(LABELS, mask=np.ones(120, bool)))
    code, _, err = calib_here("evaluate", "t.parquet", "--unlabelled", "skip")
    assert code == 2
    assert "every row has the label that --ignore-label leaves out, or none" in err


# Names that look alike


def test_names_are_the_same_however_their_accents_are_stored(calib_here, tmp_path) -> None:
    names = ["H\u00fcndin", "cat", "eel"]
    stored = ["Hu\u0308ndin", "cat", "eel"]
    table(tmp_path / "t.parquet", pa.array([stored[k] for k in LABELS]))
    (tmp_path / "classes.txt").write_bytes("\n".join(names).encode("utf-8-sig"))
    right = (LOGITS.argmax(axis=1) == LABELS).mean()
    for classes in ("classes.txt", ",".join(names)):
        code, out, err = calib_here(
            "evaluate", "t.parquet", "--classes", classes, "--format", "json"
        )
        assert code == 0, err
        assert json.loads(out)["metrics"]["accuracy"]["value"] == pytest.approx(right)
    code, _, err = calib_here("evaluate", "t.parquet", "--classes", f"{names[0]},{stored[0]},eel")
    assert code == 2
    assert "twice" in err


def test_an_unknown_name_is_refused_with_a_way_that_works(calib_here, tmp_path) -> None:
    names = NAMES[LABELS].astype("U12")
    names[5] = "what is it"
    table(tmp_path / "t.parquet", pa.array(names))
    asked = ("evaluate", "t.parquet", "--classes", "cat,dog,eel", "-q", "--format", "json")
    code, _, err = calib_here(*asked)
    assert code == 2
    assert "row 5" in err
    assert "--ignore-label 'what is it' leaves such rows out" in " ".join(err.split())
    code, out, err = calib_here(*asked, "--ignore-label", "what is it")
    assert code == 0, err
    assert json.loads(out)["rows"] == 119


def test_hidden_labels_are_not_proposed_to_be_left_out(calib_here, tmp_path) -> None:
    table(tmp_path / "t.parquet", pa.array(np.full(120, -1)))
    code, _, err = calib_here("evaluate", "t.parquet")
    assert code == 2
    assert "calib apply needs none" in err
    assert "--ignore-label" not in err
