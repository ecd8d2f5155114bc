"""The README and the pages in docs/: their examples run, and what they claim is so."""

from __future__ import annotations

import importlib.util
import inspect
import json
import pickle
import re
import sys
import tomllib
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import calibcli
from calibcli import params
from calibcli.calibrators.links import link_of
from calibcli.calibrators.registry import CALIBRATORS, MAPS, read_calibrator
from calibcli.errors import ParamsError
from calibcli.metrics.registry import METRICS
from calibcli.objectives.registry import OBJECTIVES
from calibcli.tables import names

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"


def script(name: str) -> ModuleType:
    """A script of the docs folder, as a module."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclasses look for their annotations
    spec.loader.exec_module(module)
    return module


run_blocks, make_reference = script("run_blocks"), script("make_reference")
PAGES: tuple[Path, ...] = run_blocks.PAGES
STORIES = [
    pytest.param(part, id=path.name + (f"-{number}" if number else ""))
    for path in PAGES
    for number, part in enumerate(run_blocks.sections(path))
    # Those of the commands' help are run by the tests of the help.
    if "<!-- generated: commands -->" not in part
]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def find(pattern: str, text: str) -> str:
    """The first group of a pattern, whose dots match line breaks too."""
    found = re.search(pattern, text, re.MULTILINE | re.DOTALL)
    assert found, pattern
    return found[1]


def section(page: str, heading: str) -> str:
    """What is under a heading, down to the next of its level."""
    level = len(heading.split(" ", maxsplit=1)[0])
    return find(rf"^{re.escape(heading)}$(.*?)(?=^#{{1,{level}}} |\Z)", page)


def table(page: str, heading: str) -> list[list[str]]:
    """The cells of the first table under a heading, without its head."""
    rows = find(r"((?:^\|.*?\|\n)+)", section(page, heading)).splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]


def in_code(text: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", text)


@pytest.mark.slow
@pytest.mark.parametrize("text", STORIES)
def test_examples_run_and_print_what_is_shown(text: str, tmp_path: Path) -> None:
    if re.search(r"^import torch$", text, re.MULTILINE):
        pytest.importorskip("torch")
    ran = run_blocks.comparable(run_blocks.run_page(text, tmp_path))
    assert ran == run_blocks.comparable(text), "run python docs/run_blocks.py, and look at the diff"


@pytest.mark.parametrize(
    ("page", "complaint"),
    [
        ("```console\n$ echo 1\n2\n```\n", None),
        ("```console\n$ printf '1\\n2\\n'\n1\n```\n", None),
        ("```sh\nfalse\n```\n", "exit code 1, not 0"),
        ("```sh\nfalse | true\n```\n", "exit code 1, not 0"),
        ("```sh exit-2\ntrue\n```\n", "exit code 0, not 2"),
        ("```python\nprint(1)  # 2\n```\n", None),
        ("```python\nprint(1)\n```\n", "1 lines are printed"),
        ("```python\n1 / 0\n```\n", "ZeroDivisionError"),
        ("<!-- run first\nraise KeyError(1)\n-->\n", "KeyError"),
    ],
)
def test_an_example_that_is_wrong_is_found(
    page: str, complaint: str | None, tmp_path: Path
) -> None:
    if complaint is None:
        assert run_blocks.run_page(page, tmp_path) != page
    else:
        with pytest.raises(run_blocks.BlockError, match=complaint):
            run_blocks.run_page(page, tmp_path)


def test_every_fenced_block_says_what_it_is() -> None:
    for path in PAGES:
        opening = re.findall(r"^```(.*)\n(?:.*\n)*?^```$", path.read_text("utf-8"), re.MULTILINE)
        # The tools' own files on ci.md, and programs in other languages, have tests of their own.
        allowed = r"(console|sh|python)( not-run| exit-\d+)?|yaml|groovy|make|ebnf|js|c"
        assert [words for words in opening if not re.fullmatch(allowed, words)] == [], path.name


def test_readme_speaks_of_the_numbers_that_it_shows() -> None:
    shown, said = read("README.md").split("These are real logits", maxsplit=1)
    for figure in ("2.287", "94 %", "97 %"):
        assert figure in shown
        assert figure in said.split("##")[0]


def test_readme_names_methods_and_losses_that_there_are() -> None:
    readme = read("README.md")
    methods = table(readme, "## Which method")
    for listed, _, when in methods:
        assert set(in_code(listed)) <= set(MAPS)
        if "never changes a prediction" in when:
            assert all(MAPS[name]().preserves == "order" for name in in_code(listed))
    losses = set(in_code(section(readme, "## Losses"))) - {"--loss", "calib"}
    assert len(losses) == 4
    assert losses <= set(OBJECTIVES)
    others = set(OBJECTIVES) - {"nll", "brier"}
    assert ("eighteen losses" in readme) == (len(others) == 18)


def test_readme_lists_every_dependency_and_every_page() -> None:
    readme = read("README.md")
    listed = [name for row in table(readme, "## What it needs") for name in in_code(row[0])]
    project = tomllib.loads(read("pyproject.toml"))["project"]
    needed = list(project["dependencies"])
    for extra, packages in project["optional-dependencies"].items():
        if not extra.startswith(("arena", "bench", "docs", "lint", "test")):
            needed += packages
    assert set(listed) == {each for text in needed for each in re.findall(r"^[\w-]+", text)}
    linked = set(re.findall(r"\[(docs/[a-z-]+\.md)\]\(\1\)", readme))
    assert linked == {f"docs/{path.name}" for path in DOCS.glob("*.md")}


@pytest.mark.parametrize("name", make_reference.GENERATED)
def test_generated_parts_are_up_to_date(name: str) -> None:
    assert make_reference.page(name) == read(f"docs/{name}"), "run python docs/make_reference.py"


def test_json_page_has_every_object() -> None:
    parts = re.findall(r"<!-- generated: (\w+(?:Document|Part)) -->", read("docs/json.md"))
    assert sorted(parts) == sorted(make_reference.OBJECTS)


@pytest.mark.parametrize("command", [None, *(each.name for each in make_reference.commands())])
def test_every_option_in_the_help_is_documented(
    command: str | None, calib: Callable[..., Any]
) -> None:
    page = read("docs/cli.md")
    arguments = [command] if command else []
    help_text = calib(*arguments, "--help", env={"COLUMNS": "200"}).stdout.decode()
    help_text, _, _ = help_text.partition("Examples")
    options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", help_text))
    assert options
    documented = page.split("## ", maxsplit=1)[0]
    if command:
        own = section(page, f"## calib {command}")
        shared = section(page, "## Options that commands share")
        documented += own + "".join(
            section(shared, f"### {panel}") for panel in re.findall(r"\[([\w ]+)\]\(#", own)
        )
    assert options <= set(re.findall(r"--[a-z][a-z-]+", documented))


def test_every_help_ends_with_three_examples() -> None:
    for command in make_reference.commands():
        assert len(command.examples) == 3, command.name


def anchors(text: str) -> set[str]:
    """The anchors of a page."""
    return {make_reference.anchor(each) for each in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", path.read_text(encoding="utf-8")):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        there = path.parent / file if file else path
        assert there.is_file(), target
        assert there.resolve().is_relative_to(ROOT), target
        if anchor:
            assert anchor in anchors(there.read_text(encoding="utf-8")), target


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_pages_name_no_path_of_a_machine(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    folders = r"(?<![\w.:/)])/(home|root|users|tmp|var|mnt|work|opt)\b"
    assert not re.search(folders, text, re.IGNORECASE)


def test_metrics_page_has_every_metric() -> None:
    headings = re.findall(r"^### (\w+)$", read("docs/metrics.md"), re.MULTILINE)
    assert headings == list(METRICS)


def test_params_page_has_every_key() -> None:
    keys = [in_code(row[0])[0] for row in table(read("docs/params.md"), "## Keys")]
    assert keys == list(params._KEYS)


def parameters_of(kind: str) -> set[str]:
    """The parameters that a stage asks for, by its complaints that one is missing."""
    given: dict[str, None] = {}
    while missing := re.search(r"parameter '(\w+)' is missing", complaint(kind, given)):
        given[missing[1]] = None
    return set(given)


def complaint(kind: str, given: dict[str, Any]) -> str:
    try:
        read_calibrator(kind, given, 2)
    except ParamsError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("kind", CALIBRATORS)
def test_params_page_has_every_stage_and_its_parameters(kind: str) -> None:
    described = section(read("docs/params.md"), f"### {kind}")
    rows = table(read("docs/params.md"), f"### {kind}") if "| parameter |" in described else []
    assert parameters_of(kind) <= {name for row in rows for name in in_code(row[0])}


def test_params_page_has_every_key_of_a_fit() -> None:
    page = read("docs/params.md")
    example = json.loads(find(r"^\$ cat .*?\n(\{.*?^\})$", page))
    described = {key for row in table(page, "### fit") for key in in_code(row[0])}
    assert described == set(example["fit"])


@pytest.mark.parametrize("loss", [n for n, kind in OBJECTIVES.items() if kind().link()])
def test_params_page_has_the_options_of_every_link(loss: str) -> None:
    link = link_of(OBJECTIVES[loss]())
    assert link is not None
    rows = {in_code(row[0])[0]: row[2] for row in table(read("docs/params.md"), "### link")}
    assert set(link.parameters()) <= set(rows)
    assert all(f"`{loss}`" in rows[option] for option in link.options)


def test_python_page_has_every_parameter() -> None:
    page = read("docs/python.md")
    for function in (calibcli.fit, calibcli.evaluate):
        signature = " ".join(find(rf"`calibcli\.{function.__name__}\((.*?)\)`", page).split())
        parameters = inspect.signature(function).parameters.values()
        shown = [str(p.replace(annotation=p.empty)).replace("'", '"') for p in parameters]
        shown.insert([p.kind for p in parameters].index(inspect.Parameter.KEYWORD_ONLY), "*")
        assert signature == ", ".join(shown)


def yes_or_no(value: bool) -> str:
    return "yes" if value else "no"


def test_losses_page_says_of_every_loss_what_it_is() -> None:
    rows = {in_code(row[0])[0]: row[1:4] for row in table(read("docs/losses.md"), "## All losses")}
    assert rows == {
        name: [
            yes_or_no(kind.proper),
            "–" if kind.proper else yes_or_no(kind().link() is not None),  # noqa: RUF001 (as on the page)
            "inner split"
            if kind.learns == "on validation rows"
            else yes_or_no(kind.learns != "nothing"),
        ]
        for name, kind in OBJECTIVES.items()
    }


def test_formulas_of_the_links_are_those_in_use() -> None:
    formulas = {
        in_code(row[0])[0]: in_code(row[1])[0] for row in table(read("docs/losses.md"), "## Links")
    }
    assert set(formulas) == {name for name, kind in OBJECTIVES.items() if kind().link()}
    q = np.random.default_rng(5).dirichlet(np.full(4, 2.0))
    ranked = np.sort(q)
    rival = np.concatenate(([0.0], ranked[:-1]))[np.argsort(np.argsort(q))]
    q = 0.1 * q + 0.9 / 4  # every class has more than the share that label smoothing spreads
    rival = np.where(rival > 0, 0.1 * rival + 0.9 / 4, 0)
    for loss, formula in formulas.items():
        options = OBJECTIVES[loss]().options()
        values = {"q": q, "q_j": rival, "square": q @ q, "K": 4, "ln": np.log}
        values |= {
            "\N{GREEK SMALL LETTER GAMMA}": options.get("gamma"),
            "s": options.get("smoothing"),
        }
        code = formula.replace("^", "**").replace("·", "*").replace("Σq²", "square")
        weighed = q / eval(code, values)  # noqa: S307 (our own page)
        link = link_of(OBJECTIVES[loss]())
        assert link is not None
        found = np.exp(link.log_probs(np.log(q)[None])[0])
        np.testing.assert_allclose(found, weighed / weighed.sum(), rtol=1e-10, err_msg=loss)


def test_losses_page_has_every_criterion() -> None:
    rows = section(read("docs/losses.md"), "## How a fit is solved").split("| criterion |")[1]
    described = {
        name for cell in re.findall(r"^\| (`.*?) \|", rows, re.MULTILINE) for name in in_code(cell)
    }
    lines = [
        line
        for path in (ROOT / "calibcli" / "fitting").glob("*.py")
        for line in path.read_text("utf-8").splitlines()
        if re.search(
            r"Solution\(.*\)|criterion ?=|return note|CERTIFIED_GAP \*|return point, ",
            line,
        )
    ]
    ends = {name for line in lines for name in re.findall(r'"([a-z ]+)"', line)}
    # One is replaced by what it means, the other is of cross-fitting alone.
    assert described == ends - {"unbounded", "one step"}


@pytest.mark.parametrize("loss", ["cals", "cals-hr", "adafocal"])
def test_losses_page_has_every_key_of_a_trace(loss: str) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=300)
    logits = 3 * rng.standard_normal((300, 3)) + 4 * np.eye(3)[labels]
    outcome = calibcli.fit(logits, labels, loss=loss, folds=0).outcome
    assert outcome is not None
    rows = table(read("docs/losses.md"), "### A round")
    described = {key: row[2] for row in rows for key in in_code(row[0])}
    own = {key for entry in outcome.fit.stages[0].trace for key in entry}
    common = {"round", "loss", "nll", "ece"}
    assert common <= own
    assert own - common == {
        key for key, text in described.items() if f"`{loss}`" in text.split(":")[0]
    }


def test_inputs_page_has_every_name_that_is_tried() -> None:
    rows = table(read("docs/inputs.md"), "## Columns")
    assert {what: tuple(in_code(tried)) for what, tried in rows} == {
        "scores, a vector a row": names.SCORES,
        "scores, a column a class": names.FAMILIES,
        "labels": names.LABELS,
    }


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_the_recipe_for_pickles_reads_arrays_and_nothing_else(
    protocol: int, tmp_path: Path
) -> None:
    import numpy as np

    scope: dict[str, Any] = {}
    code = find(r"^```python\n(import pickle.*?)\n\n\nwith", read("docs/converting.md"))
    exec(code, scope)  # noqa: S102 (our own page)

    def load(value: Any) -> Any:
        path = tmp_path / "value.p"
        path.write_bytes(pickle.dumps(value, protocol))
        with path.open("rb") as file:
            return scope["ArrayUnpickler"](file, encoding="latin1").load()

    arrays = (np.arange(6, dtype="f4").reshape(2, 3), np.array([[1], [2]]), [np.float64(2), "a"])
    for read_again, stored in zip(load(arrays), arrays, strict=True):
        np.testing.assert_array_equal(read_again, stored)
    for forbidden in (eval, OrderedDict(a=1), np.load, np.array([Path()], dtype=object)):
        with pytest.raises(pickle.UnpicklingError, match="refused"):
            load(forbidden)
