"""What the model registry is told of a service: facts that are known before it runs; digest and bytes come from the manifest."""

from __future__ import annotations

from typing import Any

from mistral_on_l4.config.settings import ServiceSettings, Settings
from mistral_on_l4.planner import ServicePlan

_NAMES = {"bf16": "BF16", "fp8": "FP8", "w4a16": "W4A16"}


def registry_entry(service: ServiceSettings, plan: ServicePlan, settings: Settings) -> dict[str, Any]:
    """{"model", "version", "artifact"} for register_model.py. Custom properties are strings: the API's integers are 32 bits."""
    base = plan.checkpoint.rpartition("/")[2]
    precision = _NAMES[service.variant.value]
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
    tags = dict.fromkeys(("mistral", "vllm", "text-to-text", service.variant.value), "")
    return {
        "model": {
            "name": f"Mistral-Small-24B-Instruct-{precision}",
            "description": f"{base} in {precision}, served by vLLM on {plan.gpus}x NVIDIA {plan.gpu}",
            "owner": settings.registry.owner,
            "customProperties": {**tags, "license": "Apache-2.0", "provider": plan.checkpoint.partition("/")[0]},
        },
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
            "storageKey": "minio",
            "storagePath": service.prefix,
            "customProperties": {"format": "safetensors", "source_model": plan.checkpoint},
        },
    }


def _fit(plan: ServicePlan) -> str:
    if plan.fits:
        return "yes"
    return f"with {plan.cpu_offload_gib:.1f} GiB per GPU in node memory" if plan.fits_with_offload else "no"
