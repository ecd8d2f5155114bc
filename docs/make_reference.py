"""Write the generated parts of ``cli.md``, ``json.md`` and ``params.md`` anew.

The reference of the command line is made from the commands themselves, that of the JSON from its
types, that of the stages of a parameter file from the docstrings of the calibrators, and that of
what it remembers of its input from the options that read one.
"""  # noqa: INP001 (a script)

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    Any,
    Literal,
    NotRequired,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from typer import Context
from typer.main import get_command
from typer.models import ArgumentInfo, OptionInfo

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))
from calibcli.schema import documents, parts  # noqa: E402 (from this checkout, installed or not)

BAR = r"\|"
"""A bar inside a table."""

PLAIN = {
    "tuple of tuple of Calibrator": "lists of stages",
    "tuple of Calibrator": "stages",
    "tuple of str": "texts",
    "float64 array": "numbers",
    "tuple of int": "whole numbers",
    "float": "number",
    "str": "text",
    "dict": "object",
    ",)": ")",
}
"""Types of Python in words for a file."""


@dataclass(frozen=True)
class Parameter:
    """An argument or an option of a command.

    Attributes
    ----------
    title : str
        As it is typed: ``"-m, --method NAME"``.
    panel : str or None
        The group of options that it belongs to.
    help, default : str
    is_option : bool
    """

    title: str
    panel: str | None
    help: str
    default: str
    is_option: bool


@dataclass(frozen=True)
class Command:
    """A command: its name, what its help says, its parameters and its examples."""

    name: str
    help: str
    parameters: tuple[Parameter, ...]
    examples: tuple[str, ...]

    @property
    def usage(self) -> str:
        """The first line of its help."""
        arguments = [each.title for each in self.parameters if not each.is_option]
        return " ".join(["calib", self.name, "[OPTIONS]", *arguments])


def commands() -> list[Command]:
    """The commands of `calib`, in the order of its help."""
    from calibcli.cli.app import app

    return [
        Command(
            name,
            each.help,
            tuple(_parameters(each.callback)),
            tuple(re.findall(r"^ *(calib .*)$", each.epilog, re.MULTILINE)),
        )
        for name, each in get_command(app).commands.items()
    ]


def _parameters(function: Callable[..., Any]) -> Iterator[Parameter]:
    hints = get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        if hints[name] is Context:
            continue
        kind, *extras = get_args(hints[name])
        info = next(each for each in extras if isinstance(each, ArgumentInfo | OptionInfo))
        least = "" if info.min is None else f" At least {info.min}."
        title = _title(name, kind, info)
        optional = parameter.default is not inspect.Parameter.empty
        yield Parameter(
            f"[{title}]" if optional and isinstance(info, ArgumentInfo) else title,
            info.rich_help_panel,
            (info.help or "") + (least if isinstance(info, OptionInfo) and info.min else ""),
            _default(parameter.default, info),
            isinstance(info, OptionInfo),
        )


def _title(name: str, kind: Any, info: ArgumentInfo | OptionInfo) -> str:
    value = info.metavar or ""
    if not value and isinstance(kind, type) and issubclass(kind, Enum):
        value = "|".join(str(member.value) for member in kind)
    if isinstance(info, ArgumentInfo):
        return value + ("..." if get_origin(kind) is list else "")
    # The first name given to `typer.Option` is where its default would be without `Annotated`.
    first = [info.default] if isinstance(info.default, str) else []
    flags = sorted([*first, *(info.param_decls or ())], key=len)
    flags = flags or ["--" + name.replace("_", "-")]
    return ", ".join(flags) + (f" {value}" if value else "")


def _default(value: Any, info: ArgumentInfo | OptionInfo) -> str:
    if isinstance(info.show_default, str):
        return info.show_default
    if value is inspect.Parameter.empty:
        return "required"
    if not info.show_default or value is None or value is False:
        return ""
    return f"`{value.value if isinstance(value, Enum) else value}`"


def command_reference() -> str:
    """Every command with its options."""
    known = commands()
    shared = _shared(known)
    lines: list[str] = []
    for command in known:
        lines += _section(command, shared)
    lines += ["## Options that commands share", ""]
    for panel, options in shared.items():
        users = [f"`{each.name}`" for each in known if _uses(each, options)]
        lines += [f"### {panel}", "", f"Options of {_listed(users)}.", ""]
        lines += [*_table("option", options), ""]
    return "\n".join(lines)


def _shared(known: Iterable[Command]) -> dict[str, list[Parameter]]:
    """The options of each panel that every command with the panel has."""
    shared: dict[str, list[Parameter]] = {}
    for parameter in (each for command in known for each in command.parameters):
        panel = parameter.panel
        users = [c.parameters for c in known if panel in (each.panel for each in c.parameters)]
        if panel and all(parameter in user for user in users):
            options = shared.setdefault(panel, [])
            options += [parameter] if parameter not in options else []
    return shared


def _uses(command: Command, options: Iterable[Parameter]) -> bool:
    return set(options) <= set(command.parameters)


def _section(command: Command, shared: dict[str, list[Parameter]]) -> Iterator[str]:
    text = re.sub(r"calib docs ([a-z-]+)", r"[\1](\1.md)", command.help)
    yield from (f"## calib {command.name}", "", f"    {command.usage}", "", text, "")
    common = {each for options in shared.values() for each in options}
    own = [each for each in command.parameters if each not in common]
    for heading, wanted in (("argument", False), ("option", True)):
        group = [each for each in own if each.is_option == wanted]
        if group:
            yield from (*_table(heading, group), "")
    used = [
        f"[{name}](#{name.lower().replace(' ', '-')})"
        for name, each in shared.items()
        if _uses(command, each)
    ]
    if used:
        yield from (f"It also takes the options of {_listed(used)}.", "")
    yield from ("```sh", *command.examples, "```", "")


def _listed(names: list[str]) -> str:
    """``"a, b and c"``."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _table(heading: str, parameters: Iterable[Parameter]) -> Iterator[str]:
    yield from (f"| {heading} | | default |", "|---|---|---|")
    for each in parameters:
        cells = (f"`{each.title}`", each.help, each.default)
        yield f"| {' | '.join(cell.replace('|', BAR) for cell in cells)} |"


def stage_reference() -> str:
    """Every kind of stage with its formula and its parameters."""
    from calibcli.calibrators.registry import CALIBRATORS

    lines: list[str] = []
    for kind, family in CALIBRATORS.items():
        text, _, parameters = str(inspect.getdoc(family)).partition("\n\nParameters\n---")
        lines += [f"### {kind}", "", text, ""]
        entries = re.findall(
            r"^(\w[\w, ]*) : (.*)\n((?:    .*\n)*)", f"{parameters}\n", re.MULTILINE
        )
        if entries:
            lines += ["| parameter | | |", "|---|---|---|"]
        for names, shape, described in entries:
            if (kind, names) == ("link", "options"):
                lines += _link_options()
                continue
            quoted = ", ".join(f"`{name}`" for name in names.split(", "))
            for python, plain in PLAIN.items():
                shape = shape.replace(python, plain)  # noqa: PLW2901 (the same shape)
            lines.append(f"| {quoted} | {shape} | {' '.join(described.split())} |")
        lines += [""] if entries else []
    return re.sub(r"``?([^`]+)``?", r"`\1`", "\n".join(lines))


def _link_options() -> Iterator[str]:
    """A row for each option of a loss that its link has as a parameter."""
    from calibcli.calibrators.links import link_of
    from calibcli.objectives.registry import OBJECTIVES

    losses: dict[str, list[str]] = {}
    for name, objective in OBJECTIVES.items():
        link = link_of(objective())
        for option in link.options if link else ():
            losses.setdefault(option, []).append(f"`{name}`")
    for option, names in losses.items():
        yield f"| `{option}` | number | As in `calib losses`; for {', '.join(names)} alone. |"


def reading_reference() -> str:
    """Every decision about the input that a parameter file remembers."""
    from calibcli.tables.read_options import remembered_options

    lines = ["| key | type | what |", "|---|---|---|", "| `version` | whole number | `1` |"]
    for name, option in remembered_options().items():
        lines.append(f"| `{name}` | {option.shape} | {option.meaning} |")
    return "\n".join([*lines, "", ""])


OBJECTS = {
    name: kind
    for module in (parts, documents)
    for name, kind in vars(module).items()
    if is_typeddict(kind)
}
"""The objects of all documents by the names of their classes."""

PLAIN_JSON = {str: "string", int: "integer", float: "number", bool: "boolean", Any: "anything"}
"""Types of a document in words."""


def key_table(name: str, headings: dict[str, str]) -> str:
    """The keys of an object of `calibcli.schema`.

    Parameters
    ----------
    name : str
        Its class.
    headings : dict of str
        The heading that each class stands under, by the name of the class.
    """
    inherited: set[str] = set()
    rows = []
    for base in _bases(name):
        keys = get_type_hints(OBJECTS[base])
        listed = ", ".join(f"`{key}`" for key in keys)
        rows.append([listed, "", "as there", f"as of {_link(base, headings)}"])
        inherited |= set(keys)
    for key, hint in get_type_hints(OBJECTS[name], include_extras=True).items():
        if key not in inherited:
            optional = get_origin(hint) is NotRequired
            shape, meaning, *when = get_args(get_args(hint)[0] if optional else hint)
            words = _in_words(shape, headings)
            rows.append([f"`{key}`", words, when[0] if optional else "always", meaning])
    heads = ["key", "type", "there", "what it is"]
    if all(row[2] in ("always", "as there") for row in rows):
        for row in (heads, *rows):
            del row[2]
    lines = [heads, ["---"] * len(heads), *rows]
    cells = (" | ".join(cell.replace("|", BAR) for cell in line) for line in lines)
    return "".join(f"| {line} |\n" for line in cells) + "\n"


def _link(name: str, headings: dict[str, str]) -> str:
    """``[an input](#an-input)``."""
    heading = headings[name]
    return f"[{heading[:1].lower()}{heading[1:]}](#{anchor(heading)})"


def anchor(heading: str) -> str:
    """What GitHub makes of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _bases(name: str) -> list[str]:
    """The classes of documents that a class adds keys to; Python 3.11 forgets them."""
    sources = (ast.parse(inspect.getsource(module)) for module in (parts, documents))
    classes = (n for each in sources for n in each.body if isinstance(n, ast.ClassDef))
    bases = {each.name: [ast.unparse(base) for base in each.bases] for each in classes}
    return [base for base in bases.get(name, []) if base in bases]


def _in_words(shape: Any, headings: dict[str, str], ending: str = "") -> str:
    """A type in words; with the ending ``"s"`` several of it."""
    origin, parts = get_origin(shape), get_args(shape)
    if origin is Literal:
        return " or ".join(f"`{json.dumps(part)}`" for part in parts)
    if origin in (Union, UnionType):
        return " or ".join(_in_words(part, headings) for part in parts)
    if origin is Sequence:
        return f"list{ending} of {_in_words(parts[0], headings, 's')}"
    if origin is Mapping:
        return "object" if parts[1] is Any else f"object of {_in_words(parts[1], headings, 's')}"
    if is_typeddict(shape):
        return f"[object{ending}](#{anchor(headings[shape.__name__])})"
    return "null" if shape is NoneType else PLAIN_JSON[shape] + ending


REFERENCES: dict[str, Callable[[], str]] = {
    "commands": command_reference,
    "reading": reading_reference,
    "stages": stage_reference,
}
"""Generated parts by the name in their first line; all others are the keys of an object."""

GENERATED = ("cli.md", "json.md", "params.md")
"""Pages with generated parts."""

_PART = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- generated: end -->\n)", re.DOTALL)


def headings_of(text: str) -> dict[str, str]:
    """The heading that each generated part of a page stands under."""
    headings, heading = {}, ""
    for line in text.splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
        elif line.startswith("<!-- generated: "):
            headings.setdefault(line.split()[2], heading)
    return headings


def page(name: str) -> str:
    """A page with its generated parts written anew."""
    text = (DOCS / name).read_text(encoding="utf-8")
    headings = headings_of(text)

    def anew(part: re.Match[str]) -> str:
        begin, name, end = part.groups()
        make = REFERENCES.get(name)
        return f"{begin}\n{make() if make else key_table(name, headings)}{end}"

    return _PART.sub(anew, text)


if __name__ == "__main__":
    for each in GENERATED:
        (DOCS / each).write_text(page(each), encoding="utf-8")
