"""A metric over runs: its slope with an interval, and the first run that left the band.

The slope is that of a random-effects meta-regression on the number of the run. A run weighs
1 / (s^2 + tau^2): s is the standard error that its interval has (its length over 2 x 1.96), tau^2
the variance between runs beyond that, by the method of moments (Thompson and Sharp 1999,
doi:10.1002/(SICI)1097-0258(19991030)18:20<2693::AID-SIM235>3.0.CO;2-V, eq. 6). The interval is that
of Knapp and Hartung (2003, doi:10.1002/sim.1482): the variance of the slope times the weighted mean
square of the residuals, and Student's t with k - 2 degrees of freedom. It holds by how much the
runs scatter about the line, so it stays right where all runs have the same rows, which move all of
them together.

The band is a control chart that starts itself: a run is compared with the weighted mean of those
before it, which are the reference up to the first one that left the band.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, cast

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.errors import RunsError, UsageError
from calibcli.metrics.periods import Signal
from calibcli.metrics.resampling import LEVEL
from calibcli.workflow.quantities import Estimate, Metrics, read_estimate
from calibcli.workflow.texts import plural

LEAST_RUNS = 3
"""A line through two points says nothing of how far it may be off."""

_STANDARD_ERRORS = NormalDist().inv_cdf((1 + LEVEL) / 2)
"""So many of them are half an interval."""

_LIMITS = 3.0
"""Standard deviations from the middle of the band to either end, as on any control chart."""

_BEYOND = NormalDist().cdf(-_LIMITS)
"""Share of runs beyond either end by chance."""

_SEVERAL_COSTS = ("cost", "argmax_cost")
"""Metrics that mean something else where errors cost something else."""


@dataclass(frozen=True)
class RecordedRun:
    """What a line of a file of runs says.

    Attributes
    ----------
    name : str or None
        What its user called it.
    time : str
    input : str
    positive : str or None
        The positive class; None: of the top label.
    costs : object
        What errors cost, as the document has it.
    metrics : mapping
        Parts of a document by the name of the metric.
    """

    name: str | None
    time: str
    input: str
    positive: str | None
    costs: Any
    metrics: Metrics

    def estimate(self, metric: str) -> Estimate:
        """The number that tables show, the estimate of an error, with its interval."""
        entry = self.metrics.get(metric)
        return read_estimate(entry.get("estimate", entry["value"]) if entry else None, entry)


@dataclass(frozen=True)
class Trend:
    """The slope of a metric over runs, a run.

    Attributes
    ----------
    slope : Estimate
        NaN where there are fewer than `LEAST_RUNS`.
    start : float
        Where its line is at the first run, which may lack the metric.
    runs : int
        Those that have the metric.
    weighted : bool
        Whether they are weighted by their intervals; all or none are.
    between : float
        Standard deviation between runs beyond what their intervals say; NaN without weights.
    """

    slope: Estimate
    start: float
    runs: int
    weighted: bool
    between: float


@dataclass(frozen=True)
class RunBand:
    """Where a run should lie if nothing has changed; NaN where that is not known."""

    middle: float
    low: float
    high: float
    signal: Signal

    @property
    def has_left(self) -> bool:
        """Whether the run lies outside."""
        return self.signal in ("high", "low")


@dataclass(frozen=True)
class History:
    """The runs of one input, in the order of the file.

    Attributes
    ----------
    input : str
    positive : str or None
        The positive class; None: of the top label.
    runs : sequence of RecordedRun
    first : int
        Number of the first of them.

    Examples
    --------
    `calibcli.load_history` reads them; here they are made by hand:

    >>> def run(value):
    ...     metric = {"value": value, "low": value - 0.1, "high": value + 0.1}
    ...     return RecordedRun(f"v{value}", "2026-01-31", "fraud", None, None, {"nll": metric})
    >>> history = History("fraud", None, [run(0.2), run(0.3), run(0.9)])
    >>> history.first_out("nll").name
    'v0.9'
    """

    input: str
    positive: str | None
    runs: Sequence[RecordedRun]
    first: int = 1

    @property
    def title(self) -> str:
        """The input, and the positive class if it is about one."""
        return self.input if self.positive is None else f"{self.input}, P({self.positive})"

    def estimates(self, metric: str) -> list[Estimate]:
        """The metric of each run.

        Raises
        ------
        UsageError
            It is a cost, and costs differ between runs.

        Examples
        --------
        >>> history.estimates("nll")[0]  # doctest: +SKIP
        Estimate(value=0.2, low=0.1, high=0.3)
        """
        costs = {json.dumps(run.costs, sort_keys=True) for run in self.runs}
        if metric in _SEVERAL_COSTS and len(costs) > 1:
            raise UsageError(f"{metric}: errors cost something else in some runs; see --since")
        return [run.estimate(metric) for run in self.runs]

    def trend(self, metric: str) -> Trend:
        """The slope of a metric; NaN where fewer than `LEAST_RUNS` have it.

        Examples
        --------
        >>> history.trend("ece").slope.low > 0  # doctest: +SKIP
        True
        """
        return fit_trend(self.estimates(metric))

    def bands(self, metric: str) -> list[RunBand]:
        """The band of each run.

        Examples
        --------
        >>> [band.signal for band in history.bands("nll")]  # doctest: +SKIP
        ['too few', 'within', 'high']
        """
        return control_bands(self.estimates(metric))

    def first_out(self, metric: str) -> RecordedRun | None:
        """The first run that left the band; None where none did.

        Raises
        ------
        RunsError
            No run has the metric.

        Examples
        --------
        >>> history.first_out("nll").time  # doctest: +SKIP
        '2026-01-31'
        """
        self._require(metric)
        pairs = zip(self.runs, self.bands(metric), strict=True)
        return next((run for run, band in pairs if band.has_left), None)

    def table(self, metric: str) -> dict[str, list[Any]]:
        """The table that ``calib history`` prints, by columns, as a frame of any library takes it.

        Returns
        -------
        dict of str to list
            ``run`` (its number), ``name``, ``time``, ``value`` (of an error its estimate), ``low``
            and ``high`` of its 95 % interval, ``band_low`` and ``band_high``, and ``signal``:
            ``"high"``, ``"low"``, ``"within"``, or ``"too few"`` where there is no band. NaN is
            what is not known.

        Raises
        ------
        RunsError
            No run has the metric.

        Examples
        --------
        >>> pandas.DataFrame(history.table("nll"))  # doctest: +SKIP
        """
        self._require(metric)
        estimates, bands = self.estimates(metric), self.bands(metric)
        return {
            "run": list(range(self.first, self.first + len(self.runs))),
            "name": [run.name for run in self.runs],
            "time": [run.time for run in self.runs],
            "value": [each.value for each in estimates],
            "low": [each.low for each in estimates],
            "high": [each.high for each in estimates],
            "band_low": [band.low for band in bands],
            "band_high": [band.high for band in bands],
            "signal": [band.signal for band in bands],
        }

    def _require(self, metric: str) -> None:
        known = dict.fromkeys(each for run in self.runs for each in run.metrics)
        if metric not in known:
            raise RunsError(
                f"{self.title}: no run has {metric}; they have {', '.join(known) or 'none'}"
            )

    def since(self, start: str) -> History:
        """The runs from one on, which is given by its number or its name.

        Raises
        ------
        UsageError
            There is no such run.

        Examples
        --------
        >>> history.since("v0.3").first  # doctest: +SKIP
        2
        """
        names = [run.name for run in self.runs]
        if start in names:
            place = names.index(start)
        elif start.isdecimal() and 1 <= int(start) <= len(names):
            place = int(start) - 1
        else:
            raise UsageError(f"--since {start}: {self.title} has no run of this name or number")
        return History(self.input, self.positive, self.runs[place:], self.first + place)


def read_history(content: bytes, path: str) -> list[History]:
    """The runs in a file, by input and positive class.

    Raises
    ------
    RunsError
        A line is no run; the message has its number.
    """
    series: dict[tuple[str, str | None], list[RecordedRun]] = {}
    for run in _read_runs(content, path):
        series.setdefault((run.input, run.positive), []).append(run)
    return [History(*key, runs) for key, runs in series.items()]


def _read_runs(content: bytes, path: str) -> Iterator[RecordedRun]:
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            yield _run(json.loads(line))
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
            raise RunsError(
                f"{path}: line {number} is no run as calib evaluate --append writes it"
            ) from None


def _run(line: Any) -> RecordedRun:
    version = line["schema_version"]
    if line["command"] != "run" or isinstance(version, bool) or version != 1:
        raise ValueError(line["command"])
    metrics = line["metrics"].items()
    name, positive = (_text(line[key], optional=True) for key in ("name", "positive"))
    time, source = (cast("str", _text(line[key])) for key in ("time", "input"))
    json.dumps(line["costs"])
    return RecordedRun(
        name,
        time,
        source,
        positive,
        line["costs"],
        {metric: cast("Any", _checked(entry)) for metric, entry in metrics},
    )


def _text(value: Any, *, optional: bool = False) -> str | None:
    if isinstance(value, str) or (optional and value is None):
        return value
    raise TypeError(value)


def _checked(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of a metric: finite or null, and the ends of the interval in order."""
    part: dict[str, Any] = {"value": _number(entry["value"])}
    part |= {key: _number(entry[key]) for key in ("estimate", "low", "high") if key in entry}
    if "chance" in entry:
        part["chance"] = {key: _number(entry["chance"][key]) for key in ("mean", "low", "high")}
    low, high = part.get("low"), part.get("high")
    if low is not None and high is not None and low > high:
        raise ValueError(low)
    return part


def _number(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(value)
    if not math.isfinite(value):
        raise ValueError(value)
    return float(value)


def _standard_errors(estimates: Sequence[Estimate]) -> NumpyArray:
    """Those that the intervals have; NaN without one."""
    return np.array([(each.high - each.low) / (2 * _STANDARD_ERRORS) for each in estimates])


def _weighable(errors: NumpyArray) -> bool:
    return bool(errors.size and (errors > 0).all())


def fit_trend(estimates: Sequence[Estimate]) -> Trend:
    """The slope over the places of the estimates; what is NaN leaves a gap."""
    places = np.array([place for place, each in enumerate(estimates) if not math.isnan(each.value)])
    known = [estimates[place] for place in places]
    errors = _standard_errors(known)
    weighted = _weighable(errors)
    if len(known) < LEAST_RUNS:
        return Trend(Estimate(math.nan), math.nan, len(known), weighted, math.nan)
    # From the first one on, so that equal runs have a slope of zero to the last digit.
    y = np.array([each.value for each in known]) - known[0].value
    variance = _between(places, y, 1 / errors**2) if weighted else 0.0
    weights = 1 / (errors**2 + variance) if weighted else np.ones_like(y)
    slope, residuals, square = _line(places, y, weights)
    free = len(y) - 2
    scatter = float(weights @ residuals**2) / free
    from scipy.special import stdtrit

    reach = float(stdtrit(free, (1 + LEVEL) / 2)) * math.sqrt(scatter / square)
    between = math.sqrt(variance) if weighted else math.nan
    start = known[0].value + float(weights @ (y - slope * places)) / float(weights.sum())
    return Trend(Estimate(slope, slope - reach, slope + reach), start, len(y), weighted, between)


def _line(x: NumpyArray, y: NumpyArray, weights: NumpyArray) -> tuple[float, NumpyArray, float]:
    """Weighted least squares: the slope, the residuals, and the sum of squares of x."""
    x = x - weights @ x / weights.sum()
    y = y - weights @ y / weights.sum()
    square = float(weights @ x**2)
    slope = float(weights @ (x * y)) / square
    return slope, y - slope * x, square


def _between(x: NumpyArray, y: NumpyArray, weights: NumpyArray) -> float:
    """The variance between runs beyond 1 / weights about a line, by the method of moments."""
    _, residuals, _ = _line(x, y, weights)
    design = np.stack((np.ones_like(y), x), axis=1)
    squared = np.linalg.solve(
        design.T @ (weights[:, None] * design), design.T @ (weights[:, None] ** 2 * design)
    )
    excess = float(weights @ residuals**2) - (len(y) - 2)
    return max(excess / (float(weights.sum()) - float(np.trace(squared))), 0.0)


def control_bands(estimates: Sequence[Estimate]) -> list[RunBand]:
    """The band of each run, by those before it, up to the first one that left it.

    With intervals it takes one run to compare with: the middle is the weighted mean of the
    reference, and the ends are three standard deviations of a run from it: what the intervals of
    the reference and of the run say, and how much the reference varies beyond that (DerSimonian
    and Laird 1986, doi:10.1016/0197-2456(86)90046-2). Without, it takes two, and the ends are as
    far as Student's t has them at the same level.
    """
    bands: list[RunBand] = []
    reference: list[Estimate] = []
    has_left = False
    for each in estimates:
        band = _band(reference, each)
        bands.append(band)
        has_left = has_left or band.has_left
        if not has_left and not math.isnan(each.value):
            reference.append(each)
    return bands


def _band(reference: Sequence[Estimate], run: Estimate) -> RunBand:
    y = np.array([each.value for each in reference])
    errors = _standard_errors([*reference, run])
    if len(y) and _weighable(errors):
        weights = 1 / errors[:-1] ** 2
        variance = _between_means(y, weights)
        weights = 1 / (errors[:-1] ** 2 + variance)
        middle = float(weights @ y / weights.sum())
        reach = _LIMITS * math.sqrt(1 / weights.sum() + variance + errors[-1] ** 2)
    elif len(y) > 1:
        from scipy.special import stdtrit

        middle = float(y.mean())
        times = -float(stdtrit(len(y) - 1, _BEYOND))
        reach = times * float(y.std(ddof=1)) * math.sqrt(1 + 1 / len(y))
    else:
        return RunBand(math.nan, math.nan, math.nan, "too few")
    low, high = middle - reach, middle + reach
    if math.isnan(run.value):
        return RunBand(middle, low, high, "too few")
    signal: Signal = "high" if run.value > high else "low" if run.value < low else "within"
    return RunBand(middle, low, high, signal)


def _between_means(y: NumpyArray, weights: NumpyArray) -> float:
    """The variance between runs beyond 1 / weights about one mean; 0 of a single run."""
    if len(y) < 2:
        return 0.0
    excess = float(weights @ (y - weights @ y / weights.sum()) ** 2) - (len(y) - 1)
    total = float(weights.sum())
    return max(excess / (total - float(weights @ weights) / total), 0.0)


def absent_trend(trend: Trend) -> str:
    """Why there is no slope."""
    return f"it takes {LEAST_RUNS} runs that have it, and there {_are(trend.runs)}"


def _are(runs: int) -> str:
    return f"{'is' if runs == 1 else 'are'} {plural(runs, 'run') if runs else 'none'}"
