"""The standings of the arena as text and as a picture."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from arena_contenders import BASE
from arena_results import CAPPED, DONE, FAILED, Record
from arena_standings import (
    BY_CLASSES,
    MEASURES,
    WORSE,
    Losses,
    Standing,
    by_set,
    kinds_of_sets,
    rates_by_kind,
    standings,
)

SECTION = "## The arena"
"""Heading of the last section of RESULTS.md, which the other benchmarks keep."""

_NAMES = ("NLL", "Brier", "ECE15", "accuracy")
_HEADINGS = (
    "method",
    "sets",
    "win rate by NLL",
    "± sets",
    "± splits",
    "by Brier",
    "by NLL against peers",
    *_NAMES,
    "median fit s",
    "sets made worse",
)
_COLOURS = {"calib": "#2066a8", "probmetrics": "#c8cdd3", "": "#444444"}


def report(records: Sequence[Record], splits: Mapping[str, int], rival: str) -> str:
    """Each set, then what was capped or failed, then all sets together."""
    tables = {measure: by_set(records, splits, measure) for measure in MEASURES}
    names = sorted({name for found in tables["nll"].values() for name in found})
    parts = [_set_table(tables, name) for name in names]
    parts += [troubles(records), overall(standings(records, splits, rival), rival)]
    return "\n\n".join(filter(None, parts))


def overall(table: Sequence[Standing], rival: str) -> str:
    """All methods over all sets, and what the figures are."""
    lines = _head(*_HEADINGS, f"beats {rival}")
    for one in table:
        rates = (f"{rate:.3f}" for rate in _rates(one))
        *losses, seconds = (one.means[measure] for measure in MEASURES)
        means = (*(f"{loss:.4f}" for loss in losses), f"{seconds:.3f}")
        shares = (f"{one.worse:.0%}", f"{one.beats:.0%}")
        lines.append(_row(one.method, str(one.sets), *rates, *means, *shares))
    most = max((one.sets for one in table), default=0)
    note = (
        f"Win rates and means are over the sets that a method did all splits of, of {most}, a "
        "set's figures being the means of its splits; a win is a smaller loss than that of another "
        "method that did the set, a tie is half of one. ± sets is the standard error of a win rate "
        "as of other sets, ± splits that as of other splits of the sets that have several. A set "
        f"is made worse where the NLL is more than {WORSE - 1:.1%} above that of {BASE!r}."
    )
    return "\n".join([*lines, "", note])


def _rates(one: Standing) -> tuple[float, ...]:
    errors = one.error_of_sets, one.error_of_splits
    return one.by_nll, *errors, one.by_brier, one.by_nll_of_peers


def by_kind(records: Sequence[Record], splits: Mapping[str, int], methods: Sequence[str]) -> str:
    """Win rates by NLL of some methods, by number of classes and of rows to fit on."""
    rates, sets = rates_by_kind(records, splits), kinds_of_sets(records, splits)
    lines = _head("method", *(f"{kind} ({len(sets[kind])} sets)" for kind in rates))
    for method in methods:
        cells = (rates[kind].get(method, {}).get("rate") for kind in rates)
        lines.append(
            _row(f"`{method}`", *("" if rate is None else f"{rate:.2f}" for rate in cells))
        )
    return "\n".join(lines)


def unfinished(records: Sequence[Record], expected: Mapping[str, int]) -> str:
    """The methods that did not do all their jobs, with what became of these.

    Parameters
    ----------
    records : sequence of Record
    expected : mapping of str to int
        Jobs of each method.
    """
    counts = Counter((one.method, one.status) for one in records)
    lines = _head("did not end", "jobs", "done", "stopped", "failed", "not run")
    for method, jobs in expected.items():
        done, capped, failed = (counts[method, each] for each in (DONE, CAPPED, FAILED))
        if done < jobs:
            missing = jobs - done - capped - failed
            lines.append(_row(f"`{method}`", *map(str, (jobs, done, capped, failed, missing))))
    return "\n".join(lines) if len(lines) > 2 else ""


def record(page: Path, text: str, picture: str) -> None:
    """Write a page's section about the arena anew; it is the last one."""
    before = page.read_text(encoding="utf-8").partition(SECTION)[0].rstrip()
    intro = "Every method of `calib` against every calibrator of probmetrics on stored scores"
    page.write_text(
        f"{before}\n\n{SECTION}\n\n{intro}: see [arena.py](arena.py), which writes this section "
        f"with `--record`.\n\n![Win rates]({picture})\n\n{text}\n",
        encoding="utf-8",
    )


def troubles(records: Sequence[Record]) -> str:
    """Where methods were stopped or failed."""
    found: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for one in records:
        if one.status in {CAPPED, FAILED}:
            found[one.method, one.status, one.note].add(one.set)
    return "\n".join(
        f"- {status}: {method} on {', '.join(sorted(sets))}: {note}"
        for (method, status, note), sets in sorted(found.items())
    )


def draw(records: Sequence[Record], splits: Mapping[str, int], rival: str, path: Path) -> None:
    """Bars of the win rates by NLL, and dots for those by the Brier score.

    Where matplotlib is missing there is no picture.
    """
    try:
        import matplotlib as mpl
    except ImportError:
        return
    mpl.use("agg")
    from matplotlib import pyplot as plt

    table = standings(records, splits, rival)[::-1]
    library = {one.method: one.library for one in records}
    figure, axes = plt.subplots(figsize=(8, 1 + 0.19 * len(table)), layout="constrained")
    names = [f"{one.method} ({one.sets})" for one in table]
    by_brier = [one.by_brier for one in table]
    colours = [_COLOURS.get(library[one.method], "#c8cdd3") for one in table]
    axes.barh(names, [one.by_nll for one in table], color=colours, label="by NLL")
    axes.plot(by_brier, names, "o", color="#cc5a14", markersize=3, label="by Brier")
    axes.set(xlim=(0, 1), xlabel="win rate against all other methods (sets in brackets)")
    axes.tick_params(axis="y", labelsize=7)
    axes.margins(y=0.005)
    axes.legend(loc="lower right", frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def draw_kinds(
    records: Sequence[Record], splits: Mapping[str, int], methods: Sequence[str], path: Path
) -> None:
    """Win rates by NLL as a field of colours, by number of classes and of rows to fit on.

    Where matplotlib is missing there is no picture.
    """
    try:
        import matplotlib as mpl
    except ImportError:
        return
    mpl.use("agg")
    from matplotlib import pyplot as plt

    rates, sets = rates_by_kind(records, splits), kinds_of_sets(records, splits)
    values = [
        [rates[kind].get(method, {}).get("rate", math.nan) for kind in rates] for method in methods
    ]
    size = (2.5 + 1.1 * len(rates), 1.2 + 0.26 * len(methods))
    figure, axes = plt.subplots(figsize=size, layout="constrained")
    image = axes.imshow(values, cmap="RdYlBu", vmin=0, vmax=1, aspect="auto")
    for row, of_method in enumerate(values):
        for column, rate in enumerate(of_method):
            if not math.isnan(rate):
                # Dark cells are at both ends of the colours.
                colour = "white" if abs(rate - 0.5) > _DARK else "black"
                axes.text(column, row, f"{rate:.2f}", ha="center", va="center", color=colour)
    titles = [f"{kind}\n{len(sets[kind])} sets" for kind in rates]
    axes.set_xticks(range(len(titles)), titles, fontsize=8)
    axes.set_yticks(range(len(methods)), methods, fontsize=8)
    axes.xaxis.tick_top()
    axes.axvline(sum(kind in BY_CLASSES for kind in rates) - 0.5, color="white", linewidth=6)
    figure.colorbar(image, ax=axes, label="win rate by NLL", shrink=0.6)
    figure.savefig(path, dpi=150)
    plt.close(figure)


_DARK = 0.38
"""Win rates so far from a half have a dark colour."""


def _set_table(tables: Mapping[str, Losses], name: str) -> str:
    nll = {method: found[name] for method, found in tables["nll"].items() if name in found}
    lines = _head(name, *_NAMES, "fit s")
    for method in sorted(nll, key=nll.__getitem__):
        *losses, seconds = (tables[measure][method][name] for measure in MEASURES)
        lines.append(_row(method, *(f"{loss:.4f}" for loss in losses), f"{seconds:.2f}"))
    return "\n".join(lines)


def _head(*cells: str) -> list[str]:
    return [_row(*cells), "|---|" + "---:|" * (len(cells) - 1)]


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
