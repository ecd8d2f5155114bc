"""Every format that is text, by the name of ``--format``."""

from __future__ import annotations

from collections.abc import Callable

from calibcli.report.document import Document
from calibcli.report.formats import FORMATS
from calibcli.report.github import to_github
from calibcli.report.junit import to_junit
from calibcli.report.openmetrics import to_openmetrics

RENDERERS: dict[str, Callable[[Document], str]] = {
    **FORMATS,
    "github": to_github,
    "junit": to_junit,
    "openmetrics": to_openmetrics,
}

PAGES = ("markdown", "github")
"""Those in which a character reference stands for a character that a stream does not have."""
