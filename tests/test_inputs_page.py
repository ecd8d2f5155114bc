"""The table of ``docs/inputs.md``: each row's command is run on what the row says one has."""

from __future__ import annotations

import gzip
import io
import json
import re
import shlex
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import orc
from scipy.io import savemat

from calibcli.cli.app import run

PAGE = Path(__file__).parents[1] / "docs" / "inputs.md"
ROW = re.compile(r"\| (?P<what>.+?) \| `(?P<command>calib [^`]+)` \|")
_, TABLE, _ = re.split(
    r"<!-- (?:have: begin|have: end) -->", PAGE.read_text(encoding="utf-8"), maxsplit=2
)
ROWS = {match["command"].replace("\\|", "|"): match["what"] for match in ROW.finditer(TABLE)}

COUNT = 240
NAMES = np.array(["cat", "dog", "fish"])
RANDOM = np.random.default_rng(4)
Z = (2 * RANDOM.normal(size=(COUNT, 3))).astype(np.float32)
Y = (Z + RANDOM.gumbel(size=Z.shape)).argmax(axis=1)
Z64 = Z.astype(float)
P = np.exp(Z64) / np.exp(Z64).sum(axis=1, keepdims=True)

Builder = Callable[[], "float | str"]
"""Makes the input in the working folder; returns the NLL, or what `calib inspect` has to say."""

BUILDERS: dict[str, Builder] = {}


def builds(command: str) -> Callable[[Builder], Builder]:
    """Put a function among the builders."""

    def add(builder: Builder) -> Builder:
        BUILDERS[command] = builder
        return builder

    return add


def nll(probs: np.ndarray = P, labels: np.ndarray = Y, weights: np.ndarray | None = None) -> float:
    """The mean NLL of rows (n, K), of labels (n,) or of shares of the classes (n, K)."""
    logs = np.log(probs / probs.sum(axis=1, keepdims=True))
    losses = -logs[np.arange(len(logs)), labels] if labels.ndim == 1 else -(labels * logs).sum(1)
    return float(np.average(losses, weights=weights))


def parquet(name: str, **columns: object) -> None:
    pq.write_table(pa.table(columns), name)


def by_class(matrix: np.ndarray, pattern: str, names: object = NAMES) -> dict[str, np.ndarray]:
    return {pattern.replace("*", str(name)): matrix[:, k] for k, name in enumerate(names)}


@builds("calib evaluate val.parquet")
def _() -> float:
    parquet("val.parquet", logits=list(Z), label=Y)
    return nll()


@builds("calib evaluate positional.npz")
def _() -> float:
    np.savez("positional.npz", Z, Y)
    return nll()


@builds("calib evaluate logits.npy --labels labels.npy")
def _() -> float:
    np.save("logits.npy", Z)
    np.save("labels.npy", Y)
    return nll()


@builds("calib evaluate named.npz --logits out --labels answer")
def _() -> float:
    np.savez("named.npz", out=Z, answer=Y, other=Y[::-1])
    return nll()


@builds("calib evaluate frame.parquet")
def _() -> float:
    parquet("frame.parquet", **by_class(P, "*"), label=NAMES[Y])
    return nll()


@builds("calib evaluate wide.parquet --logits cat,dog,fish --labels animal")
def _() -> float:
    parquet("wide.parquet", age=Z[:, 0], **by_class(P, "*"), animal=NAMES[Y], id=Y)
    return nll()


@builds("calib evaluate columns.parquet --logits 'logit_[0-9]*'")
def _() -> float:
    parquet("columns.parquet", **by_class(Z, "logit_*", range(3)), logit_margin=Z[:, 0], label=Y)
    return nll()


@builds("calib evaluate tidy.feather")
def _() -> float:
    columns = by_class(P, ".pred_*") | {".pred_class": NAMES[P.argmax(1)], "truth": NAMES[Y]}
    table = pa.table(columns)
    # What `arrow::write_feather` of R writes.
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.ipc.new_file("tidy.feather", table.schema, options=options) as file:
        file.write_table(table)
    return nll()


def csv_text(delimiter: str = ",") -> str:
    rows = [[*map(repr, p.tolist()), NAMES[y]] for p, y in zip(P, Y, strict=True)]
    header = [*(f"prob_{name}" for name in NAMES), "label"]
    return "".join(delimiter.join(row) + "\n" for row in [header, *rows])


@builds("calib evaluate val.csv")
def _() -> float:
    Path("val.csv").write_text(csv_text())
    return nll()


@builds("calib evaluate val.tsv.gz")
def _() -> float:
    Path("val.tsv.gz").write_bytes(gzip.compress(csv_text("\t").encode()))
    return nll()


def json_lines(name: str, rows: list[dict[str, object]]) -> None:
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))


@builds("calib evaluate val.jsonl --logits response.scores --labels response.y")
def _() -> float:
    pairs = zip(Z.tolist(), Y.tolist(), strict=True)
    json_lines("val.jsonl", [{"response": {"scores": z, "y": y}} for z, y in pairs])
    return nll()


@builds("calib evaluate samples/ --by task")
def _() -> float:
    for task, begin in (("arc", 0), ("boolq", 120)):
        rows = [
            {
                "doc_id": k,
                "doc": {"question": "?", "choices": ["a", "b", "c"]},
                "target": int(y),
                "arguments": [["q", " a"], ["q", " b"], ["q", " c"]],
                "resps": [[[repr(v), "False"]] for v in z],
                "filtered_resps": [[repr(v), "False"] for v in z],
                "acc": float(np.argmax(z) == y),
            }
            for k, (z, y) in enumerate(zip(Z64.tolist(), Y, strict=True))
            if begin <= k < begin + 120
        ]
        json_lines(f"samples/samples_{task}_2026-01-02T03-04-05.000000.jsonl", rows)
    return nll()


@builds("calib evaluate answers.jsonl --logits top_logprobs --classes Yes,No")
def _() -> float:
    pairs = np.log(P[:, :2])
    shares = P[:, :2] / P[:, :2].sum(1, keepdims=True)
    labels = (RANDOM.random(COUNT) > shares[:, 0]).astype(int)
    tokens = np.array(["Yes", "No"])
    rows = [
        {
            "label": str(tokens[y]),
            "top_logprobs": [
                {"token": str(token), "logprob": float(value)}
                for token, value in zip(tokens, pair, strict=True)
            ],
        }
        for pair, y in zip(pairs, labels, strict=True)
    ]
    json_lines("answers.jsonl", rows)
    return nll(shares, labels)


@builds("calib evaluate choices.parquet")
def _() -> float:
    rows = [z[: 2 + (y == 2 or k % 2)] for k, (z, y) in enumerate(zip(Z.tolist(), Y, strict=True))]
    parquet("choices.parquet", logits=rows, label=Y)
    losses = [np.log(np.exp(row).sum()) - row[y] for row, y in zip(rows, Y, strict=True)]
    return float(np.mean(losses))


@builds("calib evaluate predictions.npz --ignore-label -100")
def _() -> float:
    labels = np.where(np.arange(COUNT) % 20 < 15, Y, -100)
    shape = (12, 20)
    np.savez("predictions.npz", predictions=Z.reshape(*shape, 3), label_ids=labels.reshape(shape))
    return nll(P[labels >= 0], Y[labels >= 0])


@builds("calib evaluate saved/")
def _() -> float:
    features = {"label": {"names": list(NAMES), "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    table = pa.table({"logits": list(Z), "label": Y}).replace_schema_metadata(metadata)
    Path("saved").mkdir()
    for part, begin in enumerate((0, 120)):
        path = f"saved/data-0000{part}-of-00002.arrow"
        with pa.ipc.new_stream(path, table.schema) as writer:
            writer.write_table(table.slice(begin, 120))
    Path("saved/dataset_info.json").write_text("{}")
    Path("saved/state.json").write_text("{}")
    return nll()


def bfloat16(values: np.ndarray) -> np.ndarray:
    """The upper halves of float32, cut and not rounded."""
    return (np.ascontiguousarray(values, "<f4").view("<u4") >> 16).astype("<u2")


def soft(values: np.ndarray) -> np.ndarray:
    """Probabilities of logits as bfloat16 has them."""
    cut = (bfloat16(values).astype("<u4") << 16).view("<f4").astype(float)
    shares = np.exp(cut)
    return shares / shares.sum(1, keepdims=True)


@builds("calib evaluate val.safetensors")
def _() -> float:
    scores, labels = bfloat16(Z).tobytes(), Y.astype("<i8").tobytes()
    ends = len(scores), len(scores) + len(labels)
    header = {
        "logits": {"dtype": "BF16", "shape": [COUNT, 3], "data_offsets": [0, ends[0]]},
        "labels": {"dtype": "I64", "shape": [COUNT], "data_offsets": [*ends]},
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    blob = len(text).to_bytes(8, "little") + text + scores + labels
    Path("val.safetensors").write_bytes(blob)
    return nll(soft(Z))


@builds("calib evaluate val.zarr")
def _() -> float:
    for name, array in (("logits", Z), ("labels", Y)):
        chunks = [100, *array.shape[1:]]
        Path("val.zarr", name).mkdir(parents=True)
        said = {"zarr_format": 2, "shape": array.shape, "chunks": chunks, "dtype": array.dtype.str}
        said |= {"compressor": {"id": "gzip"}, "filters": None, "order": "C", "fill_value": 0}
        Path("val.zarr", name, ".zarray").write_text(json.dumps(said))
        for k in range(3):
            block = np.zeros(chunks, array.dtype)
            part = array[100 * k : 100 * (k + 1)]
            block[: len(part)] = part
            key = ".".join(["0" if axis else str(k) for axis in range(array.ndim)])
            Path("val.zarr", name, key).write_bytes(gzip.compress(block.tobytes()))
    Path("val.zarr", ".zgroup").write_text('{"zarr_format": 2}')
    return nll()


@builds("calib evaluate bfloat16.npz")
def _() -> float:
    for name, array in (("logits", bfloat16(Z).view("V2")), ("labels", Y)):
        content = io.BytesIO()
        np.save(content, array)
        with zipfile.ZipFile("bfloat16.npz", "a") as archive:
            archive.writestr(f"{name}.npy", content.getvalue().replace(b"'|V2'", b"'<V2'"))
    return nll(soft(Z))


@builds("calib evaluate spark/ --logits probability")
def _() -> float:
    vectors = [{"type": 1, "size": None, "indices": None, "values": p} for p in P.tolist()]
    kind = pa.struct(
        {
            "type": pa.int8(),
            "size": pa.int32(),
            "indices": pa.list_(pa.int32()),
            "values": pa.list_(pa.float64()),
        }
    )
    Path("spark").mkdir()
    Path("spark/_SUCCESS").write_text("")
    table = {"probability": pa.array(vectors, kind), "label": Y.astype(float)}
    parquet("spark/part-00000-abc.snappy.parquet", **table)
    return nll()


@builds("calib evaluate masks.npz --ignore-label 255 --cluster image")
def _() -> float:
    masks = np.where(np.arange(COUNT) % 11 == 0, 255, Y)
    np.savez(
        "masks.npz",
        logits=Z.reshape(5, 6, 8, 3).transpose(0, 3, 1, 2),
        labels=masks.reshape(5, 6, 8),
    )
    return nll(P[masks < 255], Y[masks < 255])


@builds("calib evaluate predicted/ --labels references/ --input probs --renormalise")
def _() -> float:
    halves = P.astype(np.float16)
    Path("predicted").mkdir()
    Path("references").mkdir()
    for case in range(2):
        rows = slice(case * 120, case * 120 + 120)
        volume = np.ascontiguousarray(halves[rows].T).reshape(3, 4, 5, 6)
        np.savez(f"predicted/case_{case}.npz", probabilities=volume)
        np.save(f"references/case_{case}.npy", Y[rows].reshape(4, 5, 6).astype(np.uint8))
    return nll(halves.astype(float))


@builds("calib evaluate monai.npz --cluster image")
def _() -> float:
    scores = Z.reshape(2, 4, 5, 6, 3).transpose(0, 4, 1, 2, 3)
    np.savez("monai.npz", pred=scores, label=Y.reshape(2, 1, 4, 5, 6))
    return nll()


@builds("calib evaluate tokens.npz --ignore-label -100 --cluster sequence")
def _() -> float:
    labels = np.where(np.arange(COUNT) % 20 < 12, Y, -100)
    np.savez("tokens.npz", logits=Z.reshape(12, 20, 3), labels=labels.reshape(12, 20))
    return nll(P[labels >= 0], Y[labels >= 0])


@builds("calib evaluate members.npz --members mean-probs")
def _() -> float:
    np.savez("members.npz", logits=np.stack([Z, Z[:, ::-1]]), labels=Y)
    return nll((P + P[:, ::-1]) / 2)


@builds("calib evaluate onehot.npz")
def _() -> float:
    np.savez("onehot.npz", logits=Z, labels=np.eye(3, dtype=int)[Y])
    return nll()


@builds("calib evaluate tags.npz --multi-label")
def _() -> float:
    truth = Z + np.roll(Z, 1, axis=0) > 0
    np.savez("tags.npz", logits=Z, labels=truth)
    return float(np.log1p(np.exp(np.where(truth, -Z64, Z64))).mean())


@builds("calib evaluate soft.npz")
def _() -> float:
    shares = RANDOM.dirichlet(np.ones(3), COUNT)
    np.savez("soft.npz", logits=Z, labels=shares)
    return nll(P, shares)


@builds("calib evaluate votes.npz")
def _() -> float:
    votes = RANDOM.multinomial(10, np.ones(3) / 3, COUNT)
    np.savez("votes.npz", logits=Z, labels=votes)
    return nll(P, votes / 10)


@builds("calib evaluate counts.parquet --counts n")
def _() -> float:
    counts = RANDOM.integers(1, 9, COUNT)
    parquet("counts.parquet", logits=list(Z), label=Y, n=counts)
    return nll(weights=counts)


@builds("calib evaluate weighted.parquet --weights w")
def _() -> float:
    weights = RANDOM.random(COUNT) + 0.5
    parquet("weighted.parquet", logits=list(Z), label=Y, w=weights)
    return nll(weights=weights)


@builds("calib evaluate percent.parquet --input percent")
def _() -> float:
    parquet("percent.parquet", scores=list(100 * P), label=Y)
    return nll()


@builds("calib evaluate rounded.parquet --input probs --renormalise")
def _() -> float:
    rounded = np.maximum(np.round(P, 1), 0.1)
    parquet("rounded.parquet", probs=list(rounded), label=Y)
    return nll(rounded)


@builds("calib evaluate signs.parquet")
def _() -> float:
    parquet("signs.parquet", probability=P[:, 2], label=np.where(Y == 2, 1, -1))
    return nll(np.stack([1 - P[:, 2], P[:, 2]], axis=1), (Y == 2).astype(int))


@builds("calib evaluate codes.parquet --classes 10,20,30")
def _() -> float:
    parquet("codes.parquet", logits=list(Z), label=10 * Y + 10)
    return nll()


@builds("calib evaluate ordinal.parquet --classes low,medium,high")
def _() -> float:
    parquet("ordinal.parquet", **by_class(P, "prob_*", ("low", "medium", "high")), label=Y)
    return nll()


@builds("calib evaluate late.parquet --unlabelled skip")
def _() -> float:
    labelled = np.arange(COUNT) % 3 > 0
    labels = [int(y) if there else None for y, there in zip(Y, labelled, strict=True)]
    parquet("late.parquet", logits=list(Z), label=pa.array(labels, pa.int64()))
    return nll(P[labelled], Y[labelled])


@builds("calib evaluate verbal.parquet")
def _() -> float:
    correct = RANDOM.random(COUNT) < P[:, 0]
    parquet("verbal.parquet", confidence=P[:, 0], correct=correct)
    return nll(np.stack([1 - P[:, 0], P[:, 0]], axis=1), correct.astype(int))


@builds("calib evaluate boxes.parquet --cluster image")
def _() -> float:
    matched, names = Y == 0, NAMES[np.arange(COUNT) % 3]
    columns = {"score": P[:, 0], "matched": matched, "image": np.arange(COUNT) // 4}
    parquet("boxes.parquet", **columns, **{"class": names})
    return nll(np.stack([1 - P[:, 0], P[:, 0]], axis=1), matched.astype(int))


@builds("calib evaluate log.eval")
def _() -> float:
    samples = []
    for at, (row, label) in enumerate(zip(np.log(P).tolist(), Y.tolist(), strict=True)):
        top = [{"token": t, "logprob": v} for t, v in zip("ABC", row, strict=True)]
        answer = "ABC"[int(np.argmax(row))]
        token = {"token": answer, "logprob": max(row), "top_logprobs": top}
        choice = {"logprobs": {"content": [token]}}
        output = {"completion": answer, "choices": [choice]}
        known = {"id": at, "epoch": 1, "choices": ["x", "y", "z"], "target": "ABC"[label]}
        samples.append(known | {"output": output})
    with zipfile.ZipFile("log.eval", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.json", "{}")
        for sample in samples:
            archive.writestr(f"samples/{sample['id']}_epoch_1.json", json.dumps(sample))
    return nll()


@builds("calib evaluate scenario_state.json --cluster instance")
def _() -> float:
    states = []
    for at, (row, label) in enumerate(zip(np.log(P).tolist(), Y.tolist(), strict=True)):
        references = [
            {"output": {"text": name}, "tags": ["correct"] if k == label else []}
            for k, name in enumerate(NAMES.tolist())
        ]
        for k, value in enumerate(row):
            states.append(
                {
                    "instance": {"id": f"id{at}", "references": references},
                    "reference_index": k,
                    "request_mode": "original",
                    "train_trial_index": 0,
                    "result": {"completions": [{"text": "", "logprob": value}]},
                }
            )
    spec = {"method": "multiple_choice_separate_original"}
    document = {"adapter_spec": spec, "request_states": states}
    Path("scenario_state.json").write_text(json.dumps(document))
    return nll()


@builds("calib evaluate val.h5")
def _() -> float:
    h5py = pytest.importorskip("h5py", reason="pip install '.[test]' brings h5py")
    with h5py.File("val.h5", "w") as file:
        file["logits"], file["labels"] = Z, Y
    return nll()


@builds("calib evaluate val.orc")
def _() -> float:
    orc.write_table(pa.table({"logits": Z.tolist(), "label": Y}), "val.orc")
    return nll()


@builds("calib inspect val.mat")
def _() -> str:
    savemat("val.mat", {"logits": Z, "labels": Y[:, None] + 1})
    return "scipy.io.loadmat"


@builds("calib inspect model.pkl")
def _() -> str:
    Path("model.pkl").write_bytes(b"\x80\x04]\x94.")
    return "converting.md"


@builds("calib inspect delta/")
def _() -> str:
    Path("delta/_delta_log").mkdir(parents=True)
    parquet("delta/part-0.parquet", logits=list(Z), label=Y)
    Path("delta/_delta_log/00000000000000000000.json").write_text("{}\n")
    return "delta_scan"


def test_each_row_of_the_table_is_tried() -> None:
    assert ROWS.keys() == BUILDERS.keys()
    assert len(ROWS) > 30


@pytest.mark.parametrize("command", BUILDERS)
def test_the_command_of_a_row_does_what_the_table_says(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    expected = BUILDERS[command]()
    _, name, *arguments = shlex.split(command)
    if isinstance(expected, str):
        assert run([name, *arguments]) == 0
        assert expected in capfd.readouterr().out
        return
    measured = ["--metrics", "nll", "--bootstrap", "0", "--format", "csv", "-q"]
    code = run([name, *arguments, *measured])
    out, err = capfd.readouterr()
    assert code == 0, err
    value = next(line for line in out.splitlines() if ",nll," in line).split(",")[3]
    assert float(value) == pytest.approx(expected, rel=1e-5)
