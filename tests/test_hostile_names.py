"""The same hostile names through every command and every format, as they are registered."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import CalibHere
from pyarrow import ipc

from calibcli.cli.app import Commands
from calibcli.cli.option_values import Trait
from calibcli.tables.formats.registry import FORMATS, OUTPUTS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="names of files are bytes there")

HARM = (
    "<img src=x onerror=pwned(1)>",
    "x\n::error title=pwned::y",
    "\r::stop-commands::pwned",
    "\x1b[2J\x1b]0;pwned\x07",
    "\u202epwned\u2066",
    "a|b`pwned`[x](javascript:pwned)",
    "=cmd|'/c pwned'!A1",
    "</script><script>pwned(2)</script>",
    '",pwned\t\x85##[error]pwned\x9b',
    "\\input{pwned}$%&_#{}~^\u2028pwned",
)
CLASSES = ("::warning::pwned\n" + HARM[0], HARM[3], "+" + HARM[4] + HARM[6], HARM[5] + HARM[9])
COLUMN = "part" + HARM[1] + HARM[5] + HARM[3]
FOLDER = os.fsdecode("=<img src=x>\n::error title=pwned::f|`\x1b[31m\u202e".encode() + b"\xff")

_CONTROL = re.compile(
    "[\0-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_FORMULA = re.compile(r"[=+@-](?![\d.]+(e[+-]\d+)?$)")


def write_inputs() -> None:
    """Tables of every format that is read, with a parameter file and a document of results."""
    rng = np.random.default_rng(0)
    logits = 2 * rng.normal(size=(120, 4))
    labels = (logits / 2 + rng.gumbel(size=logits.shape)).argmax(axis=1)
    names = np.array(CLASSES)[labels]
    parts = np.array(HARM)[np.arange(120) % len(HARM)]
    fixed = pa.FixedSizeListArray.from_arrays(pa.array(logits.ravel()), 4)
    table = pa.table({"logits": fixed, "label": names, COLUMN: parts})
    table = table.replace_schema_metadata({"calib.classes": json.dumps(CLASSES)})
    pq.write_table(table, f"{HARM[1]}.parquet")
    for suffix, opened in ((".arrow", ipc.new_file), (".arrows", ipc.new_stream)):
        with Path(f"{HARM[1]}{suffix}").open("wb") as file, opened(file, table.schema) as writer:
            writer.write_table(table)
    arrays = {"logits": logits, "labels": names, "classes": np.array(CLASSES), COLUMN: parts}
    np.savez(f"{HARM[1]}.npz", **arrays)
    settings = f"by = {json.dumps(HARM[1])}\nlogits = {json.dumps(HARM[4])}\n"
    Path(f"c{HARM[1]}.toml").write_text(f"[evaluate]\n{settings}", "utf-8")


DATA = f"{HARM[1]}.parquet"
COMMANDS: dict[str, list[list[str]]] = {
    "fit": [
        [DATA, "--fail-if", "nll > 9", "--bootstrap", "0"],
        [DATA, "--by", COLUMN, "--bootstrap", "0"],
    ],
    "evaluate": [
        [DATA, "--by", COLUMN, "--by-class", "--fail-if", "nll > 9", "--bootstrap", "0"],
        [DATA, "{document}", "--by", "no" + COLUMN],
        [f"{HARM[3]}={DATA}", f"{HARM[4]}={DATA}", "--bootstrap", "10", "--fail-if", "ece > 0"],
        [DATA, "--fail-if", "nll > 0; ece > 1", "--title", HARM[1], "--bootstrap", "0"],
        [DATA, "--positive", HARM[2]],
        ["no" + DATA],
    ],
    "apply": [["{params}", DATA], ["{params}", "no" + DATA]],
    "convert": [[DATA], ["no" + DATA]],
    "export": [["{params}"], [DATA], ["no" + DATA]],
    "compare": [[DATA, "-m", "temperature,none", "--bootstrap", "0"]],
    "gates": [["plan", DATA], ["plan", HARM[3]]],
    "inspect": [["{params}"], [DATA], ["{document}"]],
    "config": [["evaluate"], ["evaluate", "--config", f"c{HARM[1]}.toml"], [HARM[3]]],
    "methods": [[HARM[3]]],
    "losses": [[HARM[3]]],
    "metrics": [[HARM[3]]],
    "history": [["{runs}"], ["{runs}", "--input", HARM[3]], [DATA]],
    "demo": [[DATA], ["demo" + HARM[3]]],
    "docs": [[HARM[3]]],
    "help": [[HARM[3]]],
}
"""What each command is called with; of those that print in formats, in each of them."""

SUFFIXES = {
    "--params": (".json", ".safetensors"),
    "--output": tuple(OUTPUTS),
    "--trace": (".jsonl",),
    "--append": (".jsonl",),
    "--junit": (".xml",),
    "--openmetrics": (".txt",),
    "--plot": (".svg",),
    "--report": (".html", ".tex"),
}
"""What each option that writes a file is called with."""


PROGRAMS = (".py", ".mjs", ".c")
"""What `calib export` writes as text."""


def written(command: str) -> list[str]:
    """The options of a command that write files."""
    parameters = Commands()[command].params
    return [each.opts[0] for each in parameters if Trait.WRITES_FILE in each.traits]


def formats(command: str) -> list[str | None]:
    """The formats in which a command prints."""
    option = [each for each in Commands()[command].params if "--format" in each.opts]
    return [each.value for each in type(option[0].default)] if option else [None]


def test_no_command_and_no_file_is_forgotten() -> None:
    assert set(COMMANDS) == set(Commands())
    assert set(SUFFIXES) == {option for command in Commands() for option in written(command)}


@pytest.fixture
def inputs(
    calib_here: CalibHere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """A folder of a hostile name with the inputs of all commands; the names of three of them."""
    (tmp_path / FOLDER).mkdir()
    monkeypatch.chdir(tmp_path / FOLDER)
    write_inputs()
    names = {
        "params": f"p{HARM[2]}.json",
        "document": f"d{HARM[4]}.json",
        "runs": f"r{HARM[3]}.jsonl",
    }
    outputs = ("-p", names["params"], "-o", "first.npz", "-m", "vector")
    code, stdout, stderr = calib_here("fit", DATA, *outputs, "--format", "json", "--bootstrap", "0")
    assert code == 0, stderr
    Path(names["document"]).write_text(stdout, "utf-8")
    append = ("--append", names["runs"], "--run", HARM[4], "--bootstrap", "0")
    code, _, stderr = calib_here("evaluate", DATA, *append)
    assert code == 0, stderr
    return names


@pytest.mark.parametrize(
    ("command", "form"), [(command, form) for command in COMMANDS for form in formats(command)]
)
def test_what_is_printed_commands_nobody(
    command: str, form: str | None, inputs: dict[str, str], calib_here: CalibHere
) -> None:
    for number, arguments in enumerate(COMMANDS[command]):
        chosen = [] if form is None else ["--format", form]
        named = [
            argument.format(**inputs)
            if "{" in argument and "}" in argument and argument.strip("{}") in inputs
            else argument
            for argument in arguments
        ]
        outputs = {
            "fit": ["-p", f"{number}.json", "-o", f"{number}.npz"],
            "apply": ["-o", f"{number}.npz"],
        }
        code, stdout, stderr = calib_here(command, *named, *outputs.get(command, []), *chosen)
        assert code in (0, 1, 2), stderr
        check_terminal(stderr)
        assert "Traceback" not in stderr
        assert stdout or code == 2 or form in (None, "table")
        if stdout:
            check(form or "table", stdout)


@pytest.mark.parametrize(
    ("command", "option", "suffix"),
    [
        (command, option, suffix)
        for command in COMMANDS
        for option in written(command)
        for suffix in (PROGRAMS if command == "export" else SUFFIXES[option])
        # An array alone has no labels, which `convert` is for.
        if (command, suffix) != ("convert", ".npy")
    ],
)
def test_what_is_written_commands_nobody(
    command: str, option: str, suffix: str, inputs: dict[str, str], calib_here: CalibHere
) -> None:
    if suffix == ".svg":
        pytest.importorskip("matplotlib")
    arguments = [
        argument.format(**inputs) if argument in ("{params}", "{runs}") else argument
        for argument in COMMANDS[command][0]
    ]
    path = Path(f"out{HARM[0]}{HARM[3]}{suffix}".replace("/", ""))
    needed = {"fit": {"--params": "p.json", "--output": "o.npz"}, "apply": {"--output": "o.npz"}}
    options = {**needed.get(command, {}), option: str(path)}
    code, stdout, stderr = calib_here(
        command,
        *arguments,
        *[part for pair in options.items() for part in pair],
    )
    assert code == 0, stderr
    check_terminal(stdout)
    check_terminal(stderr)
    if suffix in CHECKS:
        check(suffix, path.read_text("utf-8"))


@pytest.mark.parametrize(
    "suffix", [suffix for each in FORMATS.values() for suffix in each.suffixes]
)
def test_names_of_every_file_format_command_nobody(
    suffix: str, inputs: dict[str, str], calib_here: CalibHere
) -> None:
    path = Path(f"{HARM[1]}{suffix}")
    if not path.exists():
        path = Path("no" + path.name)
    for command, *arguments in (
        ["evaluate", "--by", COLUMN],
        ["apply", inputs["params"]],
        ["inspect"],
    ):
        outputs = ["-o", "z.parquet", "--force"] if command == "apply" else []
        last = [str(path)] if command != "evaluate" else []
        first = [str(path)] if command == "evaluate" else []
        code, stdout, stderr = calib_here(command, *first, *arguments, *last, *outputs)
        assert code in (0, 2), stderr
        check_terminal(stdout)
        check_terminal(stderr)


def check_terminal(text: str) -> None:
    """Nothing moves a cursor, and no line is a command to a runner."""
    assert not _CONTROL.search(text), _CONTROL.search(text)
    for line in text.splitlines():
        assert not line.lstrip().startswith(("::", "##[")), line
        assert not re.search(r"(?:^|\W)##\[", line), line


def check_markdown(text: str) -> None:
    """No markup of theirs is one, and the tables hold together."""
    check_terminal(text)
    assert not re.search(r"(?<!\\)<(img|script|/script)", text)
    assert not re.search(r"(?<!\\)\]\(javascript", text)
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        columns = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(columns) == 1, table


def check_github(text: str) -> None:
    """Annotations are ours, and none of their text stands before the message."""
    lines = text.splitlines()
    ours = [line for line in lines if line.startswith("::")]
    assert not _CONTROL.search(text)
    for line in ours:
        head = re.match(r"::(error|warning|notice)( title=[^:]*)?::", line)
        assert head, line
        assert "pwned" not in head[0]
    check_markdown("".join(f"{line}\n" for line in lines if not line.startswith("::")))


def check_csv(text: str) -> None:
    """No cell is a formula."""
    check_terminal(text)
    for row in csv.reader(io.StringIO(text)):
        for cell in row:
            assert not _FORMULA.match(cell), cell


def check_latex(text: str) -> None:
    """No command of theirs is one."""
    check_terminal(text)
    assert "\\input{" not in text


def check_json(text: str) -> None:
    """It is a document, in which no control character stands as it is."""
    assert not text or json.loads(text) is not None
    assert not _CONTROL.search(text)


class _Tags(HTMLParser):
    """Elements and attributes of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.images: list[Any] = []
        self.handlers: list[Any] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.images.append(attrs)
        self.handlers += [name for name, _ in attrs if name.startswith("on")]


def check_page(text: str) -> None:
    """No element and no handler is theirs."""
    tags = _Tags()
    tags.feed(text)
    assert not tags.images
    assert not tags.handlers
    assert "<script>pwned" not in text


def check_xml(text: str) -> None:
    """It is XML without control characters, and no element of theirs is one."""
    assert not _CONTROL.search(text), _CONTROL.search(text)
    elements = [element.tag.rpartition("}")[2] for element in ET.fromstring(text).iter()]  # noqa: S314 (our own)
    assert not {"img", "script"} & set(elements)


def check_openmetrics(text: str) -> None:
    """Every line is a comment or a sample, and nothing of theirs is raw."""
    check_terminal(text)
    assert text.endswith("# EOF\n")
    sample = re.compile(r'(# .*|[a-z_]+(\{([a-z_]+="([^"\\\n]|\\[\\n"])*",?)*\})? \S+)')
    for line in text.split("\n")[:-1]:
        assert sample.fullmatch(line), line


CHECKS = {
    "table": check_terminal,
    "markdown": check_markdown,
    "github": check_github,
    "junit": check_xml,
    "openmetrics": check_openmetrics,
    "csv": check_csv,
    "latex": check_latex,
    "json": check_json,
    ".json": json.loads,
    ".html": check_page,
    ".svg": check_xml,
    ".xml": check_xml,
    ".tex": check_latex,
    ".txt": check_openmetrics,
}


def check(form: str, text: str) -> None:
    """What a format owes to those who read it."""
    CHECKS[form](text)
