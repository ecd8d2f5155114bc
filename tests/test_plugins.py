"""The package of docs/extending.md, installed: it takes part in everything, and is missed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from calibcli import params
from calibcli.errors import ParamsError
from calibcli.params import Plugin

ROOT = Path(__file__).resolve().parents[1]
DIGITS = ROOT / "sample_data" / "digits_val.parquet"
Calib = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the search path, in which the page's package is installed."""
    folder = tmp_path_factory.mktemp("installed")
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    files = dict(re.findall(r"^cat > (\S+) <<'END'\n(.*?)^END$", page, re.MULTILINE | re.DOTALL))
    project = tomllib.loads(files.pop("pyproject.toml"))["project"]
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    named = f"Name: {project['name']}\nVersion: {project['version']}\n"
    info.joinpath("METADATA").write_text(f"Metadata-Version: 2.1\n{named}")
    lines = [
        line
        for group, offers in project["entry-points"].items()
        for line in (f"[{group}]", *(f"{name} = {place}" for name, place in offers.items()))
    ]
    info.joinpath("entry_points.txt").write_text("\n".join(lines))
    return folder


@pytest.fixture
def installed(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(package))


@pytest.fixture(scope="session")
def fitted(package: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The parameter file of a fit by the package's method and loss."""
    code = (
        "import sys, calibcli, pyarrow.parquet as pq, numpy as np\n"
        "table = pq.read_table(sys.argv[1]); z = np.stack(table['logits'].to_numpy())\n"
        "fit = calibcli.fit(z, table['label'].to_numpy(), method='tilt', loss='poly', folds=0)\n"
        "fit.save(sys.argv[2])\n"
    )
    target = tmp_path_factory.mktemp("fitted") / "p.json"
    python(code, package, DIGITS, target)
    return target.read_bytes()


def python(code: str, package: Path, *arguments: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={"PYTHONPATH": f"{package}:{ROOT}", "PATH": ""},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


@pytest.mark.usefixtures("installed")
class TestInstalled:
    def test_it_is_fitted_applied_and_measured(self, calib: Calib, tmp_path: Path) -> None:
        fit = calib("fit", DIGITS, "-m", "tilt", "--loss", "poly", "-p", "p.json", "-q")
        assert fit.returncode == 0, fit.stderr.decode()
        stages = json.loads((tmp_path / "p.json").read_text())["stages"]
        assert [stage["kind"] for stage in stages] == ["tilt", "link"]
        assert calib("apply", "p.json", DIGITS, "-o", "out.parquet").returncode == 0
        done = calib("evaluate", DIGITS, "-p", "p.json", "--metrics", "spherical", "--format=json")
        assert done.returncode == 0, done.stderr.decode()
        document = json.loads(done.stdout)
        text = json.dumps(document)
        assert '"spherical"' in text
        assert calib("evaluate", "out.parquet", "--metrics", "all", "-q").returncode == 0

    def test_its_metric_has_an_interval(self, calib: Calib) -> None:
        done = calib("evaluate", DIGITS, "--metrics", "spherical", "-q")
        assert re.search(rb"spherical .* \[0\.\d+, 0\.\d+\]", done.stdout), done.stdout.decode()

    def test_it_is_compared(self, calib: Calib) -> None:
        done = calib("compare", DIGITS, "--methods", "none,tilt", "--losses", "nll,poly")
        assert done.returncode == 0, done.stderr.decode()
        assert done.stdout.count(b"tilt") >= 2

    @pytest.mark.parametrize(
        ("command", "name"), [("methods", "tilt"), ("losses", "poly"), ("metrics", "spherical")]
    )
    def test_it_is_listed_with_where_it_comes_from(
        self, command: str, name: str, calib: Calib
    ) -> None:
        entries = json.loads(calib(command, "--format", "json").stdout)[command]
        assert entries[-1]["name"] == name
        assert entries[-1]["origin"] == "calib-toy 0.1"
        assert entries[-2]["origin"].startswith("calibcli ")

    def test_a_package_that_is_broken_is_left_out_in_one_line(
        self, calib: Calib, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "calib_toy").mkdir()
        (tmp_path / "calib_toy" / "__init__.py").write_text("raise ValueError('half written')")
        monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{package}")
        line = "calib: the method 'tilt' of calib-toy 0.1 cannot be used: ValueError: half written"
        listed = calib("methods", "--format", "json")
        assert listed.returncode == 0
        assert "tilt" not in [each["name"] for each in json.loads(listed.stdout)["methods"]]
        assert line in listed.stderr.decode().splitlines()
        asked = calib("fit", DIGITS, "-m", "tilt")
        assert asked.returncode == 2
        assert asked.stderr.decode().splitlines()[-1] == line
        assert calib("fit", DIGITS, "-q").returncode == 0

    def test_a_mistake_is_answered_with_its_names(self, calib: Calib) -> None:
        done = calib("fit", DIGITS, "-m", "tild")
        assert done.returncode == 2
        assert b"did you mean tilt?" in done.stderr


def test_its_loss_is_a_module_for_torch(package: Path) -> None:
    pytest.importorskip("torch")
    code = """
import torch
from calibcli import torch_losses
z = torch.tensor([[1.0, 2.0, 0.5], [0.0, -1.0, 3.0]], dtype=torch.float64, requires_grad=True)
y = torch.tensor([1, 0])
p = z.detach().clone().requires_grad_()
torch_losses.loss("poly", epsilon=0.5)(z, y).backward()
own = p.log_softmax(1)[[0, 1], y]
(-own + 0.5 * (1 - own.exp())).mean().backward()
torch.testing.assert_close(z.grad, p.grad)
assert torch_losses.Poly is torch_losses.LOSSES["poly"]
print(torch_losses.Poly())
"""
    assert python(code, package) == "Poly(epsilon=1.0, reduction='mean')\n"


def test_its_stage_is_in_the_reference(package: Path) -> None:
    code = "import sys; sys.path.insert(0, sys.argv[1])\n"
    code += "import make_reference; print(make_reference.stage_reference())"
    reference = python(code, package, ROOT / "docs")
    assert "### tilt\n\n`softmax(scale z + bonus e)`" in reference
    assert "| `scale`, `bonus` | number |" in reference


def test_a_file_names_the_distribution_of_each_stage(fitted: bytes) -> None:
    document = json.loads(fitted)
    assert document["version"] == 2
    common = {"distribution": "calib-toy", "version": "0.1"}
    assert document["plugins"] == [
        {"group": "calibcli.methods", "name": "tilt", **common},
        {"group": "calibcli.losses", "name": "poly", **common},
    ]
    assert document["software"]["calib-toy"] == "0.1"


@pytest.mark.parametrize("safetensors", [False, True])
def test_plugins_of_a_file_are_read_again(fitted: bytes, safetensors: bool) -> None:
    content = params.decode(fitted)
    assert content.plugins[0] == Plugin("calibcli.methods", "tilt", "calib-toy", "0.1")
    encoded = params.encode(content, safetensors=safetensors)
    assert params.decode(encoded) == content
    assert json.loads(params.encode(replace(content, plugins=())))["version"] == 1


def test_without_the_package_a_file_says_what_it_needs(
    fitted: bytes, calib: Calib, tmp_path: Path
) -> None:
    (tmp_path / "p.json").write_bytes(fitted)
    done = calib("apply", "p.json", DIGITS, "-o", "out.parquet")
    assert done.returncode == 2
    assert done.stderr.decode() == (
        "calib: p.json: needs the method 'tilt' of calib-toy 0.1, which is not installed "
        "(more: calib docs params)\n"
    )


@pytest.mark.usefixtures("installed")
def test_another_package_with_the_same_name_is_refused(
    fitted: bytes, calib: Calib, tmp_path: Path
) -> None:
    (tmp_path / "p.json").write_bytes(fitted.replace(b"calib-toy", b"calib-pun"))
    done = calib("apply", "p.json", DIGITS, "-o", "out.parquet")
    assert done.returncode == 2
    assert b"of calib-pun 0.1; here that method comes from calib-toy 0.1" in done.stderr


def test_a_file_imports_nothing_that_is_not_an_entry_point(
    calib: Calib, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "evil.py").write_text("open('imported', 'w')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    document: dict[str, Any] = {
        "format": "calib-params",
        "version": 2,
        "classes": 10,
        "input": "logits",
        "stages": [{"kind": "evil", "parameters": {}}],
        "plugins": [
            {"group": "calibcli.methods", "name": "evil", "distribution": "evil", "version": "1"}
        ],
    }
    for plugins in (document["plugins"], []):
        (tmp_path / "p.json").write_text(json.dumps(document | {"plugins": plugins}))
        assert calib("apply", "p.json", DIGITS, "-o", "out.parquet").returncode == 2
    assert not (tmp_path / "imported").exists()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"version": 1}, "unknown key 'plugins'"),
        ({"version": 4}, "version 4 is not known: this calib reads versions 1 to 3"),
        ({"plugins": {}}, "'plugins' has the wrong type"),
        ({"plugins": ["tilt"]}, "'plugins' must be objects of distribution, group, name, version"),
        ({"plugins": [{"name": "tilt"}]}, "'plugins' must be objects of distribution"),
        (
            {"plugins": [dict.fromkeys(("group", "name", "distribution", "version"), 1)]},
            "must be objects of texts",
        ),
    ],
)
def test_what_plugins_cannot_be_is_refused(
    fitted: bytes, change: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ParamsError, match=complaint):
        params.decode(json.dumps(json.loads(fitted) | change).encode())
