"""The version of the package, for the build, the command line and the parameter files."""

from __future__ import annotations

__version__ = "0.1.0"
