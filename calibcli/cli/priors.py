"""The class shares of ``--target-prior``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from calibcli.errors import UsageError

if TYPE_CHECKING:
    from calibcli.workflow.priors import TargetPrior


def parse_prior(text: str) -> TargetPrior:
    """``balanced``, shares with commas between them, or a file with a share a line.

    Raises
    ------
    UsageError
        Something else.
    """
    if text == "balanced":
        return "balanced"
    parts = text.split(",")
    if len(parts) == 1:
        try:
            parts = Path(text).read_text(encoding="utf-8").split()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(
                f"--target-prior {text}: give balanced, shares with commas between them, or a text "
                f"file with a share a line ({getattr(error, 'strerror', None) or 'not text'})"
            ) from None
    try:
        return tuple(float(part) for part in parts)
    except ValueError:
        raise UsageError(f"--target-prior {text}: a share is not a number") from None
