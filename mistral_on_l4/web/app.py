"""The page's server: two documents, one stream, three files."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anyio.to_thread import run_sync
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from mistral_on_l4.cluster.chat import Answer, ChatError, converse, new_client, warm_up
from mistral_on_l4.cluster.client import ApiError
from mistral_on_l4.cluster.connection import NoConnection
from mistral_on_l4.web.facts import Document
from mistral_on_l4.web.guard import Guard, Guarded

_STATIC = Path(__file__).parent / "static"
_FILES = {"/": "index.html", "/page.css": "page.css", "/page.js": "page.js"}
_LONGEST_PROMPT, _MOST_TOKENS = 64_000, 4096


@dataclass(frozen=True)
class Source:
    """What the page is about. Its functions block and run in threads; they raise ApiError and NoConnection.

    url, forget: of a service by name; usd_per_hour: by service.
    """

    facts: Callable[[], Document]
    live: Callable[[], Document]
    url: Callable[[str], str]
    forget: Callable[[str], None]
    key: str | None
    usd_per_hour: Mapping[str, float | None]


def create_app(source: Source, guard: Guard) -> Starlette:
    """The application. It never hands out `source.key`."""
    clients: dict[str, Any] = {}

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await warm_up()
        yield
        for client in clients.values():
            await client.close()

    async def document(read: Callable[[], Document]) -> Response:
        try:
            return JSONResponse(await run_sync(read))
        except (ApiError, NoConnection) as error:
            return JSONResponse({"problem": str(error)}, 503)

    async def stack(_: Request) -> Response:
        return await document(source.facts)

    async def live(_: Request) -> Response:
        return await document(source.live)

    async def file(request: Request) -> Response:
        return FileResponse(_STATIC / _FILES[request.url.path])

    async def ask(request: Request) -> Response:
        if request.headers.get("content-type", "").partition(";")[0] != "application/json":
            return JSONResponse({"problem": "a question is sent as application/json"}, 415)
        try:
            asked = Question.read(await request.json(), set(source.usd_per_hour))
        except (ValueError, ClientDisconnect) as error:
            return JSONResponse({"problem": str(error)}, 400)
        return StreamingResponse(answers(asked), media_type="application/x-ndjson")

    async def answers(asked: Question) -> AsyncIterator[bytes]:
        """One JSON document a line, as each comes. Ends when all have; closing it ends the questions as well."""
        lines: asyncio.Queue[Document | None] = asyncio.Queue()

        async def one(name: str) -> None:
            said = 0
            last: Answer | None = None

            def line(answer: Answer | None, **more: Any) -> None:
                nonlocal said
                document: Document = {"service": name, **more}
                if answer:
                    document |= _counters(answer, source.usd_per_hour[name]) | {"text": answer.text[said:]}
                    said = len(answer.text)
                lines.put_nowait(document)

            try:
                url = await run_sync(source.url, name)
                client = clients.get(url) or clients.setdefault(url, new_client(url, source.key))
                async for last in converse(client, name, asked.messages, asked.max_tokens):
                    line(last, done=last.finish is not None)
            except ChatError as error:
                await run_sync(source.forget, name)
                line(error.partial, done=True, problem=str(error))
            except (ApiError, NoConnection) as error:
                line(None, done=True, problem=str(error))

        async def all_of_them() -> None:
            try:
                await asyncio.gather(*(one(name) for name in asked.services))
            finally:
                lines.put_nowait(None)

        task = asyncio.create_task(all_of_them())
        try:
            while (document := await lines.get()) is not None:
                yield json.dumps(document).encode() + b"\n"
        finally:
            task.cancel()

    routes = [Route(path, file) for path in _FILES]
    routes += [Route("/api/stack", stack), Route("/api/live", live), Route("/api/ask", ask, methods=["POST"])]
    return Starlette(routes=routes, middleware=[Middleware(Guarded, guard)], lifespan=lifespan)


@dataclass(frozen=True)
class Question:
    """What the page asks."""

    messages: list[dict[str, str]]
    services: list[str]
    max_tokens: int

    @classmethod
    def read(cls, body: Any, known: set[str]) -> Question:
        """Raises ValueError: one line for the page."""
        if not isinstance(body, dict) or not isinstance(body.get("prompt"), str) or not body["prompt"].strip():
            raise ValueError("the prompt is empty")
        if len(body["prompt"]) > _LONGEST_PROMPT:
            raise ValueError(f"the prompt has {len(body['prompt'])} characters: at most {_LONGEST_PROMPT}")
        services, most = body.get("services"), body.get("maxTokens", 256)
        if not isinstance(services, list) or not services or not all(isinstance(name, str) for name in services):
            raise ValueError("name the services to ask")
        if unknown := [name for name in services if name not in known]:
            raise ValueError(f"no service {unknown[0]!r}; the services are {', '.join(sorted(known))}")
        if not isinstance(most, int) or isinstance(most, bool) or not 1 <= most <= _MOST_TOKENS:
            raise ValueError(f"maxTokens is a whole number from 1 to {_MOST_TOKENS}")
        return cls([{"role": "user", "content": body["prompt"]}], services, most)


def _counters(answer: Answer, usd_per_hour: float | None) -> Document:
    return {
        "ttftMs": answer.ttft_ms,
        "tpotMs": answer.tpot_ms,
        "tokens": answer.tokens,
        "tokensPerSecond": answer.tokens_per_s,
        "seconds": answer.seconds,
        "usd": answer.usd(usd_per_hour),
        "finish": answer.finish,
    }
