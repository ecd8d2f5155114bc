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
sys.stderr.write("\\n" + " ".join(sys.modules))
"""

APPLYING = {"calibrators", "cli", "engine", "tables", "workflow"}
MEASURING = APPLYING | {"metrics", "report"}
FITTING = MEASURING | {"fitting", "objectives"}


def all_imported(*arguments: str | Path) -> set[str]:
    """The modules that a command imports."""
    command = [sys.executable, "-c", RUN, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, check=False)
    assert result.returncode == 0, result.stderr
    return set(result.stderr.decode().rsplit("\n", 1)[1].split())


def imported(*arguments: str | Path) -> set[str]:
    """The modules of the package, without its name, that a command imports."""
    names = all_imported(*arguments)
    return {name.removeprefix("calibcli.") for name in names if name.startswith("calibcli.")}


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
    assert jobs == {"workflow.applying", "workflow.calibrated_outputs", "workflow.records"}


def test_compare_imports_all_packages_but_the_losses_of_torch() -> None:
    assert packages(imported("compare", TEST, "--methods", "temperature")) == FITTING


def test_inspect_imports_nothing_that_measures() -> None:
    modules = imported("inspect", TEST)
    assert packages(modules) == APPLYING - {"workflow"}


def test_config_imports_nothing_but_the_command_line() -> None:
    assert packages(imported("config")) == {"cli"}


def test_evaluate_imports_nothing_that_fits() -> None:
    modules = imported("evaluate", TEST)
    assert packages(modules) == MEASURING
    # It prints a table; the other formats, gates to read and slices are not asked for.
    others = {
        "report.formats",
        "report.markdown",
        "report.junit",
        "report.html",
        "report.gate_results",
        "workflow.conditions",
        "workflow.diagnostics",
        "metrics.costs",
        "metrics.decomposition",
        "metrics.slices",
        "schema",
    }
    assert not others & modules


# Each takes longer to import than small data takes to be read and measured.
SLOW = {"numpy.ma", "numpy.testing", "pyarrow.compute", "scipy"}


@pytest.mark.parametrize("command", ["evaluate", "apply", "inspect", "help", "methods"])
def test_what_is_slow_to_import_waits_until_it_is_needed(
    command: str, fitted: tuple[Path, set[str]], tmp_path: Path
) -> None:
    data = {
        "evaluate": [TEST],
        "apply": [fitted[0], TEST, "-o", tmp_path / "calibrated.parquet"],
        "inspect": [TEST],
    }
    # PyArrow imports masked arrays as it takes an array to write.
    slow = SLOW - ({"numpy.ma"} if command == "apply" else set())
    assert not slow & all_imported(command, *data.get(command, []))


# What every command imports of the command line.
SHELL = {
    *("app", "config_file", "configured", "console", "help"),
    *("option_values", "shared_options"),
}

COMMANDS = {"apply", "compare", "evaluate", "fit", "fit_job"}
COMMANDS |= {"convert", "export", "guide", "history", "inspect", "methods", "plan_gates"}
OPTIONS = {"diagnostic_options", "gate_options", "pictures", "record_options"}


@pytest.mark.parametrize(
    ("arguments", "more"),
    [
        (("docs",), {"guide"}),
        (("demo", "FOLDER"), {"guide"}),
        (("methods",), {"methods"}),
        (("losses",), {"methods"}),
        (("metrics",), {"methods"}),
        (("gates", "plan", "--help"), {"plan_gates"}),
        (("inspect", TEST), {"inspect", "ways"}),
        (("convert", TEST, "-o", "-"), {"convert", "reading"}),
        (("export", "PARAMS", "-o", "-", "--to", "c"), {"export"}),
        (("apply", "PARAMS", TEST, "-o", "-"), {"apply", "keeping", "reading"}),
        (
            ("evaluate", TEST),
            {"evaluate", "reading", *OPTIONS},
        ),
        (("history", "--help"), {"history"}),
        (("compare", TEST, "--methods", "none"), {"compare", "reading"}),
        (
            ("fit", VALIDATION, "-p", "FOLDER/params.json", "-o", "FOLDER/calibrated.npz"),
            {"fit", "fit_job", "keeping", "reading", "gate_options", "pictures"},
        ),
        # It has the options of all.
        (("config",), {*COMMANDS, *OPTIONS, "config", "configuration", "keeping"}),
    ],
    ids=lambda value: str(value[0]) if isinstance(value, tuple) else "",
)
def test_a_command_imports_no_other_command(
    arguments: tuple[str | Path, ...],
    more: set[str],
    fitted: tuple[Path, set[str]],
    tmp_path: Path,
) -> None:
    places = {"PARAMS": str(fitted[0]), "FOLDER": str(tmp_path)}
    command = map(str, arguments)
    for name, path in places.items():
        command = [each.replace(name, path) for each in command]
    modules = imported(*command)
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


def test_a_plain_table_imports_no_shape_of_other_data() -> None:
    shapes = {name for name in imported("evaluate", TEST) if name.startswith("tables.shapes.")}
    assert shapes == {"tables.shapes.base", "tables.shapes.registry"}
