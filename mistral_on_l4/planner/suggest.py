"""Where the search of planner/backwards.py starts and what comes of it: checkpoints to search, documents, lines of a stack file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import yaml

from mistral_on_l4.config.defaults import DEFAULT_POOLS, DEFAULT_SERVICES
from mistral_on_l4.config.names import PROJECT
from mistral_on_l4.config.settings import Settings
from mistral_on_l4.planner.backwards import PLATFORM, UNQUANTIZED, Choice, Found, Goal, Precision, Source, search
from mistral_on_l4.planner.catalogue.schema import Catalogue
from mistral_on_l4.planner.plan import PlanError
from mistral_on_l4.planner.request import FORMATS, ServiceRequest
from mistral_on_l4.planner.service import judge
from mistral_on_l4.planner.speed import Speed
from mistral_on_l4.planner.stack import requests_of
from mistral_on_l4.planner.standalone import PRECISIONS, Question, find_checkpoint
from mistral_on_l4.planner.standalone import Found as Checkpoint

LABELS = {"bf16": "BF16", "fp8": "FP8", "w4a16": "W4A16"}


def sources_of(question: Question, catalogue: Catalogue) -> tuple[Source, ...]:
    """Checkpoints of the model that is asked about: of the catalogue with all its variants, else as stored and as if quantized.

    What quantization costs a checkpoint that is not in the catalogue is not known: no model card was read. Raises PlanError.
    """
    name = question.model or ""
    key = next((key for key in catalogue.models if key.lower() == name.lower()), None)
    known = catalogue.checkpoint(name) if not question.config else None
    if key or known:
        sources = catalogue_sources(key or (known[0] if known else ""), catalogue)
        asked = PRECISIONS.get(question.precision.lower(), question.precision)
        named = next((each for each in sources if each.request.variant == asked), None)
        if asked != "auto" and named is None:
            raise PlanError(f"{name} has no checkpoint in {asked}: {', '.join(each.request.variant for each in sources)}")
        return (named,) if named else sources
    found = find_checkpoint(question, catalogue)
    stored = [Source(_template(found, catalogue), UNQUANTIZED if found.quantization.scheme == "none" else None)]
    if found.quantization.scheme == "none" and question.precision.lower() == "auto":
        for variant in ("fp8", "w4a16"):
            quantized = replace(found, variant=variant, quantization=FORMATS[variant], exact=None)
            stored.append(Source(_template(quantized, catalogue), None))
    return tuple(stored)


def catalogue_sources(model: str, catalogue: Catalogue) -> tuple[Source, ...]:
    record = catalogue.model(model)
    return tuple(
        Source(
            _template(
                Checkpoint(
                    model,
                    name,
                    variant.repository,
                    record.architecture,
                    variant.quantization,
                    largest_file_gb=variant.largest_file_gb,
                ),
                catalogue,
            ),
            variant.accuracy,
        )
        for name, variant in record.variants.items()
    )


def _template(found: Checkpoint, catalogue: Catalogue) -> ServiceRequest:
    """A request without a place: the search fills in GPU, instance, engine and settings."""
    gpu_name, gpu = next(iter(catalogue.gpus.items()))
    engine = catalogue.engines[catalogue.default_engine]
    return ServiceRequest(
        name=found.model,
        model=found.model,
        variant=found.variant,
        checkpoint=found.repository,
        architecture=found.architecture,
        quantization=found.quantization,
        gpu_name=gpu_name,
        gpu=gpu,
        gpus=1,
        engine_name=catalogue.default_engine,
        engine=engine,
        image="",
        max_model_len=1,
        gpu_memory_utilization=engine.default_gpu_memory_utilization,
        dtype=found.dtype,
        exact=found.exact,
        largest_file_gb=found.largest_file_gb,
    )


def suggestions(settings: Settings, goal: Goal, catalogue: Catalogue) -> Iterator[tuple[str, Found]]:
    """For each service of a stack, by name, what could serve its model, what it is today among that.

    A limit that the goal lacks is what the service does today: its speed, and how exact it is.
    """
    reserved = catalogue.reserved[settings.traits.node_reserve]
    for request in requests_of(settings, catalogue, workload=goal.workload):
        limits = replace(goal, context=request.max_model_len, region=settings.region)
        sources = catalogue_sources(request.model, catalogue)
        accuracy = next(each.accuracy for each in sources if each.request.variant == request.variant)
        verdict = judge(request, catalogue, reserved)
        if verdict.loads and goal.tpot_ms is None and goal.ttft_ms is None:
            point = Speed(request, catalogue.calibration, verdict.offload_gib).at(goal.users, None)
            limits = replace(limits, tpot_ms=point.tpot_ms, ttft_ms=point.ttft_ms)
        if verdict.loads and goal.accuracy is None:
            limits = replace(limits, floor=Precision(request.variant, accuracy, request.cache_dtype.startswith("fp8")))
        today = (Source(request, accuracy, today=True),) if PLATFORM in request.engine.images else ()
        yield request.name, search(limits, (*today, *sources), catalogue)


def words(choice: Choice) -> str:
    """`W4A16 on 1x L4 (g6.2xlarge), vllm-0.11, utilization 0.90, fp8 KV cache`."""
    request = choice.request
    cache = ", fp8 KV cache" if request.kv_cache_dtype != "auto" else ""
    cache += f", {choice.offload_gib:g} GiB offloaded" if choice.offload_gib else ""
    cache += " (today)" if choice.today else ""
    label = LABELS.get(request.variant, request.variant)
    return (
        f"{label} on {request.gpus}x {request.gpu_name} ({request.instance_name}), {request.engine_name}, utilization "
        f"{request.gpu_memory_utilization:.2f}{cache}"
    )


def found_document(found: Found) -> dict[str, Any]:
    goal = found.goal
    return {
        "goal": {
            "users": goal.users,
            "tpot_ms": goal.tpot_ms,
            "ttft_ms": goal.ttft_ms,
            "usd_per_hour": goal.usd_per_hour,
            "accuracy": goal.accuracy,
            "prompt_tokens": goal.prompt_tokens,
            "output_tokens": goal.output_tokens,
        },
        "as_exact_as": goal.floor and {"variant": goal.floor.variant, "kv_cache_dtype": "fp8" if goal.floor.fp8_cache else "auto"},
        "choices": [_choice_document(choice) for choice in found.choices],
        "near_misses": [_choice_document(choice) for choice in found.near_misses],
    }


def _choice_document(choice: Choice) -> dict[str, Any]:
    request, point = choice.request, choice.point
    price = point.usd_per_million_output_tokens
    return {
        "variant": request.variant,
        "checkpoint": request.checkpoint,
        "gpu": request.gpu_name,
        "gpus": request.gpus,
        "instance": request.instance_name,
        "engine": request.engine_name,
        "gpu_memory_utilization": request.gpu_memory_utilization,
        "kv_cache_dtype": request.kv_cache_dtype,
        "max_model_len": request.max_model_len,
        "tpot_ms": round(point.tpot_ms, 2),
        "ttft_ms": round(point.ttft_ms, 1),
        "output_tokens_per_s": round(point.output_tokens_per_s, 1),
        "kv_tokens": choice.kv_tokens,
        "usd_per_hour": round(choice.usd_per_hour, 4),
        "usd_per_million_output_tokens": None if price is None else round(price, 4),
        "minutes_to_ready": round(choice.minutes_to_ready, 1),
        "accuracy": choice.precision.known,
        "cpu_offload_gib": choice.offload_gib,
        "today": choice.today,
        "breaks": list(choice.breaks),
    }


def stack_lines(choices: list[tuple[str, Choice]], catalogue: Catalogue) -> list[str]:
    """The lines of a Pulumi.<stack>.yaml that take these choices, each under the name of its service, and nothing of the defaults.

    Raises PlanError for no choice.
    """
    if not choices:
        raise PlanError("there is no choice to apply")
    pools: dict[str, Any] = dict.fromkeys(DEFAULT_POOLS)
    services: dict[str, Any] = dict.fromkeys(DEFAULT_SERVICES)
    notes = []
    for name, choice in choices:
        request = choice.request
        pools[name] = {"instanceType": request.instance_name, "count": 1}
        # A service of a default's name is merged with it, so that what the default sets is said here too.
        services[name] = {
            "enabled": True,
            "model": request.model,
            "variant": request.variant,
            "prefix": f"{name}/",
            "pool": name,
            "tensorParallelSize": request.gpus,
            "maxModelLen": request.max_model_len,
            "maxNumSeqs": request.max_num_seqs,
            "kvCacheDtype": request.kv_cache_dtype,
            "gpuMemoryUtilization": round(request.gpu_memory_utilization, 2),
            "cpuOffload": request.cpu_offload,
        }
        if request.extra_args:
            services[name]["extraArgs"] = list(request.extra_args)
        if request.engine_name != catalogue.default_engine:
            notes.append(f"# {name} was planned on {request.engine_name}; a stack runs the engine that its platform pins.")
        if request.model not in catalogue.models:
            notes.append(f"# {request.model} is not in the catalogue: a stack cannot serve it yet.")
    config = {f"{PROJECT}:pools": {"groups": pools}, f"{PROJECT}:services": services}
    return [*notes, *yaml.safe_dump({"config": config}, sort_keys=False).splitlines()]
