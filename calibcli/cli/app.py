"""The commands, and what happens when one of them ends badly."""

from __future__ import annotations

import os
import signal
import sys
from typing import Annotated, Any

import typer

from calibcli.cli import apply, evaluate, fit, inspect, methods
from calibcli.errors import CalibError
from calibcli.version import __version__

_HELP = """Probabilities that can be believed, from stored logits.

Learn a map from the logits and labels of a validation set ([b]fit[/b]), run any later file \
through it ([b]apply[/b]), and see whether the probabilities hold ([b]evaluate[/b])."""

_EXAMPLES = """[b]Examples[/b]

  calib fit sample_data/digits_val.parquet --test sample_data/digits_test.parquet

  calib evaluate sample_data/digits_test.parquet
"""

app = typer.Typer(
    name="calib",
    help=_HELP,
    epilog=_EXAMPLES,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for command in (fit, apply, evaluate, inspect, methods):
    command.register(app)


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


def run(arguments: list[str]) -> int:  # noqa: PLR0911 (an exit code each)
    """Run the command line and return the exit code.

    0 done, 2 usage or data error, 3 a fit that did not converge under ``--strict``, 130
    interrupted; a reader that closed the pipe is no error.
    """
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code: Any = app(arguments, standalone_mode=False)
        sys.stdout.flush()
    except CalibError as error:
        return _fail(str(error), error.exit_code)
    except BrokenPipeError:
        # Python flushes stdout once more on the way out; there is nobody to read it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return _fail("interrupted; nothing was written", 130)
    except MemoryError as error:
        return _fail(f"not enough memory ({error}); try a smaller --memory", 2)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}", 2)
    except Exception as error:  # noqa: BLE001 (no traceback reaches a user)
        return _other(error)
    return code if isinstance(code, int) else 0


def _other(error: Exception) -> int:
    """Errors of the parser are its own to show; any other is a defect of ours."""
    show = getattr(error, "show", None)
    if show is not None:
        show()
        return int(getattr(error, "exit_code", 2))
    if type(error).__name__ == "Abort":
        return _fail("interrupted; nothing was written", 130)
    if os.environ.get("CALIB_DEBUG"):
        raise error
    name = type(error).__name__
    return _fail(
        f"a defect of calib, please report it: {name}: {error} (CALIB_DEBUG=1 shows where)", 70
    )


def _fail(message: str, code: int) -> int:
    typer.echo(f"calib: {message}", err=True)
    return code


def _terminate(*_: object) -> None:
    raise KeyboardInterrupt
