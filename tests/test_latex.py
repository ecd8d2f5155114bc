"""Tables for LaTeX: what a compiler would choke on, and what a reader would miss."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gate_documents import evaluated
from hypothesis import given
from hypothesis import strategies as st

from calibcli.report.document import combine
from calibcli.report.render_latex import to_latex

CalibHere = Callable[..., tuple[int, str, str]]


def cells(line: str) -> list[str]:
    """The cells of a row, which ends with two backslashes."""
    assert line.endswith(r" \\")
    return re.split(r"(?<!\\)&", line.removesuffix(r" \\"))


def check(text: str) -> None:
    """What is opened is closed, rows have their cells, and nothing special is left in the text."""
    depth, place = 0, 0
    while place < len(text):
        sign = text[place]
        place += 2 if sign == "\\" else 1
        depth += {"{": 1, "}": -1}.get(sign, 0)
        assert depth >= 0
    assert depth == 0
    assert re.findall(r"\\begin\{(\w+)\}", text).count("table") == text.count(r"\end{table}")
    body = [line for line in text.splitlines() if not line.startswith("%")]
    for line in body:
        # Math is what this module writes itself, and signs of commands are between backslashes.
        left = re.sub(r"\$(\\\w+|[-+])\$|\\[&%$#_{}]|\\textasciitilde|\\textasciicircum", "", line)
        if line.startswith("    ") and line.endswith(r"\\"):
            left = left.replace("&", "")
        assert not set('$#%&~^_"<>|') & set(left), line
    columns = 0
    for line in body:
        opened = re.match(r"  \\begin\{tabular\}\{([lr]+)\}", line)
        columns = len(opened[1]) if opened else columns
        if line.startswith("    ") and line.endswith(r"\\") and "multicolumn" not in line:
            assert len(cells(line)) == columns
            assert not line.strip().startswith(("[", "*"))


def document(*names: str, **changes: Any) -> dict[str, Any]:
    parts: list[Any] = [
        evaluated(name, ece={"value": 0.1 + place}, nll={"value": 0.5 - place})
        for place, name in enumerate(names)
    ]
    for part in parts:
        part.setdefault("params", None)
    return {**combine(parts), **changes}


@given(st.lists(st.text(min_size=1), min_size=1, max_size=3), st.text())
def test_any_name_and_title_can_be_compiled(names: list[str], title: str) -> None:
    check(to_latex(document(*names, title=title)))


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a_b&c%d", r"a\_b\&c\%d"),
        (r"\input{x}", r"\textbackslash{}input\{x\}"),
        ("$x^2~#1", r"\$x\textasciicircum{}2\textasciitilde{}\#1"),
        ("a--b''", "a-{}-b'{}'"),
        ("<|>", r"\textless{}\textbar{}\textgreater{}"),
        ("two\nlines", r"two\textbackslash{}nlines"),
    ],
)
def test_names_are_shown_as_they_are(name: str, shown: str) -> None:
    assert f" & {shown} \\\\" in to_latex(document(name))


def test_numbers_have_signs_of_mathematics_and_the_best_is_bold() -> None:
    text = to_latex(document("one", "two"))
    assert r"    nll" not in text
    assert r"NLL $\downarrow$ & 0.5000 & \textbf{$-$0.5000} \\" in text
    assert r"Bold: best of its row." in text


def test_the_command_line_prints_and_writes_the_same(
    calib_here: CalibHere, sample_data: Path
) -> None:
    test = sample_data / "digits_test.parquet"
    arguments = ("evaluate", f"a={test}", f"b={test}", "-q", "--title", "Two & one", "--by-class")
    code, out, err = calib_here(*arguments, "--format", "latex", "--report", "tables.tex")
    assert (code, err) == (0, "")
    assert Path("tables.tex").read_text(encoding="utf-8") == out
    check(out)
    assert out.count(r"\caption{Two \& one.") == out.count(r"\begin{table}") == 4
    assert "Differences from a, paired" in out
    assert calib_here("compare", test, "-q", "--methods", "none,temperature", "--format", "latex")[
        1
    ].count(r"\textbf{temperature}")
