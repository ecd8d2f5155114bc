"""What a configuration file and the environment say about the options of the commands.

From the weakest to the strongest: the default, the file for all commands, the file for one
command, the environment for all commands, the environment for one command, the command line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_type_hints

from calibcli.cli.config_file import OTHER_VARIABLES, PYPROJECT, ConfigFile
from calibcli.cli.option_values import Trait, value_type
from calibcli.errors import UsageError

PREFIX = "CALIB_"
"""How environment variables of options begin."""

NOT_OPTIONS = frozenset({"config", "no-config", "help"})
"""Options that say where to look, and so cannot be set there."""

_SWITCHES = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}

_IN_WORDS = {bool: "true or false", int: "a whole number", float: "a number"}


@dataclass(frozen=True)
class Setting:
    """The value of an option, and where it comes from.

    Attributes
    ----------
    value : bool, str, int, float or list
        As the parser of the command line takes it.
    layer : {"file", "environment"}
    source : str
        The place, for a person: ``"calib.toml: [fit] method"``, ``"CALIB_METHOD"``.
    """

    value: Any
    layer: Literal["file", "environment"]
    source: str


@dataclass(frozen=True)
class ConfigurableOption:
    """An option of a command.

    Attributes
    ----------
    name : str
        The long name without dashes in front: ``"fail-if"``.
    parameter : click.Option
        As the parser knows it.
    kind : type
        Of one value: bool, int, float, str or an enumeration.
    """

    name: str
    parameter: Any
    kind: type

    @property
    def repeated(self) -> bool:
        """Whether it has a list of values."""
        return bool(self.parameter.multiple)

    def from_file(self, value: Any) -> Any:
        """A value of a TOML file, for the parser; raises ValueError if its type is wrong."""
        if not self.repeated:
            return self._typed(value)
        return [self._typed(each) for each in (value if isinstance(value, list) else [value])]

    def _typed(self, value: Any) -> Any:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if self.kind is bool:
            fits = isinstance(value, bool)
        elif self.kind is int:
            fits = number and isinstance(value, int)
        elif self.kind is float:
            fits = number
        else:
            # A label of -100 or a weight of 2 is text to the command line.
            fits = number or isinstance(value, str)
            value = str(value) if number else value
        if fits:
            return value
        word = _IN_WORDS.get(self.kind, "text")
        raise ValueError(f"must be {word}" + (", or a list of that" if self.repeated else ""))

    @property
    def writes_file(self) -> bool:
        """Whether it names a file that the command writes."""
        return Trait.WRITES_FILE in self.parameter.traits

    def check_untrusted(self, value: Any, folder: Path) -> None:
        """Refuse a value that a file which was only found must not set.

        Raises
        ------
        ValueError
            The option needs trust, or names a file outside of the folder of the file.
        """
        if Trait.NEEDS_TRUST in self.parameter.traits and value:
            raise ValueError(
                "is taken from no file that was only found; name the file with --config, or type "
                f"--{self.name}"
            )
        paths = value if self.repeated else [value]
        if self.writes_file and any(each != "-" and not _is_below(folder, each) for each in paths):
            raise ValueError(
                "is outside of the folder of the configuration file, which was only found; name it "
                "with --config"
            )

    def from_environment(self, text: str) -> Any:
        """The text of a variable, for the parser; raises ValueError if it is no switch."""
        if self.repeated:
            values = text.splitlines() if "\n" in text else text.split(";")
            return [each.strip() for each in values if each.strip()]
        if self.kind is not bool:
            return text
        if text.lower() not in _SWITCHES:
            raise ValueError("must be 1 or 0 (or true, false, yes, no, on, off)")
        return _SWITCHES[text.lower()]

    def value_of(self, setting: Setting, context: Any) -> Any:
        """What the command gets of a setting, in plain types.

        Raises
        ------
        UsageError
            The parser refuses the value.
        """
        import typer

        try:
            return plain(self.parameter.process_value(context, setting.value))
        except typer.BadParameter as error:
            reason = " ".join(error.message.split()).rstrip(".")
            raise UsageError(f"{setting.source} = {shown(setting.value)}: {reason}") from None


def _is_below(folder: Path, path: str) -> bool:
    """Whether a file is in a folder or below it, through links."""
    try:
        return Path(path).resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError):
        return False


def plain(value: Any) -> Any:
    """A value as JSON has it."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return value


def shown(value: Any) -> str:
    """A value as TOML has it, near enough for a message."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(shown, value))}]"
    return f'"{value}"' if isinstance(value, str) else str(value)


def configurable_options(command: Any) -> dict[str, ConfigurableOption]:
    """The options of a command that a configuration may set, by their long names."""
    hints = get_type_hints(command.callback)
    options = {}
    for parameter in command.params:
        if parameter.param_type_name != "option":
            continue
        name = max(parameter.opts, key=len).lstrip("-")
        if name not in NOT_OPTIONS:
            options[name] = ConfigurableOption(name, parameter, value_type(hints[parameter.name]))
    return options


class Configuration:
    """Everything that is configured.

    Parameters
    ----------
    options : mapping
        The options of each command, by the command's name and theirs.
    file : ConfigFile or None
    environment : mapping

    Raises
    ------
    UsageError
        The file has a table that is no command, a key that is no option, or a value of a wrong
        type.
    """

    def __init__(
        self,
        options: Mapping[str, Mapping[str, ConfigurableOption]],
        file: ConfigFile | None,
        environment: Mapping[str, str],
    ) -> None:
        self.options, self.file, self._environment = options, file, environment
        self._general: dict[str, Any] = {}
        self._special: dict[str, dict[str, Any]] = {}
        for key, value in file.tables.items() if file else ():
            if isinstance(value, dict):
                command = self._command(key)
                self._special[command] = self._names(command, value)
            else:
                self._general |= self._names(None, {key: value})
        for command, values in self._special.items():
            for name, value in values.items():
                self._setting(options[command][name], value, command)

    def _command(self, key: str) -> str:
        """The command that a table is for."""
        assert self.file is not None
        if key in self.options:
            return key
        if key == "tool" and self.file.path.name != PYPROJECT:
            raise UsageError(
                f"{self.file.shown}: write [fit] here for [tool.calib.fit] of a {PYPROJECT}"
            )
        matches = get_close_matches(key, self.options, 1)
        hint = f"did you mean [{matches[0]}]?" if matches else "see calib --help"
        raise UsageError(f"{self.file.where(key)}: there is no command {key!r}; {hint}")

    def _names(self, command: str | None, table: dict[str, Any]) -> dict[str, Any]:
        """The values of a table by the names of their options."""
        assert self.file is not None
        users: dict[str, list[str]] = {}
        for each, known in self.options.items():
            for name in known:
                users.setdefault(name, []).append(each)
        names: dict[str, Any] = {}
        for key, value in table.items():
            name = key.lstrip("-").replace("_", "-")
            place = self.file.where(command, key)
            if name in names or (command is None and name in self._general):
                raise UsageError(f"{place}: the option is set twice in this table")
            options = users if command is None else self.options[command]
            if name not in options:
                of = "any command" if command is None else f"calib {command}"
                hint = _hint(name, options, users)
                raise UsageError(f"{place}: this is no option of {of}; {hint}")
            names[name] = value
        return names

    def _setting(self, option: ConfigurableOption, value: Any, command: str | None) -> Setting:
        """A value of the file as a setting."""
        assert self.file is not None
        place = self.file.where(command, option.name)
        try:
            typed = option.from_file(value)
            if not self.file.named:
                option.check_untrusted(typed, self.file.path.parent)
            return Setting(typed, "file", place)
        except ValueError as error:
            raise UsageError(f"{place} = {shown(value)}: this {error}") from None

    def settings(self, command: str) -> dict[str, Setting]:
        """What is set of a command, by the names of its options.

        Raises
        ------
        UsageError
            A value of a wrong type.
        """
        settings = {}
        for name, option in self.options[command].items():
            if name in self._general:
                settings[name] = self._setting(option, self._general[name], None)
            if name in self._special.get(command, ()):
                settings[name] = self._setting(option, self._special[command][name], command)
            for variable in variables(command, name):
                text = self._environment.get(variable)
                if text:
                    settings[name] = _from_variable(option, variable, text)
        return settings

    def misspelt(self) -> Iterator[tuple[str, str]]:
        """Variables that nothing reads, each with the one that may have been meant."""
        known = {
            variable
            for command, options in self.options.items()
            for name in options
            for variable in variables(command, name)
        }
        for name in sorted(set(self._environment) - OTHER_VARIABLES):
            if name.startswith(PREFIX) and name not in known:
                for match in get_close_matches(name, known, 1, 0.85):
                    yield name, match


def variables(command: str, name: str) -> tuple[str, str]:
    """The environment variables of an option, the stronger one last."""
    option = name.replace("-", "_").upper()
    return f"{PREFIX}{option}", f"{PREFIX}{command.replace('-', '_').upper()}_{option}"


def _from_variable(option: ConfigurableOption, variable: str, text: str) -> Setting:
    try:
        return Setting(option.from_environment(text), "environment", variable)
    except ValueError as error:
        raise UsageError(f"{variable}={text}: this {error}") from None


def _hint(name: str, options: Mapping[str, Any], users: Mapping[str, list[str]]) -> str:
    """What to write instead of a key that is not known."""
    matches = get_close_matches(name, options, 1)
    # "metric" for "metrics" is a slip, though another command has an option of that name.
    slip = bool(get_close_matches(name, options, 1, 0.9))
    if name in users and not slip:
        return f"it is one of calib {' and '.join(users[name])}"
    return f'did you mean "{matches[0]}"?' if matches else "calib config --all lists them"
