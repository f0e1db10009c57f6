"""The S3 side of the weights job: one bucket, spoken to through boto3.

Every body that is sent carries a checksum which the server verifies: a store that is sent neither a checksum nor a signed hash
keeps what a cut connection left behind, under the full size. Parts carry a CRC-32, which costs a third of the SHA-256 that signing
a payload takes; it is signed with the other headers.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, EndpointConnectionError, NoCredentialsError

from mistral_on_l4.jobs.weights_limits import Failure, Limits

_READ_BYTES = 1024 * 1024
_LOOKERS = 8
_MISSING = frozenset({"NoSuchKey", "NotFound", "404"})
# The last but one is versitygw's word for an unknown key.
_REFUSED = frozenset(
    {"InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "InvalidToken", "ExpiredToken", "XAdminUserNotFound", "403"}
)
_FULL = frozenset({"XMinioStorageFull", "QuotaExceeded", "XMinioAdminBucketQuotaExceeded", "InsufficientStorage"})


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


class Store:
    """The bucket. Raises Failure with the cause for whatever the server refuses for good."""

    def __init__(
        self,
        bucket: str,
        limits: Limits,
        *,
        endpoint: str | None = None,
        keys: tuple[str, str] | None = None,
        authority: str | None = None,
    ) -> None:
        """endpoint, keys (access key, secret key): by default from AWS_ENDPOINT_URL and the usual variables;
        authority: file with the CA of an https endpoint, else AWS_CA_BUNDLE or the usual ones.
        """
        self.bucket = bucket

        def client(read_seconds: float) -> Any:
            config = Config(
                signature_version="s3v4",
                retries={"mode": "standard", "total_max_attempts": limits.attempts},
                connect_timeout=5,
                read_timeout=read_seconds,
                max_pool_connections=limits.uploads + limits.connections,
                s3={"payload_signing_enabled": False},
                # We send checksums of our own choice; botocore would compute another one.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            )
            access, secret = keys or (None, None)
            return boto3.client(
                "s3", config=config, endpoint_url=endpoint, aws_access_key_id=access, aws_secret_access_key=secret, verify=authority
            )

        try:
            self._client = client(max(limits.stall_seconds, 60.0))
            # Joining the parts of a large file takes a server that copies them minutes.
            self._patient = client(900.0)
        except (BotoCoreError, ValueError) as error:
            raise Failure(f"the S3 client cannot be made: {error}") from error
        self._endpoint = str(self._client.meta.endpoint_url)

    # -- objects -------------------------------------------------------------------------------------------------------

    def objects(self, prefix: str) -> dict[str, StoredObject]:
        """Every object under a prefix, by key."""
        objects: dict[str, StoredObject] = {}
        try:
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix):
                for item in page.get("Contents", []):
                    objects[item["Key"]] = StoredObject(item["Key"], item["Size"], item.get("ETag", "").strip('"'))
        except (ClientError, BotoCoreError) as error:
            raise self.failure(error, f"list {prefix}") from error
        return objects

    def head(self, key: str) -> StoredObject | None:
        try:
            answer = self._client.head_object(Bucket=self.bucket, Key=key)
        except ClientError as error:
            if _code(error) in _MISSING:
                return None
            raise self.failure(error, f"look at {key}") from error
        except BotoCoreError as error:
            raise self.failure(error, f"look at {key}") from error
        return StoredObject(key, answer["ContentLength"], answer.get("ETag", "").strip('"'))

    def read(self, key: str) -> bytes | None:
        """A small object whole, None if there is none."""
        try:
            body: bytes = self._client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
            return body
        except ClientError as error:
            if _code(error) in _MISSING:
                return None
            raise self.failure(error, f"read {key}") from error
        except BotoCoreError as error:
            raise self.failure(error, f"read {key}") from error

    def stream(self, key: str, size: int) -> Iterator[bytes]:
        """The bytes of an object in order; goes on where a connection ended."""
        done, cuts = 0, 0
        while done < size:
            before = done
            try:
                body = self._client.get_object(Bucket=self.bucket, Key=key, Range=f"bytes={done}-{size - 1}")["Body"]
                while data := body.read(_READ_BYTES):
                    done += len(data)
                    yield data
            except (ClientError, BotoCoreError) as error:
                cuts = cuts + 1 if done == before else 0
                if isinstance(error, ClientError) or cuts > 3:
                    raise self.failure(error, f"read {key}") from error

    def put(self, key: str, data: bytes | bytearray, metadata: Mapping[str, str] | None = None) -> StoredObject:
        digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
        try:
            answer = self._client.put_object(
                Bucket=self.bucket, Key=key, Body=data, ChecksumSHA256=digest, Metadata=dict(metadata or {})
            )
        except (ClientError, BotoCoreError) as error:
            raise self.failure(error, f"write {key}") from error
        return StoredObject(key, len(data), answer["ETag"].strip('"'))

    def delete(self, key: str) -> None:
        try:
            self._client.delete_object(Bucket=self.bucket, Key=key)
        except (ClientError, BotoCoreError) as error:
            raise self.failure(error, f"delete {key}") from error

    # -- uploads -------------------------------------------------------------------------------------------------------

    def uploads(self, prefix: str) -> list[tuple[str, str]]:
        """(key, upload id) of unfinished uploads under a prefix; of one page, as paging is broken on some servers.

        MinIO lists uploads only for a prefix that is a whole key: see `all_uploads`.
        """
        try:
            answer = self._client.list_multipart_uploads(Bucket=self.bucket, Prefix=prefix)
        except (ClientError, BotoCoreError) as error:
            raise self.failure(error, f"list uploads of {prefix}") from error
        return [(item["Key"], item["UploadId"]) for item in answer.get("Uploads", [])]

    def all_uploads(self, prefix: str, keys: Iterable[str]) -> set[tuple[str, str]]:
        """Unfinished uploads under a prefix on any server; keys: those that may have one, which are asked for one by one."""
        unfinished = set(self.uploads(prefix))
        with ThreadPoolExecutor(_LOOKERS) as pool:
            for uploads in pool.map(self.uploads, sorted(set(keys) - {key for key, _ in unfinished})):
                unfinished.update(uploads)
        return unfinished

    def create_upload(self, key: str, metadata: Mapping[str, str]) -> str:
        try:
            answer = self._client.create_multipart_upload(
                Bucket=self.bucket, Key=key, Metadata=dict(metadata), ChecksumAlgorithm="CRC32"
            )
        except (ClientError, BotoCoreError) as error:
            raise self.failure(error, f"begin {key}") from error
        return str(answer["UploadId"])

    def parts(self, key: str, upload: str) -> list[Part] | None:
        """Parts that arrived with a checksum, None if there is no such upload."""
        parts = []
        try:
            pages = self._client.get_paginator("list_parts").paginate(Bucket=self.bucket, Key=key, UploadId=upload)
            for page in pages:
                for item in page.get("Parts", []):
                    if item.get("ChecksumCRC32"):
                        parts.append(Part(item["PartNumber"], item["Size"], item["ETag"].strip('"'), item["ChecksumCRC32"]))
        except ClientError as error:
            if _code(error) in {"NoSuchUpload", *_MISSING}:
                return None
            raise self.failure(error, f"list parts of {key}") from error
        except BotoCoreError as error:
            raise self.failure(error, f"list parts of {key}") from error
        return parts

    def put_part(self, key: str, upload: str, number: int, data: bytearray, crc: int | None = None) -> Part:
        """crc: the data's CRC-32, if it is known already. Raises UploadGone, Failure."""
        crc32 = crc32_text(zlib.crc32(data) if crc is None else crc)
        for tries in range(3):
            try:
                answer = self._client.upload_part(
                    Bucket=self.bucket, Key=key, UploadId=upload, PartNumber=number, Body=data, ChecksumCRC32=crc32
                )
                return Part(number, len(data), answer["ETag"].strip('"'), crc32)
            except ClientError as error:
                if _code(error) == "NoSuchUpload":
                    raise UploadGone(f"{key}: the store no longer has its upload") from error
                # Damaged on the way, which the server has noticed.
                if _code(error) in {"BadDigest", "IncompleteBody", "XAmzContentChecksumMismatch"} and tries < 2:
                    continue
                raise self.failure(error, f"write part {number} of {key}") from error
            except BotoCoreError as error:
                # A server may cut the connection on which an upload's part comes that it no longer knows.
                if self.parts(key, upload) is None:
                    raise UploadGone(f"{key}: the store no longer has its upload") from error
                raise self.failure(error, f"write part {number} of {key}") from error
        raise AssertionError("unreachable")

    def complete(self, key: str, upload: str, parts: list[Part]) -> StoredObject:
        """Joins the parts; the object as the server then has it. Raises UploadGone if there is none of that size, Failure.

        A server that died in the middle answers 200 to the next try, and has lost the object: so it is looked at.
        """
        listed = [{"PartNumber": part.number, "ETag": f'"{part.etag}"', "ChecksumCRC32": part.crc32} for part in parts]
        told = None
        try:
            told = self._patient.complete_multipart_upload(
                Bucket=self.bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": listed}
            )["ETag"].strip('"')
        except ClientError as error:
            code = _code(error)
            if code in {"InvalidPart", "InvalidPartOrder", "InternalError"}:
                raise UploadGone(f"{key}: the store cannot join its parts ({code})") from error
            # NoSuchUpload may follow a first try whose answer got lost: then the object is there.
            if code != "NoSuchUpload":
                raise self.failure(error, f"complete {key}") from error
        except BotoCoreError as error:
            raise self.failure(error, f"complete {key}") from error
        stored = self.head(key)
        size = sum(part.size for part in parts)
        if stored is None or stored.size != size or stored.etag not in {told, joined_etag(parts)}:
            raise UploadGone(f"{key}: the store said it was complete, and has {'nothing' if stored is None else 'something else'}")
        return stored

    def abort(self, key: str, upload: str) -> None:
        try:
            self._client.abort_multipart_upload(Bucket=self.bucket, Key=key, UploadId=upload)
        except ClientError as error:
            if _code(error) not in {"NoSuchUpload", *_MISSING}:
                raise self.failure(error, f"abort the upload of {key}") from error
        except BotoCoreError as error:
            raise self.failure(error, f"abort the upload of {key}") from error

    # -- refusals ------------------------------------------------------------------------------------------------------

    def failure(self, error: Exception, doing: str) -> Failure:
        """One sentence for what the store or the way to it did."""
        place = f"the S3 store at {self._endpoint}"
        if isinstance(error, NoCredentialsError):
            return Failure(f"no credentials for {place}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
        if isinstance(error, EndpointConnectionError):
            return Failure(f"{place} cannot be reached (connection refused or no such host)")
        if not isinstance(error, ClientError):
            return Failure(f"cannot {doing}: {place} does not answer ({type(error).__name__})")
        code, message = _code(error), error.response.get("Error", {}).get("Message", "")
        if code == "NoSuchBucket":
            return Failure(f"bucket {self.bucket!r} does not exist on {place}")
        if code in _FULL or "no space left" in message.lower():
            return Failure(f"{place} has no space left: enlarge its volume or prune old checkpoints ({code})")
        if code in _REFUSED:
            return Failure(f"{place} refuses the credentials, or their right to {doing} in bucket {self.bucket} ({code})")
        tries = error.response.get("ResponseMetadata", {}).get("RetryAttempts", 0) + 1
        return Failure(f"cannot {doing}: {place} answers {code}" + (f" ({message})" if message else "") + f", {tries} tries")


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))
