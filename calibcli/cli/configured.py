"""Commands whose options take their defaults from a configuration."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from calibcli.cli.config_file import (
    CONFIG_VARIABLE,
    OTHER_VARIABLES,
    ConfigFile,
    find_file,
    named_file,
)
from calibcli.cli.help import command_help
from calibcli.cli.option_values import Trait, convert_values
from calibcli.cli.shared_options import options_in, shared
from calibcli.errors import CalibError, UsageError

if TYPE_CHECKING:
    from calibcli.cli.configuration import Configuration

_option = options_in("Configuration")
_FILE, _SETTINGS, _SHORT = "calibcli.file", "calibcli.settings", "calibcli.short"
"""Where a context keeps the file, what is set of its command, and whether ``-h`` asks for help."""


@dataclass(frozen=True)
class ConfigurationOptions:
    """Where defaults of options come from."""

    config: Annotated[
        str | None,
        _option(
            metavar="FILE",
            help="Take defaults of options from this TOML file.",
            show_default="nearest calib.toml or pyproject.toml",
        ),
    ] = None
    no_config: Annotated[
        bool,
        _option("--no-config", help="Read no configuration file."),
    ] = False


def configure(app: typer.Typer) -> None:
    """Let the options of commands be set by files and variables, if no class says otherwise."""
    for entry in app.registered_commands:
        assert entry.callback is not None
        if not issubclass(entry.cls or TyperCommand, HelpfulCommand):
            entry.cls = ConfiguredCommand
            entry.callback = shared(ConfigurationOptions)(entry.callback)


class Converting:
    """A command whose parameters turn text into values by `convert_values`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        command: Any = self
        convert_values(command.params, command.callback)

    def get_params(self, ctx: Any) -> list[Any]:
        """All parameters, with those that the parser adds: help and completion."""
        parent: Any = super()
        parameters: list[Any] = parent.get_params(ctx)
        convert_values(parameters)
        return parameters


class HelpfulCommand(Converting, TyperCommand):
    """A command with a short help and a full one."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """The help: short after ``-h``."""
        formatter.write(command_help(self, ctx, short=bool(ctx.meta.get(_SHORT))))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments, and notice which help they ask for."""
        ctx.meta[_SHORT] = "-h" in args and "--help" not in args
        return super().parse_args(ctx, args)


class ConfiguredCommand(HelpfulCommand):
    """A command that looks into the configuration before it reads its arguments.

    What is found there becomes the parser's defaults. The help does not look, and so says the same
    everywhere.
    """

    def make_parser(self, ctx: Any) -> Any:
        """The parser, which also takes ``--no-strict`` to undo a ``strict = true``."""
        parser = super().make_parser(ctx)
        known = {flag for each in self.params for flag in (*each.opts, *each.secondary_opts)}
        for each in self.params:
            if not getattr(each, "is_flag", False):
                continue
            undo = {_negated(flag) for flag in each.opts if flag.startswith("--")} - known
            if undo:
                parser.add_option(
                    obj=each,  # type: ignore[arg-type]
                    opts=sorted(undo),
                    dest=each.name,
                    action="store_const",
                    const=False,
                )
        return parser

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments, on top of the configuration."""
        if not ctx.resilient_parsing:
            given, _, order = self.make_parser(ctx).parse_args(list(args))
            _refuse_repetition(order)
            if not given.get("help"):
                file = chosen_file(given.get("config"), none=bool(given.get("no_config")))
                ctx.meta[_FILE] = file
                others = os.environ.keys() - OTHER_VARIABLES
                if file is not None or any(name.startswith("CALIB_") for name in others):
                    self._configure(ctx, given)
        return super().parse_args(ctx, args)

    def _configure(self, ctx: Any, given: dict[str, Any]) -> None:
        configuration = configuration_of(ctx)
        command = str(self.name)
        options, settings = configuration.options[command], configuration.settings(command)
        for name, setting in settings.items():
            if given.get(options[name].parameter.name) is None:
                # Refuses what the parser would, and says where it is.
                options[name].value_of(setting, ctx)
        by_parameter = {str(options[name].parameter.name): each for name, each in settings.items()}
        ctx.default_map = {name: setting.value for name, setting in by_parameter.items()}
        ctx.meta[_SETTINGS] = by_parameter

    def invoke(self, ctx: Any) -> Any:
        """Run the command; what it says of options tells which of them nobody typed."""
        configured = {
            name: setting.source
            for name, setting in ctx.meta.get(_SETTINGS, {}).items()
            if ctx.get_parameter_source(name).name == "DEFAULT_MAP"
        }
        said = (
            configured if ctx.params.get("quiet") is False else self._always_said(ctx, configured)
        )
        if said:
            typer.echo(f"calib: configured by {', '.join(said.values())}", err=True)
        try:
            self._keep_inputs(ctx)
            return super().invoke(ctx)
        except CalibError as error:
            named = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", str(error)))
            places = [
                configured[each.name]
                for each in self.params
                if each.name in configured and named & set(each.opts)
            ]
            if places:
                error.args = (f"{error} (set by {', '.join(places)})",)
            raise

    def _always_said(self, ctx: Any, configured: dict[str, str]) -> dict[str, str]:
        """What even a quiet command says of its settings, by a file that was only found.

        That is where it writes, and everything if the same file has it be quiet.
        """
        file: ConfigFile | None = ctx.meta.get(_FILE)
        if file is None or file.named:
            return {}
        settings = ctx.meta[_SETTINGS]
        if "quiet" in configured and settings["quiet"].layer == "file":
            return configured
        params: list[Any] = self.params
        writing = {param.name for param in params if Trait.WRITES_FILE in param.traits}
        return {
            name: source
            for name, source in configured.items()
            if name in writing and settings[name].layer == "file"
        }

    def _keep_inputs(self, ctx: Any) -> None:
        """Refuse to write over a file that an option or argument names, through links too."""
        params: list[Any] = self.params
        texts = {
            param: [each for each in _several(ctx.params.get(param.name)) if isinstance(each, str)]
            for param in params
        }
        read = {
            path: _flag(param)
            for param, paths in texts.items()
            if Trait.WRITES_FILE not in param.traits
            for path in paths
        }
        if ctx.meta.get(_FILE) is not None:
            read[str(ctx.meta[_FILE].path)] = "the configuration file"
        for param, paths in texts.items():
            for path in paths if Trait.WRITES_FILE in param.traits else ():
                same = next((each for each in read if same_file(path, each)), None)
                if same is not None:
                    raise UsageError(
                        f"{_flag(param)} {path}: is an input; give the output another name "
                        f"({read[same]} reads it)"
                    )


def _refuse_repetition(given: Sequence[Any]) -> None:
    """Refuse an option with one value that is given twice: one of them would be lost in silence.

    A switch is not, since a later one may undo what an earlier one says.
    """
    single = [
        each
        for each in given
        if each.param_type_name == "option" and not (each.multiple or each.is_flag or each.count)
    ]
    twice = next((each for each in single if single.count(each) > 1), None)
    if twice is not None:
        raise UsageError(f"{max(twice.opts, key=len)} is given twice; it takes one value")


def _several(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else (value,)


def _flag(param: Any) -> str:
    """What a user calls an option or an argument."""
    return min(param.opts, key=len) if param.opts[0].startswith("-") else str(param.metavar)


def same_file(path: str, other: str) -> bool:
    """Whether two names are one file that exists, through links too; ``-`` only as the other.

    There it is standard input, which a shell may have opened from a file.
    """
    try:
        return path != "-" and os.path.samestat(
            os.stat(path),  # noqa: PTH116 (no folder is entered)
            os.fstat(sys.stdin.fileno()) if other == "-" else os.stat(other),  # noqa: PTH116
        )
    except (OSError, ValueError, AttributeError):  # also: standard input is closed, or in memory
        return False


def configuration_of(context: Any) -> Configuration:
    """What is configured for all commands, in the context of one that reads its arguments.

    Raises
    ------
    UsageError
        The configuration file cannot be used.
    """
    from calibcli.cli.configuration import Configuration, configurable_options

    options = {
        name: configurable_options(command)
        for name, command in context.parent.command.commands.items()
        if isinstance(command, ConfiguredCommand)
    }
    return Configuration(options, context.meta[_FILE], os.environ)


def _negated(flag: str) -> str:
    return f"--{flag[5:]}" if flag.startswith("--no-") else f"--no-{flag[2:]}"


def chosen_file(named: str | None, *, none: bool) -> ConfigFile | None:
    """The configuration file that the command line, the environment or the folder has.

    Raises
    ------
    UsageError
        A file that was named cannot be used, or one is named and none is wanted.
    """
    if none and named is not None:
        raise UsageError("--config and --no-config: leave out one of them")
    variable = os.environ.get(CONFIG_VARIABLE)
    if none or (named is None and variable == ""):
        return None
    if named is not None:
        return named_file(named, "--config")
    return find_file() if variable is None else named_file(variable, CONFIG_VARIABLE)
