"""The stack's own setup script, run with the stand-in for mc against the stand-in for MinIO."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from mistral_on_l4.manifests.object_store import setup_data

pytestmark = pytest.mark.embedded

BUCKET = "rhoai-artifacts"
# No outgoing connection gets a port of this address while the server is away.
HOST = "127.0.0.44"
ROOT_PASSWORD = "pass/word+with@signs&"
READER, WRITER = ("reader-key", "reader-secret-1"), ("writer-key", "wri'ter<secret>&1")


class ObjectStore:
    """A started stand-in for MinIO, and the setup script as its Job runs it."""

    def __init__(self, folder: Path, port: int, images: Path, environment: dict[str, str], gateway: str) -> None:
        self.data, self.port = folder / "data", port
        self._folder, self._images, self._environment = folder, images, environment
        self.data.mkdir()
        (folder / "setup").mkdir()
        for name, text in setup_data(BUCKET).items():
            (folder / "setup" / name).write_text(text.replace("/setup/", f"{folder}/setup/"))
        self.log = folder / "minio.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._gateway = gateway

    def start(self) -> None:
        environment = {
            **self._environment,
            "MISTRAL_ON_L4_VERSITYGW": self._gateway,
            "MINIO_ROOT_USER": "root",
            "MINIO_ROOT_PASSWORD": ROOT_PASSWORD,
        }
        command = [str(self._images / "minio/bin/minio"), "server", str(self.data), "--address", f"{HOST}:{self.port}"]
        with self.log.open("ab") as out:
            self._process = subprocess.Popen(command, env=environment, stdout=out, stderr=out)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def stop(self) -> int:
        assert self._process is not None
        self._process.terminate()
        try:
            # versitygw itself gives open connections ten seconds.
            return self._process.wait(60)
        finally:
            self._process.kill()

    def mc_environment(self, **changed: str) -> dict[str, str]:
        return {
            **self._environment,
            "PATH": f"{self._images / 'mc/bin'}:/usr/bin:/bin",
            "MC_CONFIG_DIR": str(self._folder / ".mc"),
            "MC_HOST_store": f"http://root:pass%2Fword%2Bwith%40signs%26@{HOST}:{self.port}",
            "BUCKET": BUCKET,
            "READER_ACCESS_KEY": READER[0],
            "READER_SECRET_KEY": READER[1],
            "WRITER_ACCESS_KEY": WRITER[0],
            "WRITER_SECRET_KEY": WRITER[1],
            **changed,
        }

    def set_up(self, **changed: str) -> subprocess.CompletedProcess[str]:
        script = str(self._folder / "setup" / "setup.sh")
        environment = self.mc_environment(**changed)
        return subprocess.run(["/bin/sh", script], env=environment, capture_output=True, text=True, timeout=60, check=False)

    def mc(self, *words: str, said: str = "") -> subprocess.CompletedProcess[str]:
        environment = self.mc_environment()
        return subprocess.run(
            [str(self._images / "mc/bin/mc"), *words],
            env=environment,
            input=said,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def client(self, user: tuple[str, str]) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=f"http://{HOST}:{self.port}",
            aws_access_key_id=user[0],
            aws_secret_access_key=user[1],
            region_name="us-east-1",
            config=Config(retries={"max_attempts": 1}),
        )

    def forget_configuration(self) -> None:
        """What happens when the Job's pod is made anew."""
        shutil.rmtree(self._folder / ".mc")


@pytest.fixture
def store(
    tmp_path: Path,
    tool: Callable[[str], str],
    images: Path,
    image_environment: dict[str, str],
    await_condition: Callable[..., None],
) -> Iterator[ObjectStore]:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = probe.getsockname()[1]
    made = ObjectStore(tmp_path, port, images, image_environment, tool("versitygw"))
    made.start()
    yield made
    made.stop()


def denied(call: Callable[..., Any], **arguments: Any) -> bool:
    with pytest.raises(ClientError) as refused:
        call(Bucket=BUCKET, **arguments)
    return bool(refused.value.response["Error"]["Code"] == "AccessDenied")


def test_the_writer_writes_and_the_reader_only_reads(store: ObjectStore) -> None:
    done = store.set_up()
    assert done.returncode == 0, done.stderr
    writer, reader = store.client(WRITER), store.client(READER)
    writer.put_object(Bucket=BUCKET, Key="mistral-24b/config.json", Body=b"{}")
    upload = writer.create_multipart_upload(Bucket=BUCKET, Key="mistral-24b/shard")["UploadId"]
    writer.upload_part(Bucket=BUCKET, Key="mistral-24b/shard", UploadId=upload, PartNumber=1, Body=b"x")
    assert len(writer.list_parts(Bucket=BUCKET, Key="mistral-24b/shard", UploadId=upload)["Parts"]) == 1
    assert len(writer.list_multipart_uploads(Bucket=BUCKET, Prefix="mistral-24b/shard")["Uploads"]) == 1
    writer.abort_multipart_upload(Bucket=BUCKET, Key="mistral-24b/shard", UploadId=upload)
    assert reader.get_object(Bucket=BUCKET, Key="mistral-24b/config.json")["Body"].read() == b"{}"
    assert reader.list_objects(Bucket=BUCKET, Prefix="mistral-24b/")["Contents"][0]["Key"] == "mistral-24b/config.json"
    reader.head_bucket(Bucket=BUCKET)
    assert denied(reader.put_object, Key="mistral-24b/x", Body=b"")
    assert denied(reader.delete_object, Key="mistral-24b/config.json")
    assert denied(reader.create_multipart_upload, Key="mistral-24b/x")
    for user in (writer, reader):
        assert denied(user.put_bucket_policy, Policy="{}")
        with pytest.raises(ClientError):
            user.create_bucket(Bucket="another")


def test_setup_runs_again_with_and_without_what_it_remembered(store: ObjectStore) -> None:
    assert store.set_up().returncode == 0
    policy = store.client(("root", ROOT_PASSWORD)).get_bucket_policy(Bucket=BUCKET)["Policy"]
    assert store.set_up().returncode == 0
    store.forget_configuration()
    assert store.set_up().returncode == 0
    assert store.client(("root", ROOT_PASSWORD)).get_bucket_policy(Bucket=BUCKET)["Policy"] == policy
    assert len(json.loads(policy)["Statement"]) == 4


def test_a_new_secret_replaces_the_old_one_at_once(store: ObjectStore) -> None:
    store.set_up()
    assert store.set_up(WRITER_SECRET_KEY="another-secret").returncode == 0
    store.client((WRITER[0], "another-secret")).put_object(Bucket=BUCKET, Key="a", Body=b"")
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        store.client(WRITER).put_object(Bucket=BUCKET, Key="a", Body=b"")


def test_a_changed_policy_reaches_who_has_it(store: ObjectStore, tmp_path: Path) -> None:
    store.set_up()
    store.client(WRITER).put_object(Bucket=BUCKET, Key="a/b", Body=b"")
    narrower = tmp_path / "narrower.json"
    text = (tmp_path / "setup" / "weights-reader.json").read_text().replace(f"{BUCKET}/*", f"{BUCKET}/other/*")
    narrower.write_text(text)
    assert store.mc("admin", "policy", "create", "store", "weights-reader", str(narrower)).returncode == 0
    assert denied(store.client(READER).get_object, Key="a/b")
    store.client(WRITER).put_object(Bucket=BUCKET, Key="a/c", Body=b"")


def test_attaching_twice_answers_as_the_real_client_does(store: ObjectStore) -> None:
    store.set_up()
    again = store.mc("admin", "policy", "attach", "store", "weights-reader", "--user", READER[0])
    assert again.returncode == 1
    assert "The specified policy change is already in effect. (Specified policy update has no net effect)." in again.stderr
    nobody = store.mc("admin", "policy", "attach", "store", "weights-reader", "--user", "nobody")
    assert (nobody.returncode, "specified user does not exist" in nobody.stderr) == (1, True)
    unknown = store.mc("admin", "policy", "attach", "store", "unknown", "--user", READER[0])
    assert (unknown.returncode, "canned policy does not exist" in unknown.stderr) == (1, True)


def test_a_bucket_made_twice_is_an_error_without_the_flag(store: ObjectStore) -> None:
    store.set_up()
    assert store.mc("mb", f"store/{BUCKET}").returncode == 1
    assert store.mc("mb", "--ignore-existing", f"store/{BUCKET}").returncode == 0


def test_wrong_root_credentials_end_the_setup(store: ObjectStore) -> None:
    done = store.set_up(MC_HOST_store=f"http://root:wrong-password@{HOST}:{store.port}")
    assert done.returncode == 1
    assert "mc: <ERROR> Unable to make bucket" in done.stderr
    assert "wrong-password" not in done.stdout + done.stderr


def test_secrets_are_in_no_argument_no_log_and_no_readable_file(store: ObjectStore) -> None:
    done = store.set_up()
    assert ROOT_PASSWORD.encode() not in Path(f"/proc/{store.pid}/cmdline").read_bytes()
    said = done.stdout + done.stderr + store.log.read_text()
    for secret in (ROOT_PASSWORD, READER[1], WRITER[1]):
        assert secret not in said
    holding = [path for path in store.data.rglob("*") if path.is_file() and READER[1] in path.read_text(errors="replace")]
    assert holding, "users are kept in the volume"
    for path in holding:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_users_and_objects_outlive_a_restart_and_the_users_folder_is_no_bucket(store: ObjectStore) -> None:
    store.set_up()
    store.client(WRITER).put_object(Bucket=BUCKET, Key="a", Body=b"1")
    assert store.stop() == 0
    store.start()
    assert store.mc("ready", "store").returncode == 0
    assert store.client(READER).get_object(Bucket=BUCKET, Key="a")["Body"].read() == b"1"
    assert [bucket["Name"] for bucket in store.client(("root", ROOT_PASSWORD)).list_buckets()["Buckets"]] == [BUCKET]
    with pytest.raises(ClientError):
        store.client(("root", ROOT_PASSWORD)).get_object(Bucket=".minio.sys", Key="iam/users.json")


def test_the_probes_path_answers(store: ObjectStore) -> None:
    assert store.mc("ready", "store").returncode == 0
    with urllib.request.urlopen(f"http://{HOST}:{store.port}/minio/health/live", timeout=60) as answer:
        assert answer.status == 200


def test_setup_may_start_before_the_server(store: ObjectStore) -> None:
    store.stop()
    script = ["/bin/sh", "-c", "mc ready store && echo READY"]
    waiting = subprocess.Popen(script, env=store.mc_environment(), stdout=subprocess.PIPE, text=True)
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(0.5)
        store.start()
        assert "READY" in waiting.communicate(timeout=60)[0]
    finally:
        waiting.kill()


def test_a_volume_that_cannot_be_written_ends_the_server(
    store: ObjectStore, images: Path, image_environment: dict[str, str]
) -> None:
    folder = "/proc" if os.geteuid() == 0 else "/"
    environment = {**image_environment, "MINIO_ROOT_USER": "root", "MINIO_ROOT_PASSWORD": ROOT_PASSWORD}
    command = [str(images / "minio/bin/minio"), "server", folder]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert f"unable to write to {folder}" in done.stderr
