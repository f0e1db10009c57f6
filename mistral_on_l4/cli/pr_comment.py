"""`demo pr-comment`: the comment of a pull request, from a preview's events and two plans."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mistral_on_l4.cli import Failure
from mistral_on_l4.files import write_whole

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def pr_comment(
    events: Annotated[Path, typer.Option(help="Event stream of the head's preview (pulumi preview --event-log FILE).")],
    plan_after: Annotated[Path, typer.Option(help="Plan of the head (demo plan --json).")],
    plan_before: Annotated[Path | None, typer.Option(help="Plan of the base; without it there is no 'before'.")] = None,
    events_before: Annotated[
        Path | None, typer.Option(help="Event stream of the base's preview, where no state says what exists (without credentials).")
    ] = None,
    stack: Annotated[str | None, typer.Option(help="The stack's name; by default the plan's.")] = None,
    out: Annotated[Path | None, typer.Option(help="File to write; by default standard output.")] = None,
    allow_data_loss: Annotated[
        bool, typer.Option("--allow-data-loss", help="Do not fail when what holds data is deleted or replaced.")
    ] = False,
    changed_files: Annotated[Path | None, typer.Option(help="Changed files (git diff --name-only -z).")] = None,
    events_base_policies: Annotated[
        Path | None, typer.Option(help="Event stream of the head's preview with the base's policies.")
    ] = None,
    allow_gate_change: Annotated[
        bool, typer.Option("--allow-gate-change", help="Do not fail for what the base's policies alone refuse.")
    ] = False,
) -> None:
    """Write the comment of a pull request from a preview's events.

    Exit code 1: a service does not fit, a policy forbids it, data would be lost, or the preview failed.
    """
    from mistral_on_l4.pull_request.comment import Gates, render
    from mistral_on_l4.pull_request.events import EventsError, between, read_events
    from mistral_on_l4.pull_request.plans import read_plan
    from mistral_on_l4.pull_request.risks import changed_gates

    try:
        preview = read_events(events)
        if events_before is not None:
            preview = between(read_events(events_before), preview)
    except EventsError as error:
        raise Failure(str(error)) from None
    before, after = read_plan(plan_before), read_plan(plan_after)
    name = stack or str(after.document.get("stack") or before.document.get("stack") or "stack")
    paths = changed_files.read_text(errors="replace").split("\0") if changed_files else []
    base_findings = read_events(events_base_policies).findings if events_base_policies else ()
    gates = Gates(tuple(changed_gates(paths)), base_findings, allow_gate_change)
    comment = render(name, preview, before, after, allow_data_loss, gates)
    if out is None:
        print(comment.text, end="")
    else:
        write_whole(out, comment.text, 0o644)
    if comment.blocked:
        more = f" and {len(comment.blocked) - 5} more" if len(comment.blocked) > 5 else ""
        raise Failure("; ".join(comment.blocked[:5]) + more)
