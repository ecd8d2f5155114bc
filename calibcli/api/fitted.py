"""A fitted calibrator: read from a file, applied to what a service has at hand, written again.

A service imports this at its start. So what only a fit, a file of data or an error needs is
imported where it is used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from calibcli.api.containers import open_scores, tensor_on_device
from calibcli.arrays import InputKind, NumpyArray, known_kind
from calibcli.calibrators.base import GROUP, Calibrator
from calibcli.calibrators.groups import groups_in
from calibcli.engine.kept_columns import TOP_INDEX, TOP_LOGPROB, Kept, RowColumns
from calibcli.engine.source import ArraySource
from calibcli.errors import DataError, UsageError
from calibcli.params import Params, encode
from calibcli.workflow.applying import (
    ALL_COLUMNS,
    LOCAL,
    Predictions,
    calibrated_chunks,
    chunk_rows,
    probabilities_at_once,
    probabilities_on_device,
)
from calibcli.workflow.records import read_calibrators

if TYPE_CHECKING:
    from calibcli.workflow.fitting import Outcome
    from calibcli.workflow.pricing import CostsLike

_DIRECT = (np.dtype(np.float64), np.dtype(np.float32))
"""Precisions of scores that are computed with as they are."""


@dataclass(frozen=True)
class FittedCalibrator:
    """A fitted calibrator.

    Attributes
    ----------
    params : Params
        What a parameter file holds: stages, classes, how it was fitted, metrics.
    stages : tuple of Calibrator
        The maps, applied in order.
    outcome : Outcome or None
        The fit and its evaluation; None for one that was loaded.
    """

    params: Params
    stages: tuple[Calibrator, ...]
    outcome: Outcome | None = None

    def predict_proba(
        self, logits: Any, input: InputKind | None = None, *, by: ArrayLike | None = None
    ) -> Any:
        """Calibrated probabilities (n, K), float32, or float64 for float64 scores.

        Of a calibrator of several labels a row, those of each label.

        Parameters
        ----------
        logits : array (n, K), or (n,) for two classes
            Scores of the kind that the calibrator was fitted on, or of the kind ``input``; a single
            row (K,), or number for two classes, gives probabilities (K,). Lists and arrays of NumPy
            give such an array. A tensor of torch gives a tensor on its device, a frame or series of
            pandas a frame with the same index, and a frame, series or array of Polars or Arrow one
            of its library.
        by : array (n,), optional
            The group of each row. A row of a group that the fit did not know, and every row if
            this is left out, gets the map of all rows.

        Examples
        --------
        >>> from calibcli import fit
        >>> calibrator = fit([[3, 0, 0], [0, 3, 0], [0, 0, 3], [0, 3, 0]], [0, 1, 2, 2], folds=0)
        >>> calibrator.predict_proba([[0, 0, 0], [3, 0, 0]]).round(3)
        array([[0.333, 0.333, 0.333],
               [0.75 , 0.125, 0.125]])
        >>> calibrator.predict_proba([3, 0, 0]).round(3)
        array([0.75 , 0.125, 0.125])
        """
        if self._labels:
            scores, closed = open_scores(logits, len(self._labels), self._labels)
            return closed(self._by_label(scores, input, by))
        if type(logits) is np.ndarray and logits.ndim == 2:
            return self._probabilities(logits, input, by)
        tensor = tensor_on_device(logits, self.params.classes)
        if tensor is not None and by is None:
            kind = known_kind(input or self.params.input)
            probs = probabilities_on_device(self.stages, tensor, kind)
            if probs is not None:
                return probs
        scores, closed = open_scores(logits, self.params.classes, self.params.class_names)
        return closed(self._probabilities(scores, input, by))

    def _probabilities(
        self, scores: Any, input: InputKind | None, by: ArrayLike | None
    ) -> NumpyArray:
        """Probabilities (n, K) of scores (n, C) of NumPy."""
        if by is None and scores.dtype in _DIRECT:
            kind, columns = known_kind(input or self.params.input), scores.shape[1]
            if columns == self.params.classes or (columns == 1 and self.params.classes == 2):
                probs = probabilities_at_once(self.stages, scores, kind)
                if probs is not None:
                    return probs
        return self._by_chunks(scores, input, by)

    @property
    def _labels(self) -> tuple[str, ...]:
        """The names of the labels, where any number of them may be right in a row."""
        return tuple(self.params.reading.get("label_names", ()))

    def _by_label(
        self, scores: NumpyArray, input: InputKind | None, by: ArrayLike | None
    ) -> NumpyArray:
        """The probability (n, K) of each label, by its own map.

        Raises
        ------
        DataError, UsageError
        """
        if by is not None:
            raise UsageError("by: each label has its own map already")
        if scores.shape[1:] != (len(self._labels),):
            raise DataError(f"the scores are of {scores.shape[1]} labels, not {len(self._labels)}")
        names = np.tile(np.array(self._labels), len(scores))
        probs = self._by_chunks(scores.reshape(-1, 1), input, names)
        return np.ascontiguousarray(probs[:, 1]).reshape(scores.shape)

    def _by_chunks(
        self, scores: NumpyArray, input: InputKind | None, by: ArrayLike | None
    ) -> NumpyArray:
        """Probabilities (n, K) of any number of rows; what is wrong with one is said by its place.

        Raises
        ------
        DataError, UsageError
        """
        from calibcli.api.arguments import grouped_source, score_precision

        source = self._read(scores, input)
        groups = groups_in(self.stages)
        if by is not None and groups is not None:
            source = grouped_source(source, GROUP, by, "by", groups.names)
        empty = np.empty((0, self.params.classes), score_precision(source))
        return np.concatenate([empty, *(part.probs for part in self._calibrated(source))])

    def predict_top(
        self, logits: ArrayLike, count: int, input: InputKind | None = None
    ) -> tuple[NumpyArray, NumpyArray]:
        """The most probable classes (n, count) of each row, and their probabilities (n, count).

        The likeliest comes first, and of equals the one with the least number. Of many classes
        this holds a small part of what `predict_proba` gives; ``calib apply --keep top:K`` writes
        it.

        Parameters
        ----------
        logits, input
            As for `predict_proba`.
        count : int
            How many classes, from 1 on; all if there are no more.

        Raises
        ------
        UsageError
            The count is less than 1.

        Examples
        --------
        >>> from calibcli import fit
        >>> calibrator = fit([[3, 0, 0], [0, 3, 0], [0, 0, 3], [0, 3, 0]], [0, 1, 2, 2], folds=0)
        >>> classes, probs = calibrator.predict_top([[0, 3, 1]], 2)
        >>> classes, probs.round(2)
        (array([[1, 2]], dtype=int32), array([[0.68, 0.21]]))
        """
        from calibcli.api.arguments import score_precision

        if count < 1:
            raise UsageError(f"count is {count}; at least one class is needed")
        count = min(count, self.params.classes)
        source = self._read(open_scores(logits, self.params.classes)[0], input)
        columns = RowColumns(Kept(top=count))
        index, probs = (
            [np.empty((0, count), dtype)] for dtype in (np.int32, score_precision(source))
        )
        for part in self._calibrated(source, columns):
            index.append(part.columns[TOP_INDEX])
            probs.append(np.exp(part.columns[TOP_LOGPROB]))
        return np.concatenate(index), np.concatenate(probs)

    def predict_interval(
        self, logits: ArrayLike, input: InputKind | None = None
    ) -> tuple[Any, Any]:
        """Lower and upper bound (n,) of the probability of each row's predicted class.

        Parameters are those of `predict_proba`.

        Raises
        ------
        UsageError
            The last stage offers no interval; that of the method ``venn-abers`` does.

        Examples
        --------
        >>> from calibcli import fit
        >>> logits, labels = [2.9, -2.9, 2.9, -2.9] * 5, [1, 0, 1, 1] * 5
        >>> calibrator = fit(logits, labels, method="venn-abers", folds=0)
        >>> low, high = calibrator.predict_interval([2.9])
        >>> [round(float(end[0]), 2) for end in (low, high)]
        [0.91, 1.0]
        """
        from calibcli.api.arguments import score_precision

        source = self._read(open_scores(logits, self.params.classes)[0], input)
        empty = np.empty(0, score_precision(source))
        lower, upper = [empty], [empty]
        for part in self._calibrated(source, intervals=True):
            if part.interval is None:
                last = self.stages[-1].kind if self.stages else "none"
                raise UsageError(f"{last} offers no intervals; venn-abers does, as the last stage")
            lower.append(part.interval[0])
            upper.append(part.interval[1])
        return np.concatenate(lower), np.concatenate(upper)

    def decide(
        self,
        logits: ArrayLike,
        input: InputKind | None = None,
        *,
        threshold: float | str | None = None,
        costs: CostsLike | None = None,
        positive: int | None = None,
        by: ArrayLike | None = None,
    ) -> Any:
        """Decisions (n,), int64: classes by a threshold, or by what errors cost.

        Parameters
        ----------
        logits, input, by
            As for `predict_proba`.
        threshold : float or str, optional
            Of two classes: the positive one is decided for from this probability on; ``"best"`` is
            the threshold that `fit` has learnt with ``costs``.
        costs : mapping or array (K, K), optional
            Of two classes ``{"fp": 1, "fn": 50}``, or by true class and decision: the decision of
            least expected cost.
        positive : int, optional
            The positive class of two; that of the fit's costs, or class 1, if left out.

        Raises
        ------
        UsageError, ParamsError
            There is not one of threshold and costs, or it is none for these classes.

        Examples
        --------
        >>> from calibcli import fit
        >>> logits, labels = [[2, 0], [0, 2], [2, 0], [0, 2]], [0, 1, 1, 1]
        >>> calibrator = fit(logits, labels, method="temperature", folds=0)
        >>> calibrator.predict_proba([[2, 0], [0, 2]])[:, 1].round(2)
        array([0.25, 0.75])
        >>> calibrator.decide([[2, 0], [0, 2]], costs={"fp": 1, "fn": 9})
        array([1, 1])
        """
        from calibcli.workflow.pricing import given_costs, make_decider

        given = None if costs is None else given_costs(costs)
        name = None if positive is None else str(positive)
        decider = make_decider(self.params, threshold, given, name)
        if self._labels:
            scores, _ = open_scores(logits, len(self._labels))
            probs = self._by_label(scores, input, by).reshape(-1)
            return decider(np.stack([1 - probs, probs], axis=1)).reshape(scores.shape)
        scores, _ = open_scores(logits, self.params.classes)
        return decider(self._probabilities(scores, input, by))

    def _read(self, logits: NumpyArray, input: InputKind | None) -> ArraySource:
        from calibcli.api.arguments import array_source

        source = array_source(logits, None, None, input or known_kind(self.params.input))
        if max(source.columns, 2) != self.params.classes:
            raise DataError(
                f"the scores have {max(source.columns, 2)} classes, the calibrator "
                f"{self.params.classes}"
            )
        return source

    def _calibrated(
        self, source: ArraySource, columns: RowColumns = ALL_COLUMNS, *, intervals: bool = False
    ) -> Iterator[Predictions]:
        chunks = source.chunks(chunk_rows(LOCAL, source))
        return calibrated_chunks(LOCAL, source, chunks, self.stages, columns, intervals=intervals)

    def apply_files(
        self,
        inputs: str | Path | Sequence[str | Path],
        output: str,
        *,
        input: InputKind | None = None,
        force: bool = False,
        workers: str | None = None,
        memory: str | None = None,
        threads: int = 0,
    ) -> int:
        """Write the calibrated probabilities of the rows of files, as ``calib apply`` does.

        Parameters
        ----------
        inputs : str, or sequence of str
            Files, patterns, folders, addresses of object stores.
        output : str
            ``.parquet``, ``.npz``, ``.npy`` or ``.arrow``; a name that ends with a slash is a
            folder of Parquet files, which workers write.
        input : str, optional
            What the scores are, if that cannot be seen: ``"logits"``, ``"log-probs"``, ``"probs"``.
        force : bool
            Whether an output that exists is replaced.
        workers : str, optional
            ``"processes:4"``, ``"dask:tcp://HOST:8786"`` or ``"ray:auto"``. A script that uses
            processes needs ``if __name__ == "__main__":``, since each of them imports it.
        memory : str, optional
            ``"2G"``, for example; with workers, that of each.
        threads : int
            0: all cores.

        Returns
        -------
        int
            The number of rows.

        Raises
        ------
        UsageError
            The output exists, or cannot be written there; or there are workers, and it is a file.
        DataError
            An input cannot be read, has other classes, or a row without probabilities.

        Examples
        --------
        >>> from tempfile import TemporaryDirectory
        >>> from calibcli import fit
        >>> scores = np.array([[3.0, 0], [0, 3], [3, 0], [0, 3]])
        >>> calibrator = fit(scores, [0, 1, 1, 1], method="temperature", folds=0)
        >>> with TemporaryDirectory() as folder:
        ...     np.save(f"{folder}/logits.npy", scores)
        ...     calibrator.apply_files(f"{folder}/logits.npy", f"{folder}/out/")
        4
        """
        from calibcli.api.applying_files import engine_at, write_applied

        given = [inputs] if isinstance(inputs, str | Path) else inputs
        paths, engine = [str(each) for each in given], engine_at(workers, memory, threads, output)
        try:
            return write_applied(
                self.params, self.stages, paths, output, input=input, force=force, engine=engine
            )
        finally:
            engine.release()

    def torch_module(self, precision: str = "float32") -> Any:
        """The calibrator as a `torch.nn.Module`, from scores (n, K) to probabilities (n, K).

        Put at the end of a network it is exported and saved with it. Its second argument are the
        numbers (n,) of the rows' groups, where the calibrator has some.

        Parameters
        ----------
        precision : str
            ``"float32"`` or ``"float64"``.

        Raises
        ------
        UsageError
            torch is not installed, or a stage cannot be exported.

        Examples
        --------
        >>> from calibcli import load
        >>> calibrator = load("params.json")  # doctest: +SKIP
        >>> model = torch.nn.Sequential(network, calibrator.torch_module())  # doctest: +SKIP
        """
        from calibcli.export.recording import record
        from calibcli.export.torch_module import torch_module

        return torch_module(record(self.params, self.stages, np.dtype(precision)))

    def export(
        self,
        path: str | Path,
        *,
        to: str | None = None,
        precision: str | None = None,
        dialect: str | None = None,
        table: str | None = None,
        columns: Sequence[str] | None = None,
        array: str | None = None,
        force: bool = False,
    ) -> None:
        """Write the calibrator as a program that runs without this package, as ``calib export``.

        Parameters
        ----------
        path : str or Path
            Ends in ``.onnx``, ``.pt2``, ``.py``, ``.mjs``, ``.c`` or ``.sql``.
        to : str, optional
            What it is to be, whatever its name: ``"onnx"``, ``"torch"``, ``"python"``,
            ``"javascript"``, ``"c"`` or ``"sql"``.
        precision : str, optional
            ``"float32"`` or ``"float64"``, of an ONNX model or a program of torch.
        dialect : str, optional
            Of SQL: ``"duckdb"``, ``"postgres"``, ``"spark"`` or ``"bigquery"``.
        table : str, optional
            Of SQL: the table of the scores; ``scores`` if left out.
        columns : sequence of str, optional
            Of SQL: columns of the scores, one a class; for two classes also that of class 1 alone.
        array : str, optional
            Of SQL: the column of an array of the scores; if left out ``logits``, ``log_probs`` or
            ``probs``.

        Raises
        ------
        UsageError
            A stage cannot be exported, the file exists, or it cannot be written there.

        Examples
        --------
        >>> from tempfile import TemporaryDirectory
        >>> from calibcli import fit
        >>> scores = [[3, 0], [0, 3], [3, 0], [0, 3]]
        >>> calibrator = fit(scores, [0, 1, 1, 1], method="temperature", folds=0)
        >>> with TemporaryDirectory() as folder:
        ...     calibrator.export(f"{folder}/calibrate.py")
        ...     _ = exec(Path(f"{folder}/calibrate.py").read_text(), program := {})
        >>> program["calibrate"]([[3.0, 0.0]]).round(3)
        array([[0.75, 0.25]])
        """
        from calibcli.export.exporting import ExportRequest, exported
        from calibcli.export.sql_query import make_query
        from calibcli.tables.atomic import Outputs

        query = make_query(dialect, table, columns, array)
        request = ExportRequest(str(path), to, precision, query=query)
        with Outputs(force=force) as files:
            for name, content in exported(self.params, self.stages, request):
                files.open(name).write(content)

    def save(self, path: str | Path, *, force: bool = False) -> None:
        """Write a parameter file: JSON, or safetensors if the name ends so.

        Raises
        ------
        UsageError
            There is such a file, without ``force``; or it cannot be written there.

        Examples
        --------
        >>> from tempfile import TemporaryDirectory
        >>> from calibcli import fit
        >>> scores = [[3, 0], [0, 3], [3, 0], [0, 3]]
        >>> calibrator = fit(scores, [0, 1, 1, 1], method="temperature", folds=0)
        >>> with TemporaryDirectory() as folder:
        ...     calibrator.save(f"{folder}/params.json")
        ...     again = load(f"{folder}/params.json")
        >>> bool((again.predict_proba([[1, 0]]) == calibrator.predict_proba([[1, 0]])).all())
        True
        """
        from calibcli.tables.atomic import atomic_write

        with atomic_write(str(path), force=force) as file:
            file.write(encode(self.params, safetensors=str(path).endswith(".safetensors")))


def load(path: str | Path) -> FittedCalibrator:
    """The calibrator in a parameter file.

    Raises
    ------
    ParamsError
        The file is not a valid parameter file.

    Examples
    --------
    `FittedCalibrator.save` writes one:

    >>> from tempfile import TemporaryDirectory
    >>> from calibcli import fit
    >>> with TemporaryDirectory() as folder:
    ...     fit([[3, 0], [0, 3]] * 9, [0, 1, 1] * 6, folds=0).save(f"{folder}/params.json")
    ...     load(f"{folder}/params.json").params.classes
    2
    """
    params, stages = read_calibrators(path)
    return FittedCalibrator(params, stages)
