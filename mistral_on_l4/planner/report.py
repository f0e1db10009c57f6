"""A plan for people: a table per service on the terminal, or Markdown for a pull request."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from mistral_on_l4.planner.plan import CostLine, LoadPoint, ServicePlan, StackPlan, remedies_text

if TYPE_CHECKING:
    from rich.console import RenderableType

NOTHING = "-"


def heading(service: ServicePlan) -> str:
    where = f" ({service.instance})" if service.instance else ""
    return f"{service.name}: {service.checkpoint} on {service.gpus}x {service.gpu}{where}, {service.engine}"


def verdict(service: ServicePlan) -> str:
    if service.fits:
        return "fits"
    if service.fits_with_offload:
        return f"loads only with {service.cpu_offload_gib:.1f} GiB of weights per GPU in node memory"
    return "does not fit"


def rows(service: ServicePlan) -> list[tuple[str, str]]:
    """(what, value) of everything that does not depend on the number of users."""
    memory = service.memory
    resident = f", {memory.resident_weights_gib:.2f} of it on the GPU" if service.offload else ""
    kept = f"{max(0.0, memory.kv_gib):.2f} GiB KV cache, {memory.reserve_gib:.2f} GiB activations and NCCL"
    parts = f"{memory.weights_gib:.2f} GiB weights{resident} + {kept}"
    if not service.loads:
        parts = f"{memory.weights_gib:.2f} GiB weights"
    card = f"{memory.budget_gib:.2f} of {memory.visible_gib:.2f} GiB"
    fits = f"{service.kv_tokens:,} tokens in all, {service.max_model_len:,} per request" if service.loads else NOTHING
    found = [
        ("verdict", verdict(service)),
        ("because", service.reason),
        ("per GPU", f"{parts}, against {card}"),
        ("context", fits),
    ]
    price = NOTHING if service.usd_per_hour is None else f"${service.usd_per_hour:.2f}/h"
    ready = service.readiness
    phases = f"node {ready.node:.1f}, image {ready.image_pull:.1f}, seed {ready.seed:.1f}, "
    phases += f"download {ready.download:.1f}, load {ready.load:.1f}"
    found.append(("price", price))
    found.append(("ready", f"about {ready.total:.0f} min after `up` ({phases})"))
    if service.remedies and service.loads:
        found.append(("instead", remedies_text(service)))
    found += [("note", warning) for warning in service.warnings]
    return found


SPEED: tuple[tuple[str, Callable[[LoadPoint], str]], ...] = (
    ("TTFT ms (p95)", lambda point: f"{point.ttft_ms:.0f}"),
    ("TPOT ms", lambda point: f"{point.tpot_ms:.1f}"),
    ("output tok/s", lambda point: f"{point.output_tokens_per_s:.1f}"),
    (
        "$/1M output tokens",
        lambda point: NOTHING if point.usd_per_million_output_tokens is None else f"{point.usd_per_million_output_tokens:.2f}",
    ),
)


def totals(plan: StackPlan, prices: str) -> Iterator[str]:
    """Lines under the services: what the whole stack costs."""
    for line in (*plan.pools, *plan.fixed):
        yield f"{line.what}: {money(line)}" + ("" if line.usd_per_hour is None else "/h")
    if plan.usd_per_hour is None or plan.fixed_usd_per_hour is None:
        yield f"in all: unknown, since a price is (on demand, {plan.region}, prices {prices})"
    else:
        fixed = f"${plan.fixed_usd_per_hour:.2f}/h of it without GPU nodes"
        yield f"in all ${plan.usd_per_hour:.2f}/h, {fixed} (on demand, {plan.region}, prices {prices})"
    if plan.up:
        once = "unknown" if plan.usd_per_up is None else f"${plan.usd_per_up:.2f}"
        yield f"each `up` once {once}: " + "; ".join(f"{line.what} {line.count:.0f}: {money(line)}" for line in plan.up)
    yield from (f"note: {note}" for note in plan.notes)


def money(line: CostLine) -> str:
    return "price unknown" if line.usd_per_hour is None else f"${line.usd_per_hour:.3f}"


def tables(plan: StackPlan, prices: str) -> Iterator[RenderableType]:
    """What `demo plan` prints, for rich's console."""
    from rich.table import Table
    from rich.text import Text

    for service in plan.services:
        facts = Table(title=Text(heading(service), style="bold"), title_justify="left", show_header=False, box=None, pad_edge=False)
        facts.add_column(style="dim", no_wrap=True)
        facts.add_column(overflow="fold")
        for what, value in rows(service):
            style = {"fits": "green", "does not fit": "bold red"}.get(value, "yellow") if what == "verdict" else ""
            facts.add_row(what, Text(value, style=style))
        yield facts
        if service.loads:
            speed = Table(box=None, pad_edge=False)
            speed.add_column("users", justify="left", no_wrap=True)
            for point in service.points:
                speed.add_column(str(point.users), justify="right")
            for what, text in SPEED:
                speed.add_row(what, *(text(point) for point in service.points))
            yield speed
        yield ""
    for line in totals(plan, prices):
        yield Text(line)


def markdown(plan: StackPlan, prices: str) -> str:
    """The same as Markdown: one table for all services at each number of users, then what each says."""
    lines = [f"### Plan of stack `{plan.stack}`" if plan.stack else "### Plan", ""]
    lines += _table(plan.services) if plan.services else ["No service is enabled."]
    lines.append("")
    for service in plan.services:
        lines.append(f"- `{service.name}`: {service.reason}")
        if service.remedies:
            lines.append(f"  - remedies: {remedies_text(service)}")
        lines += [f"  - {warning}" for warning in service.warnings]
    lines.append("")
    lines += [f"- {line}" for line in totals(plan, prices)]
    return "\n".join(lines)


def _table(services: Sequence[ServicePlan]) -> list[str]:
    by = " / ".join(str(point.users) for point in services[0].points)
    lines = [
        f"| service | GPU | verdict | weights GiB | KV tokens | TTFT ms ({by}) | TPOT ms ({by}) | tok/s ({by}) | $/h | $/1M ({by}) "
        "| min to ready |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for service in services:
        cells = [" / ".join(text(point) for point in service.points) if service.loads else NOTHING for _, text in SPEED]
        price = NOTHING if service.usd_per_hour is None else f"{service.usd_per_hour:.2f}"
        lines.append(
            f"| `{service.name}` | {service.gpus}x {service.gpu} | {verdict(service)} | {service.memory.weights_gib:.2f} | "
            f"{service.kv_tokens:,} | {cells[0]} | {cells[1]} | {cells[2]} | {price} | {cells[3]} "
            f"| {service.minutes_to_ready:.0f} |"
        )
    return lines
