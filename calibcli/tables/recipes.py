"""Programs that write scores of a kind that is not read to an NPZ: the way out of refusals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from calibcli.tables.formats.base import python_command

_FLOAT8 = ("float8_e4m3fn", "float8_e5m2")


def from_table(name: str, scores: str, labels: str | None, numbers: str) -> str:
    """The program for a column of Parquet.

    Parameters
    ----------
    name : str
        Of the file.
    scores : str
        The column.
    labels : str or None
        That of the labels.
    numbers : str
        An expression for the matrix of ``c``, the column as a list.
    """
    named = "" if labels is None else f", labels=numpy.array(t[{labels!r}].to_pylist())"
    return python_command(
        f"import numpy, pyarrow.parquet as p; t = p.read_table({name!r}); "
        f"c = t[{scores!r}].to_pylist(); numpy.savez('rows.npz', logits={numbers}{named})"
    )


def from_arrays(name: str, scores: str, numbers: str, imports: str = "numpy") -> str:
    """The program for an array of an NPZ, or for an NPY.

    Parameters
    ----------
    name : str
        Of the file.
    scores : str
        The key.
    numbers : str
        What makes numbers of the array: ``.astype('f4')``.
    imports : str
    """
    if name.endswith(".npy"):
        program = f"numpy.save('rows.npy', numpy.load({name!r}){numbers})"
    else:
        program = (
            f"f = dict(numpy.load({name!r})); f[{scores!r}] = f[{scores!r}]{numbers}; "
            "numpy.savez('rows.npz', **f)"
        )
    return python_command(f"import {imports}; {program}")


def integers_as_floats(name: str, unit: str, scores: str, labels: str | None) -> str:
    """How vectors of whole numbers become scores."""
    if unit == "column":
        program = from_table(name, scores, labels, "numpy.array(c, 'f4') * 1.0")
    else:
        program = from_arrays(name, scores, ".astype('f4') * 1.0")
    return f"write them as numbers, with the scale that they have instead of 1.0: {program}"


def bytes_as_floats(name: str, scores: str) -> str:
    """How arrays of 8-bit numbers, which NumPy takes for bytes, become scores."""
    ways = (
        from_arrays(name, scores, f".view(ml_dtypes.{kind}).astype('f4')", "ml_dtypes, numpy")
        for kind in _FLOAT8
    )
    return "if they are numbers of 8 bits, write them as others: " + " or ".join(ways)


def renamed_columns(name: str, new: Mapping[str, str]) -> str:
    """The program that calls columns of Parquet otherwise."""
    listed = ", ".join(f"{old!r}: {each!r}" for old, each in new.items())
    return python_command(
        f"import pyarrow.parquet as p; t = p.read_table({name!r}); n = {{{listed}}}; "
        "p.write_table(t.rename_columns([n.get(c, c) for c in t.column_names]), 'rows.parquet')"
    )


def with_columns(name: str, columns: Sequence[str], value: str) -> str:
    """The program that adds columns of one value to Parquet."""
    return python_command(
        f"import pyarrow.parquet as p; t = p.read_table({name!r}); "
        f"[t := t.append_column(c, [[{value}] * len(t)]) for c in {list(columns)!r}]; "
        "p.write_table(t, 'rows.parquet')"
    )
