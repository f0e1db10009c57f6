"""`demo unpark`: the GPU pools of a parked stack back to their size."""

from __future__ import annotations

import typer

from mistral_on_l4.cli.park import resize
from mistral_on_l4.cli.stacks import StackOption

app = typer.Typer(add_completion=False)


@app.command()
def unpark(stack: StackOption = "dev") -> None:
    """Bring the GPU pools back."""
    resize(stack, parked=False)
