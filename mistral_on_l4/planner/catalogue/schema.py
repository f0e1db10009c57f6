"""Shape of the catalogue's records, checked by pydantic when the files are read. Every number names its source."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from difflib import get_close_matches
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from mistral_on_l4.planner.plan import PlanError

T = TypeVar("T")

VariantName = Literal["bf16", "fp8", "w4a16"]


class Source(BaseModel):
    """Where numbers come from, and when that was looked at."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    title: str
    url: str
    date: date
    kind: Literal["read", "computed", "measured", "specification", "estimate"]


class Record(BaseModel):
    """A frozen record whose numbers each have a source: of its own, or of the table that it stands in."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    sources: Mapping[str, str] = Field(default_factory=dict)

    def numbers(self) -> Iterator[str]:
        """Names of the fields that were given and hold a number, or a container of numbers."""
        for name in self.model_fields_set - {"sources"}:
            if _is_numeric(getattr(self, name)):
                yield name


def _is_numeric(value: Any) -> bool:
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, tuple):
        return bool(value) and _is_numeric(value[0])
    return isinstance(value, (int, float)) and not isinstance(value, bool)


class Architecture(BaseModel):
    """What a forward pass needs to know of a decoder-only transformer. Counts, except `tied_embeddings`.

    experts, experts_per_token: of a mixture-of-experts layer (0: dense; `intermediate` is then one expert's); dense_layers,
    dense_intermediate: how many of a mixture's layers are dense all the same, and their width; gated: whether the MLP has gate
    and up (SwiGLU) or one up matrix; sliding_layers, sliding_window: how many layers attend over how many last tokens only;
    attention_bias: of query, key and value; biases: of all matrices; layer_norms: per layer; embedded_positions: rows of a learned
    position embedding; vision_parameters: of the vision tower and its projector; float16: whether vLLM serves the family in it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    family: str
    layers: int = Field(gt=0)
    hidden: int = Field(gt=0)
    heads: int = Field(gt=0)
    kv_heads: int = Field(gt=0)
    head_dim: int = Field(gt=0)
    intermediate: int = Field(gt=0)
    vocabulary: int = Field(gt=0)
    max_positions: int = Field(gt=0)
    tied_embeddings: bool = False
    attention_bias: bool = False
    gated: bool = True
    experts: int = Field(default=0, ge=0)
    experts_per_token: int = Field(default=0, ge=0)
    shared_intermediate: int = Field(default=0, ge=0)
    dense_layers: int = Field(default=0, ge=0)
    dense_intermediate: int = Field(default=0, ge=0)
    sliding_layers: int = Field(default=0, ge=0)
    sliding_window: int = Field(default=0, ge=0)
    biases: bool = False
    layer_norms: int = Field(default=2, ge=0)
    embedded_positions: int = Field(default=0, ge=0)
    vision_parameters: int = Field(default=0, ge=0)
    float16: bool = True
    model_type: str = ""

    @property
    def dimensions(self) -> tuple[int, ...]:
        """Every number that the size of a checkpoint depends on, for use as a key."""
        return (
            self.layers,
            self.hidden,
            self.heads,
            self.kv_heads,
            self.head_dim,
            self.intermediate,
            self.vocabulary,
            self.tied_embeddings,
            self.attention_bias,
            self.gated,
            self.experts,
            self.experts_per_token,
            self.shared_intermediate,
            self.dense_layers,
            self.dense_intermediate,
            self.biases,
            self.layer_norms,
            self.embedded_positions,
            self.vision_parameters,
        )


class Quantization(Record):
    """How the linear layers are stored. `scheme` none means as the rest of the checkpoint; weight_only: multiplied in 16 bits.

    group_size: columns of a row that share a scale; block_size: rows and columns that do; experts_only: routed experts alone are
    quantized; partly: some matrices of decoder layers are not; kv_cache: what the checkpoint says its KV cache is in, else "";
    zeros: whether each group has a zero point; act_order: GPTQ's columns are in another order than the groups.
    """

    method: str = "none"
    scheme: Literal["none", "fp8", "int8", "int4", "mxfp4", "nvfp4"] = "none"
    weight_only: bool = False
    group_size: int = 0
    quantized_head: bool = False
    block_size: tuple[int, int] | None = None
    experts_only: bool = False
    partly: bool = False
    kv_cache: str = ""
    zeros: bool = False
    act_order: bool = False


class Variant(Record):
    """One checkpoint of a model."""

    repository: str
    also: tuple[str, ...] = ()
    quantization: Quantization
    listed_gb: float | None = None
    accuracy: float | None = None
    largest_file_gb: float


class Model(Record):
    """An architecture and its checkpoints. title: as people call it; license: by its SPDX identifier. Both may be unknown."""

    title: str | None = None
    license: str | None = None
    architecture: Architecture
    variants: Mapping[VariantName, Variant]

    def numbers(self) -> Iterator[str]:
        """A licence is a claim like a number: it needs a source."""
        yield from super().numbers()
        if self.license is not None:
            yield "license"


class Gpu(Record):
    """A GPU as a process sees it. See data/gpus.yaml for units."""

    name: str
    visible_gib: float = Field(gt=0)
    bandwidth_gbs: float = Field(gt=0)
    tflops: Mapping[Literal["fp16", "bf16", "fp8"], float]
    compute_capability: float
    link_gbs: float = Field(gt=0)
    offload_gbs: tuple[float, float]
    nvlink: bool = False
    all_reduce_gbs: Mapping[int, float] = Field(default_factory=dict)
    all_reduce_us: float = Field(ge=0)
    prefill_share: float | None = Field(default=None, gt=0, le=1)


class Instance(Record):
    """An EC2 instance type. See data/instances.yaml for units."""

    gpu: str | None = None
    gpus: int = 0
    vcpus: int = Field(gt=0)
    memory_gib: int = Field(gt=0)
    nvme_gb: int = 0
    network_gbits: float = Field(gt=0)
    ebs_mbs: tuple[float, float] | None = None
    max_pods: int = Field(gt=0)
    usd_per_hour: Mapping[str, float]


class EngineImage(Record):
    """The image that a platform pins. driver: lowest and highest major version of the NVIDIA driver; 0: no upper limit."""

    reference: str
    cuda: float
    driver: tuple[int, int]
    unpacked_gb: float


class Advisory(Record):
    """A published security advisory, and the first version without the fault."""

    id: str
    fixed_in: str


class Kernel(Record):
    """Which kernel multiplies a format on a range of cards. See data/engines.yaml."""

    formats: tuple[str, ...]
    capability: tuple[float, float]
    kernel: str
    native: bool
    prefill_share: float = Field(default=1.0, gt=0, le=1.5)
    decode_share: float = Field(default=1.0, gt=0, le=1.5)


class Engine(Record):
    """An engine version. See data/engines.yaml for units and meanings."""

    version: str
    default_gpu_memory_utilization: float
    max_num_batched_tokens: tuple[int, int]
    max_num_seqs: tuple[int, int]
    large_card_gib: float
    graphs_in_budget: bool
    graphs_gib: float
    graph_mib: float = 0.0
    mixture_graphs_gib_per_layer: float = 0.0
    mxfp4_compiled_gib: float = 0.0
    flashinfer_gib: float = 0.0
    flashinfer_graph_mib: float = 0.0
    flashinfer_for_fp8_cache: bool = False
    nccl_outside_gib: float = 0.0
    sampler_bytes_per_logit: float
    non_torch_gib: float
    non_torch_tp_gib: float
    context_gib: float
    context_tp_gib: float
    context_pair_gib: float
    host_ms_per_step: float
    cpu_offload: Literal["works", "ignored"]
    cpu_offload_source: str
    cpu_offload_repacked: Literal["works", "lost"]
    online_fp8_peak: Literal["unquantized", "quantized"]
    weight_only_capability: float
    modelopt_capability: float
    nvfp4_capability: float
    mxfp4_capability: float
    kv_from_checkpoint: bool
    kv_size_by_request: bool
    steps_in_flight: int
    marlin_pads: bool = False
    expert_blocks_refined_from: float | None = None
    gptq_act_order: bool = True
    kernels: tuple[Kernel, ...] = ()
    fixed_until: str
    advisories: tuple[Advisory, ...] = ()
    images: Mapping[str, EngineImage]


class RegionPrices(Record):
    """What bills beside instances, in one region."""

    eks_usd_per_hour: float
    nat_usd_per_hour: float
    nat_usd_per_gb: float
    cross_zone_usd_per_gb: float
    public_ipv4_usd_per_hour: float
    gp3_usd_per_gb_month: float
    gp3_usd_per_mbs_month: float
    gp3_usd_per_iops_month: float


class SystemNodes(Record):
    """The nodes that carry everything but models."""

    instance: str
    count: int


class Rates(Record):
    """How fast things move; node_minutes and start_minutes are the parts that no bandwidth explains."""

    node_minutes: float
    image_gbs: float
    hub_mbs: float
    start_minutes: float
    local_disk_mbs: float
    download_core_mbs: float
    root_volume_gb: float


class Reserved(Record):
    """What a node keeps from pods: a share of the nominal memory, a fixed part, a part per pod, and its DaemonSets."""

    memory_share: float
    memory_mib: float
    memory_mib_per_pod: float
    cpu: float | None = None
    daemonset_cpu: float
    daemonset_memory_mib: float


class LocalMinutes(Record):
    """What to allow the embedded cluster, in minutes by phase: its nodes are simulated, its checkpoints small.

    load_vllm: where vLLM itself runs on the CPU in place of its simulation.
    """

    node: float
    seed: float
    download: float
    load: float
    load_vllm: float


class Host(Record):
    """Host memory of an engine, in GiB: once, per worker, and /dev/shm without and with tensor parallelism."""

    process_gib: float
    worker_gib: float
    shm_gib: float
    shm_tp_gib: float


class Calibration(Record):
    """The only fitted numbers. Shares between 0 and 1."""

    bandwidth_efficiency: float = Field(gt=0, le=1)
    compute_efficiency: float = Field(gt=0, le=1)
    fabric_efficiency: float = Field(gt=0, le=1)


class Catalogue(BaseModel):
    """All of it. Built by `load_catalogue`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    sources: Mapping[str, Source]
    models: Mapping[str, Model]
    gpus: Mapping[str, Gpu]
    instances: Mapping[str, Instance]
    default_engine: str
    platform_engines: Mapping[str, str]
    engines: Mapping[str, Engine]
    prices: Mapping[str, RegionPrices]
    regions: tuple[str, ...]
    system_nodes: SystemNodes
    rates: Rates
    reserved: Mapping[str, Reserved]
    local_minutes: LocalMinutes
    host: Host
    calibration: Calibration

    def model(self, name: str) -> Model:
        """The model of a name. Raises PlanError that offers the nearest names, as the others here do."""
        return _look_up("model", name, self.models)

    def gpu(self, name: str) -> Gpu:
        return _look_up("GPU", name, self.gpus)

    def instance(self, name: str) -> Instance:
        return _look_up("instance type", name, self.instances)

    def engine(self, name: str) -> Engine:
        return _look_up("engine", name, self.engines)

    def engine_of(self, platform: str) -> str:
        """The engine that a platform runs unless another is asked for."""
        return self.platform_engines.get(platform, self.default_engine)

    def known_region(self, name: str) -> str:
        if name not in self.regions:
            raise PlanError(unknown("region", name, self.regions))
        return name

    def checkpoint(self, repository: str) -> tuple[str, VariantName] | None:
        """(model, variant) of a repository on the hub, in any case of letters; None if it is not in the catalogue."""
        wanted = repository.lower()
        for name, model in self.models.items():
            for variant, checkpoint in model.variants.items():
                if wanted in (checkpoint.repository.lower(), *(other.lower() for other in checkpoint.also)):
                    return name, variant
        return None


def _look_up(kind: str, name: str, table: Mapping[str, T]) -> T:
    found = table.get(name)
    if found is None:
        raise PlanError(unknown(kind, name, table))
    return found


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """`unknown GPU 'L5': did you mean L4 or T4?`, or all names where none is near."""
    names = sorted(known)
    lowered = {each.lower(): each for each in names}
    near = [lowered[each] for each in get_close_matches(name.lower(), lowered, n=3, cutoff=0.5)]
    if near:
        return f"unknown {kind} {name!r}: did you mean {' or '.join(near)}?"
    return f"unknown {kind} {name!r}: the catalogue knows {', '.join(names)}"
