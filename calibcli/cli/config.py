"""``calib config``: what the options are without being typed, and why."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from calibcli.cli.console import tell
from calibcli.cli.shared_options import FormatOption, PlainFormat
from calibcli.errors import UsageError
from calibcli.visible import visible

if TYPE_CHECKING:
    from calibcli.cli.configuration import ConfigurableOption, Configuration
    from calibcli.schema.documents import ConfigDocument, SettingPart

_HELP = """Say what options are set to by a configuration file or the environment, and where.

Without COMMAND, of all commands. The command line is stronger than both.

More: calib docs configuration."""

_EXAMPLES = """[b]Examples[/b]

  calib config

  calib config evaluate --all --format json

  calib config fit --all
"""


def register(app: typer.Typer) -> None:
    """Add ``calib config`` to the program."""
    app.command("config", help=_HELP, epilog=_EXAMPLES)(config_command)


def config_command(
    context: typer.Context,
    command: Annotated[
        str | None, typer.Argument(metavar="COMMAND", help="One command.", show_default="all")
    ] = None,
    all_options: Annotated[
        bool, typer.Option("--all", help="Show the options that are at their defaults too.")
    ] = False,
    format: FormatOption = PlainFormat.TABLE,
) -> None:
    """Look up what options are set to, and print it."""
    from calibcli.cli.configured import configuration_of

    configuration = configuration_of(context)
    if command is not None and command not in configuration.options:
        known = ", ".join(configuration.options)
        raise UsageError(f"{command}: there is no such command; there are {known}")
    for name, meant in configuration.misspelt():
        tell(f"calib: nothing reads {name}; did you mean {meant}?")
    names = configuration.options if command is None else [command]
    entries = [
        entry
        for name in names
        for entry in _entries(configuration, name, context)
        if all_options or entry["layer"] != "default"
    ]
    if format is PlainFormat.TABLE:
        _print(configuration, entries)
        for error in dict.fromkeys(filter(None, (entry["error"] for entry in entries))):
            tell(f"calib: {error}")
        return
    file = None if configuration.file is None else str(configuration.file.path.absolute())
    document: ConfigDocument = {
        "schema_version": 1,
        "command": "config",
        "file": file,
        "options": entries,
    }
    sys.stdout.write(json.dumps(document, indent=2) + "\n")


def _entries(configuration: Configuration, command: str, context: Any) -> Iterator[SettingPart]:
    """The options of a command, with their values and where these come from."""
    from calibcli.cli.configuration import plain

    settings = configuration.settings(command)
    for name, option in configuration.options[command].items():
        setting, error = settings.get(name), None
        value = default = plain(option.parameter.default)
        if setting is not None:
            try:
                value = option.value_of(setting, context)
            except UsageError as refusal:
                # One command may refuse what is meant for another: the rest is still shown.
                value, error = setting.value, str(refusal)
        yield {
            "command": command,
            "option": name,
            "value": value,
            "default": default,
            "layer": "default" if setting is None else setting.layer,
            "source": "default" if setting is None else setting.source,
            "error": error,
        }


def _print(configuration: Configuration, entries: list[SettingPart]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console, file = Console(highlight=False), configuration.file
    name = "none" if file is None else file.shown
    console.print(Text(visible(f"configuration file: {name}")), soft_wrap=True)
    if not entries:
        console.print("every option is at its default (--all shows them)")
        return
    console.print()
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in ("command", "option", "value", "from"):
        grid.add_column(title, overflow="fold")
    before = None
    for entry in entries:
        command, name = entry["command"], entry["option"]
        value = _shown(configuration.options[command][name], entry["value"])
        style = "dim" if entry["layer"] == "default" else ""
        source = entry["source"] + (" (refused)" if entry["error"] else "")
        cells = ("" if command == before else command, name, value, source)
        grid.add_row(*(Text(visible(cell)) for cell in cells), style=style)
        before = command
    console.print(grid)


def _shown(option: ConfigurableOption, value: Any) -> str:
    """A value, or what takes its place where there is none."""
    from calibcli.cli.configuration import shown

    if value is not None:
        return shown(value)
    instead = option.parameter.show_default
    return f"({instead})" if isinstance(instead, str) else ""
