"""The help of a command: ``-h`` has what everybody needs, ``--help`` has everything.

Written without Rich, whose import would take most of the time that a help takes.
"""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import Any, get_type_hints

import typer

from calibcli.cli.option_values import value_type

_WIDEST, _NARROWEST = 100, 40
_TERM_WIDTH = 30
"""Columns of an option; one that is longer has its description below it."""

Entry = tuple[str, str]
"""An option or a command, and its description."""


def command_help(command: Any, context: Any, *, short: bool) -> str:
    """The help of a command.

    Parameters
    ----------
    command : typer.core.TyperCommand
        Its function has the names of the parameters of the short help as `basic_options`, if there
        is a difference.
    context : typer.Context
    short : bool
        Leave out the options that few people need.
    """
    width, parameters = _width(), command.get_params(context)
    hints = get_type_hints(command.callback)
    basic = getattr(command.callback, "basic_options", ())
    arguments = [each for each in parameters if each.param_type_name == "argument"]
    options = [each for each in parameters if each.param_type_name == "option"]
    metavars = " ".join(_argument_term(each) for each in arguments)
    lines = [*_usage(f"{context.command_path} [OPTIONS] {metavars}"), ""]
    lines += _paragraphs(command.help or "", width)
    if arguments:
        entries = [(_argument_term(each), _description(each)) for each in arguments]
        lines += _section("Arguments", entries, width)
    panels: dict[str, list[Any]] = {}
    for each in options:
        if short and basic and each.name not in basic:
            continue
        panel = None if short and basic else getattr(each, "rich_help_panel", None)
        panels.setdefault(panel or "Options", []).append(each)
    for panel, members in panels.items():
        entries = [(_option_term(each, hints), _description(each)) for each in members]
        lines += _section(panel, entries, width)
    if short and basic:
        lines += [*_paragraphs(f"All {len(options)} options: {context.command_path} --help", width)]
    lines += _epilog(command.epilog)
    return "\n".join(lines).rstrip() + "\n"


def group_help(group: Any, context: Any, helps: Mapping[str, str]) -> str:
    """The help of the program: its commands with the first sentence of the help of each."""
    width = _width()
    lines = [*_usage(f"{context.command_path} [OPTIONS] COMMAND [ARGS]..."), ""]
    lines += _paragraphs(group.help or "", width)
    entries = [(name, text.split("\n\n")[0]) for name, text in helps.items()]
    lines += _section("Commands", entries, width)
    options = [each for each in group.get_params(context) if each.param_type_name == "option"]
    entries = [(_option_term(each, {}), _description(each)) for each in options]
    lines += _section("Options", entries, width)
    lines += _epilog(group.epilog)
    return "\n".join(lines).rstrip() + "\n"


def _width() -> int:
    return max(_NARROWEST, min(_WIDEST, shutil.get_terminal_size().columns) - 1)


def _usage(text: str) -> list[str]:
    return [typer.style("Usage:", bold=True) + f" {text.rstrip()}"]


def _paragraphs(text: str, width: int) -> Iterator[str]:
    text = re.sub(r"\[/?b\]", "", text)
    for paragraph in text.split("\n\n"):
        yield from textwrap.wrap(paragraph, width, break_on_hyphens=False)
        yield ""


def _epilog(text: str | None) -> list[str]:
    """The examples, a line each."""
    lines = [line.strip() for line in re.sub(r"\[/?b\]", "", text or "").splitlines()]
    heading, *examples = [line for line in lines if line] or [""]
    return [typer.style(f" {heading}", bold=True), *(f"  {line}" for line in examples)]


def _section(title: str, entries: Sequence[Entry], width: int) -> Iterator[str]:
    yield typer.style(f"{title}:", bold=True)
    indent = " " * (_TERM_WIDTH + 2)
    for term, description in entries:
        wrapped = textwrap.wrap(
            description, width, initial_indent=indent, subsequent_indent=indent,
            break_on_hyphens=False, break_long_words=False,
        )  # fmt: skip
        if len(term) > _TERM_WIDTH - 2:
            yield from _term_alone(term, width)
        elif wrapped:
            wrapped[0] = f"  {term}".ljust(_TERM_WIDTH + 2) + wrapped[0].lstrip()
        else:
            yield f"  {term}"
        yield from wrapped
    yield ""


def _term_alone(term: str, width: int) -> Iterator[str]:
    """An option whose choices are many, broken between two of them."""
    line = "  "
    for part in re.findall(r"[^|]+\|?", term):
        if len(line) + len(part) > width:
            yield line
            line = " " * 6
        line += part
    yield line


def _argument_term(parameter: Any) -> str:
    name = parameter.metavar or str(parameter.name).upper()
    dots = "..." if parameter.nargs == -1 else ""
    return f"{name}{dots}" if parameter.required else f"[{name}]{dots}"


def _option_term(parameter: Any, hints: Mapping[str, Any]) -> str:
    """``-m, --method NAME``: long names start in one column, with or without a short one."""
    short = [flag for flag in parameter.opts if not flag.startswith("--")]
    long = [flag for flag in parameter.opts if flag.startswith("--")]
    flags = ", ".join([*short, *long, *parameter.secondary_opts])
    flags = flags if short else f"    {flags}"
    kind = value_type(hints.get(parameter.name, str))
    value = parameter.metavar
    if not value and issubclass(kind, Enum):
        value = "|".join(str(choice.value) for choice in kind)
    return flags if parameter.is_flag else f"{flags} {value or 'VALUE'}"


def _description(parameter: Any) -> str:
    """The help of a parameter and its default."""
    text = parameter.help or ""
    default = parameter.default
    if isinstance(parameter.show_default, str):
        shown = parameter.show_default
    elif not parameter.show_default or default is None or isinstance(default, bool):
        shown = ""
    else:
        shown = str(getattr(default, "value", default))
    return f"{text} [{shown}]" if shown and shown != "()" else text
