"""The whole job: from a parameter file to the files of an export."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from calibcli.calibrators.base import Calibrator
from calibcli.errors import UsageError
from calibcli.export.recording import make_vectors, record
from calibcli.export.sql_query import SqlQuery
from calibcli.export.targets import appended, files_beside, target_of, vector_files
from calibcli.params import Params


@dataclass(frozen=True)
class ExportRequest:
    """What is to be made.

    Attributes
    ----------
    path : str
        The file to write.
    to : str, optional
        The name of the target; by default what the path's suffix says.
    precision : str, optional
        ``"float32"`` or ``"float64"``; by default that of the target, or of the model.
    vectors : bool
        Whether to write vectors to test with beside it.
    model : str, optional
        An ONNX model that the calibrator is to be put at the end of.
    model_output : str, optional
        Which of its outputs are the scores.
    query : SqlQuery, optional
        What a query is written for.
    """

    path: str
    to: str | None = None
    precision: str | None = None
    vectors: bool = False
    model: str | None = None
    model_output: str | None = None
    query: SqlQuery | None = None


def exported(
    params: Params, stages: Sequence[Calibrator], request: ExportRequest
) -> list[tuple[str, bytes]]:
    """The files of an export, by name, with what is in them.

    Raises
    ------
    UsageError
        A stage cannot be exported, or the target is not what was asked for.
    """
    target = target_of(request.path, request.to)
    precision = request.precision or target.precision
    if precision not in target.precisions:
        raise UsageError(
            f"{target.title} computes in {', '.join(target.precisions)}, not in {precision}"
        )
    if request.query is not None and target.suffix != ".sql":
        raise UsageError("--dialect, --table, --columns and --array go with SQL")
    dtype: Any = np.dtype(precision)
    if request.model is not None:
        if target.suffix != ".onnx":
            raise UsageError("--append-to makes an ONNX model; the output's name must end in .onnx")
        if request.precision is not None:
            raise UsageError("with --append-to the precision is that of the model")
        content = appended(request.model, partial(record, params, stages), request.model_output)
        files = [(request.path, content)]
    elif request.model_output is not None:
        raise UsageError("--model-output goes with --append-to")
    else:
        program = record(params, stages, dtype)
        files = list(files_beside(request.path, target.write(program, request.query)))
    if request.vectors:
        found = vector_files(make_vectors(params, stages, dtype))
        files += [(f"{request.path}{suffix}", content) for suffix, content in found.items()]
    return files
