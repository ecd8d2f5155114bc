"""Logs of language models: nested fields, JSON in cells, choices, samples, top tokens."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from calibcli.cli.app import run
from calibcli.errors import CalibError, DataError, UsageError
from calibcli.tables import ReadOptions, open_dataset

RNG = np.random.default_rng(14)
COUNTS = RNG.choice([3, 4, 5], 300)
ROWS = [RNG.normal(size=count) * 3 for count in COUNTS]
TRUTH = [int(RNG.choice(len(row), p=np.exp(row) / np.exp(row).sum())) for row in ROWS]
NLL = np.mean([np.log(np.exp(row).sum()) - row[y] for row, y in zip(ROWS, TRUTH, strict=True)])
PADDED = np.full((300, 5), -np.inf)
for _at, _row in enumerate(ROWS):
    PADDED[_at, : len(_row)] = _row


def read(*paths: Path, **options: Any) -> tuple[np.ndarray, list[int]]:
    with open_dataset([str(path) for path in paths], ReadOptions(**options)) as dataset:
        chunks = list(dataset.chunks(64))
    labels = [] if chunks[0].labels is None else np.concatenate([c.labels for c in chunks]).tolist()
    return np.concatenate([chunk.scores for chunk in chunks]), labels


def parquet(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def picked(path: Path, **options: Any) -> dict[str, str]:
    with open_dataset([str(path)], ReadOptions(**options)) as dataset:
        return dict(dataset.picked)


# Nested fields


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_a_path_leads_to_a_field_within_another(tmp_path, form) -> None:
    rows = [
        {"response": {"logprobs": row[:3].tolist(), "gold": y % 3}, "seen": [{"x": {"y.z": 1.5}}]}
        for row, y in zip(ROWS, TRUTH, strict=True)
    ]
    path = tmp_path / f"t.{form}"
    if form == "jsonl":
        lines(path, rows)
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    scores, labels = read(
        path,
        logits="response.logprobs",
        labels="response.gold",
        input="logits",
        weights="seen.0.x.y.z",
    )
    np.testing.assert_array_equal(scores, np.array([row[:3] for row in ROWS]))
    assert labels == [y % 3 for y in TRUTH]
    assert read(
        path,
        logits="response.logprobs",
        labels="response.gold",
        weights="seen[0].x.y.z",
        input="logits",
    )
    for wrong, says in (
        ("response.logits", "no field 'logits' in 'response'; there are logprobs, gold"),
        ("seen.x", "a place is taken: seen.0"),
        ("response.gold.x", r"no field 'x' in 'response.gold'"),
    ):
        with pytest.raises(UsageError, match=says):
            read(path, logits=wrong, labels="response.gold")


def test_a_column_with_a_dot_in_its_name_is_taken_first(tmp_path) -> None:
    dotted = pa.array([[1.5, 2.0]] * 4)
    nested = pa.array([{"b": [3.0, 4.0]}] * 4)
    path = parquet(tmp_path / "t.parquet", **{"a.b": dotted, "a": nested, "label": [0, 1, 0, 1]})
    assert read(path, logits="a.b", input="logits")[0][0].tolist() == [1.5, 2.0]


def test_a_path_that_breaks_off_has_no_value(tmp_path) -> None:
    rows = [{"a": [{"z": [0.5, 1.5]}], "label": 0}, {"a": [], "label": 1}, {"a": None, "label": 1}]
    path = lines(tmp_path / "t.jsonl", rows)
    with pytest.raises(DataError, match=r"row 1: column 'a.0.z' has no value here"):
        read(path, logits="a.0.z", input="logits")


# JSON in cells


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_lists_in_json_are_read_from_cells(tmp_path, form) -> None:
    cells = [json.dumps(row[:3].tolist()) for row in ROWS]
    labels = [y % 3 for y in TRUTH]
    path = tmp_path / f"t.{form}"
    if form == "csv":
        text = "".join(f'"{cell}",{y}\n' for cell, y in zip(cells, labels, strict=True))
        path.write_text("logits,label\n" + text, encoding="utf-8")
    else:
        parquet(path, logits=cells, label=labels)
    scores, truth = read(path)
    np.testing.assert_array_equal(scores, np.array([row[:3] for row in ROWS]))
    assert truth == labels


def test_a_cell_that_is_no_json_is_named(tmp_path) -> None:
    cells = ["[0.5, 1]"] * 100
    cells[80] = "[0.5, oops]"
    path = parquet(tmp_path / "t.parquet", logits=cells, label=[0, 1] * 50)
    with pytest.raises(DataError, match="row 80: 'logits' is no JSON like that"):
        read(path)
    path = parquet(tmp_path / "t.parquet", logits=["[0.5 1.25]"] * 100, label=[0, 1] * 50)
    with pytest.raises(DataError, match=r"as NumPy prints them.*json.dumps"):
        read(path)


def test_tokens_that_only_later_cells_list_are_read(tmp_path) -> None:
    listed = [{"A": -0.5, "B": -1.0}] * 100 + [{"A": -3.0, "C": -0.1}] * 100
    labels = ["A"] * 100 + ["C"] * 100
    cells = parquet(tmp_path / "t.parquet", logprobs=list(map(json.dumps, listed)), label=labels)
    lines = tmp_path / "t.jsonl"
    rows = [{"logprobs": each, "label": y} for each, y in zip(listed, labels, strict=True)]
    lines.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    scores, truth = read(cells, logits="logprobs", classes=("A", "B", "C"))
    np.testing.assert_allclose(scores, read(lines, classes=("A", "B", "C"))[0])
    assert (scores.argmax(axis=1) == truth).all()


# Choices: rows of different lengths


def padded(fill: float | None) -> list[list[float | None]]:
    return [[*row.tolist(), *[fill] * (5 - len(row))] for row in ROWS]


@pytest.mark.parametrize("fill", ["short", None, np.nan, -np.inf])
@pytest.mark.parametrize("fixed", [False, True])
def test_short_rows_are_padded_with_impossible_classes(tmp_path, capsys, fill, fixed) -> None:
    if fill == "short" and fixed:
        values = pa.array([row.tolist() for row in ROWS], pa.large_list(pa.float64()))
    else:
        rows = [row.tolist() for row in ROWS] if fill == "short" else padded(fill)
        kind = pa.list_(pa.float64(), 5) if fixed else pa.list_(pa.float64())
        values = pa.array(rows, kind)
    path = parquet(tmp_path / "t.parquet", logits=values, label=TRUTH)
    scores, labels = read(path)
    np.testing.assert_array_equal(scores, PADDED)
    assert labels == TRUTH
    assert run(["evaluate", str(path), "--format", "csv", "--bootstrap", "0"]) == 0
    said = capsys.readouterr()
    line = next(line for line in said.out.splitlines() if ",nll," in line)
    assert float(line.split(",")[3]) == pytest.approx(NLL, rel=1e-12)
    assert "-inf mark impossible" in said.err
    assert ("rows have 3 to 5 choices" in said.err) == (fill != -np.inf)


def test_probabilities_of_short_rows_stay_probabilities(tmp_path) -> None:
    probs = [np.exp(row) / np.exp(row).sum() for row in ROWS]
    expected = np.array([np.log(each[y]) for each, y in zip(probs, TRUTH, strict=True)])
    for scale, options in ((1, {}), (100, {"input": "percent"})):
        rows = [(scale * each).tolist() for each in probs]
        path = parquet(tmp_path / "t.parquet", probs=pa.array(rows), label=TRUTH)
        scores, labels = read(path, **options)
        assert np.isneginf(scores).sum() == (5 - COUNTS).sum()
        np.testing.assert_allclose(scores[np.arange(300), labels], expected, rtol=1e-9)


def test_scores_of_short_rows_that_are_no_probabilities_later_are_refused(tmp_path) -> None:
    shares = [[0.25, 0.75], [0.5, 0.25, 0.25]] * 200
    path = parquet(tmp_path / "t.parquet", scores=[*shares, [2.5, 0.5]], label=[0] * 401)
    with pytest.raises(DataError, match="row 400: a probability is greater than 1"):
        read(path)


def test_a_number_of_classes_may_be_given(tmp_path) -> None:
    path = parquet(tmp_path / "t.parquet", logits=[[0.5, 1.0, 0.0]] * 4, label=[0, 1, 2, 1])
    assert read(path, num_classes=4)[0][0].tolist() == [0.5, 1.0, 0.0, -np.inf]
    with pytest.raises(DataError, match="row 0: has 3 scores for 2 classes"):
        read(path, num_classes=2)
    path = parquet(tmp_path / "t.parquet", logit_0=[0.5], logit_1=[1.0], label=[1])
    with pytest.raises(UsageError, match="--num-classes 4 pads lists"):
        read(path, num_classes=4)


def test_a_short_row_far_behind_is_refused_with_the_option(tmp_path) -> None:
    rows = [[0.5, 1.0, 0.25]] * 20_000
    rows[9_000] = [0.5, 1.0]
    path = parquet(tmp_path / "t.parquet", logits=pa.array(rows), label=[0, 1] * 10_000)
    with pytest.raises(DataError, match="--num-classes 3"):
        read(path)
    assert np.isneginf(read(path, num_classes=3)[0]).sum() == 1


@pytest.mark.parametrize("row", [[0.5, np.nan, 1.0], [0.5, None, 1.0, None]])
def test_a_gap_is_no_padding(tmp_path, row) -> None:
    rows = [[0.5, 1.0, 2.0, 1.0], [0.5, 1.0, 2.0], row]
    path = parquet(tmp_path / "t.parquet", logits=pa.array(rows), label=[0, 1, 0])
    with pytest.raises(DataError, match=r"row 2: a score is missing"):
        read(path)


# Samples of lm-evaluation-harness


def samples(rows: list[np.ndarray], truth: list[int], **more: Any) -> list[dict[str, Any]]:
    """Lines as the harness writes them: pairs are texts, the target is a number."""
    return [
        {
            "doc_id": at,
            "doc": {
                "question": "?",
                "choices": ["x"] * len(row),
                "answer": str(y),
                "n": at % 2 or "odd",
            },
            "target": y,
            "arguments": {
                f"gen_args_{k}": {"arg_0": "Question: ?", "arg_1": f" choice {k}"}
                for k in range(len(row))
            },
            "resps": [[[str(value), "False"]] for value in row],
            "filtered_resps": [[str(value), "False"] for value in row],
            "filter": "none",
            "metrics": ["acc"],
            "acc": float(row.argmax() == y),
            **{key: value[at] if isinstance(value, list) else value for key, value in more.items()},
        }
        for at, (row, y) in enumerate(zip(rows, truth, strict=True))
    ]


NAME = "samples_arc_challenge_2025-01-02T03-04-05.678901.jsonl"


def test_samples_are_scores_and_labels(tmp_path, capsys) -> None:
    path = lines(tmp_path / NAME, samples(ROWS, TRUTH))
    scores, labels = read(path)
    np.testing.assert_array_equal(scores, PADDED)
    assert labels == TRUTH
    assert "lm-evaluation-harness" in picked(path)["samples"]
    assert run(["evaluate", str(path), "--format", "csv", "--bootstrap", "0", "-q"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if ",nll," in line)
    assert float(line.split(",")[3]) == pytest.approx(NLL, rel=1e-12)


@pytest.mark.parametrize(
    "target",
    [
        lambda y: f"choice {y}",
        lambda y: f" choice {y}",
        str,
    ],
)
def test_targets_may_be_the_text_of_a_choice_or_its_number(tmp_path, target) -> None:
    rows = samples(ROWS, TRUTH, target=[target(y) for y in TRUTH])
    assert read(lines(tmp_path / NAME, rows))[1] == TRUTH


def digit_samples(target: Any, **more: Any) -> list[dict[str, Any]]:
    """Samples of which the choices are 1, 2, …, so that a digit may be a number or a text."""
    rows = samples(ROWS, TRUTH, target=[target(y) for y in TRUTH], **more)
    for row in rows:
        for k, argument in enumerate(row["arguments"].values()):
            argument["arg_1"] = f" {k + 1}"
    return rows


@pytest.mark.parametrize("target", [str, lambda y: str(y + 1)])
def test_digits_are_numbers_or_texts_of_choices_as_the_whole_file_shows(tmp_path, target) -> None:
    assert read(lines(tmp_path / NAME, digit_samples(target)))[1] == TRUTH


def test_digits_that_may_be_both_are_refused_with_a_command_for_each(tmp_path) -> None:
    path = lines(tmp_path / NAME, digit_samples(str))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    several = [row | {"acc": None} for row in rows if 0 < int(row["target"]) < 3]
    path = lines(tmp_path / NAME, several)
    with pytest.raises(UsageError, match=r"tonumber.*or jq -c"):
        read(path)
    expected = [int(row["target"]) for row in several]
    for meant, shift in ((int, 0), (lambda text: text + " ", 1)):
        path = lines(tmp_path / NAME, [row | {"target": meant(row["target"])} for row in several])
        assert read(path)[1] == [y - shift for y in expected]


def test_pairs_of_numbers_and_letters_without_the_texts_are_read(tmp_path) -> None:
    rows = samples(ROWS, TRUTH)
    for row, y, scores in zip(rows, TRUTH, ROWS, strict=True):
        row |= {"target": "ABCDE"[y], "filtered_resps": [[float(s), False] for s in scores]}
        del row["arguments"], row["acc"], row["resps"]
    scores, labels = read(lines(tmp_path / NAME, rows))
    np.testing.assert_array_equal(scores, PADDED)
    assert labels == TRUTH


def test_of_two_choices_the_accuracy_tells_the_right_one(tmp_path) -> None:
    two = [row[:2] for row in ROWS]
    truth = [y % 2 for y in TRUTH]
    rows = samples(two, truth, target="the same text after both")
    assert read(lines(tmp_path / NAME, rows))[1] == truth


def test_a_folder_of_tasks_is_one_table_by_task(tmp_path, capsys) -> None:
    short = [row[:3] for row in ROWS]
    third = [y % 3 for y in TRUTH]
    lines(tmp_path / NAME, samples(ROWS, TRUTH))
    rows = samples(short, third)
    for row in rows:
        row["doc"] = {"subject": "anatomy"}
    lines(tmp_path / NAME.replace("arc_challenge", "mmlu"), rows)
    (tmp_path / "results_2025.json").write_text("{}", encoding="utf-8")
    with open_dataset([str(tmp_path)], ReadOptions(keys={"by": "task"})) as dataset:
        assert dataset.columns == 5
        assert dataset.rows == 600
        assert dataset.key_names("by") == ("arc_challenge", "mmlu")
        columns = [chunk.columns for chunk in dataset.chunks(64, with_columns=True)]
    assert columns[-1].to_pydict()["doc_id"][-1] == "mmlu/299"
    assert columns[-1].to_pydict()["subject"][-1] == "anatomy"
    command = ["evaluate", str(tmp_path), "--by", "task", "--format", "json", "--bootstrap", "0"]
    assert run([*command, "-q"]) == 0
    assert "mmlu" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"acc": 0.5, "target": 7}, "row 0: the target '7' is none of the"),
        ({"target": [[0, 1]] * 300}, "row 0: the target"),
        ({"target": "elsewhere"}, "row 0: the target 'elsewhere' is none"),
        ({"filtered_resps": [["a text"]] * 300}, "row 0: has no log-likelihoods"),
        ({"filter": [str(at) for at in range(300)]}, r"row 1: .*once for each filter.*grep"),
    ],
)
def test_samples_that_are_no_choices_are_refused(tmp_path, change, says) -> None:
    path = lines(tmp_path / NAME, samples(ROWS, TRUTH, **change))
    with pytest.raises(CalibError, match=says):
        read(path)


def test_samples_that_contradict_their_accuracy_are_refused(tmp_path) -> None:
    rows = samples(ROWS, TRUTH)
    rows[17]["acc"] = 1.0 - rows[17]["acc"]
    with pytest.raises(DataError, match="row 17: the target"):
        read(lines(tmp_path / NAME, rows))


# The most probable tokens

TOKENS = ["Yes", "No", "Maybe", "yes", "The", "A", "B"]
WORDS = ("Yes", "No", "Maybe")
DRAWN = RNG.normal(size=(200, 7)) * 2 + np.array([3, 2, 0, -1, -1, -2, -3])
LOGS = DRAWN - np.log(np.exp(DRAWN).sum(axis=1, keepdims=True))
TOP = np.argsort(-LOGS, axis=1)[:, :4]
WORD = RNG.integers(0, 3, 200)


def restored(how: str) -> np.ndarray:
    """Log-probabilities of the three words from the four most probable tokens, row by row."""
    rows = []
    for logs, top in zip(LOGS, TOP, strict=True):
        probs = np.exp(logs[top])
        absent = [k for k in range(3) if k not in top]
        fill = probs.min()
        if how == "share" and absent:
            fill = min((1 - probs.sum()) / len(absent), fill)
        row = np.array([np.exp(logs[k]) if k in top else fill for k in range(3)])
        rows.append(np.log(row / row.sum()))
    return np.array(rows)


def listed(form: str) -> Any:
    rows = [[(TOKENS[k], float(logs[k])) for k in top] for logs, top in zip(LOGS, TOP, strict=True)]
    if form == "map":
        return pa.array(rows, pa.map_(pa.string(), pa.float64()))
    if form == "vllm":
        value = pa.struct(
            [("logprob", pa.float64()), ("rank", pa.int64()), ("decoded_token", pa.string())]
        )
        return pa.array(
            [
                [
                    (str(TOKENS.index(t)), {"logprob": v, "rank": 1, "decoded_token": t})
                    for t, v in row
                ]
                for row in rows
            ],
            pa.map_(pa.string(), value),
        )
    if form == "object":
        return pa.array([dict(row) for row in rows], pa.struct([(t, pa.float64()) for t in TOKENS]))
    return pa.array([[{"token": t, "logprob": v, "bytes": [1]} for t, v in row] for row in rows])


@pytest.mark.parametrize("form", ["list", "map", "vllm", "object"])
@pytest.mark.parametrize("how", [None, "share", "floor"])
def test_classes_that_are_not_listed_have_a_share_of_the_rest(tmp_path, form, how) -> None:
    path = parquet(
        tmp_path / "t.parquet", top_logprobs=listed(form), label=[WORDS[k] for k in WORD]
    )
    scores, labels = read(path, classes=WORDS, topk_rest=how)
    np.testing.assert_allclose(scores, restored(how or "share"), rtol=1e-9)
    assert labels == WORD.tolist()
    said = picked(path, classes=WORDS, topk_rest=how)["top"]
    assert f"--topk-rest {how or 'share'}" in said
    assert "'yes'" in said


def test_top_tokens_in_json_are_read_by_their_path(tmp_path) -> None:
    tokens = listed("list").to_pylist()
    rows = [
        {
            "choices": [
                {
                    "logprobs": {
                        "content": [
                            {
                                "token": row[0]["token"],
                                "logprob": row[0]["logprob"],
                                "top_logprobs": row,
                            }
                        ]
                    }
                }
            ],
            "label": WORDS[k],
        }
        for row, k in zip(tokens, WORD, strict=True)
    ]
    path = lines(tmp_path / "t.jsonl", rows)
    place = "choices.0.logprobs.content"
    with pytest.raises(UsageError, match=rf"--logits {place}.0.top_logprobs"):
        read(path)
    with pytest.raises(UsageError, match=rf"--logits {place}.0.top_logprobs"):
        read(path, logits=place)
    with pytest.raises(UsageError, match="--classes 'Maybe,No,Yes'"):
        read(path, logits=f"{place}.0.top_logprobs")
    scores, _ = read(path, logits=f"{place}.0.top_logprobs", classes=WORDS)
    np.testing.assert_allclose(scores, restored("share"), rtol=1e-9)


def test_objects_of_very_many_tokens_are_maps(tmp_path) -> None:
    rows = []
    for at, (logs, top) in enumerate(zip(LOGS, TOP, strict=True)):
        row = {TOKENS[k]: float(logs[k]) for k in top}
        rows.append(
            {"top_logprobs": row | {f"t{at}": -9.0, f"u{at}": -9.5}, "label": WORDS[WORD[at]]}
        )
    path = lines(tmp_path / "t.jsonl", rows)
    scores, _ = read(path, classes=WORDS)
    assert scores.shape == (200, 3)
    present = (TOP[:, :, None] == np.arange(3)).any(axis=1)
    whole = present.all(axis=1)
    np.testing.assert_allclose(scores[whole], restored("share")[whole], rtol=1e-9)


def test_spaces_before_words_do_not_matter_where_no_token_is_a_class_without(tmp_path) -> None:
    column = listed("list").to_pylist()
    for row in column:
        for each in row:
            each["token"] = " " + each["token"]
    path = parquet(
        tmp_path / "t.parquet", top_logprobs=pa.array(column), label=[WORDS[k] for k in WORD]
    )
    np.testing.assert_allclose(read(path, classes=WORDS)[0], restored("share"), rtol=1e-9)


def spaced(every: int) -> pa.Array:
    """Rows of tokens, of which one in so many has spaces before them."""
    column = listed("list").to_pylist()
    for row in column[::every]:
        for each in row:
            each["token"] = " " + each["token"]
    return pa.array(column)


def test_rows_of_which_only_some_have_spaces_are_refused_with_both_ways(tmp_path) -> None:
    labels = [WORDS[k] for k in WORD]
    path = parquet(tmp_path / "t.parquet", top_logprobs=spaced(2), label=labels)
    with pytest.raises(DataError, match=r"row 0: .*--topk-spaces strip .*--topk-spaces keep"):
        read(path, classes=WORDS)
    stripped = read(path, classes=WORDS, topk_spaces="strip")[0]
    np.testing.assert_allclose(stripped, restored("share"), rtol=1e-9)
    kept = read(path, classes=WORDS, topk_spaces="keep")[0]
    np.testing.assert_allclose(kept[1::2], restored("share")[1::2], rtol=1e-9)
    np.testing.assert_allclose(kept[::2], np.log(1 / 3))


def numbered(keep: int, *, rest: bool) -> dict[str, Any]:
    top = np.argsort(-LOGS, axis=1)[:, :keep]
    logs = np.take_along_axis(LOGS, top, 1)
    left = {"topk_rest": 1 - np.exp(logs).sum(axis=1)} if rest else {}
    label = RNG.integers(0, 7, 200)
    return {
        "topk_index": list(top.astype(np.int32)),
        "topk_logprob": list(logs),
        **left,
        "label": label,
    }


@pytest.mark.parametrize("rest", [False, True])
def test_the_most_probable_classes_and_the_rest_are_a_distribution(tmp_path, rest) -> None:
    columns = numbered(3, rest=rest)
    path = parquet(tmp_path / "t.parquet", **columns)
    scores, labels = read(path, num_classes=7)
    probs = np.exp(scores)
    np.testing.assert_allclose(probs.sum(axis=1), 1)
    top = np.array(columns["topk_index"])
    np.testing.assert_allclose(
        np.take_along_axis(scores, top, 1), np.array(columns["topk_logprob"]), rtol=1e-9, atol=1e-9
    )
    left = (1 - np.exp(np.array(columns["topk_logprob"])).sum(axis=1)) / 4
    np.testing.assert_allclose(np.sort(probs, axis=1)[:, :4], left[:, None].repeat(4, 1), rtol=1e-6)
    assert labels == columns["label"].tolist()
    with pytest.raises(UsageError, match="--num-classes N"):
        read(path)


def test_all_classes_kept_are_all_classes(tmp_path) -> None:
    path = parquet(tmp_path / "t.parquet", **numbered(7, rest=False))
    np.testing.assert_allclose(read(path, num_classes=7)[0], LOGS, rtol=1e-9)


@pytest.mark.parametrize(
    ("index", "logs", "says"),
    [
        ([0, 9], [-1.0, -2.0], "row 1: the class 9 is none of 7"),
        ([0, 0], [-1.0, -2.0], "row 1: a class is listed twice"),
        ([0, 1], [-1.0, 2.0], "row 1: the log-probability 2 is none"),
        ([0, 1], [-1.0, None], "row 1: the log-probability nan is none"),
        ([0, 1], [-0.1, -0.1], "row 1: the probabilities listed sum to 1.8"),
        ([0, 1], [-np.inf, -np.inf], "row 1: no token has a log-probability"),
        ([0], [-1.0, -2.0], "row 1: topk_index and topk_logprob have different lengths"),
    ],
)
def test_what_cannot_be_top_classes_is_located(tmp_path, index, logs, says) -> None:
    columns = {"topk_index": [[0, 1], index], "topk_logprob": [[-1.0, -2.0], logs], "label": [0, 1]}
    path = parquet(tmp_path / "t.parquet", **columns)
    with pytest.raises(DataError, match=says):
        read(path, num_classes=7)


# What a fit remembers


def test_what_was_padded_or_listed_is_repeated_for_other_files(tmp_path, capsys) -> None:
    four = [row[:4].tolist() for row in ROWS]
    first = parquet(tmp_path / "a.parquet", logits=[row.tolist() for row in ROWS], label=TRUTH)
    second = parquet(tmp_path / "b.parquet", logits=four, label=[0] * 300)
    params = str(tmp_path / "p.json")
    out = ["-o", str(tmp_path / "out.npz"), "--force", "-q"]
    assert run(["fit", str(first), "-m", "temperature", "-p", params, *out]) == 0
    assert json.loads(Path(params).read_text(encoding="utf-8"))["reading"]["num_classes"] == 5
    assert run(["apply", params, str(second), *out]) == 0
    assert np.load(tmp_path / "out.npz")["probs"][:, 4].tolist() == [0] * 300
    assert run(["apply", params, str(second), *out, "--num-classes", "6"]) == 2
    capsys.readouterr()
    columns = {"top_logprobs": listed("list"), "label": [WORDS[k] for k in WORD]}
    tokens = str(parquet(tmp_path / "c.parquet", **columns))
    fit = ["fit", tokens, "-m", "temperature", "-p", params, *out, "--classes", ",".join(WORDS)]
    assert run([*fit, "--topk-rest", "floor"]) == 0
    assert json.loads(Path(params).read_text(encoding="utf-8"))["reading"]["topk_rest"] == "floor"
    assert run(["apply", params, tokens, *out]) == 0
    assert run(["apply", params, tokens, *out, "--topk-rest", "share"]) == 2


# Reports of other harnesses


LETTERS = ("A", "B", "C", "D")


def inspect_sample(at: int, *, counts: bool = False) -> dict[str, Any]:
    """A sample as Inspect's solver for questions with choices writes it: ``ANSWER: B``."""
    random = np.random.default_rng(at)
    count = 3 + at % 2 if counts else 4
    logs = np.log(random.dirichlet(np.ones(4))[:count])
    answer = LETTERS[int(logs.argmax())]
    words = [("ANSWER", []), (":", []), (" " + answer, logs.tolist())]
    content = [
        {
            "token": word,
            "logprob": max(values, default=-0.01),
            "top_logprobs": [
                {"token": " " + letter, "logprob": value}
                for letter, value in zip(LETTERS, values, strict=False)
            ],
        }
        for word, values in words
    ]
    return {
        "id": f"q{at}",
        "epoch": 1,
        "input": "?",
        "choices": ["w", "x", "y", "z"][:count],
        "target": LETTERS[at % count],
        "output": {
            "model": "m",
            "completion": f"ANSWER: {answer}",
            "choices": [{"stop_reason": "stop", "logprobs": {"content": content}}],
        },
        "scores": {"choice": {"value": "C", "answer": answer}},
    }


def inspect_log(folder: Path, samples: list[dict[str, Any]], form: str) -> Path:
    about = {"version": 2, "status": "success", "eval": {"task": "arc", "dataset": {"samples": 3}}}
    if form == "eval":
        with zipfile.ZipFile(folder / "log.eval", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("_journal/start.json", json.dumps(about))
            for sample in samples:
                archive.writestr(f"samples/{sample['id']}_epoch_1.json", json.dumps(sample))
            archive.writestr("header.json", json.dumps(about))
        return folder / "log.eval"
    text = json.dumps(about | {"samples": samples}, indent=2)
    (folder / "log.json").write_text(text, encoding="utf-8")
    return folder / "log.json"


@pytest.mark.parametrize("form", ["eval", "json"])
@pytest.mark.parametrize("counts", [False, True])
def test_a_log_of_inspect_is_a_table(tmp_path, form, counts) -> None:
    samples = [inspect_sample(at, counts=counts) for at in range(40)]
    path = inspect_log(tmp_path, samples, form)
    scores, labels = read(path)
    wanted = np.full((40, 4), -np.inf)
    for row, sample in enumerate(samples):
        listed = sample["output"]["choices"][0]["logprobs"]["content"][2]["top_logprobs"]
        values = np.array([each["logprob"] for each in listed])
        wanted[row, : len(values)] = values - np.log(np.exp(values).sum())
    np.testing.assert_allclose(scores, wanted, rtol=1e-9)
    assert labels == [LETTERS.index(sample["target"]) for sample in samples]


def test_a_log_of_inspect_without_what_is_needed_is_refused(tmp_path) -> None:
    shuffled = inspect_sample(1)
    shuffled["output"]["completion"] = "ANSWER: " + ("B" if "A" in str(shuffled["scores"]) else "A")
    bare = inspect_sample(2)
    bare["output"]["choices"][0]["logprobs"] = None
    several = inspect_sample(3) | {"target": ["A", "B"]}
    silent = inspect_sample(4)
    silent["output"]["choices"][0]["logprobs"]["content"][2] |= {"token": "none"}
    for sample, problem in (
        (shuffled, "sample 1: answers .* choices were shuffled"),
        (bare, "sample 1: has no log-probabilities; run it with: inspect eval TASK --logprobs"),
        (several, "sample 1: has 2 targets"),
        (silent, "sample 1: has no answer such as 'ANSWER: A'"),
        ({"id": 1}, "sample 1: is no sample of Inspect"),
        (3, "sample 1: is no sample of Inspect"),
    ):
        path = inspect_log(tmp_path, [inspect_sample(0), sample], "json")
        with pytest.raises(DataError, match=problem):
            read(path)
    with pytest.raises(DataError, match="holds no samples"):
        read(inspect_log(tmp_path, [], "json"))


@pytest.mark.parametrize("form", ["eval", "json"])
def test_a_hurt_log_of_inspect_is_refused_or_read(tmp_path, form) -> None:
    path = inspect_log(tmp_path, [inspect_sample(at) for at in range(12)], form)
    whole = path.read_bytes()
    said = []
    for number in range(150):
        random = np.random.default_rng(number)
        content = bytearray(whole)
        at = int(random.integers(len(content)))
        content[at : at + int(random.integers(3))] = random.bytes(int(random.integers(3)))
        path.write_bytes(content)
        try:
            read(path)
        except CalibError as error:
            said.append(str(error))
    assert len(said) > 20
    assert not any("\n" in each for each in said)


def helm_states(count: int, *, calibrated: bool) -> tuple[list[dict[str, Any]], np.ndarray]:
    """Requests of HELM, one for each choice, and the scores (n, 4) that they mean."""
    random = np.random.default_rng(3)
    logs = {mode: -random.gamma(2, size=(count, 4)) for mode in ("original", "calibration")}
    states = [
        {
            "instance": {
                "input": {"text": "?"},
                "references": [
                    {"output": {"text": word}, "tags": ["correct"] if k == at % 4 else []}
                    for k, word in enumerate("wxyz")
                ],
                "split": "test",
                "id": f"id{at // 2}",
                "perturbation": {"name": "typos"} if at % 2 else None,
            },
            "reference_index": index,
            "request_mode": mode,
            "train_trial_index": 0,
            "result": {"completions": [{"text": "", "logprob": logs[mode][at, index]}]},
        }
        for at in range(count)
        for mode in (("original", "calibration") if calibrated else ("original",))
        for index in (2, 0, 1, 3)
    ]
    return states, logs["original"] - (logs["calibration"] if calibrated else 0)


@pytest.mark.parametrize("calibrated", [False, True])
def test_choices_of_helm_are_a_table(tmp_path, calibrated) -> None:
    states, wanted = helm_states(30, calibrated=calibrated)
    method = f"multiple_choice_separate_{'calibrated' if calibrated else 'original'}"
    path = tmp_path / "scenario_state.json"
    document = {"adapter_spec": {"method": method}, "request_states": states}
    path.write_text(json.dumps(document, indent=2), encoding="utf-8")
    scores, labels = read(path)
    np.testing.assert_allclose(scores, wanted)
    assert labels == [at % 4 for at in range(30)]


def test_answers_of_helm_are_their_probabilities(tmp_path) -> None:
    states = []
    for at in range(40):
        (state, *_), _ = helm_states(1, calibrated=False)
        state |= {"reference_index": None, "request_mode": None}
        state["output_mapping"] = dict(zip(LETTERS, "wxyz", strict=True))
        text = " A" if at % 3 else " C"
        state["result"] = {"completions": [{"text": text, "logprob": -0.02 * at}]}
        states.append(state)
    path = tmp_path / "scenario_state.json"
    document = {"adapter_spec": {"method": "multiple_choice_joint"}, "request_states": states}
    path.write_text(json.dumps(document), encoding="utf-8")
    scores, labels = read(path)
    np.testing.assert_allclose(scores[:, -1], np.exp(-0.02 * np.arange(40)))
    assert labels == [int(at % 3 > 0) for at in range(40)]


def test_what_is_wrong_with_a_state_of_helm_is_said(tmp_path) -> None:
    path = tmp_path / "scenario_state.json"
    states, _ = helm_states(2, calibrated=False)
    twice = [*states, states[0]]
    without = [dict(each, result=None) for each in states]
    several, _ = helm_states(2, calibrated=False)
    several[0]["instance"]["references"][1]["tags"] = ["correct"]
    for listed, problem in (
        (twice, "instance id0: choice 2 is there twice"),
        (without, "instance id0: the request has no result"),
        (several, "instance id0: 2 choices are correct"),
        ([{"train": 1}], "holds no results of HELM"),
        ([], "the log holds no request states"),
    ):
        spec = {"method": "multiple_choice_separate_original"}
        path.write_text(json.dumps({"adapter_spec": spec, "request_states": listed}))
        with pytest.raises(DataError, match=problem):
            read(path)


def test_samples_of_inspect_are_read_as_lines(tmp_path) -> None:
    rows = [
        {
            "id": at,
            "target": WORDS[k],
            "output": {
                "choices": [
                    {
                        "logprobs": {
                            "content": [
                                {
                                    "token": row[0]["token"],
                                    "logprob": row[0]["logprob"],
                                    "top_logprobs": row,
                                }
                            ]
                        }
                    }
                ]
            },
            "scores": {"choice": {"value": "C"}},
            "metadata": {"n": 1 if at % 2 else "one"},
        }
        for at, (row, k) in enumerate(zip(listed("list").to_pylist(), WORD, strict=True))
    ]
    path = lines(tmp_path / "samples.jsonl", rows)
    place = "output.choices.0.logprobs.content.0.top_logprobs"
    scores, labels = read(path, logits=place, labels="target", classes=WORDS)
    np.testing.assert_allclose(scores, restored("share"), rtol=1e-9)
    assert labels == WORD.tolist()
