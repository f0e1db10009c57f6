"""`demo chat`: a conversation with one service of a stack, with the times of every answer."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from mistral_on_l4.cli import Failure, terminal
from mistral_on_l4.cli.compare import number, open_services
from mistral_on_l4.cli.stacks import StackOption
from mistral_on_l4.cluster.chat import Answer, ChatError, Message, client_of, converse
from mistral_on_l4.cluster.endpoints import Endpoint

if TYPE_CHECKING:
    from openai import AsyncOpenAI

app = typer.Typer(add_completion=False)


@app.command()
def chat(
    service: Annotated[str | None, typer.Argument(help="Whom to talk to; the stack's first service unless named.")] = None,
    stack: StackOption = "local",
    message: Annotated[str | None, typer.Option("--message", "-m", help="Say this, print the answer, and end.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Upper bound of an answer's length.")] = 256,
) -> None:
    """Talk to a service of a stack.

    Ctrl-D ends it; Ctrl-C stops an answer, and ends it at an empty line. In a pipe each line is a message.
    """
    if message is not None and not message.strip():
        raise Failure("the message is empty", code=2)
    if service and " " in service:
        raise Failure(f'{service!r} is no service: `demo compare "{service}"` asks all of them', code=2)
    with open_services(stack, [service] if service else []) as endpoints:
        endpoint, console = endpoints[0], terminal.console()
        if message is None and sys.stdin.isatty():
            made_up = " (simulated: what it says is made up)" if endpoint.simulated else ""
            console.print(f"talking to {endpoint.name}, {endpoint.precision} on {endpoint.gpus}{made_up}; Ctrl-D ends", style="dim")
        _talk(endpoint, console, message, max_tokens)


def _talk(endpoint: Endpoint, console: Console, message: str | None, max_tokens: int) -> None:
    """Raises Failure for an answer that is not whole, unless somebody sits there who may ask again."""
    at_a_terminal = message is None and sys.stdin.isatty()
    said: list[Message] = []
    # One loop for the whole conversation: its connection stays open between two questions.
    with asyncio.Runner() as runner:
        context = client_of(endpoint.url, endpoint.key)
        client = runner.run(context.__aenter__())
        try:
            for question in _lines() if message is None else (message,):
                if not question.strip():
                    continue
                said.append({"role": "user", "content": question})
                answer, problem = _answered(runner, _print_answer(client, endpoint.name, said, max_tokens, console))
                console.print()
                if answer is None:
                    said.pop()
                else:
                    said.append({"role": "assistant", "content": answer.text})
                    console.print(_times(endpoint, answer), style="dim", highlight=False)
                if problem and not at_a_terminal:
                    raise Failure(problem)
                if problem:
                    console.print(problem, style="red", highlight=False, markup=False)
        finally:
            runner.run(context.__aexit__(None, None, None))


async def _print_answer(
    client: AsyncOpenAI, model: str, said: Sequence[Message], max_tokens: int, console: Console
) -> tuple[Answer | None, str | None]:
    """The answer as far as it came, and why it is not whole."""
    answer: Answer | None = None
    try:
        async for grown in converse(client, model, said, max_tokens):
            new = grown.text[len(answer.text) if answer else 0 :]
            console.print(new, end="", markup=False, highlight=False, soft_wrap=True)
            answer = grown
    except ChatError as error:
        return error.partial, str(error)
    except asyncio.CancelledError:
        # Ctrl-C stops the answer and not the conversation.
        return answer, "stopped"
    return answer, None


def _answered(
    runner: asyncio.Runner, talk: Coroutine[Any, Any, tuple[Answer | None, str | None]]
) -> tuple[Answer | None, str | None]:
    try:
        return runner.run(talk)
    except KeyboardInterrupt:
        return None, "stopped"


def _lines() -> Iterator[str]:
    """What is typed, or comes through a pipe: a line is a message. Ctrl-C at an empty line ends like Ctrl-D."""
    while True:
        try:
            yield input("> " if sys.stdin.isatty() else "")
        except (EOFError, KeyboardInterrupt):
            return


def _times(endpoint: Endpoint, answer: Answer) -> str:
    state, usd = endpoint.state, answer.usd(endpoint.usd_per_hour)
    parts = [
        f"TTFT {number(answer.ttft_ms)} ms (planned {number(state.predicted_ttft_ms)})",
        f"TPOT {number(answer.tpot_ms)} ms (planned {number(state.predicted_tpot_ms)})",
        f"{answer.tokens} tokens",
    ]
    return " · ".join([*parts, *([] if usd is None else [f"${usd:.6f}"])])
