"""Pixels, voxels, tokens and ensembles: the same numbers as the table that they are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibcli.errors import CalibError
from calibcli.tables import ReadOptions, open_dataset
from calibcli.tables.read_options import Reading

SHAPES = {
    "pixels": ((5, 3, 4, 6), 1),
    "channels-last": ((5, 4, 6, 3), 3),
    "voxels": ((3, 2, 4, 6), 0),
    "volumes": ((4, 3, 2, 5, 6), 1),
    "one image": ((3, 7, 5), 0),
    "one image, channels last": ((7, 5, 3), 2),
    "tokens": ((6, 9, 4), 2),
    "torch's tokens": ((6, 4, 9), 1),
    "classes in the middle": ((2, 4, 3, 5, 6), 2),
}


def scores_and_labels(shape: tuple[int, ...], axis: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    scores = 2 * rng.normal(size=shape).astype(np.float32)
    labels = (scores + rng.gumbel(size=shape)).argmax(axis=axis)
    return scores, labels


def flat(scores: np.ndarray, axis: int) -> np.ndarray:
    return np.moveaxis(scores, axis, -1).reshape(-1, scores.shape[axis])


def rows_read(paths: str | list[str], rows: int = 7, **options: object):
    """All scores and labels of some files, read a few rows at a time."""
    paths = [paths] if isinstance(paths, str) else paths
    with open_dataset(paths, ReadOptions(**options)) as dataset:
        chunks = list(dataset.chunks(rows))
        assert sum(map(len, chunks)) == dataset.rows
        again = [chunk for part in dataset.cut(rows) for chunk in part.chunks(rows)]
        scores, labels = (
            np.concatenate([getattr(chunk, name) for chunk in chunks])
            for name in ("scores", "labels")
        )
        assert np.array_equal(np.concatenate([chunk.scores for chunk in again]), scores)
        return scores, labels


def refusal(path: str, **options: object) -> str:
    with pytest.raises(CalibError) as caught:
        open_dataset([path], ReadOptions(**options))
    return str(caught.value)


def npz(folder: Path, name: str = "a", save=np.savez, **arrays: np.ndarray) -> str:
    path = str(folder / f"{name}.npz")
    save(path, **arrays)
    return path


# Axes


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("rows", [1, 7, 10_000])
def test_any_shape_is_its_flattened_table(shape, save, rows, tmp_path) -> None:
    scores, labels = scores_and_labels(*shape)
    path = npz(tmp_path, save=save, logits=scores, labels=labels)
    read, labels_read = rows_read(path, rows)
    assert read.dtype == scores.dtype
    assert np.array_equal(read, flat(scores, shape[1]))
    assert np.array_equal(labels_read, labels.ravel())


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 5), min_size=2, max_size=4),
    st.data(),
    st.sampled_from(["float16", "float32", "float64"]),
    st.sampled_from("CF"),
    st.integers(1, 40),
)
def test_whatever_the_lengths_order_and_type(places, data, dtype, order, rows) -> None:
    import tempfile

    axis = data.draw(st.integers(0, len(places)))
    shape = [*places[:axis], 6, *places[axis:]]
    scores, labels = scores_and_labels(tuple(shape), axis, seed=len(places))
    scores = np.asarray(scores, dtype, order=order)
    with tempfile.TemporaryDirectory() as folder:
        path = npz(Path(folder), logits=scores, labels=np.asarray(labels, order=order))
        read, labels_read = rows_read(path, rows)
    assert np.array_equal(read, flat(scores, axis))
    assert np.array_equal(labels_read, labels.ravel())


@pytest.mark.parametrize("name", ["seg", "segmentation", "mask", "masks", "label", "targets"])
def test_labels_are_known_by_name_and_shape(name, tmp_path) -> None:
    scores, labels = scores_and_labels(*SHAPES["voxels"])
    path = npz(tmp_path, probabilities=scores, **{name: labels.astype("u1")})
    assert np.array_equal(rows_read(path, input="logits")[1], labels.ravel())


def test_labels_of_another_file(tmp_path) -> None:
    scores, labels = scores_and_labels(*SHAPES["voxels"])
    np.save(tmp_path / "seg.npy", labels)
    np.save(tmp_path / "logits.npy", scores)
    read = rows_read(str(tmp_path / "logits.npy"), labels=str(tmp_path / "seg.npy"))
    assert np.array_equal(read[0], flat(scores, 0))
    assert np.array_equal(read[1], labels.ravel())


def test_labels_with_an_axis_of_length_1_where_the_classes_are(tmp_path) -> None:
    scores, labels = scores_and_labels(*SHAPES["pixels"])
    path = npz(tmp_path, logits=scores, labels=labels[:, None])
    read = rows_read(path)
    assert np.array_equal(read[0], flat(scores, 1))
    assert np.array_equal(read[1], labels.ravel())


def test_two_axes_that_fit_are_refused_with_both_ways(tmp_path) -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(2, 4, 4, 7)).astype("f4")
    labels = rng.integers(0, 4, (2, 4, 7))
    path = npz(tmp_path, logits=scores, labels=labels)
    message = refusal(path)
    assert "--class-axis 1 or --class-axis 2" in message
    assert "\n" not in message
    for axis in (1, 2):
        assert np.array_equal(rows_read(path, class_axis=axis)[0], flat(scores, axis))
    assert np.array_equal(rows_read(path, class_axis=-2)[0], flat(scores, 2))


def test_labels_of_another_shape_are_refused(tmp_path) -> None:
    path = npz(tmp_path, logits=np.zeros((2, 3, 4, 5), "f4"), labels=np.zeros((2, 4, 6), int))
    assert "such as (2, 4, 5) for (2, 3, 4, 5), not (2, 4, 6)" in refusal(path)


def test_one_score_a_pixel(tmp_path) -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(3, 1, 4, 5)).astype("f4")
    masks = rng.integers(0, 2, (3, 1, 4, 5))
    read = rows_read(npz(tmp_path, logits=scores, labels=masks))
    assert np.array_equal(read[0], scores.reshape(-1, 1))
    assert np.array_equal(read[1], masks.ravel())
    # Without the axis, it may also be a label for each of several classes.
    path = npz(tmp_path, "b", logits=scores[:, 0], labels=masks[:, 0])
    assert "--class-axis none" in refusal(path)
    read = rows_read(path, class_axis="none")
    assert np.array_equal(read[0], scores.reshape(-1, 1))
    assert np.array_equal(read[1], masks.ravel())


def test_without_labels_the_axis_is_asked_for(tmp_path) -> None:
    scores, _ = scores_and_labels(*SHAPES["pixels"])
    path = npz(tmp_path, logits=scores)
    assert "--labels" in refusal(path)
    message = refusal(path, labels_required=False)
    assert " or ".join(f"--class-axis {axis}" for axis in range(4)) in message
    known = ReadOptions(labels_required=False).repeating(Reading("p.json", class_count=3))
    with open_dataset([path], known) as dataset:
        (chunk,) = dataset.chunks(1000)
    assert np.array_equal(chunk.scores, flat(scores, 1))


def test_files_of_several_sizes_are_one_table(tmp_path) -> None:
    paths, parts = [], []
    for index, shape in enumerate([(3, 2, 4, 6), (3, 5, 4, 2)]):
        scores, labels = scores_and_labels(shape, 0, index)
        paths.append(npz(tmp_path, str(index), logits=scores, labels=labels))
        parts.append((flat(scores, 0), labels.ravel()))
    read = rows_read(paths)
    assert np.array_equal(read[0], np.concatenate([scores for scores, _ in parts]))
    assert np.array_equal(read[1], np.concatenate([labels for _, labels in parts]))


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_tensors_of_a_table(rows, tmp_path) -> None:
    scores, labels = scores_and_labels(*SHAPES["pixels"])
    tensors = [pa.FixedShapeTensorArray.from_numpy_ndarray(each) for each in (scores, labels)]
    names = ["a", "b", None, "a", "b"]
    columns = {"logits": tensors[0], "labels": tensors[1], "patient": pa.array(names)}
    path = str(tmp_path / "a.parquet")
    pq.write_table(pa.table(columns), path, row_group_size=2)
    read = rows_read(path, rows)
    assert np.array_equal(read[0], flat(scores, 1))
    assert np.array_equal(read[1], labels.ravel())
    with open_dataset([path], ReadOptions(keys={"by": "patient"})) as dataset:
        chunks = list(dataset.chunks(rows, with_columns=True))
        assert dataset.key_names("by") == ("a", "b", "(missing)")
    patients = [each for chunk in chunks for each in chunk.columns.column("patient").to_pylist()]
    assert patients == np.repeat(names, 24).tolist()
    keys = np.concatenate([chunk.keys["by"] for chunk in chunks])
    assert np.array_equal(keys, np.repeat([0, 1, 2, 0, 1], 24))


def test_images_and_pixels_have_numbers(tmp_path) -> None:
    scores, labels = scores_and_labels(*SHAPES["pixels"])
    paths = [npz(tmp_path, str(part), logits=scores, labels=labels) for part in range(2)]
    with open_dataset(paths, ReadOptions(keys={"cluster": "image"})) as dataset:
        assert "--cluster image" not in str(dataset.picked)
        chunks = list(dataset.chunks(11, with_columns=True))
        assert dataset.key_names("cluster") == tuple(map(str, range(10)))
        assert dataset.locate(24 * 6 + 8) == f"{paths[1]}, image 1, pixel (1, 2)"
    images = np.concatenate([chunk.columns.column("image").to_numpy() for chunk in chunks])
    pixels = np.concatenate([chunk.columns.column("pixel").to_numpy() for chunk in chunks])
    assert np.array_equal(images, np.repeat(np.arange(10), 24))
    assert np.array_equal(pixels, np.tile(np.arange(24), 10))
    with open_dataset(paths, ReadOptions()) as dataset:
        assert "--cluster image" in dataset.picked["axes"]


def test_a_wrong_value_is_located(tmp_path) -> None:
    scores, labels = scores_and_labels(*SHAPES["pixels"])
    labels = labels.astype(float)
    labels[2, 1, 3] = 0.5
    path = npz(tmp_path, logits=scores, labels=labels)
    with (
        open_dataset([path], ReadOptions()) as dataset,
        pytest.raises(CalibError, match=r"image 2, pixel \(1, 3\): the label 0.5"),
    ):
        list(dataset.chunks(7))


# What people have


def test_predictions_of_hugging_face_s_trainer(tmp_path) -> None:
    rng = np.random.default_rng(2)
    scores, labels = scores_and_labels((8, 12, 5), 2)
    padding = np.arange(12) >= rng.integers(4, 12, 8)[:, None]
    scores[padding], labels[padding] = -100, -100
    path = npz(tmp_path, predictions=scores, label_ids=labels)
    with open_dataset([path], ReadOptions()) as dataset:
        data = list(dataset.chunks(1000))
        assert "--cluster sequence" in dataset.picked["axes"]
        first = int(np.argmax(padding.ravel()))
        place = f"sequence {first // 12}, token {first % 12}"
        assert dataset.locate(first) == f"{path}, {place}"
    assert (np.concatenate([chunk.labels for chunk in data]) == labels.ravel()).all()
    read = rows_read(path, ignore_label=-100)
    assert np.array_equal(read[0], scores[~padding])
    assert np.array_equal(read[1], labels[~padding])


@pytest.mark.parametrize("number", [-100, 255])
def test_the_label_of_places_without_one_is_proposed(number, calib_here, tmp_path) -> None:
    scores, labels = scores_and_labels(*SHAPES["pixels"])
    labels[:, 0] = number
    path = npz(tmp_path, logits=scores, labels=labels.astype(np.int16))
    code, _, err = calib_here("evaluate", path, "-q")
    assert code == 2
    assert f"image 0, pixel (0, 0): label {number}" in err
    assert f"--ignore-label {number}" in err
    assert calib_here("evaluate", path, "--ignore-label", number, "-q")[0] == 0


def test_a_mask_of_0_and_255_is_one_of_two_classes(calib_here, tmp_path) -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(3, 1, 4, 5)).astype("f4")
    masks = 255 * (rng.random((3, 1, 4, 5)) < 0.5).astype("u1")
    path = npz(tmp_path, logits=scores, mask=masks)
    assert np.array_equal(rows_read(path)[1], masks.ravel() // 255)
    with open_dataset([path], ReadOptions()) as dataset:
        assert "0, 255 for the classes in this order" in dataset.picked["labels"]
        assert dataset.layout.decisions["label_numbers"] == [0, 255]
    # Where 1 is there as well, 255 is no class; and nothing is said of a file that has no 0.
    masks[0, 0, 0] = 1
    path = npz(tmp_path, "b", logits=scores, mask=masks)
    assert "--ignore-label 255" in calib_here("evaluate", path, "-q")[2]
    path = npz(tmp_path, "c", logits=scores, mask=np.full_like(masks, 255))
    assert calib_here("evaluate", path, "-q")[0] == 2


def test_a_batch_of_monai_beside_its_images(tmp_path) -> None:
    scores, labels = scores_and_labels((2, 3, 4, 5, 6), 1)
    images = np.zeros((2, 1, 4, 5, 6), "f4")
    path = npz(tmp_path, image=images, pred=scores, label=labels[:, None].astype("f4"))
    read = rows_read(path)
    assert np.array_equal(read[0], flat(scores, 1))
    assert np.array_equal(read[1], labels.ravel())


def test_arrays_without_names_are_told_by_their_shapes(tmp_path) -> None:
    scores, labels = scores_and_labels(*SHAPES["pixels"])
    path = str(tmp_path / "a.npz")
    np.savez(path, labels, scores)
    read = rows_read(path)
    assert np.array_equal(read[0], flat(scores, 1))
    assert np.array_equal(read[1], labels.ravel())
    path = npz(tmp_path, "b", pred=scores, preds=scores + 1, labels=labels)
    assert "--logits pred or --logits preds" in refusal(path)


def test_an_array_beside_a_table_of_scores_is_none(tmp_path) -> None:
    scores, labels = scores_and_labels((30, 3), 1)
    path = npz(tmp_path, logits=scores, hidden=np.zeros((30, 4, 8), "f4"), labels=labels)
    assert np.array_equal(rows_read(path)[0], scores)


@pytest.mark.parametrize("suffix", ["npy", "npz"])
@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_a_folder_of_segmentations_beside_one_of_predictions(suffix, rows, tmp_path) -> None:
    """Cases as nnU-Net writes them, (C, Z, Y, X) and each of its own size."""
    predicted, segmented = tmp_path / "predicted", tmp_path / "segmented"
    for folder in (predicted, segmented):
        folder.mkdir()
    parts = []
    for index, shape in enumerate([(3, 2, 4, 6), (3, 5, 4, 2)]):
        scores, labels = scores_and_labels(shape, 0, index)
        probs = np.exp(scores) / np.exp(scores).sum(axis=0)
        npz(predicted, f"case_{index}", np.savez_compressed, probabilities=probs)
        if suffix == "npy":
            np.save(segmented / f"case_{index}.npy", labels.astype("u1"))
        else:
            npz(segmented, f"case_{index}", seg=labels.astype("i2"))
        parts.append((flat(probs, 0), labels.ravel()))
    read = rows_read(str(predicted), rows, labels=str(segmented))
    assert np.array_equal(read[0], np.concatenate([scores for scores, _ in parts]))
    assert np.array_equal(read[1], np.concatenate([labels for _, labels in parts]))
    with open_dataset([str(predicted)], ReadOptions(labels=str(segmented))) as dataset:
        assert len(dataset.files) == len(dataset.fingerprints()) == 4
    sampled = rows_read(str(predicted), rows, labels=str(segmented), sample=5)
    assert len(sampled[0]) == 10
    (segmented / f"case_1.{suffix}").unlink()
    assert "which would be called case_1.npy" in refusal(str(predicted), labels=str(segmented))
    if suffix == "npz":
        npz(segmented, "case_0", seg=parts[0][1], mask=parts[0][1] > 0)
        assert "could all be the labels" in refusal(str(predicted), labels=str(segmented))


# Samples


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("name", ["pixels", "voxels", "channels-last"])
def test_a_sample_has_the_same_pixels_whatever_is_read_at_a_time(name, save, tmp_path) -> None:
    scores, labels = scores_and_labels(*SHAPES[name])
    path = npz(tmp_path, save=save, logits=scores, labels=labels)
    images = 1 if name == "voxels" else 5
    few, many = (rows_read(path, rows, sample=10) for rows in (3, 1000))
    assert np.array_equal(few[0], many[0])
    assert len(few[0]) == 10 * images
    with open_dataset([path], ReadOptions(sample=10)) as dataset:
        (chunk,) = dataset.chunks(1000, with_columns=True)
    image, pixel = (chunk.columns.column(key).to_numpy() for key in ("image", "pixel"))
    rows = image * (labels.size // images) + pixel
    assert len(set(rows.tolist())) == 10 * images
    assert (np.diff(rows) > 0).all()
    assert np.array_equal(few[0], flat(scores, SHAPES[name][1])[rows])
    assert np.array_equal(few[1], labels.ravel()[rows])


def test_a_sample_takes_labels_of_another_file_from_the_same_pixels(tmp_path) -> None:
    scores, labels = scores_and_labels(*SHAPES["pixels"])
    np.save(tmp_path / "logits.npy", scores)
    np.save(tmp_path / "labels.npy", labels)
    both = npz(tmp_path, logits=scores, labels=labels)
    apart = rows_read(str(tmp_path / "logits.npy"), labels=str(tmp_path / "labels.npy"), sample=9)
    assert all(map(np.array_equal, apart, rows_read(both, sample=9)))


def test_a_table_has_nothing_to_sample(tmp_path) -> None:
    path = npz(tmp_path, logits=np.zeros((4, 3), "f4"), labels=np.arange(4) % 3)
    assert "--sample 5" in refusal(path, sample=5)
    assert "--class-axis 7" in refusal(path, class_axis=7)


# What is written


def fitted(calib_here, folder: Path, classes: int, temperature: float = 2.0) -> str:
    """A parameter file of one temperature."""
    rng = np.random.default_rng(3)
    logits = temperature * rng.normal(size=(400, classes))
    labels = (logits / temperature + rng.gumbel(size=logits.shape)).argmax(axis=1)
    path = npz(folder, "fit", logits=logits, labels=labels)
    files = ("-p", folder / "p.json", "-o", folder / "c.npz", "--force")
    assert calib_here("fit", path, *files, "-q")[0] == 0
    return str(folder / "p.json")


def applied(calib_here, params: str, inputs: list[str], output: Path, *options: str):
    """What ``calib apply`` writes."""
    code, _, err = calib_here("apply", params, *inputs, "-o", output, "--force", "-q", *options)
    assert code == 0, err
    written = np.load(output)
    return written if output.suffix == ".npy" else dict(written)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("rows", [7, 100_000])
def test_apply_gives_the_shape_back(shape, rows, calib_here, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("calibcli.workflow.applying.chunk_rows", lambda *_: rows)
    (stored, axis) = shape
    scores, labels = scores_and_labels(stored, axis)
    params = fitted(calib_here, tmp_path, stored[axis])
    table = npz(tmp_path, "flat", logits=flat(scores, axis), labels=labels.ravel())
    expected = applied(calib_here, params, [table], tmp_path / "flat_out.npz")
    path = npz(tmp_path, logits=scores, labels=labels, weight=labels / 2)
    written = applied(calib_here, params, [path], tmp_path / "out.npz")
    assert written["probs"].shape == stored
    assert np.array_equal(flat(written["probs"], axis), expected["probs"])
    for name in ("prediction", "confidence", "label"):
        assert written[name].shape == labels.shape
        assert np.array_equal(written[name].ravel(), expected[name])
    assert np.array_equal(written["weight"], labels / 2)
    assert not {"image", "pixel", "sequence", "token"} & set(written)
    alone = applied(calib_here, params, [path], tmp_path / "out.npy")
    assert np.array_equal(alone, written["probs"])


def test_apply_gives_one_score_a_pixel_back(calib_here, tmp_path) -> None:
    params = fitted(calib_here, tmp_path, 2)
    scores = np.random.default_rng(0).normal(size=(3, 1, 4, 5)).astype("f4")
    masks = (scores > 0).astype(int)
    table = npz(tmp_path, "flat", logits=scores.ravel(), labels=masks.ravel())
    expected = applied(calib_here, params, [table], tmp_path / "flat_out.npz")["probs"][:, 1]
    path = npz(tmp_path, logits=scores, labels=masks)
    written = applied(calib_here, params, [path], tmp_path / "out.npz")
    assert written["probs"].shape == scores.shape
    assert np.array_equal(written["probs"].ravel(), expected)
    path = npz(tmp_path, "b", logits=scores[:, 0], labels=masks[:, 0])
    written = applied(calib_here, params, [path], tmp_path / "out.npz", "--class-axis", "none")
    assert np.array_equal(written["probs"], expected.reshape(3, 4, 5))


def test_images_of_several_files_are_one_array(calib_here, tmp_path) -> None:
    params = fitted(calib_here, tmp_path, 3)
    scores, labels = scores_and_labels((5, 3, 4, 6), 1)
    parts = [
        npz(tmp_path, str(at), logits=scores[part], labels=labels[part], case=names)
        for at, part, names in [(0, slice(2), ["a", "b"]), (1, slice(2, 5), ["c", "d", "e"])]
    ]
    written = applied(calib_here, params, parts, tmp_path / "out.npz")
    whole = npz(tmp_path, logits=scores, labels=labels)
    assert np.array_equal(
        written["probs"], applied(calib_here, params, [whole], tmp_path / "whole.npz")["probs"]
    )
    assert written["case"].tolist() == ["a", "b", "c", "d", "e"]
    volumes = [npz(tmp_path, f"v{depth}", logits=np.ones((3, depth, 4), "f4")) for depth in (2, 5)]
    code, _, err = calib_here(
        "apply", params, *volumes, "--class-axis", "0", "-o", tmp_path / "v.npz"
    )
    assert code == 2
    assert "run calib apply for each, or write -o FILE.parquet" in err


def test_a_table_has_columns_that_number_images_and_pixels(calib_here, tmp_path) -> None:
    params = fitted(calib_here, tmp_path, 3)
    scores, labels = scores_and_labels((5, 3, 4, 6), 1)
    path = npz(tmp_path, logits=scores, labels=labels)
    written = applied(calib_here, params, [path], tmp_path / "out.npz")
    assert calib_here("apply", params, path, "-o", tmp_path / "out.parquet", "-q")[0] == 0
    table = pq.read_table(tmp_path / "out.parquet")
    image, pixel = (table[name].to_numpy() for name in ("image", "pixel"))
    rows = written["prediction"].reshape(5, 24)[image, pixel]
    assert np.array_equal(table["prediction"].to_numpy(), rows)
    probs = np.stack(table["probs"].to_numpy())
    assert np.array_equal(probs, flat(written["probs"], 1))


def test_what_was_written_is_read_again(calib_here, tmp_path) -> None:
    params = fitted(calib_here, tmp_path, 3)
    scores, labels = scores_and_labels((5, 3, 4, 6), 1)
    applied(calib_here, params, [npz(tmp_path, logits=scores, labels=labels)], tmp_path / "out.npz")
    table = npz(tmp_path, "flat", logits=flat(scores, 1), labels=labels.ravel())
    applied(calib_here, params, [table], tmp_path / "flat_out.npz")
    results = []
    for name in ("out", "flat_out"):
        code, out, _ = calib_here("evaluate", f"{name}.npz", "--format", "json", "-q")
        assert code == 0
        results.append(json.loads(out)["metrics"])
    assert results[0] == results[1]


@pytest.mark.parametrize("name", SHAPES)
def test_fits_and_measures_like_the_table(name, calib_here, tmp_path) -> None:
    shape, axis = SHAPES[name]
    scores, labels = scores_and_labels(shape, axis)
    paths = [
        npz(tmp_path, "grid", logits=scores, labels=labels),
        npz(tmp_path, "flat", logits=flat(scores, axis), labels=labels.ravel()),
    ]
    documents = []
    for path in paths:
        output, params = f"{path}.out.npz", f"{path}.json"
        code, out, _ = calib_here("fit", path, "-p", params, "-o", output, "--format", "json", "-q")
        assert code == 0
        result = json.loads(out)
        documents.append(
            (result["before"], result["after"], json.loads(Path(params).read_text())["stages"])
        )
    assert documents[0] == documents[1]


# Labels of several names


def test_several_labels_that_fit_are_said_or_refused(tmp_path) -> None:
    scores, labels = scores_and_labels(*SHAPES["pixels"])
    path = npz(tmp_path, logits=scores, label=labels, target=labels)
    with open_dataset([path], ReadOptions()) as dataset:
        assert dataset.picked["labels"].startswith("key 'label' (int64); also there: target")
    for pair in (("seg", "mask"), ("truth", "gt")):
        path = npz(tmp_path, logits=scores, **dict.fromkeys(pair, labels))
        assert refusal(path).endswith(f"--labels {pair[0]} or --labels {pair[1]}")
