"""`demo chat`: one question to the services of a stack, with the times side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from mistral_on_l4.cli import Failure, terminal
from mistral_on_l4.cli.stacks import StackOption, connection_to, stack_settings
from mistral_on_l4.cluster.chat import Answer, ChatError, ask
from mistral_on_l4.cluster.connection import Connection
from mistral_on_l4.cluster.live import ServiceState, api_key, in_stack_order, services

QUESTION = "Explain FP8 quantization in one paragraph."

app = typer.Typer(add_completion=False)


@app.command()
def chat(
    question: Annotated[str, typer.Argument(help="What to ask.")] = QUESTION,
    stack: StackOption = "local",
    service: Annotated[list[str] | None, typer.Option("--service", help="Ask only this one (repeatable).")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Upper bound of the answer's length.")] = 128,
) -> None:
    """Ask the services of a stack a question, side by side."""
    console = terminal.console()
    settings = stack_settings(stack)
    with connection_to(settings, stack) as connection:
        states = in_stack_order(services(connection.client, settings.namespaces.services), settings)
        if not states:
            raise Failure(f"no InferenceService in namespace {settings.namespaces.services}: bring the stack up first")
        chosen = _chosen(states, service or [])
        answers = ask_all(
            connection,
            chosen,
            question,
            max_tokens,
            lambda name: console.print(f"asking {name} ...", style="dim"),
            partial(_show, console),
        )
    console.print()
    console.print(answers_table(chosen, answers, simulated=connection.local is not None))


def ask_all(
    connection: Connection,
    chosen: Sequence[ServiceState],
    question: str,
    max_tokens: int,
    before: Callable[[str], None] = lambda _: None,
    after: Callable[[str, Answer], None] = lambda *_: None,
) -> dict[str, tuple[str, Answer]]:
    """(address, answer) by service, one after the other: asked at once they would disturb each other's times on one machine.

    Raises Failure after all were asked, if any gave no answer.
    """
    namespace = connection.settings.namespaces.services
    key = api_key(connection.client, namespace)
    answers: dict[str, tuple[str, Answer]] = {}
    failures = []
    for state in chosen:
        before(state.name)
        with connection.service(f"{state.name}-predictor", namespace) as url:
            try:
                answer = ask(url, state.name, question, key, max_tokens)
            except ChatError as error:
                failures.append(f"{error}" + (f" ({state.problem})" if state.problem else ""))
                continue
        answers[state.name] = (url, answer)
        after(state.name, answer)
    if failures:
        raise Failure("; ".join(failures))
    return answers


def _show(console: Console, name: str, answer: Answer) -> None:
    console.print(f"\n[bold]{name}[/bold]")
    console.print(answer.text.strip(), markup=False, highlight=False)


def answers_table(states: Sequence[ServiceState], answers: dict[str, tuple[str, Answer]], simulated: bool) -> Table:
    table = Table(caption="simulated engine: the times are the plan's, replayed" if simulated else None, caption_justify="left")
    for column in ("service", "address", "GPUs"):
        table.add_column(column, overflow="fold")
    for column in ("TTFT ms", "planned", "TPOT ms", "planned"):
        table.add_column(column, justify="right", overflow="fold")
    for state in states:
        url, answer = answers[state.name]
        table.add_row(
            state.name,
            url,
            f"{state.gpus}x",
            f"{answer.ttft_ms:.0f}",
            _number(state.predicted_ttft_ms),
            _number(answer.tpot_ms),
            _number(state.predicted_tpot_ms),
        )
    return table


def _chosen(states: Sequence[ServiceState], names: Sequence[str]) -> list[ServiceState]:
    known = {state.name: state for state in states}
    if unknown := [name for name in names if name not in known]:
        raise Failure(f"no service {unknown[0]!r}; the services are {', '.join(known)}", code=2)
    return [known[name] for name in names] if names else list(states)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"
