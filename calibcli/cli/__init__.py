"""The command line: one file a command; they parse, call and print."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run ``calib``; every error that a user can mend is one line on stderr."""
    # Blocks go to threads of our own; a second layer of threads under each would only get in the
    # way. The libraries read this when they are loaded.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    from calibcli.cli.app import run

    sys.exit(run(sys.argv[1:]))
