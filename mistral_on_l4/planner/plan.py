"""The planner's answer: what a stack needs, how fast it will be and what it costs.

    from mistral_on_l4.planner import plan_stack
    plan = plan_stack(settings, stack="dev")        # StackPlan; PlanError: unknown model, GPU, instance, region
    for line in plan.misfits: ...                   # error text, one per service that cannot load, with remedies
    service = plan.service("mistral-24b-fp8")       # ServicePlan

Units: GiB = 2**30 bytes, GB = 10**9; times in milliseconds, unless a name says otherwise; money in US dollars. Everything here is
plain frozen data; `mistral_on_l4.planner.document` turns it into the JSON document.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

GIB = 2**30


class PlanError(Exception):
    """The request names something that the planner does not know, or that contradicts itself. One line, for people."""


class NotComputed(PlanError):
    """The planner has no rule for the checkpoint, and does not guess. weights_bytes: what is known all the same, 0 if nothing is.

    str() is `SOURCE: not computed: WHY`, one line.
    """

    def __init__(self, source: str, why: str, weights_bytes: int = 0) -> None:
        self.source, self.why, self.weights_bytes = source, why, weights_bytes
        known = f"; its weights are {weights_bytes / GIB:.2f} GiB" if weights_bytes else ""
        super().__init__(f"{source}: not computed: {why}{known}")

    def with_weights(self, weights_bytes: int) -> NotComputed:
        return NotComputed(self.source, self.why, weights_bytes)


@dataclass(frozen=True)
class MemoryUse:
    """Where the memory of one GPU goes, in GiB. `resident_weights_gib` is what stays on the GPU after offloading.

    visible_gib: what the process sees of the card; budget_gib: visible x gpu_memory_utilization; reserve_gib: activations and
    sampler at their peak, plus what NCCL and the kernels take outside torch; graphs_gib: CUDA graphs (inside or outside the
    budget, by engine); kv_gib: what is left for the KV cache, below zero if the weights alone are too large.
    """

    visible_gib: float
    budget_gib: float
    weights_gib: float
    resident_weights_gib: float
    activation_gib: float
    non_torch_gib: float
    graphs_gib: float
    kv_gib: float
    kv_bytes_per_token: int

    @property
    def reserve_gib(self) -> float:
        return self.activation_gib + self.non_torch_gib


@dataclass(frozen=True)
class LoadPoint:
    """Prediction for a number of concurrent users that each wait for an answer and then ask again.

    tpot_ms: time per output token; ttft_ms: time to first token of the unluckiest of one wave of requests (comparable with a
    measured p95); output_tokens_per_s: of the service, all users together; usd_per_million_output_tokens: None without a price.
    """

    users: int
    tpot_ms: float
    ttft_ms: float
    output_tokens_per_s: float
    usd_per_million_output_tokens: float | None


@dataclass(frozen=True)
class Offload:
    """Weights that stay in the node's memory and cross the PCIe link in every step.

    gib_per_gpu goes to --cpu-offload-gb; step_ms is the range that this adds to every step and tpot_ms the range of the whole
    (one user), over the link rates that the catalogue holds for plausible: it was never measured on the card.
    """

    gib_per_gpu: float
    step_ms: tuple[float, float]
    tpot_ms: tuple[float, float]
    unmeasured: bool = True


@dataclass(frozen=True)
class PodResources:
    """Kubernetes resources of the model container. shm_size is the size limit of the Memory emptyDir at /dev/shm."""

    requests: Mapping[str, str]
    limits: Mapping[str, str]
    shm_size: str


@dataclass(frozen=True)
class Remedy:
    """A change that makes a service load. usd_per_hour is None where the region has no known price."""

    change: str
    fits: bool
    tpot_ms: float
    usd_per_hour: float | None
    weights_gib_per_gpu: float
    unmeasured: bool = False


@dataclass(frozen=True)
class Readiness:
    """Minutes from `up` to ready, by phase; phases that run beside each other are already laid over each other in total."""

    node: float
    image_pull: float
    seed: float
    download: float
    load: float
    total: float


@dataclass(frozen=True)
class ServicePlan:
    """One service. `checkpoint` is the hub's repository id; `gpus` are per replica; `instance` is what it was priced on, if any.

    fits: whether it loads with every weight on the GPU; fits_with_offload: the same with cpu_offload_gib in the node's memory,
    None if no offload was asked for; reason: one line, why it does not fit or what limits it. args: vLLM's arguments after
    those of the runtime, --cpu-offload-gb included. startup_seconds: predicted load time x 2, for the startup probe;
    minutes_to_ready: from `up`. tpot_ms and ttft_ms of one user are `service.at(1)`.
    """

    name: str
    model: str
    variant: str
    checkpoint: str
    gpu: str
    gpus: int
    instance: str | None
    engine: str
    image: str
    fits: bool
    fits_with_offload: bool | None
    reason: str
    memory: MemoryUse
    kv_tokens: int
    max_model_len: int
    offload: Offload | None
    points: tuple[LoadPoint, ...]
    usd_per_hour: float | None
    readiness: Readiness
    args: tuple[str, ...]
    pod: PodResources | None
    remedies: tuple[Remedy, ...]
    warnings: tuple[str, ...] = ()

    @property
    def loads(self) -> bool:
        return self.fits or bool(self.fits_with_offload)

    @property
    def cpu_offload_gib(self) -> float:
        return self.offload.gib_per_gpu if self.offload else 0.0

    @property
    def minutes_to_ready(self) -> float:
        return self.readiness.total

    @property
    def ready_seconds(self) -> int:
        """Timeout for becoming ready once weights, node and registration are there: predicted x 2."""
        return int(2 * 60 * (self.readiness.image_pull + self.readiness.download + self.readiness.load))

    @property
    def startup_seconds(self) -> int:
        """How long the model may load and compile before its pod is restarted: predicted x 2."""
        return int(2 * 60 * self.readiness.load)

    def at(self, users: int) -> LoadPoint:
        """The prediction for a number of users; raises KeyError if it was not planned."""
        for point in self.points:
            if point.users == users:
                return point
        raise KeyError(users)


@dataclass(frozen=True)
class CostLine:
    """One thing that bills by the hour. usd_per_hour is None where the catalogue knows no price for the region."""

    what: str
    count: float
    usd_per_hour: float | None


@dataclass(frozen=True)
class StackPlan:
    """A whole stack. `pools` bill per GPU node, `fixed` whether or not a GPU runs; `up` bills once per `pulumi up`."""

    stack: str
    platform: str
    region: str
    services: tuple[ServicePlan, ...]
    pools: tuple[CostLine, ...]
    fixed: tuple[CostLine, ...]
    up: tuple[CostLine, ...]
    notes: tuple[str, ...] = ()

    @property
    def fixed_usd_per_hour(self) -> float | None:
        return _total(self.fixed)

    @property
    def usd_per_hour(self) -> float | None:
        """Everything that bills by the hour, GPU nodes included; None if a price is unknown."""
        return _total((*self.pools, *self.fixed))

    @property
    def usd_per_up(self) -> float | None:
        return _total(self.up)

    @property
    def misfits(self) -> tuple[str, ...]:
        """Refusal text of every service that cannot load: what, why, and on a second line the remedies."""
        return tuple(refusal(service) for service in self.services if not service.loads)

    def service(self, name: str) -> ServicePlan:
        """The plan of one service; raises KeyError."""
        for service in self.services:
            if service.name == name:
                return service
        raise KeyError(name)


def refusal(service: ServicePlan) -> str:
    """`NAME does not fit 1x L4: ...` and its remedies, as the preview prints it."""
    text = f"{service.name} does not fit {service.gpus}x {service.gpu}: {service.reason}"
    if service.remedies:
        text += "\n  remedies: " + remedies_text(service)
    return text


def remedies_text(service: ServicePlan) -> str:
    """Every remedy with its weights per GPU, speed for one user and price, in one line."""
    return " | ".join(_remedy(remedy) for remedy in service.remedies)


def _remedy(remedy: Remedy) -> str:
    price = "price unknown" if remedy.usd_per_hour is None else f"${remedy.usd_per_hour:.2f}/h"
    speed = f"~{remedy.tpot_ms:.0f} ms/token" + (", unmeasured" if remedy.unmeasured else "")
    return f"{remedy.change} ({remedy.weights_gib_per_gpu:.2f} GiB, {speed}, {price})"


def _total(lines: tuple[CostLine, ...]) -> float | None:
    prices = [line.usd_per_hour for line in lines]
    return None if None in prices else sum(price for price in prices if price is not None)
