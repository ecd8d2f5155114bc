"""The verdict: never against a number of its own document, and the same in every format."""

from __future__ import annotations

import io
import json
import re
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import calibcli
from calibcli.engine.data import open_data
from calibcli.engine.engine import Engine
from calibcli.engine.source import ArraySource
from calibcli.metrics.hypothesis_tests import TestResult as Result
from calibcli.metrics.panel import Panel
from calibcli.metrics.registry import METRICS
from calibcli.metrics.resampling import Bootstrap
from calibcli.report.comparison import change, verdict_lines
from calibcli.report.document import evaluate_document, judge_again
from calibcli.report.formats import RENDERERS
from calibcli.report.render_terminal import print_document
from calibcli.workflow.measuring import Through, measure
from calibcli.workflow.verdict import LARGE, Verdict, verdict

Array = np.ndarray[Any, Any]
SOURCE = {"name": "test.npz", "kind": "logits", "files": ["test.npz"], "picked": {}}
SOURCE |= {"absent_classes": [], "clusters": None}


def rows(
    seed: int, count: int, classes: int = 4, temperature: float = 1.0, bias: float = 0.0
) -> tuple[Array, Array]:
    """Logits, and labels of what a temperature and a bias of class 1 would make calibrated."""
    rng = np.random.default_rng(seed)
    logits = 2.5 * rng.standard_normal((count, classes))
    truth = logits / temperature
    truth[:, 1] += bias
    return logits, (truth + rng.gumbel(size=logits.shape)).argmax(axis=1)


def rare(seed: int, count: int, factor: float = 1.0) -> tuple[Array, Array]:
    """Log-odds of an event of 3 in 100, and whether it came."""
    rng = np.random.default_rng(seed)
    odds = 1.2 * rng.standard_normal(count) - 4.0
    labels = (rng.random(count) < 1 / (1 + np.exp(-odds))).astype(np.int64)
    return np.stack((np.zeros(count), odds + np.log(factor)), axis=1), labels


def document(logits: Array, labels: Array, *metrics: str, **more: Any) -> Any:
    data = open_data(Engine(threads=1), ArraySource(logits, labels, **more))
    (found,) = measure(data, [Through()], Panel(metrics or ("default",), bootstrap=Bootstrap(100)))
    return evaluate_document(found, source=SOURCE)  # type: ignore[arg-type]


def contradicted(document: Any) -> list[str]:
    """What of a document speaks against its verdict."""
    found, against = Verdict.of(document), []
    metrics = document["metrics"]
    if found.kind == "over" and not found.says > found.right:
        against.append("it says no more than came")
    if found.kind == "under" and not found.says < found.right:
        against.append("it says no less than came")
    if found.kind != "good":
        return against
    for name, metric in metrics.items():
        if "chance" in metric and metric["value"] > metric["chance"]["high"]:
            against.append(f"{name} above chance")
        ideal = METRICS[name].ideal
        if ideal is not None and "low" in metric and not metric["low"] <= ideal <= metric["high"]:
            against.append(f"{name} is not {ideal}")
    if metrics.get("ece", {}).get("high", 0.0) > LARGE:
        against.append("an error that matters may be there")
    for part in document.get("slices", ()):
        against += [each["name"] for each in part["slices"] if (each["adjusted_p"] or 1) < 0.05]
    if document.get("tests") and (document["tests"][-1]["p"] or 1) < 0.05:
        against.append("tests")
    return against


WORLDS = (
    "calibrated",
    "large",
    "overconfident",
    "underconfident",
    "one class",
    "two classes",
    "rare",
    "inflated",
    "few",
    "weights",
)


@cache
def worlds() -> dict[str, list[Any]]:
    return {
        "calibrated": [document(*rows(seed, 1500)) for seed in range(40)],
        "large": [document(*rows(seed, 20_000)) for seed in range(6)],
        "overconfident": [document(*rows(seed, 1500, temperature=1.6)) for seed in range(6)],
        "underconfident": [document(*rows(seed, 1500, temperature=0.6)) for seed in range(6)],
        "one class": [document(*rows(seed, 8000, bias=0.6)) for seed in range(6)],
        "two classes": [document(*rows(seed, 1500, classes=2)) for seed in range(20)],
        "rare": [document(*rare(seed, 4000)) for seed in range(20)],
        "inflated": [document(*rare(seed, 4000, factor=4.0)) for seed in range(6)],
        "few": [document(*rows(seed, count)) for seed in range(4) for count in (1, 7, 40)],
        "weights": [
            document(*rows(seed, 1500), weights=np.random.default_rng(seed).exponential(size=1500))
            for seed in range(20)
        ],
    }


# ---- against numbers ----


@pytest.mark.parametrize("world", WORLDS)
def test_no_number_of_the_document_speaks_against_the_verdict(world: str) -> None:
    for each in worlds()[world]:
        assert contradicted(each) == []


@pytest.mark.parametrize(
    ("world", "kinds"),
    [
        ("large", {"good"}),
        ("overconfident", {"over"}),
        ("underconfident", {"under"}),
        ("one class", {"over", "under", "mixed"}),
        ("inflated", {"over"}),
        ("few", {"unclear"}),
    ],
)
def test_what_is_wrong_is_seen(world: str, kinds: set[str]) -> None:
    assert {Verdict.of(each).kind for each in worlds()[world]} <= kinds


def test_calibrated_models_are_seldom_called_anything_else() -> None:
    kinds = [
        Verdict.of(each).kind
        for world in ("calibrated", "two classes", "rare", "weights", "few")
        for each in worlds()[world]
    ]
    wrong = [kind for kind in kinds if kind not in ("good", "unclear")]
    # Of 112; 5 in 100 are expected, more than 12 come up once in 200 times.
    assert len(wrong) <= 12
    assert kinds.count("good") > 10


def test_with_very_many_rows_small_errors_are_named_and_called_small() -> None:
    found = Verdict.of(document(*rows(0, 400_000, temperature=1.06), "ece", "accuracy"))
    assert found.kind in ("nearly", "over")
    odds = Verdict.of(document(*rows(1, 400_000, temperature=1.03), "ece", "accuracy"))
    assert odds.kind == "nearly"
    assert odds.text.startswith("nearly calibrated: says")
    assert re.search(
        r"; small, but no chance: ECE 0\.00\d+ "
        r"\(plug-in 0\.00\d+, by chance 0\.\d+ to 0\.\d+\)",
        odds.text,
    )


def test_rows_that_cannot_show_an_error_are_not_called_good() -> None:
    each = document(*rows(3, 300))
    found = Verdict.of(each)
    assert found.kind == "unclear"
    high = each["metrics"]["ece"]["high"]
    (bound,) = re.findall(r"an ECE of up to (0\.\d+) is not ruled out by 300 rows", found.text)
    assert high <= float(bound) <= high + 0.001


# ---- periods ----


@pytest.mark.parametrize(
    ("signals", "remark"),
    [
        (["within"] * 12, ""),
        (["within"] * 9 + ["high"] * 3, "above the control limits in 3 of 12 months"),
        (["within"] * 8 + ["low", "high"], "below the control limits in 1 of 10 months"),
        # One of 100 is out of its limits by chance in every fourth calibrated model.
        (["within"] * 99 + ["high"], ""),
        (["too few"] * 9 + ["within"], ""),
    ],
)
def test_periods_out_of_their_limits_are_told_where_chance_does_not_explain_them(
    signals: list[str], remark: str
) -> None:
    part: Any = {"column": "month", "periods": [{"signal": signal} for signal in signals]}
    found = verdict(document(*rows(5, 20_000)), periods=part)
    assert remark in found.text
    assert ("control limits" in found.text) == bool(remark)
    assert (found.kind == "mixed") == bool(remark)


# ---- slices and tests ----


def sliced(logits: Array, labels: Array, groups: Array, tests: tuple[Result, ...] = ()) -> Any:
    """A document with slices by a subject."""
    from calibcli.metrics.slices import BY, SliceSums, read_slices
    from calibcli.report.document import slices_part

    names = tuple(f"s{number}" for number in range(groups.max() + 1))
    source = ArraySource(logits, labels, keys={BY: groups}, key_names={BY: names})
    statistic = SliceSums(len(names), BY, None)
    panel = Panel(["default"], bootstrap=Bootstrap(100), also=(statistic,))
    (found,) = measure(open_data(Engine(threads=1), source), [Through()], panel)
    each = evaluate_document(found, source=SOURCE)  # type: ignore[arg-type]
    each["slices"] = [slices_part(read_slices(found.also[statistic], names, 0), "subject")]
    if tests:
        each["tests"] = [asdict(test) for test in tests]
    return judge_again(each)


def by_subject(*temperatures: float, count: int = 3000) -> tuple[Array, Array, Array]:
    parts = [rows(seed, count, temperature=t) for seed, t in enumerate(temperatures)]
    groups = np.repeat(np.arange(len(parts)), count)
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts]), groups


def test_subjects_on_the_other_side_of_the_mean_are_named() -> None:
    found = Verdict.of(sliced(*by_subject(3.0, 3.0, 0.6, 0.6, 0.6)))
    assert found.kind == "over"
    assert found.text.startswith("overconfident on average: says ")
    assert found.remarks == (
        "3 of 5 subjects are underconfident",
        "2 of 5 subjects are overconfident",
    )
    assert contradicted(sliced(*by_subject(3.0, 3.0, 0.6, 0.6, 0.6))) == []


def test_subjects_that_are_off_are_named_where_the_mean_is_right() -> None:
    found = Verdict.of(sliced(*by_subject(*[1.0] * 9, 1.7)))
    assert found.kind in ("mixed", "over")
    if found.kind == "mixed":
        assert "but not everywhere; 1 of 10 subjects is overconfident" in found.text


def test_a_mean_that_is_not_clearly_off_is_not_put_down_to_chance() -> None:
    # An interval of one figure may leave out what all figures together do not.
    text = Verdict("mixed", 0.36, 0.39, "1", ("ECE 0.1",)).text
    assert (
        text
        == "on average not clearly off (P(1) says 36 %, came 39 %), but not everywhere; ECE 0.1"
    )
    assert Verdict("mixed", 0.36, 0.361, "1").text.startswith("right on average (")


def test_calibrated_subjects_are_left_out() -> None:
    found = Verdict.of(sliced(*by_subject(*[1.0] * 10)))
    assert found.kind == "good"
    assert found.remarks == ()


def test_a_test_that_speaks_against_it_is_named() -> None:
    test = Result("combined", "all of them together", "", statistic=0.0, p=0.004)
    each = sliced(*by_subject(1.0, 1.0), tests=(test,))
    found = Verdict.of(each)
    assert found.kind in ("mixed", "nearly")
    assert "tests speak against calibration (p = 0.004)" in found.text
    assert contradicted(each) == []


def test_rows_that_a_fit_has_seen_are_never_good() -> None:
    each = document(*rows(0, 20_000))
    assert verdict(each).kind == "good"
    found = verdict(each, seen="a fit has seen them")
    assert found.kind == "unclear"
    assert found.text.endswith("; a fit has seen them")


# ---- the same in every format ----


def shown_in(each: Any) -> dict[str, str]:
    """The document in every format, its white space as single blanks."""
    formats = {name: RENDERERS[name](each) for name in ("json", "markdown", "github", "junit")}
    for width in (80, 120):
        text = io.StringIO()
        print_document(each, Console(file=text, width=width))
        formats[f"terminal {width}"] = text.getvalue()
    return {name: " ".join(text.split()) for name, text in formats.items()}


@pytest.mark.parametrize(
    "world", ["large", "overconfident", "one class", "rare", "inflated", "few"]
)
def test_every_format_has_the_same_sentence(world: str) -> None:
    each = worlds()[world][0]
    ((_, sentence),) = verdict_lines(each)
    assert sentence == each["verdict"]["text"]
    for name, text in shown_in(each).items():
        assert sentence in text, name
        if each["verdict"]["kind"] != "good":
            assert "well calibrated" not in text, name


def test_the_page_has_it_too(calib_here: Any, tmp_path: Path) -> None:
    logits, labels = rows(0, 2000, temperature=1.6)
    np.savez(tmp_path / "a.npz", logits=logits, labels=labels)
    arguments = ("evaluate", "a.npz", "--report", "a.html", "-q", "--format", "json")
    code, printed, _ = calib_here(*arguments)
    assert code == 0
    page = re.sub(r"<[^>]+>", " ", (tmp_path / "a.html").read_text(encoding="utf-8"))
    words = " ".join(page.replace("\N{NO-BREAK SPACE}", " ").split())
    sentence = json.loads(printed)["verdict"]["text"]
    assert sentence.replace("overconfident: says", "overconfident Says") in words
    assert "can be believed" not in words


def test_a_change_whose_interval_holds_0_is_unclear_whatever_the_metric() -> None:
    for name, metric in METRICS.items():
        for low, high in ((-0.1, 0.1), (0.0, 0.1), (-0.1, 0.0)):
            word = change(name, 0.5, 0.4, "-0.1", {"low": low, "high": high})
            assert word == ("unclear" if metric.better else ""), name


# ---- rows that a fit has seen ----


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """`val.npz` and `test.npz`: an overconfident model with three classes."""
    for seed, name in enumerate(("val", "test")):
        logits, labels = rows(seed, 600, classes=3, temperature=2.0)
        np.savez(tmp_path / f"{name}.npz", logits=logits, labels=labels)
    return tmp_path


def printed(calib_here: Any, *arguments: str) -> Any:
    code, page, said = calib_here(*arguments, "-q", "--format", "json")
    assert code == 0, said
    return json.loads(page)


SEEN = "a fit has seen these rows, which flatters it"


@pytest.mark.parametrize("params", ["p.json", "p.safetensors"])
def test_rows_that_a_fit_has_seen_are_called_so(calib_here: Any, files: Path, params: str) -> None:
    output = f"{params}.npz"
    printed(calib_here, "fit", "val.npz", "-p", params, "-o", output)
    found = printed(calib_here, "evaluate", "val.npz", "-p", params)
    assert found["seen"] == params
    assert SEEN in found["verdict"]["remarks"]
    assert found["verdict"]["kind"] != "good"
    # A copy has the same content, and another file has not.
    (files / "copy.npz").write_bytes((files / "val.npz").read_bytes())
    assert printed(calib_here, "evaluate", "copy.npz", "-p", params)["seen"] == params
    assert printed(calib_here, "evaluate", "test.npz", "-p", params)["seen"] is None
    assert printed(calib_here, "evaluate", "val.npz")["seen"] is None
    # The output of a fit says so of itself, and so does what comes of it.
    found = printed(calib_here, "evaluate", output)
    assert found["seen"] == output
    assert found["verdict"]["text"].endswith(SEEN)
    again = "again.npz"
    printed(calib_here, "apply", params, output, "--input", "probs", "-o", again)
    assert printed(calib_here, "evaluate", again)["seen"] == again


@pytest.mark.parametrize("suffix", [".parquet", ".npz", ".arrow"])
def test_what_apply_writes_says_so_only_of_rows_that_were_fitted(
    calib_here: Any, files: Path, suffix: str
) -> None:
    printed(calib_here, "fit", "val.npz", "-p", "p.json", "-o", f"o{suffix}")
    for name, seen in (("val", True), ("test", False)):
        output = f"{name}.calibrated{suffix}"
        printed(calib_here, "apply", "p.json", f"{name}.npz", "-o", output)
        assert printed(calib_here, "evaluate", output)["seen"] == (output if seen else None)
    assert (files / f"val.calibrated{suffix}").read_bytes() == (files / f"o{suffix}").read_bytes()


@pytest.mark.usefixtures("files")
def test_a_test_that_was_fitted_is_called_so(calib_here: Any) -> None:
    files_out = ("-p", "p.json", "-o", "o.npz", "--force")
    found = printed(calib_here, "fit", "val.npz", "--test", "val.npz", *files_out)
    assert SEEN in found["after"]["verdict"]["remarks"]
    found = printed(calib_here, "fit", "val.npz", "--test", "test.npz", *files_out)
    assert SEEN not in found["after"]["verdict"]["remarks"]
    assert printed(calib_here, "evaluate", "o.npz")["seen"] is None


# ---- fits ----


def test_a_fit_that_changed_nothing_says_so(calib_here: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    logits, labels = 3.0 * rng.standard_normal((500, 4)), rng.integers(0, 4, 500)
    np.savez(tmp_path / "val.npz", logits=logits, labels=labels)
    found = printed(calib_here, "fit", "val.npz", "-p", "p.json", "-o", "o.npz")
    assert found["fit"]["changed"] is False
    assert found["after"]["verdict"]["text"].endswith("; the fit changed nothing")
    assert found["after"]["metrics"]["nll"]["value"] == found["before"]["metrics"]["nll"]["value"]
    gate = ("--fail-if", "nll.after < nll.before", "--force", "-q")
    assert calib_here("fit", "val.npz", *gate)[0] == 0


def test_figures_under_the_target_shares_are_shown(calib_here: Any, tmp_path: Path) -> None:
    odds, labels = rare(0, 30_000)
    kept = (labels[:] == 1) | (np.arange(len(labels)) % 10 == 0)
    logits, labels = odds[kept] + [[0.0, np.log(10)]], labels[kept]
    share = float((rare(0, 30_000)[1] == 1).mean())
    np.savez(tmp_path / "val.npz", logits=logits, labels=labels)
    arguments = ("fit", "val.npz", "-m", "platt", "--target-prior", f"{1 - share},{share}")
    found = printed(calib_here, *arguments, "-p", "p.json", "-o", "o.npz")
    before, after = (
        found["target"][name]["metrics"]["nll"]["value"] for name in ("before", "after")
    )
    assert found["target"]["shares"] == pytest.approx([1 - share, share])
    assert found["after"]["metrics"]["nll"]["value"] > found["before"]["metrics"]["nll"]["value"]
    assert after < before
    assert "other class shares" in found["after"]["verdict"]["text"]
    verdicts = [found["target"][name]["verdict"] for name in ("before", "after")]
    assert verdicts[0]["kind"] == "over"
    assert verdicts[1]["right"] == pytest.approx(share, rel=1e-6)
    assert verdicts[1]["kind"] in ("good", "unclear")
    code, page, _ = calib_here(*arguments, "-q", "--force", "--report", "page.html")
    assert code == 0
    words = " ".join(page.split())
    assert "it is so by design" in words
    assert verdicts[1]["text"] in words
    assert found["after"]["verdict"]["text"] not in words
    # Rows that have these shares need no others.
    whole = rare(1, 30_000)
    np.savez(tmp_path / "test.npz", logits=whole[0] + [[0.0, np.log(10)]], labels=whole[1])
    found = printed(calib_here, *arguments, "--test", "test.npz", "--force")
    assert found["target"] is None
    assert "other class shares" not in found["after"]["verdict"]["text"]


def test_what_was_learnt_of_each_group_is_shown(calib_here: Any, tmp_path: Path) -> None:
    logits, labels, groups = by_subject(3.0, 0.6, count=1500)
    names = np.array(["ct", "mri"])[groups]
    np.savez(tmp_path / "val.npz", logits=logits, labels=labels, scan=names)
    arguments = ("fit", "val.npz", "--by", "scan", "-p", "p.json", "-o", "o.npz", "--force")
    found = printed(calib_here, *arguments)["groups"]
    learnt = {entry["name"]: entry["learnt"] for entry in found["groups"]}
    temperatures = {name: float(text.removeprefix("temperature ")) for name, text in learnt.items()}
    assert temperatures["ct"] == pytest.approx(3.0, rel=0.15)
    assert temperatures["mri"] == pytest.approx(0.6, rel=0.15)
    pages = [calib_here(*arguments, "-q", "--format", name)[1] for name in ("table", "markdown")]
    assert calib_here(*arguments, "-q", "--report", "page.html")[0] == 0
    pages.append((tmp_path / "page.html").read_text(encoding="utf-8"))
    pages.append(calib_here("inspect", "p.json")[1])
    for page in pages:
        words = " ".join(page.split())
        for text in (*learnt.values(), found["pooled"]):
            assert text in words


def test_a_change_of_unknown_noise_has_no_word_among_others(calib_here: Any, files: Path) -> None:
    metrics = ("--metrics", "nll,corp_class_wise_miscalibration", "--force", "-q")
    words = {}
    for replicates in ("100", "0"):
        code, page, _ = calib_here("fit", "val.npz", *metrics, "--bootstrap", replicates)
        assert code == 0
        (line,) = re.findall("class-wise miscalibration.*", page)
        words[replicates] = line.split()[-1]
    assert files.is_dir()
    assert words["0"] == "better"
    assert words["100"] != "better"


# ---- cases that were reported ----


def test_labels_of_other_rows(calib_here: Any, shared_data: Path) -> None:
    folder = shared_data / "cases" / "inputs" / "35-row-order-and-eval-hint"
    labels = str(folder / "y_shuffled.npy")
    arguments = ("fit", str(folder / "z.npy"), "--labels", labels, "-p", "p.json", "-o", "o.npz")
    found = printed(calib_here, *arguments)
    for name, value in (("nll", 3.400), ("ece", 0.539)):
        for part in ("before", "after"):
            assert found[part]["metrics"][name]["value"] == pytest.approx(value, abs=5e-4)
    assert found["after"]["verdict"]["text"].endswith("; the fit changed nothing")


def test_a_rare_event_is_not_good_before_the_fit_and_good_after(
    calib_here: Any, shared_data: Path
) -> None:
    folder = shared_data / "cases" / "inputs" / "23-binary-rare-event"
    found = printed(calib_here, "fit", str(folder / "risk.parquet"), "-p", "p.json", "-o", "o.npz")
    assert found["before"]["verdict"]["text"] == "too high: P(1) says 22 %, came 6.9 %"
    assert found["after"]["verdict"]["text"] == "well calibrated: P(1) says 6.9 %, came 6.9 %"
    arguments = ("fit", str(folder / "risk.parquet"), "-m", "temperature", "--force")
    assert printed(calib_here, *arguments)["after"]["verdict"]["kind"] == "over"


def test_undersampled_rows_and_the_shares_to_come(calib_here: Any, shared_data: Path) -> None:
    folder = shared_data / "cases" / "inputs" / "37-prior-shift"
    arguments = ("fit", str(folder / "val.parquet"), "--logits", "prob", "-m", "platt")
    found = printed(
        calib_here, *arguments, "--target-prior", "0.94,0.06", "-p", "p.json", "-o", "o.npz"
    )
    assert found["target"]["after"]["verdict"]["kind"] in ("good", "unclear")
    assert found["target"]["after"]["verdict"]["says"] == pytest.approx(0.06, abs=0.005)
    change = found["target"]["after"]["metrics"]["nll"]["change"]
    assert change["high"] < 0


def test_python_has_the_verdict_of_the_command(calib_here, tmp_path: Path) -> None:
    logits, labels = rows(3, 900, temperature=1.8)
    np.savez(tmp_path / "rows.npz", logits=logits, labels=labels)
    _, out, _ = calib_here("evaluate", tmp_path / "rows.npz", "-q", "--format", "json")
    document = json.loads(out)
    names = tuple(document["metrics"])
    evaluation = calibcli.evaluate(logits, labels, input="logits", metrics=names, bootstrap=200)
    found = calibcli.verdict_of(evaluation)
    assert found.stored() == document["verdict"]
    assert found.kind == "over"
