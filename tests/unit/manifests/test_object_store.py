"""What MinIO and Kubernetes ask of the store's pod beyond what the local stand-in can notice."""

from __future__ import annotations

from mistral_on_l4.manifests.object_store import stateful_set


def test_minio_finds_the_folder_that_it_could_not_make_in_a_secrets_volume() -> None:
    manifest = stateful_set("minio", "image", "claim", tls_secret="tls")
    (volume,) = [found for found in manifest["spec"]["template"]["spec"]["volumes"] if "secret" in found]
    assert {item["path"] for item in volume["secret"]["items"]} == {"public.crt", "private.key", "CAs/ca.crt"}


def test_a_server_without_a_mark_of_its_keys_carries_no_annotation() -> None:
    assert "annotations" not in stateful_set("minio", "image", "claim")["spec"]["template"]["metadata"]
