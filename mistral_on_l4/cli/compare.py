"""`demo compare`: one question to the services of a stack at once, answers streaming side by side, times beside planned."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from mistral_on_l4.cli import INTERRUPTED, Failure, terminal
from mistral_on_l4.cli.stacks import StackOption, connection_to, stack_plan, stack_settings
from mistral_on_l4.cluster.chat import Answer, ChatError, answer_of, client_of
from mistral_on_l4.cluster.connection import Connection, NoConnection
from mistral_on_l4.cluster.endpoints import Endpoint, NoService, open_endpoints
from mistral_on_l4.cluster.live import ServiceState

QUESTION = "Explain FP8 quantization in one paragraph."
_PAINT_SECONDS = 0.1
# Side by side, an answer needs this much room to be read.
_COLUMN_WIDTH = 38

app = typer.Typer(add_completion=False)


@dataclass
class Asked:
    """One service's part of a comparison. problem: why the answer is not whole, one line; done: nothing more comes."""

    endpoint: Endpoint
    answer: Answer | None = None
    problem: str | None = None
    done: bool = False


@app.command()
def compare(
    prompt: Annotated[str, typer.Argument(help="What to ask.")] = QUESTION,
    stack: StackOption = "local",
    service: Annotated[list[str] | None, typer.Option("--service", help="Ask only this one (repeatable).")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Upper bound of an answer's length.")] = 128,
    in_turn: Annotated[bool, typer.Option("--in-turn", help="One after the other instead of at once.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """Ask the services of a stack the same, side by side.

    Answers stream as they come; times, tokens and dollars stand beside the plan's.
    """
    if not prompt.strip():
        raise Failure('the prompt is empty: demo compare "Explain tensor parallelism."', code=2)
    with open_services(stack, service or []) as endpoints:
        asked = [Asked(endpoint) for endpoint in endpoints]
        console = terminal.console()
        interrupted = False
        try:
            ask(asked, prompt, max_tokens, in_turn, None if as_json else console)
        except KeyboardInterrupt:
            interrupted = True
            for one in asked:
                one.problem = None if one.done else "interrupted"
    if as_json:
        print(json.dumps([_record(one) for one in asked], indent=2))
    else:
        console.print()
        console.print(table(asked))
    if interrupted:
        raise typer.Exit(INTERRUPTED)
    if problems := [one.problem for one in asked if one.problem]:
        raise Failure("; ".join(problems))


@contextmanager
def open_services(stack: str, names: Sequence[str]) -> Iterator[list[Endpoint]]:
    """The stack's services; errors as Failures."""
    settings = stack_settings(stack)
    plan = stack_plan(settings, stack)
    with connection_to(settings, stack) as connection:
        try:
            with open_endpoints(connection, plan, names) as endpoints:
                yield endpoints
        except NoService as error:
            raise Failure(str(error), code=2 if error.wrong_name else 1) from None
        except NoConnection as error:
            raise Failure(str(error)) from None


def ask_in_turn(connection: Connection, stack: str, states: Sequence[ServiceState], question: str, max_tokens: int) -> list[Asked]:
    """One question to each service, one after the other: asked at once they would disturb each other's times on one machine.

    Raises Failure after all were asked, if any gave no whole answer.
    """
    if not states:
        return []
    with open_endpoints(connection, stack_plan(connection.settings, stack), [state.name for state in states]) as endpoints:
        asked = [Asked(endpoint) for endpoint in endpoints]
        ask(asked, question, max_tokens, in_turn=True)
    if problems := [one.problem for one in asked if one.problem]:
        raise Failure("; ".join(problems))
    return asked


def ask(asked: Sequence[Asked], prompt: str, max_tokens: int, in_turn: bool = False, console: Console | None = None) -> None:
    """Asks each service; its answer, or why there is none, is then in `asked`. console: shows the answers as they grow."""
    asyncio.run(_ask(asked, prompt, max_tokens, in_turn, console))


async def _ask(asked: Sequence[Asked], prompt: str, max_tokens: int, in_turn: bool, console: Console | None) -> None:
    """Fills `asked`. Painting shares the thread with reading, so that it never stands between a token and its time for long."""

    async def one(mine: Asked, connected: Callable[[], Any]) -> None:
        def grown(answer: Answer) -> None:
            mine.answer = answer

        async with client_of(mine.endpoint.url, mine.endpoint.key) as client:
            await connected()
            try:
                await answer_of(client, mine.endpoint.name, [{"role": "user", "content": prompt}], max_tokens, grown)
            except ChatError as error:
                why = f" ({mine.endpoint.state.problem})" if mine.endpoint.state.problem else ""
                mine.answer, mine.problem = error.partial or mine.answer, f"{error}{why}"
        mine.done = True

    async def all_of_them() -> None:
        if in_turn:
            for mine in asked:
                await one(mine, _at_once)
            return
        # No question is sent before every connection is there: they would disturb each other's first token.
        gate = asyncio.Barrier(len(asked))
        await asyncio.gather(*(one(mine, gate.wait) for mine in asked))

    if console is None or not console.is_terminal:
        await all_of_them()
        for mine in asked if console else ():
            assert console is not None
            console.print(f"\n[bold]{mine.endpoint.name}[/bold]")
            console.print(mine.answer.text.strip() if mine.answer else mine.problem or "", markup=False, highlight=False)
        return
    with Live(console=console, auto_refresh=False, vertical_overflow="visible") as live:

        async def paint() -> None:
            while True:
                live.update(_side_by_side(asked, console.width), refresh=True)
                await asyncio.sleep(_PAINT_SECONDS)

        painter = asyncio.create_task(paint())
        try:
            await all_of_them()
        finally:
            painter.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await painter
            live.update(_side_by_side(asked, console.width), refresh=True)


async def _at_once() -> None: ...


def _side_by_side(asked: Sequence[Asked], width: int) -> RenderableType:
    panels = [_panel(one) for one in asked]
    if width < _COLUMN_WIDTH * len(asked):
        return Group(*panels)
    each = width // len(asked) - 1
    for panel in panels:
        panel.width = each
    return Columns(panels, padding=(0, 1), expand=False)


def _panel(one: Asked) -> Panel:
    answer = one.answer
    text = Text(answer.text.strip() if answer else "waiting for the first token ...", style="" if answer else "dim")
    if one.problem:
        text.append(f"\n{one.problem}", style="red")
    said = " · ".join(_counters(one)) if answer else ""
    return Panel(text, title=f"{one.endpoint.name} ({one.endpoint.precision}, {one.endpoint.gpus})", subtitle=said, expand=True)


def _counters(one: Asked) -> list[str]:
    assert one.answer is not None
    parts = [f"TTFT {number(one.answer.ttft_ms)} ms", f"TPOT {number(one.answer.tpot_ms)} ms", f"{one.answer.tokens} tokens"]
    if one.answer.tokens_per_s:
        parts.append(f"{one.answer.tokens_per_s:.1f} tok/s")
    return parts


_ON_CPU = (
    "vLLM itself on this machine's CPU, with SmolLM2-135M in place of Mistral-Small-24B: the times are this machine's, those on L4 "
    "the plan's; one device, so a tensor parallel size of 4 runs as 1"
)


def table(asked: Sequence[Asked]) -> Table:
    """One row for each service: measured beside planned."""
    simulated = any(one.endpoint.simulated for one in asked)
    on_cpu = any(one.endpoint.on_cpu for one in asked)
    caption = "simulated engine: the times are the plan's, replayed" if simulated else _ON_CPU if on_cpu else None
    grid = Table(caption=caption, caption_justify="left")
    planned = "on L4" if on_cpu else "planned"
    for column in ("service", "precision", "GPUs"):
        grid.add_column(column, overflow="fold")
    for column in ("TTFT ms", planned, "TPOT ms", planned, "tokens", "tok/s", "$/answer"):
        grid.add_column(column, justify="right", overflow="fold")
    grid.add_column("ended", overflow="fold")
    for one in asked:
        answer, state = one.answer, one.endpoint.state
        usd = answer.usd(one.endpoint.usd_per_hour) if answer else None
        ended = "broke off" if one.problem and answer else "failed" if one.problem else (answer.finish if answer else "-") or "-"
        grid.add_row(
            state.name,
            one.endpoint.precision,
            "CPU" if one.endpoint.on_cpu else one.endpoint.gpus,
            number(answer.ttft_ms if answer else None),
            number(state.predicted_ttft_ms),
            number(answer.tpot_ms if answer else None),
            number(state.predicted_tpot_ms),
            str(answer.tokens) if answer else "-",
            "-" if answer is None or answer.tokens_per_s is None else f"{answer.tokens_per_s:.1f}",
            "-" if usd is None else f"{usd:.6f}",
            ended,
        )
    return grid


def _record(one: Asked) -> dict[str, Any]:
    answer, state = one.answer, one.endpoint.state
    return {
        "service": state.name,
        "precision": one.endpoint.precision,
        "gpus": state.gpus,
        "text": answer.text if answer else None,
        "ttftMs": answer.ttft_ms if answer else None,
        "predictedTtftMs": state.predicted_ttft_ms,
        "tpotMs": answer.tpot_ms if answer else None,
        "predictedTpotMs": state.predicted_tpot_ms,
        "tokens": answer.tokens if answer else 0,
        "promptTokens": answer.prompt_tokens if answer else None,
        "tokensPerSecond": answer.tokens_per_s if answer else None,
        "usd": answer.usd(one.endpoint.usd_per_hour) if answer else None,
        "finish": answer.finish if answer else None,
        "problem": one.problem,
    }


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"
