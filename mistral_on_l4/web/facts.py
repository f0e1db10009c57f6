"""What the page shows of a stack, as JSON documents: once (`stack_facts`), and again every few seconds (`live_facts`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import requests

from mistral_on_l4.cluster import metrics
from mistral_on_l4.cluster.client import ApiError
from mistral_on_l4.cluster.connection import Connection, NoConnection
from mistral_on_l4.cluster.demo_clock import DemoClock, demo_clock
from mistral_on_l4.cluster.live import ServiceState, in_stack_order, services
from mistral_on_l4.cluster.metrics import Scrape
from mistral_on_l4.cluster.registered import NoRegistry, registry_of
from mistral_on_l4.planner import ServicePlan, StackPlan
from mistral_on_l4.planner.plan import GIB

Document = dict[str, Any]
_MIB = 2**20
# Of a registry's facts, what an audience wants to see, in this order.
_SHOWN = ("precision", "source_model", "weights_digest", "fits", "engine")


def stack_facts(connection: Connection, plan: StackPlan) -> Document:
    """{"stack", "platform", "simulated", "bills", "services": [...], "notes"}. Raises ApiError."""
    states = _states(connection)
    entries = _entries(connection, states)
    plans = {service.name: service for service in plan.services}
    return {
        "stack": plan.stack,
        "platform": plan.platform,
        "simulated": connection.settings.traits.embedded and any(state.gpus for state in states),
        "bills": connection.settings.traits.nodes_bill,
        "services": [_service(state, plans.get(state.name), entries.get(state.name)) for state in states],
        "notes": list(plan.notes),
    }


def live_facts(connection: Connection, plan: StackPlan, urls: Mapping[str, str]) -> Document:
    """{"services": {name: ...}, "clock": {...}}; urls: of the services that can be reached. Raises ApiError.

    A part that does not respond is None, and takes no other part along.
    """
    try:
        gpus = {} if connection.settings.traits.embedded else metrics.gpu_metrics(connection.client)
    except (ApiError, ValueError):
        gpus = {}
    plans = {service.name: service for service in plan.services}
    parts = {}
    for state in _states(connection):
        scrape = _scrape(urls.get(state.name))
        parts[state.name] = {
            "ready": state.ready,
            "problem": state.problem,
            "engine": None
            if scrape is None
            else _engine(scrape, plans.get(state.name), connection.settings.traits.embedded and state.gpus > 0),
            "gpuMemory": _gpu_memory(gpus, state),
        }
    return {"services": parts, "clock": clock_facts(demo_clock(connection.client, connection.settings, plan.usd_per_hour))}


def clock_facts(clock: DemoClock, now: datetime | None = None) -> Document:
    """Seconds and dollars, from which the page counts on by itself."""
    now = now or datetime.now(UTC)
    left = clock.left(now)
    return {
        "usdPerHour": clock.usd_per_hour,
        "upSeconds": None if clock.started is None else (now - clock.started).total_seconds(),
        "usd": clock.cost_usd(now),
        "leftSeconds": None if left is None else left.total_seconds(),
    }


def _states(connection: Connection) -> list[ServiceState]:
    found = in_stack_order(services(connection.client, connection.settings.namespaces.services), connection.settings)
    return [state for state in found if state.ours] or found


def _entries(connection: Connection, states: Sequence[ServiceState]) -> dict[str, Document]:
    entries = {}
    try:
        with registry_of(connection) as registry:
            for state in states:
                if entry := registry.version_of(state):
                    facts = {name: entry.facts[name] for name in _SHOWN if name in entry.facts}
                    entries[state.name] = {
                        "model": entry.model,
                        "version": entry.version,
                        "state": entry.state,
                        "uri": entry.uri,
                        "facts": facts,
                    }
    except NoRegistry:
        pass  # the page says that no entry was found
    return entries


def _service(state: ServiceState, plan: ServicePlan | None, entry: Document | None) -> Document:
    document: Document = {
        "name": state.name,
        "gpus": state.gpus,
        "ttftMs": state.predicted_ttft_ms,
        "tpotMs": state.predicted_tpot_ms,
        "entry": entry,
    }
    if plan is None:
        return document
    memory = plan.memory
    resident, kv = max(0.0, memory.resident_weights_gib), max(0.0, memory.kv_gib)
    inside = resident + kv + memory.reserve_gib + memory.graphs_gib
    return document | {
        "precision": plan.variant.upper(),
        "gpu": plan.gpu,
        "checkpoint": plan.checkpoint,
        "instance": plan.instance,
        "engine": plan.engine,
        "usdPerHour": plan.usd_per_hour,
        "maxModelLen": plan.max_model_len,
        "offloadGib": plan.cpu_offload_gib,
        # Of each GPU, in GiB.
        "memory": {
            "visible": memory.visible_gib,
            "weights": resident,
            "kv": kv,
            "reserve": memory.reserve_gib + memory.graphs_gib,
            "free": max(0.0, memory.visible_gib - inside),
        },
    }


def _scrape(url: str | None) -> Scrape | None:
    if url is None:
        return None
    try:
        return metrics.engine_metrics(url)
    except (requests.RequestException, NoConnection, ValueError):
        return None


def _engine(scrape: Scrape, plan: ServicePlan | None, simulated: bool) -> Document:
    """kvGib: what the engine itself says its KV cache takes of each GPU; None where it is simulated, or does not say."""
    blocks = scrape.get("vllm:cache_config_info")
    kv = None
    if blocks and plan and not simulated:
        labels = blocks[0].labels
        tokens = int(labels.get("num_gpu_blocks") or 0) * int(labels.get("block_size") or 0)
        kv = tokens * plan.memory.kv_bytes_per_token / GIB
    return {
        "running": metrics.total(scrape, "vllm:num_requests_running"),
        "waiting": metrics.total(scrape, "vllm:num_requests_waiting"),
        "kvUsage": metrics.total(scrape, "vllm:kv_cache_usage_perc"),
        "tokens": metrics.total(scrape, "vllm:generation_tokens_total"),
        "kvGib": kv,
    }


def _gpu_memory(gpus: Scrape, state: ServiceState) -> Document | None:
    """{"usedGib", "freeGib"} of the service's fullest GPU, by the DCGM exporter; None where none says."""

    def of_pod(name: str) -> list[float]:
        return [sample.value for sample in gpus.get(name, []) if sample.labels.get("pod") == state.pod]

    used, free = of_pod("DCGM_FI_DEV_FB_USED"), of_pod("DCGM_FI_DEV_FB_FREE")
    if not used or not free or state.pod is None:
        return None
    return {"usedGib": max(used) * _MIB / GIB, "freeGib": min(free) * _MIB / GIB}
