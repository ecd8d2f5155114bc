"""Gates as test cases, in the XML of JUnit that every CI system reads."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from calibcli.report.comparison import verdict_lines
from calibcli.report.document import gates_of
from calibcli.report.gate_results import failed_gates, figures, sentence

if TYPE_CHECKING:
    from calibcli.schema.documents import Document

_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot have, not even escaped."""


def to_junit(document: Document) -> str:
    """A test suite with a case for each gate of each input."""
    entries = gates_of(document)
    counts = {
        "tests": str(len(entries)),
        "failures": str(len(failed_gates(document))),
        "errors": "0",
        "skipped": "0",
        "time": "0",
    }
    root = ET.Element("testsuites", {"name": "calib", **counts})
    suite = ET.SubElement(root, "testsuite", {"name": f"calib {document['command']}", **counts})
    for entry in entries:
        case = ET.SubElement(
            suite,
            "testcase",
            {
                "classname": _allowed(f"calib.{document['command']}.{entry['input']}"),
                "name": _allowed(entry["expression"]),
                "time": "0",
            },
        )
        if not entry["passed"]:
            kind = "not known" if entry["reason"] else "gate"
            attributes = {"message": _allowed(figures(entry)), "type": kind}
            ET.SubElement(case, "failure", attributes).text = _allowed(sentence(entry))
    said = [f"{name}: {text}" for name, text in verdict_lines(document)]
    ET.SubElement(suite, "system-out").text = _allowed("\n".join(said))
    ET.indent(root)
    # All in ASCII, with references for other characters: right in whatever encoding it is printed.
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root).decode()}\n'


def _allowed(text: str) -> str:
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)
