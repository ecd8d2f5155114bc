"""What GitHub Actions shows: a page in the step summary, and annotations.

A runner takes lines that begin with ``::`` for workflow commands, on stdout as on stderr.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from calibcli.report.document import did_not_converge, gates_of
from calibcli.report.gate_results import failed_gates, sentence, verdict_on_gates
from calibcli.report.render_markdown import to_markdown
from calibcli.workflow.texts import plural

if TYPE_CHECKING:
    from calibcli.schema.documents import Document

MOST_ANNOTATIONS = 10
"""So many of a kind does GitHub show of a step."""

SUMMARY_BYTES = 1024 * 1024
"""GitHub drops the summary of a step that is larger."""

_COMMAND = re.compile(r"^(\s*)([:#])(?=:|#\[)", re.MULTILINE)
"""Where a runner would take a line of the page for a workflow command."""

_CUT = "\n*Not all of it has room here; `--format json` has.*\n"
_DETAILS, _END_DETAILS = "<details>", "</details>"


def workflow_commands(document: Document) -> list[str]:
    """Workflow commands, at most ten: an error for each gate that failed, or that all passed."""
    failed = failed_gates(document)
    commands = [_command("error", "calib: gate failed", sentence(entry)) for entry in failed]
    if did_not_converge(document):
        commands.insert(0, _command("warning", "calib", "the fit did not converge"))
    if len(commands) > MOST_ANNOTATIONS:
        left = len(commands) - MOST_ANNOTATIONS + 1
        more = f"{plural(left, 'more gate')} failed; the step summary has all of them"
        failure = _command("error", "calib: gate failed", more)
        commands = [*commands[: MOST_ANNOTATIONS - 1], failure]
    if gates_of(document) and not failed:
        commands.append(_command("notice", "calib", verdict_on_gates(document)))
    return commands


def to_github(document: Document) -> str:
    """A page of Markdown, with the annotations in a comment that only the runner reads."""
    commands = workflow_commands(document)
    page = _COMMAND.sub(lambda match: f"{match[1]}&#{ord(match[2])};", to_markdown(document))
    if not commands:
        return page
    # What ends a comment would show the rest of it on the page.
    hidden = (command.replace("-->", "->") for command in commands)
    return "\n".join([page, "<!--", *hidden, "-->"]) + "\n"


def fit_summary(page: str, room: int) -> str:
    """The first lines of a page, cut to so many bytes, with a word on what is left out."""
    if len(page.encode()) <= room:
        return page
    kept: list[str] = []
    left = room - len(f"{_END_DETAILS}\n{_CUT}".encode())
    for line in page.splitlines(keepends=True):
        left -= len(line.encode())
        if left < 0:
            break
        kept.append(line)
    if not kept:
        return ""
    lines = [line.strip() for line in kept]
    is_open = lines.count(_DETAILS) > lines.count(_END_DETAILS)
    return "".join(kept) + f"{_END_DETAILS}\n" * is_open + _CUT


def _command(kind: str, title: str, message: str) -> str:
    escaped = _data(title).replace(":", "%3A").replace(",", "%2C")
    return f"::{kind} title={escaped}::{_data(message)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
