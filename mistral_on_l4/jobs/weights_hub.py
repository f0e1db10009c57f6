"""Reads a repository from the hub: its files at one commit, and ranges of their content.

Metadata and its errors come from huggingface_hub. Ranges are read here, because its downloads go to disk and check sizes only.
A large file's content lies behind a redirect to a signed URL of another host: the token is for the hub's own origin alone,
and an expired URL is asked for again.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

import requests
import urllib3.exceptions

from mistral_on_l4.jobs.trust import tls_problem
from mistral_on_l4.jobs.weights_files import HubFile, selected
from mistral_on_l4.jobs.weights_limits import Failure, Limits, Stop, Stopped
from mistral_on_l4.jobs.weights_patience import Again, Patience

_CHUNK_BYTES = 512 * 1024
_CONNECT_SECONDS = 10.0
# The hub counts requests in windows of five minutes: no wait that it asks for can be longer.
_LONGEST_ASKED_SECONDS = 330.0
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_UNRESOLVED = "its name cannot be resolved"
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Snapshot:
    """A repository at one commit."""

    repository: str
    commit: str
    files: tuple[HubFile, ...]


class _Expired(Again):
    """The signed URL is no longer valid, or the storage refuses all of them for now."""


@dataclass
class _Location:
    """Where a file's content is, once the hub has said so."""

    url: str | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


class Hub:
    """endpoint: URL of the hub; token: for gated repositories, or None."""

    def __init__(self, endpoint: str, token: str | None, limits: Limits, stop: Stop) -> None:
        self._endpoint = endpoint.rstrip("/")
        self.patience = Patience(f"the hub at {self._endpoint}", "hub.endpoint", limits, stop)
        self._token = token
        self._limits = limits
        self._stop = stop
        self._sessions = threading.local()
        self._locations: dict[str, _Location] = {}
        self._lock = threading.Lock()

    # -- metadata ------------------------------------------------------------------------------------------------------

    def snapshot(self, repository: str, revision: str) -> Snapshot:
        """What the repository holds at a branch, tag or commit. Raises Failure with what to do."""
        # Imported here: it takes half a second, which a job with nothing to do does not need to spend.
        from huggingface_hub import HfApi
        from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

        api = HfApi(endpoint=self._endpoint, token=self._token or False)

        def ask() -> Any:
            try:
                return api.model_info(repository, revision=revision, files_metadata=True, timeout=self._limits.stall_seconds)
            except GatedRepoError as error:
                raise Failure(self._gate(repository)) from error
            except RevisionNotFoundError as error:
                raise Failure(
                    f"{repository} has no revision {revision!r} on {self._endpoint}: use a commit, tag or branch of it"
                ) from error
            except RepositoryNotFoundError as error:
                raise Failure(
                    f"{self._endpoint} has no model {repository!r}, or it is private: check the name"
                    + ("" if self._token else " and, for a private one, set hubToken")
                ) from error
            except HfHubHTTPError as error:
                raise self._refusal(error.response, f"{repository} at {revision}") from error
            except requests.JSONDecodeError as error:
                raise Failure(
                    f"{self._endpoint} does not answer in JSON, so it is no hub: set hub.endpoint to the address of one"
                ) from error
            except (requests.RequestException, OSError) as error:
                raise self._broken(f"{repository} at {revision}", error) from error

        info = self.patience.call(ask)
        if not info.sha or not _COMMIT.fullmatch(info.sha):
            raise Failure(f"{self._endpoint} tells no commit for {repository} at {revision}")
        if _COMMIT.fullmatch(revision) and info.sha != revision:
            raise Failure(f"{self._endpoint} answers commit {info.sha} for {repository} at {revision}")
        return Snapshot(repository, info.sha, tuple(self._file(sibling) for sibling in info.siblings or []))

    def _file(self, sibling: Any) -> HubFile:
        """Of one entry of a listing. Raises Failure for one that could not be proven."""
        size = sibling.lfs.size if sibling.lfs else sibling.size
        sha256, git_sha1 = (sibling.lfs.sha256, None) if sibling.lfs else (None, sibling.blob_id)
        # What stays behind needs no proof.
        if selected(sibling.rfilename) and (size is None or not (sha256 or git_sha1)):
            raise Failure(
                f"{self.patience.name} tells no {'size' if size is None else 'digest'} of {sibling.rfilename}, so it could not be "
                "proven: set hub.endpoint to one that answers ?blobs=true in full, such as https://huggingface.co"
            )
        return HubFile(sibling.rfilename, int(size or 0), sha256, git_sha1)

    def _gate(self, repository: str) -> str:
        page = f"{self._endpoint}/{repository}"
        if self._token:
            return f"{repository} is gated: sign in at {page} as the owner of hubToken, accept the conditions there, and run again"
        return (
            f"{repository} is gated: sign in at {page}, accept the conditions there, "
            "and give the stack a token of that account (pulumi config set --secret hubToken)"
        )

    # -- content -------------------------------------------------------------------------------------------------------

    def read(
        self, snapshot: Snapshot, file: HubFile, start: int, into: memoryview, arrived: Callable[[int], None] = lambda _: None
    ) -> None:
        """Fills `into` with the file's bytes from `start`; a broken connection is gone on with where it ended.

        arrived is told, after each piece, how many bytes are there. Raises Failure, Stopped.
        """
        done, renewed = 0, False
        wait = self.patience.wait()
        try:
            while done < len(into):
                try:
                    for count in self._range(snapshot, file, start + done, into[done:]):
                        done += count
                        wait.brought(count)
                        arrived(done)
                        renewed = False
                except Again as again:
                    # An expired URL needs no patience, once: the hub has a new one. A second refusal in a row does.
                    if isinstance(again, _Expired) and not renewed:
                        renewed = True
                        continue
                    wait.after(again)
            self.patience.answered = True
        finally:
            wait.over()

    def _range(self, snapshot: Snapshot, file: HubFile, start: int, into: memoryview) -> Any:
        """Yields the number of bytes put into `into`, as they come."""
        count = len(into)
        try:
            with self._open(snapshot, file, start, count) as answer:
                done, slow = 0, _Slow(self._limits)
                while done < count:
                    if self._stop.is_set():
                        raise Stopped
                    data = answer.raw.read1(min(_CHUNK_BYTES, count - done))
                    if not data:
                        raise Again(file.path, f"cut the connection {count - done} bytes early")
                    into[done : done + len(data)] = data
                    done += len(data)
                    yield len(data)
                    slow.check(file.path, len(data))
                # Reading the end hands the connection back to be used again; closing it early would not.
                answer.raw.read()
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise self._broken(file.path, error) from error

    def _open(self, snapshot: Snapshot, file: HubFile, start: int, count: int) -> requests.Response:
        with self._lock:
            location = self._locations.setdefault(file.path, _Location())
        asked = {"Range": f"bytes={start}-{start + count - 1}", "Accept-Encoding": "identity"}
        with location.lock:
            url, answer = location.url, None
            if url is None:
                url, answer = self._resolve(snapshot, file, asked)
                location.url = url if answer.status_code in (200, 206) else None
        if answer is None:
            answer = self._get(url, asked)
        if answer.status_code not in (200, 206):
            answer.close()
            # What the hub itself refuses has a code; a storage that refuses does so because its URL is no longer valid.
            expired = answer.status_code in (400, 401, 403, 404, 410) and "X-Error-Code" not in answer.headers
            if answer.status_code not in _TRANSIENT:
                with location.lock:
                    location.url = None if location.url == url else location.url
            if expired and url != self._page(snapshot, file):
                raise _Expired(file.path, f"answers {answer.status_code} from its storage, to a fresh URL")
            where = "" if self._at_hub(url) else f" from its storage at {urlsplit(url).hostname}"
            raise self._refusal(answer, file.path, snapshot.repository, where)
        problem = _range_problem(answer, start, count, file.size)
        if problem:
            answer.close()
            raise Again(file.path, problem)
        return answer

    def _resolve(self, snapshot: Snapshot, file: HubFile, headers: dict[str, str]) -> tuple[str, requests.Response]:
        """Follows the hub's redirects by hand; the URL where content lies, with its answer."""
        url = self._page(snapshot, file)
        for _ in range(6):
            answer = self._get(url, headers)
            linked = answer.headers.get("X-Linked-Etag", "").strip('W/"')
            if self._at_hub(url) and linked and file.sha256 and linked != file.sha256:
                answer.close()
                raise Failure(f"{file.path}: the hub now links {linked}, its listing said {file.sha256}")
            if answer.status_code not in _REDIRECTS or "Location" not in answer.headers:
                return url, answer
            url = urljoin(url, answer.headers["Location"])
            answer.content  # noqa: B018  (a drained connection is used again)
            answer.close()
        raise Again(file.path, "redirects without end")

    def _page(self, snapshot: Snapshot, file: HubFile) -> str:
        return f"{self._endpoint}/{snapshot.repository}/resolve/{snapshot.commit}/{quote(file.path)}"

    def _get(self, url: str, headers: dict[str, str]) -> requests.Response:
        if self._token and self._at_hub(url):
            headers = {**headers, "Authorization": f"Bearer {self._token}"}
        session = getattr(self._sessions, "session", None)
        if session is None:
            session = self._sessions.session = requests.Session()
        timeout = (_CONNECT_SECONDS, self._limits.stall_seconds)
        answer: requests.Response = session.get(url, headers=headers, stream=True, allow_redirects=False, timeout=timeout)
        return answer

    def _at_hub(self, url: str) -> bool:
        def origin(text: str) -> tuple[str, str | None, int | None]:
            parts = urlsplit(text)
            return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)

        return origin(url) == origin(self._endpoint)

    def _broken(self, what: str, error: Exception) -> Exception:
        """The exception for no answer, or half of one."""
        problem = tls_problem(error)
        if problem and not self.patience.answered:
            return Failure(f"{self.patience.name} {problem}")
        said = _reason(error)
        return Again(what, problem or f"does not answer ({said})", unresolved=said == _UNRESOLVED)

    def _refusal(self, answer: Any, what: str, repository: str | None = None, where: str = "") -> Exception:
        """The exception for an answer that is no success."""
        code, status = answer.headers.get("X-Error-Code", ""), answer.status_code
        if code == "GatedRepo":
            return Failure(self._gate(repository or what.partition(" ")[0]))
        said = answer.headers.get("X-Error-Message", "")
        text = f"{what}: the hub answers {status}{f' ({said})' if said else ''}"
        if status in _TRANSIENT:
            return Again(what, f"answers {status}{where}{f' ({said})' if said else ''}", _asked(answer))
        if status == 403 and not code and not said:
            # The hub gives a reason; what stands in front of it does not.
            return Again(what, "answers 403 without a reason, as a CDN or a proxy in between does")
        if status == 401:
            return Failure(f"{text}: the configured token is not valid" if self._token else f"{text}: it wants a token (hubToken)")
        return Failure(text)


class _Slow:
    """Notices a connection that drips: it never times out and would keep a part for hours."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._since, self._bytes = time.monotonic(), 0

    def check(self, path: str, count: int) -> None:
        self._bytes += count
        seconds = time.monotonic() - self._since
        if seconds < self._limits.stall_seconds:
            return
        rate = self._bytes / 1024 / seconds
        if rate < self._limits.slow_kib_per_second:
            raise Again(path, f"sends only {rate:.1f} KiB/s over a connection")
        self._since, self._bytes = time.monotonic(), 0


def _range_problem(answer: requests.Response, start: int, count: int, size: int) -> str | None:
    if answer.headers.get("Content-Encoding", "identity") != "identity":
        return "encodes the content, so ranges mean nothing"
    if answer.status_code == 200:
        if start == 0 and answer.headers.get("Content-Length") == str(size) == str(count):
            return None
        return "ignores ranges"
    wanted = f"bytes {start}-{start + count - 1}/{size}"
    got = answer.headers.get("Content-Range", "none")
    return None if got == wanted else f"sends range {got!r}, asked was {wanted!r}"


def _asked(answer: Any) -> float | None:
    """Seconds that the answer asks to wait: Retry-After (seconds or a date), or t of RateLimit."""
    text = answer.headers.get("Retry-After", "").strip()
    match = re.search(r";\s*t=(\d+)", answer.headers.get("RateLimit", ""))
    seconds: float | None = None
    if text.isdigit():
        seconds = float(text)
    elif text:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - time.time()
        except ValueError:
            seconds = None
    elif match:
        seconds = float(match.group(1))
    return None if seconds is None else min(max(seconds, 0.0), _LONGEST_ASKED_SECONDS)


def _reason(error: BaseException) -> str:
    """A short cause, without URLs: signed ones are as good as a key."""
    names = {
        "ReadTimeout": "nothing arrived in time",
        "ReadTimeoutError": "nothing arrived in time",
        "ConnectTimeout": "no connection in time",
        "ConnectionError": "connection failed",
        "ProtocolError": "the connection broke",
        "IncompleteRead": "the connection ended early",
        "ConnectionResetError": "the connection was reset",
        "SSLError": "TLS failed",
        "ProxyError": "the proxy failed",
    }
    kind = type(error).__name__
    text = str(error)
    if "refused" in text:
        return "connection refused"
    if "resolve" in text.lower() and "name" in text.lower():
        return _UNRESOLVED
    return names.get(kind, kind)
