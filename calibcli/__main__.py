"""``python -m calibcli`` is ``calib``."""

from __future__ import annotations

from calibcli.cli import main

main()
