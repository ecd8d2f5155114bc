"""Columns that are computed from others, batch by batch: the table of most shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from calibcli.arrays import NumpyArray
from calibcli.tables.formats.base import Batch, DataFile, Field, Values
from calibcli.tables.shapes.base import RewrittenFile, row_count


class Derivation(Protocol):
    """How a column is made of others. It pickles."""

    @property
    def sources(self) -> tuple[str, ...]:
        """The fields that it is made of."""

    @property
    def type(self) -> Any:
        """Its type, a `pyarrow.DataType`."""

    def column(self, batch: Any) -> Any:
        """Its values, a `pyarrow.Array`, from a `pyarrow.RecordBatch` of the sources.

        Raises
        ------
        RowError
            A row cannot be understood.
        """


class DerivedBatch:
    """Rows with columns that are computed when they are asked for; a `Batch`.

    Parameters
    ----------
    batch : Batch
        Of the sources, and of the fields that are there already.
    derivations : dict of str to Derivation
    """

    def __init__(self, batch: Batch, derivations: Mapping[str, Derivation]) -> None:
        self._batch, self._derivations = batch, derivations
        self._computed: dict[str, Any] = {}

    def __len__(self) -> int:
        return len(self._batch)

    def _only_stored(self, names: Sequence[str]) -> bool:
        return not any(name in self._derivations for name in names)

    def _column(self, name: str) -> Any:
        if name not in self._computed:
            derivation = self._derivations.get(name)
            self._computed[name] = (
                self._batch.columns((name,)).column(0)
                if derivation is None
                else derivation.column(self._batch.columns(derivation.sources))
            )
        return self._computed[name]

    def _arrow(self, names: Sequence[str]) -> Any:
        import pyarrow as pa

        from calibcli.tables.formats.arrow import ArrowBatch

        arrays = [self._column(name) for name in names]
        fields = [pa.field(name, array.type) for name, array in zip(names, arrays, strict=True)]
        return ArrowBatch(pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields)))

    def matrix(self, names: Sequence[str], width: int | None) -> NumpyArray:
        """Scores (n, C)."""
        source = self._batch if self._only_stored(names) else self._arrow(names)
        matrix: NumpyArray = source.matrix(names, width)
        return matrix

    def values(self, name: str) -> Values:
        """One value a row."""
        source = self._batch if self._only_stored((name,)) else self._arrow((name,))
        values: Values = source.values(name)
        return values

    def array(self, name: str) -> NumpyArray:
        """A field of numbers with its axes."""
        source = self._batch if self._only_stored((name,)) else self._arrow((name,))
        array: NumpyArray = source.array(name)
        return array

    def columns(self, names: Sequence[str]) -> Any:
        """The fields as a `pyarrow.RecordBatch`."""
        if self._only_stored(names):
            return self._batch.columns(names)
        return self._arrow(names).batch

    def release(self) -> None:
        """Give back the memory of what was read of a mapped file."""
        self._batch.release()


@dataclass(eq=False, kw_only=True)
class DerivedFile(RewrittenFile):
    """A file with columns that are computed from others.

    Attributes
    ----------
    derivations : dict of str to Derivation
        By the name of the column; one with the name of a field takes its place.
    """

    derivations: Mapping[str, Derivation]

    def sources(self, names: Sequence[str]) -> list[str]:
        """The fields of the file that some fields of the table are read from."""
        sources: list[str] = []
        for name in names:
            derivation = self.derivations.get(name)
            sources += (name,) if derivation is None else derivation.sources
        return list(dict.fromkeys(sources))

    def rewritten(self, batch: Batch) -> DerivedBatch:
        return DerivedBatch(batch, self.derivations)


def with_derived(
    file: DataFile, derivations: Mapping[str, Derivation], **changes: Any
) -> DerivedFile:
    """A file with some more columns, or others in place of its own.

    Parameters
    ----------
    file : DataFile
    derivations : dict of str to Derivation
    **changes
        Other attributes of the new `DataFile`.
    """
    rows = row_count(file)
    made = {name: _field(name, each.type, rows) for name, each in derivations.items()}
    fields = [made.pop(field.name, field) for field in file.fields] + list(made.values())
    return DerivedFile.over(file, fields=tuple(fields), derivations=dict(derivations), **changes)


def _field(name: str, kind: Any, rows: int) -> Field:
    import pyarrow as pa

    from calibcli.tables.formats.arrow import arrow_fields
    from calibcli.tables.locations import Location

    (field,) = arrow_fields(Location("", ""), pa.schema([(name, kind)]), rows)
    return replace(field, in_memory=False)


def first_rows(file: DataFile, name: str, rows: int) -> Any:
    """The first values of a field, a `pyarrow.Array`; an empty list where there are none."""
    batch = file.head((name,), 0, rows)
    return [] if batch is None else batch.columns((name,)).column(0)
