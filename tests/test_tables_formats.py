"""A file format is one file and one entry in the registry."""

from __future__ import annotations

import pickle
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from table_files import gather, make_labels, make_scores, opened, refusal, same_bits, source

from calibcli.errors import DataError
from calibcli.tables.formats.base import DataFile, Field
from calibcli.tables.formats.npy import ArrayBatch
from calibcli.tables.formats.registry import FORMATS, OUTPUTS, SUFFIXES, FileFormat, import_function
from calibcli.tables.formats.sniffing import open_file
from calibcli.tables.locations import expand
from calibcli.tables.storage import Spool
from calibcli.tables.writing import open_writer

Z, Y = make_scores(40, 3), make_labels(40, 3)


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
def test_what_an_entry_names_can_be_loaded(form):
    assert callable(import_function(form.reader))
    for function in filter(None, (form.sink, form.pipe_reader)):
        assert callable(import_function(function))
    assert bool(form.sink) >= bool(form.written)


def test_no_suffix_and_no_first_bytes_are_of_two_formats():
    assert set(Counter(SUFFIXES).values()) == {1}
    magic = [each for form in FORMATS.values() for each in form.magic]
    assert not [(one, two) for one in magic for two in magic if one != two and one.startswith(two)]


@pytest.mark.parametrize("suffix", OUTPUTS)
def test_an_output_is_read_as_the_format_of_its_suffix(tmp_path, suffix):
    path = str(tmp_path / f"a{suffix}")
    with open_writer(path, source(40)) as writer:
        writer.write_table({"probs": Z, "prediction": Z.argmax(axis=1), "label": Y}, None)
    (location,) = expand([path])
    assert FORMATS[open_file(location, Spool()).format] is OUTPUTS[suffix]
    assert suffix in OUTPUTS[suffix].suffixes


# A format that somebody adds: a line a row, the scores and then the label.


@dataclass(eq=False, kw_only=True)
class Lines(DataFile):
    """A file of numbers in text, all of them in memory."""

    rows: np.ndarray

    def read(self, names, begin, end, rows):
        for start in range(begin, end, rows):
            chosen = self.rows[start : min(start + rows, end)]
            arrays = {"scores": chosen[:, :-1], "label": chosen[:, -1]}
            yield ArrayBatch({name: arrays[name] for name in names}, len(chosen))


def open_lines(location, _):
    with location.open() as file:
        rows = np.loadtxt(file, skiprows=1, ndmin=2)
    count, width = rows.shape
    fields = (
        Field("scores", "numbers", "float", 2, width - 1, "float64", count),
        Field("label", "number", "float", 1, None, "float64", count),
    )
    return Lines(location, "lines", fields, ("a", "b", "c"), rows=rows)


@pytest.fixture
def lines(tmp_path, monkeypatch) -> Path:
    """A file in a format that is known for the time of a test."""
    module = ModuleType("calibcli.tables.formats.lines")
    module.open_lines = open_lines
    monkeypatch.setitem(sys.modules, module.__name__, module)
    form = FileFormat("lines", "lines of numbers", (".txt",), (b"LINES",), "lines:open_lines")
    monkeypatch.setitem(FORMATS, "lines", form)
    path = tmp_path / "val.txt"
    with path.open("w") as file:
        file.write("LINES\n")
        np.savetxt(file, np.column_stack([Z, Y]), "%.17g")
    return path


def test_a_new_format_needs_no_more_than_a_reader_and_an_entry(lines, tmp_path):
    with opened(lines) as dataset:
        scores, labels, _ = gather(dataset, 7)
        assert same_bits(scores, Z.astype(np.float64))
        assert same_bits(labels, Y)
        assert dataset.format == "lines"
        assert dataset.class_names == ("a", "b", "c")
        assert dataset.picked["logits"] == "column 'scores' (numbers)"
        parts = pickle.loads(pickle.dumps(dataset.cut(20)))  # noqa: S301 (our own)
        chunks = [chunk for part in parts for chunk in part.chunks(11)]
        assert same_bits(np.concatenate([chunk.labels for chunk in chunks]), Y)
    (tmp_path / "other").write_bytes(b"?\0?\0?\0?\0")
    assert "Arrow IPC, JSON, CSV and lines of numbers are read" in refusal(
        DataError, tmp_path / "other"
    )


def test_the_layout_holds_what_was_decided(lines):
    with opened(lines, ignore_label=1) as dataset:
        layout = dataset.layout
        assert (layout.scores, layout.labels, layout.width) == (("scores",), "label", 3)
        assert (layout.kind, layout.rule.classes, layout.rule.ignore) == (
            "logits",
            ("a", "b", "c"),
            (1,),
        )
        assert list(layout.picked) == ["logits", "labels", "classes", "input"]
        assert all(each.layout is layout for part in dataset.cut(20) for each in part.parts)
        assert dataset.dropped_rows == (Y == 1).sum()
