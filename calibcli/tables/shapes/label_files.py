"""Labels in a folder of their own: of each file of scores those of the file of the same name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

from calibcli.arrays import NumpyArray
from calibcli.errors import DataError
from calibcli.tables.formats.base import Batch, DataFile, Field, Values
from calibcli.tables.formats.npy import ArrayBatch
from calibcli.tables.formats.sniffing import open_file
from calibcli.tables.locations import Location, expand, is_store
from calibcli.tables.names import LABELS, OTHER_LABELS
from calibcli.tables.read_options import ReadOptions
from calibcli.tables.shapes.base import AlignedReader, OpenedFiles, ReshapedFile
from calibcli.tables.shapes.grids import MASKS
from calibcli.tables.storage import Spool

_FIELD = "label"


def with_label_files(opened: OpenedFiles, options: ReadOptions, spool: Spool) -> OpenedFiles:
    """Add the labels of a folder to the files of scores; see `SHAPES`."""
    asked = options.labels
    if asked is None or opened.labels is not None or not Path(asked).is_dir():
        return opened
    if is_store(Path(asked)):
        return opened
    by_name: dict[str, Location] = {}
    for location in expand([asked]):
        other = by_name.setdefault(_stem(location), location)
        if other is not location:
            raise DataError(
                f"--labels {asked}: {PurePath(other.name).name} and "
                f"{PurePath(location.name).name} have the same name but for their suffix"
            )
    files = []
    for file in opened.files:
        stem = _stem(file.location)
        if stem not in by_name:
            raise DataError(
                f"--labels {asked}: there are no labels for {file.location.name}, which would be "
                f"called {stem}.npy or {stem}.npz"
            )
        files.append(LabelledFile.of(file, open_file(by_name[stem], spool)))
    return OpenedFiles(tuple(files))


def _stem(location: Location) -> str:
    return PurePath(location.name).stem


def _label_field(file: DataFile) -> Field:
    """The labels of a file that has little else.

    Raises
    ------
    DataError
        There is no telling which array they are.
    """
    names = (*LABELS, *OTHER_LABELS, *MASKS)
    named = [each for name in names for each in file.fields if each.name.lower() == name]
    if not named and len(file.fields) > 1:
        raise DataError(
            f"{file.location.name}: none of its {file.unit}s is called label, seg or mask; rename "
            "the labels or save them as NPY"
        )
    if len(named) > 1:
        listed = " and ".join(field.name for field in named)
        raise DataError(
            f"{file.location.name}: {listed} could all be the labels; save those that are meant as "
            "NPY"
        )
    return [*named, *file.fields][0]


@dataclass(eq=False, kw_only=True)
class LabelledFile(ReshapedFile):
    """A file with the labels of another one as a field of its own.

    Attributes
    ----------
    labels : DataFile
    source : str
        The field of it.
    name : str
        What the field is called here.
    """

    labels: DataFile
    source: str
    name: str

    @classmethod
    def of(cls, file: DataFile, labels: DataFile) -> LabelledFile:
        """Both files as one."""
        field, name = _label_field(labels), _FIELD
        while name in {each.name for each in file.fields}:
            name += "_"
        is_array = file.unit == "array"
        scores = {"logits": file.fields[0].name} if is_array else {}
        return cls.over(
            file,
            fields=(*file.fields, replace(field, name=name)),
            unit="key" if is_array else file.unit,
            roles={**file.roles, **scores, "labels": name},
            labels=labels,
            source=field.name,
            name=name,
        )

    @property
    def locations(self) -> tuple[Location, ...]:
        return (*self.file.locations, *self.labels.locations)

    def verify(self, names: Sequence[str]) -> None:
        super().verify(names)
        if self.name in names:
            self.labels.verify((self.source,))

    def laid_out(self, names: Sequence[str], spool: Spool, *, one_row: bool) -> DataFile:
        file = self.file.laid_out(self.sources(names), spool, one_row=one_row)
        labels = self.labels
        if self.name in names:
            labels = labels.laid_out((self.source,), spool, one_row=one_row)
        field = next(each for each in labels.fields if each.name == self.source)
        fields = (*file.fields, replace(field, name=self.name))
        return replace(self, file=file, labels=labels, fields=fields)

    def read(self, names: Sequence[str], begin: int, end: int, rows: int) -> Iterator[Batch]:
        if self.name not in names:
            yield from self.file.read(names, begin, end, rows)
            return
        others = self.sources(names)
        if not others:
            for batch in self.labels.read((self.source,), begin, end, rows):
                yield ArrayBatch({self.name: batch.array(self.source)}, len(batch), batch.release)
            return
        reader = AlignedReader(self.labels, self.source, begin, end, rows)
        for batch in self.file.read(others, begin, end, rows):
            yield _LabelledBatch(batch, self.name, reader.take(len(batch)))

    def head(self, names: Sequence[str], begin: int, rows: int) -> Batch | None:
        end = min([begin + rows, *(each.rows for each in self.fields if each.name in names)])
        return next(self.read(names, begin, end, rows), None) if begin < end else None


class _LabelledBatch:
    """Rows of a `LabelledFile`; a `Batch`."""

    def __init__(self, batch: Batch, name: str, labels: NumpyArray) -> None:
        self._batch, self._name = batch, name
        self._labels = ArrayBatch({name: labels}, len(batch))
        self.matrix, self.release = batch.matrix, batch.release

    def __len__(self) -> int:
        return len(self._batch)

    def array(self, name: str) -> NumpyArray:
        return (self._labels if name == self._name else self._batch).array(name)

    def values(self, name: str) -> Values:
        return (self._labels if name == self._name else self._batch).values(name)

    def columns(self, names: Sequence[str]) -> Any:
        import pyarrow as pa

        stored = self._batch.columns([name for name in names if name != self._name])
        if self._name not in names:
            return stored
        labels = self._labels.columns((self._name,))
        fields = [*stored.schema, *labels.schema]
        return pa.RecordBatch.from_arrays(
            [*stored.columns, *labels.columns], schema=pa.schema(fields)
        ).select(list(names))
