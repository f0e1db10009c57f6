"""The plan asked backwards: which is the cheapest way to serve a model within limits of speed, money and accuracy?

    found = search(Goal(users=10, tpot_ms=60), sources_of(...), catalogue)

Searched are variants x instance types x tensor parallelism x engines x utilizations x KV cache formats x contexts (the usual one,
and the shortest that the requests need). Each is planned forwards, by the same code. A choice meets the goal if all users run at
once and none waits for another's whole answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import product

from mistral_on_l4.planner.catalogue.schema import Catalogue, Engine, Instance
from mistral_on_l4.planner.hosting import Moves, downloader, readiness, seed_minutes
from mistral_on_l4.planner.memory import reported_tokens
from mistral_on_l4.planner.plan import LoadPoint, PlanError
from mistral_on_l4.planner.request import ServiceRequest, Workload
from mistral_on_l4.planner.rules import refusal_of
from mistral_on_l4.planner.service import judge
from mistral_on_l4.planner.speed import Speed

PLATFORM = "eks"
UTILIZATIONS = (0.90, 0.85, 0.80)
CACHES = ("auto", "fp8")
PARALLEL = (1, 2, 4, 8)
USUAL_CONTEXT = 8192
FP8_CACHE_FROM = 8.9  # compute capability on which an FP8 cache was verified
CHOICES, NEAR_MISSES = 10, 5


@dataclass(frozen=True)
class Goal:
    """What a choice must do, None for no limit. tpot_ms, ttft_ms: at `users`; usd_per_hour: at most; accuracy: in % at least.

    gpus: kinds that may be taken, () for all of the catalogue; context: tokens that a request must be able to have.
    """

    users: int = 10
    tpot_ms: float | None = None
    ttft_ms: float | None = None
    usd_per_hour: float | None = None
    accuracy: float | None = None
    prompt_tokens: int = 256
    output_tokens: int = 256
    context: int = 0
    gpus: tuple[str, ...] = ()
    region: str = "us-east-1"

    @property
    def workload(self) -> Workload:
        return Workload((self.users,), self.prompt_tokens, self.output_tokens)

    def contexts(self, longest: int) -> tuple[int, ...]:
        """Greatest lengths to search, longest first, in steps of 256 tokens. longest: what the model takes."""
        needed = -(-max(self.prompt_tokens + self.output_tokens, self.context) // 256) * 256
        return tuple(dict.fromkeys((max(needed, min(USUAL_CONTEXT, longest)), needed)))


@dataclass(frozen=True)
class Source:
    """One checkpoint that the search may take. request: a template whose place and settings are filled in."""

    request: ServiceRequest
    accuracy: float | None


@dataclass(frozen=True)
class Choice:
    """One way to serve the model. usd_per_hour: of the whole instance; breaks: limits that it breaks, with both figures.

    excess: by what share it exceeds the limit that it breaks most.
    """

    request: ServiceRequest
    point: LoadPoint
    usd_per_hour: float
    kv_tokens: int
    minutes_to_ready: float
    accuracy: float | None
    breaks: tuple[str, ...] = ()
    excess: float = 0.0

    @property
    def order(self) -> tuple[float, float, float]:
        """Cheapest first; of one price the one that yields more tokens, then the faster."""
        return self.usd_per_hour, -self.point.output_tokens_per_s, self.point.tpot_ms


@dataclass(frozen=True)
class Found:
    """The cheapest choices that meet the goal, and the nearest that do not, each breaking one limit."""

    goal: Goal
    choices: tuple[Choice, ...]
    near_misses: tuple[Choice, ...] = field(default=())


def search(goal: Goal, sources: tuple[Source, ...], catalogue: Catalogue) -> Found:
    """Searches everything that the catalogue holds. Raises PlanError for names that it does not know."""
    catalogue.known_region(goal.region)
    for gpu in goal.gpus:
        catalogue.gpu(gpu)
    if not any(goal.region in instance.usd_per_hour for instance in catalogue.instances.values()):
        raise PlanError(f"no prices are known for {goal.region}, so nothing can be the cheapest: --live-prices asks AWS")
    best: dict[tuple[str, str, int, str], Choice] = {}
    missed: dict[tuple[str, str, int, str], Choice] = {}
    for source, request in _candidates(goal, sources, catalogue):
        choice = weigh(request, goal, source.accuracy, catalogue)
        if choice is None:
            continue
        key = (request.variant, str(request.instance_name), request.gpus, request.engine_name)
        kept, better = (missed, _nearer) if choice.breaks else (best, _cheaper)
        if key not in kept or better(choice, kept[key]):
            kept[key] = choice
    near = [choice for key, choice in missed.items() if key not in best and len(choice.breaks) == 1]
    cheapest = sorted(best.values(), key=lambda choice: choice.order)[:CHOICES]
    return Found(goal, tuple(cheapest), tuple(sorted(near, key=lambda choice: choice.excess)[:NEAR_MISSES]))


def weigh(request: ServiceRequest, goal: Goal, accuracy: float | None, catalogue: Catalogue) -> Choice | None:
    """What one configuration is worth; None if it does not load or has no price."""
    assert request.instance is not None
    price = request.instance.usd_per_hour.get(goal.region)
    if price is None or not judge(request, catalogue, catalogue.reserved[PLATFORM]).loads:
        return None
    speed = Speed(request, catalogue.calibration)
    point = speed.at(goal.users, price)
    image = request.engine.images[PLATFORM]
    seed = seed_minutes({"": request.file_weights.total_bytes}, catalogue.rates.hub_mbs)[""]
    download = downloader(()).cores * catalogue.rates.download_core_mbs
    moves = Moves(catalogue.rates.local_disk_mbs, download, seed)
    ready = readiness(request, catalogue, image.unpacked_gb, moves)
    broken = dict(_broken(goal, point, price, accuracy, speed.concurrent(goal.users)))
    return Choice(
        request,
        point,
        price,
        reported_tokens(request, speed.memory_use),
        ready.total,
        accuracy,
        tuple(broken),
        max(broken.values(), default=0.0),
    )


def _broken(goal: Goal, point: LoadPoint, price: float, accuracy: float | None, running: int) -> Iterator[tuple[str, float]]:
    """(the limit in words, by what share it is exceeded)."""
    if running < goal.users:
        yield f"only {running} of {goal.users} users run at once", goal.users / running - 1
    limits: Mapping[str, tuple[float, float | None, str]] = {
        "TPOT": (point.tpot_ms, goal.tpot_ms, "{:.0f} ms"),
        "TTFT": (point.ttft_ms, goal.ttft_ms, "{:.0f} ms"),
        "price": (price, goal.usd_per_hour, "${:.2f}/h"),
    }
    for name, (value, limit, form) in limits.items():
        if limit is not None and value > limit:
            yield f"{name} {form.format(value)}, at most {form.format(limit)} asked for", value / limit - 1
    if goal.accuracy is not None and (accuracy is None or accuracy < goal.accuracy):
        known = "accuracy unknown" if accuracy is None else f"accuracy {accuracy:.1f} %"
        yield f"{known}, at least {goal.accuracy:.1f} % asked for", 1.0 if accuracy is None else goal.accuracy / accuracy - 1


def _candidates(goal: Goal, sources: tuple[Source, ...], catalogue: Catalogue) -> Iterator[tuple[Source, ServiceRequest]]:
    engines = {name: engine for name, engine in catalogue.engines.items() if PLATFORM in engine.images}
    for source in sources:
        for instance_name, instance in catalogue.instances.items():
            if instance.gpu is None or (goal.gpus and instance.gpu not in goal.gpus):
                continue
            for gpus in (count for count in PARALLEL if count <= instance.gpus):
                for engine_name, engine in engines.items():
                    placed = place(source.request, catalogue, instance_name, instance, gpus, engine_name, engine, goal)
                    if refusal_of(placed) is None:
                        yield from ((source, request) for request in settings_of(placed, goal))


def settings_of(placed: ServiceRequest, goal: Goal) -> Iterator[ServiceRequest]:
    """The same place with every context, utilization and cache format that is searched."""
    for length, utilization, cache in product(goal.contexts(placed.architecture.max_positions), UTILIZATIONS, CACHES):
        if cache == "auto" or placed.gpu.compute_capability >= FP8_CACHE_FROM:
            yield replace(placed, max_model_len=length, gpu_memory_utilization=utilization, kv_cache_dtype=cache)


def place(
    template: ServiceRequest,
    catalogue: Catalogue,
    instance_name: str,
    instance: Instance,
    gpus: int,
    engine_name: str,
    engine: Engine,
    goal: Goal,
) -> ServiceRequest:
    """The template on `gpus` GPUs of an instance type, with an engine."""
    assert instance.gpu is not None
    return replace(
        template,
        gpu_name=instance.gpu,
        gpu=catalogue.gpus[instance.gpu],
        gpus=gpus,
        instance_name=instance_name,
        instance=instance,
        engine_name=engine_name,
        engine=engine,
        image=engine.images[PLATFORM].reference,
        max_model_len=goal.contexts(0)[-1],
        workload=goal.workload,
    )


def _cheaper(one: Choice, other: Choice) -> bool:
    return one.order < other.order


def _nearer(one: Choice, other: Choice) -> bool:
    return (len(one.breaks), one.excess) < (len(other.breaks), other.excess)


def parse_slo(text: str) -> dict[str, float]:
    """`tpot=60,ttft=1500` in milliseconds. Raises PlanError for anything else."""
    limits: dict[str, float] = {}
    for part in filter(None, (each.strip() for each in text.split(","))):
        name, _, value = part.partition("=")
        try:
            limits[name] = float(value)
        except ValueError:
            limits[name] = 0.0
        if name not in ("tpot", "ttft") or not 0 < limits[name] < float("inf"):
            raise PlanError(f"--slo {text!r}: write milliseconds such as tpot=60,ttft=1500")
    return limits
