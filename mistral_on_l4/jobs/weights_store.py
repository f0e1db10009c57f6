"""The S3 side of the weights job: one bucket, spoken to through boto3.

Every body that is sent carries a checksum which the server verifies: a store that is sent neither a checksum nor a signed hash
keeps what a cut connection left behind, under the full size. Parts carry a CRC-32, which costs a third of the SHA-256 that signing
a payload takes; it is signed with the other headers.

Tries are counted here and not by boto3: its pauses end after a minute, and nothing wakes them when the pod is to go.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import boto3
import botocore
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from mistral_on_l4.jobs.weights_limits import Failure, Limits, Stop
from mistral_on_l4.jobs.weights_patience import Again, Patience
from mistral_on_l4.jobs.weights_refusals import REFUSALS, NoStore, Refusals, code_of, refuse_strangers

_READ_BYTES = 1024 * 1024
_LOOKERS = 8
_MISSING = frozenset({"NoSuchKey", "NotFound", "404"})
_GONE = _MISSING | {"NoSuchUpload"}
# Damaged on the way, which the server has noticed.
_DAMAGED = frozenset({"BadDigest", "IncompleteBody", "XAmzContentChecksumMismatch"})
_DAMAGED_TRIES = 3
# The first that lets a client choose its checksums (Config.request_checksum_calculation).
_OLDEST_BOTOCORE = (1, 36)


class UploadGone(Exception):
    """The server no longer has the upload, or lost parts of it: the file starts again from its first part."""


@dataclass(frozen=True)
class Part:
    """A part that the server has. crc32: as S3 spells it, base64."""

    number: int
    size: int
    etag: str
    crc32: str


@dataclass(frozen=True)
class StoredObject:
    """An object as listed. etag without quotes."""

    key: str
    size: int
    etag: str


def crc32_text(value: int) -> str:
    return base64.b64encode(value.to_bytes(4, "big")).decode()


def joined_etag(parts: list[Part]) -> str | None:
    """ETag that S3 gives an object made of these parts, None where parts' ETags are not MD5 (encrypted by KMS)."""
    try:
        digests = b"".join(bytes.fromhex(part.etag) for part in parts)
    except ValueError:
        return None
    return f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(parts)}"


class _Known(Exception):
    """A refusal that the caller expects."""

    def __init__(self, code: str, error: Exception) -> None:
        super().__init__(str(error))
        self.code = code


class Store:
    """The bucket. Raises Failure with the cause for whatever the server refuses for good, Stopped while it waits."""

    def __init__(
        self,
        bucket: str,
        limits: Limits,
        stop: Stop | None = None,
        *,
        endpoint: str | None = None,
        keys: tuple[str, str] | None = None,
        authority: str | None = None,
    ) -> None:
        """endpoint, keys (access key, secret key): by default from AWS_ENDPOINT_URL and the usual variables;
        authority: file with the CA of an https endpoint, else AWS_CA_BUNDLE or the usual ones.
        """
        self.bucket = bucket
        if tuple(map(int, botocore.__version__.split(".")[:2])) < _OLDEST_BOTOCORE:
            raise Failure(
                f"this image has botocore {botocore.__version__}, and {'.'.join(map(str, _OLDEST_BOTOCORE))} or newer is needed: "
                "set images.overrides.jobs to a newer kserve/storage-initializer"
            )

        # Of its own: boto3 keeps one for the process, with the credentials that it found first.
        session = boto3.session.Session()

        def client(read_seconds: float) -> Any:
            config = Config(
                signature_version="s3v4",
                retries={"mode": "standard", "total_max_attempts": 1},
                connect_timeout=5,
                read_timeout=read_seconds,
                max_pool_connections=limits.uploads + limits.connections,
                s3={"payload_signing_enabled": False},
                # We send checksums of our own choice; botocore would compute another one.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            )
            access, secret = keys or (None, None)
            made = session.client(
                "s3", config=config, endpoint_url=endpoint, aws_access_key_id=access, aws_secret_access_key=secret, verify=authority
            )
            # Registered for any service, it comes before boto3's own for S3, which makes a 500 of a 200 that is no XML.
            made.meta.events.register("before-parse.*.*", refuse_strangers)
            return made

        try:
            self._client = client(max(limits.stall_seconds, 60.0))
            # Joining the parts of a large file takes a server that copies them minutes.
            self._patient = client(900.0)
        except (BotoCoreError, ValueError) as error:
            raise Failure(f"the S3 client cannot be made: {error}") from error
        self._refusals = Refusals(bucket, str(self._client.meta.endpoint_url))
        self.patience = Patience(self._refusals.store, "objectStore.endpoint", limits, stop or Stop())
        # Operations that the store has done at least once.
        self._worked: set[str] = set()

    def _ask(self, operation: str, doing: str, known: Collection[str] = (), client: Any = None, **arguments: Any) -> Any:
        """Calls an operation until it is answered. doing: an infinitive, for errors; known: codes that raise _Known."""
        call = getattr(client or self._client, operation)

        def once() -> Any:
            try:
                answer = call(Bucket=self.bucket, **arguments)
            except REFUSALS as error:
                if code_of(error) in known:
                    self._worked.add(operation)
                    raise _Known(code_of(error), error) from error
                raise self._judged(error, operation, doing) from error
            self._worked.add(operation)
            return answer

        return self.patience.call(once)

    def _judged(self, error: Exception, operation: str, doing: str) -> Failure | Again:
        return self._refusals.judged(error, doing, operation in self._worked)

    def _etag(self, answer: Any, operation: str, doing: str) -> str:
        """Of an answer, without quotes; one that has none is not a store's. Raises Failure."""
        if not answer.get("ETag"):
            self._worked.discard(operation)
            raise self._judged(NoStore("no ETag"), operation, doing)
        return str(answer["ETag"]).strip('"')

    # -- objects -------------------------------------------------------------------------------------------------------

    def objects(self, prefix: str) -> dict[str, StoredObject]:
        """Every object under a prefix, by key."""
        objects: dict[str, StoredObject] = {}
        more: dict[str, str] = {}
        while True:
            page = self._ask("list_objects_v2", f"list {prefix}", Prefix=prefix, **more)
            for item in page.get("Contents", []):
                objects[item["Key"]] = StoredObject(item["Key"], item["Size"], item.get("ETag", "").strip('"'))
            if not page.get("NextContinuationToken"):
                return objects
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def head(self, key: str) -> StoredObject | None:
        try:
            answer = self._ask("head_object", f"look at {key}", _MISSING, Key=key)
        except _Known:
            return None
        return StoredObject(key, answer["ContentLength"], answer.get("ETag", "").strip('"'))

    def read(self, key: str) -> bytes | None:
        """A small object whole, None if there is none."""
        doing = f"read {key}"

        def once() -> bytes:
            body = self._ask("get_object", doing, _MISSING, Key=key)["Body"]
            try:
                content: bytes = body.read()
            except REFUSALS as error:
                raise self._judged(error, "get_object", doing) from error
            return content

        try:
            return self.patience.call(once)
        except _Known:
            return None

    def stream(self, key: str, size: int) -> Iterator[bytes]:
        """The bytes of an object in order; goes on where a connection ended."""
        done, wait, doing = 0, self.patience.wait(), f"read {key}"
        try:
            while done < size:
                try:
                    body = self._ask("get_object", doing, Key=key, Range=f"bytes={done}-{size - 1}")["Body"]
                    while data := body.read(_READ_BYTES):
                        done += len(data)
                        wait.brought(len(data))
                        yield data
                except REFUSALS as error:
                    again = self._judged(error, "get_object", doing)
                    if isinstance(again, Failure):
                        raise again from error
                    wait.after(again)
        finally:
            wait.over()

    def put(self, key: str, data: bytes | bytearray, metadata: Mapping[str, str] | None = None) -> StoredObject:
        digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
        answer = self._ask("put_object", f"write {key}", Key=key, Body=data, ChecksumSHA256=digest, Metadata=dict(metadata or {}))
        return StoredObject(key, len(data), self._etag(answer, "put_object", f"write {key}"))

    def delete(self, key: str) -> None:
        self._ask("delete_object", f"delete {key}", Key=key)

    # -- uploads -------------------------------------------------------------------------------------------------------

    def uploads(self, prefix: str) -> list[tuple[str, str]]:
        """(key, upload id) of unfinished uploads under a prefix; of one page, as paging is broken on some servers.

        MinIO lists uploads only for a prefix that is a whole key: see `all_uploads`.
        """
        answer = self._ask("list_multipart_uploads", f"list uploads of {prefix}", Prefix=prefix)
        return [(item["Key"], item["UploadId"]) for item in answer.get("Uploads", [])]

    def all_uploads(self, prefix: str, keys: Iterable[str]) -> set[tuple[str, str]]:
        """Unfinished uploads under a prefix on any server; keys: those that may have one, which are asked for one by one."""
        unfinished = set(self.uploads(prefix))
        with ThreadPoolExecutor(_LOOKERS) as pool:
            for uploads in pool.map(self.uploads, sorted(set(keys) - {key for key, _ in unfinished})):
                unfinished.update(uploads)
        return unfinished

    def create_upload(self, key: str, metadata: Mapping[str, str]) -> str:
        answer = self._ask("create_multipart_upload", f"begin {key}", Key=key, Metadata=dict(metadata), ChecksumAlgorithm="CRC32")
        if not answer.get("UploadId"):
            self._worked.discard("create_multipart_upload")
            raise self._judged(NoStore("no upload id"), "create_multipart_upload", f"begin {key}")
        return str(answer["UploadId"])

    def parts(self, key: str, upload: str) -> list[Part] | None:
        """Parts that arrived with a checksum. None if there is no such upload, or one whose parts may have none."""
        parts: list[Part] = []
        bare = 0
        more: dict[str, Any] = {}
        while True:
            try:
                page = self._ask("list_parts", f"list parts of {key}", _GONE, Key=key, UploadId=upload, **more)
            except _Known:
                return None
            # Not every server says which algorithm an upload was begun with.
            if page.get("ChecksumAlgorithm", "CRC32") != "CRC32":
                return None
            for item in page.get("Parts", []):
                if item.get("ChecksumCRC32"):
                    parts.append(Part(item["PartNumber"], item["Size"], item["ETag"].strip('"'), item["ChecksumCRC32"]))
                else:
                    bare += 1
            if not page.get("IsTruncated") or not page.get("NextPartNumberMarker"):
                return None if bare and not parts else parts
            more = {"PartNumberMarker": page["NextPartNumberMarker"]}

    def put_part(self, key: str, upload: str, number: int, data: bytearray, crc: int | None = None) -> Part:
        """crc: the data's CRC-32, if it is known already. Raises UploadGone, Failure."""
        crc32 = crc32_text(zlib.crc32(data) if crc is None else crc)
        doing, damaged = f"write part {number} of {key}", 0
        arguments = {"Key": key, "UploadId": upload, "PartNumber": number, "Body": data, "ChecksumCRC32": crc32}

        def once() -> Any:
            nonlocal damaged
            try:
                return self._client.upload_part(Bucket=self.bucket, **arguments)
            except REFUSALS as error:
                code = code_of(error)
                # A server may cut the connection on which an upload's part comes that it no longer knows.
                if code == "NoSuchUpload" or (not code and self.parts(key, upload) is None):
                    raise UploadGone(f"{key}: the store no longer has its upload") from error
                # It was begun by something that sent no checksums; the store takes none into it.
                if code == "InvalidRequest" and "checksum" in str(error).lower():
                    raise UploadGone(f"{key}: its upload was begun without checksums") from error
                damaged += code in _DAMAGED
                if code in _DAMAGED and damaged < _DAMAGED_TRIES:
                    raise Again(f"cannot {doing}", f"says that it was damaged on the way ({code})") from error
                raise self._judged(error, "upload_part", doing) from error

        answer = self.patience.call(once)
        self._worked.add("upload_part")
        return Part(number, len(data), self._etag(answer, "upload_part", doing), crc32)

    def complete(self, key: str, upload: str, parts: list[Part]) -> StoredObject:
        """Joins the parts; the object as the server then has it. Raises UploadGone if there is none of that size, Failure.

        A server that died in the middle answers 200 to the next try, and has lost the object: so it is looked at.
        """
        listed = [{"PartNumber": part.number, "ETag": f'"{part.etag}"', "ChecksumCRC32": part.crc32} for part in parts]
        known = {"InvalidPart", "InvalidPartOrder", "InternalError", "NoSuchUpload"}
        told = None
        try:
            answer = self._ask(
                "complete_multipart_upload",
                f"complete {key}",
                known,
                self._patient,
                Key=key,
                UploadId=upload,
                MultipartUpload={"Parts": listed},
            )
            told = str(answer.get("ETag", "")).strip('"')
        except _Known as known_error:
            # NoSuchUpload may follow a first try whose answer got lost: then the object is there.
            if known_error.code != "NoSuchUpload":
                raise UploadGone(f"{key}: the store cannot join its parts ({known_error.code})") from known_error
        stored = self.head(key)
        size = sum(part.size for part in parts)
        if stored is None or stored.size != size or stored.etag not in {told, joined_etag(parts)}:
            raise UploadGone(f"{key}: the store said it was complete, and has {'nothing' if stored is None else 'something else'}")
        return stored

    def abort(self, key: str, upload: str) -> None:
        with contextlib.suppress(_Known):
            self._ask("abort_multipart_upload", f"abort the upload of {key}", _GONE, Key=key, UploadId=upload)
