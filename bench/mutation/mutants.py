"""Ways in which somebody breaks a shipped stack: in its file, or in the program that makes its manifests.

They are mistakes that people make, not inverses of our rules: typing errors, a value from another card, a security context
dropped while debugging, a key pasted into an argument. `mistral-24b-full` and `-fp8` are the shipped services.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mistral_on_l4.config.defaults import DEFAULT_POOLS, DEFAULT_SERVICES
from policies.offline import Declared, Recording

PREFIX = "mistral-on-l4:"


@dataclass(frozen=True)
class FileMutant:
    """A stack file with one thing changed. change: edits the configuration without its namespace, objects decoded."""

    label: str
    stack: str
    change: Callable[[dict[str, Any]], None]

    def config(self, shipped: Mapping[str, str]) -> dict[str, str]:
        values = {key: json.loads(text) if text[:1] in "[{" else text for key, text in shipped.items()}
        inner = {key.removeprefix(PREFIX): copy.deepcopy(value) for key, value in values.items()}
        self.change(inner)
        named = {key if ":" in key else PREFIX + key: value for key, value in inner.items()}
        return {key: value if isinstance(value, str) else json.dumps(value) for key, value in named.items()}


@dataclass(frozen=True)
class ManifestMutant:
    """What a program with one thing changed would declare. change: edits the inputs of one resource; None drops the resource."""

    label: str
    stack: str
    kind: str
    name: str
    change: Callable[[Any], Any] | None

    def recording(self, shipped: Recording) -> Recording:
        resources = list(shipped.resources)
        found = [index for index, resource in enumerate(resources) if self.means(resource)]
        if not found:
            raise LookupError(f"{self.label}: stack {self.stack} declares no {self.kind} {self.name}")
        if self.change is None:
            del resources[found[0]]
        else:
            props = copy.deepcopy(dict(resources[found[0]].props))
            self.change(props)
            if props == resources[found[0]].props:
                raise LookupError(f"{self.label}: changes nothing")
            resources[found[0]] = dataclasses.replace(resources[found[0]], props=props)
        return dataclasses.replace(shipped, resources=tuple(resources))

    def means(self, resource: Declared) -> bool:
        kind = resource.token.rpartition(":")[2]
        if kind != self.kind or not resource.token.startswith(("kubernetes:", "aws:", "pulumi:providers:")):
            return False
        name = (resource.props.get("metadata") or {}).get("name")
        return (isinstance(name, str) and name.startswith(self.name)) or resource.name.startswith(self.name)


def service(name: str, **changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda config: config.setdefault("services", {}).setdefault(name, {}).update(changes)


def pool(name: str, **changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda config: config.setdefault("pools", {}).setdefault("groups", {}).setdefault(name, {}).update(changes)


def _renamed(old: str, new: str) -> Callable[[dict[str, Any]], None]:
    """A default service under another name."""

    def change(config: dict[str, Any]) -> None:
        services = config.setdefault("services", {})
        services[new] = {**DEFAULT_SERVICES[old], **services.pop(old, {})}
        services[old] = None

    return change


def _two_of_one_name(config: dict[str, Any]) -> None:
    """In a list, as earlier releases wrote it: a map cannot hold them."""
    config["services"] = [{"name": FULL, **DEFAULT_SERVICES[name]} for name in (FULL, FP8)]


def section(key: str, **changes: Any) -> Callable[[dict[str, Any]], None]:
    def change(config: dict[str, Any]) -> None:
        config[key] = {**config.get(key, {}), **changes}

    return change


def _both(*changes: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], None]:
    def change(config: dict[str, Any]) -> None:
        for one in changes:
            one(config)

    return change


FULL, FP8, W4A16 = DEFAULT_SERVICES
ONE_GPU, FOUR_GPU = DEFAULT_POOLS


def file_mutants() -> Iterator[FileMutant]:
    def on(stack: str, label: str, change: Callable[[dict[str, Any]], None]) -> FileMutant:
        return FileMutant(label, stack, change)

    # What does not fit.
    yield on("dev", "FP8 on one L4 without offload", service(FP8, cpuOffload="off"))
    yield on("local", "FP8 on one L4 without offload", service(FP8, cpuOffload="off"))
    yield on("dev", "one GiB of offload where five are needed", service(FP8, cpuOffload=1))
    yield on("dev", "BF16 on one L4", service(FULL, pool="l4-1gpu", tensorParallelSize=1))
    yield on("dev", "BF16 over two GPUs", service(FULL, tensorParallelSize=2))
    yield on("dev", "BF16 over eight GPUs of a four-GPU node", service(FULL, tensorParallelSize=8))
    yield on("dev", "a context of twice what the model knows", service(FULL, maxModelLen=65536))
    yield on("dev", "half of the memory for BF16 on four", service(FULL, gpuMemoryUtilization=0.5))
    yield on("dev", "offload on a node with 16 GiB of memory", pool(ONE_GPU, instanceType="g6.xlarge"))
    yield on("dev", "offload of more weights than the model has", service(FP8, cpuOffload=64))
    yield on(
        "dev",
        "four A10G for FP8 without offload",
        _both(service(FP8, cpuOffload="off"), pool(ONE_GPU, instanceType="g5.12xlarge")),
    )
    yield on("dev", "the seed document's --quantization fp8", service(FP8, extraArgs=["--quantization", "fp8"]))
    yield on("dev", "two services on a pool of one GPU", service(W4A16, enabled=True))
    yield on("dev", "a pool of no nodes", pool(FOUR_GPU, count=0))
    yield on("dev", "a pool without GPUs", pool(ONE_GPU, instanceType="m7i.xlarge"))
    # Typing errors.
    yield on("dev", "an instance type that is none", pool(ONE_GPU, instanceType="g6.3xlarge"))
    yield on("dev", "a model that is not known", service(FULL, model="mistral-small-24b-instruct-2510"))
    yield on("dev", "a variant that is none", service(FP8, variant="fp4"))
    yield on("dev", "a region that is none", lambda config: config.update({"aws:region": "us-est-1"}))
    yield on("dev", "a service in a pool that is not declared", service(FP8, pool="l4-2gpu"))
    yield on("local", "three GPUs", service(FULL, tensorParallelSize=3))
    yield on("local", "a misspelt key", service(FP8, maxModelLength=4096))
    yield on("local", "a misspelt service", service("mistral-24b-w4a61", enabled=True))
    yield on("dev", "a pool taken away under its service", lambda config: config.update(pools={"groups": {FOUR_GPU: None}}))
    yield on("local", "an exposure that the platform lacks", section("access", exposure="route"))
    yield on("local", "a misspelt section", section("objectstore", bucket="x"))
    yield on("local", "utilization above one", service(FULL, gpuMemoryUtilization=1.5))
    yield on("local", "a KV cache of int4", service(FP8, kvCacheDtype="int4"))
    yield on("local", "a service name in capitals", _renamed(FULL, "Mistral-24B"))
    yield on("local", "a service name that KServe makes too long", _renamed(FULL, "mistral-" * 7 + "24b"))
    yield on("local", "two services of one name", _two_of_one_name)
    yield on("dev", "an expiry in words", section("tags", expires="soon"))
    yield on("dev", "a date of the thirteenth month", section("tags", expires="2027-13-01"))
    yield on("dev", "a volume size without unit", section("objectStore", volumeSize="200"))
    yield on("dev", "a bucket in capitals", section("objectStore", bucket="RHOAI-Artifacts"))
    # What swallows or overwrites something.
    yield on("local", "a prefix without its slash", service(FULL, prefix="mistral-24b"))
    yield on("local", "two checkpoints under one prefix", service(FP8, prefix="mistral-24b/"))
    yield on("local", "a prefix inside another", service(FP8, prefix="mistral-24b/fp8/"))
    yield on("local", "one namespace for two parts", section("namespaces", registry="private-ai"))
    yield on("dev", "50 GiB for both checkpoints", section("objectStore", volumeSize="50Gi"))
    # What lets somebody in.
    yield on("dev", "an exposed service that asks for nothing", section("access", auth="none", exposure="internal-load-balancer"))
    yield on("dev", "the cluster's API for the whole internet", section("cluster", publicAccessCidrs=["0.0.0.0/0"]))
    yield on("dev", "a key in the arguments", service(FULL, extraArgs=["--api-key", "correct-horse-battery"]))
    yield on("dev", "a secret kept outside the two known keys", section("apiToken", secure="AAABAA=="))
    # What costs.
    yield on("dev", "eight nodes of four GPUs", pool(FOUR_GPU, count=8))
    yield on("dev", "a node of eight GPUs for one service", pool(FOUR_GPU, instanceType="g6.48xlarge"))
    yield on("dev", "a budget below the stack's price", section("budget", maxHourlyUsd=3))
    yield on("dev", "no expiry", lambda config: config["tags"].pop("expires"))
    yield on("dev", "no owner", lambda config: config["tags"].pop("owner"))
    # What moves under one's feet.
    yield on(
        "dev", "the newest engine, whatever it is", section("images", overrides={"engine": "docker.io/vllm/vllm-openai:latest"})
    )
    yield on("local", "an image without tag", section("images", overrides={"mc": "quay.io/minio/mc"}))
    # What contradicts itself.
    yield on("dev", "an external store without address", section("objectStore", kind="external"))
    yield on("dev", "an existing cluster without name", section("cluster", existing=True))
    yield on("dev", "subnets without their VPC", section("network", existingSubnetIds=["subnet-0a"]))
    yield on("dev", "a VPC too small for its subnets", section("network", cidr="10.42.0.0/24"))


def pod_spec_of(props: Any) -> Any:
    return props["spec"]["template"]["spec"]


def container_of(props: Any) -> Any:
    return pod_spec_of(props)["containers"][0]


def engine_of(props: Any) -> Any:
    return props["spec"]["containers"][0]


def predictor_of(props: Any) -> Any:
    return props["spec"]["predictor"]


def model_of(props: Any) -> Any:
    return predictor_of(props)["model"]


def _argument(flag: str, value: str | None) -> Callable[[Any], None]:
    """Sets the value of a flag, or removes it with its value."""

    def change(props: Any) -> None:
        args = model_of(props)["args"]
        if flag in args:
            index = args.index(flag)
            args[index : index + 2] = [] if value is None else [flag, value]
        elif value is not None:
            args.extend([flag, value])

    return change


def _env(props: Any, name: str) -> Any:
    return next(entry for entry in container_of(props)["env"] if entry["name"] == name)


def manifest_mutants() -> Iterator[ManifestMutant]:
    on = ManifestMutant
    isvc, full, fp8 = "InferenceService", "mistral-24b-full", "mistral-24b-fp8"
    runtime = ("ServingRuntime", "vllm-mistral-runtime")
    # Placement and size of GPU pods.
    yield on("a GPU pod without node selector", "dev", isvc, full, lambda p: predictor_of(p).pop("nodeSelector"))
    yield on("a GPU pod that tolerates nothing", "local", isvc, fp8, lambda p: predictor_of(p).pop("tolerations"))
    yield on(
        "a GPU pod in the system pool",
        "dev",
        isvc,
        fp8,
        lambda p: predictor_of(p)["nodeSelector"].update({"mistral-on-l4/pool": "system"}),
    )
    yield on(
        "one GPU for a model split over four",
        "dev",
        isvc,
        full,
        lambda p: model_of(p)["resources"]["limits"].update({"nvidia.com/gpu": "1"}),
    )
    yield on(
        "500 GiB of memory asked of 32", "dev", isvc, fp8, lambda p: model_of(p)["resources"]["requests"].update(memory="500Gi")
    )
    yield on("200 CPUs", "dev", isvc, full, lambda p: model_of(p)["resources"]["requests"].update(cpu="200"))
    yield on("no memory limit on the engine", "dev", isvc, full, lambda p: model_of(p)["resources"]["limits"].pop("memory"))
    yield on("GPU nodes without taint", "dev", "NodeGroup", "pool-l4-4gpu", lambda p: p.pop("taints"))
    yield on(
        "GPU nodes without their pool's label", "dev", "NodeGroup", "pool-l4-1gpu", lambda p: p["labels"].pop("mistral-on-l4/pool")
    )
    yield on(
        "a local GPU node of another type",
        "local",
        "Node",
        "l4-4gpu",
        lambda p: p["metadata"]["labels"].update({"node.kubernetes.io/instance-type": "g6.2xlarge"}),
    )
    yield on("a pool scaled to nothing", "dev", "NodeGroup", "pool-l4-1gpu", lambda p: p["scalingConfig"].update(desiredSize=0))
    yield on("a pool dropped", "local", "Node", "l4-1gpu", None)
    # Arguments.
    yield on("no offload", "dev", isvc, fp8, _argument("--cpu-offload-gb", None))
    yield on("a context of 32k with offload for 8k", "dev", isvc, fp8, _argument("--max-model-len", "131072"))
    yield on("no tensor parallelism", "dev", isvc, full, _argument("--tensor-parallel-size", None))
    yield on("--quantization fp8", "local", isvc, fp8, _argument("--quantization", "fp8"))
    yield on("--quantization awq", "dev", isvc, fp8, _argument("--quantization", "awq"))
    yield on("--api-key in clear", "dev", isvc, full, _argument("--api-key", "hunter2hunter2"))
    # Names.
    yield on(
        "a served name of its own",
        "dev",
        *runtime,
        lambda p: engine_of(p).update(
            args=[a if "served-model-name" not in a else "--served-model-name=model" for a in engine_of(p)["args"]]
        ),
    )
    yield on("a shorter served name for one service", "dev", isvc, full, _argument("--served-model-name", "mistral-24b"))
    yield on(
        "a check that asks by the other service's name",
        "local",
        "Job",
        "check-mistral-24b-fp8",
        lambda p: _env(p, "SERVICE_NAME").update(value="mistral-24b-full"),
    )
    # Weights.
    yield on("the service's path without slash", "dev", isvc, full, lambda p: model_of(p)["storage"].update(path="mistral-24b"))
    yield on("the service's path misspelt", "dev", isvc, fp8, lambda p: model_of(p)["storage"].update(path="mistral-24b-fp-8/"))
    yield on(
        "the seed's prefix misspelt",
        "dev",
        "Job",
        "seed-mistral-24b-fp8",
        lambda p: _env(p, "WEIGHTS_PREFIX").update(value="mistral-24b-f8/"),
    )
    yield on(
        "one seed into another bucket",
        "dev",
        "Job",
        "seed-mistral-24b-fp8",
        lambda p: _env(p, "WEIGHTS_BUCKET").update(value="rhoai-artefacts"),
    )
    yield on(
        "FP8's prefix filled with BF16",
        "dev",
        "Job",
        "seed-mistral-24b-fp8",
        lambda p: _env(p, "WEIGHTS_REPOSITORY").update(value="mistralai/Mistral-Small-24B-Instruct-2501"),
    )
    yield on("no seed", "local", "Job", "seed-mistral-24b-fp8", None)
    yield on(
        "the store's address misspelt",
        "dev",
        "Job",
        "seed-mistral-24b-fp8",
        lambda p: _env(p, "AWS_ENDPOINT_URL").update(value="http://mino.minio-storage.svc:9000"),
    )
    # Starting and staying up.
    yield on("no startup probe", "dev", isvc, full, lambda p: model_of(p).pop("startupProbe"))
    yield on(
        "a startup budget of twenty seconds", "dev", isvc, full, lambda p: model_of(p)["startupProbe"].update(failureThreshold=10)
    )
    yield on("no readiness probe", "local", "Deployment", "private-ai-registry", lambda p: container_of(p).pop("readinessProbe"))
    yield on("no liveness probe", "dev", "StatefulSet", "minio", lambda p: container_of(p).pop("livenessProbe"))
    yield on(
        "a probe on a path that does not exist",
        "dev",
        isvc,
        full,
        lambda p: model_of(p)["readinessProbe"]["httpGet"].update(path="/healthz"),
    )
    yield on("a probe on vLLM's usual port", "local", isvc, fp8, lambda p: model_of(p)["startupProbe"]["httpGet"].update(port=8000))
    yield on(
        "a probe on a port that the container calls otherwise",
        "dev",
        "Deployment",
        "private-ai-registry",
        lambda p: container_of(p)["livenessProbe"]["httpGet"].update(port="http"),
    )
    yield on(
        "a rolling update of GPU pods",
        "dev",
        isvc,
        fp8,
        lambda p: predictor_of(p).pop("deploymentStrategy")
        and predictor_of(p).update(deploymentStrategy={"type": "RollingUpdate"}),
    )
    yield on(
        "KServe's autoscaler by CPU",
        "dev",
        isvc,
        full,
        lambda p: p["metadata"]["annotations"].pop("serving.kserve.io/autoscalerClass"),
    )
    yield on(
        "no /dev/shm", "dev", *runtime, lambda p: p["spec"].update(volumes=[v for v in p["spec"]["volumes"] if v["name"] != "shm"])
    )
    yield on(
        "a read-only root filesystem under the GPU",
        "dev",
        *runtime,
        lambda p: engine_of(p)["securityContext"].update(readOnlyRootFilesystem=True),
    )
    yield on("a runtime of another name", "local", isvc, full, lambda p: model_of(p).update(runtime="vllm-runtime"))
    yield on(
        "a Secret of another name",
        "dev",
        "Deployment",
        "private-ai-registry",
        lambda p: next(e for e in container_of(p)["env"] if "valueFrom" in e)["valueFrom"]["secretKeyRef"].update(
            name="registry-db"
        ),
    )
    yield on(
        "an account that nobody makes",
        "local",
        "Job",
        "seed-mistral-24b-",
        lambda p: pod_spec_of(p).update(serviceAccountName="seeder"),
    )
    yield on(
        "a Service whose selector is misspelt",
        "dev",
        "Service",
        "minio",
        lambda p: p["spec"]["selector"].update({"app.kubernetes.io/name": "mino"}),
    )
    yield on("a Job without deadline", "dev", "Job", "register-mistral-24b-full", lambda p: p["spec"].pop("activeDeadlineSeconds"))
    yield on("a Job that vanishes", "local", "Job", "minio-setup", lambda p: p["spec"].update(ttlSecondsAfterFinished=300))
    yield on("no resources", "dev", "Job", "seed-mistral-24b-", lambda p: container_of(p).pop("resources"))
    # Privileges.
    yield on("the engine as root", "dev", *runtime, lambda p: engine_of(p)["securityContext"].update(runAsUser=0))
    yield on(
        "no security context at all",
        "dev",
        "StatefulSet",
        "minio",
        lambda p: (container_of(p).pop("securityContext"), pod_spec_of(p).pop("securityContext")),
    )
    yield on(
        "a privileged seed",
        "local",
        "Job",
        "seed-mistral-24b-",
        lambda p: container_of(p)["securityContext"].update(privileged=True),
    )
    yield on(
        "SYS_ADMIN",
        "dev",
        "Deployment",
        "private-ai-registry",
        lambda p: container_of(p)["securityContext"]["capabilities"].update(add=["SYS_ADMIN"]),
    )
    yield on("no seccomp profile", "dev", *runtime, lambda p: engine_of(p)["securityContext"].pop("seccompProfile"))
    yield on("the host's network", "dev", "Deployment", "private-ai-registry", lambda p: pod_spec_of(p).update(hostNetwork=True))
    yield on(
        "the node's container socket",
        "dev",
        "StatefulSet",
        "minio",
        lambda p: pod_spec_of(p).setdefault("volumes", []).append({"name": "run", "hostPath": {"path": "/run/containerd"}}),
    )
    yield on(
        "a Role for everything",
        "dev",
        "Role",
        "model-registrar",
        lambda p: p.update(rules=[{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]),
    )
    yield on(
        "a namespace without its guard",
        "dev",
        "Namespace",
        "minio-storage",
        lambda p: p["metadata"]["labels"].pop("pod-security.kubernetes.io/enforce"),
    )
    # Secrets and open doors.
    yield on(
        "the hub's token in the environment",
        "dev",
        "Job",
        "seed-mistral-24b-",
        lambda p: container_of(p)["env"].append({"name": "HF_TOKEN", "value": "hf_" + "QwErTyUiOp" * 3 + "AsDf"}),
    )
    yield on(
        "the store's keys in the environment",
        "local",
        "Job",
        "register-mistral-24b-full",
        lambda p: _env(p, "AWS_SECRET_ACCESS_KEY").update(value="wJalrXUtnFEMIK7MDENGbPxRfiCYzEXAMPLEKEY1", valueFrom=None),
    )
    yield on(
        "the database's address with its password",
        "dev",
        "Deployment",
        "private-ai-registry",
        lambda p: container_of(p)["env"].append({"name": "DATABASE_URL", "value": "postgresql://registry:s3cret99@db/registry"}),
    )
    yield on(
        "a key in a ConfigMap",
        "dev",
        "ConfigMap",
        "minio-setup",
        lambda p: p["data"].update(
            {"mc.json": '{"aliases": {"store": {"accessKey": "admin", "secretKey": "Zk3TqX9vB2mL7wR5nH8d"}}}'}
        ),
    )
    yield on("a public load balancer", "dev", "Service", "private-ai-registry", lambda p: p["spec"].update(type="LoadBalancer"))
    yield on("a NodePort", "local", "Service", "minio", lambda p: p["spec"].update(type="NodePort"))
    yield on("no NetworkPolicy for the services", "dev", "NetworkPolicy", "inference-clients", None)
    yield on(
        "a NetworkPolicy for everybody",
        "dev",
        "NetworkPolicy",
        "minio",
        lambda p: p["spec"]["ingress"][0].update({"from": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}),
    )
    # Images.
    yield on("latest", "local", "StatefulSet", "minio", lambda p: container_of(p).update(image="quay.io/minio/minio:latest"))
    yield on(
        "a digest cut short", "dev", "StatefulSet", "minio", lambda p: container_of(p).update(image=container_of(p)["image"][:-8])
    )
    yield on("any chart from 0.20 on", "dev", "Release", "charts-kserve", lambda p: p.update(version="0.*"))
    # AWS.
    yield on("plain disks", "dev", "LaunchTemplate", "pool-l4-4gpu", lambda p: p["blockDeviceMappings"][0]["ebs"].pop("encrypted"))
    yield on("the old metadata service", "dev", "LaunchTemplate", "pool-l4-1gpu", lambda p: p.pop("metadataOptions"))
    yield on("instances without tags", "dev", "LaunchTemplate", "pool-l4-1gpu", lambda p: p.pop("tagSpecifications"))
    yield on(
        "plain volumes for the weights", "dev", "StorageClass", "gp3-weights", lambda p: p["parameters"].update(encrypted="false")
    )
    yield on("volumes that stay", "dev", "StorageClass", "gp3", lambda p: p.update(reclaimPolicy="Retain"))
    yield on(
        "claims that stay",
        "local",
        "StatefulSet",
        "minio",
        lambda p: p["spec"].update(volumeClaimTemplates=[{"metadata": {"name": "more"}, "spec": {}}]),
    )
    yield on("H100 by accident", "dev", "NodeGroup", "pool-l4-4gpu", lambda p: p.update(instanceTypes=["p5.48xlarge"]))
    yield on("an account without tags", "dev", "aws", "eks-aws", lambda p: p.pop("defaultTags"))
    # Data.
    yield on("the registry's database dropped", "dev", "PersistentVolumeClaim", "registry-data", None)
    yield on("the store dropped", "dev", "StatefulSet", "minio", None)
    # Objects that do not find each other.
    yield on(
        "an entry that its Secret does not have",
        "dev",
        isvc,
        full,
        lambda p: model_of(p)["env"][0]["valueFrom"]["secretKeyRef"].update(key="token"),
    )
    yield on("a store that KServe does not know", "dev", isvc, fp8, lambda p: model_of(p)["storage"].update(key="mino"))
    yield on(
        "a Role misspelt in its binding", "local", "RoleBinding", "weights-seeder", lambda p: p["roleRef"].update(name="seeder")
    )
    yield on(
        "an account misspelt in its binding", "dev", "RoleBinding", "model-registrar", lambda p: p["subjects"][0].update(name="x")
    )
    yield on(
        "a class of volumes misspelt",
        "dev",
        "PersistentVolumeClaim",
        "registry-data",
        lambda p: p["spec"].update(storageClassName="gp-3"),
    )
    # Room and time.
    yield on(
        "a second replica without a second node", "dev", isvc, fp8, lambda p: predictor_of(p).update(minReplicas=2, maxReplicas=2)
    )
    yield on(
        "4 GiB for an engine that pins five", "dev", isvc, fp8, lambda p: model_of(p)["resources"]["limits"].update(memory="4Gi")
    )
    yield on("all 32 GiB of a node", "dev", isvc, fp8, lambda p: model_of(p)["resources"]["requests"].update(memory="32Gi"))
    yield on("a minute for a seed", "dev", "Job", "seed-mistral-24b-fp8", lambda p: p["spec"].update(activeDeadlineSeconds=60))
    yield on("GPU nodes without a driver", "dev", "NodeGroup", "pool-l4-4gpu", lambda p: p.update(amiType="AL2023_x86_64_STANDARD"))
    yield on(
        "the internet in two halves",
        "dev",
        "NetworkPolicy",
        "inference-clients",
        lambda p: p["spec"]["ingress"][0].update({"from": [{"ipBlock": {"cidr": f"{half}.0.0.0/1"}} for half in (0, 128)]}),
    )
    # Beyond what any of this looks at: kept so that the score stays honest.
    yield on(
        "clients let in to another port",
        "dev",
        "NetworkPolicy",
        "inference-clients",
        lambda p: p["spec"]["ingress"][0]["ports"][0].update(port=8000),
    )
    yield on(
        "64 MiB of shared memory",
        "dev",
        *runtime,
        lambda p: next(v for v in p["spec"]["volumes"] if v["name"] == "shm")["emptyDir"].update(sizeLimit="64Mi"),
    )
    yield on("a pool that may have no node", "dev", "NodeGroup", "pool-l4-1gpu", lambda p: p["scalingConfig"].update(maxSize=0))
    yield on("an older engine", "local", *runtime, lambda p: engine_of(p).update(image="docker.io/vllm/vllm-openai:v0.6.0"))
