"""`demo weights` against a real S3 server; the way into a cluster is left out, it is the other commands' too."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from typer.testing import CliRunner

from embedded.hub.trouble import TroubledHub
from mistral_on_l4.cli import Failure, weights
from mistral_on_l4.jobs.weights_limits import Limits
from mistral_on_l4.jobs.weights_store import Store

pytestmark = pytest.mark.embedded

PREFIX = "mistral-24b/"


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch, s3: Any, seeder: Any) -> Any:
    """Runs `demo weights ...`: (exit code, output, the Failure or None)."""
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    keys = (seeder.environment[names[0]], seeder.environment[names[1]])

    @contextmanager
    def store_of(_settings: Any, _stack: str, changing: bool = False) -> Iterator[Store]:
        yield Store("rhoai-artifacts", Limits(outage_seconds=2), endpoint=s3.url, keys=keys)

    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setattr(weights, "store_of", store_of)
    monkeypatch.setattr(weights, "prefixes", lambda _settings: [PREFIX])

    def run(*arguments: str) -> tuple[int, str, BaseException | None]:
        result = CliRunner().invoke(weights.app, list(arguments))
        return result.exit_code, " ".join(result.output.split()), result.exception

    return run


def test_a_bucket_without_the_checkpoint_is_not_called_complete(demo: Any) -> None:
    code, output, failure = demo("status")
    assert code == 1
    assert "not there" in output
    assert isinstance(failure, Failure)


def test_a_seeded_checkpoint_is_complete_and_verified(demo: Any, seeder: Any) -> None:
    assert seeder.run().code == 0
    assert demo("status")[0] == 0
    assert demo("verify") == (0, "mistral-24b/: as its manifest says", None)


def test_verify_reads_content_and_listing_only_looks_at_names(demo: Any, seeder: Any, s3: Any) -> None:
    assert seeder.run().code == 0
    with (s3.folder / "rhoai-artifacts" / PREFIX / "tokenizer.json").open("r+b") as content:
        content.write(b"\xff")
    assert demo("verify", "--listing")[0] == 0
    code, output, _ = demo("verify")
    assert code == 1
    assert "tokenizer.json: its SHA-256 is" in output


def test_prune_shows_first_and_then_deletes_only_what_belongs_to_no_checkpoint(demo: Any, seeder: Any, s3: Any) -> None:
    assert seeder.run().code == 0
    assert seeder.run(WEIGHTS_PREFIX="mistral-24b-w4a16/").code == 0  # of a service that the stack no longer has
    s3.client.put_object(Bucket="rhoai-artifacts", Key=f"{PREFIX}consolidated.safetensors", Body=b"stray")
    s3.client.put_object(Bucket="rhoai-artifacts", Key="other/team.bin", Body=b"not ours")
    s3.client.create_multipart_upload(Bucket="rhoai-artifacts", Key=f"{PREFIX}model.safetensors")
    before = s3.keys()
    code, output, _ = demo("prune")
    assert code == 0
    assert f"would delete {PREFIX}consolidated.safetensors" in output
    assert s3.keys() == before
    assert demo("prune", "--yes")[0] == 0
    left = set(s3.keys())
    assert left == {key for key in before if not key.startswith("mistral-24b-w4a16/")} - {
        f"{PREFIX}consolidated.safetensors",
        "_manifests/mistral-24b-w4a16.json",
    }
    assert "other/team.bin" in left
    assert s3.uploads() == []
    assert demo("verify")[0] == 0
    assert demo("prune")[1] == "nothing to delete"


def test_prune_ends_uploads_on_a_server_that_lists_them_by_whole_key_only(
    demo: Any, seeder: Any, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert seeder.run().code == 0
    s3.client.create_multipart_upload(Bucket="rhoai-artifacts", Key=f"{PREFIX}model-00001-of-00003.safetensors")
    every = Store.uploads
    # As MinIO does, which a stack on AWS runs.
    monkeypatch.setattr(Store, "uploads", lambda self, prefix: [] if prefix.endswith("/") else every(self, prefix))
    assert "would end an unfinished upload of mistral-24b/model-00001" in demo("prune")[1]
    assert demo("prune", "--yes")[0] == 0
    assert s3.uploads() == []


def test_prune_deletes_a_manifest_before_the_files_that_it_promises(demo: Any, seeder: Any) -> None:
    # Digits and capitals come before the underscore of _manifests.
    assert seeder.run(WEIGHTS_PREFIX="24b-of-old/").code == 0
    output = demo("prune")[1]
    assert output.index("would delete _manifests/24b-of-old.json") < output.index("would delete 24b-of-old/")


def test_prune_deletes_what_a_service_that_is_gone_had_begun(demo: Any, seeder: Any, s3: Any, hub: TroubledHub) -> None:
    assert seeder.run().code == 0
    before = s3.keys()
    hub.bytes_per_second = 8e6
    process = seeder.start(WEIGHTS_PREFIX="mistral-24b-w4a16/", WEIGHTS_CONNECTIONS="4")
    end = time.monotonic() + 20
    while not (s3.keys("mistral-24b-w4a16/model-") or process.poll() is not None):
        assert time.monotonic() < end
        time.sleep(0.01)
    seeder.kill()
    s3.client.put_object(Bucket="rhoai-artifacts", Key="mistral-24b-w4a16/theirs.bin", Body=b"not ours")
    assert demo("prune", "--yes")[0] == 0
    assert s3.keys() == {**before, "mistral-24b-w4a16/theirs.bin": 8}
    assert s3.client.list_multipart_uploads(Bucket="rhoai-artifacts").get("Uploads", []) == []


def test_prune_leaves_a_prefix_alone_that_a_job_may_be_writing(demo: Any, s3: Any) -> None:
    s3.client.put_object(Bucket="rhoai-artifacts", Key=f"{PREFIX}config.json", Body=b"{}")
    code, output, _ = demo("prune", "--yes")
    assert code == 0
    assert "left alone" in output
    assert list(s3.keys()) == [f"{PREFIX}config.json"]
