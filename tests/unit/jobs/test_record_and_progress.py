from __future__ import annotations

import json

import pytest

from mistral_on_l4.jobs import register_model
from mistral_on_l4.jobs.weights_limits import Failure
from mistral_on_l4.jobs.weights_progress import Progress, duration, gigabytes
from mistral_on_l4.jobs.weights_record import Manifest, SeededFile, manifest_key
from mistral_on_l4.jobs.weights_store import Part, StoredObject, joined_etag

FILES = (SeededFile("config.json", 10, "a" * 64, "e1"), SeededFile("model.safetensors", 2**31, "b" * 64, "e2-3"))
MANIFEST = Manifest("o/r", "main", "c" * 40, "mistral-24b/", "2026-11-25T15:00:00Z", FILES)


def listing(**changes: StoredObject | None) -> dict[str, StoredObject]:
    found = {f"mistral-24b/{file.path}": StoredObject(f"mistral-24b/{file.path}", file.size, file.etag) for file in FILES}
    for name, value in changes.items():
        key = f"mistral-24b/{name.replace('_', '.')}"
        if value is None:
            del found[key]
        else:
            found[key] = value
    return found


@pytest.mark.parametrize(
    "prefix",
    ["mistral-24b", "", "/", "/m/", "m//n/", "_manifests/x/", "m/../n/", "./m/", "../m/", ".minio.sys/", "m.unfinished/", "m\n/"],
)
def test_a_prefix_that_would_catch_other_objects_is_refused(prefix: str) -> None:
    with pytest.raises(Failure, match="must be a plain folder name"):
        manifest_key(prefix)


def test_no_model_servers_download_reaches_a_manifest() -> None:
    for prefix in ("mistral-24b/", "models/mistral-24b/", "a/b/c/"):
        assert not manifest_key(prefix).startswith(prefix)
        assert manifest_key(prefix).startswith("_manifests/")


def test_a_manifest_survives_being_written_and_read() -> None:
    assert Manifest.parse(MANIFEST.to_json()) == MANIFEST


def test_a_manifest_that_was_changed_by_hand_or_cut_is_none() -> None:
    document = json.loads(MANIFEST.to_json())
    document["files"][0]["size"] = 11
    assert Manifest.parse(json.dumps(document).encode()) is None
    assert Manifest.parse(MANIFEST.to_json()[:-20]) is None
    assert Manifest.parse(b"[]") is None


def test_a_manifest_serves_the_branch_it_was_made_of_and_its_commit_and_nothing_else() -> None:
    assert MANIFEST.serves("o/r", "main")
    assert MANIFEST.serves("o/r", "c" * 40)
    assert not MANIFEST.serves("o/r", "d" * 40)
    assert not MANIFEST.serves("o/other", "main")


def test_registration_reads_what_the_manifest_says() -> None:
    facts = register_model.manifest_facts(json.loads(MANIFEST.to_json()), "s3://b/_manifests/mistral-24b.json")
    assert facts == {
        "weights_digest": MANIFEST.digest,
        "weights_bytes": str(2**31 + 10),
        "weights_files": 2,
        "weights_repository": "o/r",
        "weights_revision": "c" * 40,
    }


def test_missing_resized_and_rewritten_objects_are_told_apart() -> None:
    key = "mistral-24b/config.json"
    assert MANIFEST.problems(listing()) == []
    assert MANIFEST.problems(listing(config_json=None)) == ["config.json is missing"]
    assert MANIFEST.problems(listing(config_json=StoredObject(key, 9, "e1"))) == ["config.json has 9 bytes, not 10"]
    assert "written again" in MANIFEST.problems(listing(config_json=StoredObject(key, 10, "other")))[0]


def test_objects_that_are_no_part_of_the_checkpoint_are_strangers() -> None:
    key = "mistral-24b/consolidated.safetensors"
    assert MANIFEST.strangers({**listing(), key: StoredObject(key, 1, "x")}) == [key]


def test_the_joined_etag_is_the_one_that_s3_computes() -> None:
    # md5 of the MD5s of b"a" and b"b", computed by another program, and the number of parts.
    parts = [
        Part(1, 1, "0cc175b9c0f1b6a831c399e269772661", "x"),
        Part(2, 1, "92eb5ffee6ae2fec3ad71c777531578f", "x"),
    ]
    assert joined_etag(parts) == "96e024ba2074fe77e8e965ba43a704be-2"
    assert joined_etag([Part(1, 1, "not-an-md5", "x")]) is None


def test_a_line_of_progress_tells_share_rate_and_both_etas() -> None:
    lines: list[str] = []
    progress = Progress(lines.append, 60)
    progress.began({"a": 1000, "b": 1000}, {"b": 1000}, now=5.0)
    progress.received("a", 250)
    line = progress.line(6.0)
    assert line == "progress 62% 0.00 MB of 0.00 MB, 0.0 MB/s, ETA 3 s | a 25% ETA 3 s"


def test_sizes_and_times_are_given_in_units_that_fit() -> None:
    assert gigabytes(47_144_806_400) == "47.14 GB"
    assert gigabytes(3_500_000) == "3.50 MB"
    assert [duration(seconds) for seconds in (4.2, 75, 3700)] == ["4 s", "1 min 15 s", "1 h 01 min"]
