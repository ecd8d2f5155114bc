"""Files through a calibrator, from Python."""

from __future__ import annotations

from collections.abc import Sequence

from calibcli.arrays import InputKind
from calibcli.calibrators.base import GROUP, Calibrator
from calibcli.calibrators.groups import groups_in
from calibcli.engine.engine import Engine
from calibcli.engine.machine import parse_memory
from calibcli.engine.worker_kinds import open_workers
from calibcli.errors import DataError, UsageError
from calibcli.params import Params
from calibcli.tables.atomic import Outputs
from calibcli.tables.locations import is_folder, is_inside
from calibcli.tables.opening import open_dataset
from calibcli.tables.read_options import Reading, ReadOptions
from calibcli.tables.writing import check_output
from calibcli.workflow.calibrated_outputs import write_calibrated


def write_applied(
    params: Params,
    stages: Sequence[Calibrator],
    inputs: Sequence[str],
    output: str,
    *,
    input: InputKind | None,
    force: bool,
    engine: Engine,
) -> int:
    """See `calibcli.api.fitted.FittedCalibrator.apply_files`."""
    check_output(output, force=force, in_parts=True)
    groups = groups_in(stages)
    options = ReadOptions(
        input=input or "auto",
        labels_required=False,
        keys={} if groups is None else {GROUP: groups.column},
        key_names={} if groups is None else {GROUP: groups.names},
    )
    like = Reading("the calibrator", params.reading, params.class_names, params.classes)
    with open_dataset(inputs, options.repeating(like)) as dataset:
        classes = max(dataset.columns, 2)
        if classes != params.classes:
            raise DataError(
                f"{dataset.name} has {classes} classes, the calibrator {params.classes}"
            )
        if is_folder(output) and any(is_inside(file, output) for file in dataset.files):
            raise UsageError(f"{output}: an input is in it; give the output another name")
        with Outputs(force=force) as files:
            return write_calibrated(engine, dataset, stages, output, files, params.data)


def engine_at(workers: str | None, memory: str | None, threads: int, output: str) -> Engine:
    """The engine that writes an output: workers can only where it is a folder of parts.

    Raises
    ------
    UsageError
        There are workers and it is a file; or there is no such address, or size.
    """
    size = 0 if memory is None else parse_memory(memory)
    if workers is None:
        return Engine("cpu", threads, size)
    if not is_folder(output):
        raise UsageError(f"{output}: workers write a folder of parts, whose name ends with a slash")
    return Engine(workers=open_workers(workers, size, threads))
