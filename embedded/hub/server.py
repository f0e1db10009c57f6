"""The hub's HTTP server: a thread per connection, bodies by sendfile.

A large file is a 302 from the hub to a signed, expiring URL of its storage (path /cdn/, on an address of its own if
wanted); a small one a 307 within the hub, as on the public one. Xet is never offered, so that clients use plain HTTP.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import BinaryIO, ClassVar
from urllib.parse import parse_qs, quote, unquote, urlsplit

from embedded.hub import responses
from embedded.hub.repository import Entry, Repository
from embedded.hub.responses import Refusal, Signer


@dataclass(frozen=True)
class HubContent:
    """What a hub serves and to whom.

    tokens: accepted bearer tokens, each with the gated repositories its owner was admitted to. Without any token in the
    table every token is accepted, and gated repositories are closed to all.
    """

    repositories: Mapping[str, Repository]
    tokens: Mapping[str, frozenset[str]] = field(default_factory=dict)


class HubServer(ThreadingHTTPServer):
    """Serves `content` on `address`. storage_origin: "http://host:port" of storage URLs, by default the one asked."""

    daemon_threads = True
    request_queue_size = 256
    allow_reuse_address = True

    def __init__(
        self,
        address: tuple[str, int],
        content: HubContent,
        *,
        handler: type[HubHandler] | None = None,
        storage_origin: str | None = None,
        url_seconds: float = 3600.0,
        quiet: bool = False,
    ) -> None:
        self.content = content
        self.storage_origin = storage_origin
        self.signer = Signer(secrets.token_bytes(32), url_seconds)
        self.quiet = quiet
        super().__init__(address, handler or HubHandler)

    @property
    def url(self) -> str:
        return f"http://{self.server_address[0]!s}:{self.server_address[1]}"


class HubHandler(BaseHTTPRequestHandler):
    """One connection. Tests and the benchmark override `before` and `send_body` to make trouble."""

    protocol_version = "HTTP/1.1"
    server_version = "mistral-on-l4-hub"
    disable_nagle_algorithm = True
    # Of an idle or stuck peer.
    timeout: ClassVar[float] = 120.0
    server: HubServer

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def before(self, _path: str) -> bool:
        """Called for each request with its raw path; True: it has been answered."""
        return False

    def send_body(self, file: BinaryIO, _entry: Entry, offset: int, count: int) -> None:
        """Sends `count` bytes of a file from `offset`, headers being out already."""
        self.connection.sendfile(file, offset, count)

    def log_message(self, format: str, *args: object) -> None:
        # Neither query (signatures) nor headers (tokens).
        if not self.server.quiet:
            print(f"{time.strftime('%H:%M:%S')} {self.client_address[0]} {format % args}", flush=True)

    def log_request(self, code: int | str = "-", _size: int | str = "-") -> None:
        self.log_message("%s %s %s", self.command, urlsplit(self.path).path, int(code) if isinstance(code, HTTPStatus) else code)

    def _answer(self) -> None:
        path = urlsplit(self.path).path
        try:
            if not self.before(path):
                self._route(path)
        except Refusal as refusal:
            self._refuse(refusal)
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def _route(self, path: str) -> None:
        # Split before decoding: a revision such as refs/pr/1 travels as one segment.
        parts = [unquote(part) for part in path.strip("/").split("/")]
        match parts:
            case ["healthz"]:
                self._json({"status": "ok"})
            case ["api", "whoami-v2"]:
                self._whoami()
            case ["api", "models", owner, name, *rest]:
                self._api(self._repository(owner, name), rest)
            case ["api", "resolve-cache", "models", owner, name, revision, *file] if file:
                self._plain_file(*self._entry(self._repository(owner, name), revision, "/".join(file)))
            case ["cdn", owner, name, digest]:
                self._stored(path, f"{owner}/{name}", digest)
            case [owner, name, "resolve", revision, *file] if file:
                self._resolve(self._repository(owner, name), revision, "/".join(file))
            case _:
                raise Refusal(HTTPStatus.NOT_FOUND, "Sorry, we can't find the page you are looking for.")

    def _token(self) -> str | None:
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        token = token.strip() if scheme.lower() == "bearer" else ""
        if token and self.server.content.tokens and token not in self.server.content.tokens:
            raise Refusal(HTTPStatus.UNAUTHORIZED, "Invalid credentials in Authorization header")
        return token or None

    def _whoami(self) -> None:
        if self._token() is None:
            raise Refusal(HTTPStatus.UNAUTHORIZED, "Invalid username or password.")
        self._json({"type": "user", "id": "local", "name": "local", "fullname": "Local user", "isPro": False, "orgs": []})

    def _repository(self, owner: str, name: str) -> Repository:
        self._token()
        repository = self.server.content.repositories.get(f"{owner}/{name}")
        if repository is None:
            raise responses.no_repository(f"{owner}/{name}")
        return repository

    def _admit(self, repository: Repository) -> None:
        token = self._token()
        if repository.gated and repository.id not in self.server.content.tokens.get(token or "", frozenset()):
            raise responses.gate_closed(repository, known=token in self.server.content.tokens)

    def _entry(self, repository: Repository, revision: str, path: str) -> tuple[Repository, Entry]:
        self._admit(repository)
        found = self._at(repository, revision)
        entry = found.entries.get(path)
        if entry is None:
            raise responses.no_entry(found, path)
        return found, entry

    def _at(self, repository: Repository, revision: str) -> Repository:
        found = repository.at(revision)
        if found is None:
            raise responses.no_revision(revision)
        return found

    def _api(self, repository: Repository, rest: list[str]) -> None:
        """The API tells what a gated repository holds to everybody; only the files are closed."""
        query = parse_qs(urlsplit(self.path).query)
        kind, revision, *below = [*rest, *("revision", "main")[len(rest) :]]
        if kind == "auth-check":
            self._admit(repository)
            self._json({})
            return
        repository = self._at(repository, revision)
        if kind == "revision" and not below:
            self._json(responses.info(repository, _flag(query, "blobs")))
        elif kind == "tree":
            self._json(responses.tree(repository, "/".join(below), _flag(query, "recursive")))
        else:
            raise Refusal(HTTPStatus.NOT_FOUND, "Not found")

    def _resolve(self, repository: Repository, revision: str, path: str) -> None:
        repository, entry = self._entry(repository, revision, path)
        headers = {"X-Repo-Commit": repository.commit, "Vary": "Origin, Accept"}
        if entry.lfs:
            stored = f"/cdn/{repository.id}/{entry.sha256}"
            location = f"{self._storage_origin()}{stored}?{self.server.signer.query(stored, time.time())}"
            headers |= {
                "X-Linked-Size": str(entry.size),
                "X-Linked-Etag": f'"{entry.sha256}"',
                "Accept-Ranges": "bytes",
            }
            self._redirect(HTTPStatus.FOUND, location, headers)
            return
        location = f"/api/resolve-cache/models/{repository.id}/{repository.commit}/{quote(path)}?etag=%22{entry.git_sha1}%22"
        self._redirect(HTTPStatus.TEMPORARY_REDIRECT, location, headers)

    def _storage_origin(self) -> str:
        return self.server.storage_origin or f"http://{self.headers.get('Host', self.server.url.removeprefix('http://'))}"

    def _plain_file(self, repository: Repository, entry: Entry) -> None:
        self._file(repository, entry, {"X-Repo-Commit": repository.commit, "ETag": f'"{entry.git_sha1}"'})

    def _stored(self, path: str, repository: str, digest: str) -> None:
        query = parse_qs(urlsplit(self.path).query)
        expires, signature = query.get("Expires", [""])[0], query.get("Signature", [""])[0]
        known = self.server.content.repositories.get(repository)
        commits = (known, *known.branches) if known else ()
        found, entry = next(
            ((commit, entry) for commit in commits for entry in commit.entries.values() if entry.sha256 == digest), (None, None)
        )
        if found is None or entry is None or not self.server.signer.accepts(path, expires, signature, time.time()):
            body = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"
            self._head(HTTPStatus.FORBIDDEN, {"Content-Type": "application/xml"}, body)
            return
        # A store's own ETag is not the SHA-256: clients that take it for one are wrong on the public hub too.
        headers = {"ETag": f'"{entry.sha256[::-1]}"'}
        if not self.server.storage_origin:
            # On the hub's own address huggingface_hub 2 follows a HEAD's redirect, and wants the hub's headers there.
            headers = {"ETag": f'"{entry.sha256}"', "X-Repo-Commit": found.commit}
        self._file(found, entry, {**headers, "Cache-Control": "public, max-age=31536000"})

    def _file(self, repository: Repository, entry: Entry, headers: dict[str, str]) -> None:
        part = responses.byte_range(self.headers.get("Range"), entry.size)
        offset, count = part or (0, entry.size)
        headers |= {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes"}
        if part:
            headers["Content-Range"] = f"bytes {offset}-{offset + count - 1}/{entry.size}"
        with (repository.folder / entry.path).open("rb") as file:
            self._head(HTTPStatus.PARTIAL_CONTENT if part else HTTPStatus.OK, headers, length=count)
            if self.command == "GET" and count:
                self.send_body(file, entry, offset, count)

    def _json(self, document: object) -> None:
        self._head(HTTPStatus.OK, {"Content-Type": "application/json; charset=utf-8"}, json.dumps(document).encode())

    def _redirect(self, status: HTTPStatus, location: str, headers: dict[str, str]) -> None:
        text = f"{status.phrase}. Redirecting to {location}".encode()
        self._head(status, {**headers, "Location": location, "Content-Type": "text/plain; charset=utf-8"}, text)

    def _refuse(self, refusal: Refusal) -> None:
        headers = {
            **refusal.headers,
            "X-Error-Message": refusal.message,
            "Content-Type": "application/json; charset=utf-8",
        }
        if refusal.code:
            headers["X-Error-Code"] = refusal.code
        self._head(refusal.status, headers, json.dumps({"error": refusal.message}).encode())

    def _head(self, status: int, headers: Mapping[str, str], body: bytes = b"", length: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if body and self.command == "GET":
            self.wfile.write(body)

    def handle(self) -> None:
        # A client may go away at any moment; that is no error of ours.
        try:
            super().handle()
        except (ConnectionError, TimeoutError):
            self.close_connection = True


def _flag(query: Mapping[str, list[str]], name: str) -> bool:
    return query.get(name, ["false"])[0].lower() in {"true", "1"}
