"""What the model registry is told of a service: facts that are known before it runs; digest and bytes come from the manifest."""

from __future__ import annotations

from typing import Any

from mistral_on_l4.config.settings import ServiceSettings, Settings
from mistral_on_l4.planner import ServicePlan
from mistral_on_l4.planner.catalogue import Catalogue

_PRECISIONS = {"bf16": "BF16", "fp8": "FP8", "w4a16": "W4A16"}


def registry_entry(service: ServiceSettings, plan: ServicePlan, settings: Settings, catalogue: Catalogue) -> dict[str, Any]:
    """{"model", "version", "artifact"} for register_model.py. Custom properties are strings: the API's integers are 32 bits."""
    precision = _PRECISIONS[service.variant.value]
    point = plan.at(1)
    facts = {
        "precision": precision,
        "source_model": plan.checkpoint,
        "engine": plan.engine,
        "gpu_requirement": f"{plan.gpus}x {plan.gpu}",
        "fits": _fit(plan),
        "weights_gib_per_gpu": f"{plan.memory.weights_gib:.2f}",
        "predicted_ttft_ms": f"{point.ttft_ms:.0f}",
        "predicted_tpot_ms": f"{point.tpot_ms:.0f}",
        "max_model_len": str(plan.max_model_len),
        "inference_service": service.name,
    }
    return {
        "model": _model(service, plan, settings, catalogue, precision),
        "version": {
            "name": f"{service.revision}-{service.name}",
            "description": f"Revision {service.revision} of {plan.checkpoint} as {service.name} serves it",
            "author": settings.registry.owner,
            "customProperties": facts,
        },
        "artifact": {
            "uri": f"s3://{settings.object_store.bucket}/{service.prefix}",
            "modelFormatName": "vLLM",
            "modelFormatVersion": "1",
            "storageKey": settings.traits.storage_key,
            "storagePath": service.prefix,
            "customProperties": {"format": "safetensors", "source_model": plan.checkpoint},
        },
    }


def _model(service: ServiceSettings, plan: ServicePlan, settings: Settings, catalogue: Catalogue, precision: str) -> dict[str, Any]:
    """Name and licence are the catalogue's where the checkpoint is; of any other repository nobody here knows the licence."""
    owner, _, base = plan.checkpoint.rpartition("/")
    known = catalogue.checkpoint(plan.checkpoint)
    entry = catalogue.models[known[0]] if known else None
    family = catalogue.model(service.model).architecture.family.removesuffix("ForCausalLM").lower()
    properties = dict.fromkeys((family, "vllm", "text-to-text", service.variant.value), "")
    if entry and entry.license:
        properties["license"] = entry.license
    if owner:
        properties["provider"] = owner
    return {
        "name": f"{entry.title if entry and entry.title else base}-{precision}",
        "description": f"{base} in {precision}, served by vLLM on {plan.gpus}x NVIDIA {plan.gpu}",
        "owner": settings.registry.owner,
        "customProperties": properties,
    }


def _fit(plan: ServicePlan) -> str:
    if plan.fits:
        return "yes"
    return f"with {plan.cpu_offload_gib:.1f} GiB per GPU in node memory" if plan.fits_with_offload else "no"
