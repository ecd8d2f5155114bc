"""Methods, losses and metrics by name: those of this package and those that others install.

Another package offers one by an entry point, whose name is the name of what it leads to::

    [project.entry-points."calibcli.losses"]
    hinge = "calib_hinge:Hinge"

Entry points are looked for where a name is not built in, or where all names are wanted; a module
is imported where its own name is asked for. Nothing that is not installed is ever imported.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from inspect import get_annotations
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from calibcli.cached import cached_property
from calibcli.errors import UsageError
from calibcli.version import __version__

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

Entry = TypeVar("Entry")

_NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")


@dataclass(frozen=True)
class Origin:
    """The installed distribution that an entry comes from."""

    distribution: str
    version: str

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}"


BUILT_IN = Origin("calibcli", __version__)
"""Where the entries come from that need no plugin."""


@dataclass(frozen=True)
class Pattern(Generic[Entry]):
    """Names that differ by a number: ``top3_accuracy`` for any number.

    Attributes
    ----------
    text : str
        As people read it, for example ``"topK_accuracy"``.
    expression : re.Pattern
        What the whole of a name must match; its one group goes to `make`.
    make : callable
        The group's text -> the entry of that name.
    """

    text: str
    expression: re.Pattern[str]
    make: Callable[[str], Entry]


class Registry(Mapping[str, Entry]):
    """Entries by name: the built-in ones in their order, then those of plugins.

    As a mapping it has every entry that can be used; a plugin that cannot is left out and says why
    in `broken`. Entries that are `unlisted`, and those that a `Pattern` makes, are found by name.

    Parameters
    ----------
    noun : str
        What messages call an entry: ``"method"``.
    contract : type
        The class that entries are subclasses of.
    places : mapping of str to str
        Where each built-in one is, as ``"package.module:Name"``; it is imported at its first use.
    group : str
        The group of entry points by which plugins add to them.
    instances : bool
        Whether entries are instances of the contract, rather than subclasses of it.
    sets : mapping of str to sequence of str or None, optional
        Names that stand for several; None for all.
    unlisted : mapping of str to str, optional
        Where built-in ones are that are found by name only.
    patterns : sequence of Pattern, optional
    reserved : iterable of str, optional
        Names that mean something else, which no plugin may have.
    check : callable, optional
        Raises `UsageError` for an entry of a plugin that breaks a rule of its own kind.
    """

    def __init__(
        self,
        noun: str,
        contract: type[Any],
        places: Mapping[str, str],
        *,
        group: str,
        instances: bool = False,
        sets: Mapping[str, Sequence[str] | None] | None = None,
        unlisted: Mapping[str, str] | None = None,
        patterns: Sequence[Pattern[Entry]] = (),
        reserved: Iterable[str] = (),
        check: Callable[[Any], None] | None = None,
    ) -> None:
        self.noun, self.group = noun, group
        self._built_in: dict[str, Entry | str] = {**places}
        self._unlisted: dict[str, Entry | str] = {**(unlisted or {})}
        self.sets = dict(sets or {})
        self.patterns = tuple(patterns)
        self.broken: dict[str, str] = {}
        self._contract, self._instances, self._check = contract, instances, check
        self._reserved = {*self.sets, *reserved}
        self._loaded: dict[str, Entry] = {}

    def __getitem__(self, name: str) -> Entry:
        """The entry of a name.

        Raises
        ------
        KeyError
            There is none.
        UsageError
            There is a plugin for it, which cannot be used.
        """
        built_in = self._find_built_in(name)
        return self._plugin(name) if built_in is None else built_in

    def __iter__(self) -> Iterator[str]:
        yield from self._built_in
        yield from (name for name in self._offers if name in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.get(name) is not None

    def get(self, name: str, default: Any = None) -> Any:
        """The entry of a name, or a default where there is none that can be used."""
        try:
            return self[name]
        except (KeyError, UsageError):
            return default

    def find(self, name: str, also: Iterable[str] = ()) -> Entry:
        """The entry of a name; a mistake is answered with what there is.

        Parameters
        ----------
        name : str
        also : iterable of str
            Other names that could have been given.

        Raises
        ------
        UsageError
            There is none, or a plugin for it that cannot be used.
        """
        try:
            return self[name]
        except KeyError:
            known = [*also, *self.sets, *self.names]
            others = [*self._unlisted, *(pattern.text for pattern in self.patterns)]
            hint = _hint(name, [*known, *others])
            raise UsageError(
                f"there is no {self.noun} {name!r}{hint} (there are: {', '.join(known)})"
            ) from None

    def expand(self, names: Iterable[str]) -> tuple[str, ...]:
        """Names without repetition, those of `sets` replaced by what they stand for.

        Raises
        ------
        UsageError
            As `find`.
        """
        chosen: dict[str, None] = {}
        for name in names:
            members = self.sets.get(name, (name,))
            chosen.update(dict.fromkeys(self if members is None else members))
        for name in chosen:
            self.find(name)
        return tuple(chosen)

    def _find_built_in(self, name: str) -> Entry | None:
        for pattern in self.patterns:
            match = pattern.expression.fullmatch(name)
            if match and name not in self._built_in:
                return pattern.make(match[1])
        for entries in (self._built_in, self._unlisted):
            entry = entries.get(name)
            if isinstance(entry, str):
                entry = entries[name] = cast("Entry", resolve_name(entry))
            if entry is not None:
                return entry
        return None

    @property
    def built_in(self) -> tuple[str, ...]:
        """The names of this package."""
        return tuple(self._built_in)

    @property
    def names(self) -> tuple[str, ...]:
        """All names, those of plugins too, none of which is imported for it."""
        return (*self._built_in, *self._offers)

    def origin(self, name: str) -> Origin:
        """The distribution that the entry of a name comes from; this package if there is none."""
        if name in self._reserved or name in self._built_in or name not in self._offers:
            return BUILT_IN
        return _origin(self._offers[name])

    @cached_property
    def _offers(self) -> dict[str, EntryPoint]:
        """The entry points by name, without those whose names alone forbid their use."""
        # Reading what is installed takes longer than `calib --help`.
        from importlib.metadata import entry_points

        offers: dict[str, EntryPoint] = {}
        for offer in sorted(entry_points(group=self.group), key=lambda each: each.name):
            if self._find_built_in(offer.name) is not None or offer.name in self._reserved:
                self._refuse(offer, "calib itself has that name")
            elif not _NAME.fullmatch(offer.name):
                self._refuse(offer, "a name is small letters and digits, with - or _ between them")
            elif offer.name in offers:
                twice = (
                    f"{_origin(offers[offer.name])} has one of the same name; remove one of them"
                )
                self._refuse(offer, twice)
            else:
                offers[offer.name] = offer
        return offers

    def _plugin(self, name: str) -> Entry:
        """The entry of a plugin, imported at its first use."""
        if name not in self._loaded:
            offer = self._offers[name]
            if name in self.broken:
                raise UsageError(self.broken[name])
            try:
                self._loaded[name] = self._checked(offer.load(), name)
            except Exception as error:  # noqa: BLE001 (whatever goes wrong in somebody's module)
                known = isinstance(error, UsageError)
                trouble = str(error) if known else f"{type(error).__name__}: {error}"
                raise UsageError(self._refuse(offer, trouble)) from None
        return self._loaded[name]

    def _checked(self, target: Any, name: str) -> Entry:
        """The entry that an entry point's target is or has; a `UsageError` where it is none."""
        is_class = isinstance(target, type)
        kind = target if is_class else type(target)
        if is_class == self._instances or not issubclass(kind, self._contract):
            form = "an instance" if self._instances else "a subclass"
            contract = f"{self._contract.__module__}.{self._contract.__name__}"
            raise UsageError(f"{target!r} is not {form} of {contract}")
        if kind.__dict__.get("__abstractmethods__"):
            raise UsageError(f"it lacks {', '.join(sorted(kind.__abstractmethods__))}")
        bare = [each for each in get_annotations(self._contract) if not hasattr(target, each)]
        if bare:
            raise UsageError(f"it lacks {', '.join(bare)}")
        if not is_dataclass(target):
            raise UsageError("it is not a dataclass")
        if _name(target) != name:
            raise UsageError(f"its name is {_name(target)!r}")
        if self._check is not None:
            self._check(target)
        return cast("Entry", target)

    def _refuse(self, offer: EntryPoint, trouble: str) -> str:
        """Note in one line why a plugin is left out."""
        line = f"the {self.noun} {offer.name!r} of {_origin(offer)} cannot be used: {trouble}"
        self.broken[offer.name] = " ".join(line.split())
        return self.broken[offer.name]


def _name(entry: Any) -> str:
    name: str = entry.name
    return name


def _origin(offer: EntryPoint) -> Origin:
    # An entry point that is read from an environment always knows its distribution.
    assert offer.dist is not None
    return Origin(offer.dist.name, offer.dist.version)


def _hint(name: str, known: Iterable[str]) -> str:
    """``"; did you mean ece?"``, where something like the name is known."""
    from difflib import get_close_matches

    plain = {_plain(each): each for each in known}
    close = get_close_matches(_plain(name), plain, n=1)
    return f"; did you mean {plain[close[0]]}?" if close else ""


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")
