"""What a store or a hub refuses for good is one sentence that names the setting to change; boto3 talks to a real server."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from email.utils import formatdate

import botocore
import pytest

from mistral_on_l4.jobs.weights_hub import Hub
from mistral_on_l4.jobs.weights_limits import Failure, Limits, Stop
from mistral_on_l4.jobs.weights_store import Store, UploadGone
from tests.support.http_server import Answer, serving

# Nothing here is worth a second try.
LIMITS = Limits(outage_seconds=0.01)
HTML = (200, {"Content-Type": "text/html"}, b"<!doctype html><html><body>MinIO Console</body></html>")


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("AWS_ACCESS_KEY_ID", "k"), ("AWS_SECRET_ACCESS_KEY", "s"), ("AWS_DEFAULT_REGION", "us-east-1")):
        monkeypatch.setenv(name, value)


def told(code: str, more: str = "") -> bytes:
    return f"<Error><Code>{code}</Code><Message>no</Message>{more}</Error>".encode()


def said(answer: Answer, call: Callable[[Store], object] = lambda store: store.objects("m/")) -> str:
    with serving(lambda *_: answer) as server:
        try:
            call(Store("b", LIMITS, Stop(), endpoint=server.url))
        except Failure as failure:
            return str(failure).replace(server.url, "URL")
    raise AssertionError("the store was believed")


PUT: Callable[[Store], object] = lambda store: store.put("k", b"1")  # noqa: E731


@pytest.mark.parametrize(
    ("answer", "call", "sentence"),
    [
        (HTML, PUT, "URL answers with HTML, so it is no S3 store: set objectStore.endpoint to its S3 API, "),
        (HTML, lambda store: store.objects("m/"), "URL answers with HTML, so it is no S3 store: set objectStore.endpoint"),
        (HTML, lambda store: store.read("k"), "URL answers with HTML, so it is no S3 store: set objectStore.endpoint"),
        ((404, *HTML[1:]), lambda store: store.read("k"), "URL answers with HTML, so it is no S3 store"),
        ((200, {}, b""), PUT, "URL answers with no ETag, so it is no S3 store: set objectStore.endpoint"),
        ((200, {}, b"{}"), lambda store: store.objects("m/"), "URL answers with no XML of S3's, so it is no S3 store"),
        (
            (301, {"x-amz-bucket-region": "eu-west-1"}, told("PermanentRedirect", "<Endpoint>b.s3.example.com</Endpoint>")),
            PUT,
            "bucket 'b' is not at URL: set objectStore.endpoint to http://s3.example.com and objectStore.region to eu-west-1",
        ),
        (
            (400, {}, told("AuthorizationHeaderMalformed", "<Region>eu-west-1</Region>")),
            PUT,
            "bucket 'b' is not at URL: set objectStore.region to eu-west-1 (AuthorizationHeaderMalformed)",
        ),
        ((403, {}, told("SignatureDoesNotMatch")), PUT, "refuses the credentials, or their right to write k in bucket b"),
        (
            (404, {}, told("NoSuchBucket")),
            PUT,
            "bucket 'b' does not exist on the S3 store at URL: create it, or set objectStore.bucket",
        ),
        ((507, {}, told("XMinioStorageFull")), PUT, "has no space left: enlarge objectStore.volumeSize or prune old checkpoints"),
        ((501, {}, told("NotImplemented")), PUT, "cannot write k: the S3 store at URL answers NotImplemented (no)"),
    ],
)
def test_a_refusal_is_one_sentence_with_the_setting_to_change(
    answer: Answer, call: Callable[[Store], object], sentence: str
) -> None:
    # Of S3 itself, whatever its region, the client follows the redirect by itself; the sentence is for what is left.
    text = said(answer, call)
    assert sentence in text
    assert "\n" not in text


def test_a_clock_that_is_wrong_is_named_with_the_difference() -> None:
    def answer(*_: str) -> Answer:
        return 403, {"Date": formatdate(time.time() + 1530, usegmt=True)}, told("RequestTimeTooSkewed")

    with serving(answer) as server, pytest.raises(Failure) as refused:
        PUT(Store("b", LIMITS, endpoint=server.url))
    assert "refuses the time of this node's clock, which is 25 min" in str(refused.value)
    assert "behind its own: set the node's clock by NTP (RequestTimeTooSkewed)" in str(refused.value)


def test_a_gateways_page_for_a_store_that_is_away_is_an_outage_and_no_wrong_address() -> None:
    assert "answers 502 (Bad Gateway), for" in said((502, {"Content-Type": "text/html"}, b"<html>"), PUT)


def test_an_old_botocore_is_named_with_the_image_to_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(botocore, "__version__", "1.35.99")
    with pytest.raises(Failure, match=r"has botocore 1\.35\.99, and 1\.36 or newer is needed: set images\.overrides\.jobs"):
        Store("b", LIMITS, endpoint="http://127.0.0.1:9")


def test_a_part_that_its_upload_may_not_take_with_a_checksum_makes_the_file_start_again() -> None:
    message = (
        "<Error><Code>InvalidRequest</Code><Message>Checksum Type mismatch occurred, expected checksum Type: null</Message></Error>"
    )
    with serving(lambda *_: (400, {}, message.encode())) as server, pytest.raises(UploadGone, match="begun without checksums"):
        Store("b", LIMITS, endpoint=server.url).put_part("k", "u", 1, bytearray(1))


# -- the hub -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sibling", "says"),
    [
        ({"rfilename": "config.json", "blobId": "0" * 40}, "tells no size of config.json"),
        ({"rfilename": "config.json", "size": 3}, "tells no digest of config.json"),
    ],
)
def test_a_hub_that_tells_no_size_or_digest_is_refused_by_the_settings_name(sibling: dict[str, object], says: str) -> None:
    listing = {"id": "o/r", "sha": "c" * 40, "siblings": [{"rfilename": "README.md"}, sibling]}
    with (
        serving(lambda *_: (200, {"Content-Type": "application/json"}, json.dumps(listing).encode())) as server,
        pytest.raises(Failure) as refused,
    ):
        Hub(server.url, None, LIMITS, Stop()).snapshot("o/r", "main")
    assert f"the hub at {server.url} {says}, so it could not be proven: set hub.endpoint to one" in str(refused.value)
