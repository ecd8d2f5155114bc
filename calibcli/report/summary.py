"""What was read, fitted and written, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from calibcli.metrics.resampling import FEW_CLUSTERS
from calibcli.report.document import is_fit, measured_part
from calibcli.workflow.texts import duration, plural, significant

if TYPE_CHECKING:
    from calibcli.schema.documents import FitDocument, Result
    from calibcli.schema.parts import InputPart

FEW = 3
"""So many numbers are listed; of more, how many there are and from where to where."""

MANY = 8
"""So many names are listed; of more, the first of them and how many there are."""

Lines = list[tuple[str, str]]
"""A label and what there is to say under it."""


def summary(document: Result, *, timed: bool = True) -> Lines:
    """Labelled lines about one input; no metrics, and if not ``timed`` no times."""
    source = document["input"]
    lines = [("read", _size(document, source)), *_view(document)]
    lines += [*_dropped(source), *_clusters(source), *_absent(source)]
    if is_fit(document):
        if document["test"] is not None:
            lines += [("test", document["test"]["name"]), *_clusters(document["test"])]
            lines += _absent(document["test"])
        lines += [("fitted", _fitted(document, timed=timed)), *_stages(document)]
        lines += _kept(document)
        lines += [("note", note) for note in document["fit"]["notes"]]
        written = [path for path in (document["params"], document["output"]) if path]
        lines += [("wrote", ", ".join(written))] if written else []
    elif document["command"] == "compare":
        lines += [("held out", f"{document['folds']} folds"), ("chosen", document["why"])]
    elif document["params"]:
        lines.append(("through", document["params"]))
    return lines


def _size(document: Result, source: InputPart) -> str:
    rows, classes = plural(document["rows"], "row"), plural(document["classes"], "class")
    return f"{source['name']}: {rows}, {classes}, {source['kind']}"


def _view(document: Result) -> Iterator[tuple[str, str]]:
    """Which class the figures are about, where that is not the predicted one."""
    part = measured_part(document)
    event = part and part["positive"]
    if event is not None:
        yield (
            "positive",
            f"{event['name']}: confidence is P({event['name']}) (--view top: of the top label)",
        )


def _dropped(source: InputPart) -> Iterator[tuple[str, str]]:
    rows = source.get("dropped_rows")
    if rows:
        yield "left out", f"{rows:,} rows, for their label or since they have none"


def _clusters(source: InputPart) -> Iterator[tuple[str, str]]:
    clusters = source.get("clusters")
    if clusters is not None:
        few = " (few: intervals are rough)" if clusters["count"] < FEW_CLUSTERS else ""
        yield "clusters", f"{clusters['count']:,} of {clusters['column']}, never split{few}"


def _absent(source: InputPart) -> Iterator[tuple[str, str]]:
    absent = source.get("absent_classes") or []
    if absent:
        listed = ", ".join(map(str, absent[:MANY]))
        more = f" and {len(absent) - MANY} more" if len(absent) > MANY else ""
        yield "note", f"no row of {'class' if len(absent) == 1 else 'classes'} {listed}{more}"


def _fitted(document: FitDocument, *, timed: bool) -> str:
    fit, method = document["fit"], document["method"].replace(",", "+")
    if fit["converged"] and not fit["iterations"] and not fit["passes"]:
        others = ", the correction for class shares apart" if fit["changed"] else ""
        return f"{method}: nothing to fit{others}"
    took = f"{duration(fit['seconds'])} " if timed else ""
    ending = "converged after" if fit["converged"] else "DID NOT CONVERGE in"
    work = ", ".join(
        [
            plural(fit["iterations"], "iteration"),
            f"{plural(fit['passes'], 'pass')} over the data",
            f"{took}on {fit['device']}",
        ]
    )
    asked, loss = document["loss"], fit.get("loss")
    kept = "kept plain nll, " if loss not in (None, asked) else ""
    return f"{method} by {asked}: {kept}{ending} {work}"


_PRESERVED = {
    "order": "the order of the classes of every row",
    "accuracy": "the top class of every row",
    "nothing": "neither the order of a row's classes nor its top class",
}


def _kept(document: FitDocument) -> Iterator[tuple[str, str]]:
    """What method and link together leave as it was."""
    fit = document["fit"]
    # Not in documents of earlier versions.
    preserves = fit.get("preserves")
    if preserves is not None and fit["changed"]:
        yield "keeps", _PRESERVED[preserves]


def _stages(document: FitDocument) -> Iterator[tuple[str, str]]:
    for stage in document["stages"]:
        kind = stage["kind"]
        described = (
            [stage["summary"]]
            if "summary" in stage
            else [
                # Temperature has the parameter temperature: once is enough.
                _described(value) if name == kind else f"{name} {_described(value)}"
                for name, value in stage["parameters"].items()
            ]
        )
        yield "", f"{kind}: {', '.join(described)}" if described else kind


def _described(value: Any) -> str:
    numbers = list(_numbers(value))
    if isinstance(value, list | tuple) and value and not numbers:
        return _listed(value)
    if len(numbers) == 1:
        return significant(numbers[0])
    if 1 < len(numbers) <= FEW:
        return f"[{', '.join(map(significant, numbers))}]"
    if not numbers:
        return str(value)
    span = f"{significant(min(numbers))} to {significant(max(numbers))}"
    return f"{plural(len(numbers), 'number')} from {span}"


def _listed(values: Sequence[Any]) -> str:
    """Names, stages, or lists of stages; not all of them where they are many."""
    if all(isinstance(value, Mapping) for value in values):
        return " + ".join(_chained(stage) for stage in values)
    if all(isinstance(value, list | tuple) for value in values):
        chains = Counter(" + ".join(stage["kind"] for stage in value) or "none" for value in values)
        return ", ".join(
            chain if count == 1 else f"{count} x {chain}" for chain, count in chains.items()
        )
    more = f" and {len(values) - MANY} more" if len(values) > MANY else ""
    return f"{', '.join(map(str, values[:MANY]))}{more}"


def _chained(stage: Mapping[str, Any]) -> str:
    """A stage inside another one; its number too, where it has but one."""
    values = list(stage["parameters"].values())
    single = len(values) == 1 and len(list(_numbers(values[0]))) == 1
    return f"{stage['kind']} {_described(values[0])}" if single else str(stage["kind"])


def _numbers(value: Any) -> Iterator[float]:
    """The numbers of nested lists or of an array, one after the other."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        for element in value:
            yield from _numbers(element)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield float(value)
