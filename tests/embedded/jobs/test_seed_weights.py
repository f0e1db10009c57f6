"""The seed job against a real S3 server: what it brings, what it skips, and how it goes on after a kill."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from embedded.hub.repository import Repository
from embedded.hub.server import HubContent
from embedded.hub.trouble import Trouble, TroubledHub

pytestmark = pytest.mark.embedded

PREFIX = "mistral-24b/"
MIB = 2**20


def wait_for(what: str, condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, f"waited 20 s for {what}"
        time.sleep(0.01)


def test_a_checkpoint_arrives_whole_in_one_format_with_its_manifest_last(
    seeder: Any, s3: Any, assert_seeded: Callable[..., None]
) -> None:
    run = seeder.run()
    assert run.code == 0, run.output
    assert_seeded()
    assert "all proven" in run.last


def test_nothing_is_read_from_the_hub_when_the_bucket_is_right(seeder: Any, s3: Any, hub: TroubledHub) -> None:
    assert seeder.run().code == 0
    written = {item["Key"]: item["LastModified"] for item in s3.client.list_objects_v2(Bucket="rhoai-artifacts")["Contents"]}
    hub.seen.clear()
    run = seeder.run()
    assert run.code == 0
    assert run.last.startswith("nothing to do")
    assert hub.seen == []
    assert {
        item["Key"]: item["LastModified"] for item in s3.client.list_objects_v2(Bucket="rhoai-artifacts")["Contents"]
    } == written


def test_strays_are_named_by_every_run(seeder: Any, s3: Any) -> None:
    s3.client.put_object(Bucket="rhoai-artifacts", Key=f"{PREFIX}consolidated.safetensors", Body=b"stray")
    for _ in range(2):
        run = seeder.run()
        assert run.code == 0
        assert "warning: 1 objects below mistral-24b/ are no part of the checkpoint" in run.output
        assert f"{PREFIX}consolidated.safetensors; `demo weights prune` deletes them" in run.output
    assert run.last.startswith("nothing to do")


def test_a_branch_stays_the_commit_that_it_was_resolved_to(seeder: Any, hub: TroubledHub, repository: Repository, s3: Any) -> None:
    assert seeder.run().code == 0
    moved = replace(repository, commit="f" * 40)
    hub.content = HubContent({repository.id: moved})
    run = seeder.run()
    assert run.last.startswith("nothing to do")
    assert s3.manifest()["commit"] == repository.commit


def test_only_what_is_missing_is_fetched_again(seeder: Any, s3: Any, hub: TroubledHub, assert_seeded: Callable[..., None]) -> None:
    assert seeder.run().code == 0
    s3.client.delete_object(Bucket="rhoai-artifacts", Key=f"{PREFIX}model-00002-of-00003.safetensors")
    before = hub.sent_bytes
    run = seeder.run()
    assert run.code == 0, run.output
    assert_seeded()
    assert 17 * MIB <= hub.sent_bytes - before < 19 * MIB


def test_an_object_that_somebody_replaced_is_read_and_replaced_again(
    seeder: Any, s3: Any, assert_seeded: Callable[..., None]
) -> None:
    assert seeder.run().code == 0
    key = f"{PREFIX}model-00001-of-00003.safetensors"
    size = s3.keys()[key]
    s3.client.put_object(Bucket="rhoai-artifacts", Key=key, Body=b"\0" * size)
    run = seeder.run()
    assert run.code == 0, run.output
    assert "was written again by somebody" in run.output
    assert_seeded()


def test_a_bucket_filled_by_hand_is_proven_and_not_fetched(
    seeder: Any, s3: Any, hub: TroubledHub, repository: Repository, assert_seeded: Callable[..., None]
) -> None:
    for path in repository.entries:
        if path.startswith("model-"):
            s3.client.put_object(Bucket="rhoai-artifacts", Key=PREFIX + path, Body=(repository.folder / path).read_bytes())
    run = seeder.run()
    assert run.code == 0, run.output
    assert hub.sent_bytes < 5 * MIB
    assert_seeded()


def test_kills_at_random_moments_cost_no_more_than_the_parts_in_flight(
    seeder: Any, hub: TroubledHub, repository: Repository, assert_seeded: Callable[..., None]
) -> None:
    hub.bytes_per_second = 2e7
    # So few that a job which began anew each time would be caught: five times 12 MiB are more than is allowed.
    kills, in_flight = 5, 2
    few = {"WEIGHTS_CONNECTIONS": "1", "WEIGHTS_UPLOADS": "1"}
    moments = random.Random(6)
    for _ in range(kills):
        enough = hub.sent_bytes + moments.uniform(12, 22) * MIB
        process = seeder.start(**few)
        wait_for("bytes to flow", lambda: hub.sent_bytes > enough or process.poll() is not None)  # noqa: B023
        seeder.kill()
    hub.bytes_per_second = None
    run = seeder.run(**few)
    assert run.code == 0, run.output
    assert_seeded()
    wanted = sum(entry.size for path, entry in repository.entries.items() if path.startswith(("model-", "tokenizer")))
    assert hub.sent_bytes - wanted <= kills * in_flight * 5 * MIB + MIB


def test_a_kill_between_last_part_and_complete_reads_nothing_again(
    seeder: Any, hub: TroubledHub, proxy: Any, assert_seeded: Callable[..., None]
) -> None:
    def hook(method: str, path: str) -> int | None:
        if method == "POST" and "model-00003" in path and "uploadId" in path:
            seeder.kill()
            return 500
        return None

    proxy.hook = hook
    assert seeder.run(AWS_ENDPOINT_URL=proxy.url).code == -9
    hub.seen.clear()
    run = seeder.run()
    assert run.code == 0, run.output
    assert_seeded()
    # Its header is looked at in every run, by one request; a read of the file would be two more.
    assert len([path for path, _ in hub.seen if "model-00003" in path]) == 1


def test_a_kill_between_complete_and_manifest_leaves_only_the_manifest_to_write(
    seeder: Any, s3: Any, hub: TroubledHub, proxy: Any, assert_seeded: Callable[..., None]
) -> None:
    def hook(method: str, path: str) -> int | None:
        if method == "PUT" and path.endswith("_manifests/mistral-24b.json"):
            seeder.kill()
            return 500
        return None

    proxy.hook = hook
    assert seeder.run(AWS_ENDPOINT_URL=proxy.url).code == -9
    assert s3.manifest() is None
    before = hub.sent_bytes
    run = seeder.run()
    assert run.code == 0, run.output
    assert_seeded()
    assert hub.sent_bytes - before < MIB


def test_a_new_revision_replaces_files_ends_old_uploads_and_removes_what_it_lacks(
    seeder: Any, s3: Any, hub: TroubledHub, tmp_path: Path, assert_seeded: Callable[..., None], make_checkpoint: Any
) -> None:
    old = make_checkpoint(tmp_path / "old", seed=7, shards=4)
    new = make_checkpoint(tmp_path / "new", seed=8, shards=3)
    hub.content = HubContent({old.id: old})
    assert seeder.run(WEIGHTS_REVISION=old.commit).code == 0
    s3.client.create_multipart_upload(Bucket="rhoai-artifacts", Key=f"{PREFIX}model-00001-of-00003.safetensors")
    hub.content = HubContent({new.id: new})
    run = seeder.run(WEIGHTS_REVISION=new.commit)
    assert run.code == 0, run.output
    assert "ended an unfinished upload" in run.output
    assert "removed mistral-24b/model-00004-of-00004.safetensors" in run.output
    assert_seeded(new)


def test_the_old_manifest_is_gone_before_the_first_object_changes(
    seeder: Any, s3: Any, hub: TroubledHub, proxy: Any, tmp_path: Path, make_checkpoint: Any
) -> None:
    assert seeder.run().code == 0
    new = make_checkpoint(tmp_path / "new", seed=9)
    hub.content = HubContent({new.id: new})
    order: list[str] = []

    def hook(method: str, path: str) -> int | None:
        if method == "DELETE" and path.endswith("_manifests/mistral-24b.json"):
            order.append("manifest deleted")
        if method in ("PUT", "POST") and f"/{PREFIX}" in path:
            order.append("object written")
        return None

    proxy.hook = hook
    assert seeder.run(AWS_ENDPOINT_URL=proxy.url, WEIGHTS_REVISION=new.commit).code == 0
    assert order[0] == "manifest deleted"


def test_a_stopped_pod_says_so_and_the_next_one_goes_on(
    seeder: Any, s3: Any, hub: TroubledHub, assert_seeded: Callable[..., None]
) -> None:
    hub.bytes_per_second = 2e6
    process = seeder.start(WEIGHTS_CONNECTIONS="4")
    wait_for("bytes to flow", lambda: hub.sent_bytes > 2 * MIB)
    process.terminate()
    run = seeder.finish()
    # Not 1, by which the Job would fail for good (manifests/jobs.py): it starts another pod.
    assert run.code == 143
    assert run.last == "seeding failed: told to stop (SIGTERM); the next run goes on where this one was"
    assert s3.manifest() is None
    hub.bytes_per_second = None
    assert seeder.run().code == 0
    assert_seeded()


def test_a_stopped_pod_does_not_wait_for_one_stalled_connection_after_another(seeder: Any, hub: TroubledHub) -> None:
    hub.troubles.append(Trouble("stall", "model-", times=100, after_bytes=MIB))
    process = seeder.start(WEIGHTS_STALL_SECONDS="120", WEIGHTS_CONNECTIONS="16")
    # All parts of three shards are asked for, 12 of 5 MiB at most.
    wait_for("connections to stall", lambda: hub.sent_bytes > 12 * MIB)
    process.terminate()
    # The kubelet kills after 30 s, and then nobody gives the Lease back.
    assert process.wait(timeout=18) == 143


def killed_with_three_uploads_open(seeder: Any, s3: Any, hub: TroubledHub, speed: float = 2e6, **changes: str) -> None:
    """A run that was ended midway; the notes name all uploads before the first part is asked for."""
    hub.bytes_per_second = speed
    seeder.start(WEIGHTS_CONNECTIONS="4", **changes)
    wait_for("uploads", lambda: len(s3.uploads()) == 3 and hub.sent_bytes > 6 * MIB)
    seeder.kill()
    hub.bytes_per_second = None


def test_an_upload_is_not_left_behind_by_a_run_that_needs_none(
    seeder: Any, s3: Any, hub: TroubledHub, assert_seeded: Callable[..., None]
) -> None:
    killed_with_three_uploads_open(seeder, s3, hub)
    run = seeder.run(WEIGHTS_PART_MIB="64")
    assert run.code == 0, run.output
    assert_seeded()


def test_a_file_that_was_copied_here_meanwhile_ends_its_upload(
    seeder: Any, s3: Any, hub: TroubledHub, repository: Repository, assert_seeded: Callable[..., None]
) -> None:
    killed_with_three_uploads_open(seeder, s3, hub)
    name = "model-00001-of-00003.safetensors"
    s3.client.put_object(Bucket="rhoai-artifacts", Key=PREFIX + name, Body=(repository.folder / name).read_bytes())
    run = seeder.run()
    assert run.code == 0, run.output
    assert_seeded()


def test_an_upload_in_larger_parts_than_may_be_held_now_begins_anew(
    seeder: Any, s3: Any, hub: TroubledHub, assert_seeded: Callable[..., None]
) -> None:
    killed_with_three_uploads_open(seeder, s3, hub, 4e6, WEIGHTS_PART_MIB="16")
    run = seeder.run(WEIGHTS_PART_MIB="5")
    assert run.code == 0, run.output
    assert_seeded()
    etags = {item["ETag"].strip('"') for item in s3.client.list_objects_v2(Bucket="rhoai-artifacts", Prefix=PREFIX)["Contents"]}
    # 17 MiB in parts of 16 would be joined of 2; memory is bounded by the parts of now.
    assert len([etag for etag in etags if etag.endswith("-4")]) == 3


def test_files_of_a_revision_that_was_given_up_midway_do_not_stay(
    seeder: Any, s3: Any, hub: TroubledHub, tmp_path: Path, assert_seeded: Callable[..., None], make_checkpoint: Any
) -> None:
    old = make_checkpoint(tmp_path / "old", seed=7, shards=4)
    new = make_checkpoint(tmp_path / "new", seed=8, shards=3)
    hub.content = HubContent({old.id: old})
    hub.bytes_per_second = 8e6
    seeder.start(WEIGHTS_REVISION=old.commit, WEIGHTS_CONNECTIONS="4")
    wait_for("a shard", lambda: any(key.endswith("-of-00004.safetensors") for key in s3.keys(PREFIX)))
    seeder.kill()
    hub.content, hub.bytes_per_second = HubContent({new.id: new}), None
    run = seeder.run(WEIGHTS_REVISION=new.commit)
    assert run.code == 0, run.output
    assert_seeded(new)


def test_progress_is_told_in_lines_with_rate_and_eta(seeder: Any, hub: TroubledHub) -> None:
    hub.bytes_per_second = 5e6
    run = seeder.run(WEIGHTS_REPORT_SECONDS="0.3", WEIGHTS_CONNECTIONS="6")
    lines = [line for line in run.output.splitlines() if line.startswith("progress ")]
    assert len(lines) > 2
    assert "MB/s, ETA" in lines[1]
    assert any("model-00001-of-00003.safetensors" in line for line in lines)


def test_verify_finds_a_flipped_byte_that_has_the_right_size_and_name(seeder: Any, s3: Any) -> None:
    assert seeder.run().code == 0
    assert seeder.run(WEIGHTS_MODE="verify").last == "s3://rhoai-artifacts/mistral-24b/ is whole"
    # Behind the server's back: the listing still shows the old size and ETag.
    file = s3.folder / "rhoai-artifacts" / PREFIX / "model-00002-of-00003.safetensors"
    with file.open("r+b") as content:
        content.seek(MIB)
        content.write(b"\xff\x00\xff")
    run = seeder.run(WEIGHTS_MODE="verify")
    assert run.code == 1
    assert "model-00002-of-00003.safetensors: its SHA-256 is" in run.output


def test_the_notes_are_json_that_names_uploads_and_parts_size(seeder: Any, s3: Any, hub: TroubledHub) -> None:
    hub.bytes_per_second = 1e6
    seeder.start()
    wait_for("the notes", lambda: "_manifests/mistral-24b.unfinished.json" in set(s3.keys()))
    wait_for("uploads in them", lambda: len(json.loads(s3.bytes("_manifests/mistral-24b.unfinished.json"))["uploads"]) == 3)
    seeder.kill()
    uploads = json.loads(s3.bytes("_manifests/mistral-24b.unfinished.json"))["uploads"]
    assert {upload["part_bytes"] for upload in uploads.values()} == {5 * MIB}
    assert {item["UploadId"] for item in s3.uploads()} == {upload["upload"] for upload in uploads.values()}
