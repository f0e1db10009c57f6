from __future__ import annotations

import re
from itertools import product
from typing import Any

import pytest
import yaml

from bench.plan import configs
from mistral_on_l4.config.settings import settings_from
from mistral_on_l4.planner import PlanError, plan_stack
from mistral_on_l4.planner.backwards import Found, Goal, Precision, apart, parse_slo, place, search, weigh
from mistral_on_l4.planner.catalogue import Catalogue
from mistral_on_l4.planner.request import Workload
from mistral_on_l4.planner.standalone import Question, plan_checkpoint
from mistral_on_l4.planner.suggest import catalogue_sources, sources_of, stack_lines, suggestions

MODEL = "mistral-small-24b-instruct-2501"
GOALS = [
    Goal(users=10, tpot_ms=70, ttft_ms=3000),
    Goal(users=10, tpot_ms=60, ttft_ms=1500),
    Goal(users=1, tpot_ms=30),
    Goal(users=20, tpot_ms=80, prompt_tokens=2048, output_tokens=256, ttft_ms=10_000),
    Goal(users=10, tpot_ms=70, accuracy=99),
]


@pytest.fixture(scope="module")
def found(catalogue: Catalogue) -> Any:
    def searched(goal: Goal) -> Found:
        return search(goal, catalogue_sources(MODEL, catalogue), catalogue)

    return searched


def brute_force(goal: Goal, catalogue: Catalogue) -> float | None:
    """The least price of anything that meets the goal, each combination planned on its own by `demo plan`'s code."""
    cheapest = None
    model = catalogue.models[MODEL]
    utilizations, caches = (0.80, 0.85, 0.90), ("auto", "fp8")
    needed = -(-(goal.prompt_tokens + goal.output_tokens) // 256) * 256
    for (name, instance), variant, gpus, engine, utilization, cache, length in product(
        catalogue.instances.items(), model.variants, (1, 2, 4, 8), ("vllm-0.11", "vllm-0.33"), utilizations, caches, (8192, needed)
    ):
        if instance.gpu is None or gpus > instance.gpus:
            continue
        price = instance.usd_per_hour[goal.region]
        accuracy = model.variants[variant].accuracy
        # No card says what an FP8 cache costs, so it is never known to be enough.
        known = None if cache == "fp8" else accuracy
        if (cheapest is not None and price >= cheapest) or (goal.accuracy and (known is None or known < goal.accuracy)):
            continue
        question = Question(
            model=MODEL, gpu=instance.gpu, count=instance.gpus, instance=name, precision=variant, tensor_parallel_size=gpus,
            max_model_len=max(length, needed), kv_cache_dtype=cache, gpu_memory_utilization=utilization, engine=engine,
            workload=Workload((goal.users,), goal.prompt_tokens, goal.output_tokens),
        )  # fmt: skip
        service = plan_checkpoint(question, catalogue).services[0]
        if not service.fits:
            continue
        point = service.at(goal.users)
        if point.tpot_ms <= (goal.tpot_ms or point.tpot_ms) and point.ttft_ms <= (goal.ttft_ms or point.ttft_ms):
            cheapest = price
    return cheapest


@pytest.mark.parametrize("goal", GOALS, ids=lambda goal: f"{goal.users} users, {goal.tpot_ms} ms")
def test_nothing_cheaper_meets_the_goal(found: Any, catalogue: Catalogue, goal: Goal) -> None:
    choices = found(goal).choices
    assert choices[0].usd_per_hour == brute_force(goal, catalogue)


@pytest.mark.parametrize("goal", GOALS, ids=lambda goal: f"{goal.users} users, {goal.tpot_ms} ms")
def test_every_choice_is_one_that_the_plan_confirms(found: Any, catalogue: Catalogue, goal: Goal) -> None:
    result = found(goal)
    assert 1 <= len(result.choices) <= 10
    assert [each.usd_per_hour for each in result.choices] == sorted(each.usd_per_hour for each in result.choices)
    for choice in result.choices:
        request = choice.request
        question = Question(
            model=MODEL, gpu=request.gpu_name, count=request.instance.gpus, instance=request.instance_name,
            precision=request.variant, tensor_parallel_size=request.gpus, max_model_len=request.max_model_len,
            kv_cache_dtype=request.kv_cache_dtype, gpu_memory_utilization=request.gpu_memory_utilization,
            engine=request.engine_name, workload=goal.workload,
        )  # fmt: skip
        service = plan_checkpoint(question, catalogue).services[0]
        assert service.fits
        assert service.at(goal.users).tpot_ms == pytest.approx(choice.point.tpot_ms)
        assert choice.point.tpot_ms <= (goal.tpot_ms or 1e9)


def test_of_one_price_the_engine_that_stacks_run_comes_first(found: Any, catalogue: Catalogue) -> None:
    for goal in GOALS:
        choices = found(goal).choices
        cheapest = [choice for choice in choices if choice.usd_per_hour == choices[0].usd_per_hour]
        if any(choice.request.engine_name == catalogue.default_engine for choice in cheapest):
            assert choices[0].request.engine_name == catalogue.default_engine


def test_a_near_miss_breaks_one_limit_and_says_which(found: Any) -> None:
    result = found(Goal(users=10, tpot_ms=65, ttft_ms=3000, usd_per_hour=2))
    assert result.near_misses
    for miss in result.near_misses:
        assert len(miss.breaks) == 1
    assert any("TPOT 67 ms, at most 65 ms asked for" in miss.breaks for miss in result.near_misses)


def test_a_near_miss_never_says_that_a_figure_is_above_itself(found: Any) -> None:
    limit = found(Goal(users=10)).choices[0].point.tpot_ms - 0.04
    result = found(Goal(users=10, tpot_ms=limit, usd_per_hour=1))
    for text in (text for miss in result.near_misses for text in miss.breaks):
        assert len(set(re.findall(r"\d+(?:\.\d+)?", text))) == 2, text
    assert apart(61.2, 61.0, 0) == ("61.2", "61.0")
    assert apart(70.0, 61.0, 0) == ("70", "61")


def test_what_a_stack_serves_today_is_among_its_suggestions(catalogue: Catalogue) -> None:
    found = dict(suggestions(settings_from({"platform": "eks"}, "x"), Goal(users=10), catalogue))
    assert set(found) == {"mistral-24b-full", "mistral-24b-fp8"}
    for result in found.values():
        assert len([choice for choice in result.choices if choice.today]) == 1
    offloaded = found["mistral-24b-fp8"].choices[0]
    assert (offloaded.today, offloaded.offload_gib, offloaded.request.instance_name) == (True, 5.0, "g6.2xlarge")
    lines = yaml.safe_load("\n".join(stack_lines([("chat", offloaded)], catalogue)))["config"]["mistral-on-l4:services"]["chat"]
    assert (lines["cpuOffload"], lines["maxNumSeqs"], lines["kvCacheDtype"]) == ("auto", 16, "fp8")


def test_a_stack_is_not_made_less_exact_than_it_is_unless_that_is_asked_for(catalogue: Catalogue) -> None:
    settings = settings_from({"platform": "eks"}, "x")
    kept = dict(suggestions(settings, Goal(users=10), catalogue))
    assert {choice.request.variant for choice in kept["mistral-24b-full"].choices} == {"bf16"}
    assert {choice.request.variant for choice in kept["mistral-24b-fp8"].choices} == {"fp8", "bf16"}
    assert any(miss.breaks[0].startswith("accuracy 99.3 %, today's is 100.0 %") for miss in kept["mistral-24b-full"].near_misses)
    asked = dict(suggestions(settings, Goal(users=10, accuracy=0), catalogue))
    assert {choice.request.variant for choice in asked["mistral-24b-full"].choices} == {"bf16", "fp8", "w4a16"}


def test_a_precision_is_at_least_another_only_where_that_is_known() -> None:
    bf16, fp8, w4a16 = Precision("bf16", 100.0, False), Precision("fp8", 99.3, False), Precision("w4a16", None, False)
    cached = Precision("fp8", 99.3, True)
    assert bf16.reaches(fp8)
    assert not fp8.reaches(bf16)
    assert w4a16.reaches(w4a16)
    assert not w4a16.reaches(fp8)
    assert bf16.reaches(w4a16)  # unquantized: no card has to say so
    assert not fp8.reaches(w4a16)
    assert fp8.reaches(cached)
    assert not cached.reaches(fp8)


def test_a_goal_that_nothing_meets_has_near_misses_alone(found: Any) -> None:
    result = found(Goal(users=10, tpot_ms=1))
    assert result.choices == ()
    assert all("TPOT" in miss.breaks[0] for miss in result.near_misses)


def test_only_the_gpus_that_were_asked_for_are_searched(found: Any) -> None:
    result = found(Goal(users=10, gpus=("L40S",)))
    assert {choice.request.gpu_name for choice in result.choices} == {"L40S"}
    with pytest.raises(PlanError, match="unknown GPU"):
        found(Goal(gpus=("L50",)))


def test_a_region_without_prices_has_nothing_cheapest(found: Any) -> None:
    with pytest.raises(PlanError, match="no prices are known for eu-west-1"):
        found(Goal(region="eu-west-1"))


def test_an_accuracy_that_no_card_gives_is_not_taken_for_enough(found: Any) -> None:
    result = found(Goal(users=10, accuracy=99))
    assert {choice.request.variant for choice in result.choices} == {"bf16", "fp8"}
    assert {choice.request.kv_cache_dtype for choice in result.choices} == {"auto"}


def test_an_fp8_cache_has_an_accuracy_that_nobody_knows(found: Any) -> None:
    known = {choice.request.kv_cache_dtype: choice.precision.known for choice in found(Goal(users=10, gpus=("L40S",))).choices}
    assert known["fp8"] is None


def test_a_checkpoint_that_is_not_in_the_catalogue_claims_no_accuracy_for_what_is_quantized(
    catalogue: Catalogue, of_file: Any
) -> None:
    def claimed(config: configs.Config, **asked: Any) -> list[float | None]:
        return [source.accuracy for source in sources_of(Question(config=of_file(config), **asked), catalogue)]

    assert claimed(configs.QWEN3_8B_FP8) == [None]
    assert claimed(configs.LLAMA_8B) == [100.0, None, None]
    assert claimed(configs.LLAMA_8B, precision="fp8") == [None]


def test_no_two_choices_do_the_same(found: Any) -> None:
    for goal in GOALS:
        choices = found(goal).choices
        done = [(*choice.shape, choice.precision.known, round(choice.point.tpot_ms, 3), choice.point.ttft_ms) for choice in choices]
        assert len(set(done)) == len(done)
        assert not any(one.betters(other) for one in choices for other in choices if one is not other)


def test_what_was_taken_out_is_no_better_than_what_is_left(found: Any, catalogue: Catalogue) -> None:
    goal = Goal(users=10, tpot_ms=70, ttft_ms=3000, gpus=("L40S",))
    left = found(goal).choices
    for name in ("g6e.2xlarge", "g6e.12xlarge"):
        instance = catalogue.instances[name]
        placed = place(
            left[0].request, catalogue, name, instance, left[0].request.gpus, "vllm-0.33", catalogue.engines["vllm-0.33"], goal
        )
        other = weigh(placed, goal, None, catalogue)
        assert other is not None
        assert any(choice.betters(other) for choice in left)


@pytest.mark.parametrize("engine", ["vllm-0.11", "vllm-0.33"])
def test_the_engine_that_was_asked_for_is_kept_to(found: Any, engine: str) -> None:
    assert {choice.request.engine_name for choice in found(Goal(users=10, engines=(engine,))).choices} == {engine}


def test_the_applied_lines_are_a_stack_that_loads(found: Any, catalogue: Catalogue) -> None:
    result = found(Goal(users=10, tpot_ms=70, ttft_ms=3000))
    lines = stack_lines([("chat", result.choices[0])], catalogue)
    values = {key.partition(":")[2]: value for key, value in yaml.safe_load("\n".join(lines))["config"].items()}
    plan = plan_stack(settings_from({"platform": "eks", **values}, "x"), stack="x", workload=Workload((10,)))
    assert [service.name for service in plan.services] == ["chat"]
    assert len(plan.pools) == 1
    assert plan.service("chat").fits
    assert plan.service("chat").at(10).tpot_ms == pytest.approx(result.choices[0].point.tpot_ms)
    assert plan.service("chat").instance == result.choices[0].request.instance_name


def test_a_longer_context_is_kept_where_it_costs_nothing(found: Any) -> None:
    assert found(Goal(users=1, tpot_ms=60)).choices[0].request.max_model_len == 8192


@pytest.mark.parametrize("text", ["tpot", "tpot=fast", "tpot=-1", "itl=5", "tpot=inf"])
def test_a_limit_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(PlanError, match="write milliseconds"):
        parse_slo(text)


def test_limits_are_read_by_name() -> None:
    assert parse_slo("tpot=60, ttft=1500") == {"tpot": 60.0, "ttft": 1500.0}
