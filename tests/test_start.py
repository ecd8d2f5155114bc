"""What each command imports: the parts of the package that it runs, and no others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SAMPLES = Path(__file__).resolve().parents[1] / "sample_data"
VALIDATION, TEST = SAMPLES / "digits_val.parquet", SAMPLES / "digits_test.parquet"

RUN = """
import sys
from calibcli.cli import main
try:
    code = main()
except SystemExit as end:
    code = end.code
assert not code, code
names = [name for name in sys.modules if name.startswith("calibcli.")]
sys.stderr.write("\\n" + " ".join(sorted(names)))
"""

APPLYING = {"calibrators", "cli", "engine", "tables", "workflow"}
MEASURING = APPLYING | {"metrics", "report"}
FITTING = MEASURING | {"fitting", "objectives"}


def imported(*arguments: str | Path) -> set[str]:
    """The modules of the package, without its name, that a command imports."""
    command = [sys.executable, "-c", RUN, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, check=False)
    assert result.returncode == 0, result.stderr
    names = result.stderr.decode().rsplit("\n", 1)[1].split()
    return {name.removeprefix("calibcli.") for name in names}


def packages(modules: set[str]) -> set[str]:
    """The packages that modules are in; a module beside them is in none."""
    return {package for package, dot, _ in (name.partition(".") for name in modules) if dot}


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set[str]]:
    folder = tmp_path_factory.mktemp("start")
    params = folder / "params.json"
    return params, imported("fit", VALIDATION, "-p", params, "-o", folder / "calibrated.npz")


def test_fit_imports_all_packages_but_the_losses_of_torch(fitted: tuple[Path, set[str]]) -> None:
    assert packages(fitted[1]) == FITTING


def test_apply_imports_nothing_that_fits_measures_or_reports(
    fitted: tuple[Path, set[str]], tmp_path: Path
) -> None:
    modules = imported("apply", fitted[0], TEST, "-o", tmp_path / "calibrated.npz")
    # A stage that is the link of a loss finds it in the registry, which imports no loss.
    assert packages(modules) - {"objectives"} == APPLYING
    assert not {"objectives.nll", "objectives.focal"} & modules
    jobs = {name for name in modules if name.startswith("workflow.")}
    assert jobs == {"workflow.applying", "workflow.records"}


def test_evaluate_imports_nothing_that_fits() -> None:
    modules = imported("evaluate", TEST)
    assert packages(modules) == MEASURING
    # It prints a table; the other formats, gates to read and slices are not asked for.
    others = {
        "report.formats",
        "report.markdown",
        "report.junit",
        "report.html",
        "workflow.diagnostics",
    }
    assert not others & modules


# What every command imports of the command line.
SHELL = {
    *("app", "config_file", "configured", "console", "help"),
    *("option_values", "shared_options"),
}


@pytest.mark.parametrize(
    ("arguments", "more"),
    [
        (("docs",), {"guide"}),
        (("methods",), {"methods"}),
        (("inspect", TEST), {"inspect", "reading"}),
        (("apply", "PARAMS", TEST, "-o", "-"), {"apply", "reading"}),
        (
            ("evaluate", TEST),
            {"evaluate", "reading", "gate_options", "diagnostic_options", "pictures"},
        ),
    ],
    ids=lambda value: str(value[0]) if isinstance(value, tuple) else "",
)
def test_a_command_imports_no_other_command(
    arguments: tuple[str | Path, ...], more: set[str], fitted: tuple[Path, set[str]]
) -> None:
    modules = imported(*(fitted[0] if each == "PARAMS" else each for each in arguments))
    assert {name[4:] for name in modules if name.startswith("cli.")} == SHELL | more


def test_the_package_imports_nothing_before_it_is_used() -> None:
    code = "import sys, calibcli; print(*(set(sys.modules) - before))"
    result = subprocess.run(
        [sys.executable, "-c", f"import sys; before = set(sys.modules); {code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    names = {name.partition(".")[0] for name in result.stdout.split()}
    assert {name for name in names if name not in sys.stdlib_module_names} == {"calibcli"}
