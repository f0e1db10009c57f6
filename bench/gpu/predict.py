"""`python -m bench.gpu.predict`: writes prediction.json, what the planner says before the proof is run.

The machine with the GPU needs torch alone: the planner's figures travel as a file, and a test holds the file against the planner.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mistral_on_l4.planner.catalogue import load_catalogue
from mistral_on_l4.planner.catalogue.schema import Catalogue
from mistral_on_l4.planner.memory import kv_tokens, memory_use, overflow
from mistral_on_l4.planner.request import ServiceRequest
from mistral_on_l4.planner.speed import Speed

FILE = Path(__file__).with_name("prediction.json")
MODEL = "mistral-small-24b-instruct-2501"
# Name of the proof's case, variant, GPUs that share it.
CASES = (("fp8", "fp8", 1), ("w4a16", "w4a16", 1), ("bf16-tp4", "bf16", 4))
# The version that the proof's own figures were read from.
ENGINE = "vllm-0.11"
OFFLOAD_GIB = 5.0
UTILIZATION = 0.90


def prediction() -> dict[str, Any]:
    """What fits a process that sees an L4's memory, and how long a pass takes on every card of the catalogue."""
    catalogue = load_catalogue()
    cases = {name: _case(_request(catalogue, variant, gpus, "L4")) for name, variant, gpus in CASES}
    cards = {}
    for gpu in catalogue.gpus:
        request = _request(catalogue, "bf16", 1, gpu)
        speed = Speed(request, catalogue.calibration, OFFLOAD_GIB)
        low, high = speed.offload_range_ms
        whole = Speed(request, catalogue.calibration)
        cards[gpu] = {
            "bandwidth_gbs": request.gpu.bandwidth_gbs,
            "decode_pass_ms": round(whole.memory_ms(1, 0), 3),
            "offload_ms": [round(low, 1), round(high, 1)],
        }
    return {
        "model": MODEL,
        "cap_gib": catalogue.gpus["L4"].visible_gib,
        "offload_gib": OFFLOAD_GIB,
        "decode_bytes": round(_request(catalogue, "bf16", 1, "L4").weights.read_bytes(1, 1)),
        "bandwidth_efficiency": catalogue.calibration.bandwidth_efficiency,
        "cases": cases,
        "cards": cards,
    }


def _request(catalogue: Catalogue, variant: str, gpus: int, gpu: str) -> ServiceRequest:
    model = catalogue.models[MODEL]
    known = next(each for name, each in model.variants.items() if name == variant)
    engine = catalogue.engines[ENGINE]
    return ServiceRequest(
        name=variant,
        model=MODEL,
        variant=variant,
        checkpoint=known.repository,
        architecture=model.architecture,
        quantization=known.quantization,
        gpu_name=gpu,
        gpu=catalogue.gpus[gpu],
        gpus=gpus,
        engine_name=ENGINE,
        engine=engine,
        image="",
        max_model_len=8192,
        gpu_memory_utilization=UTILIZATION,
    )


def _case(request: ServiceRequest) -> dict[str, Any]:
    memory = memory_use(request)
    return {
        "gpus": request.gpus,
        "loads": overflow(request) is None,
        "weights_gib": round(memory.weights_gib, 4),
        "remainder_gib": round(memory.visible_gib - memory.weights_gib, 4),
        "activation_gib": round(memory.activation_gib, 4),
        "kv_gib": round(max(0.0, memory.kv_gib), 4),
        "kv_tokens": kv_tokens(memory),
    }


if __name__ == "__main__":
    FILE.write_text(json.dumps(prediction(), indent=2) + "\n")
    print(FILE.name)
