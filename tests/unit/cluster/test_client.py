"""The client against a server that speaks as an API server does; what a real one does is seen in tests/embedded."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from embedded.home import LocalHome
from embedded.pki import ensure_pki
from mistral_on_l4.cluster.client import ApiError, KubeClient, UnknownKind, Unreachable

DISCOVERY = {
    "resources": [
        {"name": "pods", "kind": "Pod", "namespaced": True},
        {"name": "pods/status", "kind": "Pod", "namespaced": True},
        {"name": "nodes", "kind": "Node", "namespaced": False},
    ]
}


@dataclass
class Server:
    """Answers every path but discovery with `status` and `body`; asked: (method, path, body, headers) of every request."""

    url: str = ""
    status: int = 200
    body: bytes = b"{}"
    content_type: str = "application/json"
    claimed_length: int | None = None
    asked: list[tuple[str, str, Any, dict[str, str]]] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            state.asked.append((self.command, self.path, json.loads(content) if content else None, dict(self.headers)))
            known = self.path == "/api/v1"
            body = json.dumps(DISCOVERY).encode() if known else state.body
            self.send_response(200 if known else 404 if self.path.startswith("/apis") else state.status)
            self.send_header("Content-Type", "application/json" if known else state.content_type)
            self.send_header("Content-Length", str(len(body) if known else state.claimed_length or len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_PATCH = do_PUT = do_DELETE = do_GET

        def log_message(self, *_: Any) -> None: ...

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    state.url = f"http://127.0.0.1:{httpd.server_port}"
    yield state
    httpd.shutdown()
    httpd.server_close()


@pytest.fixture
def client(server: Server) -> Iterator[KubeClient]:
    client = KubeClient.at(server.url)
    yield client
    client.close()


# -- requests ----------------------------------------------------------------------------------------------------------------


CALLS: list[tuple[Callable[[KubeClient], Any], str, str]] = [
    (lambda c: c.get("v1", "Pod", "a", "b"), "GET", "/api/v1/namespaces/b/pods/a"),
    (lambda c: c.get("v1", "Pod", "a"), "GET", "/api/v1/namespaces/default/pods/a"),
    (lambda c: c.get("v1", "Node", "a", "b"), "GET", "/api/v1/nodes/a"),
    (lambda c: c.list("v1", "Pod"), "GET", "/api/v1/pods"),
    (lambda c: c.list("v1", "Pod", "b", "x=y", "z=1"), "GET", "/api/v1/namespaces/b/pods?labelSelector=x%3Dy&fieldSelector=z%3D1"),
    (lambda c: c.create({"apiVersion": "v1", "kind": "Pod"}), "POST", "/api/v1/namespaces/default/pods"),
    (lambda c: c.patch("v1", "Pod", "a", "b", {}, subresource="status"), "PATCH", "/api/v1/namespaces/b/pods/a/status"),
    (
        lambda c: c.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a"}}, "me", force=True),
        "PATCH",
        "/api/v1/nodes/a?fieldManager=me&force=true",
    ),
    (
        lambda c: c.replace({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "b"}}),
        "PUT",
        "/api/v1/namespaces/b/pods/a",
    ),
]


@pytest.mark.parametrize(("call", "method", "path"), CALLS)
def test_every_call_goes_to_the_objects_own_path(
    server: Server, client: KubeClient, call: Callable[[KubeClient], Any], method: str, path: str
) -> None:
    call(client)
    assert server.asked[-1][:2] == (method, path)


def test_an_object_is_a_plain_dict(server: Server, client: KubeClient) -> None:
    server.body = b'{"kind": "Pod", "metadata": {"name": "a"}}'
    found = client.get("v1", "Pod", "a", "b")
    assert (type(found), type(found["metadata"]), found) == (dict, dict, {"kind": "Pod", "metadata": {"name": "a"}})


def test_a_deletion_names_the_very_object(server: Server, client: KubeClient) -> None:
    client.delete("v1", "Pod", "a", "b", "Background", grace_seconds=0, uid="7")
    wanted = {"propagationPolicy": "Background", "gracePeriodSeconds": 0, "preconditions": {"uid": "7"}}
    assert server.asked[-1][:3] == ("DELETE", "/api/v1/namespaces/b/pods/a", wanted)


def test_a_kind_is_looked_up_once_and_a_missing_one_each_time(server: Server, client: KubeClient) -> None:
    client.get("v1", "Pod", "a")
    client.get("v1", "Node", "a")
    assert [path for _, path, *_ in server.asked].count("/api/v1") == 1
    for _ in range(2):
        with pytest.raises(UnknownKind, match="no matches for kind 'Ghost' in version 'v1'"):
            client.get("v1", "Ghost", "a")
    assert [path for _, path, *_ in server.asked].count("/api/v1") == 3
    with pytest.raises(UnknownKind, match=r"no matches for kind .Thing. in version .example\.org/v1."):
        client.list("example.org/v1", "Thing")


def test_fields_are_written_under_the_projects_name_and_nothing_is_compressed(server: Server, client: KubeClient) -> None:
    client.get("v1", "Pod", "a")
    headers = server.asked[-1][3]
    assert (headers["User-Agent"], headers["Accept-Encoding"]) == ("mistral-on-l4", "identity")


def test_a_log_comes_as_text(server: Server, client: KubeClient) -> None:
    server.body, server.content_type = b"one line\n", "text/plain"
    assert client.request("GET", "/api/v1/namespaces/b/pods/a/log") == {"text": "one line\n"}


# -- errors ------------------------------------------------------------------------------------------------------------------


def test_a_refusal_carries_the_servers_status_reason_and_sentence(server: Server, client: KubeClient) -> None:
    server.status, server.body = 409, json.dumps({"reason": "AlreadyExists", "message": "it is there"}).encode()
    with pytest.raises(ApiError, match="it is there") as raised:
        client.get("v1", "Pod", "a")
    assert (raised.value.status, raised.value.reason) == (409, "AlreadyExists")


def test_a_refusal_that_is_no_status_object_is_given_as_it_is(server: Server, client: KubeClient) -> None:
    server.status, server.body, server.content_type = 503, b"apiserver is shutting down\n", "text/plain"
    with pytest.raises(ApiError, match=r"^apiserver is shutting down$"):
        client.get("v1", "Pod", "a")


def test_a_server_that_is_not_there_is_named() -> None:
    with pytest.raises(Unreachable, match=r"the Kubernetes API at https://127\.0\.0\.1:9 does not answer: .*refused"):
        KubeClient.at("https://127.0.0.1:9").get("v1", "Pod", "a")


def test_no_proxy_stands_between_this_machine_and_itself(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    assert KubeClient.at(server.url).get("v1", "Pod", "a") == {}
    with pytest.raises(Unreachable, match="refused"):
        KubeClient.at("https://cluster.example.org").get("v1", "Pod", "a")


# -- watches -----------------------------------------------------------------------------------------------------------------


def events(*contents: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(event, ensure_ascii=False).encode() + b"\n" for event in contents)


def test_a_watch_yields_every_event_whatever_line_ends_a_text_holds(server: Server, client: KubeClient) -> None:
    told = [{"type": "ADDED", "object": {"text": "one\x85two\u2028three"}}, {"type": "BOOKMARK", "object": {}}]
    server.body = events(*told)
    assert list(client.watch("v1", "Pod", "b", resource_version="5", timeout_seconds=1)) == told
    asked = server.asked[-1][1]
    assert asked == "/api/v1/namespaces/b/pods?watch=true&timeoutSeconds=1&allowWatchBookmarks=true&resourceVersion=5"


def test_a_watch_that_has_expired_says_so(server: Server, client: KubeClient) -> None:
    server.body = events({"type": "ERROR", "object": {"code": 410, "reason": "Expired", "message": "too old resource version"}})
    with pytest.raises(ApiError, match="too old resource version") as raised:
        list(client.watch("v1", "Pod"))
    assert (raised.value.status, raised.value.reason) == (410, "Expired")


def test_a_watch_that_is_cut_ends_after_what_has_come(server: Server, client: KubeClient) -> None:
    server.body = events({"type": "ADDED", "object": {}})
    server.claimed_length = len(server.body) + 100
    assert len(list(client.watch("v1", "Pod"))) == 1


def test_a_watch_that_is_refused_is_an_error(server: Server, client: KubeClient) -> None:
    server.status, server.body = 403, b'{"reason": "Forbidden"}'
    with pytest.raises(ApiError, match="403 Forbidden"):
        list(client.watch("v1", "Pod"))


# -- kubeconfigs -------------------------------------------------------------------------------------------------------------


def kubeconfig(user: dict[str, Any], **cluster: str) -> str:
    return json.dumps(
        {
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}, {"name": "no", "context": {"cluster": "x"}}],
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": user}],
        }
    )


def test_a_token_is_sent(server: Server) -> None:
    KubeClient.from_kubeconfig_text(kubeconfig({"token": "a-token"}, server=server.url)).get("v1", "Pod", "a")
    assert server.asked[-1][3]["Authorization"] == "Bearer a-token"


def test_what_is_missing_in_a_kubeconfig_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a kubeconfig"):
        KubeClient.from_kubeconfig_text("[]")
    text = kubeconfig({}, server="https://127.0.0.1:1")
    with pytest.raises(ValueError, match="Context 'elsewhere' not found"):
        KubeClient.from_kubeconfig_text(text, "elsewhere")
    with pytest.raises(ValueError, match="no cluster or user named 'x'"):
        KubeClient.from_kubeconfig_text(text, "no")
    with pytest.raises(FileNotFoundError):
        KubeClient.from_kubeconfig(tmp_path / "nowhere")


def test_keys_are_read_where_they_lie_and_copied_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tmp_path / "tmp"
    elsewhere.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(elsewhere))
    home = LocalHome(tmp_path / "home")
    home.make()
    ensure_pki(home, "127.64.0.1")
    user = {"client-certificate": "admin.crt", "client-key": "admin.key"}
    text = kubeconfig(user, **{"server": "https://127.0.0.1:9", "certificate-authority": "ca.crt"})
    KubeClient.from_kubeconfig_text(text, base=home.pki)
    assert list(elsewhere.iterdir()) == []


def test_threads_that_make_the_first_clients_at_once_all_get_one() -> None:
    """In a process of its own, in which nothing is imported yet: its modules import each other."""
    script = """
import threading, time
from mistral_on_l4.cluster.client import KubeClient
failed = []
def make(delay):
    time.sleep(delay)
    try:
        KubeClient.at("http://127.0.0.1:1").close()
    except ImportError as error:
        failed.append(error)
threads = [threading.Thread(target=make, args=(number * 0.004,)) for number in range(100)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
raise SystemExit(str(failed[0]) if failed else 0)
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).resolve().parents[3],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
