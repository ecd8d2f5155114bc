"""Write the manual pages of ``man/``: from the commands themselves, as their help is."""  # noqa: INP001 (a script)

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from make_reference import Command, Parameter, commands

from calibcli.version import __version__

FOLDER = Path(__file__).resolve().parents[1] / "man"

_EXIT_CODES = {
    "0": "done",
    "1": "a gate failed (--fail-if)",
    "2": "something in the command or the data must be mended; one line says what",
    "3": "a fit did not converge under --strict",
    "130": "interrupted",
}


def pages() -> dict[str, str]:
    """Every page by the name of its file."""
    known = commands()
    every = {f"calib-{command.name}.1": "\n".join(_page(command)) + "\n" for command in known}
    return {"calib.1": "\n".join(_overview(known)) + "\n", **every}


def _overview(known: list[Command]) -> Iterator[str]:
    from typer.main import get_command

    from calibcli.cli.app import app

    program = get_command(app)
    yield from _head("calib", _first_sentence(program.help or ""))
    yield from (".B calib", _plain(r"[OPTIONS] COMMAND [ARGS]..."))
    yield from (".SH DESCRIPTION", *_paragraphs(program.help or ""))
    yield ".SH COMMANDS"
    for command in known:
        yield from (".TP", rf".BR calib\-{command.name} (1)", _plain(_first_sentence(command.help)))
    yield from _examples(re.findall(r"^ *(calib .*)$", program.epilog or "", re.MULTILINE))
    yield from _end([f"calib-{command.name}" for command in known])


def _page(command: Command) -> Iterator[str]:
    yield from _head(f"calib-{command.name}", _first_sentence(command.help))
    program, name, *rest = command.usage.split()
    yield from (f".B {program} {name}", _plain(" ".join(rest)))
    yield from (".SH DESCRIPTION", *_paragraphs(command.help))
    for heading, is_option in (("ARGUMENTS", False), ("OPTIONS", True)):
        group = [each for each in command.parameters if each.is_option == is_option]
        if group:
            yield f".SH {heading}"
        panel = None
        for each in sorted(group, key=lambda each: _order(each, group)):
            if each.panel != panel:
                panel = each.panel
                yield f".SS {_plain(panel or 'Others')}"
            yield from _parameter(each)
    yield from _examples(list(command.examples))
    yield from _end(["calib"])


def _order(parameter: Parameter, group: list[Parameter]) -> int:
    """Options of a panel stand together, in the order of the first of each."""
    return next(i for i, each in enumerate(group) if each.panel == parameter.panel)


def _parameter(each: Parameter) -> Iterator[str]:
    yield from (".TP", f'.B "{_plain(each.title)}"')
    given = each.default.strip("`")
    yield _plain(f"{each.help} [default: {given}]" if given and given != "required" else each.help)


def _head(name: str, summary: str) -> Iterator[str]:
    yield f'.TH "{_plain(name.upper())}" 1 "" "calib {__version__}" "calib"'
    yield from (".SH NAME", rf"{_plain(name)} \- {_plain(summary.rstrip('.'))}", ".SH SYNOPSIS")


def _examples(examples: list[str]) -> Iterator[str]:
    yield ".SH EXAMPLES"
    for example in examples:
        yield from (".PP", ".nf", _plain(example), ".fi")


def _end(others: list[str]) -> Iterator[str]:
    yield ".SH EXIT STATUS"
    for code, meaning in _EXIT_CODES.items():
        yield from (".TP", f".B {code}", _plain(meaning))
    names = [rf".BR {_plain(other)} (1){',' * (other != others[-1])}" for other in others]
    yield from (".SH SEE ALSO", *names, ".PP", "The documentation: calib docs.")


def _first_sentence(text: str) -> str:
    return _unmarked(text).split("\n\n")[0].partition(". ")[0]


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in _unmarked(text).split("\n\n"):
        yield from (".PP", _plain(paragraph))


def _unmarked(text: str) -> str:
    return re.sub(r"\[/?b\]", "", text)


def _plain(text: str) -> str:
    """A text in which nothing is a command of the formatter."""
    line = " ".join(text.split()).replace("\\", r"\e").replace("-", r"\-").replace('"', r"\(dq")
    line = "".join(c if c.isascii() else rf"\[u{ord(c):04X}]" for c in line)
    return rf"\&{line}" if line[:1] in (".", "'") else line


def main() -> None:
    """Write the pages that differ, and remove those of commands that are gone."""
    FOLDER.mkdir(exist_ok=True)
    every = pages()
    for path in FOLDER.glob("*.1"):
        if path.name not in every:
            path.unlink()
    for name, text in every.items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
