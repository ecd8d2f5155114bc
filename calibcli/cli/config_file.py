"""The file that options may be set in: where it is, and what is in it."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from calibcli.errors import UsageError
from calibcli.small_files import read_small

CALIB_TOML, PYPROJECT = "calib.toml", "pyproject.toml"

CONFIG_VARIABLE = "CALIB_CONFIG"
"""Names the file; empty: there is none."""

OTHER_VARIABLES = frozenset({CONFIG_VARIABLE, "CALIB_ASCII", "CALIB_DEBUG"})
"""Variables that are no options, though they are called like such."""


@dataclass(frozen=True)
class ConfigFile:
    """A configuration file.

    Attributes
    ----------
    path : Path
    shown : str
        Its name from the working directory.
    tables : dict
        What it says, below ``[tool.calib]`` in a ``pyproject.toml``.
    named : bool
        Whether the user named it. One that was only found may be somebody else's.
    """

    path: Path
    shown: str
    tables: dict[str, Any]
    named: bool = True

    def where(self, command: str | None, key: str = "") -> str:
        """The place of a key, for a person."""
        prefix = "tool.calib" if self.path.name == PYPROJECT else ""
        table = ".".join(filter(None, (prefix, command)))
        return f"{self.shown}: " + " ".join(filter(None, (table and f"[{table}]", key)))


def find_file() -> ConfigFile | None:
    """The nearest file from the working directory upwards, within the project that it is in.

    A project is the folder with ``.git``; without one only the working directory is looked at. In
    one folder, ``calib.toml`` comes before ``pyproject.toml``, which counts only if it has a table
    ``[tool.calib]``.
    """
    try:
        here = Path.cwd()
    except OSError:  # the folder is gone
        return None
    for folder in _project(here):
        for name in (CALIB_TOML, PYPROJECT):
            path = str(folder / name)
            # Unlike that of `Path`, this one has no folder that it must not look into.
            if os.path.isfile(path):  # noqa: PTH113
                file = _read(Path(path), os.path.relpath(path))
                if file is not None:
                    return replace(file, named=False)
    return None


def _project(here: Path) -> tuple[Path, ...]:
    """The folders from one up to the first with ``.git``; the one alone if there is none."""
    folders = (here, *here.parents)
    for count, folder in enumerate(folders, 1):
        if os.path.lexists(folder / ".git"):
            return folders[:count]
    return (here,)


def named_file(name: str, given_by: str) -> ConfigFile:
    """The file that somebody named.

    Raises
    ------
    UsageError
        The name is empty, there is no such file, or nothing for `calib` in it.
    """
    if not name:
        raise UsageError(f"{given_by} is empty; a variable that is not set?")
    path = Path(name)
    if not path.exists():
        raise UsageError(f"{name}: there is no such configuration file ({given_by})")
    file = _read(path, name)
    if file is None:
        raise UsageError(f"{name}: there is no table [tool.calib] in it ({given_by})")
    return file


def _read(path: Path, name: str) -> ConfigFile | None:
    """A file; None of a ``pyproject.toml`` that says nothing about `calib`."""
    import tomllib

    try:
        content = read_small(path)
        if path.name == PYPROJECT and b"calib" not in content:
            return None  # whatever else is in it, or wrong with it
        tables = tomllib.loads(content.decode("utf-8-sig"))
    except OSError as error:
        raise UsageError(f"{name}: {error.strerror} (--no-config goes without)") from None
    except UnicodeDecodeError:
        raise UsageError(f"{name}: this is not UTF-8, which TOML has to be") from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{name}: this is not TOML: {error}") from None
    if path.name == PYPROJECT:
        tool = tables.get("tool")
        table = tool.get("calib") if isinstance(tool, dict) else None
        if table is not None and not isinstance(table, dict):
            raise UsageError(f"{name}: tool.calib must be a table")
        return None if table is None else ConfigFile(path, name, table)
    return ConfigFile(path, name, tables)
