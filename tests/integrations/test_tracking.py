"""What trackers of experiments keep of a run; `make test-tracking` has an environment for it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

mlflow = pytest.importorskip("mlflow", reason="make test-tracking has MLflow")

# The client calls what its own libraries deprecate.
pytestmark = pytest.mark.filterwarnings("ignore")

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "sample_data"
TOOLS = Path(sys.executable).parent
PAGE = (ROOT / "docs" / "tracking.md").read_text("utf-8")
PATIENCE = 180


def calib(folder: Path, *arguments: str, code: int = 0, **variables: str) -> tuple[str, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("CALIB_", "MLFLOW_"))}
    done = subprocess.run(
        [sys.executable, "-m", "calibcli", *arguments],
        cwd=folder,
        env={**clean, "PYTHONPATH": str(ROOT), "CALIB_CONFIG": "", **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done.stdout, done.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    calib(tmp_path, "fit", str(SAMPLES / "digits_val.parquet"), "-p", "gate.json", "-q")
    return tmp_path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a tracking server on this machine."""
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'runs.db'}", "--workers", "1"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
        try:
            for _ in range(PATIENCE):
                with socket.socket() as probe:
                    if not probe.connect_ex(("127.0.0.1", port)):
                        break
                assert process.poll() is None, (folder / "log").read_text()
                time.sleep(1)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(30)


def check(uri: str, folder: Path, tmp_path: Path) -> None:
    """Evaluate, log, and compare what the tracker has with the document."""
    out, err = calib(
        folder,
        *("evaluate", str(SAMPLES / "digits_test.parquet"), "-p", "gate.json", "--run", "v1"),
        *("--plot", "figure.png", "--log", f"mlflow:{uri}", "--format", "json", "-q"),
        *("--fail-if", "nll > 9", "--metrics", "nll,ece"),
        MLFLOW_EXPERIMENT_NAME="digits",
    )
    assert not err
    document = json.loads(out)
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("digits")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("v1", "FINISHED")
    for metric, part in document["metrics"].items():
        assert run.data.metrics[metric] == part["value"]
        assert run.data.metrics[f"{metric}_low"] == part["low"]
        assert run.data.metrics[f"{metric}_high"] == part["high"]
    digest = hashlib.sha256((folder / "gate.json").read_bytes()).hexdigest()
    assert run.data.params["params_sha256"] == digest
    assert run.data.tags["calib.gates"] == "1 gate passed"
    names = {each.path for each in client.list_artifacts(run.info.run_id)}
    assert names == {"calib.json", "figure.png", "gate.json"}
    stored = client.download_artifacts(run.info.run_id, "gate.json", str(tmp_path))
    assert hashlib.sha256(Path(stored).read_bytes()).hexdigest() == digest
    given = client.create_run(experiment.experiment_id).info.run_id
    inputs = [f"{name}={SAMPLES / 'digits_test.parquet'}" for name in ("a", "b")]
    calib(
        folder,
        *("evaluate", *inputs, "--metrics", "nll", "--bootstrap", "0", "--log", f"mlflow:{uri}"),
        MLFLOW_RUN_ID=given,
    )
    run = client.get_run(given)
    assert run.info.status == "RUNNING"
    assert set(run.data.metrics) == {"a/nll", "b/nll"}


def test_server_keeps_metrics_figure_and_parameters(
    server: str, folder: Path, tmp_path: Path
) -> None:
    check(server, folder, tmp_path)


def test_database_keeps_the_same(folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(folder)
    check(f"sqlite:///{folder / 'runs.db'}", folder, tmp_path)


def test_failure_to_log_comes_after_everything_else(folder: Path) -> None:
    out, err = calib(
        folder,
        *("evaluate", str(SAMPLES / "digits_test.parquet"), "--plot", "figure.png"),
        *("--append", "runs.jsonl", "--metrics", "nll", "--fail-if", "nll > 0"),
        *("--log", "mlflow:http://user:secret@127.0.0.1:9", "-q"),
        code=2,
        MLFLOW_HTTP_REQUEST_MAX_RETRIES="0",
    )
    assert "NLL" in out
    assert (folder / "figure.png").is_file()
    assert (folder / "runs.jsonl").is_file()
    assert err.count("\n") == 1
    assert "the files were written: figure.png, runs.jsonl; 1 of 1 gate failed: nll > 0" in err
    assert "secret" not in err


def blocks(heading: str) -> str:
    found = re.search(
        rf"^## {heading}$.*?^```python[^\n]*\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL
    )
    assert found is not None
    return found[1]


@pytest.mark.parametrize(
    ("heading", "library"),
    [("Weights & Biases", "wandb"), ("Hugging Face evaluate", "evaluate")],
)
def test_lines_of_the_page_run(folder: Path, heading: str, library: str) -> None:
    pytest.importorskip(library)
    test = str(SAMPLES / "digits_test.parquet")
    out, _ = calib(folder, "evaluate", test, "-p", "gate.json", "--format", "json", "-q")
    (folder / "evaluation.json").write_text(out)
    environment = {**os.environ, "WANDB_MODE": "offline", "HF_HUB_OFFLINE": "1"}
    subprocess.run([sys.executable, "-c", blocks(heading)], cwd=folder, env=environment, check=True)
    assert any((folder / name).is_dir() for name in ("wandb", "results"))


def test_dvc_compares_revisions(tmp_path: Path) -> None:
    """The recipe of docs/ci.md, run by DVC itself."""
    page = (ROOT / "docs" / "ci.md").read_text("utf-8")
    recipe = re.search(r"^### DVC$.*?^```yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert recipe is not None
    (tmp_path / "dvc.yaml").write_text(recipe[1])
    (tmp_path / "sample_data").symlink_to(SAMPLES)
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "calib"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m calibcli "$@"\n')
    program.chmod(0o755)
    path = os.pathsep.join([str(tmp_path / "bin"), str(TOOLS), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "DVC_NO_ANALYTICS": "1"}

    def dvc(*arguments: str) -> str:
        command = [str(TOOLS / "dvc"), *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert not done.returncode, done.stderr
        return done.stdout

    dvc("init", "--no-scm", "-q")
    dvc("repro", "-q")
    shown = json.loads(dvc("metrics", "show", "--json"))
    (numbers,) = [each["data"] for each in shown[""]["data"].values()]
    assert numbers["metrics"]["ece"]["low"] <= numbers["metrics"]["ece"]["high"]
    lock = (tmp_path / "dvc.lock").read_text()
    digest = hashlib.md5((tmp_path / "calibrated.json").read_bytes()).hexdigest()  # noqa: S324
    assert digest in lock
