"""A measurement as a run of MLflow: metrics with their intervals, what was measured, and files."""

from __future__ import annotations

import io
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

from calibcli.report.comparison import measured_input
from calibcli.report.document import is_of_several, results_of
from calibcli.report.formats import to_json
from calibcli.report.gate_results import verdict_on_gates
from calibcli.version import __version__

if TYPE_CHECKING:
    from calibcli.schema.documents import Judged

_ENDS = {"value": "", "estimate": "_estimate", "low": "_low", "high": "_high"}
_DOCUMENT = "calib.json"
_LONGEST = 500
"""Characters of a parameter or a tag; servers before 2.8 take no more."""

_RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
"""By itself the client waits for minutes for a server that is not there."""


def log_to_mlflow(
    uri: str,
    document: Judged,
    *,
    name: str | None,
    params_sha256: str | None,
    files: Sequence[str],
) -> None:
    """Make a run with metrics, parameters, tags and artifacts.

    The variables of MLflow hold: ``MLFLOW_EXPERIMENT_NAME`` or ``_ID`` say where it goes, and
    ``MLFLOW_RUN_ID`` names a run to add to, which is left open.

    Parameters
    ----------
    uri : str
        Of the tracking server, or of a database.
    document : dict
        Of ``calib evaluate``.
    name : str or None
        Of the run.
    params_sha256 : str or None
        Of the parameter file.
    files : sequence of str
        Artifacts.
    """
    os.environ.setdefault(_RETRIES, "2")
    # It prints where the run can be looked at, which is not what stdout is for here.
    with redirect_stdout(io.StringIO()):
        from mlflow import MlflowClient

        for library in ("mlflow", "alembic"):  # after the import, which sets the level
            logging.getLogger(library).setLevel(logging.WARNING)
        client = MlflowClient(tracking_uri=uri)
        given = os.environ.get("MLFLOW_RUN_ID")
        run = given or client.create_run(_experiment(client), run_name=name).info.run_id
        try:
            _fill(client, run, document, params_sha256, files)
        except BaseException:
            if not given:
                client.set_terminated(run, "FAILED")
            raise
        if not given:
            client.set_terminated(run)


def _experiment(client: Any) -> str:
    number = os.environ.get("MLFLOW_EXPERIMENT_ID")
    if number:
        return number
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "Default")
    experiment = client.get_experiment_by_name(name)
    return str(experiment.experiment_id if experiment else client.create_experiment(name))


def _fill(
    client: Any, run: str, document: Judged, params_sha256: str | None, files: Sequence[str]
) -> None:
    for key, value in _described(document, params_sha256):
        client.log_param(run, key, str(value)[:_LONGEST])
    for key, value in metrics_by_key(document).items():
        client.log_metric(run, key, value)
    client.set_tag(run, "calib.version", __version__)
    verdict = verdict_on_gates(document)
    if verdict:
        client.set_tag(run, "calib.gates", verdict[:_LONGEST])
    client.log_text(run, to_json(document), _DOCUMENT)
    for path in files:
        client.log_artifact(run, path)


def metrics_by_key(document: Judged) -> Mapping[str, float]:
    """``{"ece": 0.02, "ece_low": 0.01, …}``; of several inputs with the name of each before it."""
    numbers = {}
    for prefix, result in _results(document):
        for metric, part in result["metrics"].items():
            for end, suffix in _ENDS.items():
                value = part.get(end)
                if value is not None:
                    numbers[_key(f"{prefix}{metric}{suffix}")] = float(value)
    return numbers


def _described(document: Judged, params_sha256: str | None) -> Iterator[tuple[str, Any]]:
    for prefix, result in _results(document):
        yield _key(f"{prefix}input"), result["input"]["name"]
        yield _key(f"{prefix}rows"), result["rows"]
        yield _key(f"{prefix}classes"), result["classes"]
        params = result["params"]
    if params is not None:
        yield "params", params
        yield "params_sha256", params_sha256


def _results(document: Judged) -> Iterator[tuple[str, Any]]:
    for result in results_of(document):
        yield f"{measured_input(result)}/" * is_of_several(document), result


def _key(text: str) -> str:
    """A name as MLflow takes it."""
    return re.sub(r"[^\w\-. :/]", "_", text, flags=re.ASCII)
