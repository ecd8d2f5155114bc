"""Diagrams: the folds that they are drawn from, their bands, and figures for papers."""

from __future__ import annotations

import re
from functools import reduce
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from picture_data import calibrated, evaluate, evaluated, fitted, rare, sliced

from calibcli.errors import UsageError
from calibcli.metrics.bins import BINS, EDGES, RELIABILITY
from calibcli.metrics.consistency import (
    consistency_bars,
    corp_curve,
)
from calibcli.metrics.corp import isotonic_means
from calibcli.metrics.diagrams import (
    CELLS_PER_BIN,
    CONFIDENCE_LATTICE,
    LATTICE_CELLS,
    PREDICTED_CLASSES,
    KeyDiagrams,
    Sums,
    bins_of,
    cell_index,
)
from calibcli.metrics.view import View
from calibcli.report import plot
from calibcli.report.plot import (
    MOST_MULTIPLES,
    FigureLayout,
    plot_multiples,
    plot_overlay,
    plot_reliability,
)
from calibcli.report.plot_data import (
    Scale,
    class_multiples,
    common_scale,
    count_slices,
    slice_multiples,
    worst_classes,
)
from calibcli.report.plot_sheet import house_style

Array = np.ndarray[Any, Any]
STATISTICS = [CONFIDENCE_LATTICE, PREDICTED_CLASSES]

plots = pytest.mark.usefixtures("matplotlib")


@pytest.fixture
def matplotlib() -> Any:
    return pytest.importorskip("matplotlib")


def lattice_of(confidence: Array, correct: Array) -> Sums:
    """The lattice of a binary problem with these confidences of class 0, above 1/2."""
    logits = np.stack([np.log(confidence), np.log1p(-confidence)], axis=1)
    view = View(logits, np.where(correct, 0, 1), event="top")
    return CONFIDENCE_LATTICE.finish(CONFIDENCE_LATTICE.partial(view))


# ---- folds ----


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([2, 5, 40]),
    st.lists(st.integers(0, 80), max_size=4),
    st.booleans(),
)
def test_partition_changes_nothing(seed: int, classes: int, cuts: list[int], weighted: bool):
    rng = np.random.default_rng(seed)
    logits, labels = calibrated(80, classes, seed, spread=float(rng.choice([0.5, 3.0, 20.0])))
    weights = rng.integers(0, 4, 80) * 0.5 if weighted else None
    edges = [0, *sorted(cuts), 80]
    for statistic in STATISTICS:
        whole = statistic.finish(statistic.partial(View(logits, labels, weights)))
        states = [
            statistic.partial(
                View(logits[a:b], labels[a:b], None if weights is None else weights[a:b])
            )
            for a, b in pairwise(edges)
        ]
        merged = statistic.finish(reduce(statistic.merge, states))
        for left, right in zip(numbers(whole), numbers(merged), strict=True):
            np.testing.assert_allclose(left, right, rtol=1e-12, atol=1e-12)


def numbers(finished: Any) -> list[Array]:
    if isinstance(finished, Sums):
        return list(vars(finished).values())
    return [*vars(finished.bins).values(), finished.labelled, finished.expected]


@given(st.lists(st.floats(1e-9, 1.0), min_size=1, max_size=50))
def test_a_cell_is_within_its_bin(confidences: list[float]):
    values = np.array([*confidences, 1.0, *EDGES[1:], np.nextafter(1.0, 2.0)])
    cells = cell_index(values)
    assert cells.min() >= 0
    assert cells.max() < LATTICE_CELLS
    within = np.minimum(values, 1.0)
    np.testing.assert_array_less(cells / LATTICE_CELLS - 1e-9, within)
    np.testing.assert_array_less(within, (cells + 1) / LATTICE_CELLS + 1e-9)


@pytest.mark.parametrize("weighted", [False, True])
def test_cells_and_classes_add_up_to_the_bins(weighted: bool):
    logits, labels = calibrated(500, 7)
    weights = np.random.default_rng(1).random(500) if weighted else None
    view = View(logits, labels, weights)
    expected = RELIABILITY.finish(RELIABILITY.partial(view))
    by_class = PREDICTED_CLASSES.finish(PREDICTED_CLASSES.partial(view))
    lattice = CONFIDENCE_LATTICE.finish(CONFIDENCE_LATTICE.partial(view))
    for bins in (bins_of(lattice), by_class.bins.total(axis=0)):
        for name in ("rows", "weight", "confidence", "correct"):
            np.testing.assert_allclose(getattr(bins, name), getattr(expected, name), atol=1e-9)
    assert by_class.labelled.sum() == pytest.approx(view.total_weight)
    assert by_class.expected.sum() == pytest.approx(view.total_weight)


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 80), max_size=3), st.booleans())
def test_bins_of_slices_are_those_of_their_rows(seed: int, cuts: list[int], weighted: bool):
    rng = np.random.default_rng(seed)
    logits, labels = calibrated(80, 3, seed)
    by = rng.integers(0, 4, 80)
    weights = rng.integers(0, 4, 80) * 0.5 if weighted else None
    statistic = KeyDiagrams(5, "by")
    states = []
    for a, b in pairwise([0, *sorted(cuts), 80]):
        part = None if weights is None else weights[a:b]
        view = View(logits[a:b], labels[a:b], part, keys={"by": by[a:b]})
        states.append(statistic.partial(view))
    found, cells = statistic.finish(reduce(statistic.merge, states))
    assert cells is None
    assert found.rows.shape == (5, BINS)
    for place in range(5):
        own = by == place
        view = View(logits[own], labels[own], None if weights is None else weights[own])
        expected = bins_of(CONFIDENCE_LATTICE.finish(CONFIDENCE_LATTICE.partial(view)))
        for left, right in zip(numbers(found.select(place)), numbers(expected), strict=True):
            np.testing.assert_allclose(left, right, rtol=1e-12, atol=1e-12)


def test_weights_that_are_equal_are_rows():
    logits, labels = calibrated(300, 4)
    plain, doubled = evaluate(logits, labels), evaluate(logits, labels, np.full(300, 2.0))
    left, right = (one.also[CONFIDENCE_LATTICE] for one in (plain, doubled))
    np.testing.assert_allclose(left.effective_rows, right.effective_rows)
    np.testing.assert_allclose(consistency_bars(left).lower, consistency_bars(right).lower)


def test_many_classes_cost_what_they_touch():
    logits, labels = calibrated(50, 20_000)
    state = PREDICTED_CLASSES.partial(View(logits, labels))
    assert state.sums.shape[1] <= 50


def test_a_block_of_torch_gives_the_same():
    torch = pytest.importorskip("torch")
    logits, labels = calibrated(200, 5)
    for statistic in STATISTICS:
        here = statistic.finish(statistic.partial(View(logits, labels)))
        there = View(torch.asarray(logits), torch.asarray(labels))
        for left, right in zip(
            numbers(here), numbers(statistic.finish(statistic.partial(there))), strict=True
        ):
            np.testing.assert_allclose(left, right, atol=1e-9)


@given(st.lists(st.integers(0, 80), max_size=3), st.booleans())
def test_cells_of_slices_are_those_of_their_rows(cuts: list[int], weighted: bool):
    logits, labels = calibrated(80, 2)
    by = np.arange(80) % 3
    weights = np.arange(80) % 4 * 0.5 if weighted else None
    statistic = KeyDiagrams(4, "by")
    states = []
    for a, b in pairwise([0, *sorted(cuts), 80]):
        part = None if weights is None else weights[a:b]
        states.append(statistic.partial(View(logits[a:b], labels[a:b], part, keys={"by": by[a:b]})))
    _, cells = statistic.finish(reduce(statistic.merge, states))
    assert cells is not None
    for place in range(4):
        found, own = cells.of(place), by == place
        one = View(logits, labels, weights) if weighted else View(logits, labels)
        weight = one.weights[own]
        assert found.rows.sum() == own.sum()
        assert found.weight.sum() == pytest.approx(weight.sum())
        assert found.confidence.sum() == pytest.approx((weight * one.confidence[own]).sum())
        assert found.correct.sum() == pytest.approx((weight * one.correct[own]).sum())


# ---- curves and bands ----


@given(st.integers(0, 2**32 - 1), st.integers(1, 60))
def test_isotonic_regression_is_that_of_sklearn(seed: int, size: int):
    isotonic_regression = pytest.importorskip("sklearn.isotonic").isotonic_regression
    rng = np.random.default_rng(seed)
    values = np.round(rng.standard_normal(size) + rng.choice([0, 0.05]) * np.arange(size), 1)
    weights = rng.integers(1, 5, size).astype(float)
    expected = isotonic_regression(values, sample_weight=weights)
    np.testing.assert_allclose(isotonic_means(values, weights), expected, atol=1e-12)


def test_bars_are_the_quantiles_of_the_binomial():
    binom = pytest.importorskip("scipy.stats").binom
    rows = np.array([3.0, 40.0, 5000.0])
    says = np.array([0.2, 0.55, 0.97])
    bars = consistency_bars(Sums(rows, rows, rows, rows * says, rows * 0), draws=20_000)
    for edge, level in ((bars.lower, 0.05), (bars.upper, 0.95)):
        exact = binom.ppf(level, rows, says) / rows
        assert np.abs(edge - exact).max() <= 1.01 / 40
        assert abs(edge[2] - exact[2]) < 0.001
    twice = consistency_bars(
        Sums(rows, rows, rows, rows * says, rows * 0), draws=20_000, design_effect=4.0
    )
    widths = twice.upper - twice.lower, bars.upper - bars.lower
    assert widths[0][1] == pytest.approx(2 * widths[1][1])


def test_nine_in_ten_calibrated_diagrams_lie_in_the_band():
    rng = np.random.default_rng(5)
    inside: list[float] = []
    on_curve: list[float] = []
    for _ in range(40):
        confidence = rng.uniform(0.5, 1, 4000)
        lattice = lattice_of(confidence, rng.random(4000) < confidence)
        bins = bins_of(lattice)
        bars, filled = consistency_bars(bins), bins.filled
        within = (bars.lower <= bins.accuracy) & (bins.accuracy <= bars.upper)
        inside.append(within[filled].mean())
        curve = corp_curve(lattice, draws=100)
        height = np.interp(curve.grid, curve.confidence, curve.accuracy)
        on_curve.append(((curve.band.lower <= height) & (height <= curve.band.upper)).mean())
    assert np.mean(inside) == pytest.approx(0.9, abs=0.03)
    assert np.mean(on_curve) == pytest.approx(0.9, abs=0.05)


def test_an_overconfident_model_leaves_the_band():
    rng = np.random.default_rng(6)
    confidence = rng.uniform(0.6, 1, 4000)
    lattice = lattice_of(confidence, rng.random(4000) < confidence - 0.15)
    bins = bins_of(lattice)
    assert (bins.accuracy < consistency_bars(bins).lower)[bins.filled].all()


def test_the_curve_is_the_isotonic_fit_of_the_rows():
    IsotonicRegression = pytest.importorskip("sklearn.isotonic").IsotonicRegression
    rng = np.random.default_rng(7)
    # In the middle of cells, so that the lattice loses nothing.
    confidence = (
        rng.choice(np.arange(LATTICE_CELLS // 2 + 1, LATTICE_CELLS), 500) - 0.5
    ) / LATTICE_CELLS
    correct = rng.random(500) < confidence**2
    curve = corp_curve(lattice_of(confidence, correct), draws=10)
    expected = IsotonicRegression().fit(confidence, correct).predict(curve.confidence)
    np.testing.assert_allclose(curve.accuracy, expected, atol=1e-9)
    assert (np.diff(curve.accuracy) >= 0).all()


def test_without_rows_there_is_nothing_to_draw():
    nothing = Sums(*np.zeros((5, LATTICE_CELLS)))
    curve = corp_curve(nothing)
    assert len(curve.confidence) == len(curve.grid) == 0
    assert np.isnan(consistency_bars(bins_of(nothing)).lower).all()
    assert LATTICE_CELLS == BINS * CELLS_PER_BIN


def test_many_cells_are_drawn_in_parts(monkeypatch: pytest.MonkeyPatch):
    rows = np.full(10, 50.0)
    bins = Sums(rows, rows, rows, rows * 0.7, rows * 0.7)
    whole = consistency_bars(bins, draws=2000)
    monkeypatch.setattr("calibcli.metrics.consistency._CELLS_AT_A_TIME", 3)
    np.testing.assert_allclose(consistency_bars(bins, draws=2000).lower, whole.lower, atol=0.03)


# ---- figures ----


def figures() -> list[Any]:
    """Figures of every shape."""
    _, pair = fitted(names=tuple(f"class {k} with a rather long name" for k in range(10)))
    _, many = fitted(rows=2000, classes=40)
    _, one = evaluated("data/test.npz")
    _, five = evaluated(*(f"data/a_rather_long_name_of_a_file_{k}.npz" for k in range(5)))
    _, odd = evaluated("cost_$x^2$_$.npz", "données.npz", "数字.npz")
    _, two = fitted(classes=2)
    _, parts = sliced(2000, 40)
    few = [class_multiples(p, MOST_MULTIPLES) for p in (pair, many, odd, two)]
    return [
        *(plot._columns(pictures, "binned") for pictures in (pair, one, five, odd)),
        plot._columns(pair, "corp"),
        plot._columns(five, "binned", FigureLayout(7.16, "A title over $x^2$ everything")),
        plot._columns(pair, "binned", FigureLayout(3.5)),
        plot._columns(one, "corp", FigureLayout(7.16)),
        plot._overlaid(pair, "binned", FigureLayout(3.5, "A title")),
        plot._overlaid(five[:4], "binned"),
        plot._overlaid(odd, "corp", FigureLayout(7.16)),
        plot._grid(few[0], pair, 40, "class", FigureLayout(7.16, "A title")),
        plot._grid(few[0], pair, 10, "class"),
        plot._grid(few[1], many, 40, "class"),
        plot._grid(few[3], two, 2, "class"),
        plot._grid(slice_multiples(parts, MOST_MULTIPLES), parts, 40, "slice"),
        plot._grid(few[2], odd, 10, "class"),
    ]


@plots
def test_all_of_a_figure_is_within_its_page():
    with house_style():
        for figure in figures():
            figure.draw_without_rendering()
            page = figure.bbox.padded(0.5)
            texts = figure.findobj(lambda part: hasattr(part, "get_text"))
            texts = [text for text in texts if text.get_visible() and text.get_text()]
            assert len(texts) > 5
            for text in texts:
                box = text.get_window_extent()
                assert page.contains(box.x0, box.y0), text.get_text()
                assert page.contains(box.x1, box.y1), text.get_text()


@plots
def test_panels_are_squares_with_their_histograms_in_line():
    with house_style():
        figure = plot._columns(fitted()[1], "binned")
    width, height = figure.get_size_inches()
    boxes = [axis.get_position() for axis in figure.axes]
    assert len(boxes) == 4
    for above, below in (boxes[:2], boxes[2:]):
        assert above.width * width == pytest.approx(above.height * height)
        assert (above.x0, above.x1) == pytest.approx((below.x0, below.x1))


@plots
@pytest.mark.parametrize(("width", "rows"), [(2.0, 4), (3.5, 2), (7.16, 1), (12.0, 1)])
def test_a_figure_is_as_wide_as_it_shall_be(width: float, rows: int):
    pictures = evaluated(*(f"{k}.npz" for k in range(4)), rows=50)[1]
    with house_style():
        figure = plot._columns(pictures, "binned", FigureLayout(width))
        overlaid = plot._overlaid(pictures, "binned", FigureLayout(width))
    for each in (figure, overlaid):
        assert each.get_size_inches()[0] == width
        assert all(0 < axis.get_position().x0 < axis.get_position().x1 < 1 for axis in each.axes)
    assert len({round(axis.get_position().y0, 6) for axis in figure.axes}) == 2 * rows


@plots
def test_an_overlay_has_hollow_dots_where_chance_explains_them():
    _, pictures = fitted()
    with house_style():
        figure = plot._overlaid(pictures, "binned")
    above, below = figure.axes
    dots = [each for each in above.collections if len(each.get_offsets())]
    assert len(dots) == len(below.patches) == 2
    for picture, drawn in zip(pictures, dots, strict=True):
        diagram = picture.diagram
        share, filled = diagram.bins.accuracy, diagram.bins.filled
        within = (share >= diagram.bars.lower) & (share <= diagram.bars.upper)
        hollow = (drawn.get_facecolors() == 1).all(axis=1)
        np.testing.assert_array_equal(hollow, within[filled])
        assert hollow.any()
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["before", "after", "within its 90 % band", "calibrated"]


@plots
def test_panels_say_what_they_show():
    with house_style():
        document, pictures = fitted()
        figure = plot._columns(pictures, "corp")
    above, below = figure.axes[0], figure.axes[1]
    assert above.get_title() == "before"
    assert above.get_ylabel() == "accuracy"
    assert below.get_xlabel() == "confidence"
    shown = above.texts[0].get_text().splitlines()
    metrics = document["before"]["metrics"]
    assert shown == [
        f"ECE {metrics['ece']['value']:#.3g}",
        f"NLL {metrics['nll']['value']:#.3g}",
        "n 600",
    ]


@plots
@pytest.mark.parametrize(
    ("kind", "magic"), [("png", b"\x89PNG\r\n"), ("svg", b"<?xml"), ("pdf", b"%PDF-")]
)
def test_the_same_figure_has_the_same_bytes(kind: Any, magic: bytes):
    _, pictures = fitted()
    content = plot_reliability(pictures, kind)
    assert content.startswith(magic)
    assert content == plot_reliability(fitted()[1], kind)
    assert not re.search(rb"CreationDate|dc:date|20\d\d-\d\d-\d\d", content)


@plots
def test_too_many_measurements_are_not_laid_over_each_other():
    _, pictures = evaluated(*(f"{k}.npz" for k in range(5)), rows=50)
    multiples = class_multiples(pictures, 3)
    with pytest.raises(UsageError, match="at most 4 inputs, here are 5"):
        plot_multiples(multiples, pictures, "png", of=10, noun="class")
    with pytest.raises(UsageError, match=r"--plot-overlay .* at most 4 inputs, here are 5"):
        plot_overlay(pictures, "png")


def test_of_many_classes_the_worst_are_shown():
    _, pictures = fitted(rows=2000, classes=40)
    classes = pictures[-1].classes
    assert classes is not None
    gap = classes.bins.gap.sum(axis=1)
    chosen = worst_classes(pictures, 12)
    assert min(gap[chosen]) >= max(np.delete(gap, chosen))
    assert worst_classes(pictures, 40) == list(range(40))


def test_the_worst_slices_come_first():
    (_, one), (_, other) = sliced(3000, 40), sliced(2000, 3, seed=1)
    multiples = slice_multiples(one, MOST_MULTIPLES)
    assert count_slices(one) == 40
    assert len(multiples) == MOST_MULTIPLES
    assert multiples[0].title == "part 1"
    (first,) = multiples[0].diagrams
    entry = one[0].part["slices"][0]["slices"][0]
    assert (first.rows, first.error) == (entry["rows"], pytest.approx(entry["ece"]["value"]))
    # Of several inputs the last one decides, and others may not have all of its slices.
    both = slice_multiples([*one, *other], MOST_MULTIPLES)
    assert both[0].title == "b"
    assert [m.diagrams[0].rows for m in both] == [0, 0, 0]
    assert sum(m.diagrams[1].rows for m in both) == 2000


# ---- two classes ----


def test_bins_of_a_rare_class_are_those_of_the_document():
    document, (picture,) = rare()
    filled = [entry for entry in document["reliability"] if entry["weight"]]
    assert 10 < len(filled) <= BINS
    diagram = picture.diagram
    assert diagram.edges.tolist() == [filled[0]["lower"], *(entry["upper"] for entry in filled)]
    assert diagram.bins.rows.tolist() == [entry["rows"] for entry in filled]
    for name, values in (("confidence", "mean_confidence"), ("accuracy", "accuracy")):
        expected = [entry[name] for entry in filled]
        assert getattr(diagram.bins, values).tolist() == pytest.approx(expected)
    assert max(diagram.bins.rows) < 2 * min(diagram.bins.rows)
    assert diagram.error == pytest.approx(document["metrics"]["ece"]["value"])
    assert picture.curve.grid.max() < 0.5


def test_the_view_of_the_top_label_has_bins_of_equal_width():
    _, (picture,) = rare(top=True)
    assert picture.positive is None
    assert picture.diagram.edges.tolist() == EDGES.tolist()
    assert common_scale([picture]) == Scale()


@pytest.mark.parametrize(("shift", "high"), [(7.5, 0.1), (5.0, 1.0)])
def test_axes_of_a_rare_class_are_logarithmic(shift: float, high: float):
    _, (picture,) = rare(20_000, shift=shift)
    scale = common_scale([picture])
    assert scale.high == high
    says = picture.diagram.bins.mean_confidence
    assert scale.low <= says.min() < 10 * scale.low
    edges, bins = picture.diagram.histogram(scale)
    assert bins.rows.sum() == 20_000
    assert len(bins.rows) > 5
    # Every bar has the rows between its edges.
    cells = picture.event
    assert cells is not None
    for left, right, rows in zip(edges[:-1], edges[1:], bins.rows, strict=True):
        own = (cells.mean_confidence > left) & (cells.mean_confidence <= right)
        assert cells.rows[own].sum() == pytest.approx(rows, abs=1)


def test_axes_are_linear_where_many_rows_are_not_rare():
    _, (picture,) = rare()
    _, (even,) = evaluated("even.npz", classes=2)
    assert common_scale([picture, even]) == Scale()
    assert even.diagram.edges.tolist() == EDGES.tolist()


@plots
def test_figures_of_a_rare_class_say_what_they_show():
    _, pictures = rare()
    multiples = slice_multiples(pictures, MOST_MULTIPLES)
    with house_style():
        figure = plot._columns(pictures, "binned")
        small = plot._grid(multiples, pictures, 3, "slice")
        figure.draw_without_rendering()
        small.draw_without_rendering()
    above, below = figure.axes
    assert (below.get_xlabel(), above.get_ylabel()) == ("P(fraud)", "observed share")
    assert above.get_xscale() == above.get_yscale() == below.get_xscale() == "log"
    assert figure.legends[0].get_texts()[0].get_text() == "bins of equal mass"
    # Each slice has bins of its own, and all rows are in them.
    diagrams = [multiple.diagrams[0] for multiple in multiples]
    assert sum(diagram.rows for diagram in diagrams) == 3000
    assert all(len(diagram.bins.rows) > 5 for diagram in diagrams)
    assert small.axes[0].get_xscale() == "log"
    entries = pictures[0].part["slices"][0]["slices"]
    errors = [diagram.error for diagram in diagrams]
    assert errors == pytest.approx([entry["ece"]["value"] for entry in entries])


# ---- the command line ----


@plots
def test_figures_are_the_same_in_every_run(
    calib: Any, calib_here: Any, sample_data: Path, tmp_path: Path
):
    arguments = ["evaluate", sample_data / "digits_test.parquet", "-q", "--format", "json"]
    done = calib(*arguments, "--plot", "a.svg")
    assert done.returncode == 0
    assert done.stderr == b""
    assert done.stdout.startswith(b"{")
    assert calib_here(*arguments, "--plot", "b.svg")[0] == 0
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


@plots
def test_several_figures_and_pages_of_one_run(calib_here: Any, sample_data: Path, tmp_path: Path):
    (tmp_path / "calib.toml").write_text('report = ["a.html", "a.tex"]', "utf-8")
    test = sample_data / "digits_test.parquet"
    code, _, talk = calib_here(
        "evaluate", test, "--plot", "a.svg", "--plot", "b.pdf", "--config", "calib.toml"
    )
    assert code == 0, talk
    assert "wrote a.svg, b.pdf, a.html, a.tex" in talk
    starts = {"a.svg": b"<?xml", "b.pdf": b"%PDF", "a.html": b"<!doctype", "a.tex": b"%"}
    for name, start in starts.items():
        assert (tmp_path / name).read_bytes().startswith(start)
    given = ("--plot", "c.svg", "--plot", "c.svg", "--report", "c.html")
    code, _, talk = calib_here("evaluate", test, *given)
    assert code == 2
    assert "--plot c.svg is given twice; each needs a name of its own" in talk
    code, _, talk = calib_here("evaluate", test, "--plot", "c.svg", "--plot", "c.gif")
    assert (code, "--plot c.gif: the name must end in" in talk) == (2, True)
    assert not list(tmp_path.glob("c.*"))


@plots
def test_both_commands_draw(calib_here: Any, sample_data: Path, tmp_path: Path):
    val, test = sample_data / "digits_val.parquet", sample_data / "digits_test.parquet"
    code, _, talk = calib_here(
        "fit", val, "--test", test, "--plot", "f.pdf", "--plot-by", "class", "--report", "f.html"
    )
    assert code == 0, talk
    assert "wrote f.pdf, f.html" in talk
    code, _, talk = calib_here("evaluate", test, val, "--plot", "e.png", "--plot-style", "corp")
    assert code == 0, talk
    assert (tmp_path / "f.pdf").stat().st_size > 5000
    assert (tmp_path / "e.png").stat().st_size > 5000
    code, _, talk = calib_here("evaluate", test, "--plot", "e.png")
    assert (code, talk.strip()) == (2, "calib: e.png: exists already; --force replaces it")
    assert calib_here("evaluate", test, "--plot", "e.png", "--force")[0] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--plot", "a.gif"], "--plot a.gif: the name must end in .png, .svg or .pdf"),
        (["--plot", "no/a.png"], "there is no folder"),
        (["--report", "a.pdf"], "--report a.pdf: the name must end in .html, .htm or .tex"),
        (["--plot-overlay"], "--plot-overlay says what --plot FILE draws; there is no --plot"),
        (["--plot-width", "3"], "--plot-width says what --plot FILE draws; there is no --plot"),
        (["--plot", "a.png", "--plot-width", "wide"], "is neither single, double nor a number"),
        (["--plot", "a.png", "--plot-width", "1"], "a figure is 2 to 20 inches wide"),
        (["--plot", "a.png", "--plot-width", "nan"], "a figure is 2 to 20 inches wide"),
        (["--plot", "a.png", "--plot-by", "class", "--plot-overlay"], "leave out --plot-overlay"),
        (["--plot-by", "class"], "there is no --plot"),
        (["--plot", "a.png", "--plot-by", "class", "--plot-style", "corp"], "leave out --plot-by"),
        (["--plot", "a.png", "--plot-by", "slice"], "draws the slices of calib evaluate --by COL"),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    calib_here: Any, sample_data: Path, options: list[str], message: str
):
    for command in ("evaluate", "fit"):
        code, out, talk = calib_here(command, sample_data / "digits_val.parquet", "-q", *options)
        assert code == 2
        assert message in talk
        assert not out
        assert talk.count("\n") == 1


def test_without_matplotlib_the_extra_is_named(
    calib_here: Any, sample_data: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    code, _, talk = calib_here("evaluate", sample_data / "digits_val.parquet", "--plot", "a.png")
    assert code == 2
    assert talk == "calib: --plot needs matplotlib: pip install 'calibcli[plot]'\n"


@plots
def test_inputs_of_different_classes_have_no_common_multiples(
    calib_here: Any, sample_data: Path, tmp_path: Path
):
    logits, labels = calibrated(50, 3)
    np.savez(tmp_path / "three.npz", logits=logits, labels=labels)
    inputs = ["three.npz", sample_data / "digits_val.parquet"]
    code, _, talk = calib_here("evaluate", *inputs, "-q", "--plot", "a.png", "--plot-by", "class")
    assert (code, talk) == (
        2,
        "calib: --plot-by class: the inputs differ in their number of classes\n",
    )
    assert not (tmp_path / "a.png").exists()
    assert calib_here("evaluate", *inputs, "-q", "--plot", "a.png", "--report", "a.html")[0] == 0


@plots
def test_slices_are_drawn(calib_here: Any, tmp_path: Path):
    logits, labels = calibrated(300, 3)
    for name, sites in (("a", 5), ("b", 20)):
        site = np.arange(300) % sites
        np.savez(tmp_path / f"{name}.npz", logits=logits, labels=labels, site=site)
    code, _, talk = calib_here(
        "evaluate", "a.npz", "b.npz", "--by", "site", "--plot", "s.svg", "--plot-by", "slice"
    )
    assert code == 0, talk
    assert (tmp_path / "s.svg").stat().st_size > 5000
    # Without small multiples a figure needs no bins of slices.
    assert calib_here("evaluate", "a.npz", "--by", "site", "--plot", "c.svg")[0] == 0


@plots
def test_a_fit_that_is_not_written_is_not_drawn(
    calib_here: Any, sample_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: object, **__: object) -> None:
        raise UsageError("no")

    monkeypatch.setattr("calibcli.cli.fit_job.FitJob.write", fail)
    code, _, _ = calib_here(
        "fit", sample_data / "digits_val.parquet", "--plot", "a.png", "--report", "a.html"
    )
    assert code == 2
    assert list(tmp_path.iterdir()) == []
