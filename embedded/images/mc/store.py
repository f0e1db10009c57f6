"""The calls to versitygw: S3's bucket and policy calls, and its own admin calls, signed with AWS Signature Version 4.

Only the standard library: the setup Job starts this program a dozen times, and botocore takes longer to load than all of it.
The signature's rules: https://docs.aws.amazon.com/IAM/latest/UserGuide/create-signed-request.html
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import http.client
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit
from xml.sax.saxutils import escape, unescape

REGION = "us-east-1"
_SERVICE = "s3"
_TIMEOUT_SECONDS = 30.0


class StoreError(Exception):
    """The server refused or could not be reached. code: S3's error code, or "" without an answer."""

    def __init__(self, message: str, code: str = "", status: int = 0) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


@dataclass(frozen=True)
class Alias:
    """Where an alias leads, from MC_HOST_<alias>: http://ACCESS:SECRET@HOST[:PORT], both words percent-encoded."""

    scheme: str
    host: str
    port: int
    access_key: str
    secret_key: str

    @classmethod
    def read(cls, name: str, value: str) -> Alias:
        """Raises StoreError, which never repeats the value."""
        url = urlsplit(value)
        try:
            port = url.port
        except ValueError:
            port = -1
        if url.scheme not in ("http", "https") or not url.hostname or not url.username or not url.password or port == -1:
            raise StoreError(f"MC_HOST_{name} is not of the form http://ACCESS_KEY:SECRET_KEY@HOST:PORT")
        return cls(
            url.scheme, url.hostname, port or (443 if url.scheme == "https" else 80), unquote(url.username), unquote(url.password)
        )

    @property
    def address(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}"


def authorization(
    alias: Alias, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes, now: datetime.datetime
) -> dict[str, str]:
    """The headers to add to a request: x-amz-date, x-amz-content-sha256, Authorization. `headers` are signed as well."""
    stamp = now.strftime("%Y%m%dT%H%M%SZ")
    digest = hashlib.sha256(body).hexdigest()
    signed = {name.lower(): value.strip() for name, value in headers.items()}
    signed |= {"x-amz-date": stamp, "x-amz-content-sha256": digest}
    names = ";".join(sorted(signed))
    canonical = "\n".join(
        [
            method,
            quote(path, safe="/~"),
            "&".join(f"{quote(key, safe='~')}={quote(value, safe='~')}" for key, value in sorted(query.items())),
            "".join(f"{name}:{signed[name]}\n" for name in sorted(signed)),
            names,
            digest,
        ]
    )
    scope = f"{stamp[:8]}/{REGION}/{_SERVICE}/aws4_request"
    to_sign = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{alias.secret_key}".encode()
    for part in (stamp[:8], REGION, _SERVICE, "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    signature = hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest()
    credential = f"AWS4-HMAC-SHA256 Credential={alias.access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
    return {"x-amz-date": stamp, "x-amz-content-sha256": digest, "Authorization": credential}


class Store:
    """One server, as its root user. trusted: folder of CA certificates for https, besides the system's."""

    def __init__(self, alias: Alias, trusted: Path | None = None) -> None:
        self._alias = alias
        self._trusted = trusted

    def healthy(self, path: str) -> bool:
        """Whether a GET of a health path answers 200 now."""
        try:
            status, _ = self._exchange("GET", path, {}, {}, b"", timeout=5.0)
        except StoreError:
            return False
        return status == 200

    def make_bucket(self, bucket: str) -> None:
        self._call("PUT", f"/{bucket}")

    def has_bucket(self, bucket: str) -> bool:
        try:
            self._call("HEAD", f"/{bucket}")
        except StoreError as error:
            if error.status == 404:
                return False
            raise
        return True

    def bucket_policy(self, bucket: str) -> str | None:
        """The bucket's policy as JSON text; None without one."""
        try:
            return self._call("GET", f"/{bucket}", {"policy": ""}).decode()
        except StoreError as error:
            if error.code == "NoSuchBucketPolicy":
                return None
            raise

    def put_bucket_policy(self, bucket: str, policy: str) -> None:
        self._call("PUT", f"/{bucket}", {"policy": ""}, policy.encode())

    def set_user(self, access_key: str, secret_key: str) -> None:
        """Makes an ordinary user, or gives the one of that name this secret."""
        # Element names and numbers as the server's own admin command sends them (versitygw 1.7.0, cmd/versitygw/admin.go).
        account = (
            f"<Account><Access>{escape(access_key)}</Access><Secret>{escape(secret_key)}</Secret><Role>user</Role>"
            "<UserID>0</UserID><GroupID>0</GroupID><ProjectID>0</ProjectID></Account>"
        )
        try:
            self._call("PATCH", "/create-user", body=account.encode())
        except StoreError as error:
            if error.code != "XAdminUserExists":
                raise
            change = f"<MutableProps><Secret>{escape(secret_key)}</Secret><Role>user</Role></MutableProps>"
            self._call("PATCH", "/update-user", {"access": access_key}, change.encode())

    def users(self) -> set[str]:
        """Access keys of all users."""
        answer = self._call("PATCH", "/list-users").decode()
        return {unescape(key) for key in re.findall(r"<Access>([^<]*)</Access>", answer)}

    def _call(self, method: str, path: str, query: Mapping[str, str] | None = None, body: bytes = b"") -> bytes:
        host = f"{self._alias.host}:{self._alias.port}"
        headers = {"host": host}
        now = datetime.datetime.now(datetime.UTC)
        headers |= authorization(self._alias, method, path, query or {}, headers, body, now)
        status, answer = self._exchange(method, path, query or {}, headers, body, _TIMEOUT_SECONDS)
        if status < 300:
            return answer
        text = answer.decode(errors="replace")
        code = re.search(r"<Code>([^<]*)</Code>", text)
        message = re.search(r"<Message>([^<]*)</Message>", text)
        said = unescape(message[1]) if message else http.client.responses.get(status, f"HTTP {status}")
        raise StoreError(said, code[1] if code else "", status)

    def _exchange(
        self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes, timeout: float
    ) -> tuple[int, bytes]:
        target = quote(path, safe="/~")
        if query:
            target += "?" + "&".join(f"{quote(key, safe='~')}={quote(value, safe='~')}" for key, value in sorted(query.items()))
        try:
            connection = self._connect(timeout)
            try:
                connection.request(method, target, body or None, dict(headers))
                response = connection.getresponse()
                return response.status, response.read()
            finally:
                connection.close()
        except (OSError, http.client.HTTPException) as error:
            raise StoreError(f"{self._alias.address} cannot be reached: {getattr(error, 'strerror', None) or error}") from error

    def _connect(self, timeout: float) -> http.client.HTTPConnection:
        if self._alias.scheme == "http":
            return http.client.HTTPConnection(self._alias.host, self._alias.port, timeout=timeout)
        import ssl

        context = ssl.create_default_context()
        if self._trusted is not None and self._trusted.is_dir():
            for file in sorted(self._trusted.iterdir()):
                if file.is_file():
                    context.load_verify_locations(file)
        return http.client.HTTPSConnection(self._alias.host, self._alias.port, timeout=timeout, context=context)
