"""What a stack serves, read back from its manifests: the settings and the plan that they amount to.

The program plans from its configuration. The policies must not believe it: they read arguments, resources, pools and seed Jobs as
they will be applied, make settings of them, and ask the same planner.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

from mistral_on_l4.config.names import DECLARATION, POOL_LABEL, SIMULATED_LABEL
from mistral_on_l4.config.settings import Settings, SettingsError, settings_as_checked
from mistral_on_l4.config.traits import TRAITS, PlatformName, PlatformTraits
from mistral_on_l4.planner import StackPlan, plan_stack
from mistral_on_l4.planner.catalogue import Catalogue, load_catalogue
from mistral_on_l4.planner.checkpoint import weights_of
from mistral_on_l4.planner.request import parse_flags
from policies.pods import GPU, pod_of
from policies.pools import NodePool, gpu_pools
from policies.reading import UNKNOWN, at, items, mapping
from policies.rule import Resource, Stack

# Flags that the settings have a field for; everything else is handed to the planner as it stands.
_FIELDS = {
    "--max-model-len": "maxModelLen",
    "--max-num-seqs": "maxNumSeqs",
    "--kv-cache-dtype": "kvCacheDtype",
    "--gpu-memory-utilization": "gpuMemoryUtilization",
    "--cpu-offload-gb": "cpuOffload",
    "--tensor-parallel-size": "tensorParallelSize",
}
_NUMBERS = ("maxModelLen", "maxNumSeqs", "gpuMemoryUtilization", "cpuOffload", "tensorParallelSize")
# MachineSets, Routes, SecurityContextConstraints; and Red Hat's operator of KServe.
_OPENSHIFT = re.compile(r":([a-z]+\.openshift\.io|datasciencecluster\.opendatahub\.io)/")
# KServe fills runtimes in with Go templates over the service's metadata.
_NAME_PLACEHOLDER = re.compile(r"\{\{-?\s*\.Name\s*-?\}\}")
# The engine's own defaults, where the settings would choose another value for an absent flag.
_ABSENT = {"kvCacheDtype": "auto", "cpuOffload": "off", "tensorParallelSize": 1}


@dataclass(frozen=True)
class Served:
    """An InferenceService as its manifests declare it. model, variant: None where the catalogue does not know the checkpoint.

    prefix: of the weights in the bucket; None where they come from elsewhere, or where it is not known yet.
    container: the engine's, of runtime and service together; None where not all that sets its flags is in the manifests or known
    yet. A flag that is missing then says nothing.
    """

    name: str
    urn: str
    prefix: str | None
    flags: Mapping[str, str]
    gpus: int
    pool: str | None
    replicas: int
    memory_gib: float | None
    memory_limit_gib: float | None
    cpus: float | None
    repository: str | None
    model: str | None
    variant: str | None
    container: Mapping[str, Any] | None

    @property
    def port(self) -> int | None:
        """Where vLLM listens, None where that is unknown. Its own default is 8000."""
        text = self.flags.get("--port", "8000")
        return int(text) if self.container is not None and text.isdigit() else None

    @property
    def names(self) -> tuple[str, ...] | None:
        """What requests may call the model, None where that is unknown. Without names of its own it is called by its path."""
        if self.container is None:
            return None
        text = _NAME_PLACEHOLDER.sub(self.name, self.flags.get("--served-model-name") or self.flags.get("--model", ""))
        return None if "{{" in text else tuple(text.split())

    @property
    def tensor_parallel(self) -> int:
        text = self.flags.get("--tensor-parallel-size", "1")
        return int(text) if text.isdigit() else 1


@dataclass(frozen=True)
class ServedStack:
    """A stack's resources, and what they say of services, nodes and platform."""

    stack: Stack
    catalogue: Catalogue = field(default_factory=load_catalogue)

    @cached_property
    def pools(self) -> list[NodePool]:
        return gpu_pools(self.stack.resources)

    @cached_property
    def services(self) -> list[Served]:
        """Those whose arguments are known."""
        # A runtime's arguments come before the service's own, as KServe joins them.
        runtimes = {str(runtime.meta.get("name")): runtime for runtime in self.stack.of("ServingRuntime", "ClusterServingRuntime")}
        seeds = dict(self._seeds())
        return [self._served(found, runtimes, seeds) for found in self.stack.of("InferenceService") if _has_known_arguments(found)]

    @cached_property
    def platform(self) -> PlatformName:
        """The configuration's, else the one that the resources give away; a stack that says neither is judged as one that bills."""
        return self.configured.platform if self.configured else declared_platform(self.stack) or PlatformName.EKS

    @property
    def traits(self) -> PlatformTraits:
        return TRAITS[self.platform]

    @cached_property
    def configured(self) -> Settings | None:
        """The stack's own settings, which the program hands over as inputs of a resource; None where it does not."""
        for declaration in self.stack.of(DECLARATION):
            values = at(declaration.props, "settings")
            try:
                return settings_as_checked(values, "settings") if isinstance(values, Mapping) else None
            except SettingsError:
                return None
        return None

    @cached_property
    def checkpoint_bytes(self) -> int:
        """Of every seeded prefix whose checkpoint the catalogue knows."""
        total = 0
        for repository in dict(self._seeds()).values():
            if found := self.catalogue.checkpoint(repository):
                model = self.catalogue.model(found[0])
                total += weights_of(model.architecture, model.variants[found[1]].quantization).total_bytes
        return total

    def settings(self) -> Settings:
        """Settings that amount to these manifests. Raises SettingsError where they contradict themselves."""
        known = {pool.name for pool in self.pools}
        services = [self._values(served) for served in self.services if served.model and served.pool in known]
        pools = [
            {"name": pool.name, "instanceType": pool.instance_type, "count": pool.count}
            for pool in self.pools
            if pool.name is not None
        ]
        values: dict[str, Any] = {"platform": self.platform.value, "pools": {"groups": pools}, "services": services}
        if self.configured:
            values["region"] = self.configured.region
            values["objectStore"] = self.configured.object_store.model_dump(by_alias=True)
            values["network"] = self.configured.network.model_dump(by_alias=True)
            values["cluster"] = self.configured.cluster.model_dump(by_alias=True)
            values["registry"] = self.configured.registry.model_dump(by_alias=True)
        return settings_as_checked(values, "manifests")

    def _values(self, served: Served) -> dict[str, Any]:
        values: dict[str, Any] = {
            "name": served.name,
            "model": served.model,
            "variant": served.variant,
            "repository": served.repository,
            "prefix": served.prefix,
            "pool": served.pool,
            **_ABSENT,
            # Without the flag the engine takes the model's whole context.
            "maxModelLen": self.catalogue.model(served.model or "").architecture.max_positions,
        }
        extra = []
        for flag, text in served.flags.items():
            if flag in _FIELDS:
                values[_FIELDS[flag]] = _number(text) if _FIELDS[flag] in _NUMBERS else text
            elif flag not in ("--port", "--model", "--served-model-name"):
                extra += [flag, *text.split()] if text else [flag]
        if values["cpuOffload"] == 0:
            values["cpuOffload"] = "off"
        return {**values, "extraArgs": extra}

    def _served(self, service: Resource, runtimes: Mapping[str, Resource], seeds: Mapping[str, str]) -> Served:
        predictor = mapping(service.props, "spec", "predictor")
        model = mapping(predictor, "model")
        runtime = _engine_of(runtimes.get(str(model.get("runtime"))))
        words = [*items(runtime, "args"), *items(model, "args")]
        pod = pod_of(service)
        prefix = prefix_of(model)
        repository = seeds.get(prefix) if prefix is not None else None
        name = str(service.meta.get("name"))
        checkpoint = self._variant(name, repository) if prefix is not None else (None, None)
        pool = at(predictor, "nodeSelector", POOL_LABEL)
        return Served(
            name,
            service.urn,
            prefix,
            parse_flags([str(word) for word in words]),
            pod.gpus if pod else 0,
            pool if isinstance(pool, str) else None,
            _replicas(at(predictor, "minReplicas")),
            gibibytes(at(model, "resources", "requests", "memory")),
            gibibytes(at(model, "resources", "limits", "memory")),
            _cpus(at(model, "resources", "requests", "cpu")),
            repository,
            *checkpoint,
            _joined(runtime, model, words),
        )

    def _variant(self, service: str, repository: str | None) -> tuple[str | None, str | None]:
        """(model, variant) of a checkpoint by its repository; the configuration says it for repositories of the user's own."""
        if repository and (found := self.catalogue.checkpoint(repository)):
            return found
        for declared in self.configured.services if self.configured else ():
            if declared.name == service and declared.repository == repository:
                return declared.model, declared.variant
        return None, None

    def _seeds(self) -> Iterator[tuple[str, str]]:
        """(prefix, repository) of every seed Job."""
        for job in self.stack.of("Job"):
            pod = pod_of(job)
            for container in pod.containers if pod else ():
                env = {at(entry, "name"): at(entry, "value") for entry in items(container.spec, "env")}
                prefix, repository = env.get("WEIGHTS_PREFIX"), env.get("WEIGHTS_REPOSITORY")
                if isinstance(prefix, str) and isinstance(repository, str):
                    yield prefix, repository


def declared_platform(stack: Stack) -> PlatformName | None:
    """The platform that the resources give away, None where they name none."""
    if any(resource.is_aws for resource in stack.resources):
        return PlatformName.EKS
    if any(resource.is_kubernetes and _OPENSHIFT.search(resource.token) for resource in stack.resources):
        return PlatformName.OPENSHIFT
    if any(at(node.meta, "labels", SIMULATED_LABEL) is not None for node in stack.of("Node")):
        return PlatformName.LOCAL
    return None


def prefix_of(model: Any) -> str | None:
    """Where in the bucket the weights of a predictor's model lie; None for another kind of storage, or where it is not known."""
    path, uri = at(model, "storage", "path"), at(model, "storageUri")
    if isinstance(path, str):
        return path
    return uri.partition("://")[2].partition("/")[2] if isinstance(uri, str) and uri.startswith("s3://") else None


def is_vllm(service: Resource) -> bool:
    """Whether an InferenceService asks for a runtime of vLLM's, as Red Hat's and ours call their format."""
    return str(at(service.props, "spec", "predictor", "model", "modelFormat", "name")).lower() == "vllm"


def _engine_of(runtime: Resource | None) -> Mapping[str, Any] | None:
    """The container of a runtime, None if there is none."""
    pod = pod_of(runtime) if runtime else None
    return pod.containers[0].spec if pod and pod.containers else None


def _joined(runtime: Mapping[str, Any] | None, model: Mapping[str, Any], words: list[Any]) -> Mapping[str, Any] | None:
    """A runtime's container with what a service sets in it, if nothing but `words` sets the engine's flags; else None."""
    if runtime is None or at(runtime, "args") is UNKNOWN or UNKNOWN in words:
        return None
    # KServe joins the arguments; of every other field the service's replaces the runtime's.
    container = {**runtime, **model, "args": words}
    by_file = any(str(word).partition("=")[0] == "--config" for word in words)
    by_command = at(container, "command") is UNKNOWN or any("--" in str(word) for word in items(container, "command"))
    return None if by_file or by_command else container


def _has_known_arguments(service: Resource) -> bool:
    model = at(service.props, "spec", "predictor", "model")
    return model is not UNKNOWN and at(model, "args") is not UNKNOWN and at(model, "resources", "limits", GPU) is not UNKNOWN


def _replicas(value: Any) -> int:
    """What KServe keeps running: one where nothing is said, or where it is not known yet."""
    return int(value) if isinstance(value, (int, float)) and value > 1 else 1


def _number(text: str) -> float | int | str:
    try:
        return int(text)
    except ValueError:
        try:
            return float(text)
        except ValueError:
            return text


_UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "": 1}


def gibibytes(quantity: Any) -> float | None:
    """A Kubernetes memory quantity in GiB, or None if it is none."""
    text = str(quantity)
    number = text.rstrip("KMGTik")
    try:
        return float(number) * _UNITS[text[len(number) :]] / 2**30
    except (ValueError, KeyError):
        return None


def _cpus(quantity: Any) -> float | None:
    text = str(quantity)
    try:
        return float(text[:-1]) / 1000 if text.endswith("m") else float(text)
    except ValueError:
        return None


def planned(stack: ServedStack) -> StackPlan | None:
    """The plan of what the manifests declare, None where they serve nothing. Raises PlanError, SettingsError."""
    if not stack.services or not stack.pools:
        return None
    return _planned(stack.settings().model_dump_json(by_alias=True))


@lru_cache(maxsize=8)
def _planned(settings: str) -> StackPlan:
    """One plan for all the policies of a run that ask for it."""
    return plan_stack(Settings.model_validate_json(settings), stack="manifests")
