"""The commands, and what happens when one of them ends badly."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from calibcli.cli.configured import Converting, configure
from calibcli.cli.console import forget, tell
from calibcli.cli.help import group_help
from calibcli.errors import CalibError
from calibcli.interrupts import as_ended, files_written, taken_over
from calibcli.version import __version__
from calibcli.visible import visible

_HELP = """Probabilities that can be believed, from stored logits.

Learn a correction from the logits and labels of a validation set ([b]fit[/b]), run any later file \
through it ([b]apply[/b]), see whether the probabilities hold ([b]evaluate[/b]), and which \
correction is best for your data ([b]compare[/b]).

Without data of your own, begin with calib demo. calib docs has the documentation."""

_EXAMPLES = """[b]Examples[/b]

  calib demo

  calib fit sample_data/digits_val.parquet

  calib evaluate sample_data/digits_test.parquet -p digits_val.params.json
"""

_NAME = "calib"

INTERRUPTED = 130
"""The exit code after Ctrl-C or SIGTERM."""

_LONGEST = 1000
"""Characters of an error message."""

_MODULES = {
    "fit": "fit",
    "apply": "apply",
    "evaluate": "evaluate",
    "compare": "compare",
    "history": "history",
    "gates": "plan_gates",
    "inspect": "inspect",
    "convert": "convert",
    "export": "export",
    "methods": "methods",
    "losses": "methods",
    "metrics": "methods",
    "config": "config",
    "demo": "guide",
    "docs": "guide",
    "help": "guide",
}
"""The module that registers each command."""


class Commands(Mapping[str, Any]):
    """The commands by their names; each is imported and put together when it is asked for."""

    def __init__(self) -> None:
        self._commands: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._commands:
            self._commands |= typer.main.get_group(_registered(_MODULES[name])).commands
        return self._commands[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_MODULES)

    def __len__(self) -> int:
        return len(_MODULES)


@cache
def _registered(module: str) -> typer.Typer:
    """What a module registers."""
    part = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    import_module(f"calibcli.cli.{module}").register(part)
    configure(part)
    return part


class Program(Converting, TyperGroup):
    """All commands."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.commands = Commands()  # type: ignore[assignment]

    def list_commands(self, ctx: Any) -> list[str]:
        """The names of the commands in their order."""
        return list(self.commands)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """The help, which lists the commands."""
        helps = {
            str(entry.name): str(entry.help)
            for module in dict.fromkeys(_MODULES.values())
            for entry in _registered(module).registered_commands
        }
        formatter.write(group_help(self, ctx, helps))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments; without any, show what there is."""
        if not args and not ctx.resilient_parsing:
            typer.echo(ctx.get_help())
            raise typer.Exit(2)
        return super().parse_args(ctx, args)


app = typer.Typer(
    name=_NAME,
    cls=Program,
    help=_HELP,
    epilog=_EXAMPLES,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"calib {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", callback=_version, is_eager=True
        ),
    ] = False,
) -> None: ...


def run(arguments: list[str]) -> int:
    """Run the command line, leave the process as it was, and return the exit code.

    0 done, 1 a gate failed, 2 usage or data error, 3 a fit that did not converge under
    ``--strict``, 130 interrupted; a reader that closed the pipe is no error.
    """
    with taken_over():
        return execute(arguments)


def execute(arguments: list[str]) -> int:
    """Run the command line while signals are taken over, and return the exit code."""
    if "_CALIB_COMPLETE" in os.environ:
        app(prog_name=_NAME)  # the shell asks for completions
    failure = _failure(arguments)
    return 0 if failure is None else _end(failure)


def _failure(arguments: list[str]) -> BaseException | None:
    """What a command ended with, if not with its result; no traceback reaches a user."""
    try:
        try:
            _invoke(arguments)
        except BaseException as error:  # noqa: BLE001
            return as_ended(error)
        return as_ended(None)
    except KeyboardInterrupt as error:
        # A signal came when all was done, and before that was written down.
        return as_ended(error)


def _invoke(arguments: list[str]) -> None:
    """Parse and call the command. The parser would turn some errors into exits of its own."""
    command = typer.main.get_command(app)
    with command.make_context(_NAME, list(arguments)) as context:
        command.invoke(context)
    sys.stdout.flush()


def _end(error: BaseException) -> int:  # noqa: PLR0911 (an exit code each)
    """Say in one line how a command ended, and return the exit code."""
    if isinstance(error, typer.Exit):
        return error.exit_code
    if isinstance(error, CalibError):
        _settle_stdout()
        return _fail(str(error), error.exit_code, error.page)
    if isinstance(error, KeyboardInterrupt):
        files = files_written()
        after = f"interrupted after {', '.join(files)} had been written" if files else "interrupted"
        # An interrupt of a comparison says how far that was.
        return _fail(str(error) or after, INTERRUPTED)
    if isinstance(error, (BrokenPipeError, SystemExit)):
        # The second is how Rich puts the first.
        forget(sys.stdout)
        return 0
    if isinstance(error, MemoryError):
        return _fail(f"not enough memory ({error}); try a smaller --memory", 2)
    if isinstance(error, OSError):
        return _fail(f"{_place(error)}{error.strerror or error}", 2)
    if hasattr(error, "format_message"):
        return _usage(error)
    if os.environ.get("CALIB_DEBUG"):
        raise error
    what = f"{type(error).__name__}: {error}"
    return _fail(f"a defect of calib, please report it: {what} (CALIB_DEBUG=1 shows where)", 70)


def _place(error: OSError) -> str:
    """The file that an error is about. Files say their name; the stream of results does not."""
    if error.filename is not None:
        return f"{error.filename}: "
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
        forget(sys.stdout)
        return "standard output: "
    return ""


def _usage(error: Any) -> int:
    """An error of the parser, in one line; where it has shown the help already, in none."""
    message = " ".join(error.format_message().split())
    context = getattr(error, "ctx", None)
    command = _NAME if context is None else context.command_path
    if message:
        _fail(f"{message.rstrip('.')} (see {command} --help)", 2)
    return 2


def _settle_stdout() -> None:
    """Print what is left, so that whoever has stopped reading doesn't change how it ends."""
    try:
        sys.stdout.flush()
    except OSError:
        forget(sys.stdout)


def _fail(message: str, code: int, page: str = "") -> int:
    """Print one line, whatever names and values from a file are in it, with the page about it."""
    line = visible(" ".join(message.splitlines()))
    more = f" (more: calib docs {page})" if page else ""
    tell(f"calib: {line[:_LONGEST]}{'…' if len(line) > _LONGEST else ''}{more}")
    return code
