"""Print the lower bounds of ``pyproject.toml`` as pins: what the package needs, and its plots.

    python .ci/lowest.py > constraints-lowest.txt

torch is left out: it is large, and the tests without it are those of most installations.
"""  # noqa: INP001 (a script)

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"


def lowest() -> list[str]:
    """The requirements with ``==`` in place of ``>=``."""
    project = tomllib.loads(PYPROJECT.read_text("utf-8"))["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"]["plot"]]
    if unbounded := [each for each in needed if ">=" not in each]:
        raise SystemExit(f"no lower bound: {', '.join(unbounded)}")
    return [each.replace(">=", "==") for each in needed]


if __name__ == "__main__":
    sys.stdout.write("".join(f"{each}\n" for each in lowest()))
