"""The version of the package, for the build, the command line and files, and that of documents."""

from __future__ import annotations

from typing import Final

__version__ = "0.1.0"

SCHEMA_VERSION: Final = 2
"""The version of the documents of ``calib evaluate``, ``fit`` and ``compare``."""
