"""Calibrated probabilities to a file, while the next ones are being computed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePath
from typing import Any, BinaryIO, Protocol

from calibcli.arrays import NumpyArray
from calibcli.errors import UsageError
from calibcli.tables.atomic import STDOUT, Outputs, check_writable
from calibcli.tables.formats.base import GridShape, Sink
from calibcli.tables.formats.registry import FORMATS, OUTPUTS, FileFormat, import_function
from calibcli.tables.locations import is_folder, is_url, without_options

WAITING = 2
"""Calls that may wait to be written: one is encoded, one is ready."""


class Described(Protocol):
    """What a writer must know of its input; a `Dataset` does."""

    @property
    def rows(self) -> int:
        """Number of rows, or -1."""

    @property
    def class_names(self) -> tuple[str, ...] | None: ...


class Writer:
    """Hands rows to a thread that encodes and writes them, so that computing goes on.

    Parameters
    ----------
    sink : Sink
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._thread = ThreadPoolExecutor(1, "calib-writer")
        self._waiting: deque[Future[None]] = deque()

    @property
    def renamed(self) -> dict[str, str]:
        """Columns of the input that were renamed, since a calibrated one has their name."""
        return self._sink.renamed

    @property
    def left_out(self) -> tuple[str, ...]:
        """Columns of the input that the format cannot hold."""
        return self._sink.left_out

    def write_table(self, computed: Mapping[str, NumpyArray], columns: Any) -> None:
        """Write the next rows. The arrays are not copied and must not be changed afterwards.

        Parameters
        ----------
        computed : dict of str to array (n,) or (n, m)
            Columns that were computed, the scores first if they are among them.
        columns : pyarrow.RecordBatch or None
            The other columns of the input, from `Chunk.columns`.

        Raises
        ------
        DataError
            A column cannot be written in this format.
        OSError
            Writing failed, perhaps of earlier rows.
        """
        if not len(next(iter(computed.values()))):
            return
        while len(self._waiting) >= WAITING:
            self._waiting.popleft().result()
        self._waiting.append(self._thread.submit(self._sink.write, computed, columns))

    def finish(self) -> None:
        """Wait until everything is written, and write the end of the file."""
        while self._waiting:
            self._waiting.popleft().result()
        self._sink.close()

    def close(self) -> None:
        """Stop the thread; whatever was not finished is abandoned."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._sink.abandon()


def output_format(path: str) -> FileFormat:
    """The format of an output file, by its suffix; standard output is an Arrow IPC stream.

    Raises
    ------
    UsageError
        The suffix is none that can be written.
    """
    if path == STDOUT:
        return FORMATS["ipc-stream"]
    suffix = PurePath(without_options(path)).suffix.lower()
    if suffix not in OUTPUTS:
        raise UsageError(f"{path}: the suffix must be one of {', '.join(OUTPUTS)}")
    return OUTPUTS[suffix]


def check_output(path: str, *, force: bool, in_parts: bool = False) -> None:
    """Refuse an output that could not be written, before any work is done for it.

    Parameters
    ----------
    path : str
    force : bool
        Whether what is there may be replaced.
    in_parts : bool
        Whether it may be a folder of parts.

    Raises
    ------
    UsageError
        See `output_format`, `check_writable` and `check_folder`.
    """
    if in_parts and is_folder(path):
        from calibcli.tables.part_folders import check_folder

        check_folder(path, force=force)
        return
    if in_parts and not is_url(path) and Path(path).is_dir():
        raise UsageError(
            f"{path}: is a folder; {path}/ is one of parts, {path}/NAME.parquet a file in it"
        )
    output_format(path)
    check_writable(path, force=force)


@contextmanager
def open_writer(
    path: str,
    source: Described,
    *,
    outputs: Outputs | None = None,
    force: bool = False,
    stdout: BinaryIO | None = None,
    seen: bool = False,
    grid: GridShape | None = None,
    notes: Mapping[str, str] | None = None,
    threads: int = 1,
) -> Iterator[Writer]:
    """A writer of calibrated probabilities; the file appears when the context is left.

    Parameters
    ----------
    path : str
        ``.parquet``, ``.npz``, ``.npy`` (probabilities alone) or ``.arrow``; ``-`` writes an Arrow
        IPC stream to standard output.
    source : Described
        Where the rows come from.
    outputs : Outputs or None
        The files that it is to appear with, instead of when the context is left.
    force : bool
        Whether an existing file may be replaced, where there are no `outputs`.
    stdout : binary file or None
        Instead of the process's standard output.
    seen : bool
        Whether a fit has seen the rows, which the file then says of itself.
    grid : GridShape or None
        The shape that the rows get back where the format has arrays of several axes.
    notes : dict of str to str or None
        How the file is to be read, see `DataFile.notes`; not of an ``.npy``.
    threads : int
        On which the file is encoded, in formats that can be; it is the same on any number.

    Raises
    ------
    UsageError
        See `check_output`.
    DataError
        The disk is full, or cannot be written. Nothing is left behind.
    """
    form = output_format(path)
    with ExitStack() as stack:
        if path == STDOUT and stdout:
            file = stack.enter_context(_given(stdout))
        else:
            file = (outputs or stack.enter_context(Outputs(force=force))).open(path)
        more: dict[str, Any] = {"grid": grid} if form.gives_shape else {}
        if notes is not None:
            more["notes"] = notes
        with writer_to(file, form, source, seen=seen, threads=threads, **more) as writer:
            yield writer
        if outputs is not None and writer.left_out:
            outputs.left_out[path] = writer.left_out


@contextmanager
def writer_to(
    file: BinaryIO,
    form: FileFormat,
    source: Described,
    *,
    seen: bool,
    threads: int = 1,
    **more: Any,
) -> Iterator[Writer]:
    """A writer of a format to an open file; ``more`` are further arguments of its sink."""
    if form.on_threads:
        more["threads"] = threads
    sink = import_function(form.sink)(file, source.rows, source.class_names, seen, **more)
    writer = Writer(sink)
    try:
        yield writer
        writer.finish()
    finally:
        writer.close()


@contextmanager
def _given(file: BinaryIO) -> Iterator[BinaryIO]:
    yield file
    file.flush()
