from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product

import pytest

from mistral_on_l4.planner import ServicePlan, memory
from mistral_on_l4.planner.catalogue import Catalogue
from mistral_on_l4.planner.offload import EAGER, FEWEST, SHORTEST, UTILIZATIONS, least_offload
from mistral_on_l4.planner.request import ServiceRequest
from mistral_on_l4.planner.suggest import catalogue_sources

Plan = Callable[..., ServicePlan]
ASKED = {"variant": "fp8", "cpuOffload": "auto", "kvCacheDtype": "fp8", "maxNumSeqs": 16}


@pytest.fixture(params=["vllm-0.11", "vllm-0.33"])
def request_on_l4(request: pytest.FixtureRequest, catalogue: Catalogue) -> ServiceRequest:
    fp8 = next(
        each.request for each in catalogue_sources("mistral-small-24b-instruct-2501", catalogue) if each.request.variant == "fp8"
    )
    engine = catalogue.engine(request.param)
    return replace(
        fp8, gpu_name="L4", gpu=catalogue.gpus["L4"], engine_name=request.param, engine=engine, max_model_len=8192,
        gpu_memory_utilization=0.9, cpu_offload="auto",
    )  # fmt: skip


def test_no_settings_need_less_than_the_least_offload(request_on_l4: ServiceRequest) -> None:
    least = least_offload(request_on_l4)
    assert least is not None
    for utilization, length, count, cache, eager in product(
        UTILIZATIONS, (SHORTEST, 4096, 8192), (FEWEST, 16, 256), ("auto", "fp8"), (False, True)
    ):
        other = replace(
            request_on_l4, gpu_memory_utilization=utilization, max_model_len=length, max_num_seqs=count, kv_cache_dtype=cache,
            extra_args=(EAGER,) if eager else (),
        )  # fmt: skip
        needed = memory.offload_needed_gib(other)
        if memory.overflow(other, needed) is None:
            assert needed >= least.gib, (utilization, length, count, cache, eager)


def test_the_least_offload_loads_and_half_a_gib_less_does_not(request_on_l4: ServiceRequest) -> None:
    least = least_offload(request_on_l4)
    assert least is not None
    assert memory.overflow(least.request, least.gib) is None
    assert memory.overflow(least.request, least.gib - memory.OFFLOAD_STEP_GIB) is not None


def test_a_service_with_weights_in_the_node_is_shown_what_makes_it_least_bad(plan: Plan) -> None:
    found = plan(**ASKED)
    least = found.remedies[-1]
    assert least.change.startswith("cpuOffload 3 with gpuMemoryUtilization 0.97")
    assert least.tpot_ms < found.at(1).tpot_ms
    assert least.usd_per_hour == found.usd_per_hour
    assert least.unmeasured


def test_the_shipped_offload_costs_half_a_second_per_token(plan: Plan) -> None:
    offload = plan(**ASKED).offload
    assert offload is not None
    low, high = offload.tpot_ms
    assert 480 < low < 500
    assert 610 < high < 630


def test_a_service_that_fits_is_shown_no_offload(plan: Plan) -> None:
    assert plan(variant="w4a16", cpuOffload="auto").remedies == ()
