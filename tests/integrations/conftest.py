"""What other libraries write and read; `make test-integrations` has an environment of these."""

from __future__ import annotations

from importlib.util import find_spec

NEEDED = ("datasets", "duckdb", "ml_dtypes", "pandas", "polars")

# The other tests do without them.
collect_ignore_glob = [] if all(map(find_spec, NEEDED)) else ["test_*.py"]
