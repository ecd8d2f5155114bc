"""Text from data as people, terminals and logs may see it."""

from __future__ import annotations

import re

_CONTROL = re.compile(
    "[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]"
)
"""Characters that move the cursor of a terminal, end a line or turn its direction, or stand for
bytes of a file's name that are no text."""
_WORKFLOW_COMMAND = re.compile(r":(?=:[A-Za-z-]+( [^:]*)?::)|#(?=#\[)")
"""The beginning of what GitHub's runner takes for a command where a line begins with it."""


def visible(text: str) -> str:
    r"""Text in one line that commands nobody.

    Control characters are shown as Python writes them: ``\x1b``, ``\n``. A command to GitHub's
    runner becomes ``\x3a:error::``, for a table may begin a line with it, or break it anywhere.
    """
    text = _CONTROL.sub(lambda match: repr(match[0])[1:-1], text)
    return _WORKFLOW_COMMAND.sub(lambda match: f"\\x{ord(match[0]):02x}", text)
