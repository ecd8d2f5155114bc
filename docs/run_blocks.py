"""Run the examples of ``README.md`` and of the pages in this folder.

As a script it writes what they print into the pages that it is given, or into all; the tests
compare. What is run, in the order of the page and in one folder that has a copy of ``sample_data``:

- ``console``: each command after ``$ `` (and ``> ``), with what it prints below it;
- ``sh``: the whole block; what it prints does not matter;
- ``python``: the whole block, with the names of the blocks before it. A line that ends in
  ``print(...)  # text`` says what it prints.

``not-run`` after the language leaves a block out, and ``exit-2`` says how it ends if not with 0.
An HTML comment that begins with ``run first`` is Python code that prepares the folder.
"""  # noqa: INP001 (a script)

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
WIDTH = 100
"""Columns of the terminal that the pages show."""

_OURS = ("CALIB_", "CI", "TERM")
"""How variables begin that change what is printed."""

_BLOCK = re.compile(
    r"^```(?P<language>console|sh|python)(?P<words>[^\n]*)\n(?P<code>.*?)^```$"
    r"|^<!-- run first\n(?P<hidden>.*?)^-->$",
    re.MULTILINE | re.DOTALL,
)
_COMMAND = re.compile(r"^\$ (.*\n(?:> .*\n)*)", re.MULTILINE)
_PRINT = re.compile(r"^(?P<code> *print\(.*\))  # .*$", re.MULTILINE)
_MASKS = (
    (re.compile(r"\b\d+\.\d+ s\b"), "… s"),
    (re.compile(r'("(?:seconds|gradient_norm)": )[-+.e\d]+'), r"\1…"),
    (re.compile(r'("(?:numpy|calibcli)": )"[^"]*"'), r'\1"…"'),
    (re.compile(r"\d\.\d{6,}(?:e-?\d+)?"), lambda found: f"{float(found[0]):.5g}"),
    (re.compile(r" +$", re.MULTILINE), ""),
)


class BlockError(Exception):
    """An example that does not do what its page says."""


def comparable(text: str) -> str:
    """A text without what differs between machines: times, versions, the last digits."""
    for pattern, replacement in _MASKS:
        text = pattern.sub(replacement, text)
    return text


def run_page(text: str, folder: Path) -> str:
    """The page with what its examples print, run in a folder that is empty.

    Raises
    ------
    BlockError
        A command ends otherwise than the page says, or Python code raises an exception.
    """
    runner = _Runner(folder)

    def run(match: re.Match[str]) -> str:
        if match["hidden"] is not None:
            runner.python(match["hidden"])
            return match[0]
        words = match["words"].split()
        if "not-run" in words or not runner.able(match["code"]):
            return match[0]
        code = next((int(word[5:]) for word in words if word.startswith("exit-")), 0)
        head = f"```{match['language']}{match['words']}\n"
        if match["language"] == "console":
            return f"{head}{''.join(runner.console(match['code'], code))}```"
        if match["language"] == "sh":
            runner.shell(f"set -eu\n{match['code']}", code)
            return match[0]
        return f"{head}{_with_output(match['code'], runner.python(match['code']))}```"

    return _BLOCK.sub(run, text)


class _Runner:
    """A folder with the sample data, in which ``calib`` can be called."""

    def __init__(self, folder: Path) -> None:
        shutil.copytree(ROOT / "sample_data", folder / "sample_data")
        tool = folder / ".bin" / "calib"
        tool.parent.mkdir()
        # As installed scripts are: processes that it starts import it again.
        guarded = 'from calibcli.cli import main\nif __name__ == "__main__":\n    main()\n'
        tool.write_text(f"#!{sys.executable}\n{guarded}")
        tool.chmod(0o755)
        self._folder = folder
        self._names: dict[str, Any] = {"__name__": "__main__"}
        self._environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(_OURS)},
            "PATH": os.pathsep.join([str(tool.parent), os.environ.get("PATH", os.defpath)]),
            "PYTHONPATH": str(ROOT),
            "PYTHONUTF8": "1",
            "COLUMNS": str(WIDTH),
            "NO_COLOR": "1",
        }

    @staticmethod
    def able(code: str) -> bool:
        """Whether the machine has the one tool that may be missing."""
        return "jq " not in code or shutil.which("jq") is not None

    def shell(self, script: str, code: int) -> str:
        """What a script prints, on stdout and stderr as on a terminal."""
        done = subprocess.run(  # noqa: S603 (our own pages)
            ["bash", "-o", "pipefail", "-c", script],  # noqa: S607 (as in any shell)
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=120,
            check=False,
        )
        output = done.stdout.decode()
        if done.returncode != code:
            raise BlockError(f"exit code {done.returncode}, not {code}:\n{script}\n{output}")
        return output

    def console(self, transcript: str, code: int) -> Iterator[str]:
        """The commands of a transcript, each with what it prints."""
        for command in _COMMAND.findall(transcript):
            output = self.shell(command.replace("\n> ", "\n"), code)
            lines = "".join(f"{line.rstrip()}\n" for line in output.splitlines())
            yield f"$ {command}{lines}"

    def python(self, code: str) -> list[str]:
        """The lines that a program prints."""
        output, before = io.StringIO(), Path.cwd()
        os.chdir(self._folder)
        try:
            with contextlib.redirect_stdout(output):
                exec(compile(code, "<example>", "exec"), self._names)  # noqa: S102 (our own pages)
        except Exception as error:
            raise BlockError(f"{type(error).__name__}: {error}\n{code}") from error
        finally:
            os.chdir(before)
        return output.getvalue().splitlines()


def _with_output(code: str, printed: list[str]) -> str:
    if len(_PRINT.findall(code)) != len(printed):
        raise BlockError(f"{len(printed)} lines are printed:\n{code}\n" + "\n".join(printed))
    lines = iter(printed)
    return _PRINT.sub(lambda found: f"{found['code']}  # {next(lines)}", code)


def sections(path: Path) -> list[str]:
    """The parts of a page that are run in folders of their own.

    Each command's part in the reference; any other page is one story.
    """
    text = path.read_text(encoding="utf-8")
    return re.split(r"^(?=## )", text, flags=re.MULTILINE) if path.name == "cli.md" else [text]


def main(paths: Sequence[Path]) -> None:
    """Write what the examples print into pages where it differs."""
    sys.path.insert(0, str(ROOT))
    for path in paths:
        new = ""
        for part in sections(path):
            with tempfile.TemporaryDirectory() as folder:
                try:
                    ran = run_page(part, Path(folder))
                except BlockError as error:
                    sys.exit(f"{path.name}: {error}")
            new += part if comparable(ran) == comparable(part) else ran
        path.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]] or PAGES)
