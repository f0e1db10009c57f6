"""The plan asked backwards: which is the cheapest way to serve a model within limits of speed, money and accuracy?

    found = search(Goal(users=10, tpot_ms=60), sources_of(...), catalogue)

Searched are variants x instance types x tensor parallelism x engines x utilizations x KV cache formats x contexts (the usual one,
and the shortest that the requests need). Each is planned forwards, by the same code. A choice meets the goal if all users run at
once and none waits for another's whole answer. Of choices with one checkpoint on as many GPUs of a kind only those are kept that
nothing betters: a larger instance, or another engine, that does the same is no choice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
UNQUANTIZED = 100.0  # accuracy in %, by definition


@dataclass(frozen=True)
class Precision:
    """How exact a choice is. accuracy: of its weights, in % of the unquantized model, None where no model card gives it."""

    variant: str
    accuracy: float | None
    fp8_cache: bool

    @property
    def known(self) -> float | None:
        """In %, None if unknown: no model card says what an FP8 KV cache costs."""
        return None if self.fp8_cache else self.accuracy

    @property
    def words(self) -> str:
        return f"that of {self.variant}{' with an FP8 KV cache' if self.fp8_cache else ''}"

    def reaches(self, floor: Precision) -> bool:
        """Whether it is as exact as another: the same weights or better ones by their cards, and a cache that is no smaller."""
        known = self.accuracy is not None and floor.accuracy is not None and self.accuracy >= floor.accuracy
        better = known or self.accuracy == UNQUANTIZED
        return (self.variant == floor.variant or better) and (floor.fp8_cache or not self.fp8_cache)


@dataclass(frozen=True)
class Goal:
    """What a choice must do, None for no limit. tpot_ms, ttft_ms: at `users`; usd_per_hour: at most; accuracy: in % at least, 0 for
    any, known or not.

    floor: what it must be as exact as; gpus, engines: kinds that may be taken, () for all of the catalogue; context: tokens that a
    request must be able to have.
    """

    users: int = 10
    tpot_ms: float | None = None
    ttft_ms: float | None = None
    usd_per_hour: float | None = None
    accuracy: float | None = None
    floor: Precision | None = None
    prompt_tokens: int = 256
    output_tokens: int = 256
    context: int = 0
    gpus: tuple[str, ...] = ()
    engines: tuple[str, ...] = ()
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
    """One checkpoint that the search may take. request: a template whose place and settings are filled in.

    accuracy: of its weights, in %, None if unknown; today: whether the request is whole, as it is served now.
    """

    request: ServiceRequest
    accuracy: float | None
    today: bool = False


@dataclass(frozen=True)
class Choice:
    """One way to serve the model. usd_per_hour: of the whole instance; breaks: limits that it breaks, with both figures.

    excess: by what share it exceeds the limit that it breaks most; pinned: whether a stack runs this engine unless told otherwise.
    """

    request: ServiceRequest
    point: LoadPoint
    usd_per_hour: float
    kv_tokens: int
    minutes_to_ready: float
    precision: Precision
    breaks: tuple[str, ...] = ()
    excess: float = 0.0
    offload_gib: float = 0.0
    today: bool = False
    pinned: bool = True

    @property
    def order(self) -> tuple[float, bool, float, float]:
        """Cheapest first; of one price the one on the engine that stacks run, then what yields more tokens, then the faster."""
        return self.usd_per_hour, not self.pinned, -self.point.output_tokens_per_s, self.point.tpot_ms

    @property
    def shape(self) -> tuple[str, str, int]:
        """What it is, whatever the instance, the engine and the settings."""
        return self.request.variant, self.request.gpu_name, self.request.gpus

    def betters(self, other: Choice) -> bool:
        """Whether nobody who has this one would take the other: dearer, or no better in anything."""
        mine, yours = (
            (
                each.usd_per_hour,
                each.point.tpot_ms,
                each.point.ttft_ms,
                -each.point.output_tokens_per_s,
                -(each.precision.known or 0.0),
            )
            for each in (self, other)
        )
        return self.shape == other.shape and all(here <= there for here, there in zip(mine, yours, strict=True))


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
    best: dict[tuple[str, str, int, str, bool], Choice] = {}
    missed: dict[tuple[str, str, int, str], Choice] = {}
    today: list[Choice] = []
    for source, request in _candidates(goal, sources, catalogue):
        choice = weigh(request, goal, source.accuracy, catalogue)
        if choice is None:
            continue
        if source.today and not choice.breaks:
            today.append(replace(choice, today=True))
        elif choice.breaks:
            at = (*choice.shape, choice.breaks[0].partition(" ")[0])
            if at not in missed or _nearer(choice, missed[at]):
                missed[at] = choice
        else:
            key = (request.variant, str(request.instance_name), request.gpus, request.engine_name, choice.precision.fp8_cache)
            if key not in best or choice.order < best[key].order:
                best[key] = choice
    kept = _unbettered([*today, *sorted(best.values(), key=lambda choice: choice.order)])
    shapes = {choice.shape for choice in kept}
    near = [choice for choice in missed.values() if choice.shape not in shapes and len(choice.breaks) == 1]
    near.sort(key=lambda choice: (choice.excess, choice.order))
    cheapest = sorted(kept, key=lambda choice: choice.order)
    return Found(goal, tuple(_with_today(cheapest)), tuple(near[:NEAR_MISSES]))


def _unbettered(choices: Sequence[Choice]) -> list[Choice]:
    """Those that no other betters; the first of equals. What is served today is always kept."""
    kept: list[Choice] = []
    for choice in choices:
        if choice.today or not any(each.betters(choice) for each in kept):
            kept = [each for each in kept if each.today or not choice.betters(each)]
            kept.append(choice)
    return kept


def _with_today(cheapest: list[Choice]) -> list[Choice]:
    """The cheapest ten, and what is served today if it is dearer."""
    return cheapest[:CHOICES] + [choice for choice in cheapest[CHOICES:] if choice.today]


def weigh(request: ServiceRequest, goal: Goal, accuracy: float | None, catalogue: Catalogue) -> Choice | None:
    """What one configuration is worth; None if it does not load or has no price."""
    assert request.instance is not None
    price = request.instance.usd_per_hour.get(goal.region)
    if price is None:
        return None
    verdict = judge(request, catalogue, catalogue.reserved[PLATFORM])
    if not verdict.loads:
        return None
    speed = Speed(request, catalogue.calibration, verdict.offload_gib)
    point = speed.at(goal.users, price)
    image = request.engine.images[PLATFORM]
    precision = Precision(request.variant, accuracy, request.cache_dtype.startswith("fp8"))
    seed = seed_minutes({"": request.file_weights.total_bytes}, catalogue.rates.hub_mbs)[""]
    download = downloader(()).cores * catalogue.rates.download_core_mbs
    moves = Moves(catalogue.rates.local_disk_mbs, download, seed)
    ready = readiness(request, catalogue, image.unpacked_gb, moves)
    broken = dict(_broken(goal, point, price, precision, speed.concurrent(goal.users)))
    return Choice(
        request,
        point,
        price,
        reported_tokens(request, speed.memory_use),
        ready.total,
        precision,
        tuple(broken),
        max(broken.values(), default=0.0),
        verdict.offload_gib,
        pinned=request.engine_name == catalogue.default_engine,
    )


def _broken(goal: Goal, point: LoadPoint, price: float, precision: Precision, running: int) -> Iterator[tuple[str, float]]:
    """(the limit in words, by what share it is exceeded)."""
    if running < goal.users:
        yield f"only {running} of {goal.users} users run at once", goal.users / running - 1
    limits: Mapping[str, tuple[float, float | None, str, int]] = {
        "TPOT": (point.tpot_ms, goal.tpot_ms, "{} ms", 0),
        "TTFT": (point.ttft_ms, goal.ttft_ms, "{} ms", 0),
        "price": (price, goal.usd_per_hour, "${}/h", 2),
    }
    for name, (value, limit, form, digits) in limits.items():
        if limit is not None and value > limit:
            more, most = (form.format(text) for text in apart(value, limit, digits))
            yield f"{name} {more}, at most {most} asked for", value / limit - 1
    accuracy = precision.known
    if goal.accuracy and (accuracy is None or accuracy < goal.accuracy):
        if accuracy is None:
            yield f"accuracy unknown, at least {goal.accuracy:g} % asked for", 1.0
        else:
            less, least = apart(accuracy, goal.accuracy, 1)
            yield f"accuracy {less} %, at least {least} % asked for", goal.accuracy / accuracy - 1
    if goal.floor and not precision.reaches(goal.floor):
        today = goal.floor.words if goal.floor.known is None else f"{goal.floor.known:.1f} %"
        if accuracy is None or goal.floor.known is None:
            yield f"accuracy unknown, today's is {today}", 0.5
        else:
            yield f"accuracy {accuracy:.1f} %, today's is {today}", goal.floor.known / accuracy - 1


def _candidates(goal: Goal, sources: tuple[Source, ...], catalogue: Catalogue) -> Iterator[tuple[Source, ServiceRequest]]:
    engines = {name: engine for name, engine in catalogue.engines.items() if PLATFORM in engine.images}
    engines = {name: engine for name, engine in engines.items() if not goal.engines or name in goal.engines}
    for source in sources:
        if source.today:
            yield source, source.request
            continue
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


def _nearer(one: Choice, other: Choice) -> bool:
    return (len(one.breaks), one.excess, one.order) < (len(other.breaks), other.excess, other.order)


def apart(one: float, other: float, digits: int) -> tuple[str, str]:
    """Both figures with as many digits as it takes to tell them apart, and `digits` at least: 61.2 and 61.0, never 61 and 61."""
    for more in range(digits, digits + 6):
        texts = f"{one:.{more}f}", f"{other:.{more}f}"
        if texts[0] != texts[1]:
            break
    return texts


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
