"""What is asked of both servers, and what of each answer counts: statuses, error bodies, framing, names of metrics."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import requests

from bench.contract.servers import KEY, MODEL, Server
from embedded.images.engine.front import NOT_SIMULATED, PASSED

SECONDS = 300.0
CHAT = "/v1/chat/completions"
QUESTION = {"model": MODEL, "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 4, "temperature": 0}
PROMPT = {"model": MODEL, "prompt": "Hello", "max_tokens": 4, "temperature": 0}
# What dashboards and pages of this project read.
METRICS = (
    "vllm:time_to_first_token_seconds",
    "vllm:inter_token_latency_seconds",
    "vllm:e2e_request_latency_seconds",
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:kv_cache_usage_perc",
    "vllm:prompt_tokens_total",
    "vllm:generation_tokens_total",
    "vllm:request_success_total",
    "vllm:cache_config_info",
)


@dataclass(frozen=True)
class Check:
    """A question with one comparable answer. of: asks a server."""

    name: str
    of: Callable[[Server], Any]


def checks(routes: dict[str, list[str]]) -> Iterator[Check]:
    """routes: paths of vLLM's own OpenAPI document, with their methods."""
    yield Check("/health while loading", lambda server: sorted(server.while_loading))
    yield from _auth(routes)
    yield from _errors()
    yield from _answers()
    yield Check("stream: chat", lambda server: _stream(server, {**QUESTION, "stream": True}))
    usage = {**QUESTION, "stream": True, "stream_options": {"include_usage": True}}
    yield Check("stream: chat with usage", lambda server: _stream(server, usage))
    yield Check("stream: completion", lambda server: _stream(server, {**PROMPT, "stream": True}, "/v1/completions"))
    yield Check("stream: client gone in the middle", _client_gone)
    for name in METRICS:
        yield Check(f"metric {name}", lambda server, name=name: _has_metric(server, name))  # type: ignore[misc]


def routes_of(server: Server) -> dict[str, list[str]]:
    """Path -> methods that vLLM lists, without those with parameters in the path."""
    paths = requests.get(f"{server.url}/openapi.json", timeout=SECONDS).json()["paths"]
    return {path: sorted(method.upper() for method in methods) for path, methods in sorted(paths.items()) if "{" not in path}


def _auth(routes: dict[str, list[str]]) -> Iterator[Check]:
    for path, methods in routes.items():
        for method in methods:
            for who, headers in (("no key", {}), ("a wrong key", {"Authorization": "Bearer wrong"})):
                yield Check(f"{method} {path} with {who}", lambda s, m=method, p=path, h=headers: _refused(s, m, p, h))  # type: ignore[misc]
    for path, method in {**PASSED, "/version": "GET", "/ping": "GET"}.items():
        if path in routes or path == "/metrics":
            yield Check(
                f"{method} {path} is there", lambda s, m=method, p=path: _send(s, m, p).status_code not in (401, 404, 405, 501)
            )  # type: ignore[misc]


def _refused(server: Server, method: str, path: str, headers: dict[str, str]) -> Any:
    """Whether the key is asked for, and in which words."""
    found = requests.request(method, server.url + path, headers=headers, json={} if method == "POST" else None, timeout=SECONDS)
    return (401, found.json()) if found.status_code == 401 else "let through"


def _errors() -> Iterator[Check]:
    def post(name: str, body: Any, path: str = CHAT) -> Check:
        return Check(f"error: {name}", lambda server: _error(_send(server, "POST", path, body)))

    yield post("unknown model", {**QUESTION, "model": "no-such"})
    yield post("unknown model, completion", {**PROMPT, "model": "no-such"}, "/v1/completions")
    yield post("prompt longer than the context", {**PROMPT, "prompt": "word " * 4000}, "/v1/completions")
    yield post("max_tokens beyond the context", {**QUESTION, "max_tokens": 10**6})
    yield post("n=0", {**QUESTION, "n": 0})
    yield post("max_tokens=0", {**QUESTION, "max_tokens": 0})
    yield post("temperature -1", {**QUESTION, "temperature": -1})
    yield post("no messages", {"model": MODEL})
    yield post("messages is text", {"model": MODEL, "messages": "hello"})
    yield post("no prompt", {"model": MODEL}, "/v1/completions")
    yield Check("error: no JSON", lambda server: _error(_raw(server, b"{not json", "application/json")))
    yield Check("error: empty body", lambda server: _error(_raw(server, b"", "application/json")))
    yield Check("error: wrong content type", lambda server: _error(_raw(server, json.dumps(QUESTION).encode(), "text/plain")))
    yield Check("error: unknown path", lambda server: _error(_send(server, "GET", "/v1/no-such")))
    yield Check("error: wrong method", lambda server: _error(_send(server, "GET", CHAT)))


def _answers() -> Iterator[Check]:
    yield Check("answer: chat", lambda server: _shape(_send(server, "POST", CHAT, QUESTION).json(), _CHAT_KEYS))
    yield Check("answer: completion", lambda server: _shape(_send(server, "POST", "/v1/completions", PROMPT).json(), _TEXT_KEYS))
    yield Check("answer: /v1/models", _models)
    yield Check("answer: /version", lambda server: sorted(_send(server, "GET", "/version").json()))
    yield Check(
        "answer: max_tokens is kept", lambda server: _send(server, "POST", CHAT, QUESTION).json()["usage"]["completion_tokens"] <= 4
    )
    for path in NOT_SIMULATED:
        if path == "/tokenize":
            yield Check("answer: /tokenize", lambda server: sorted(_send(server, "POST", "/tokenize", PROMPT).json()))


_CHAT_KEYS = ("id", "object", "created", "model", "choices", "usage")
_TEXT_KEYS = _CHAT_KEYS


def _models(server: Server) -> Any:
    found = _send(server, "GET", "/v1/models").json()
    return found["object"], [(each["id"], each["object"], each.get("max_model_len")) for each in found["data"]]


def _shape(answer: dict[str, Any], keys: tuple[str, ...]) -> Any:
    """What clients read: the keys, the object, each choice's fields, the counts that are there."""
    (choice,) = answer["choices"]
    message = choice.get("message")
    return (
        sorted(set(keys) & set(answer)),
        answer["object"],
        answer["model"],
        choice["index"],
        choice["finish_reason"] in ("stop", "length"),
        sorted({"role", "content"} & set(message)) if message else type(choice.get("text")).__name__,
        sorted({"prompt_tokens", "completion_tokens", "total_tokens"} & set(answer["usage"])),
    )


def _error(response: requests.Response) -> Any:
    """(status, where the sentence is, type, code): the sentence itself differs with the versions."""
    try:
        body = response.json()
    except ValueError:
        return response.status_code, "no JSON"
    error = body.get("error") if isinstance(body, dict) else None
    if isinstance(error, dict):
        return response.status_code, sorted({"message", "type", "code"} & set(error)), error.get("type"), error.get("code")
    return response.status_code, sorted(body) if isinstance(body, dict) else type(body).__name__


def _stream(server: Server, body: dict[str, Any], path: str = CHAT) -> Any:
    """How a stream is framed: content type, what the chunks are, what comes last."""
    response = _send(server, "POST", path, body, stream=True)
    lines = [line.decode() for line in response.iter_lines() if line]
    events = [line.removeprefix("data: ") for line in lines]
    chunks = [json.loads(event) for event in events if event != "[DONE]"]
    last = [chunk for chunk in chunks if chunk["choices"]][-1]
    return (
        response.status_code,
        response.headers["content-type"].partition(";")[0],
        all(line.startswith("data: ") for line in lines),
        sorted({chunk["object"] for chunk in chunks}),
        (chunks[0]["choices"][0].get("delta") or {}).get("role"),
        last["choices"][0]["finish_reason"] in ("stop", "length"),
        any(chunk.get("usage") for chunk in chunks),
        events[-1],
    )


def _client_gone(server: Server) -> Any:
    """The server goes on after a client that left in the middle of a stream."""
    response = _send(server, "POST", CHAT, {**QUESTION, "max_tokens": 200, "stream": True}, stream=True)
    next(response.iter_lines())
    response.close()
    return _send(server, "GET", "/health").status_code, _send(server, "POST", CHAT, QUESTION).status_code


def _has_metric(server: Server, name: str) -> bool:
    text = _send(server, "GET", "/metrics").text
    return re.search(rf"^{re.escape(name)}(_bucket|_total)?[ {{]", text, re.MULTILINE) is not None


def _send(server: Server, method: str, path: str, body: Any = None, stream: bool = False) -> requests.Response:
    headers = {"Authorization": f"Bearer {KEY}"}
    return requests.request(method, server.url + path, headers=headers, json=body, timeout=SECONDS, stream=stream)


def _raw(server: Server, body: bytes, kind: str) -> requests.Response:
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": kind}
    return requests.post(server.url + CHAT, headers=headers, data=body, timeout=SECONDS)
