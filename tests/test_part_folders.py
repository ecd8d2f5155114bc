"""Folders of parts: what one machine writes into a file, in its order, all of it or nothing."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from near_workers import NearWorkers, write_files
from pyarrow.fs import LocalFileSystem, SubTreeFileSystem
from table_files import opened, write_npz

from calibcli import fit
from calibcli.engine import engine as engine_module
from calibcli.engine.data import open_data
from calibcli.engine.engine import Engine
from calibcli.errors import CalibError, DataError, UsageError
from calibcli.tables import (
    Outputs,
    check_output,
    check_writable,
    locations,
    part_folders,
    remote_files,
)
from calibcli.tables.manifest import MANIFEST, WrittenPart, decode_manifest, encode_manifest
from calibcli.workflow import calibrated_outputs
from calibcli.workflow.calibrated_outputs import write_calibrated

ROWS = 251


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Parts of 32 rows with four classes."""
    monkeypatch.setattr(engine_module, "_TILE_ELEMENTS", {"cpu": 64})
    monkeypatch.setattr(engine_module, "_SEGMENT_TILES", 2)


def calibrator(classes: int = 4, method: str = "temperature", **options):
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(90, classes)), np.arange(90) % classes
    return fit(scores, labels, method=method, folds=0, **options)


def applied(inputs: str, path: Path | str, engine: Engine | None = None, **options) -> int:
    """Rows of what a calibrator writes of a folder of files."""
    stages = options.pop("stages", calibrator().stages)
    force = options.pop("force", False)
    with opened(inputs, labels_required=False, **options) as dataset, Outputs(force=force) as files:
        return write_calibrated(engine or Engine(), dataset, stages, str(path), files, ())


def contents(folder: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in sorted(folder.iterdir())}


def whole(folder: Path) -> pa.Table:
    names = [part.name for part in decode_manifest((folder / MANIFEST).read_bytes(), "")]
    return pa.concat_tables([pq.read_table(folder / name) for name in names])


def test_workers_write_the_parts_that_one_machine_writes(tmp_path) -> None:
    inputs = write_files(tmp_path / "in", id=np.arange(ROWS))
    assert applied(inputs, tmp_path / "file.parquet") == ROWS
    assert applied(inputs, f"{tmp_path}/near/") == ROWS
    assert len(contents(tmp_path / "near")) == 1 + -(-ROWS // 32)
    for count in (1, 2, 3):
        seen: list[int] = []
        engine = Engine(workers=NearWorkers(str(count)), on_rows=seen.append)
        assert applied(inputs, f"{tmp_path}/far{count}/", engine) == ROWS == sum(seen)
        assert contents(tmp_path / f"far{count}") == contents(tmp_path / "near")
    assert whole(tmp_path / "near").equals(pq.read_table(tmp_path / "file.parquet"))


@pytest.mark.parametrize("method", [("venn-abers",), ("temperature", "--by", "group")])
def test_groups_intervals_decisions_and_rows_left_out_are_the_same(
    tmp_path, calib_here, method
) -> None:
    group = np.array([f"g{i}" for i in np.arange(ROWS) // 7 % 5])
    inputs = write_files(tmp_path / "in", classes=2, group=group)
    fitted = ("fit", inputs, "-q", "-p", "p.json", "-m", *method)
    assert calib_here(*fitted, "--output", "fitted/")[0] == 0
    assert (tmp_path / "fitted" / MANIFEST).is_file()
    for output in ("file.parquet", "parts/"):
        apply = ("apply", "p.json", inputs, "--threshold", "0.4", "--ignore-label", "1")
        assert calib_here(*apply, "-q", "-o", output)[0] == 0
    assert whole(tmp_path / "parts").equals(pq.read_table("file.parquet"))
    assert ("confidence_lower" in pq.read_schema("file.parquet").names) == (len(method) == 1)


def test_rows_of_several_labels_stay_whole(tmp_path, calib_here) -> None:
    rng = np.random.default_rng(1)
    labels = (rng.random((ROWS, 3)) < 0.4).astype(np.int64)
    write_npz(tmp_path / "in", rng.normal(size=(ROWS, 3)) + labels, labels)
    read = ("in.npz", "-q", "--multi-label")
    fitted = ("fit", *read, "-m", "temperature", "-p", "p.json", "-o", "file.parquet")
    assert calib_here(*fitted)[::2] == (0, "")
    assert calib_here("apply", "p.json", *read, "-o", "parts/")[0] == 0
    assert whole(tmp_path / "parts").equals(pq.read_table("file.parquet"))


def test_parts_are_read_back_as_one_data_set(tmp_path, calib_here) -> None:
    inputs = write_files(tmp_path / "in")
    for output in ("file.parquet", "parts/"):
        applied(inputs, output)
    # What is no part does not count, whoever has put it there.
    pq.write_table(pq.read_table("file.parquet"), tmp_path / "parts" / "a.parquet")
    numbers = []
    for name in ("file.parquet", "parts/"):
        code, out, _ = calib_here("evaluate", name, "--format", "json", "--metrics", "nll,ece")
        assert code == 0
        numbers.append(json.loads(out)["metrics"])
    assert numbers[0] == numbers[1]


def test_a_folder_that_is_not_whole_is_refused(tmp_path) -> None:
    applied(write_files(tmp_path / "in"), f"{tmp_path}/out/")
    folder, path = tmp_path / "out", str(tmp_path / "out")
    part = folder / "part-00003.parquet"
    content = part.read_bytes()
    part.write_bytes(content[:-1])
    with (
        pytest.raises(DataError, match=r"part-00003\.parquet has [\d,]+ bytes, not "),
        opened(path),
    ):
        pass
    part.unlink()
    with pytest.raises(DataError, match=r"part-00003\.parquet is missing"), opened(path):
        pass
    (folder / MANIFEST).write_bytes(encode_manifest(None))
    with pytest.raises(DataError, match="its writing was broken off"), opened(path):
        pass


@pytest.mark.parametrize(
    "content",
    [
        b"[]",
        b"{",
        b"[" * 100_000,
        b'{"format": "calib-parts", "version": 2, "complete": true, "parts": []}',
        encode_manifest([WrittenPart("../part-00000.parquet", 1, 1)]),
        encode_manifest([WrittenPart("part-00000.parquet", 1, 1)] * 2),
        encode_manifest([WrittenPart("part-00000.parquet", 1, True)]),
        encode_manifest([WrittenPart(["part-00000.parquet"], 1, 1)]),  # type: ignore[arg-type]
    ],
)
def test_a_manifest_that_cannot_be_right_is_refused(content) -> None:
    with pytest.raises(DataError, match=r"^m: "):
        decode_manifest(content, "m")


def test_a_wrong_row_is_named_as_at_home_and_nothing_is_left(tmp_path) -> None:
    inputs = write_files(tmp_path / "in")
    labels = np.zeros(90, np.int64)
    scores = np.zeros((90, 4), np.float32)
    scores[41, 1] = np.nan
    write_npz(tmp_path / "wrong", scores, labels)
    wrong, lines = str(tmp_path / "wrong.npz"), set()
    applied(inputs, f"{tmp_path}/there/")
    before = contents(tmp_path / "there")
    for path in ("one.parquet", "parts/", "there/"):
        for engine in (Engine(), Engine(workers=NearWorkers())):
            with pytest.raises(DataError, match=r"wrong.npz, row 41: ") as caught:
                applied(wrong, f"{tmp_path}/{path}", engine, force=True)
            lines.add(str(caught.value))
    assert len(lines) == 1
    assert sorted(each.name for each in tmp_path.iterdir()) == ["in", "there", "wrong.npz"]
    assert contents(tmp_path / "there") == before


@pytest.mark.parametrize("has_exchange", [True, False])
def test_a_rerun_replaces_or_refuses(tmp_path, monkeypatch, has_exchange) -> None:
    if not has_exchange:
        monkeypatch.setattr(part_folders, "_exchange", lambda *_: False)
    path = f"{tmp_path}/out/"
    applied(write_files(tmp_path / "long"), path)
    short = write_files(tmp_path / "short", rows=(40,))
    with pytest.raises(UsageError, match="exists already; --force replaces it"):
        applied(short, path)
    assert len(contents(tmp_path / "out")) == 9

    def fail_after() -> None:
        with opened(short) as dataset, Outputs(force=True) as files:
            write_calibrated(Engine(), dataset, calibrator().stages, path, files, ())
            pending = files.open(f"{tmp_path}/later", last=True)
            pending.write(b"x")
            monkeypatch.setattr(type(files._final[0]), "give_name", give_no_name)

    def give_no_name(*_: object, **__: object) -> None:
        raise CalibError("no name")

    with pytest.raises(CalibError, match="no name"):
        fail_after()
    assert len(contents(tmp_path / "out")) == 9
    applied(short, path, force=True)
    assert len(contents(tmp_path / "out")) == 3
    assert sorted(each.name for each in tmp_path.iterdir()) == ["long", "out", "short"]


def test_folders_of_others_are_left_alone(tmp_path, calib_here) -> None:
    write_files(tmp_path / "in")
    write_files(tmp_path / "other")
    assert calib_here("fit", "in", "-q", "-m", "temperature", "-p", "p.json")[0] == 0
    for output, said in {
        "other/": "other/: other files are in it",
        "other": "other: is a folder; other/ is one of parts",
        "p.json/": "p.json/: is a file",
        "absent/out/": "there is no folder",
    }.items():
        code, _, err = calib_here("apply", "p.json", "in", "-q", "--force", "-o", output)
        assert (code, said in err) == (2, True), err
    assert calib_here("apply", "p.json", "in", "-q", "-o", "out/")[0] == 0
    again = ("apply", "p.json", "out/*", "--logits", "probs", "-q", "--force", "-o", "out/")
    code, _, err = calib_here(*again)
    assert (code, "an input is in it" in err) == (2, True), err
    # An empty folder is as good as none.
    (tmp_path / "empty").mkdir()
    check_output("empty/", force=False, in_parts=True)


def test_what_a_killed_process_left_is_removed_and_what_is_written_is_not(tmp_path) -> None:
    left = tmp_path / ".calib-0123456789ab.tmp"
    left.mkdir()
    (left / "part-00000.parquet").write_bytes(b"x")
    with Outputs() as files:
        folder = files.folder(f"{tmp_path}/out/")
        assert not left.exists()
        with folder.place.open("part-00000.parquet") as file:
            file.write(b"x")
        with Outputs() as others:
            others.open(f"{tmp_path}/other").write(b"x")
        # A worker that was given up for lost still writes.
        with folder.place.open("part-00001.parquet") as file:
            file.write(b"y")
        for _ in range(2):
            with folder.place.open("part-00000.parquet") as file:
                file.write(b"x")
        folder.add([WrittenPart("part-00000.parquet", 1, 1)])
    assert sorted(contents(tmp_path / "out")) == [MANIFEST, "part-00000.parquet"]
    late = folder.place.open("part-00000.parquet")
    with pytest.raises(CalibError, match="is not seen by a worker"), late:
        pass


def test_one_file_is_no_work_for_workers(tmp_path, calib_here) -> None:
    write_files(tmp_path / "in")
    assert calib_here("fit", "in", "-q", "-p", "p.json")[0] == 0
    apply = ("apply", "p.json", "in", "-o", "a.parquet", "--workers", "processes:2")
    code, _, err = calib_here(*apply)
    assert code == 0
    assert "a.parquet: one file is written from this machine; -o FOLDER/ lets workers" in err


# Object stores


@pytest.fixture
def store(tmp_path, monkeypatch) -> Path:
    """What ``s3://bucket/`` stands for: a folder, whose files appear when they are closed."""
    folder = tmp_path / "store"
    (folder / "bucket").mkdir(parents=True)
    system = SubTreeFileSystem(str(folder), LocalFileSystem())

    def of(url: str):
        path = locations.without_options(url).removeprefix("s3://")
        (folder / path).parent.mkdir(exist_ok=True, parents=True)
        if path.endswith("/"):
            (folder / path).mkdir(exist_ok=True)
        return system, path

    for module in (locations, part_folders, remote_files):
        monkeypatch.setattr(module, "filesystem", of)
    return folder / "bucket"


URL = "s3://bucket/out/?region=x"


def test_an_object_store_has_the_parts_that_its_manifest_names(tmp_path, store) -> None:
    inputs, folder = write_files(tmp_path / "in"), store / "out"
    applied(inputs, f"{tmp_path}/out/")
    applied(inputs, URL, Engine(workers=NearWorkers()))
    assert whole(folder).equals(whole(tmp_path / "out"))
    with opened(URL) as dataset:
        assert dataset.rows == ROWS
        assert dataset.files[0].startswith("s3://bucket/out/part-00000-")
    with pytest.raises(UsageError, match="exists already"):
        applied(inputs, URL)
    first = contents(folder)
    short = write_files(tmp_path / "short", rows=(40,))
    # Of a run that was killed.
    (folder / "part-00007-0123456789ab.parquet").write_bytes(b"x")
    applied(short, URL, force=True)
    assert len(contents(folder)) == 3
    assert not set(contents(folder)) & {name for name in first if name != MANIFEST}


@pytest.mark.parametrize("force", [False, True])
def test_a_failure_leaves_an_object_store_as_it_was(tmp_path, store, force) -> None:
    if force:
        applied(write_files(tmp_path / "in"), URL)
    before = contents(store / "out") if force else {}
    scores = np.zeros((90, 4), np.float32)
    scores[71, 1] = np.nan
    wrong = write_npz(tmp_path / "wrong", scores, np.zeros(90, np.int64))
    with pytest.raises(DataError, match="row 71"):
        applied(wrong, URL, force=force)
    assert contents(store / "out") == before


def test_who_reads_too_early_is_refused(store) -> None:
    with Outputs() as files:
        folder = files.folder(URL)
        with folder.place.open("part-00000-0123456789ab.parquet") as file:
            file.write(b"x")
        with pytest.raises(DataError, match="is being written"), opened(URL):
            pass
        folder.add([WrittenPart("part-00000-0123456789ab.parquet", 1, 1)])
    assert len(contents(store / "out")) == 2


def test_single_files_go_to_object_stores_too(tmp_path, store) -> None:
    inputs, url = write_files(tmp_path / "in"), "s3://bucket/a/one.parquet?region=x"
    applied(inputs, tmp_path / "one.parquet")
    applied(inputs, url)
    assert (store / "a" / "one.parquet").read_bytes() == (tmp_path / "one.parquet").read_bytes()
    with pytest.raises(UsageError, match="exists already"):
        applied(inputs, url)
    with pytest.raises(UsageError, match="is a folder"):
        check_writable("s3://bucket/a", force=True)


def test_parts_have_as_many_rows_as_suit_their_number(monkeypatch) -> None:
    monkeypatch.undo()
    engine = Engine()
    assert engine.segment_rows(100) * 100 == pytest.approx(8 << 20, rel=0.01)
    assert calibrated_outputs.part_rows(engine, 2_000_000, 100) == engine.segment_rows(100)
    assert calibrated_outputs.part_rows(engine, 300_000_000, 1000) == 16 * engine.segment_rows(1000)


def test_files_go_through_a_calibrator_of_python_too(tmp_path) -> None:
    inputs, one = write_files(tmp_path / "in"), calibrator()
    assert one.apply_files(inputs, f"{tmp_path}/out/") == ROWS
    assert one.apply_files([inputs], f"{tmp_path}/file.parquet", threads=1) == ROWS
    assert whole(tmp_path / "out").equals(pq.read_table(tmp_path / "file.parquet"))
    with pytest.raises(UsageError, match="workers write a folder"):
        one.apply_files(inputs, f"{tmp_path}/b.parquet", workers="processes:1")
    with pytest.raises(DataError, match="has 4 classes, the calibrator 3"):
        calibrator(3).apply_files(inputs, f"{tmp_path}/other/")


def test_what_only_this_machine_has_is_refused_before_it_starts(tmp_path) -> None:
    scores, labels = 3 * np.eye(4)[np.arange(90) % 4], np.arange(90) % 4
    inputs = write_npz(tmp_path / "in", scores, labels)
    packed = gzip.compress(Path(inputs).read_bytes())
    (tmp_path / "packed.npz.gz").write_bytes(packed)
    with (
        opened(tmp_path / "packed.npz.gz") as dataset,
        pytest.raises(UsageError, match="calib convert"),
    ):
        open_data(Engine(workers=NearWorkers()), dataset)
