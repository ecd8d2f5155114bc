"""Ensembles: what the members become is said, and is what NumPy gives."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from calibcli.errors import CalibError
from calibcli.tables import ReadOptions, open_dataset

RNG = np.random.default_rng(21)
MEMBERS, ROWS, CLASSES = 5, 60, 4
LOGITS = 2 * RNG.normal(size=(MEMBERS, ROWS, CLASSES))
LABELS = RNG.integers(0, CLASSES, ROWS)


def softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


PROBS = softmax(LOGITS)


def npz(folder: Path, name: str = "a", **arrays: np.ndarray) -> str:
    path = str(folder / f"{name}.npz")
    np.savez(path, **arrays)
    return path


def read(paths: str | list[str], rows: int = 7, **options: object):
    """Probabilities, labels and clusters as they are read, a few rows at a time."""
    paths = [paths] if isinstance(paths, str) else paths
    with open_dataset(paths, ReadOptions(**options)) as dataset:
        chunks = list(dataset.chunks(rows))
        scores = np.concatenate([chunk.scores for chunk in chunks]).astype(float)
        probs = scores if dataset.kind == "probs" else softmax(scores)
        clusters = [(chunk.keys or {}).get("cluster") for chunk in chunks]
        return (
            probs,
            np.concatenate([chunk.labels for chunk in chunks]),
            None if clusters[0] is None else np.concatenate(clusters),
        )


def refusal(paths: str | list[str], **options: object) -> str:
    with pytest.raises(CalibError) as caught:
        open_dataset([paths] if isinstance(paths, str) else paths, ReadOptions(**options))
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture(
    params=["(M, N, K)", "(N, M, K)", "keys", "probabilities", "tensors", "files", "npy"]
)
def ensemble(request, tmp_path):
    """The same ensemble in every way in which it may be stored."""
    more: dict[str, str] = {}
    if request.param == "(M, N, K)":
        paths = [npz(tmp_path, logits=LOGITS, labels=LABELS)]
    elif request.param == "(N, M, K)":
        paths = [npz(tmp_path, logits=LOGITS.transpose(1, 0, 2), labels=LABELS)]
    elif request.param == "keys":
        paths = [npz(tmp_path, labels=LABELS, **{f"logits_{m}": LOGITS[m] for m in range(MEMBERS)})]
    elif request.param == "probabilities":
        paths = [npz(tmp_path, probs=PROBS, labels=LABELS)]
    elif request.param == "tensors":
        stacked = np.ascontiguousarray(LOGITS.transpose(1, 0, 2))
        columns = {"logits": pa.FixedShapeTensorArray.from_numpy_ndarray(stacked), "label": LABELS}
        paths = [str(tmp_path / "a.parquet")]
        pq.write_table(pa.table(columns), paths[0], row_group_size=11)
    elif request.param == "files":
        paths = [
            npz(tmp_path, str(member), logits=logits, labels=LABELS)
            for member, logits in enumerate(LOGITS[:-1])
        ]
        paths.append(str(tmp_path / "last.parquet"))
        scores = pa.FixedShapeTensorArray.from_numpy_ndarray(LOGITS[-1])
        pq.write_table(pa.table({"logits": scores, "labels": LABELS}), paths[-1], row_group_size=9)
    else:
        np.save(tmp_path / "logits.npy", LOGITS)
        np.save(tmp_path / "y.npy", LABELS)
        paths, more = [str(tmp_path / "logits.npy")], {"labels": str(tmp_path / "y.npy")}
    return paths, more


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_the_mean_of_probabilities(ensemble, rows) -> None:
    paths, more = ensemble
    probs, labels, clusters = read(paths, rows, members="mean-probs", **more)
    np.testing.assert_allclose(probs, PROBS.mean(axis=0), rtol=1e-9)
    assert np.array_equal(labels, LABELS)
    assert clusters is None


def test_the_mean_of_logits(ensemble) -> None:
    paths, more = ensemble
    probs, labels, _ = read(paths, members="mean-logits", **more)
    np.testing.assert_allclose(probs, softmax(LOGITS.mean(axis=0)), rtol=1e-9)
    assert np.array_equal(labels, LABELS)


def test_each_is_a_row_and_the_members_of_a_row_are_a_cluster(ensemble) -> None:
    paths, more = ensemble
    probs, labels, clusters = read(paths, members="each", **more)
    np.testing.assert_allclose(probs, PROBS.transpose(1, 0, 2).reshape(-1, CLASSES), rtol=1e-9)
    assert np.array_equal(labels, np.repeat(LABELS, MEMBERS))
    assert np.array_equal(clusters, np.repeat(np.arange(ROWS), MEMBERS))


def test_without_a_choice_all_three_are_named(tmp_path) -> None:
    message = refusal(npz(tmp_path, logits=LOGITS, labels=LABELS))
    for way in ("mean-probs", "mean-logits", "each"):
        assert f"--members {way}" in message


def test_what_was_chosen_is_said(tmp_path) -> None:
    path = npz(tmp_path, logits=LOGITS, labels=LABELS)
    with open_dataset([path], ReadOptions(members="mean-probs")) as dataset:
        assert dataset.picked["members"] == "5, the mean of their probabilities"
        assert "members on axis 0" in dataset.picked["axes"]


def test_as_many_members_as_rows_cannot_be_told_apart(tmp_path) -> None:
    logits = RNG.normal(size=(6, 6, 4))
    path = npz(tmp_path, logits=logits, labels=np.arange(6) % 4)
    assert "--member-axis 0 or --member-axis 1" in refusal(path, members="mean-probs")
    for axis in (0, 1):
        probs, _, _ = read(path, members="mean-logits", member_axis=axis)
        np.testing.assert_allclose(probs, softmax(logits.mean(axis=axis)), rtol=1e-6)


def test_files_of_members_are_inputs_all(calib_here, tmp_path) -> None:
    paths = [
        npz(tmp_path, str(member), logits=LOGITS[member], labels=LABELS) for member in range(3)
    ]
    with open_dataset(paths, ReadOptions(members="mean-probs")) as dataset:
        assert dataset.files == paths
        assert len(dataset.fingerprints()) == 3
    options = ("-o", paths[1], "-p", "p.json", "--force", "-q")
    code, _, err = calib_here("fit", *paths, "--members", "mean-probs", *options)
    assert code == 2
    assert "is an input" in err


def test_members_that_have_other_labels_are_refused(tmp_path) -> None:
    paths = [
        npz(tmp_path, str(member), logits=LOGITS[member], labels=np.roll(LABELS, member))
        for member in range(2)
    ]
    assert "its labels are not those of" in refusal(paths, members="mean-probs")


def test_members_of_other_rows_are_refused(tmp_path) -> None:
    paths = [
        npz(tmp_path, str(rows), logits=LOGITS[0, :rows], labels=LABELS[:rows]) for rows in (50, 60)
    ]
    assert "not those of" in refusal(paths, members="mean-probs")
    keys = {"logits_a": LOGITS[0], "logits_b": LOGITS[1, :9], "labels": LABELS}
    assert "same rows and classes" in refusal(npz(tmp_path, **keys), members="mean-probs")


def test_one_model_has_no_members(tmp_path) -> None:
    path = npz(tmp_path, logits=LOGITS[0], labels=LABELS)
    assert "--members each: " in refusal(path, members="each")
    probs, _, _ = read(npz(tmp_path, "b", logits=LOGITS[:1], labels=LABELS))
    np.testing.assert_allclose(probs, PROBS[0], rtol=1e-9)


def test_two_classes_of_one_score(tmp_path) -> None:
    logits, labels = LOGITS[:, :, :1], LABELS % 2
    path = npz(tmp_path, logits=logits, labels=labels)
    positive = 1 / (1 + np.exp(-logits[..., 0]))
    with open_dataset([path], ReadOptions(members="mean-probs")) as dataset:
        (chunk,) = dataset.chunks(1000)
    assert dataset.kind == "logits"
    np.testing.assert_allclose(
        1 / (1 + np.exp(-chunk.scores[:, 0])), positive.mean(axis=0), rtol=1e-12
    )
    # The axis of length 1 may be left out.
    path = npz(tmp_path, "b", logits=logits[..., 0], labels=labels)
    with open_dataset([path], ReadOptions(members="mean-logits", class_axis="none")) as dataset:
        (chunk,) = dataset.chunks(1000)
    np.testing.assert_allclose(chunk.scores[:, 0], logits[..., 0].mean(axis=0), rtol=1e-12)


@pytest.mark.parametrize("kind", ["percent", "probs"])
def test_percent_and_sums_of_members_are_settled_before_the_mean(kind, tmp_path) -> None:
    off = PROBS * RNG.uniform(0.985, 1.015, (MEMBERS, ROWS, 1))
    stored = off * 100 if kind == "percent" else off
    path = npz(tmp_path, probs=stored, labels=LABELS)
    probs, _, _ = read(path, members="mean-probs", input=kind, renormalise=True)
    np.testing.assert_allclose(probs, PROBS.mean(axis=0), rtol=1e-9)


def test_impossible_classes_stay_impossible(tmp_path) -> None:
    logits = LOGITS.copy()
    logits[:, :, 3] = -np.inf
    path = npz(tmp_path, logits=logits, labels=LABELS % 3)
    for way in ("mean-probs", "mean-logits"):
        probs, _, _ = read(path, members=way)
        assert (probs[:, 3] == 0).all()
    probs, _, _ = read(path, members="mean-probs")
    np.testing.assert_allclose(probs[:, :3], softmax(logits)[:, :, :3].mean(axis=0), rtol=1e-9)


@pytest.mark.parametrize("first", ["members", "images"])
def test_an_ensemble_of_images(first, tmp_path) -> None:
    logits = RNG.normal(size=(3, 4, 5, 6, 7))
    labels = RNG.integers(0, 5, (4, 6, 7))
    stored = logits if first == "members" else np.swapaxes(logits, 0, 1)
    path = npz(tmp_path, logits=stored, labels=labels)
    flat = np.moveaxis(logits, 2, -1).reshape(3, -1, 5)
    probs, read_labels, clusters = read(path, 11, members="mean-probs", keys={"cluster": "image"})
    np.testing.assert_allclose(probs, softmax(flat).mean(axis=0), rtol=1e-9)
    assert np.array_equal(read_labels, labels.ravel())
    assert np.array_equal(clusters, np.repeat(np.arange(4), 42))
    keys = {f"logits_{member}": each for member, each in enumerate(logits)}
    probs, _, _ = read(npz(tmp_path, "keys", **keys, masks=labels), 11, members="mean-probs")
    np.testing.assert_allclose(probs, softmax(flat).mean(axis=0), rtol=1e-9)


def test_what_the_members_became_is_repeated_or_refused(calib_here, tmp_path) -> None:
    path = npz(tmp_path, logits=LOGITS, labels=LABELS)
    options = ("-p", "p.json", "-o", "c.npz", "-m", "temperature", "-q")
    assert calib_here("fit", path, "--members", "mean-probs", *options)[0] == 0
    code, shown, _ = calib_here("inspect", "p.json", "--format", "json")
    assert code == 0
    assert json.loads(shown)["reading"] == {"members": "mean-probs", "member_count": len(LOGITS)}
    averaged = npz(tmp_path, "mean", probs=PROBS.mean(axis=0), labels=LABELS)
    assert calib_here("fit", averaged, "-p", "q.json", "-o", "d.npz", *options[4:])[0] == 0
    # Without labels, the numbers of members and of classes say which axes these are.
    unlabelled = npz(tmp_path, "new", logits=LOGITS)
    assert calib_here("apply", "p.json", unlabelled, "-o", "e.npz", "-q")[0] == 0
    assert calib_here("apply", "q.json", averaged, "-o", "f.npz", "-q")[0] == 0
    one, other = (np.load(tmp_path / f"{name}.npz")["probs"] for name in "ef")
    np.testing.assert_allclose(one, other, rtol=1e-5)
    for refused, why in [
        ((unlabelled, "--members", "each"), "was fitted with --members mean-probs"),
        ((averaged,), "its members are to be given"),
        ((npz(tmp_path, "few", logits=LOGITS[:3], labels=LABELS),), "3 members, but"),
    ]:
        code, _, err = calib_here("apply", "p.json", *refused, "-o", "g.npz", "-q")
        assert code == 2
        assert why in err


def test_an_axis_that_was_asked_for_is_taken_where_nothing_else_proves_it(
    calib_here, tmp_path
) -> None:
    logits = RNG.normal(size=(2, 4, 4, 7))
    labels = RNG.integers(0, 4, (2, 4, 7))
    path = npz(tmp_path, logits=logits, labels=labels)
    options = ("-p", "p.json", "-o", "c.npz", "-m", "temperature", "-q")
    assert calib_here("fit", path, "--class-axis", "2", *options)[0] == 0
    written = np.load(tmp_path / "c.npz")["probs"]
    unlabelled = npz(tmp_path, "new", logits=logits)
    assert calib_here("apply", "p.json", unlabelled, "-o", "d.npz", "-q")[0] == 0
    again = np.load(tmp_path / "d.npz")["probs"]
    assert again.shape == logits.shape
    np.testing.assert_allclose(again.sum(axis=2), 1, rtol=1e-6)
    assert np.array_equal(again, written)
    # A file whose labels prove another axis has that one.
    volume = npz(tmp_path, "volume", logits=logits[0, :, :3], labels=labels[0, :3])
    assert calib_here("apply", "p.json", volume, "-o", "e.npz", "-q")[0] == 0
    np.testing.assert_allclose(np.load(tmp_path / "e.npz")["probs"].sum(axis=0), 1, rtol=1e-6)


@pytest.mark.parametrize("name", ["label", "gt"])
def test_files_with_labels_of_any_known_name_are_compared(tmp_path, name) -> None:
    order = np.arange(ROWS)[::-1]
    paths = [
        npz(tmp_path, "a", **{"logits": LOGITS[0], name: LABELS}),
        npz(tmp_path, "b", **{"logits": LOGITS[1][order], name: LABELS[order]}),
    ]
    assert "its labels are not those of" in refusal(paths, members="mean-probs")


@pytest.mark.parametrize("way", ["mean-probs", "mean-logits"])
def test_members_that_are_no_probabilities_in_a_later_file_are_refused(tmp_path, way) -> None:
    many = np.tile(PROBS.swapaxes(0, 1), (100, 1, 1))
    many[-1] = LOGITS[:, -1]
    paths = [
        npz(tmp_path, "a", scores=PROBS.swapaxes(0, 1), label=LABELS),
        npz(tmp_path, "b", scores=many, label=np.tile(LABELS, 100)),
    ]
    with pytest.raises(CalibError, match=r"b.npz, row \d+: a score of a member is outside"):
        read(paths, members=way)


@pytest.mark.parametrize("order", [1, -1])
def test_members_of_different_kinds_are_refused(tmp_path, order) -> None:
    first, second = (LOGITS[0], PROBS[0])[::order]
    path = npz(tmp_path, scores=np.stack([first, second], axis=1), labels=LABELS)
    message = refusal(path, members="mean-probs")
    assert f"probabilities in member {1 if order == 1 else 0} of" in message
    files = [
        npz(tmp_path, n, scores=s[:, None], labels=LABELS)
        for n, s in zip("ab", (first, second), strict=True)
    ]
    assert "give rows of each kind to a command of their own" in refusal(files)
