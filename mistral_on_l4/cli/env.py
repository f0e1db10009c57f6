"""`demo env [SERVICE]`: exports for clients of one service, such as curl and the openai package."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from mistral_on_l4.cli.stacks import StackOption, stack_settings
from mistral_on_l4.cli.url import addresses

app = typer.Typer(add_completion=False)


@app.command()
def env(
    service: Annotated[str | None, typer.Argument(help="The service; the first one unless named.")] = None,
    stack: StackOption = "local",
) -> None:
    """Print exports for curl and the openai client: eval "$(demo env SERVICE)".

    OPENAI_BASE_URL, OPENAI_API_KEY and OPENAI_MODEL. The key itself is not printed, but read by the shell that evaluates this.
    """
    settings = stack_settings(stack)
    [address], key = addresses(settings, stack, service or settings.enabled_services[0].name)
    if address.forward is not None:
        print(f"# while this runs: {address.forward}")
    print(f"export OPENAI_BASE_URL={shlex.quote(f'{address.url}/v1')}")
    # Without a key the openai client refuses to begin.
    print(f'export OPENAI_API_KEY="$({key})"' if key is not None else "export OPENAI_API_KEY=none")
    print(f"export OPENAI_MODEL={shlex.quote(address.name)}")
