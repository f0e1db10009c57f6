"""`demo web`: the page for the projector, served to this machine's own browser until Ctrl-C."""

from __future__ import annotations

import socket
import webbrowser
from typing import Annotated

import typer

from mistral_on_l4.cli import Failure, terminal
from mistral_on_l4.cli.stacks import StackOption, connection_to, stack_plan, stack_settings
from mistral_on_l4.cluster.live import api_key, services

app = typer.Typer(add_completion=False)


@app.command()
def web(
    stack: StackOption = "local",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of 127.0.0.1; 0 takes any free one.")] = 8765,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in the default browser.")] = False,
) -> None:
    """Serve the page for the projector, on this machine only.

    Answers side by side, times beside the plan's, GPU memory, registry entries and the demo clock.
    """
    import uvicorn

    from mistral_on_l4.web.app import Source, create_app
    from mistral_on_l4.web.facts import live_facts, stack_facts
    from mistral_on_l4.web.guard import Guard
    from mistral_on_l4.web.reach import Reach

    settings = stack_settings(stack)
    plan = stack_plan(settings, stack)
    console = terminal.console()
    with connection_to(settings, stack) as connection, Reach(connection) as reach, _listening(port) as listener:
        names = [state.name for state in services(connection.client, settings.namespaces.services)]
        if not names:
            raise Failure(f"no InferenceService in namespace {settings.namespaces.services}: bring the stack up first")
        prices = {service.name: service.usd_per_hour for service in plan.services}
        source = Source(
            facts=lambda: stack_facts(connection, plan),
            live=lambda: live_facts(connection, plan, reach.urls(names)),
            url=reach.url,
            forget=reach.forget,
            key=api_key(connection.client, settings.namespaces.services),
            usd_per_hour={name: prices.get(name) for name in names},
        )
        number = listener.getsockname()[1]
        guard = Guard(number)
        address = f"http://127.0.0.1:{number}/?key={guard.word}"
        console.print(f"{address}\nserves this machine only, until Ctrl-C", highlight=False, soft_wrap=True)
        if open_browser:
            webbrowser.open(address)
        # Open streams end with the server: whoever pressed Ctrl-C does not wait for an answer.
        config = uvicorn.Config(create_app(source, guard), log_level="warning", access_log=False, timeout_graceful_shutdown=1)
        try:
            uvicorn.Server(config).run(sockets=[listener])
        except KeyboardInterrupt:
            return


def _listening(port: int) -> socket.socket:
    """Raises Failure where the port is taken."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        # A browser that is faster than the server waits for it instead of being refused.
        listener.listen()
    except OSError as error:
        listener.close()
        raise Failure(f"port {port} of 127.0.0.1: {error.strerror}: `demo web --port 0` takes a free one") from None
    return listener
