"""Files that are complete or not there at all."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from table_files import (
    folder_is_empty,
    source,
    write_rows,
)

from calibcli.errors import CalibError, UsageError
from calibcli.tables import (
    Outputs,
    atomic,
    atomic_write,
    check_output,
    open_writer,
    pending_files,
)

ROOT = Path(__file__).parents[1]
P = np.full((100, 5), 0.2, np.float32)


@pytest.fixture(params=["unnamed", "named"])
def folder(request, tmp_path, monkeypatch):
    """An empty folder, on a system that has files without names or not."""
    if request.param == "named":
        monkeypatch.setattr(pending_files, "_open_unnamed", lambda _: None)
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def test_a_file_appears_when_it_is_complete(folder):
    path = folder / "a.json"
    with atomic_write(str(path)) as file:
        file.write(b"{")
        file.flush()
        assert not path.exists()
        file.write(b"}")
    assert [each.name for each in folder.iterdir()] == ["a.json"]
    assert path.read_bytes() == b"{}"


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_permissions_are_those_of_any_new_file(folder, umask):
    before = os.umask(umask)
    try:
        with atomic_write(str(folder / "a")) as file:
            file.write(b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((folder / "a").stat().st_mode) == 0o666 & ~umask


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit, BrokenPipeError])
@pytest.mark.parametrize("suffix", ["parquet", "npz", "arrow"])
def test_nothing_is_left_behind_by_an_error(folder, suffix, error):
    def interrupted():
        with open_writer(str(folder / f"a.{suffix}"), source()) as writer:
            write_rows(writer, P[:50])
            raise error

    with pytest.raises(error):
        interrupted()
    assert folder_is_empty(folder)


def test_an_existing_file_is_only_replaced_as_a_whole(folder):
    path = folder / "a"
    path.write_bytes(b"old")
    with pytest.raises(UsageError, match="exists already; --force replaces it"):
        atomic_write(str(path)).__enter__()

    def interrupted():
        with atomic_write(str(path), force=True) as file:
            file.write(b"new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
    assert path.read_bytes() == b"old"
    with atomic_write(str(path), force=True) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"
    assert len(list(folder.iterdir())) == 1


def test_a_file_that_appeared_meanwhile_is_kept(folder):
    path = folder / "a"

    def overtaken():
        with atomic_write(str(path)) as file:
            file.write(b"mine")
            path.write_bytes(b"theirs")

    with pytest.raises(UsageError, match="exists by now"):
        overtaken()
    assert path.read_bytes() == b"theirs"
    assert len(list(folder.iterdir())) == 1


def test_a_file_system_without_links_will_do(tmp_path, monkeypatch):
    def link(*_, **__):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(pending_files, "_open_unnamed", lambda _: None)
    monkeypatch.setattr(os, "link", link)
    with atomic_write(str(tmp_path / "a")) as file:
        file.write(b"x")
    assert [each.name for each in tmp_path.iterdir()] == ["a"]


def test_a_link_is_written_through(folder):
    (folder / "target").write_bytes(b"old")
    (folder / "link").symlink_to("target")
    with atomic_write(str(folder / "link"), force=True) as file:
        file.write(b"new")
    assert (folder / "link").is_symlink()
    assert (folder / "target").read_bytes() == b"new"


KILLED = """
import sys, time, numpy as np
from types import SimpleNamespace
from calibcli.tables import open_writer
p = np.full((200_000, 4), 0.25, np.float32)
with open_writer(sys.argv[1], SimpleNamespace(rows=400_000, class_names=None)) as writer:
    writer.write_table({"probs": p, "prediction": p.argmax(1)}, None)
    print("writing", flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="needs files without names")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("suffix", ["parquet", "npz"])
def test_a_killed_process_leaves_nothing_behind(tmp_path, number, suffix):
    command = [sys.executable, "-c", KILLED, str(tmp_path / f"a.{suffix}")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout.readline() == b"writing\n"
        time.sleep(0.05)
        process.send_signal(number)
    assert process.returncode == -number
    assert folder_is_empty(tmp_path)


FULL = """
import resource, sys, numpy as np
from types import SimpleNamespace
from calibcli.errors import CalibError
from calibcli.tables import open_writer
sys.dont_write_bytecode = True  # a module cut by the limit would stay
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
p = np.random.default_rng(0).random((50_000, 4), np.float32)
try:
    with open_writer(sys.argv[1], SimpleNamespace(rows=100_000, class_names=None)) as writer:
        for _ in range(2):
            writer.write_table({"probs": p, "prediction": p.argmax(1)}, None)
except CalibError as error:
    print(error)
"""


@pytest.mark.parametrize("suffix", ["parquet", "npz", "arrow"])
def test_a_full_disk_is_one_line(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    # Nor could coverage write what it measures.
    environment = {k: v for k, v in os.environ.items() if k != "COVERAGE_PROCESS_CONFIG"}
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(path)],
        env=environment,
        capture_output=True,
        cwd=ROOT,
        check=True,
    )
    assert done.stdout.decode() == f"{path}: File too large; nothing was written\n"
    assert done.stderr == b""
    assert folder_is_empty(tmp_path)


def test_paths_that_cannot_be_written_are_refused_first(tmp_path):
    (tmp_path / "there.npz").write_bytes(b"x")
    os.mkfifo(tmp_path / "pipe.npz")
    for path, problem in (
        (tmp_path / "there.npz", "exists already; --force replaces it"),
        (tmp_path / "pipe.npz", "is not a regular file"),
        (tmp_path / "absent/a.npz", "there is no folder"),
        (tmp_path / "a.csv", "the suffix must be one of .parquet, .pq, .npz, .npy, .arrow"),
        (tmp_path / "a", "the suffix must be"),
    ):
        with pytest.raises(UsageError) as caught:
            check_output(str(path), force=False)
        assert str(caught.value).startswith(f"{path}: ")
        assert problem in str(caught.value)
    with pytest.raises(UsageError, match="is a folder"):
        atomic.check_writable(str(tmp_path), force=True)
    check_output(str(tmp_path / "there.npz"), force=True)
    check_output("-", force=False)


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="a folder of Linux")
def test_a_folder_that_takes_no_files_is_one_line():
    with pytest.raises(UsageError, match=r"^/proc/x.json: /proc is no folder for new files$"):
        atomic.Outputs().open("/proc/x.json")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_not_writable_is_refused_first(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UsageError, match="is not writable"):
        check_output(str(tmp_path / "a.npz"), force=False)


# Several files that belong together


def names(folder):
    return sorted(each.name for each in folder.iterdir())


def test_files_appear_together_and_the_last_one_last(folder, monkeypatch):
    order = []
    give_name = pending_files.PendingFile.give_name

    def noticed(pending, **options):
        order.append(Path(pending.path).name)
        assert not (folder / order[-1]).exists()
        give_name(pending, **options)

    monkeypatch.setattr(pending_files.PendingFile, "give_name", noticed)
    with Outputs() as outputs:
        outputs.open(str(folder / "p.json"), last=True).write(b"p")
        outputs.open(str(folder / "o.npz")).write(b"o")
        outputs.open(str(folder / "r.html")).write(b"r")
        assert not {"p.json", "o.npz", "r.html"} & set(names(folder))
    assert order == ["o.npz", "r.html", "p.json"]
    assert names(folder) == ["o.npz", "p.json", "r.html"]
    assert (folder / "o.npz").read_bytes() == b"o"


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("fails", [0, 1, 2])
def test_a_file_that_gets_no_name_takes_the_others_back(folder, monkeypatch, force, fails):
    old = {"a": b"old a", "b": b"old b"} if force else {}
    for name, content in old.items():
        (folder / name).write_bytes(content)
    give_name = pending_files.PendingFile.give_name
    count = 0

    def failing(pending, **options):
        nonlocal count
        count += 1
        if count == fails + 1:
            pending._target = folder / ("x" * 300)
        give_name(pending, **options)

    monkeypatch.setattr(pending_files.PendingFile, "give_name", failing)

    def write():
        with Outputs(force=force) as outputs:
            for name in ("a", "b", "c"):
                outputs.open(str(folder / name)).write(b"new")

    with pytest.raises(CalibError, match="File name too long; nothing was written"):
        write()
    assert {each.name: each.read_bytes() for each in folder.iterdir()} == old


def test_a_failure_of_one_file_leaves_all_out(folder):
    def write():
        with Outputs() as outputs:
            outputs.open(str(folder / "a")).write(b"a")
            outputs.open(str(folder / "absent" / "b"))

    with pytest.raises(UsageError, match="there is no folder"):
        write()
    assert folder_is_empty(folder)


def test_names_may_be_as_long_as_the_file_system_allows(folder):
    path = folder / ("x" * 255)
    for _ in range(2):
        with atomic_write(str(path), force=True) as file:
            file.write(b"x")
    assert names(folder) == [path.name]


def test_a_signal_between_two_names_waits_until_all_are_there(folder, monkeypatch):
    give_name = pending_files.PendingFile.give_name

    def interrupted(pending, **options):
        give_name(pending, **options)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(pending_files.PendingFile, "give_name", interrupted)

    def write():
        with Outputs() as outputs:
            for name in ("a", "b"):
                outputs.open(str(folder / name)).write(b"x")

    with pytest.raises(KeyboardInterrupt):
        write()
    assert names(folder) == ["a", "b"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_a_killed_process_left_is_removed(folder):
    left = folder / ".calib-0123456789ab.tmp"
    left.write_bytes(b"x")
    (folder / ".calib-mine.txt").write_bytes(b"x")
    with atomic_write(str(folder / "a")) as file:
        file.write(b"a")
    assert names(folder) == [".calib-mine.txt", "a"]


def test_what_another_process_is_writing_is_left_alone(folder, monkeypatch):
    monkeypatch.setattr(pending_files, "_open_unnamed", lambda _: None)
    with atomic_write(str(folder / "a")) as file:
        file.write(b"a")
        with atomic_write(str(folder / "b")) as other:
            other.write(b"b")
    assert names(folder) == ["a", "b"]


def test_links_in_a_circle_are_one_line(folder):
    (folder / "l").symlink_to(folder / "l")
    with pytest.raises(UsageError, match="Too many levels of symbolic links"):
        atomic.check_writable(str(folder / "l"), force=True)


def test_an_empty_name_is_refused():
    with pytest.raises(UsageError, match="empty name"):
        atomic.check_writable("", force=True)
