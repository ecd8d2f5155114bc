"""Maps of their own for groups: pooled as far as that helps, and found again by every reader."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import calibcli
from calibcli.arrays import log_softmax, softmax
from calibcli.calibrators.affine import VectorScaling
from calibcli.calibrators.base import GROUP
from calibcli.calibrators.chain import for_rows
from calibcli.calibrators.groups import Groups, groups_in, rows_by_group
from calibcli.calibrators.registry import read_calibrator
from calibcli.calibrators.temperature import Temperature
from calibcli.cli.app import app
from calibcli.engine.data import open_data
from calibcli.engine.engine import Engine
from calibcli.engine.source import ArraySource
from calibcli.errors import CalibError, ParamsError
from calibcli.metrics.panel import Panel
from calibcli.metrics.proper_scores import NLL
from calibcli.params import Params, Stage, decode, encode
from calibcli.tables import ReadOptions, open_dataset
from calibcli.workflow.fitted_plans import fit_plan
from calibcli.workflow.fitting import fit_and_measure
from calibcli.workflow.plans import make_plan
from calibcli.workflow.pooling import FEWEST_ROWS, STRENGTHS, fit_groups
from calibcli.workflow.records import to_calibrators, to_params

GROUPS = 8
NAMES = tuple(f"g{number}" for number in range(GROUPS))


def labelled(rows: int, spread: float, seed: int = 0, classes: int = 4) -> ArraySource:
    """Rows whose groups have true temperatures that differ by a factor of about exp(spread)."""
    rng = np.random.default_rng(seed)
    scales = 1.5 * np.exp(spread * np.linspace(-1, 1, GROUPS))
    groups = (rng.random(rows) ** 2 * GROUPS).astype(np.int64)
    logits = 3 * rng.standard_normal((rows, classes))
    noise = rng.gumbel(size=logits.shape)
    labels = (logits / scales[groups][:, None] + noise).argmax(axis=1)
    names = {GROUP: NAMES}
    return ArraySource(logits.astype(np.float32), labels, keys={GROUP: groups}, key_names=names)


def plan(method: str = "temperature", **options):
    return make_plan(method, by="lang", **options)


def outcome(source: ArraySource, method: str = "temperature", test: ArraySource | None = None):
    judged = None if test is None else open_data(Engine(), test)
    return fit_and_measure(open_data(Engine(), source, 5), plan(method), Panel(), judged)


def save(path: Path, source: ArraySource, names: bool = True) -> str:
    logits = pa.FixedSizeListArray.from_arrays(
        pa.array(source.scores.reshape(-1)), source.scores.shape[1]
    )
    numbers = source.keys[GROUP]
    values = np.array(NAMES)[numbers] if names else numbers
    content = pa.table({"logits": logits, "label": source.labels, "lang": values})
    pq.write_table(content, path, row_group_size=500)
    return str(path)


def run(*arguments: str):
    return CliRunner().invoke(app, [*arguments])


# The calibrator.


def two_groups(weights: tuple[float, float] = (0.25, 1.0)) -> Groups:
    own = ((Temperature(0.5),), (Temperature(4.0),))
    return Groups("lang", ("a", "b"), (Temperature(2.0),), own, np.array(weights))


def test_a_group_is_mapped_between_its_own_map_and_that_of_all_rows() -> None:
    logits = np.random.default_rng(0).standard_normal((9, 3))
    groups = two_groups()
    numbers = np.array([0, 1, 2, 0, 1, 7, 0, 1, 2])
    probs = groups.for_groups(numbers).probs(logits)
    # For scales that is the scale between: 1/T = 0.75/2 + 0.25/0.5.
    for number, scale in ((0, 0.75 / 2 + 0.25 / 0.5), (1, 0.25)):
        rows = numbers == number
        np.testing.assert_allclose(probs[rows], softmax(scale * logits[rows]), rtol=1e-12)
    unseen = numbers > 1
    np.testing.assert_allclose(probs[unseen], softmax(logits[unseen] / 2), rtol=1e-12)
    np.testing.assert_allclose(groups.probs(logits), softmax(logits / 2), rtol=1e-12)


def test_parameters_are_shrunk_where_logits_are_linear_in_them() -> None:
    rng = np.random.default_rng(1)
    scale, bias = rng.uniform(0.5, 2, (2, 3)), rng.standard_normal((2, 3))
    maps = [VectorScaling(s, b) for s, b in zip(scale, bias, strict=True)]
    groups = Groups("lang", ("a",), (maps[0],), ((maps[1],),), np.array([0.3]))
    between = VectorScaling(0.7 * scale[0] + 0.3 * scale[1], 0.7 * bias[0] + 0.3 * bias[1])
    logits = rng.standard_normal((20, 3))
    mapped = groups.for_groups(np.zeros(20, int)).probs(logits)
    np.testing.assert_allclose(mapped, between.probs(logits), rtol=1e-10)


def test_impossible_classes_stay_so_and_the_input_is_left_alone() -> None:
    logits = np.array([[1.0, -np.inf, 0.0], [0.0, 1.0, 2.0]])
    for groups in (two_groups(), replace(two_groups(), pooled=())):
        before = logits.copy()
        probs = groups.for_groups(np.array([1, 0])).probs(logits)
        np.testing.assert_array_equal(before, logits)
        assert probs[0, 1] == 0
        np.testing.assert_allclose(probs.sum(axis=1), 1)


def test_tensors_are_mapped_as_arrays_are() -> None:
    torch = pytest.importorskip("torch")
    logits, numbers = np.random.default_rng(0).standard_normal((9, 3)), np.arange(9) % 4
    mapped = two_groups().for_groups(numbers)
    np.testing.assert_allclose(mapped.probs(torch.tensor(logits)), mapped.probs(logits))


def test_only_the_role_of_groups_tells_them_apart() -> None:
    groups = (two_groups(),)
    assert for_rows(groups, None) == groups
    assert for_rows(groups, {"cluster": np.zeros(2, int)}) == groups
    assert for_rows(groups, {GROUP: np.zeros(2, int)}) != groups


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 9), max_size=40), st.integers(0, 8))
def test_rows_by_group_are_all_rows_of_known_groups(numbers, groups) -> None:
    array = np.array(numbers, np.int64)
    found = rows_by_group(array, groups)
    assert all(len(rows) and (array[rows] == number).all() for number, rows in found)
    assert sum(len(rows) for _, rows in found) == np.count_nonzero(array < groups)


@pytest.mark.parametrize("safetensors", [False, True])
def test_a_parameter_file_keeps_the_maps(safetensors) -> None:
    own = ((VectorScaling(np.array([1.0, 2, 3]), np.zeros(3)),), ())
    groups = Groups("lang", ("a", "b"), (Temperature(2.0),), own, np.array([0.5, 0.0]))
    stage = Stage(groups.kind, groups.parameters())
    params = decode(encode(Params(3, "logits", (stage,)), safetensors=safetensors))
    (again,) = to_calibrators(params)
    logits = np.random.default_rng(0).standard_normal((6, 3))
    numbers = np.arange(6) % 3
    expected = groups.for_groups(numbers).probs(logits)
    np.testing.assert_array_equal(again.for_groups(numbers).probs(logits), expected)
    assert "2 values of 'lang'" in again.summary()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": ["a", "a"]}, "twice"),
        ({"names": ["a", 2]}, "list of texts"),
        ({"names": ["a"]}, "1 lists of stages"),
        ({"column": ""}, "name of a column"),
        ({"weights": [0.5, 1.5]}, "between 0 and 1"),
        ({"weights": [0.5]}, "shape"),
        ({"own": [[], [{"kind": "nope", "parameters": {}}]]}, "unknown kind"),
        ({"extra": 1}, "unknown parameter"),
    ],
)
def test_what_is_no_map_of_groups_is_refused(change, message) -> None:
    parameters = two_groups().parameters() | change
    with pytest.raises(ParamsError, match=message):
        read_calibrator(Groups.kind, parameters, 3)


def test_several_stages_of_groups_are_refused() -> None:
    assert groups_in([Temperature(1.0)]) is None
    with pytest.raises(ParamsError, match="2 stages"):
        groups_in([two_groups(), two_groups()])


# The fit.


def test_groups_that_do_not_differ_do_no_harm() -> None:
    found = outcome(labelled(4000, 0.0))
    alone = fit_and_measure(
        open_data(Engine(), labelled(4000, 0.0), 5), make_plan("temperature"), Panel()
    )
    assert found.groups.strength >= 100
    assert found.after.values["nll"] < alone.after.values["nll"] + 5e-4


@pytest.mark.parametrize("method", ["temperature", "vector", "isotonic", "temperature,vector"])
def test_groups_that_differ_get_maps_that_are_better_on_other_rows(method) -> None:
    found = outcome(labelled(4000, 0.9), method, labelled(8000, 0.9, seed=1))
    test = open_data(Engine(), labelled(8000, 0.9, seed=1))
    pooled = fit_and_measure(
        open_data(Engine(), labelled(4000, 0.9), 5), make_plan(method), Panel(), test
    )
    assert found.after.values["nll"] < pooled.after.values["nll"] - 0.02
    assert found.measured_on == "test"
    assert any("have a map of their own" in note for note in found.notes)


def test_the_fit_of_a_group_is_that_of_its_rows_alone() -> None:
    source = labelled(3000, 0.9)
    data = open_data(Engine(), source, 5)
    grouped = fit_groups(fit_plan(data, plan()))
    number = 3
    rows = source.keys[GROUP] == number
    alone = open_data(Engine(), ArraySource(source.scores[rows], source.labels[rows]))
    (expected,) = fit_plan(alone, make_plan("temperature")).fit.calibrators
    (own,) = grouped.groups.own[number]
    assert own.temperature == pytest.approx(expected.temperature, rel=1e-6)
    share = rows.sum() / (rows.sum() + grouped.strength)
    assert grouped.groups.weights[number] == pytest.approx(share)


@pytest.mark.parametrize("method", ["monotone", "gap-temperature"])
def test_no_group_is_fitted_to_what_was_kept_of_another(method: str) -> None:
    # From so many classes on rows are prepared once, and kept.
    source = labelled(1500, 0.9, classes=70)
    grouped = fit_groups(fit_plan(open_data(Engine(), source, 2), plan(method)))
    (pooled,) = grouped.groups.pooled
    tried = 0
    for number, own in enumerate(grouped.groups.own):
        rows = source.keys[GROUP] == number
        if not own:
            continue
        losses = [
            NLL.measure(each.logits(source.scores[rows]), source.labels[rows])
            for each in (own[0], pooled)
        ]
        assert losses[0] < losses[1]
        tried += 1
    assert tried > 2


def test_the_chosen_strength_has_the_lowest_held_out_loss() -> None:
    data = open_data(Engine(), labelled(1500, 0.3), 5)
    grouped = fit_groups(fit_plan(data, plan("vector")))
    assert set(grouped.losses) == set(STRENGTHS)
    assert grouped.losses[grouped.strength] == min(grouped.losses.values())
    # The figures before and after are of the same rows: those of one map for all agree.
    alone = fit_and_measure(data, make_plan("vector"), Panel())
    assert grouped.losses[np.inf] == pytest.approx(alone.after.values["nll"], rel=1e-9)


def test_no_row_has_a_part_in_the_maps_that_judge_it() -> None:
    source = labelled(600, 0.5)
    data = open_data(Engine(), source, 3)
    fold = data.split.at(np.arange(600))
    # Some other labels in fold 0 must not change the maps that its rows are judged by.
    changed = (fold == 0) & (np.arange(600) % 10 == 0)
    labels = np.where(changed, (source.labels + 1) % 4, source.labels)
    other = open_data(Engine(), replace(source, labels=labels), 3)
    found = [fit_groups(fit_plan(each, plan())).by_fold[0] for each in (data, other)]
    (one,), (other,) = found
    chains = zip((one.pooled, *one.own), (other.pooled, *other.own), strict=True)
    for (first,), (second,) in chains:
        assert first.temperature == pytest.approx(second.temperature, rel=1e-4)


def test_small_and_separable_groups_are_mapped_as_all_rows_are() -> None:
    source = labelled(2000, 0.9)
    groups, labels = source.keys[GROUP].copy(), source.labels.copy()
    groups[groups == 6] = 0
    groups[: FEWEST_ROWS - 1] = 6
    separable = groups == 5
    labels[separable] = source.scores[separable].argmax(axis=1)
    changed = replace(source, labels=labels, keys={GROUP: groups})
    (found,) = outcome(changed).fit.calibrators
    assert found.weights[6] == found.weights[5] == 0
    assert found.own[6] == found.own[5] == ()
    assert np.count_nonzero(found.weights) >= GROUPS - 3


def test_a_group_whose_map_is_useless_does_not_spoil_the_others() -> None:
    source = labelled(4000, 0.9)
    groups, rng = source.keys[GROUP], np.random.default_rng(8)
    scores, labels = source.scores.copy(), source.labels.copy()
    # Classes 2 and 3 never occur but in a few rows: a vector map of such rows is extreme.
    odd = np.flatnonzero(groups == 7)[:40]
    labels[odd] = 0
    labels[odd[:3]] = rng.integers(1, 4, 3)
    groups = np.where((groups == 7) & ~np.isin(np.arange(4000), odd), 0, groups)
    changed = replace(source, scores=scores, labels=labels, keys={GROUP: groups})
    (found,) = outcome(changed, "matrix").fit.calibrators
    assert np.count_nonzero(found.weights > 0.3) >= 2


def test_weights_are_repetitions() -> None:
    source = labelled(900, 0.6)
    weights = np.random.default_rng(2).integers(1, 4, 900)
    rows = np.repeat(np.arange(900), weights)
    repeated = ArraySource(
        source.scores[rows],
        source.labels[rows],
        keys={GROUP: source.keys[GROUP][rows]},
        key_names={GROUP: NAMES},
    )
    weighted = replace(source, weights=weights.astype(float))
    data = [open_data(Engine(), each, 5) for each in (weighted, repeated)]
    first, second = (fit_groups(fit_plan(each, plan())).groups for each in data)
    for a, b in zip(first.own, second.own, strict=True):
        assert a[0].temperature == pytest.approx(b[0].temperature, rel=1e-6)


def test_groups_that_do_not_fit_into_memory_are_thinned(tmp_path) -> None:
    path = save(tmp_path / "val.parquet", labelled(3000, 0.9))
    found = []
    for memory in (0, 1 << 13):
        with open_dataset([path], ReadOptions(keys={GROUP: "lang"})) as dataset:
            data = open_data(Engine(memory=memory), dataset, 5)
            assert isinstance(data.source, ArraySource) == (memory == 0)
            found.append(fit_groups(fit_plan(data, plan())))
    assert found[0].groups.names == found[1].groups.names
    for one, other in zip(found[0].groups.own, found[1].groups.own, strict=True):
        assert other[0].temperature == pytest.approx(one[0].temperature, rel=0.5)


def test_groups_by_the_thousand_are_gathered_in_batches(tmp_path) -> None:
    path = save(tmp_path / "val.parquet", labelled(3000, 0.9))
    with open_dataset([path], ReadOptions(keys={GROUP: "lang"})) as dataset:
        held = open_data(Engine(), dataset, 5)
        whole = fit_groups(fit_plan(held, plan()))
    with open_dataset([path], ReadOptions(keys={GROUP: "lang"})) as dataset:
        # Enough for the largest group, but not for all of them.
        streamed = open_data(Engine(memory=90_000), dataset, 5)
        assert not isinstance(streamed.source, ArraySource)
        parts = fit_groups(fit_plan(streamed, plan()))
    for one, other in zip(whole.groups.own, parts.groups.own, strict=True):
        assert other[0].temperature == pytest.approx(one[0].temperature, rel=1e-9)


def test_scores_of_groups_add_up_and_begin_with_the_worst() -> None:
    found = outcome(labelled(2000, 0.9))
    report = found.groups
    assert report is not None
    rows = np.array([score.rows for score in report.scores])
    for part, total in (("before", found.before), ("after", found.after)):
        means = np.array([getattr(score, part) for score in report.scores])
        assert (rows * means).sum() / 2000 == pytest.approx(total.values["nll"], rel=1e-6)
    after = [score.after for score in report.scores]
    assert after == sorted(after, reverse=True)


def test_a_fit_says_in_its_file_how_far_groups_are_pooled() -> None:
    found = outcome(labelled(2000, 0.9))
    params = to_params(found, classes=4, kind="logits", rows=2000, seed=0)
    assert params.fit["by"]["column"] == "lang"
    assert params.fit["by"]["strength"] == found.groups.strength
    assert len(params.fit["by"]["held_out"]) == len(STRENGTHS)
    assert decode(encode(params)).stages[0].kind == "groups"
    assert params.fit["converged"]


@pytest.mark.parametrize("reduce", [None, "top"])
def test_fits_on_a_device_are_those_of_numpy(reduce) -> None:
    pytest.importorskip("torch")
    chosen = make_plan("vector", by="lang", reduce=reduce)
    source = replace(labelled(1200, 0.9), weights=np.linspace(0.5, 1.5, 1200))
    there, here = (
        fit_and_measure(open_data(engine, source, 3), chosen, Panel())
        for engine in (Engine(device="cpu:0"), Engine())
    )
    assert there.after.values["nll"] == pytest.approx(here.after.values["nll"], abs=1e-4)
    for one, other in zip(there.groups.scores, here.groups.scores, strict=True):
        assert (one.name, one.rows) == (other.name, other.rows)
        assert one.after == pytest.approx(other.after, abs=1e-4)


def test_without_folds_nothing_can_be_chosen() -> None:
    data = open_data(Engine(), labelled(300, 0.0))
    with pytest.raises(CalibError, match="at least 2 folds"):
        fit_and_measure(data, plan(), Panel())


# The command line and the Python interface.


def test_the_commands_find_the_group_of_each_row(tmp_path) -> None:
    fitted = save(tmp_path / "val.parquet", labelled(3000, 0.9))
    other = save(tmp_path / "test.parquet", labelled(1000, 0.9, seed=1))
    params, out = str(tmp_path / "p.json"), str(tmp_path / "out.parquet")
    result = run("fit", fitted, "--by", "lang", "--test", other, "-p", params, "-o", out,
                 "--format", "json", "-q")  # fmt: skip
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    groups = document["groups"]
    assert groups["column"] == "lang"
    assert {entry["name"] for entry in groups["groups"]} == set(NAMES)
    assert sum(entry["rows"] for entry in groups["groups"]) == 1000
    again = str(tmp_path / "again.parquet")
    assert run("apply", params, other, "-o", again, "-q").exit_code == 0
    written = [np.array(pq.read_table(path)["probs"].to_pylist()) for path in
               (out, again)]  # fmt: skip
    np.testing.assert_array_equal(*written)
    measured = run("evaluate", other, "-p", params, "--format", "json", "-q")
    nll = json.loads(measured.stdout)["metrics"]["nll"]["value"]
    assert nll == pytest.approx(document["after"]["metrics"]["nll"]["value"], rel=1e-6)
    assert "8 values of 'lang'" in " ".join(run("inspect", params).stdout.split())


def test_rows_of_new_groups_are_mapped_as_all_rows_and_that_is_said(tmp_path) -> None:
    fitted = save(tmp_path / "val.parquet", labelled(3000, 0.9))
    params, out = str(tmp_path / "p.json"), str(tmp_path / "out.parquet")
    run("fit", fitted, "--by", "lang", "-p", params, "-o", out, "-q")
    table = pq.read_table(fitted).slice(0, 50)
    renamed = table.drop(["lang"]).append_column("tongue", pa.array(["xx"] * 50))
    pq.write_table(renamed, tmp_path / "new.parquet")
    new, mapped = str(tmp_path / "new.parquet"), str(tmp_path / "mapped.parquet")
    refused = run("apply", params, new, "-o", mapped)
    assert "no column 'lang' for --by; the columns are" in str(refused.exception)
    done = run("apply", params, new, "-o", mapped, "--by", "tongue")
    assert done.exit_code == 0
    assert "1 groups have no map of their own" in " ".join(done.stderr.split())
    pooled = json.loads(Path(params).read_text())["stages"][0]["parameters"]["pooled"]
    scale = 1 / pooled[0]["parameters"]["temperature"]
    logits = np.array(table["logits"].to_pylist())
    probs = np.array(pq.read_table(mapped)["probs"].to_pylist())
    np.testing.assert_allclose(probs, np.exp(log_softmax(scale * logits)), atol=1e-6)


def test_a_column_for_a_file_without_groups_is_refused(tmp_path) -> None:
    fitted = save(tmp_path / "val.parquet", labelled(300, 0.0))
    params, out = str(tmp_path / "p.json"), str(tmp_path / "out.parquet")
    run("fit", fitted, "-p", params, "-o", out, "-q")
    refused = run("apply", params, fitted, "-o", out, "--by", "lang", "--force")
    assert "has no maps for groups" in str(refused.exception)


def test_a_stream_finds_its_groups(tmp_path) -> None:
    source = labelled(2000, 0.9)
    fitted = save(tmp_path / "val.parquet", source)
    params, out = str(tmp_path / "p.json"), str(tmp_path / "out.parquet")
    run("fit", fitted, "--by", "lang", "-p", params, "-o", out, "-q")
    table = pq.read_table(fitted)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=100)
    streamed = str(tmp_path / "streamed.parquet")
    result = CliRunner().invoke(
        app, ["apply", params, "-", "-o", streamed], input=sink.getvalue().to_pybytes()
    )
    assert result.exit_code == 0, result.output
    first, second = (pq.read_table(path)["probs"].to_pylist() for path in (out, streamed))
    np.testing.assert_array_equal(first, second)


def test_the_table_shows_the_ten_worst_groups(tmp_path) -> None:
    source = labelled(2000, 0.5)
    groups = np.arange(2000) % 13
    content = pq.read_table(save(tmp_path / "val.parquet", source)).drop(["lang"])
    content = content.append_column("lang", pa.array(groups))
    pq.write_table(content, tmp_path / "val.parquet")
    out = str(tmp_path / "out.parquet")
    arguments = ["fit", str(tmp_path / "val.parquet"), "--by", "lang", "-o", out, "--force",
                 "-p", str(tmp_path / "p.json"), "-q"]  # fmt: skip
    for form in ("table", "markdown"):
        shown = run(*arguments, "--format", form).stdout
        assert "The 10 of 13 groups of 'lang' with the largest NLL afterwards." in shown


def test_the_python_interface_takes_groups_of_any_kind() -> None:
    source = labelled(2000, 0.9)
    numbers = source.keys[GROUP]
    by_name = [np.array(NAMES)[numbers], np.array(NAMES, object)[numbers], numbers,
               numbers.astype(float)]  # fmt: skip
    fitted = [calibcli.fit(source.scores, source.labels, by=by, folds=3) for by in by_name]
    expected = fitted[0].predict_proba(source.scores, by=by_name[0])
    for calibrator, by in zip(fitted, by_name, strict=True):
        np.testing.assert_array_equal(calibrator.predict_proba(source.scores, by=by), expected)
    unknown = fitted[0].predict_proba(source.scores, by=["?"] * 2000)
    np.testing.assert_array_equal(unknown, fitted[0].predict_proba(source.scores))
    assert not np.array_equal(unknown, expected)


def test_missing_values_are_a_group_in_the_python_interface() -> None:
    source = labelled(1000, 0.9)
    names = np.array(NAMES, object)[source.keys[GROUP]]
    names[:300:2], names[1:300:2] = None, float("nan")
    found = calibcli.fit(source.scores, source.labels, by=names, folds=2)
    assert found.stages[0].names[0] == "(missing)"


@pytest.mark.parametrize("by", [np.zeros((5, 2)), np.zeros(4), np.full(5, 0.5)])
def test_what_are_no_groups_is_refused_by_the_python_interface(by) -> None:
    logits = np.random.default_rng(0).standard_normal((5, 3))
    with pytest.raises(CalibError, match=r"by must be|no whole number"):
        calibcli.fit(logits, np.arange(5) % 3, by=by)
