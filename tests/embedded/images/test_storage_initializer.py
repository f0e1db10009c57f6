"""KServe's own download code, started as the image's entrypoint, against the S3 server of the local stack."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import boto3
import pytest

pytestmark = pytest.mark.embedded

BUCKET = "rhoai-artifacts"
# No outgoing connection gets a port of this address while the server is away.
HOST = "127.0.0.45"


@pytest.fixture(scope="session")
def image_python(tool: Callable[[str], str]) -> str:
    """The interpreter of the image's locked environment."""
    return tool("storage-initializer-python")


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory, tool: Callable[[str], str], await_condition: Callable[..., None]) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("s3")
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        address = f"{HOST}:{probe.getsockname()[1]}"
    environment = {"ROOT_ACCESS_KEY": "root", "ROOT_SECRET_KEY": "rootsecret"}
    command = [tool("versitygw"), "--port", address, "--quiet", "posix", str(folder)]
    server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    client = boto3.client(
        "s3",
        endpoint_url=f"http://{address}",
        aws_access_key_id="root",
        aws_secret_access_key="rootsecret",
        region_name="us-east-1",
    )

    def answers() -> bool:
        try:
            client.list_buckets()
        except Exception:
            return False
        return True

    try:
        await_condition(answers, 60, "the S3 server's answer")
        client.create_bucket(Bucket=BUCKET)
        for key in ("mistral-24b/config.json", "mistral-24b/sub/tokenizer.json", "mistral-24b-fp8/config.json"):
            client.put_object(Bucket=BUCKET, Key=key, Body=key.encode())
        for number in range(8):
            client.put_object(Bucket=BUCKET, Key=f"big/shard-{number}", Body=os.urandom(24 * 2**20))
        yield client
    finally:
        # Nobody needs its data any more; asked to end, it would give open connections ten seconds.
        server.kill()
        server.wait()


@pytest.fixture
def environment(s3: Any, image_python: str, image_environment: Mapping[str, str]) -> dict[str, str]:
    return {
        **image_environment,
        "MISTRAL_ON_L4_STORAGE_PYTHON": image_python,
        "AWS_ENDPOINT_URL": s3.meta.endpoint_url,
        "AWS_ACCESS_KEY_ID": "root",
        "AWS_SECRET_ACCESS_KEY": "rootsecret",
    }


@pytest.fixture
def initializer(images: Path, environment: dict[str, str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*words: str, **changed: str) -> subprocess.CompletedProcess[str]:
        command = [str(images / "storage_initializer/bin/initializer-entrypoint"), *words]
        return subprocess.run(command, env={**environment, **changed}, capture_output=True, text=True, timeout=60, check=False)

    return run


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_exactly_the_prefix_arrives_in_a_folder_that_is_made(initializer: Callable[..., Any], tmp_path: Path) -> None:
    target = tmp_path / "mnt" / "models"
    done = initializer(f"s3://{BUCKET}/mistral-24b/", str(target))
    assert done.returncode == 0, done.stderr
    assert files(target) == {"config.json", "sub/tokenizer.json"}


def test_several_pairs_are_fetched(initializer: Callable[..., Any], tmp_path: Path) -> None:
    done = initializer(f"s3://{BUCKET}/mistral-24b/", str(tmp_path / "a"), f"s3://{BUCKET}/mistral-24b-fp8/", str(tmp_path / "b"))
    assert done.returncode == 0, done.stderr
    assert (files(tmp_path / "a"), files(tmp_path / "b")) == ({"config.json", "sub/tokenizer.json"}, {"config.json"})


@pytest.mark.parametrize(
    ("source", "changed", "said"),
    [
        (f"s3://{BUCKET}/nope/", {}, "No model found in nope/."),
        (f"s3://{BUCKET}/mistral-24b/", {"AWS_SECRET_ACCESS_KEY": "wrong"}, "403"),
        (f"s3://{BUCKET}/mistral-24b/", {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, "Could not connect to the endpoint URL"),
    ],
)
def test_a_failure_ends_it_with_one_and_the_reason_last(
    initializer: Callable[..., Any], tmp_path: Path, source: str, changed: dict[str, str], said: str
) -> None:
    done = initializer(source, str(tmp_path / "models"), **changed)
    assert done.returncode == 1
    assert said in done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize("words", [(), ("s3://a/b/",), ("s3://a/b/", "/x", "s3://c/")])
def test_words_that_are_no_pairs_are_refused(initializer: Callable[..., Any], words: tuple[str, ...]) -> None:
    done = initializer(*words)
    assert done.returncode == 1
    assert "Usage: initializer-entrypoint" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_initializer_takes_its_workers_along(
    images: Path, environment: dict[str, str], tmp_path: Path, await_condition: Callable[..., None], number: signal.Signals
) -> None:
    command = [str(images / "storage_initializer/bin/initializer-entrypoint"), f"s3://{BUCKET}/big/", str(tmp_path / "models")]
    running = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    tasks = Path(f"/proc/{running.pid}/task/{running.pid}/children")
    workers: list[str] = []

    def working() -> bool:
        workers[:] = tasks.read_text().split()
        return len(workers) >= 4 and any((tmp_path / "models").iterdir())

    try:
        await_condition(working, 60, "the start of the workers")
        running.send_signal(number)
        running.wait(60)
    finally:
        running.kill()
    # A worker's remains may still wait for whoever inherited them; they write nothing any more.
    await_condition(lambda: not any(Path(f"/proc/{worker}/exe").exists() for worker in workers), 60, "the end of the workers")


def test_jobs_get_the_images_packages(images: Path, environment: dict[str, str]) -> None:
    for name in ("python", "python3"):
        code = "import boto3, huggingface_hub, requests; print(boto3.__version__, huggingface_hub.__version__)"
        command = [str(images / "storage_initializer/bin" / name), "-c", code]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.stdout.split() == ["1.38.33", "0.32.4"], done.stderr
