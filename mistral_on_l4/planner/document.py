"""A plan as the JSON document that other programs read: pull-request comments, policies, the benchmark."""

from __future__ import annotations

from typing import Any

from mistral_on_l4.planner.plan import GIB, LoadPoint, NotComputed, Remedy, ServicePlan, StackPlan


def document(plan: StackPlan) -> dict[str, Any]:
    """The whole plan. Prices are US dollars or null where none is known; predictions are null for a service that cannot load."""
    return {
        "stack": plan.stack,
        "usd_per_hour": _usd(plan.usd_per_hour),
        "fixed_usd_per_hour": _usd(plan.fixed_usd_per_hour),
        "usd_per_up": _usd(plan.usd_per_up),
        "services": [service_document(service) for service in plan.services],
    }


def service_document(service: ServicePlan) -> dict[str, Any]:
    """One service. tpot_ms, ttft_ms, output_tokens_per_s, usd_per_million_output_tokens: by number of users, as a string."""
    points = service.points
    loads = service.loads

    def by_users(value: Any) -> dict[str, float | None]:
        return {str(point.users): value(point) if loads else None for point in points}

    return {
        "name": service.name,
        "checkpoint": service.checkpoint,
        "gpu": service.gpu,
        "gpus": service.gpus,
        "instance": service.instance,
        "fits": service.fits,
        "fits_with_offload": service.fits_with_offload,
        "reason": service.reason,
        "weights_gib_per_gpu": round(service.memory.weights_gib, 3),
        "kv_tokens": service.kv_tokens,
        "max_model_len": service.max_model_len,
        "cpu_offload_gib": service.cpu_offload_gib,
        "tpot_ms": by_users(lambda point: round(point.tpot_ms, 2)),
        "ttft_ms": by_users(lambda point: round(point.ttft_ms, 1)),
        "output_tokens_per_s": by_users(lambda point: round(point.output_tokens_per_s, 2)),
        "usd_per_hour": _usd(service.usd_per_hour),
        "usd_per_million_output_tokens": by_users(_usd_per_million),
        "minutes_to_ready": round(service.minutes_to_ready, 1),
        "remedies": [_remedy(remedy) for remedy in service.remedies],
    }


def not_computed_document(error: NotComputed) -> dict[str, Any]:
    """What there is to say of a checkpoint without a rule: why, and the size of its weights where its headers tell it."""
    weights = round(error.weights_bytes / GIB, 3) if error.weights_bytes else None
    reason = f"not computed: {error.why}"
    return {"services": [{"checkpoint": error.source, "fits": None, "reason": reason, "weights_gib": weights}]}


def _usd_per_million(point: LoadPoint) -> float | None:
    price = point.usd_per_million_output_tokens
    return None if price is None else round(price, 4)


def _remedy(remedy: Remedy) -> dict[str, Any]:
    return {
        "change": remedy.change,
        "fits": remedy.fits,
        "tpot_ms": round(remedy.tpot_ms, 2),
        "usd_per_hour": _usd(remedy.usd_per_hour),
    }


def _usd(price: float | None) -> float | None:
    return None if price is None else round(price, 4)
