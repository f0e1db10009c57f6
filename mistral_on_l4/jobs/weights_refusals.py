"""What an S3 store's refusals mean: worth another try, or one sentence that names the setting to change."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from typing import Any

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    EndpointConnectionError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    SSLError,
)
from botocore.parsers import ResponseParserError

from mistral_on_l4.jobs.trust import tls_problem
from mistral_on_l4.jobs.weights_limits import Failure
from mistral_on_l4.jobs.weights_patience import Again
from mistral_on_l4.jobs.weights_progress import duration

# The last but two is versitygw's word for an unknown key.
_REFUSED = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "XAdminUserNotFound", "403", "401"})
# Temporary keys that ended come back only with new ones.
_ENDED = frozenset({"InvalidToken", "ExpiredToken", "TokenRefreshRequired"})
_FULL = frozenset({"XMinioStorageFull", "QuotaExceeded", "XMinioAdminBucketQuotaExceeded", "InsufficientStorage"})
_SKEWED = frozenset({"RequestTimeTooSkewed", "RequestExpired", "RequestInTheFuture"})
_ELSEWHERE = frozenset({"PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed", "301", "307"})
# 501 is what it will never do.
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
_TRANSIENT_CODES = frozenset(
    {"SlowDown", "InternalError", "RequestTimeout", "ServiceUnavailable", "Throttling", "OperationAborted"}
)


class NoStore(Exception):
    """What answered is no S3 store. kind: of what it sent."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


# Whatever a call of boto3 can raise, whose own check of the answer included.
REFUSALS = (ClientError, BotoCoreError, ResponseParserError, NoStore)


def code_of(error: Exception) -> str:
    """S3's code of a refusal; the status where there is none, "" for no answer at all."""
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""


def refuse_strangers(response_dict: Any, **_: Any) -> None:
    """Handles boto3's event before-parse: a store's console, a proxy's page or JSON is no answer of S3. Raises NoStore.

    boto3 itself takes a 200 that it cannot read for a failure of the server, which would be waited for.
    """
    headers = {str(name).lower(): str(value) for name, value in response_dict["headers"].items()}
    # A gateway in front of a store that is away sends its page with a status that says so.
    html = headers.get("content-type", "").startswith("text/html") and "x-amz-request-id" not in headers
    if html and response_dict["status_code"] not in _TRANSIENT:
        raise NoStore("HTML")
    body = response_dict["body"]
    # Content is still a stream here. Joining parts keeps the connection alive by white space.
    if response_dict["status_code"] == 200 and isinstance(body, bytes) and body.strip()[:1] not in (b"", b"<"):
        raise NoStore("no XML of S3's")


class Refusals:
    """Of one bucket at one endpoint."""

    def __init__(self, bucket: str, endpoint: str) -> None:
        self._bucket, self._endpoint = bucket, endpoint
        self.store = f"the S3 store at {endpoint}"

    def judged(self, error: Exception, doing: str, worked: bool) -> Failure | Again:
        """doing: what was tried, an infinitive; worked: whether the same operation has succeeded in this run."""
        refused = self._refused(error, doing, worked)
        if refused is not None:
            return refused
        what = f"cannot {doing}"
        if isinstance(error, EndpointConnectionError):
            unresolved = "resolve" in str(error.kwargs.get("error", "")).lower()
            why = "no such host" if unresolved else "connection refused"
            return Again(what, f"cannot be reached ({why})", unresolved=unresolved)
        if isinstance(error, (HTTPClientError, ConnectionError, IncompleteReadError)):
            return Again(what, f"does not answer ({type(error).__name__})")
        if isinstance(error, (NoStore, ResponseParserError)):
            return Again(what, f"answers with {_kind(error)}")
        if not isinstance(error, ClientError):
            return Failure(f"{what} on {self.store}: {error}")
        code, message = code_of(error), error.response.get("Error", {}).get("Message", "")
        said = f"answers {code}" + (f" ({message})" if message else "")
        meta = error.response.get("ResponseMetadata", {})
        if meta.get("HTTPStatusCode") in _TRANSIENT or code in _TRANSIENT_CODES or (worked and code in _REFUSED):
            asked = str(meta.get("HTTPHeaders", {}).get("retry-after", ""))
            return Again(what, said, float(asked) if asked.isdigit() else None)
        return Failure(f"{what}: {self.store} {said}")

    def _refused(self, error: Exception, doing: str, worked: bool) -> Failure | None:
        """The sentence for what no patience mends, None for the rest."""
        if isinstance(error, NoCredentialsError):
            return Failure(f"no credentials for {self.store}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
        if isinstance(error, SSLError) and not worked and (problem := tls_problem(error)):
            return Failure(f"{self.store} {problem}")
        if isinstance(error, (NoStore, ResponseParserError)) and not worked:
            return Failure(
                f"{self._endpoint} answers with {_kind(error)}, so it is no S3 store: set objectStore.endpoint to its S3 API, "
                "which has another port or host than its console"
            )
        if not isinstance(error, ClientError):
            return None
        code, message = code_of(error), error.response.get("Error", {}).get("Message", "")
        if code == "NoSuchBucket":
            return Failure(f"bucket {self._bucket!r} does not exist on {self.store}: create it, or set objectStore.bucket")
        if code in _FULL or "no space left" in message.lower():
            return Failure(f"{self.store} has no space left: enlarge objectStore.volumeSize or prune old checkpoints ({code})")
        if code in _ELSEWHERE and (elsewhere := self._elsewhere(error)):
            return Failure(elsewhere)
        if code in _SKEWED:
            return Failure(
                f"{self.store} refuses the time of this node's clock{_skew(error)}: set the node's clock by NTP ({code})"
            )
        if code in _ENDED or (code in _REFUSED and not worked):
            return Failure(
                f"{self.store} refuses the credentials, or their right to {doing} in bucket {self._bucket} ({code}): "
                "set storeAccessKeyId and storeSecretAccessKey to keys that may"
            )
        return None

    def _elsewhere(self, error: ClientError) -> str | None:
        """Where the answer says that the bucket is; None where it says nothing of the kind."""
        told = error.response.get("Error", {})
        headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        region = headers.get("x-amz-bucket-region") or told.get("Region")
        host = str(told.get("Endpoint") or "")
        # As virtual-hosted addresses have it; the setting takes the endpoint alone.
        host = host.removeprefix(f"{self._bucket}.")
        if not region and not host:
            return None
        if region and (not host or host == "s3.amazonaws.com") and ".amazonaws.com" in self._endpoint:
            host = f"s3.{region}.amazonaws.com"
        scheme = self._endpoint.partition("://")[0]
        changes = [f"objectStore.endpoint to {scheme}://{host}"] if host else []
        changes += [f"objectStore.region to {region}"] if region else []
        return f"bucket {self._bucket!r} is not at {self._endpoint}: set {' and '.join(changes)} ({code_of(error)})"


def _kind(error: Exception) -> str:
    return error.kind if isinstance(error, NoStore) else "XML that is not S3's"


def _skew(error: ClientError) -> str:
    try:
        theirs = parsedate_to_datetime(error.response["ResponseMetadata"]["HTTPHeaders"]["date"]).timestamp()
    except (KeyError, TypeError, ValueError):
        return ""
    seconds = time.time() - theirs
    return f", which is {duration(abs(seconds))} {'ahead of' if seconds > 0 else 'behind'} its own"
