"""``calib demo``, ``calib docs`` and ``calib help``: sample files, documentation and help."""

from __future__ import annotations

import re
import sys
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import typer

from calibcli.cli.configured import HelpfulCommand
from calibcli.errors import UsageError
from calibcli.visible import visible

_SAMPLE_DATA = "sample_data"

_DEMO_HELP = """Write the sample files that all examples are about.

Files that are there already stay as they are. More: calib docs choosing."""

_DEMO_EXAMPLES = """[b]Examples[/b]

  calib demo

  calib demo trial

  calib demo --force
"""

_DOCS_HELP = """Show a page of the documentation, or list the pages.

It is formatted for a terminal, and plain Markdown in a pipe. More: calib docs cli."""

_DOCS_EXAMPLES = """[b]Examples[/b]

  calib docs

  calib docs choosing

  calib docs reading-a-report
"""

_HELP_HELP = """Show the help of a command, as calib COMMAND --help does.

More: calib docs cli."""

_HELP_EXAMPLES = """[b]Examples[/b]

  calib help

  calib help fit

  calib help evaluate
"""


def register(app: typer.Typer) -> None:
    """Add ``calib demo``, ``docs`` and ``help`` to the program."""
    for name, function, text, examples in (
        ("demo", demo_command, _DEMO_HELP, _DEMO_EXAMPLES),
        ("docs", docs_command, _DOCS_HELP, _DOCS_EXAMPLES),
        ("help", help_command, _HELP_HELP, _HELP_EXAMPLES),
    ):
        app.command(name, cls=HelpfulCommand, help=text, epilog=examples)(function)


def shipped(folder: str) -> Path:
    """A folder that a wheel has inside the package, and a checkout beside it.

    Raises
    ------
    UsageError
        It was left out of this installation.
    """
    package = Path(__file__).resolve().parents[1]
    for path in (package / folder, package.parent / folder):
        if path.is_dir():
            return path
    raise UsageError(f"{folder} is not part of this installation of calib")


def documentation() -> dict[str, Path]:
    """The pages of the documentation by their names."""
    return {path.stem: path for path in sorted(shipped("docs").glob("*.md"))}


def _complete_page(incomplete: str) -> list[str]:
    return [name for name in documentation() if name.startswith(incomplete)]


def _complete_command(context: typer.Context, incomplete: str) -> list[str]:
    return [name for name in _program(context).commands if name.startswith(incomplete)]


def _program(context: typer.Context) -> Any:
    """The group that a command is in."""
    assert context.parent is not None
    return context.parent.command


def demo_command(
    folder: Annotated[
        str, typer.Argument(metavar="FOLDER", help="Where to; it is made if need be.")
    ] = _SAMPLE_DATA,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that differ.")] = False,
) -> None:
    """Write the files, those that are there already left as they are."""
    from calibcli.tables import Outputs, check_writable

    target = Path(folder)
    contents = {
        str(target / path.name): path.read_bytes()
        for path in sorted(shipped(_SAMPLE_DATA).iterdir())
        if path.suffix in (".md", ".npz", ".parquet")
    }
    new = {
        path: content
        for path, content in contents.items()
        if not (Path(path).is_file() and Path(path).read_bytes() == content)
    }
    target.mkdir(parents=True, exist_ok=True)
    for path in new:
        check_writable(path, force=force)
    with Outputs(force=force) as files:
        for path, content in new.items():
            files.open(path).write(content)
    lines = [f"{path}{'' if path in new else ' (is there already)'}" for path in contents]
    validation = target / "digits_val.parquet"
    lines += ["", "A first step:", f"  calib fit {validation}", "What then: calib docs choosing"]
    sys.stdout.write("".join(f"{visible(line)}\n" for line in lines))


def docs_command(
    page: Annotated[
        str | None,
        typer.Argument(
            metavar="PAGE",
            help="Name of a page.",
            show_default="lists them",
            autocompletion=_complete_page,
        ),
    ] = None,
) -> None:
    """List the pages, or show one."""
    pages = documentation()
    if page is None:
        width = max(map(len, pages)) + 2
        for name, path in pages.items():
            with path.open(encoding="utf-8") as file:
                sys.stdout.write(f"{name:<{width}}{file.readline().lstrip('# ')}")
        return
    text = pages[_known(page.removesuffix(".md"), pages, "page", "calib docs lists them")]
    content = text.read_text(encoding="utf-8")
    if not sys.stdout.isatty():
        sys.stdout.write(content)
        return
    from rich.console import Console
    from rich.markdown import Markdown

    Console().print(Markdown(_for_terminal(content), hyperlinks=False))


def _for_terminal(page: str) -> str:
    """A page without what is meant for its tests and its site; links say how to follow them."""
    page = re.sub(r"<!--.*?-->\n?", "", page, flags=re.DOTALL)
    page = re.sub(r"^```(\w+) .*$", r"```\1", page, flags=re.MULTILINE)
    page = re.sub(r"!\[(.*?)\]\(.*?\)", r"(picture: \1)", page, flags=re.DOTALL)
    page = re.sub(r"\[([\w-]+)\.md\]\(\1\.md[^)]*\)", r"`calib docs \1`", page)
    page = re.sub(r"\[([^]]+)\]\(([\w-]+)\.md[^)]*\)", r"\1 (`calib docs \2`)", page)
    return re.sub(r"\[([^]]+)\]\((?!https?:)[^)]*\)", r"\1", page)


def help_command(
    context: typer.Context,
    command: Annotated[
        str | None,
        typer.Argument(
            metavar="COMMAND",
            help="Name of a command.",
            show_default="calib itself",
            autocompletion=_complete_command,
        ),
    ] = None,
) -> None:
    """Print the help of a command, or of the program."""
    program = _program(context)
    if command is None:
        typer.echo(program.get_help(context.parent))
        return
    commands = program.commands
    known = commands[_known(command, commands, "command", "calib --help lists them")]
    with known.make_context(command, [], parent=context.parent, resilient_parsing=True) as inner:
        typer.echo(known.get_help(inner))


def _known(name: str, names: Any, noun: str, otherwise: str) -> str:
    """A name that there is; raises UsageError, with the one that may be meant."""
    if name in names:
        return name
    matches = get_close_matches(name, names, 1)
    hint = f"did you mean {matches[0]}?" if matches else otherwise
    raise UsageError(f"{name}: there is no such {noun}; {hint}")
