"""The file of the arena: a line for each method on each split of each set."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

DONE, CAPPED, FAILED = "done", "capped", "failed"


@dataclass(frozen=True)
class Record:
    """One method on one split of one set.

    Attributes
    ----------
    status : str
        ``"done"``, ``"capped"`` or ``"failed"``; figures are None but for the first.
    excess : float or None
        NLL above that of the true probabilities, where these are known.
    clipped : int or None
        Rows whose true class got a probability of (almost) 0.
    fit_seconds, predict_seconds : float or None
        Processor time of the worker, which is the time that it takes on a core of its own.
    note : str
        Why there are no figures.
    """

    set: str
    split: int
    method: str
    library: str
    version: str
    classes: int
    fit_rows: int
    test_rows: int
    status: str
    nll: float | None = None
    brier: float | None = None
    ece: float | None = None
    accuracy: float | None = None
    clipped: int | None = None
    fit_seconds: float | None = None
    predict_seconds: float | None = None
    note: str = ""
    excess: float | None = None

    @property
    def key(self) -> tuple[str, int, str]:
        """What there is one record of."""
        return self.set, self.split, self.method

    @property
    def shape(self) -> tuple[int, int, int]:
        """Rows to fit on, rows to judge on, classes."""
        return self.fit_rows, self.test_rows, self.classes


COLUMNS = [field.name for field in fields(Record)]
_WHOLE = {"split", "classes", "fit_rows", "test_rows", "clipped"}
_TEXT = {"set", "method", "library", "version", "status", "note"}


def read_records(path: Path) -> list[Record]:
    """What a file has; nothing where there is none. A line that was cut off is left out."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        lines = [line for line in csv.DictReader(file) if None not in line.values()]
    found = {record.key: record for record in map(_parse, lines)}
    return list(found.values())


def append_record(path: Path, record: Record) -> None:
    """Add a line, and the header before the first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    begins = not path.exists() or not path.stat().st_size
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if begins:
            writer.writeheader()
        writer.writerow(asdict(record))


def rewrite(path: Path, records: Iterable[Record]) -> None:
    """Replace the file."""
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    new.parent.mkdir(parents=True, exist_ok=True)
    new.write_text(",".join(COLUMNS) + "\n", encoding="utf-8")
    for record in records:
        append_record(new, record)
    new.replace(path)


def forget(path: Path, methods: Collection[str]) -> list[Record]:
    """Read the records, and take those of some methods out of the file."""
    records = read_records(path)
    kept = [record for record in records if record.method not in methods]
    # What was cut off in a line is mended, too, before lines are added to it.
    if len(kept) < len(records) or not _ends_in_a_line(path):
        rewrite(path, kept)
    return kept


def _ends_in_a_line(path: Path) -> bool:
    return not path.exists() or path.read_bytes().endswith(b"\n")


def _parse(line: dict[str, str]) -> Record:
    values: dict[str, object] = {}
    for name in COLUMNS:
        text = line[name]
        if name in _TEXT:
            values[name] = text
        elif text:
            values[name] = int(text) if name in _WHOLE else float(text)
    return Record(**values)  # type: ignore[arg-type]
