"""What a service needs of its node, and how long it takes to get there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor

from mistral_on_l4.config.local_engine import LocalEngine
from mistral_on_l4.planner.catalogue.schema import Catalogue, Instance, Reserved
from mistral_on_l4.planner.plan import GIB, PodResources, Readiness
from mistral_on_l4.planner.request import ServiceRequest

# CPU that EKS's nodeadm keeps for the kubelet: shares of the first, the second, the next two and all further cores.
_KUBELET_CPU = ((1, 0.06), (1, 0.01), (2, 0.005))
_KUBELET_CPU_REST = 0.0025
# Configuration, tokenizer and the engine's caches beside the weights, on the node's disk.
_DISK_SLACK_GIB = 6
# KServe downloads four files at a time, each in a process of its own (S3_MAX_FILE_CONCURRENCY of its storage initializer, v0.20),
# which Python holds to one core; a GiB for each is several times what one takes.
_DOWNLOADS = 4


@dataclass(frozen=True)
class Room:
    """What a node of an instance type leaves for models: cores and GiB after kubelet, system and DaemonSets."""

    cpu: float
    memory_gib: float


def room_of(instance: Instance, reserved: Reserved) -> Room:
    """Allocatable less DaemonSets, estimated from the nominal size (Karpenter's share for what the hypervisor takes)."""
    if reserved.cpu is not None:
        kept = reserved.cpu
    else:
        left, kept = instance.vcpus, 0.0
        for cores, share in _KUBELET_CPU:
            kept += min(left, cores) * share
            left = max(0, left - cores)
        kept += left * _KUBELET_CPU_REST
    memory = instance.memory_gib * (1 - reserved.memory_share) * 1024
    memory -= reserved.memory_mib + reserved.memory_mib_per_pod * instance.max_pods + reserved.daemonset_memory_mib
    return Room(instance.vcpus - kept - reserved.daemonset_cpu, memory / 1024)


def pod_memory_gib(request: ServiceRequest, catalogue: Catalogue, offload_gib: float) -> float:
    """Host memory of one replica: processes, pinned weights, /dev/shm, and one file of the checkpoint while it is read."""
    host = catalogue.host
    loader = request.largest_file_gb * 1e9 / GIB
    return host.process_gib + host.worker_gib * request.gpus + _shm_gib(request, catalogue) + offload_gib * request.gpus + loader


def _shm_gib(request: ServiceRequest, catalogue: Catalogue) -> float:
    return catalogue.host.shm_tp_gib if request.gpus > 1 else catalogue.host.shm_gib


def node_shortage(request: ServiceRequest, catalogue: Catalogue, reserved: Reserved, offload_gib: float) -> str | None:
    """Why no node of the instance type can hold the pod; None if one can, or if the instance is not known."""
    instance = request.instance
    if instance is None:
        return None
    if instance.gpus < request.gpus:
        return f"{request.instance_name} has {instance.gpus}x {instance.gpu}, tensorParallelSize is {request.gpus}"
    share = request.gpus / instance.gpus
    room, needed = room_of(instance, reserved), pod_memory_gib(request, catalogue, offload_gib)
    if needed > room.memory_gib * share:
        pinned = f", {offload_gib * request.gpus:.1f} of it pinned weights" if offload_gib else ""
        return (
            f"the pod needs {needed:.1f} GiB of node memory{pinned}, {request.instance_name} leaves "
            f"{room.memory_gib * share:.1f} GiB for {request.gpus} of its GPUs: take a larger instance type"
        )
    if room.cpu * share < 1 + request.gpus:
        return f"the pod needs {1 + request.gpus} cores, {request.instance_name} leaves {room.cpu * share:.1f}"
    return None


def pod_resources(request: ServiceRequest, catalogue: Catalogue, reserved: Reserved, offload_gib: float) -> PodResources | None:
    """Requests: what the service needs. Limits: its share, by GPUs, of what the node leaves. None without an instance type."""
    instance = request.instance
    if instance is None or not instance.gpus:
        return None
    share = min(1.0, request.gpus / instance.gpus)
    room = room_of(instance, reserved)
    memory = ceil(pod_memory_gib(request, catalogue, offload_gib))
    cores = max(1, floor(room.cpu * share))
    gpu = str(request.gpus)
    disk = ceil(request.file_weights.total_bytes / GIB) + _DISK_SLACK_GIB
    return PodResources(
        requests={
            "cpu": str(min(cores, 2 + 2 * request.gpus)),
            "memory": f"{memory}Gi",
            "ephemeral-storage": f"{disk}Gi",
            "nvidia.com/gpu": gpu,
        },
        limits={"cpu": str(cores), "memory": f"{max(memory, floor(room.memory_gib * share))}Gi", "nvidia.com/gpu": gpu},
        shm_size=f"{_shm_gib(request, catalogue):.0f}Gi",
    )


@dataclass(frozen=True)
class Downloader:
    """Size of the container that downloads a checkpoint into a service's pod: KServe's, one for all services of a cluster."""

    cores: int
    memory_gib: int


def downloader(pods: Sequence[PodResources]) -> Downloader:
    """As much as downloads can use of what every service's own container asks for: it runs before that one, so it costs nothing."""
    cores = min((int(pod.requests["cpu"]) for pod in pods), default=_DOWNLOADS)
    memory = min((int(pod.requests["memory"].removesuffix("Gi")) for pod in pods), default=_DOWNLOADS)
    return Downloader(min(cores, _DOWNLOADS), min(memory, _DOWNLOADS))


@dataclass(frozen=True)
class Moves:
    """How weights move in a stack: rates in MB/s, and what stands before what. download_mbs: of the downloading container."""

    store_mbs: float
    download_mbs: float
    seed_minutes: float
    nodes_after_seed: bool = False


def readiness(request: ServiceRequest, catalogue: Catalogue, image_gb: float, moves: Moves) -> Readiness:
    """Minutes to ready on AWS: node, image, seed, download from the store, load, from bandwidths and sizes."""
    rates, instance = catalogue.rates, request.instance
    size_mb = request.file_weights.total_bytes / 1e6
    network_mbs = instance.network_gbits * 1000 / 8 if instance else moves.store_mbs
    image = image_gb / rates.image_gbs / 60
    download = size_mb / min(network_mbs, moves.store_mbs, moves.download_mbs, rates.local_disk_mbs) / 60
    load = rates.start_minutes + size_mb / rates.local_disk_mbs / 60
    node = rates.node_minutes
    before = node + image + moves.seed_minutes if moves.nodes_after_seed else max(node + image, moves.seed_minutes)
    return Readiness(node, image, moves.seed_minutes, download, load, before + download + load)


def local_readiness(catalogue: Catalogue, engine: LocalEngine) -> Readiness:
    """Bounds for the embedded cluster, where nodes are simulated and checkpoints have some megabytes."""
    minutes = catalogue.local_minutes
    load = minutes.load_vllm if engine == "vllm" else minutes.load
    total = max(minutes.node, minutes.seed) + minutes.download + load
    return Readiness(minutes.node, 0.0, minutes.seed, minutes.download, load, total)


def seed_minutes(sizes: Mapping[str, int], rate_mbs: float) -> dict[str, float]:
    """Minutes until each checkpoint is in the store, all of them moving at once and sharing the rate. Sizes in bytes by prefix.

    A checkpoint is done when it has had as many bytes as each of the others that are larger, and the smaller ones are through.
    """
    done: dict[str, float] = {}
    through, left = 0.0, len(sizes)
    for prefix, size in sorted(sizes.items(), key=lambda item: item[1]):
        done[prefix] = (through + size * left) / (rate_mbs * 1e6) / 60
        through += size
        left -= 1
    return done
