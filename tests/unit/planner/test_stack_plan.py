from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mistral_on_l4.config.settings import load_stack_file, settings_from
from mistral_on_l4.planner import PlanError, ServicePlan, StackPlan, plan_stack
from mistral_on_l4.planner.catalogue import Catalogue
from tests.support.configuration import only_pools, only_services

ROOT = Path(__file__).parents[3]
Plan = Callable[..., ServicePlan]
Stack = Callable[..., StackPlan]
Make = Callable[..., dict[str, Any]]


@pytest.fixture(params=["dev", "local"])
def shipped(request: Any) -> StackPlan:
    return plan_stack(load_stack_file(request.param, ROOT), stack=request.param)


def test_the_shipped_stacks_load(shipped: StackPlan) -> None:
    assert shipped.misfits == ()
    assert [(service.name, service.fits, service.loads) for service in shipped.services] == [
        ("mistral-24b-full", True, True),
        ("mistral-24b-fp8", False, True),
    ]


def test_the_arguments_that_users_know_are_there(shipped: StackPlan) -> None:
    full, fp8 = (" ".join(service.args) for service in shipped.services)
    assert "--tensor-parallel-size 4 --dtype bfloat16" in full
    assert "--kv-cache-dtype fp8" in fp8
    assert "--cpu-offload-gb 6" in fp8
    assert "--quantization" not in full + fp8
    assert not any(flag in full + fp8 for flag in ("--port", "--model ", "--served-model-name"))


def test_a_local_stack_is_planned_as_the_instances_that_it_imitates_but_awaited_as_what_it_is() -> None:
    local, dev = (plan_stack(load_stack_file(name, ROOT), stack=name) for name in ("local", "dev"))
    for here, there in zip(local.services, dev.services, strict=True):
        assert here.points == there.points
        assert here.args == there.args
        assert 300 <= here.ready_seconds < there.ready_seconds
        assert here.startup_seconds < there.startup_seconds
    assert local.fixed == ()
    assert local.usd_per_up == 0


def test_the_download_takes_as_long_as_the_cores_of_the_container_that_all_services_share() -> None:
    values: dict[str, Any] = {
        "platform": "eks",
        # Neither a volume nor a node of ours is in the way.
        "objectStore": {"kind": "external", "endpoint": "https://s3.us-east-1.amazonaws.com"},
    }
    small = {
        "pools": {"groups": {"small": {"instanceType": "g6e.xlarge"}}},
        "services": {"mistral-24b-w4a16": {"enabled": True, "pool": "small"}},
    }
    minutes = [plan_stack(settings_from(values | more, "test")).services[0].readiness.download for more in ({}, small)]
    # Four cores without the service on a node of four, of which three are left.
    assert minutes[1] / minutes[0] == pytest.approx(4 / 3)


def test_the_plan_of_a_spot_pool_says_what_an_interruption_does() -> None:
    def notes(capacity: str) -> str:
        pools = {"groups": {"l4-4gpu": {"capacityType": capacity}}}
        return " ".join(plan_stack(settings_from({"platform": "eks", "pools": pools}, "test")).notes)

    assert "at two minutes' notice, and its service is away" in notes("SPOT")
    assert "notice" not in notes("ON_DEMAND")


def test_extra_arguments_come_last(plan: Plan) -> None:
    assert plan(variant="w4a16", extraArgs=["--enable-auto-tool-choice"]).args[-1] == "--enable-auto-tool-choice"


def test_a_dtype_of_ones_own_replaces_the_plans(plan: Plan) -> None:
    args = plan(variant="bf16", instance="g6.12xlarge", tensorParallelSize=4, extraArgs=["--dtype", "half"]).args
    assert args.count("--dtype") == 1
    assert args[-1] == "half"


def test_a_pod_asks_for_what_the_plan_counts(plan: Plan) -> None:
    pinned = plan(variant="fp8", kvCacheDtype="fp8", maxNumSeqs=16, cpuOffload="auto")
    plain = plan(variant="w4a16")
    assert pinned.pod
    assert plain.pod
    assert gib(pinned.pod.requests["memory"]) == gib(plain.pod.requests["memory"]) + 5
    assert pinned.pod.requests["nvidia.com/gpu"] == pinned.pod.limits["nvidia.com/gpu"] == "1"
    assert gib(pinned.pod.limits["memory"]) < 32
    assert gib(pinned.pod.requests["ephemeral-storage"]) > 24
    parallel = plan(variant="bf16", instance="g6.12xlarge", tensorParallelSize=4).pod
    assert parallel
    assert (plain.pod.shm_size, parallel.shm_size) == ("2Gi", "8Gi")
    assert int(parallel.limits["cpu"]) < 48


def test_half_a_node_gets_half_of_its_room(plan: Plan) -> None:
    half = plan(variant="fp8", instance="g6.12xlarge", tensorParallelSize=2).pod
    whole = plan(variant="bf16", instance="g6.12xlarge", tensorParallelSize=4).pod
    assert half
    assert whole
    assert gib(half.limits["memory"]) * 2 <= gib(whole.limits["memory"])


def gib(quantity: str) -> int:
    assert quantity.endswith("Gi")
    return int(quantity[:-2])


def test_a_node_without_enough_memory_is_a_misfit_before_it_is_bought(plan: Plan) -> None:
    found = plan(variant="w4a16", instance="g6.xlarge")
    assert "g6.xlarge leaves" in found.reason
    assert not found.loads


def test_a_pool_with_too_few_gpus_per_node_is_a_misfit(plan: Plan) -> None:
    found = plan(variant="bf16", instance="g6.2xlarge", tensorParallelSize=4)
    assert found.reason == "g6.2xlarge has 1x L4, tensorParallelSize is 4"


def test_services_that_share_a_pool_need_a_gpu_each(stack: Stack, make_service: Make) -> None:
    two = [make_service(name="a", prefix="a/"), make_service(name="b", prefix="b/")]
    assert "no GPU is left in pool pool: 1x g6.2xlarge has 1 GPU, its services ask for 2" in stack(*two).misfits[0]
    assert stack(*two, count=2).misfits == ()


def test_gpus_that_are_free_on_different_nodes_do_not_make_a_larger_service(stack: Stack, make_service: Make) -> None:
    def services(*sizes: int) -> list[dict[str, Any]]:
        return [
            make_service(name=f"s{i}", prefix=f"s{i}/", variant="fp8" if size > 1 else "w4a16", tensorParallelSize=size)
            for i, size in enumerate(sizes)
        ]

    fits = stack(*services(2, 2, 4), instance="g6.12xlarge", count=2)
    assert fits.misfits == ()
    apart = stack(*services(2, 1, 1, 1, 1, 2), instance="g6.12xlarge", count=2)
    assert apart.misfits == ()
    assert len(stack(*services(4, 1, 4), instance="g6.12xlarge", count=2).misfits) == 1


@pytest.mark.parametrize(
    ("instance", "sizes", "nodes"),
    [("g6.2xlarge", (1, 1, 1), 3), ("g6.12xlarge", (4, 1, 2, 4, 1), 3), ("g6.48xlarge", (4, 4, 1), 2)],
)
def test_a_pool_without_a_free_gpu_says_how_many_nodes_would_do(
    stack: Stack, make_service: Make, instance: str, sizes: tuple[int, ...], nodes: int
) -> None:
    services = [
        make_service(
            name=f"s{i}", prefix=f"s{i}/", variant="bf16" if size == 4 else "fp8", cpuOffload="auto", tensorParallelSize=size
        )
        for i, size in enumerate(sizes)
    ]
    found = stack(*services, instance=instance)
    crowded = [line for line in found.misfits if "no GPU is left" in line]
    assert crowded
    assert all(f"`pulumi config set --path 'mistral-on-l4:pools.groups.pool.count' {nodes}`" in line for line in crowded)
    assert stack(*services, instance=instance, count=nodes).misfits == ()
    assert stack(*services, instance=instance, count=nodes - 1).misfits != ()


def test_a_count_that_no_pool_may_have_is_not_advised(stack: Stack, make_service: Make) -> None:
    many = stack(*(make_service(name=f"s{i}", prefix=f"s{i}/") for i in range(65)), count=64)
    (line,) = many.misfits
    assert "pulumi config set" not in line
    assert "give the service a pool of its own" in line


def test_a_parked_pool_is_no_misfit(stack: Stack, make_service: Make) -> None:
    found = stack(make_service(), count=0)
    assert found.misfits == ()
    assert any("parked" in warning for warning in found.services[0].warnings)
    assert found.pools[0].usd_per_hour == 0


def test_services_share_the_price_of_their_pool(stack: Stack, make_service: Make) -> None:
    pair = [make_service(name=name, prefix=f"{name}/", variant="fp8", tensorParallelSize=2) for name in ("a", "b")]
    found = stack(*pair, instance="g6.12xlarge")
    assert sum(service.usd_per_hour or 0 for service in found.services) == pytest.approx(4.6016)


def test_the_hourly_price_is_the_sum_of_its_lines() -> None:
    found = plan_stack(load_stack_file("dev", ROOT), stack="dev")
    assert found.usd_per_hour == pytest.approx(4.6016 + 0.9776 + (found.fixed_usd_per_hour or 0))
    # EKS 0.10, two m7i.xlarge 0.2016, a NAT gateway 0.045 with its address 0.005.
    assert found.fixed_usd_per_hour == pytest.approx(0.10 + 2 * 0.2016 + 0.05 + 0.0693, abs=0.001)
    assert found.usd_per_up == pytest.approx(72.07 * 0.045 + 72.07 * 0.02 + 35 * 0.045, abs=0.01)


def test_an_existing_cluster_and_network_are_not_billed_to_the_stack(stack: Stack, make_service: Make) -> None:
    found = stack(
        make_service(),
        cluster={"existing": True, "name": "c"},
        network={"existingVpcId": "vpc-1", "existingSubnetIds": ["subnet-1"]},
    )
    assert not any(word in line.what for line in (*found.fixed, *found.up) for word in ("EKS", "NAT", "system"))


def test_nat_gateways_in_every_zone_cost_three_times_as_much(stack: Stack, make_service: Make) -> None:
    one, three = (stack(make_service(), network={"natGateways": kind}) for kind in ("one", "one-per-zone"))
    assert (three.fixed_usd_per_hour or 0) - (one.fixed_usd_per_hour or 0) == pytest.approx(2 * 0.05)


def test_a_region_without_a_price_has_none_and_says_so(stack: Stack, make_service: Make) -> None:
    found = stack(make_service(), region="eu-central-1")
    assert found.usd_per_hour is None
    assert found.services[0].usd_per_hour is None
    assert any("--live-prices" in note for note in found.notes)


def test_checkpoints_that_are_seeded_together_share_the_rate(stack: Stack, make_service: Make) -> None:
    small, large = make_service(name="a", prefix="a/"), make_service(name="b", prefix="b/", variant="bf16", tensorParallelSize=4)
    alone = stack(small, instance="g6.12xlarge", count=2).services[0].readiness.seed
    together = [service.readiness.seed for service in stack(small, large, instance="g6.12xlarge", count=2).services]
    assert together[0] == pytest.approx(2 * alone)
    assert together[1] == pytest.approx(alone * (14.147 + 47.145) / 14.147, rel=1e-3)


def test_a_checkpoint_that_two_services_share_is_seeded_once(stack: Stack, make_service: Make) -> None:
    one = stack(make_service(name="a"), count=2)
    two = stack(make_service(name="a"), make_service(name="b"), count=2)
    assert two.services[0].readiness.seed == one.services[0].readiness.seed
    assert two.up[0].count == one.up[0].count


def test_nodes_after_the_seed_make_it_later_and_the_plan_says_what_that_saves(make_service: Make) -> None:
    def planned(start: str) -> StackPlan:
        pools = {"start": start, "groups": only_pools({"name": "pool", "instanceType": "g6.2xlarge"})}
        values = {"platform": "eks", "services": only_services(make_service()), "pools": pools}
        return plan_stack(settings_from(values, "x"), stack="x")

    together, after = planned("with-seed"), planned("after-seed")
    seed = together.services[0].readiness.seed
    assert after.services[0].minutes_to_ready == pytest.approx(together.services[0].minutes_to_ready + seed)
    saved = f"${0.9776 * seed / 60:.2f}"
    assert saved in together.notes[-1]
    assert saved in after.notes[-1]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model": "mistral-smal-24b"}, "unknown model 'mistral-smal-24b': did you mean mistral-small-24b-instruct-2501"),
        ({"instance": "g6.2xlrge"}, "unknown instance type 'g6.2xlrge': did you mean g6.2xlarge"),
        ({"instance": "m7i.xlarge"}, "which has no GPU"),
        ({"engine": "vllm-0.12"}, "unknown engine 'vllm-0.12': did you mean .*vllm-0.11"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(plan: Plan, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(PlanError, match=says.replace("(", r"\(")):
        plan(**changes)


def test_an_unknown_region_is_refused_with_the_nearest(stack: Stack, make_service: Make) -> None:
    with pytest.raises(PlanError, match=r"unknown region 'us-esat-1': did you mean .*us-east-1"):
        stack(make_service(), region="us-esat-1")


def test_every_platform_has_an_image_of_the_default_engine(catalogue: Catalogue) -> None:
    assert set(catalogue.engines[catalogue.default_engine].images) == {"local", "eks", "openshift"}


def test_the_work_of_a_plan_grows_no_faster_than_the_number_of_services(make_service: Make) -> None:
    def calls(count: int) -> int:
        """Function calls of a plan: its work, whatever else the machine does."""
        services = [make_service(name=f"s{i}", prefix=f"s{i}/", variant="fp8") for i in range(count)]
        pools = {"groups": only_pools({"name": "pool", "instanceType": "g6.2xlarge", "count": 64})}
        settings = settings_from({"platform": "eks", "services": only_services(*services), "pools": pools}, "x")
        made = 0

        def count_calls(frame: object, event: str, argument: object) -> None:
            nonlocal made
            made += event in ("call", "c_call")

        sys.setprofile(count_calls)
        try:
            plan = plan_stack(settings, stack="x")
        finally:
            sys.setprofile(None)
        assert len(plan.services) == count
        return made

    calls(1)
    few, many = calls(20), calls(200)
    assert many <= 10 * few


def test_the_operations_that_a_fast_volume_is_given_are_billed(stack: Stack, make_service: Make) -> None:
    def volume(throughput: int) -> float:
        found = stack(make_service(), objectStore={"volumeSize": "100Gi", "volumeThroughputMibps": throughput})
        return next(line.usd_per_hour for line in found.fixed if line.what == "object store volume") or 0.0

    # 100 GiB; 875 MiB/s above the first 125; 4,000 operations per second, of which 3,000 are included.
    assert volume(1000) == pytest.approx((100 * 0.08 + 875 * 0.04 + 1000 * 0.005) / 730)
    assert volume(125) == pytest.approx(100 * 0.08 / 730)


def test_requests_longer_than_a_service_takes_are_remarked_upon(plan: Plan) -> None:
    assert any("vLLM refuses a request of more than 300" in warning for warning in plan(maxModelLen=300).warnings)
    assert not any("vLLM refuses" in warning for warning in plan(maxModelLen=512).warnings)


@pytest.mark.parametrize("region", ["ap-southeast-3", "eu-central-2", "ca-west-1", "il-central-1"])
def test_every_region_that_has_eks_is_known(stack: Stack, make_service: Make, region: str) -> None:
    found = stack(make_service(), region=region)
    assert found.region == region
    assert found.usd_per_hour is None


def test_a_remedy_on_the_same_gpus_costs_what_the_service_costs(stack: Stack, make_service: Make) -> None:
    services = [make_service(name=name, prefix=f"{name}/", variant="fp8") for name in ("a", "b")]
    found = stack(*services, instance="g6.12xlarge").service("a")
    assert found.usd_per_hour == pytest.approx(4.6016 / 2)
    prices = {remedy.change: remedy.usd_per_hour for remedy in found.remedies}
    assert prices["W4A16 on 1x L4"] == pytest.approx(4.6016 / 2)
    assert prices["FP8 on 1x L40S"] == pytest.approx(1.861)


def test_vllm_itself_on_a_cpu_is_given_longer_to_start_than_its_simulation() -> None:
    simulated, real = (
        plan_stack(settings_from({"platform": "local", "local": {"engine": engine}}, "test")) for engine in ("simulator", "vllm")
    )
    for one, other in zip(simulated.services, real.services, strict=True):
        assert other.startup_seconds >= 600 > one.startup_seconds
        assert (one.points, one.args) == (other.points, other.args)
