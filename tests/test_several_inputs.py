"""Several inputs of one evaluation: their names, and how they differ on the same rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from calibcli.cli.reading import distinct, named_inputs
from calibcli.errors import UsageError

CalibHere = Callable[..., tuple[int, str, str]]
ROWS, CLASSES = 400, 3


@pytest.fixture(autouse=True)
def models(tmp_path: Path) -> Path:
    """Files of models of the same rows: good.npz, a copy of it, and bad.npz; others.npz is not."""
    generator = np.random.default_rng(5)
    logits = 2 * generator.normal(size=(ROWS, CLASSES))
    labels = (logits + generator.gumbel(size=logits.shape)).argmax(axis=1)
    np.savez(tmp_path / "good.npz", logits=logits, labels=labels)
    np.savez(tmp_path / "copy.npz", logits=logits, labels=labels)
    np.savez(tmp_path / "bad.npz", logits=3 * logits, labels=labels)
    np.savez(tmp_path / "others.npz", logits=logits[::-1], labels=labels[::-1])
    return tmp_path


JSON = ("--metrics", "nll,ece,accuracy", "-q", "--format", "json")


# Names


def test_a_name_stands_before_the_first_sign(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a=b.npz").touch()
    (tmp_path / "date=2024").mkdir()
    (tmp_path / "date=2024" / "x.npz").touch()
    for text, named in {
        "unet=u.npz": ("unet", "u.npz"),
        "my net = u.npz": ("my net", " u.npz"),
        "u=a=b.npz": ("u", "a=b.npz"),
        "s=s3://bucket/x?y=z": ("s", "s3://bucket/x?y=z"),
        # What is there is a file.
        "a=b.npz": (None, "a=b.npz"),
        "date=2024": (None, "date=2024"),
        "date=2024/x.npz": (None, "date=2024/x.npz"),
        "date=*/x.npz": (None, "date=*/x.npz"),
        # What is before the sign is no name.
        "data/date=2023/x.npz": (None, "data/date=2023/x.npz"),
        "https://host/x?y=z": (None, "https://host/x?y=z"),
        "x*=y.npz": (None, "x*=y.npz"),
        "=x.npz": (None, "=x.npz"),
        " =x.npz": (None, " =x.npz"),
        "x=": (None, "x="),
        "-": (None, "-"),
        "net=-": ("net", "-"),
    }.items():
        assert named_inputs([text]) == [named], text


def test_two_inputs_of_one_name_are_refused() -> None:
    with pytest.raises(UsageError, match="net: two inputs have this name"):
        named_inputs(["net=a.npz", "other=b.npz", "net=c.npz"])


def test_names_that_are_the_same_get_folders_or_numbers() -> None:
    names, inputs = ["x.npz", "y.npz", "x.npz"], ["a/x.npz", "y.npz", "b/x.npz"]
    assert distinct(names, inputs) == ["a/x.npz", "y.npz", "b/x.npz"]
    assert distinct(["x", "x", "x"], ["x"] * 3) == ["x", "x (2)", "x (3)"]
    assert distinct(["x (2)", "x", "x"], ["a", "x", "x"]) == ["x (2)", "x", "x (3)"]


# Differences


def test_a_copy_does_not_differ_and_a_bad_model_does(calib_here: CalibHere) -> None:
    code, out, err = calib_here("evaluate", "good.npz", "c=copy.npz", "b=bad.npz", *JSON)
    assert (code, err) == (0, "")
    document = json.loads(out)
    differences = document["differences"]
    assert (differences["against"], differences["number"]) == ("good.npz", 6)
    copy, bad = differences["inputs"]
    assert (copy["input"], bad["input"]) == ("c", "b")
    for entry in copy["metrics"].values():
        assert entry == {
            **dict.fromkeys(("value", "low", "high"), 0),
            **dict.fromkeys(("p", "adjusted_p"), 1),
            "clear": False,
        }
    good, _, worst = document["results"]
    nll = bad["metrics"]["nll"]
    values = [result["metrics"]["nll"]["value"] for result in (good, worst)]
    assert nll["value"] == values[1] - values[0]
    assert 0 < nll["low"] < nll["value"] < nll["high"]
    assert nll["clear"]
    assert nll["adjusted_p"] == pytest.approx(6 * nll["p"])
    # Its order is the same.
    assert bad["metrics"]["accuracy"]["value"] == 0


@pytest.mark.parametrize(
    ("against", "name", "best_by"),
    [(None, "b", None), ("first", "b", None), ("best", "good.npz", "nll"), ("g2", "g2", None)],
)
def test_the_reference_is_chosen(
    calib_here: CalibHere, against: str | None, name: str, best_by: str | None
) -> None:
    flags = () if against is None else ("--against", against)
    _, out, _ = calib_here("evaluate", "b=bad.npz", "good.npz", "g2=copy.npz", *JSON, *flags)
    differences = json.loads(out)["differences"]
    assert (differences["against"], differences["best_by"]) == (name, best_by)
    others = {"b", "good.npz", "g2"} - {name}
    assert {entry["input"] for entry in differences["inputs"]} == others


@pytest.mark.parametrize("kind", ["table", "markdown"])
def test_differences_are_shown_with_their_words(calib_here: CalibHere, kind: str) -> None:
    arguments = ("evaluate", "good.npz", "c=copy.npz", "b=bad.npz", "-q", "--format", kind)
    _, out, _ = calib_here(*arguments, "--metrics", "nll,accuracy")
    text = " ".join(out.replace("|", " ").split())
    assert "paired: both measured the same 400 rows" in text
    assert "Holm's correction for all 4 differences" in text
    rows = [line for line in out.replace("|", " ").splitlines() if line.split()[:1] == ["NLL"]]
    words = " ".join(rows).split()
    assert "same" in words
    assert "worse" in words
    # Intervals of the values too, which are not in the table of fewer figures.
    assert sum("[" in word for word in words) == 5


def test_inputs_of_other_rows_are_not_compared(calib_here: CalibHere) -> None:
    arguments = ("evaluate", "good.npz", "others.npz", "copy.npz")
    _, out, _ = calib_here(*arguments, *JSON)
    others, copy = json.loads(out)["differences"]["inputs"]
    assert others["reason"] == "other rows, labels, weights, clusters or ids"
    assert others["metrics"] == {}
    assert (copy["reason"], copy["metrics"]["nll"]["value"]) == (None, 0)
    for kind in ("table", "markdown"):
        _, out, _ = calib_here(*arguments, "-q", "--metrics", "nll", "--format", kind)
        assert (
            "others.npz is not compared with good.npz: other rows, labels, weights, clusters or "
            "ids." in " ".join(out.split())
        )


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (
            ("good.npz", "copy.npz", "--against", "net"),
            "--against net: is none of the inputs; they are good.npz, copy.npz",
        ),
        (("good.npz", "--against", "best"), "--against compares inputs, and there is only one"),
        (
            ("good.npz", "copy.npz", "--against", "best", "--bootstrap", "0"),
            "--against needs intervals; --bootstrap 0 has none",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(
    calib_here: CalibHere, arguments: tuple[str, ...], complaint: str
) -> None:
    code, out, err = calib_here("evaluate", *arguments, "-q")
    assert (code, out) == (2, "")
    assert err.startswith(f"calib: {complaint}")


def test_without_intervals_nothing_is_said(calib_here: CalibHere) -> None:
    _, out, _ = calib_here("evaluate", "good.npz", "copy.npz", "--bootstrap", "0", *JSON)
    assert "differences" not in json.loads(out)


def test_names_are_those_of_the_baseline(calib_here: CalibHere) -> None:
    _, out, _ = calib_here("evaluate", "a=good.npz", "b=bad.npz", *JSON)
    Path("baseline.json").write_text(out, encoding="utf-8")
    flags = ("--baseline", "baseline.json", "--fail-if", "nll.delta > 0", "--significant")
    code, out, err = calib_here("evaluate", "a=bad.npz", "b=good.npz", *JSON, *flags)
    assert code == 1
    gates = json.loads(out)["gates"]
    assert [(gate["input"], gate["passed"]) for gate in gates] == [("a", False), ("b", True)]
    assert "a: nll.delta > 0" in err


@pytest.mark.parametrize(
    ("kind", "shown"),
    [
        ("table", "Digits & <co>\n"),
        ("markdown", "### Digits & &#60;co>\n"),
        ("json", '"title": "Digits & <co>"'),
    ],
)
def test_a_title_stands_above(calib_here: CalibHere, kind: str, shown: str) -> None:
    flags = ("-q", "--title", "Digits & <co>", "--format", kind, "--report", "page.html")
    code, out, err = calib_here("evaluate", "good.npz", *flags)
    assert (code, err) == (0, "")
    assert shown in out
    page = Path("page.html").read_text(encoding="utf-8")
    assert "<title>Digits &amp; &lt;co&gt;" in page


# What is meant


def test_compare_does_not_pool_models_of_the_same_rows(calib_here: CalibHere) -> None:
    flags = ("--methods", "none,temperature", "-q", "--format", "json")
    code, out, err = calib_here("compare", "good.npz", "others.npz", "bad.npz", *flags)
    assert (code, out) == (2, "")
    assert err.startswith(
        "calib: good.npz and bad.npz have the same labels, as models of the same rows do: calib "
        "evaluate compares these"
    )
    assert err.count("\n") == 1
    _, out, _ = calib_here("compare", "good.npz", "others.npz", *flags)
    assert json.loads(out)["rows"] == 2 * ROWS
    # A pattern says that its files are parts of one table.
    _, out, _ = calib_here("compare", "[bg]*d.npz", *flags)
    assert json.loads(out)["rows"] == 2 * ROWS
