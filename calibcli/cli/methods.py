"""``calib methods``, ``calib losses`` and ``calib metrics``: what there is to choose from."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from calibcli.cli.console import tell
from calibcli.cli.shared_options import (
    FormatOption,
    PlainFormat,
    complete_losses,
    complete_methods,
    complete_metrics,
)
from calibcli.registry import BUILT_IN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from rich.console import Console
    from rich.table import Table

    from calibcli.calibrators.base import Family
    from calibcli.registry import Registry
    from calibcli.schema.documents import (
        EntryPart,
        LossesDocument,
        LossPart,
        MethodPart,
        MethodsDocument,
        MetricInfoPart,
        MetricsDocument,
        OptionPart,
    )

_METHODS_HELP = """List the calibrators that can be fitted.

More: calib docs choosing, calib docs methods."""

_METHODS_EXAMPLES = """[b]Examples[/b]

  calib methods

  calib methods svs

  calib methods --classes 1000 --format json
"""

_LOSSES_HELP = """List what a fit can minimise.

More: calib docs losses, calib docs training."""

_LOSSES_EXAMPLES = """[b]Examples[/b]

  calib losses

  calib losses brier

  calib losses --format json
"""

_METRICS_HELP = """List what can be measured.

More: calib docs metrics, calib docs reading-a-report."""

_METRICS_EXAMPLES = """[b]Examples[/b]

  calib metrics

  calib metrics ece

  calib metrics --format json
"""

_NO_FAMILIES: list[MethodPart] = [
    {
        "name": "none",
        "title": "no calibration: the softmax of the logits",
        "preserves": "order",
        "parameters": 0,
        "rows_needed": 0,
        "cost": "nothing",
        "source": "",
        "origin": str(BUILT_IN),
        "options": [],
    },
    {
        "name": "auto",
        "title": "the best of the others by held-out loss, or with --stack a mixture of them",
        "preserves": "nothing",
        "parameters": None,
        "rows_needed": 100,
        "cost": "six fits of each candidate",
        "source": "San Martini and Spezzaferri, 1984 (the choice); Wolpert, Stacked "
        "generalization, 1992",
        "origin": str(BUILT_IN),
        "options": [],
    },
]
"""Methods that are no family of maps."""


def register(app: typer.Typer) -> None:
    """Add ``calib methods``, ``losses`` and ``metrics`` to the program."""
    for name, function, text, examples in (
        ("methods", methods_command, _METHODS_HELP, _METHODS_EXAMPLES),
        ("losses", losses_command, _LOSSES_HELP, _LOSSES_EXAMPLES),
        ("metrics", metrics_command, _METRICS_HELP, _METRICS_EXAMPLES),
    ):
        app.command(name, help=text, epilog=examples)(function)


def _name(complete: Callable[[str], list[str]]) -> Any:
    """The argument that asks for the card of one entry."""
    return typer.Argument(
        metavar="NAME",
        show_default=False,
        help="Show everything about this one.",
        autocompletion=complete,
    )


def methods_command(
    name: Annotated[str | None, _name(complete_methods)] = None,
    classes: Annotated[
        int, typer.Option(min=2, metavar="K", help="Class count that the figures are for.")
    ] = 10,
    format: FormatOption = PlainFormat.TABLE,
) -> None:
    """List the calibrators."""
    from calibcli.calibrators.registry import MAPS

    special = [entry for entry in _NO_FAMILIES if name in (None, entry["name"])]
    chosen = {} if name and special else _chosen(MAPS, name, [e["name"] for e in _NO_FAMILIES])
    entries = [*special, *(_method(each, kind, classes) for each, kind in chosen.items())]
    facts = {
        "preserves": "preserves",
        f"parameters at {classes} classes": "parameters",
        f"rows needed at {classes} classes": "rows_needed",
        "cost": "cost",
        "source": "source",
        "from": "origin",
    }
    document: MethodsDocument = {"schema_version": 1, "classes": classes, "methods": entries}
    group, card = "preserves {preserves}", name is not None
    _show("methods", MAPS, document, entries, facts, format, group=group, card=card)


def _method(name: str, kind: type[Family], classes: int) -> MethodPart:
    """What there is to say about a family of maps at so many classes."""
    from calibcli.calibrators.registry import MAPS

    family = kind()
    possible = 2 if family.binary_only else classes
    return {
        "name": name,
        "title": family.title,
        "preserves": family.preserves,
        "parameters": family.size(possible),
        "rows_needed": family.rows_needed(possible),
        "cost": family.cost,
        "source": family.source,
        "origin": str(MAPS.origin(name)),
        "options": _options(kind),
    }


def _options(kind: type[Any]) -> list[OptionPart]:
    from calibcli.options import options_of

    return [cast("OptionPart", asdict(option)) for option in options_of(kind)]


def losses_command(
    name: Annotated[str | None, _name(complete_losses)] = None,
    format: FormatOption = PlainFormat.TABLE,
) -> None:
    """List the objectives."""
    from calibcli.calibrators.links import link_of
    from calibcli.objectives.registry import OBJECTIVES

    entries: list[LossPart] = [
        {
            "name": each,
            "title": kind.title,
            "proper": kind.proper,
            "link": (link := link_of(kind())) is not None,
            "link_preserves": None if link is None else link.preserves,
            "adaptive": kind().adaptive,
            "convex": kind.convex,
            "source": kind.source,
            "origin": str(OBJECTIVES.origin(each)),
            "options": _options(kind),
        }
        for each, kind in _chosen(OBJECTIVES, name).items()
    ]
    facts = {
        "proper": "proper",
        "link": "link",
        "link preserves": "link_preserves",
        "adaptive": "adaptive",
        "convex in the logits": "convex",
        "source": "source",
        "from": "origin",
    }
    document: LossesDocument = {"schema_version": 1, "losses": entries}
    group, card = "proper: {proper}, adaptive: {adaptive}", name is not None
    _show("losses", OBJECTIVES, document, entries, facts, format, group=group, card=card)


def metrics_command(
    name: Annotated[str | None, _name(complete_metrics)] = None,
    format: FormatOption = PlainFormat.TABLE,
) -> None:
    """List the metrics."""
    from calibcli.metrics.registry import DEFAULT, METRICS, TWO_CLASSES

    entries: list[MetricInfoPart] = [
        {
            "name": each,
            "title": metric.title,
            "group": metric.group,
            "better": metric.better or "neither",
            "default": each in DEFAULT,
            "default_for_two": each in TWO_CLASSES,
            "interval": metric.resampling.description if metric.resampling else "none",
            "convention": metric.convention,
            "origin": str(METRICS.origin(each)),
            "options": [],
        }
        for each, metric in _chosen(METRICS, name).items()
    ]
    facts = {
        "about": "group",
        "better": "better",
        "by default": "default",
        "of two classes": "default_for_two",
        "95 % interval": "interval",
        "convention": "convention",
        "from": "origin",
    }
    document: MetricsDocument = {"schema_version": 1, "metrics": entries}
    show = partial(_show, "metrics", METRICS, document, entries, facts, format)
    show(group="{group}", card=name is not None, text="convention")


def _chosen(registry: Registry[Any], name: str | None, also: Iterable[str] = ()) -> dict[str, Any]:
    """The entry of a name, or all entries; raises UsageError for a name that is not known."""
    return dict(registry) if name is None else {name: registry.find(name, also)}


def _show(
    command: str,
    registry: Registry[Any],
    document: MethodsDocument | LossesDocument | MetricsDocument,
    entries: Sequence[EntryPart],
    facts: dict[str, str],
    format: PlainFormat,
    *,
    group: str,
    card: bool,
    text: str = "title",
) -> None:
    """Print entries as JSON, or a line each, or one with all facts; say which plugins are broken.

    Parameters
    ----------
    command : str
    registry : Registry
        That the entries are of.
    document : MethodsDocument, LossesDocument or MetricsDocument
    entries : sequence of EntryPart
        Those of the document.
    facts : dict of str
        Keys of an entry by what a card calls them.
    format : PlainFormat
    group : str
        Heading of a group of lines, with the keys of an entry in braces.
    card : bool
        Whether the one entry is shown with all facts.
    text : str
        Key of what a line says of its entry.
    """
    if format is PlainFormat.JSON:
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    else:
        from rich.console import Console

        console = Console(highlight=False)
        if card:
            (entry,) = entries
            console.print(f"[bold]{entry['name']}[/bold]  {entry['title']}")
            console.print(_facts(entry, facts))
        else:
            _print_lines(console, entries, group, text)
            console.print(f"Everything about one: calib {command} NAME", soft_wrap=True)
    for line in registry.broken.values():
        tell(f"calib: {line}")


def _print_lines(console: Console, entries: Sequence[EntryPart], group: str, key: str) -> None:
    """A line for each entry, below the headings of their groups in order of appearance."""
    from rich.text import Text

    groups: dict[str, list[EntryPart]] = {}
    for entry in entries:
        shown = {key: _shown(value) for key, value in entry.items()}
        groups.setdefault(group.format(**shown), []).append(entry)
    width = max(len(entry["name"]) for entry in entries) + 2
    for heading, members in groups.items():
        console.print(Text(heading, style="bold"))
        for entry in members:
            origin = entry["origin"]
            plugin = "" if origin == str(BUILT_IN) else f"({origin}) "
            values: Mapping[str, object] = entry
            line = Text(f"  {entry['name']:<{width}}{plugin}{values[key]}")
            # A pipe gets the whole line.
            whole = not console.is_terminal
            console.print(line, overflow="ellipsis", no_wrap=True, soft_wrap=whole)
        console.print()


def _facts(entry: EntryPart, facts: dict[str, str]) -> Table:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim")
    grid.add_column(overflow="fold")
    values: Mapping[str, object] = entry
    for label, key in facts.items():
        value = values[key]
        if key == "parameters" and value is None:
            value = "grow with the rows"
        # Where everything comes from this package, it goes without saying.
        if value not in ("", None) and (key, value) != ("origin", str(BUILT_IN)):
            grid.add_row(f"  {label}", Text(_shown(value)))
    for option in entry["options"]:
        choices = f" ({' | '.join(map(str, option['choices']))})" if option["choices"] else ""
        grid.add_row(
            "  option",
            Text(
                f"{entry['name']}.{option['name']}={option['default']}{choices}: {option['help']}"
            ),
        )
    return grid


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)
