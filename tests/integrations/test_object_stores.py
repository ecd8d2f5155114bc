"""Rows from an object store and back to it, on a server of S3's protocol on this machine."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pytest

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "sample_data"
PATIENCE = 120
BUCKET = "calib"

Calib = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def server() -> Iterator[dict[str, str]]:
    """What the environment of a command says of the server and of who asks."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    moto = [sys.executable, "-m", "moto.server", "-p", str(port)]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(moto, stdout=quiet, stderr=quiet) as started:
        end = time.monotonic() + PATIENCE
        while True:
            try:
                urllib.request.urlopen(f"{address}/moto-api/").close()  # noqa: S310 (ours)
                break
            except OSError:
                assert time.monotonic() < end
                time.sleep(0.1)
        yield {
            "AWS_ENDPOINT_URL": address,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        started.kill()


@pytest.fixture(scope="module")
def bucket(server) -> object:
    """A bucket with the sample data; what boto3 says of it is not what `calib` thinks."""
    client = boto3.client(
        "s3",
        endpoint_url=server["AWS_ENDPOINT_URL"],
        aws_access_key_id=server["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=server["AWS_SECRET_ACCESS_KEY"],
        region_name=server["AWS_DEFAULT_REGION"],
    )
    client.create_bucket(Bucket=BUCKET)
    for name in ("val", "test"):
        client.upload_file(SAMPLE / f"digits_{name}.parquet", BUCKET, f"{name}/rows.parquet")
    return client


@pytest.fixture
def calib(server, bucket, tmp_path) -> Calib:  # noqa: ARG001 (it is made first)
    """The command line with these credentials."""

    def call(*arguments: str, code: int = 0, **more: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **server, "PYTHONPATH": str(ROOT), "CALIB_CONFIG": "", **more}
        done = subprocess.run(
            [sys.executable, "-m", "calibcli", *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == code, done.stderr
        return done

    return call


def names(bucket, prefix: str) -> list[str]:
    listed = bucket.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
    return [each["Key"] for each in listed if each["Size"]]


def test_rows_go_in_and_out(calib, bucket, tmp_path) -> None:
    url = f"s3://{BUCKET}"
    fit = ("fit", f"{url}/val/", "-q", "-p", "p.json", "-o", f"{url}/one.parquet")
    calib(*fit)
    local = ("fit", str(SAMPLE / "digits_val.parquet"), "-q", "-p", "l.json", "-o", "one.parquet")
    calib(*local)
    bucket.download_file(BUCKET, "one.parquet", str(tmp_path / "there.parquet"))
    assert (tmp_path / "there.parquet").read_bytes() == (tmp_path / "one.parquet").read_bytes()
    apply = ("apply", "p.json", f"{url}/test/", "-o", f"{url}/parts/", "--workers", "processes:2")
    assert f"wrote {url}/parts/ (rows: 597)" in calib(*apply).stderr
    assert len(names(bucket, "parts/")) == 2
    calib("apply", "p.json", str(SAMPLE / "digits_test.parquet"), "-q", "-o", "parts/")
    measured = ("--metrics", "nll,ece", "--format", "json", "-q")
    there = json.loads(calib("evaluate", f"{url}/parts/", *measured).stdout)
    here = json.loads(calib("evaluate", "parts/", *measured).stdout)
    assert there["metrics"] == here["metrics"]
    assert "exists already; --force replaces it" in calib(*apply, code=2).stderr
    before = names(bucket, "parts/")
    calib(*apply, "--force")
    assert len(names(bucket, "parts/")) == 2
    assert names(bucket, "parts/") != before


def test_a_folder_that_was_never_finished_is_refused_and_can_be_replaced(calib, bucket) -> None:
    url = f"s3://{BUCKET}/broken/"
    calib("fit", f"s3://{BUCKET}/val/", "-q", "-p", "p.json")
    manifest = {"format": "calib-parts", "version": 1, "complete": False, "parts": []}
    key = "broken/_calib_manifest.json"
    bucket.put_object(Bucket=BUCKET, Key=key, Body=json.dumps(manifest).encode())
    left = "broken/part-00000-0123456789ab.parquet"
    bucket.put_object(Bucket=BUCKET, Key=left, Body=b"x")
    assert "its writing was broken off" in calib("evaluate", url, code=2).stderr
    apply = ("apply", "p.json", f"s3://{BUCKET}/test/", "-q", "-o", url)
    assert "--force replaces it" in calib(*apply, code=2).stderr
    calib(*apply, "--force")
    assert left not in names(bucket, "broken/")
    assert len(names(bucket, "broken/")) == 2


def test_the_endpoint_can_stand_in_the_address(calib, server) -> None:
    host = server["AWS_ENDPOINT_URL"].removeprefix("http://")
    address = f"s3://{BUCKET}/val/?endpoint_override={host}&scheme=http"
    done = calib("evaluate", address, "--metrics", "nll", AWS_ENDPOINT_URL="")
    assert "rows.parquet: 600 rows" in done.stdout


def test_a_bucket_that_is_not_there_is_one_line(calib) -> None:
    calib("fit", f"s3://{BUCKET}/val/", "-q", "-p", "p.json")
    for path in ("s3://absent/out/", "s3://absent/one.parquet"):
        done = calib("apply", "p.json", f"s3://{BUCKET}/test/", "-q", "-o", path, code=2)
        assert "Traceback" not in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
