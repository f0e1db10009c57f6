"""Shape of the catalogue's records, checked by pydantic when the files are read. Every number names its source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

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

    experts, experts_per_token: of a mixture-of-experts layer (0: dense; `intermediate` is then one expert's); dense_layers:
    how many of the layers are dense all the same; gated: whether the MLP has gate and up (SwiGLU) or one up matrix.
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


class Quantization(Record):
    """How the linear layers are stored. `scheme` none means as the rest of the checkpoint."""

    method: str = "none"
    scheme: Literal["none", "fp8", "int8", "int4"] = "none"
    group_size: int = 0
    quantized_head: bool = False


class Variant(Record):
    """One checkpoint of a model."""

    repository: str
    also: tuple[str, ...] = ()
    quantization: Quantization
    listed_gb: float | None = None
    largest_file_gb: float


class Model(Record):
    """An architecture and its checkpoints."""

    architecture: Architecture
    variants: Mapping[VariantName, Variant]


class Gpu(Record):
    """A GPU as a process sees it. See data/gpus.yaml for units."""

    name: str
    visible_gib: float = Field(gt=0)
    bandwidth_gbs: float = Field(gt=0)
    tflops: Mapping[Literal["fp16", "bf16", "fp8"], float]
    compute_capability: float
    link_gbs: float = Field(gt=0)
    offload_gbs: tuple[float, float]
    all_reduce_gbs: float | None = None
    all_reduce_us: float = Field(ge=0)


class Instance(Record):
    """An EC2 instance type. See data/instances.yaml for units."""

    gpu: str | None = None
    gpus: int = 0
    vcpus: int = Field(gt=0)
    memory_gib: float = Field(gt=0)
    nvme_gb: float = 0
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


class Engine(Record):
    """An engine version. See data/engines.yaml for units and meanings."""

    version: str
    default_gpu_memory_utilization: float
    max_num_batched_tokens: tuple[int, int]
    max_num_seqs: tuple[int, int]
    large_card_gib: float
    graphs_in_budget: bool
    graphs_gib: float
    sampler_bytes_per_logit: float
    non_torch_gib: float
    non_torch_tp_gib: float
    context_gib: float
    context_tp_gib: float
    host_ms_per_step: float
    cpu_offload: Literal["works", "ignored"]
    cpu_offload_source: str
    online_fp8_peak: Literal["unquantized", "quantized"]
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
    root_volume_gb: float


class Reserved(Record):
    """What a node keeps from pods: a share of the nominal memory, a fixed part, a part per pod, and its DaemonSets."""

    memory_share: float
    memory_mib: float
    memory_mib_per_pod: float
    cpu: float | None = None
    daemonset_cpu: float
    daemonset_memory_mib: float


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
    engines: Mapping[str, Engine]
    prices: Mapping[str, RegionPrices]
    regions: tuple[str, ...]
    system_nodes: SystemNodes
    rates: Rates
    reserved: Mapping[str, Reserved]
    host: Host
    calibration: Calibration
