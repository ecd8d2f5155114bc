"""Files in, files out: Parquet, NPZ, NPY, Arrow IPC, standard input and output, object stores.

The names below are imported when they are first used, so that importing this package costs
nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from calibcli.tables.atomic import Outputs, atomic_write, check_writable
    from calibcli.tables.dataset import Dataset
    from calibcli.tables.locations import is_folder, is_inside
    from calibcli.tables.opening import open_dataset
    from calibcli.tables.read_options import ReadOptions, parse_class_axis, parse_classes
    from calibcli.tables.writing import Writer, check_output, open_writer, output_format

__all__ = [
    "Dataset",
    "Outputs",
    "ReadOptions",
    "Writer",
    "atomic_write",
    "check_output",
    "check_writable",
    "is_folder",
    "is_inside",
    "open_dataset",
    "open_writer",
    "output_format",
    "parse_class_axis",
    "parse_classes",
]

_MODULES = {
    "atomic": ("Outputs", "atomic_write", "check_writable"),
    "dataset": ("Dataset",),
    "locations": ("is_folder", "is_inside"),
    "opening": ("open_dataset",),
    "read_options": ("ReadOptions", "parse_class_axis", "parse_classes"),
    "writing": ("Writer", "check_output", "open_writer", "output_format"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
