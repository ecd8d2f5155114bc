"""Plugins: what another package installs is found by name, and what is wrong with it is said."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from calibcli.calibrators.registry import CALIBRATORS, MAPS
from calibcli.errors import UsageError
from calibcli.metrics.registry import COST_METRICS, METRICS
from calibcli.objectives.base import Objective
from calibcli.objectives.nll import NegativeLogLikelihood
from calibcli.objectives.registry import OBJECTIVES
from calibcli.registry import BUILT_IN, Origin, Registry

GROUP = "calibcli.losses"

LOSS = """
from dataclasses import dataclass
from calibcli.objectives.brier import Brier

@dataclass(frozen=True)
class Halved(Brier):
    name = "halved"

class Partial(Brier.__base__):
    name = "partial"

not_a_loss = 3
"""

Install = Callable[..., Registry[Any]]


def fresh() -> Registry[Any]:
    """A registry that has not looked yet for what is installed."""
    places = {"nll": "nll:NegativeLogLikelihood", "brier": "brier:Brier"}
    return Registry(
        "loss",
        Objective,
        {name: f"calibcli.objectives.{place}" for name, place in places.items()},
        group=GROUP,
        reserved=["auto"],
    )


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Installs distributions that offer losses, by name and target, and gives a new registry."""

    def make(*, package: str = "calib-toy", code: str = LOSS, **offers: str) -> Registry[Any]:
        module = package.replace("-", "_")
        folder = tmp_path / package
        info = folder / f"{module}-0.3.dist-info"
        info.mkdir(parents=True)
        (folder / f"{module}.py").write_text(code)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 0.3\n")
        lines = [f"{name.replace('_', '-')} = {module}:{what}" for name, what in offers.items()]
        (info / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *lines, ""]))
        monkeypatch.syspath_prepend(folder)
        monkeypatch.delitem(sys.modules, module, raising=False)
        return fresh()

    return make


def test_what_is_built_in_needs_no_look_at_what_is_installed(install: Install) -> None:
    losses = install(halved="Halved")
    assert losses["nll"] is losses.find("nll") is NegativeLogLikelihood
    assert losses.origin("nll") == BUILT_IN
    assert "_offers" not in vars(losses)


def test_lines_of_the_registry_lead_to_what_bears_their_name() -> None:
    assert all(MAPS[name].name == name for name in MAPS)
    assert all(CALIBRATORS[kind].kind == kind for kind in CALIBRATORS)


def test_a_map_that_is_not_used_is_not_imported() -> None:
    code = (
        "import sys; from calibcli.calibrators.registry import read_calibrator; "
        "read_calibrator('temperature', {'temperature': 1.5}, 3); "
        "print(*sorted(m for m in sys.modules if m.startswith('calibcli.calibrators.')))"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    names = [module.rpartition(".")[2] for module in run.stdout.split()]
    assert names == ["base", "curvature", "parameters", "registry", "temperature"]


def test_a_plugin_is_found_by_name_and_says_where_it_comes_from(install: Install) -> None:
    losses = install(halved="Halved")
    assert losses.names == ("nll", "brier", "halved")
    assert "calib_toy" not in sys.modules
    assert losses.find("halved").name == "halved"
    assert losses.find("halved") is losses["halved"]
    assert losses.origin("halved") == Origin("calib-toy", "0.3")
    assert list(losses) == ["nll", "brier", "halved"]
    assert len(losses) == 3
    assert losses.broken == {}


def test_a_mistake_is_answered_with_what_plugins_offer(install: Install) -> None:
    losses = install(halved="Halved")
    with pytest.raises(UsageError, match=r"no loss 'halve'; did you mean halved\? \(there are:"):
        losses.find("halve")
    assert "calib_toy" not in sys.modules


@pytest.mark.parametrize(
    ("name", "target", "code", "complaint"),
    [
        ("halved", "Halved", "import nothing_of_that_name", "ModuleNotFoundError: No module"),
        ("halved", "Halved", "1 / 0", "ZeroDivisionError: division by zero"),
        ("halved", "Halved", "x = (", "SyntaxError"),
        ("halved", "Doubled", LOSS, "AttributeError"),
        ("doubled", "Halved", LOSS, "its name is 'halved'"),
        ("partial", "Partial", LOSS, "it lacks terms"),
        ("partial", "not_a_loss", LOSS, "3 is not a subclass of calibcli.objectives.base.Object"),
        ("nll", "Halved", LOSS, "calib itself has that name"),
        ("auto", "Halved", LOSS, "calib itself has that name"),
        ("Halved", "Halved", LOSS, "a name is small letters"),
    ],
)
def test_a_broken_plugin_breaks_nothing_else(
    name: str, target: str, code: str, complaint: str, install: Install
) -> None:
    losses = install(code=code, **{name: target})
    assert list(losses) == ["nll", "brier"]
    assert losses["nll"] is NegativeLogLikelihood
    assert name not in losses or name == "nll"
    (line,) = losses.broken.values()
    assert line.startswith(f"the loss {name!r} of calib-toy 0.3 cannot be used: ")
    assert complaint in line
    assert "\n" not in line


def test_a_broken_plugin_that_is_asked_for_is_an_error(install: Install) -> None:
    losses = install(halved="Halved", code="raise KeyError('one\\ntwo')")
    with pytest.raises(UsageError, match=r"'halved' of calib-toy 0.3 cannot be used: KeyError: "):
        losses.find("halved")


def test_two_plugins_of_one_name_are_both_left_out(install: Install) -> None:
    install(halved="Halved")
    losses = install(package="other-toy", halved="Halved")
    assert list(losses) == ["nll", "brier"]
    with pytest.raises(UsageError, match="has one of the same name; remove one of them"):
        losses.find("halved")


@pytest.mark.parametrize(
    ("registry", "unlisted"),
    [(MAPS, ()), (OBJECTIVES, ()), (METRICS, COST_METRICS)],
    ids=["methods", "losses", "metrics"],
)
def test_a_place_has_the_entry_of_its_name(
    registry: Registry[Any], unlisted: tuple[str, ...]
) -> None:
    for name in (*registry.built_in, *unlisted):
        assert registry.find(name).name == name
    assert not set(unlisted) & set(registry.names)
