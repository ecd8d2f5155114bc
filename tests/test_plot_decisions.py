"""Figures of decisions and periods: drawn, the same every time, and refused where senseless."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib")

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(calib_here: Any, tmp_path: Path) -> Run:
    """The command line, where there are two classes by month, and three classes."""
    rng = np.random.default_rng(0)
    odds = rng.standard_normal(1200) - 1
    labels = (rng.random(1200) < 1 / (1 + np.exp(-odds))).astype(int)
    month = np.array([f"2025-{m:02d}" for m in rng.integers(1, 7, 1200)])
    np.savez(tmp_path / "two.npz", logits=odds + 1, labels=labels, month=month)
    np.savez(tmp_path / "other.npz", logits=odds, labels=labels, month=month)
    three = rng.standard_normal((300, 3))
    np.savez(tmp_path / "three.npz", logits=three, labels=three.argmax(axis=1))
    (tmp_path / "m.csv").write_text("0,1,1\n2,0,1\n1,1,0\n")
    command: Run = calib_here
    return command


DECISIONS = ("--cost", "fp=1,fn=4", "--plot-of", "decisions", "-q", "--plot")
PERIODS = ("--by", "month", "--in-order", "--plot-of", "periods", "-q", "--plot")
BEGINNINGS = {"svg": b"<?xml", "pdf": b"%PDF", "png": b"\x89PNG"}


@pytest.mark.parametrize("kind", BEGINNINGS)
@pytest.mark.parametrize("options", [DECISIONS, PERIODS], ids=["decisions", "periods"])
def test_figures_are_the_same_every_time(
    run: Run, tmp_path: Path, options: tuple[str, ...], kind: str
) -> None:
    contents = []
    for name in ("a", "b"):
        assert run("evaluate", "two.npz", *options, f"{name}.{kind}")[0] == 0
        contents.append((tmp_path / f"{name}.{kind}").read_bytes())
    assert contents[0] == contents[1]
    assert contents[0].startswith(BEGINNINGS[kind])


def test_a_fit_several_inputs_and_many_classes_are_drawn(run: Run, tmp_path: Path) -> None:
    written = ("-p", "p.json", "-o", "o.npz", "-m", "platt")
    assert run("fit", "two.npz", *written, *DECISIONS, "fit.svg")[0] == 0
    assert run("evaluate", "two.npz", "other.npz", *DECISIONS, "both.svg")[0] == 0
    assert run("evaluate", "two.npz", "other.npz", *PERIODS, "periods.svg")[0] == 0
    many = ("--cost", "m.csv", "--plot-of", "decisions", "--plot", "many.svg")
    assert run("evaluate", "three.npz", *many)[0] == 0
    sizes = {name: (tmp_path / name).read_text() for name in ("fit.svg", "both.svg", "many.svg")}
    assert all("<path" in text for text in sizes.values())
    # Of many classes there are no thresholds to draw by.
    assert len(sizes["many.svg"]) < len(sizes["fit.svg"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--plot-of", "decisions", "--plot", "a.svg"), "draws what --cost shows; add it"),
        (
            ("--plot-of", "periods", "--plot", "a.svg", "--by", "month"),
            "draws what calib evaluate --by COL --in-order shows; add it",
        ),
        (("--plot-of", "decisions", "--cost", "fp=1,fn=2"), "there is no --plot"),
        ((*DECISIONS, "a.svg", "--plot-by", "class"), "--plot-by is about figures of reliability"),
    ],
)
def test_figures_of_nothing_are_refused(
    run: Run, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    code, out, err = run("evaluate", "two.npz", *options)
    assert (code, out) == (2, "")
    assert message in err
    assert not (tmp_path / "a.svg").exists()


def test_five_inputs_are_too_many(run: Run) -> None:
    code, _, err = run("evaluate", *["two.npz"] * 5, *DECISIONS, "a.svg")
    assert code == 2
    assert err.splitlines()[-1].endswith("at most 4 inputs, here are 5")
