"""Properties that are computed once, by any number of threads at a time."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING or sys.version_info >= (3, 12):
    from functools import cached_property
else:
    import functools
    from typing import Any

    class cached_property(functools.cached_property):  # noqa: N801 (the name it has elsewhere)
        """The property of Python 3.12 and later, for 3.11.

        The one of 3.11 has a lock for all instances of a class, so that tiles, models and folds on
        several threads would wait for each other. Two threads may compute one value twice instead.
        """

        def __get__(self, instance: Any, owner: Any = None) -> Any:
            if instance is None:
                return self
            values = instance.__dict__
            if self.attrname not in values:
                values[self.attrname] = self.func(instance)
            return values[self.attrname]


__all__ = ["cached_property"]
