"""One question to an OpenAI-compatible service, with the times a person would feel."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import urllib3


class ChatError(Exception):
    """No answer; the text says why in one line."""


@dataclass(frozen=True)
class Answer:
    """text; ttft_ms: until the first piece came; tpot_ms: mean between pieces after it, None with fewer than two."""

    text: str
    ttft_ms: float
    tpot_ms: float | None


def ask(
    base_url: str,
    model: str,
    question: str,
    api_key: str | None,
    max_tokens: int = 256,
    on_piece: Callable[[str], None] | None = None,
    timeout: float = 120.0,
) -> Answer:
    """Streams a chat completion from `base_url`/v1; `on_piece` sees the text as it comes. Raises ChatError."""
    body = {"model": model, "messages": [{"role": "user", "content": question}], "max_tokens": max_tokens, "stream": True}
    headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
    if api_key:
        headers["Authorization"] = f"Bearer {api_key}"
    start = time.monotonic()
    pool = urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(connect=5.0, read=timeout))
    try:
        response = pool.request(
            "POST", f"{base_url}/v1/chat/completions", body=json.dumps(body), headers=headers, preload_content=False
        )
        if response.status != 200:
            raise ChatError(f"{model} at {base_url} answered {response.status}: {_message(response.read())}")
        pieces, times = [], []
        for piece in _pieces(response):
            pieces.append(piece)
            times.append(time.monotonic())
            if on_piece:
                on_piece(piece)
    except urllib3.exceptions.HTTPError as error:
        raise ChatError(f"{model} at {base_url} does not answer: {error}") from None
    finally:
        pool.clear()
    if not pieces:
        raise ChatError(f"{model} at {base_url} sent an empty answer")
    gaps = len(times) - 1
    return Answer("".join(pieces), (times[0] - start) * 1000, (times[-1] - times[0]) * 1000 / gaps if gaps else None)


def _pieces(response: urllib3.BaseHTTPResponse) -> Iterator[str]:
    """Text pieces of a server-sent event stream of chat completion chunks. Raises ChatError for one that fails or is none."""
    buffer = b""
    while chunk := response.read1(65536):
        buffer += chunk
        *lines, buffer = buffer.split(b"\n")
        for line in lines:
            if not line.startswith(b"data:"):
                continue
            data = line[5:].strip()
            if data == b"[DONE]":
                return
            try:
                event: dict[str, Any] = json.loads(data)
                choices, failed = event.get("choices") or [], event.get("error")
            except (ValueError, AttributeError):
                raise ChatError(f"the service sent what is no chat: {data.decode(errors='replace')[:200]!r}") from None
            if failed:
                raise ChatError(f"the service gave up while it answered: {_message(data)}")
            for choice in choices:
                if text := (choice.get("delta") or {}).get("content"):
                    yield text


def _message(data: bytes) -> str:
    try:
        body = json.loads(data)
    except ValueError:
        return data.decode(errors="replace").strip()[:200]
    error = body.get("error", body) if isinstance(body, dict) else body
    return str(error.get("message", error) if isinstance(error, dict) else error)[:200]
