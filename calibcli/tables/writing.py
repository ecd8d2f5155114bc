"""Calibrated probabilities to a file, while the next ones are being computed."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, BinaryIO, Protocol

from calibcli.engine.source import NumpyArray
from calibcli.errors import UsageError
from calibcli.tables.atomic import STDOUT, atomic_write, check_writable

SUFFIXES = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".npz": "npz",
    ".arrow": "ipc-file",
    ".feather": "ipc-file",
    ".ipc": "ipc-file",
}
WAITING = 2
"""Pieces that may wait to be written: one is encoded, one is ready."""


@dataclass(frozen=True)
class Piece:
    """Rows to be written.

    Attributes
    ----------
    own : dict of str to array
        ``probs`` (n, K), ``prediction``, ``confidence``, and what else was computed.
    columns : pyarrow.RecordBatch or None
        The other columns of the input.
    """

    own: dict[str, NumpyArray]
    columns: Any = None


def free_names(columns: Collection[str], taken: Collection[str]) -> dict[str, str]:
    """New names for the columns of the input that have the name of a calibrated one.

    ``prediction`` becomes ``input_prediction``, so that nothing is lost where the input is an
    output of `calib` itself.
    """
    used = {*columns, *taken}
    renamed = {}
    for name in columns:
        if name in taken:
            new = f"input_{name}"
            while new in used:
                new = f"input_{new}"
            used.add(new)
            renamed[name] = new
    return renamed


class Sink(Protocol):
    """Writes pieces to an open file, in one format."""

    @property
    def renamed(self) -> dict[str, str]:
        """Columns of the input that were renamed."""

    @property
    def left_out(self) -> tuple[str, ...]:
        """Columns of the input that the format cannot hold."""

    def write(self, piece: Piece) -> None:
        """Write the next rows."""

    def close(self) -> None:
        """Write the end of the file; the file itself stays open."""

    def abandon(self) -> None:
        """Give up: what was written does not matter any more."""


class Described(Protocol):
    """What a writer must know of its input; a `Dataset` does."""

    @property
    def rows(self) -> int:
        """Number of rows, or -1."""

    @property
    def class_names(self) -> tuple[str, ...] | None: ...


class Writer:
    """Hands pieces to a thread that encodes and writes them, so that computing goes on.

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

    def write(
        self,
        columns: Any,
        probs: NumpyArray,
        prediction: NumpyArray,
        confidence: NumpyArray,
        labels: NumpyArray | None = None,
        extra: Mapping[str, NumpyArray] | None = None,
    ) -> None:
        """Write the next rows. The arrays are not copied and must not be changed afterwards.

        Parameters
        ----------
        columns : pyarrow.RecordBatch or None
            The other columns of the input, from `Chunk.columns`.
        probs : float32 or float64 array (n, K)
        prediction : integer array (n,)
        confidence : array (n,)
        labels : int64 array (n,) or None
        extra : dict of str to array (n,) or (n, m), or None
            More computed columns.

        Raises
        ------
        DataError
            A column cannot be written in this format.
        OSError
            Writing failed, perhaps for an earlier piece.
        """
        own = {"probs": probs, "prediction": prediction, "confidence": confidence}
        if labels is not None:
            own["label"] = labels
        if not len(probs):
            return
        while len(self._waiting) >= WAITING:
            self._waiting.popleft().result()
        piece = Piece({**own, **(extra or {})}, columns)
        self._waiting.append(self._thread.submit(self._sink.write, piece))

    def finish(self) -> None:
        """Wait until everything is written, and write the end of the file."""
        while self._waiting:
            self._waiting.popleft().result()
        self._sink.close()

    def close(self) -> None:
        """Stop the thread; whatever was not finished is abandoned."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._sink.abandon()


def output_format(path: str) -> str:
    """The format of an output file, by its suffix; standard output is an Arrow IPC stream.

    Raises
    ------
    UsageError
        The suffix is none that can be written.
    """
    if path == STDOUT:
        return "ipc-stream"
    suffix = PurePath(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(f"{path}: the suffix must be one of {', '.join(SUFFIXES)}")
    return SUFFIXES[suffix]


def check_output(path: str, *, force: bool) -> None:
    """Refuse an output that could not be written, before any work is done for it.

    Raises
    ------
    UsageError
        See `output_format` and `check_writable`.
    """
    output_format(path)
    check_writable(path, force=force)


@contextmanager
def open_writer(
    path: str, source: Described, *, force: bool = False, stdout: BinaryIO | None = None
) -> Iterator[Writer]:
    """A writer of calibrated probabilities; the file appears when the context is left.

    Parameters
    ----------
    path : str
        ``.parquet``, ``.npz`` or ``.arrow``; ``-`` writes an Arrow IPC stream to standard output.
    source : Described
        Where the rows come from.
    force : bool
        Whether an existing file may be replaced.
    stdout : binary file or None
        Instead of the process's standard output.

    Raises
    ------
    UsageError
        See `check_output`.
    DataError
        The disk is full, or cannot be written. Nothing is left behind.
    """
    kind = output_format(path)
    with _given(stdout) if path == STDOUT and stdout else atomic_write(path, force=force) as file:
        writer = Writer(_sink(kind, file, source))
        try:
            yield writer
            writer.finish()
        finally:
            writer.close()


@contextmanager
def _given(file: BinaryIO) -> Iterator[BinaryIO]:
    yield file
    file.flush()


def _sink(kind: str, file: BinaryIO, source: Described) -> Sink:
    if kind == "npz":
        from calibcli.tables.npz_writing import NpzSink

        return NpzSink(file, source.rows, source.class_names)
    from calibcli.tables.arrow_writing import IpcSink, ParquetSink

    if kind == "parquet":
        return ParquetSink(file, source.class_names)
    return IpcSink(file, source.class_names, stream=kind == "ipc-stream")
