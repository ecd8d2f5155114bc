"""Text as a table: its typed copy in an Arrow file, from which all passes over the rows read.

What the type of a column is shows only at the end of the file, and every pass over the rows would
take the text apart again. So text is read twice when it is opened, and then no more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from calibcli.errors import DataError
from calibcli.tables.formats.ipc import IpcData, open_ipc_file
from calibcli.tables.locations import Location
from calibcli.tables.storage import Spool

BLOCK_BYTES = 4 << 20
LARGEST_BLOCK_BYTES = 256 << 20
"""Of text that is taken apart at a time, and of the longest row."""

LARGEST_FIELD_COUNT = 30_000
"""Of a table of text. Each costs about a quarter of a millisecond for every block, in Arrow and in
the choice of its type; a table of more is most often something else."""

_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def check_encoding(location: Location, head: bytes) -> None:
    """Refuse text of two bytes a character.

    Raises
    ------
    DataError
    """
    if head.startswith(_UTF16):
        raise DataError(_recoding(location, "UTF-16"))


def not_utf8(location: Location) -> DataError:
    """The error for text in another encoding."""
    return DataError(_recoding(location, "WINDOWS-1252"))


def _recoding(location: Location, encoding: str) -> str:
    return (
        f"{location.name}: is not UTF-8 text; if it is {encoding}: "
        f"iconv -f {encoding} -t UTF-8 {location.name!r} > utf8{Path(location.name).suffix}"
    )


def typed_copy(
    location: Location,
    form: str,
    schema: Any,
    batches: Iterable[Any],
    spool: Spool,
    types: Mapping[str, str],
) -> IpcData:
    """Write the rows of a text file to an Arrow file, and look at that.

    Parameters
    ----------
    location : Location
        Of the text.
    form : str
        Name of its format.
    schema : pyarrow.Schema
    batches : iterable of pyarrow.RecordBatch
        Of this schema.
    spool : Spool
    types : dict of str to str
        Of some columns, what a person is told instead of their type in Arrow.

    Raises
    ------
    DataError
        It has more rows than may be copied, or the temporary folder is full.
    """
    copy = location.copied_to(spool.new_file(location.name))
    with (
        spool.writing(location.name),
        Path(copy.path).open("xb") as file,
        pa.ipc.new_file(file, schema) as writer,
    ):
        for batch in batches:
            writer.write_batch(batch)
            spool.check_copied(location.name, file.tell())
    if location.original is not None:
        # What was decompressed for this copy alone.
        Path(location.path).unlink()
    opened = open_ipc_file(copy, spool)
    fields = tuple(
        replace(field, type=types.get(field.name, field.type)) for field in opened.fields
    )
    return replace(opened, format=form, fields=fields)
