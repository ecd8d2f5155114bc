"""The shapes of data that become tables, in the order in which they are tried.

A new shape is a file of this package and an entry of `SHAPES`: a function
``(OpenedFiles, ReadOptions, Spool) -> OpenedFiles``. It goes by names, types, shapes and options
alone and then by proof: where its shape is not there it returns what it was given, and where two
meanings fit it raises a `UsageError` of one line that holds the command for each.
"""

from __future__ import annotations

from calibcli.tables.formats.registry import import_from
from calibcli.tables.read_options import ReadOptions
from calibcli.tables.shapes.base import OpenedFiles
from calibcli.tables.storage import Spool

SHAPES: tuple[str, ...] = (
    "cells:read_nested",
    "cells:read_json_cells",
    "raw_bytes:read_bytes",
    "top_tokens:read_top_tokens",
    "harness:read_samples",
    "nested:give_shapes",
    "label_files:with_label_files",
    "row_labels:stand_up",
    "multilabel:as_labels",
    "grids:as_grids",
    "members:as_members",
    "choices:pad_choices",
    "unnamed:find_unnamed",
    "expanded:expand_counts",
    "expanded:read_label_vectors",
)
"""``"module:name"`` of this package."""


def as_tables(opened: OpenedFiles, options: ReadOptions, spool: Spool) -> OpenedFiles:
    """The files as tables; those that are tables already stay as they are.

    Raises
    ------
    UsageError
        Two meanings fit, or an option does not.
    DataError
        A file cannot be read.
    """
    for shape in SHAPES:
        opened = import_from(__package__, shape)(opened, options, spool)
    return opened
