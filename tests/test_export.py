"""Exported calibrators give what calibrators themselves give, in every language that runs here."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from every_stage import calibrators_of_every_kind

import calibcli
from calibcli.calibrators.affine import MatrixScaling, VectorScaling
from calibcli.calibrators.base import Calibrator
from calibcli.calibrators.groups import Groups
from calibcli.calibrators.links import link_of
from calibcli.calibrators.temperature import Temperature
from calibcli.cli.app import run as run_calib
from calibcli.errors import UsageError
from calibcli.export.evaluation import evaluate_graph
from calibcli.export.python_source import python_source
from calibcli.export.recording import RecordedCalibrator, Vectors, make_vectors, record
from calibcli.export.row_source import c_header, c_source, c_text, javascript_source
from calibcli.export.targets import TARGETS
from calibcli.export.torch_module import exported_program, torch_module
from calibcli.objectives.registry import OBJECTIVES
from calibcli.params import Params, Stage

HOSTILE = (
    '"; alert(1); //',
    "*/ int x; /*",
    "</script><script>",
    "'''\n\"\"\"",
    "\\",
    "\u2028\u0000%s{0}",
    "??/",
    "ünïcödé 猫",
)

LINKS = [link for each in OBJECTIVES.values() if (link := link_of(each())) is not None]
EVERY = [
    pytest.param(classes, stage, id=f"{stage.kind}-{getattr(stage, 'loss', '')}-{classes}")
    for classes in (2, 3)
    for stage in [*calibrators_of_every_kind(classes)[:-3], *LINKS[:-1]]
] + [pytest.param(3, stage, id=stage.kind) for stage in calibrators_of_every_kind(3)[-3:]]


def params_of(
    classes: int, *stages: Calibrator, kind: str = "logits", names: Any = None, **reading: Any
) -> Params:
    described = tuple(Stage(stage.kind, stage.parameters()) for stage in stages)
    return Params(classes, kind, described, names, reading=reading)


def run_python(program: RecordedCalibrator, vectors: Vectors, _: Path) -> np.ndarray:
    space: dict[str, Any] = {}
    exec(compile(python_source(program), "exported", "exec"), space)  # noqa: S102 (what it is for)
    probs: np.ndarray = space["calibrate"](*vectors.arrays().values())
    assert space["CLASS_NAMES"] == program.class_names
    assert space.get("GROUPS", ()) == program.groups
    return probs


def run_javascript(program: RecordedCalibrator, vectors: Vectors, folder: Path) -> np.ndarray:
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node is here")
    (folder / "exported.mjs").write_text(javascript_source(program), encoding="utf-8")
    groups = [0] * len(vectors.scores) if vectors.groups is None else vectors.groups.tolist()
    rows = [[str(float(score)) for score in row] for row in vectors.scores]
    (folder / "run.mjs").write_text(
        "import * as exported from './exported.mjs';\n"
        "const number = text => ({inf: Infinity, '-inf': -Infinity})[text] ?? Number(text);\n"
        f"const groups = {groups};\n"
        f"const rows = {json.dumps(rows)}.map(row => row.map(number));\n"
        "const probs = rows.map((row, i) => [...exported.calibrate(row, groups[i])]);\n"
        "console.log(JSON.stringify([exported.classNames, probs]));\n",
        encoding="utf-8",
    )
    done = subprocess.run(
        [node, "run.mjs"], cwd=folder, capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr
    names, probs = json.loads(done.stdout)
    assert tuple(names) == program.class_names
    return np.array(probs)


def run_c(program: RecordedCalibrator, vectors: Vectors, folder: Path) -> np.ndarray:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler is here")
    (folder / "exported.c").write_text(c_source(program), encoding="utf-8")
    (folder / "exported.h").write_text(c_header(program), encoding="utf-8")
    group = "group, " if program.groups else ""
    (folder / "run.c").write_text(
        '#include "exported.h"\n#include <stdio.h>\n'
        "int main(void) {\n"
        "  static double scores[CALIB_CLASSES], probs[CALIB_CLASSES]; int group;\n"
        "  for (int k = 0; k < CALIB_CLASSES; k++) {\n"
        '    for (const char *at = calib_class_names[k]; *at; at++) printf("%02x", *at & 255);\n'
        '    printf("%s", k + 1 < CALIB_CLASSES ? " " : "\\n");\n'
        "  }\n"
        '  while (scanf("%d", &group) == 1) {\n'
        '    for (int k = 0; k < CALIB_CLASSES; k++) if (scanf("%lf", &scores[k]) != 1) return 1;\n'
        f"    calib_calibrate(scores, {group}probs);\n"
        '    for (int k = 0; k < CALIB_CLASSES; k++) printf("%.17g ", probs[k]);\n'
        '    printf("\\n");\n  }\n  return 0;\n}\n',
        encoding="utf-8",
    )
    flags = ["-std=c99", "-O1", "-Wall", "-Wextra", "-pedantic", "-Werror"]
    command = [compiler, *flags, "exported.c", "run.c", "-o", "run", "-lm"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    groups = np.zeros(len(vectors.scores)) if vectors.groups is None else vectors.groups
    lines = [
        " ".join([str(int(number)), *(repr(float(score)) for score in row)])
        for number, row in zip(groups, vectors.scores, strict=True)
    ]
    done = subprocess.run(
        [folder / "run"], input="\n".join(lines), capture_output=True, text=True, check=True
    )
    names, *rows = done.stdout.splitlines()
    # A NUL ends a text of C.
    known = [name.partition("\0")[0].encode().hex() for name in program.class_names]
    assert names.split(" ") == known
    return np.array([[float(prob) for prob in row.split()] for row in rows])


def run_torch(program: RecordedCalibrator, vectors: Vectors, _: Path) -> np.ndarray:
    torch = pytest.importorskip("torch")
    tensors = map(torch.from_numpy, vectors.arrays().values())
    probs: np.ndarray = torch_module(program)(*tensors).numpy()
    return probs


RUNNERS: dict[str, Callable[[RecordedCalibrator, Vectors, Path], np.ndarray]] = {
    "python": run_python,
    "javascript": run_javascript,
    "c": run_c,
    "torch": run_torch,
}
each_language = pytest.mark.parametrize("language", RUNNERS)


def check(language: str, params: Params, stages: tuple[Calibrator, ...], folder: Path) -> None:
    vectors = make_vectors(params, stages)
    probs = RUNNERS[language](record(params, stages), vectors, folder)
    np.testing.assert_allclose(probs, vectors.probs, rtol=0, atol=1e-12)


@each_language
@pytest.mark.parametrize(("classes", "stage"), EVERY)
def test_every_stage(language, classes, stage, tmp_path):
    check(language, params_of(classes, stage), (stage,), tmp_path)


@pytest.mark.parametrize(("classes", "stage"), EVERY)
@pytest.mark.parametrize("kind", ["log-probs", "probs"])
def test_every_stage_on_other_scores(classes, stage, kind):
    program = record(params_of(classes, stage, kind=kind), (stage,))
    vectors = make_vectors(program.params, (stage,))
    outputs = evaluate_graph(program.graph, vectors.arrays())
    np.testing.assert_allclose(outputs["probs"], vectors.probs, rtol=0, atol=1e-12)
    assert np.array_equal(outputs["label"], outputs["probs"].argmax(axis=1))
    assert np.array_equal(outputs["confidence"], outputs["probs"].max(axis=1))


@each_language
@pytest.mark.parametrize("stages", [(), (Temperature(2.0), Temperature(0.5))], ids=["none", "two"])
def test_chains(language, stages, tmp_path):
    check(language, params_of(4, *stages), stages, tmp_path)


@each_language
def test_a_thousand_classes(language, tmp_path):
    rng = np.random.default_rng(0)
    stages = (VectorScaling(1 + 0.1 * rng.random(1000), rng.normal(size=1000)),)
    if language == "python":
        stages = (*stages, MatrixScaling(np.eye(1000), np.zeros(1000)))
    check(language, params_of(1000, *stages), stages, tmp_path)


# Hostile names


@each_language
def test_names_are_texts_and_nothing_else(language, tmp_path):
    stage = Groups(
        HOSTILE[0], HOSTILE, (Temperature(2.0),), ((Temperature(0.5),),) * 8, np.full(8, 0.5)
    )
    names = tuple(f"{name}{place}" for place, name in enumerate(HOSTILE))
    check(language, params_of(8, stage, names=names), (stage,), tmp_path)


def test_sources_are_ascii_and_have_no_text_that_ends_anything():
    params = params_of(8, Temperature(2.0), names=HOSTILE, label_names=list(HOSTILE))
    program = record(params, (Temperature(2.0),))
    for source in (python_source, javascript_source, c_source, c_header):
        text = source(program)
        assert text.isascii()
        assert all(line.count("*/") <= 1 for line in text.splitlines())
    assert "</script" not in javascript_source(program)
    assert c_text('a"\\\n??/é') == '"a\\042\\134\\012\\077\\077\\057\\303\\251"'


# What was remembered of the input


@each_language
def test_per_cent_and_rows_that_are_divided_by_their_sum(language, tmp_path):
    for reading in ({"input": "percent"}, {"input": "percent", "renormalise": True}):
        check(
            language,
            params_of(3, Temperature(1.5), kind="probs", **reading),
            (Temperature(1.5),),
            tmp_path,
        )


def test_the_reading_changes_what_scores_are():
    params = params_of(2, Temperature(1.0), kind="probs", input="percent", renormalise=True)
    graph = record(params, (Temperature(1.0),)).graph
    probs = evaluate_graph(graph, {"scores": np.array([[30.0, 120.0]])})["probs"]
    assert probs == pytest.approx(np.array([[0.2, 0.8]]))


# Groups


@each_language
def test_a_row_has_the_map_of_its_group(language, tmp_path):
    own = ((Temperature(0.5),), (), (VectorScaling(np.ones(3), np.array([0.0, 1.0, 2.0])),))
    stage = Groups("site", ("a", "b", "c"), (Temperature(2.0),), own, np.array([1.0, 0.0, 0.3]))
    check(language, params_of(3, stage), (stage,), tmp_path)


def test_too_many_groups_are_refused():
    names = tuple(map(str, range(65)))
    stage = Groups("site", names, (), ((),) * 65, np.zeros(65))
    with pytest.raises(UsageError, match="65 groups are too many to export: 64 are possible"):
        record(params_of(2, stage), (stage,))


# Stages of plugins


@dataclass(frozen=True)
class Plain(Calibrator):
    """A stage whose arithmetic the test gives."""

    function: Any
    kind = "plain"

    def transform(self, logits: Any) -> Any:
        return self.function(logits)

    def parameters(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_parameters(cls, parameters: Any, classes: int) -> Any:
        raise NotImplementedError


def by_rows(logits: Any) -> Any:
    return np.stack([row * 2 for row in logits])


@pytest.mark.parametrize(
    ("function", "line"),
    [
        (by_rows, "it goes through single rows"),
        (np.tanh, "it takes arrays of NumPy alone"),
        (lambda z: z if (z > 0).any() else -z, "it takes arrays of NumPy alone"),
        (lambda z: z if z[0, 0] > 0 else -z, "it picks rows"),
        (lambda z: z - z.mean(axis=0), "it takes arrays of NumPy alone"),
        (lambda z: z / len(z), "it depends on the number of rows"),
        (lambda z: z @ z.T, "it transposes rows"),
    ],
)
def test_a_stage_that_cannot_be_recorded_is_named(function, line):
    stage = Plain(function)
    with pytest.raises(UsageError, match=f"the stage 'plain' cannot be exported: {line}") as error:
        record(params_of(3, Temperature(2.0), stage), (Temperature(2.0), stage))
    assert "\n" not in str(error.value)


def test_a_stage_of_the_array_api_is_exported_without_more_ado():
    stage = Plain(lambda z: z * 2 + 1)
    record(params_of(3, stage), (stage,))


def test_a_stage_that_computes_otherwise_as_recorded_is_refused():
    stage = Plain(lambda z: z * (2 if isinstance(z, np.ndarray) else 3))
    with pytest.raises(UsageError, match="'plain' cannot be exported: as recorded they give"):
        record(params_of(3, stage), (stage,))


# torch


def test_a_program_of_torch_takes_any_number_of_rows():
    torch = pytest.importorskip("torch")
    (stage,) = [each for each in calibrators_of_every_kind(3) if each.kind == "one-vs-rest"]
    params = params_of(3, stage)
    loaded = torch.export.load(io.BytesIO(exported_program(record(params, (stage,))))).module()
    vectors = make_vectors(params, (stage,))
    for rows in (1, 3, 64):
        probs = loaded(torch.from_numpy(vectors.scores[:rows])).numpy()
        np.testing.assert_allclose(probs, vectors.probs[:rows], rtol=0, atol=1e-12)


def test_a_module_is_the_end_of_a_network():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(60, 3)) * 3
    fitted = calibcli.fit(logits, rng.integers(0, 3, 60), method="vector", folds=0)
    network = torch.nn.Sequential(torch.nn.Linear(5, 3), fitted.torch_module())
    probs = network(torch.zeros(4, 5))
    assert probs.dtype == torch.float32
    assert [*network.state_dict()][-1].startswith("1.c")
    probs[:, 0].sum().backward()
    assert network[0].bias.grad.abs().sum() > 0
    assert fitted.torch_module("float64")(torch.zeros(1, 3)).dtype == torch.float64


# The command


@pytest.fixture
def params_file(tmp_path, monkeypatch) -> str:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(60, 3)) * 3
    fitted = calibcli.fit(logits, rng.integers(0, 3, 60), method="isotonic", folds=0)
    replace(fitted, params=replace(fitted.params, class_names=("a", "b", "c"))).save("p.json")
    return "p.json"


def run(*arguments: str) -> int:
    return run_calib(["export", *arguments])


@pytest.mark.parametrize("name", [name for name in TARGETS if name not in ("onnx", "sql")])
def test_the_suffix_or_its_name_says_what_to_write(params_file, name, capfd):
    target = TARGETS[name]
    if name == "torch":
        pytest.importorskip("torch")
    assert run(params_file, "-o", f"x{target.suffix}", "--vectors", "--format", "json") == 0
    document = json.loads(capfd.readouterr().out)
    beside = [".h"] if name == "c" else []
    vectors = [f"{target.suffix}.vectors{end}" for end in (".npz", ".json")]
    outputs = [target.suffix, *beside, *vectors]
    assert document["outputs"] == [f"x{suffix}" for suffix in outputs]
    assert document["stages"] == ["one-vs-rest"]
    assert all(Path(output).stat().st_size for output in document["outputs"])
    assert run(params_file, "-o", "same", "--to", name, "-q") == 0
    if name != "torch":
        assert Path("same").read_bytes() == Path(f"x{target.suffix}").read_bytes()


def test_vectors_are_what_the_calibrator_says(params_file):
    assert run(params_file, "-o", "x.py", "--vectors", "-q") == 0
    with np.load("x.py.vectors.npz") as file:
        arrays = dict(file)
    text = Path("x.py.vectors.json").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    plain = json.loads(text)
    for name, array in arrays.items():
        assert np.array_equal(np.array(plain[name], dtype=np.float64), array)
    fitted = calibcli.load(params_file)
    np.testing.assert_allclose(fitted.predict_proba(arrays["scores"]), arrays["probs"], atol=1e-15)


def test_what_the_package_writes_is_what_the_command_writes(params_file):
    assert run(params_file, "-o", "x.c", "-q") == 0
    calibcli.load(params_file).export("y.c")
    assert Path("x.c").read_bytes() == Path("y.c").read_bytes()
    with pytest.raises(UsageError, match=r"y.c: exists already"):
        calibcli.load(params_file).export("y.c")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["-o", "x.txt"], r"x.txt: what is it to be\? Its name may end in .onnx"),
        (["-o", "x", "--to", "cobol"], "--to 'cobol' is not known; there are onnx, torch"),
        (["-o", "x.py", "--precision", "float32"], "computes in float64, not in float32"),
        (["-o", "-"], "-: what is it to be?"),
        (["-o", "-", "--to", "c", "--vectors"], "--vectors are files beside the output"),
        (["-o", "x.py", "--append-to", "m.onnx"], "--append-to makes an ONNX model"),
        (["-o", "x.py", "--model-output", "z"], "--model-output goes with --append-to"),
        (["-o", "p.json", "--to", "c"], "-o p.json: is an input"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(params_file, arguments, line, capfd):
    assert run(params_file, *arguments) == 2
    error = capfd.readouterr().err
    assert re.search(line.replace("be?", r"be\?"), error)
    assert error.count("\n") == 1
    assert sorted(path.name for path in Path().iterdir()) == ["p.json"]


def test_standard_output_has_the_program_alone(params_file, capfd):
    assert run(params_file, "-o", "-", "--to", "javascript") == 0
    out, err = capfd.readouterr()
    assert out.startswith("// Calibrated probabilities")
    assert err == ""


# The page


def block(language: str) -> str:
    """The first block of a language in docs/deploying.md."""
    page = Path(__file__).parents[1].joinpath("docs", "deploying.md").read_text(encoding="utf-8")
    return page.partition(f"```{language}\n")[2].partition("```")[0]


@pytest.fixture
def digits(tmp_path, monkeypatch) -> str:
    """What the programs of the page print."""
    monkeypatch.chdir(tmp_path)
    data = Path(__file__).parents[1] / "sample_data" / "digits_val.parquet"
    assert run_calib(["fit", str(data), "-m", "svs", "-p", "digits.json", "-q"]) == 0
    probs = calibcli.load("digits.json").predict_proba([9.0, 1.0, 0.5, 0, 0, 0, 0, 0, 0, 0])
    return f"zero {probs[0]:.3f}\n"


def test_the_script_of_the_page(digits):
    node = shutil.which("node") or pytest.skip("no node is here")
    assert run("digits.json", "-o", "digits.mjs", "-q") == 0
    Path("run.mjs").write_text(block("js"), encoding="utf-8")
    done = subprocess.run([node, "run.mjs"], capture_output=True, text=True, check=True)
    assert done.stdout == digits


def test_the_program_of_the_page(digits):
    compiler = shutil.which("cc") or pytest.skip("no C compiler is here")
    assert run("digits.json", "-o", "digits.c", "-q") == 0
    Path("run.c").write_text(block("c"), encoding="utf-8")
    subprocess.run([compiler, "-std=c99", "digits.c", "run.c", "-o", "run", "-lm"], check=True)
    done = subprocess.run(["./run"], capture_output=True, text=True, check=True)
    assert done.stdout == digits
