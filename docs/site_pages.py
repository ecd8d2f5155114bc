"""Hooks of MkDocs: the pages of the site that lie outside of ``docs/``, and their links."""  # noqa: INP001 (no package)

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]

# A file of the repository, and its place on the site. No page of docs/ links to one of them.
PLACES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "SECURITY.md": "reporting.md",
    "sample_data/README.md": "sample_data.md",
    "benchmarks/RESULTS.md": "benchmarks.md",
    "LICENSE": "LICENSE.txt",
}

_LINK = re.compile(r"(?<=\]\()([^):#]+)")
_FENCE = re.compile(r"^```(\w+) .*$", re.MULTILINE)


def _on_the_site(match: re.Match[str]) -> str:
    target = match[1]
    return PLACES.get(target, target.removeprefix("docs/"))


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that lie elsewhere in the repository, with links as they are on the site."""
    for source, place in PLACES.items():
        text = _LINK.sub(_on_the_site, (ROOT / source).read_text(encoding="utf-8"))
        files.append(File.generated(config, place, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Take away the words after a language, which say how the tests run a block."""
    return _FENCE.sub(r"```\1", markdown)
