"""Questions to OpenAI-compatible services over the official `openai` client, with the times that a person would feel.

`converse` streams one answer; `ask` waits for it. The client and its connection exist before the clock starts, so that a
time to first token is the service's and not the library's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openai import AsyncOpenAI

Message = Mapping[str, str]

CONNECT_SECONDS, READ_SECONDS = 5.0, 120.0
# What the openai client wants to be given where a service asks for no key.
_NO_KEY = "none"
_warm = False


@dataclass(frozen=True)
class Answer:
    """An answer, whole or as far as it came.

    ttft_ms: until the first piece of text came, None before it; tpot_ms: mean time per output token after the first, None with
    fewer than two; tokens: of the answer, by the service's own count once it is complete, until then the pieces that came;
    prompt_tokens: None until the service has said; seconds: since the question; finish: the service's word for why it ended
    ("stop", "length"), None while it has not.
    """

    text: str
    ttft_ms: float | None
    tpot_ms: float | None
    tokens: int = 0
    prompt_tokens: int | None = None
    seconds: float = 0.0
    finish: str | None = None

    @property
    def tokens_per_s(self) -> float | None:
        """Output tokens per second after the first token."""
        return 1000 / self.tpot_ms if self.tpot_ms else None

    def usd(self, usd_per_hour: float | None) -> float | None:
        """What the service's nodes cost while they answered this one user."""
        return None if usd_per_hour is None else usd_per_hour * self.seconds / 3600


class ChatError(Exception):
    """No answer, or not a whole one; the text says why in one line. partial: what came before, if anything did."""

    def __init__(self, message: str, partial: Answer | None = None) -> None:
        super().__init__(message)
        self.partial = partial


def new_client(base_url: str, api_key: str | None) -> AsyncOpenAI:
    """A client of the service at `base_url`, without "/v1". It tries nothing twice: a demo shows what happened."""
    import httpx2
    from openai import AsyncOpenAI, DefaultAsyncHttpxClient

    # No proxy stands between this machine and itself, whatever HTTP_PROXY says: services are reached on loopback only.
    return AsyncOpenAI(
        base_url=f"{base_url}/v1",
        api_key=api_key or _NO_KEY,
        max_retries=0,
        timeout=httpx2.Timeout(READ_SECONDS, connect=CONNECT_SECONDS),
        http_client=DefaultAsyncHttpxClient(trust_env=False, verify=base_url.startswith("https://")),
    )


@asynccontextmanager
async def client_of(base_url: str, api_key: str | None) -> AsyncIterator[AsyncOpenAI]:
    """The same, warm, and closed when the context ends."""
    from openai import OpenAIError

    await warm_up()
    client = new_client(base_url, api_key)
    try:
        # Opens the connection. What is wrong with the service or the key, the first question says.
        with suppress(OpenAIError):
            await client.models.list()
        yield client
    finally:
        await client.close()


async def warm_up() -> None:
    """Has the library load and build what it does lazily, on an answer that comes from memory: 0.8 s of the first question else."""
    global _warm  # noqa: PLW0603  (of the process, as the library's own modules are)
    if _warm:
        return
    import httpx2
    from openai import AsyncOpenAI

    # Before the first await: who asks meanwhile need not do the same.
    _warm = True
    body = 'data: {"choices": [{"index": 0, "delta": {"content": "."}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'
    reply = httpx2.MockTransport(lambda _: httpx2.Response(200, headers={"Content-Type": "text/event-stream"}, text=body))
    async with httpx2.AsyncClient(transport=reply) as http:
        client = AsyncOpenAI(base_url="http://memory/v1", api_key=_NO_KEY, http_client=http)
        await answer_of(client, "memory", [{"role": "user", "content": "."}], 1)


async def converse(
    client: AsyncOpenAI, model: str, messages: Sequence[Message], max_tokens: int, temperature: float | None = None
) -> AsyncIterator[Answer]:
    """Streams a chat completion: yields the answer as far as it came after every piece, last the whole one.

    Raises ChatError, with what came before where something did. To end early, close the iterator: the service then stops as well.
    """
    from openai import OpenAIError, omit

    where = f"{model} at {str(client.base_url).removesuffix('/').removesuffix('/v1')}"
    pieces: list[str] = []
    first = last = 0.0
    start = time.perf_counter()

    def answer(tokens: int, prompt_tokens: int | None = None, finish: str | None = None) -> Answer:
        ttft = (first - start) * 1000 if pieces else None
        tpot = (last - first) * 1000 / (tokens - 1) if tokens > 1 else None
        return Answer("".join(pieces), ttft, tpot, tokens, prompt_tokens, time.perf_counter() - start, finish)

    usage, finish = None, None
    try:
        stream = await client.chat.completions.create(
            model=model,
            messages=list(messages),
            max_tokens=max_tokens,
            temperature=omit if temperature is None else temperature,
            stream=True,
            stream_options={"include_usage": True},
        )
        async with stream:
            async for chunk in stream:
                usage = chunk.usage or usage
                for choice in chunk.choices or ():
                    finish = choice.finish_reason or finish
                    if text := (choice.delta.content if choice.delta else None):
                        last = time.perf_counter()
                        first = first or last
                        pieces.append(text)
                        yield answer(len(pieces))
    except (OpenAIError, ValueError, AttributeError, OSError) as error:
        raise ChatError(_why(error, where), answer(len(pieces)) if pieces else None) from None
    except Exception as error:
        # httpx2's own errors pass through while a stream is read; they are no OpenAIError.
        if not type(error).__module__.startswith(("httpx2", "httpcore2")):
            raise
        raise ChatError(_why(error, where), answer(len(pieces)) if pieces else None) from None
    if not pieces:
        raise ChatError(f"{where} sent an empty answer")
    if finish is None and usage is None:
        raise ChatError(f"{where} stopped in the middle of its answer", answer(len(pieces)))
    yield answer(usage.completion_tokens if usage else len(pieces), usage.prompt_tokens if usage else None, finish or "stop")


async def answer_of(
    client: AsyncOpenAI,
    model: str,
    messages: Sequence[Message],
    max_tokens: int,
    on_answer: Callable[[Answer], None] = lambda _: None,
) -> Answer:
    """The whole answer; `on_answer` sees it as it grows. Raises ChatError."""
    found: Answer | None = None
    async for found in converse(client, model, messages, max_tokens):
        on_answer(found)
    assert found is not None  # converse yields or raises
    return found


def ask(base_url: str, model: str, question: str, api_key: str | None, max_tokens: int = 256) -> Answer:
    """One question to the service at `base_url`, and the whole answer. Raises ChatError."""

    async def run() -> Answer:
        async with client_of(base_url, api_key) as client:
            return await answer_of(client, model, [{"role": "user", "content": question}], max_tokens)

    return asyncio.run(run())


def _why(error: Exception, where: str) -> str:
    """One line for people, without the key and without the library's own words where there are better ones."""
    import openai

    if isinstance(error, openai.APITimeoutError):
        return f"{where} does not answer within {READ_SECONDS:.0f} s"
    if isinstance(error, openai.APIConnectionError):
        cause = error.__cause__
        return f"{where} does not answer: {cause or error}"
    if isinstance(error, openai.APIStatusError):
        said = _message(error.body) or error.message
        hint = _HINTS.get(error.status_code, "")
        return f"{where} answered {error.status_code}: {said}{hint}"
    if isinstance(error, openai.APIError):
        return f"{where} gave up while it answered: {_message(error.body) or error.message}"
    if isinstance(error, (ValueError, AttributeError)):
        return f"{where} sent what is no chat: {' '.join(str(error).split())[:200]}"
    return f"{where} went away in the middle of its answer: {error or type(error).__name__}"


_HINTS = {
    401: "; the stack's key is in Secret vllm-api-key, and a service reads it when its pod starts",
    404: "; a service has its InferenceService's name as its model's",
    429: "; it has too many requests waiting: ask again later",
}


def _message(body: Any) -> str:
    """The sentence in an error's body, in any of the forms that vLLM, the simulator and proxies use."""
    if isinstance(body, dict):
        inner = body.get("error", body)
        return _message(inner if not isinstance(inner, dict) else inner.get("message") or str(inner))
    return " ".join(str(body).split())[:200] if body else ""
