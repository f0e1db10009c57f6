"""What the hub and the store can do to the seed job: each ends complete and proven, or in one clear line and no manifest."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from embedded.hub.repository import Repository, add
from embedded.hub.server import HubContent
from embedded.hub.trouble import Trouble, TroubledHub

pytestmark = pytest.mark.embedded

PREFIX = "mistral-24b/"
SHARD = "model-00002-of-00003.safetensors"
MIB = 2**20
# Files are looked into before they are brought: a trouble beyond what that look reads comes a second time, to the content.
AFTER_HEADER = 20_000
# Where nothing comes back, a test need not wait for long.
BRIEF = {"WEIGHTS_OUTAGE_SECONDS": "3"}


def failed(run: Any, s3: Any, *words: str) -> None:
    assert run.code == 1, run.output
    assert run.last.startswith("seeding failed: ")
    for word in words:
        assert word in run.last
    assert "Traceback" not in run.output
    assert s3.manifest() is None


# -- the hub -----------------------------------------------------------------------------------------------------------


def test_a_revision_that_is_not_there_is_named(seeder: Any, s3: Any) -> None:
    failed(seeder.run(WEIGHTS_REVISION="no-such"), s3, "has no revision 'no-such'")


def test_a_model_that_is_not_there_is_named(seeder: Any, s3: Any) -> None:
    failed(seeder.run(WEIGHTS_REPOSITORY="mistralai/none"), s3, "has no model 'mistralai/none'")


@pytest.mark.parametrize(("token", "advice"), [("", "pulumi config set --secret hubToken"), ("known", "as the owner of hubToken")])
def test_a_gated_model_says_what_to_accept_and_where(
    seeder: Any, s3: Any, hub: TroubledHub, repository: Repository, token: str, advice: str
) -> None:
    hub.content = HubContent({repository.id: replace(repository, gated=True)}, {"known": frozenset()})
    run = seeder.run(HF_TOKEN=token)
    failed(run, s3, f"sign in at {hub.url}/{repository.id}", "accept the conditions there", advice)


def test_a_gated_model_comes_with_a_token_that_is_never_shown(
    seeder: Any, hub: TroubledHub, repository: Repository, assert_seeded: Callable[..., None]
) -> None:
    hub.content = HubContent({repository.id: replace(repository, gated=True)}, {"known": frozenset({repository.id})})
    run = seeder.run(HF_TOKEN="known")
    assert run.code == 0, run.output
    assert_seeded()
    assert "known" not in run.output


def test_a_token_never_goes_to_another_origin(
    seeder: Any, hub: TroubledHub, other_origin: TroubledHub, repository: Repository, assert_seeded: Callable[..., None]
) -> None:
    hub.content = HubContent({repository.id: replace(repository, gated=True)}, {"known": frozenset({repository.id})})
    hub.storage_origin = other_origin.url
    other_origin.signer = hub.signer
    run = seeder.run(HF_TOKEN="known")
    assert run.code == 0, run.output
    assert_seeded()
    assert any(with_token for _, with_token in hub.seen)
    assert other_origin.seen
    assert not any(with_token for _, with_token in other_origin.seen)


def test_429_is_waited_out_for_as_long_as_the_hub_asks(seeder: Any, hub: TroubledHub, assert_seeded: Callable[..., None]) -> None:
    hub.troubles = [
        Trouble("status", "/resolve/", status=429, headers={"Retry-After": "1"}),
        Trouble("status", "/api/models", status=429, headers={"RateLimit": '"api";r=0;t=1'}),
    ]
    began = time.monotonic()
    assert seeder.run().code == 0
    assert time.monotonic() - began > 2
    assert_seeded()


def test_a_burst_of_500_is_sat_out(seeder: Any, hub: TroubledHub, assert_seeded: Callable[..., None]) -> None:
    hub.troubles = [Trouble("status", "/cdn/", times=6, status=500), Trouble("status", "/api/models", times=2, status=503)]
    assert seeder.run().code == 0
    assert_seeded()


def test_a_hub_that_stays_broken_is_given_up_with_its_answer(seeder: Any, s3: Any, hub: TroubledHub) -> None:
    hub.troubles = [Trouble("status", "/cdn/", times=10_000, status=502)]
    failed(seeder.run(**BRIEF), s3, f"the hub at {hub.url} answers 502", "for 3 s")


def test_a_hub_that_is_not_there_is_named(seeder: Any, s3: Any) -> None:
    failed(
        seeder.run(HF_ENDPOINT="http://127.0.0.43:1", **BRIEF),
        s3,
        "the hub at http://127.0.0.43:1 does not answer (connection refused), for 3 s; check hub.endpoint",
    )


def test_a_cut_body_goes_on_where_it_ended(
    seeder: Any, hub: TroubledHub, repository: Repository, assert_seeded: Callable[..., None]
) -> None:
    hub.troubles = [Trouble("cut", SHARD, times=3, after_bytes=3 * MIB)]
    assert seeder.run().code == 0
    assert_seeded()
    wanted = sum(entry.size for path, entry in repository.entries.items() if path.startswith(("model-", "tokenizer", "config")))
    assert hub.sent_bytes < wanted + MIB


def test_wrong_bytes_fail_the_job_and_name_the_file(seeder: Any, s3: Any, hub: TroubledHub) -> None:
    hub.troubles = [Trouble("flip", SHARD, times=2, after_bytes=AFTER_HEADER)]
    failed(seeder.run(), s3, SHARD, "is damaged: its SHA-256 is")
    assert PREFIX + SHARD not in list(s3.keys())
    assert not [upload for upload in s3.uploads() if upload["Key"].endswith(SHARD)]


def test_wrong_bytes_in_a_small_file_fail_the_job_too(seeder: Any, s3: Any, hub: TroubledHub) -> None:
    hub.troubles = [Trouble("flip", "config.json", times=2, after_bytes=3)]
    failed(seeder.run(), s3, "config.json", "git SHA-1")
    assert f"{PREFIX}config.json" not in list(s3.keys())


def test_the_run_after_wrong_bytes_repairs_it(seeder: Any, hub: TroubledHub, assert_seeded: Callable[..., None]) -> None:
    hub.troubles = [Trouble("flip", SHARD, times=2, after_bytes=AFTER_HEADER)]
    assert seeder.run().code == 1
    assert seeder.run().code == 0
    assert_seeded()


def test_wrong_bytes_before_a_kill_are_found_by_reading_back(
    seeder: Any, s3: Any, hub: TroubledHub, proxy: Any, assert_seeded: Callable[..., None]
) -> None:
    hub.troubles = [Trouble("flip", SHARD, times=2, after_bytes=AFTER_HEADER)]

    def hook(method: str, path: str) -> int | None:
        # All parts of that shard are there and their digest is known to be wrong: the kill comes just before the abort.
        if method == "DELETE" and SHARD in path:
            seeder.kill()
            return 500
        return None

    proxy.hook = hook
    assert seeder.run(AWS_ENDPOINT_URL=proxy.url).code == -9
    run = seeder.run()
    assert run.code == 0, run.output
    assert f"again from its first part: {SHARD} went on after a kill, and its SHA-256 is" in run.output
    assert_seeded()


def test_a_stall_is_noticed_and_gone_around(seeder: Any, hub: TroubledHub, assert_seeded: Callable[..., None]) -> None:
    hub.troubles = [Trouble("stall", SHARD, times=2, after_bytes=MIB)]
    assert seeder.run().code == 0
    assert_seeded()


def test_a_slow_drip_is_noticed_and_gone_around(seeder: Any, hub: TroubledHub, assert_seeded: Callable[..., None]) -> None:
    hub.troubles = [Trouble("drip", SHARD, times=2, after_bytes=MIB, seconds=0.1)]
    began = time.monotonic()
    assert seeder.run().code == 0
    assert time.monotonic() - began < 20
    assert_seeded()


def test_a_hub_that_only_drips_is_given_up_with_its_rate(seeder: Any, s3: Any, hub: TroubledHub) -> None:
    hub.troubles = [Trouble("drip", SHARD, times=10_000, after_bytes=0, seconds=0.1)]
    failed(seeder.run(**BRIEF), s3, SHARD, "sends only", "KiB/s")


def test_an_expired_url_is_asked_for_again(seeder: Any, hub: TroubledHub, assert_seeded: Callable[..., None]) -> None:
    hub.troubles = [Trouble("status", "/cdn/", times=5, status=403)]
    assert seeder.run().code == 0
    assert_seeded()


def test_a_redirect_to_urls_that_are_always_expired_is_given_up(seeder: Any, s3: Any, hub: TroubledHub) -> None:
    hub.signer.valid_seconds = -10
    failed(seeder.run(**BRIEF), s3, "answers 403 from its storage, to a fresh URL")


def test_urls_that_expire_while_a_file_is_read_are_renewed(
    seeder: Any, hub: TroubledHub, assert_seeded: Callable[..., None]
) -> None:
    hub.signer.valid_seconds = 1
    hub.bytes_per_second = 5e6
    assert seeder.run(WEIGHTS_CONNECTIONS="2", WEIGHTS_UPLOADS="1").code == 0
    assert_seeded()


def test_an_index_that_names_a_missing_shard_is_found_before_anything_is_written(
    seeder: Any, s3: Any, hub: TroubledHub, repository: Repository
) -> None:
    entries = {path: entry for path, entry in repository.entries.items() if path != SHARD}
    hub.content = HubContent({repository.id: replace(repository, entries=entries)})
    failed(seeder.run(), s3, "lacks 1 shards of its index", SHARD)
    assert s3.keys(PREFIX) == {}


def test_a_shard_whose_header_does_not_parse_is_found_before_anything_is_written(
    seeder: Any, s3: Any, hub: TroubledHub, repository: Repository, tmp_path: Path
) -> None:
    source = tmp_path / "noise"
    shutil.copytree(repository.folder, source)
    (source / SHARD).write_bytes(b"<!doctype html>" * 1000)
    broken = add(tmp_path / "hub", repository.id, source)
    hub.content = HubContent({broken.id: broken})
    failed(seeder.run(), s3, SHARD, "is no safetensors file: its header would have")
    assert s3.keys(PREFIX) == {}


# -- the store ---------------------------------------------------------------------------------------------------------

_SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


def test_503_slow_down_is_waited_out(seeder: Any, proxy: Any, assert_seeded: Callable[..., None]) -> None:
    left = [4]
    proxy.answers[503] = _SLOW_DOWN

    def hook(method: str, path: str) -> int | None:
        if method == "PUT" and "partNumber=2" in path and left[0]:
            left[0] -= 1
            return 503
        return None

    proxy.hook = hook
    run = seeder.run(AWS_ENDPOINT_URL=proxy.url)
    assert run.code == 0, run.output
    assert left == [0]
    assert_seeded()


def test_a_store_that_only_says_slow_down_is_given_up(seeder: Any, s3: Any, proxy: Any) -> None:
    proxy.answers[503] = _SLOW_DOWN
    proxy.hook = lambda method, path: 503 if "partNumber=2" in path else None
    failed(seeder.run(AWS_ENDPOINT_URL=proxy.url, **BRIEF), s3, "cannot write part 2 of", "SlowDown")


def test_a_store_that_refuses_connections_is_named(seeder: Any, s3: Any) -> None:
    failed(seeder.run(AWS_ENDPOINT_URL="http://127.0.0.42:1", **BRIEF), s3, "http://127.0.0.42:1 cannot be reached")


def test_a_store_that_dies_midway_is_named_and_the_next_run_goes_on(
    seeder: Any, s3: Any, hub: TroubledHub, assert_seeded: Callable[..., None]
) -> None:
    hub.bytes_per_second = 2e6
    seeder.start(WEIGHTS_CONNECTIONS="6", **BRIEF)
    end = time.monotonic() + 20
    while not s3.uploads() and time.monotonic() < end:
        time.sleep(0.02)
    s3.stop()
    run = seeder.finish()
    assert run.code == 1
    assert "cannot be reached" in run.last or "does not answer" in run.last
    s3.start()
    assert s3.manifest() is None
    hub.bytes_per_second = None
    assert seeder.run().code == 0
    assert_seeded()


def test_an_outage_of_the_store_is_waited_out_and_named(
    seeder: Any, s3: Any, hub: TroubledHub, repository: Repository, assert_seeded: Callable[..., None]
) -> None:
    hub.bytes_per_second = 3e6
    process = seeder.start(WEIGHTS_CONNECTIONS="4", WEIGHTS_OUTAGE_SECONDS="60", WEIGHTS_REPORT_SECONDS="0.2")
    end = time.monotonic() + 20
    while not s3.uploads() and time.monotonic() < end:
        time.sleep(0.02)
    s3.stop()
    hub.bytes_per_second = None
    said = []
    for line in process.stdout:
        said.append(line)
        if f"waiting for the S3 store at {s3.url}, which cannot be reached (connection refused), for " in line:
            break
    s3.start()
    run = seeder.finish()
    assert run.code == 0, "".join(said) + run.output
    assert_seeded()
    # What was fetched before the outage is not fetched again.
    assert hub.sent_bytes < sum(entry.size for entry in repository.entries.values()) + MIB


def test_a_hub_that_is_away_at_first_is_waited_for_and_named(
    seeder: Any, hub: TroubledHub, assert_seeded: Callable[..., None]
) -> None:
    hub.troubles = [Trouble("status", "/api/models", times=10_000, status=503)]
    process = seeder.start(WEIGHTS_OUTAGE_SECONDS="60", WEIGHTS_REPORT_SECONDS="0.2")
    assert process.stdout.readline().startswith(f"waiting for the hub at {hub.url}, which answers 503, for ")
    hub.troubles = []
    run = seeder.finish()
    assert run.code == 0, run.output
    assert_seeded()


def test_a_page_of_html_instead_of_a_store_is_called_that(seeder: Any, s3: Any, other_origin: TroubledHub) -> None:
    other_origin.troubles = [Trouble("status", "", times=10_000, status=200, headers={"Content-Type": "text/html"})]
    failed(
        seeder.run(AWS_ENDPOINT_URL=other_origin.url),
        s3,
        f"{other_origin.url} answers with HTML, so it is no S3 store: set objectStore.endpoint",
    )


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_wrong_credentials_are_called_that_and_not_repeated(seeder: Any, s3: Any, name: str) -> None:
    run = seeder.run(**{name: "wrong-secret-value"})
    failed(run, s3, "refuses the credentials")
    assert "wrong-secret-value" not in run.output


def test_no_credentials_at_all_are_called_that(seeder: Any, s3: Any) -> None:
    failed(seeder.run(AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="", AWS_EC2_METADATA_DISABLED="true"), s3, "no credentials for")


def test_a_missing_bucket_is_named(seeder: Any, s3: Any) -> None:
    failed(seeder.run(WEIGHTS_BUCKET="no-such-bucket"), s3, "bucket 'no-such-bucket' does not exist")


def test_a_part_that_the_store_lost_makes_the_file_start_again(
    seeder: Any, s3: Any, proxy: Any, assert_seeded: Callable[..., None]
) -> None:
    lost: list[Path] = []

    def hook(method: str, path: str) -> int | None:
        if method == "POST" and SHARD in path and "uploadId=" in path and not lost:
            upload = path.partition("uploadId=")[2].partition("&")[0]
            part = next(found for found in s3.folder.rglob("2") if upload in str(found))
            lost.append(part)
            part.unlink()
        return None

    proxy.hook = hook
    run = seeder.run(AWS_ENDPOINT_URL=proxy.url)
    assert run.code == 0, run.output
    assert lost
    assert f"again from its first part: {PREFIX}{SHARD}" in run.output
    assert_seeded()


def test_a_completion_that_answers_200_and_left_nothing_is_noticed(
    seeder: Any, s3: Any, proxy: Any, assert_seeded: Callable[..., None]
) -> None:
    """What versitygw does when it was killed while it joined parts; simulated, as the moment is hard to hit."""
    gone: list[str] = []
    proxy.answers[200] = b'<CompleteMultipartUploadResult><ETag>"0f-4"</ETag></CompleteMultipartUploadResult>'

    def hook(method: str, path: str) -> int | None:
        if method == "POST" and SHARD in path and "uploadId=" in path and not gone:
            upload = path.partition("uploadId=")[2].partition("&")[0]
            s3.client.abort_multipart_upload(Bucket="rhoai-artifacts", Key=PREFIX + SHARD, UploadId=upload)
            gone.append(upload)
            return 200
        return None

    proxy.hook = hook
    run = seeder.run(AWS_ENDPOINT_URL=proxy.url)
    assert run.code == 0, run.output
    assert "said it was complete, and has nothing" in run.output
    assert_seeded()


def test_an_upload_that_vanishes_midway_makes_the_file_start_again(
    seeder: Any, s3: Any, proxy: Any, assert_seeded: Callable[..., None]
) -> None:
    gone: list[str] = []

    def hook(method: str, path: str) -> int | None:
        if method == "PUT" and SHARD in path and "partNumber=3" in path and not gone:
            upload = path.partition("uploadId=")[2].partition("&")[0]
            s3.client.abort_multipart_upload(Bucket="rhoai-artifacts", Key=PREFIX + SHARD, UploadId=upload)
            gone.append(upload)
        return None

    proxy.hook = hook
    run = seeder.run(AWS_ENDPOINT_URL=proxy.url)
    assert run.code == 0, run.output
    assert f"again from its first part: {PREFIX}{SHARD}" in run.output
    assert_seeded()


def _can_mount() -> bool:
    command = ["unshare", "--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return bool(shutil.which("unshare")) and subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not _can_mount(), reason="this kernel lets no unprivileged process mount a small volume")
def test_a_full_volume_is_called_that(seeder: Any, small_s3: Any) -> None:
    run = seeder.run(AWS_ENDPOINT_URL=small_s3.url)
    failed(run, small_s3, "has no space left")


# -- settings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"WEIGHTS_PREFIX": "mistral-24b"}, "must be a plain folder name that ends with '/'"),
        ({"WEIGHTS_REPOSITORY": ""}, "WEIGHTS_REPOSITORY is not set"),
        ({"WEIGHTS_PART_MIB": "4"}, "below the 5 MiB"),
        ({"WEIGHTS_CONNECTIONS": "many"}, "WEIGHTS_CONNECTIONS 'many' is no number"),
        ({"WEIGHTS_MODE": "prune"}, "is unknown: use seed or verify"),
        ({"AWS_ENDPOINT_URL": "minio:9000"}, "S3 client cannot be made"),
    ],
)
def test_a_setting_that_cannot_work_is_one_line(seeder: Any, change: dict[str, str], words: str) -> None:
    run = seeder.run(**change)
    assert run.code == 1
    assert words in run.last
    assert len(run.output.splitlines()) == 1


@pytest.fixture
def other_origin(repository: Repository) -> Iterator[TroubledHub]:
    with TroubledHub(("127.0.0.44", 0), HubContent({repository.id: repository}), quiet=True) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def small_s3(make_s3: Callable[..., Any], tmp_path: Path) -> Iterator[Any]:
    """An S3 server whose volume holds 24 MiB."""
    folder = tmp_path / "small"
    script = 'mount -t tmpfs -o size=24m tmpfs "$FOLDER" && exec "$@"'
    os.environ["FOLDER"] = str(folder)
    wrap = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "small")
    server = make_s3(folder, wrap)
    server.client.create_bucket(Bucket="rhoai-artifacts")
    yield server
    server.stop()
    del os.environ["FOLDER"]
