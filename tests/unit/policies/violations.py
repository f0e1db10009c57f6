"""For each policy, a shipped stack with one thing broken. Every entry starts from a recorded preview and says what was changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Props = Any
_UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"


@dataclass(frozen=True)
class Violation:
    """policy: which must report it; label: the change, in words; says: what the report must name."""

    policy: str
    label: str
    stack: str
    kind: str
    name: str
    change: Callable[[Props], None]
    says: str


def pod(props: Props) -> Props:
    return props["spec"]["template"]["spec"]


def container(props: Props) -> Props:
    return pod(props)["containers"][0]


def predictor(props: Props) -> Props:
    return props["spec"]["predictor"]


def model(props: Props) -> Props:
    return predictor(props)["model"]


def set_argument(props: Props, flag: str, value: str) -> None:
    args = model(props)["args"]
    if flag in args:
        args[args.index(flag) + 1] = value
    else:
        args += [flag, value]


def engine(props: Props) -> Props:
    """The container of a ServingRuntime."""
    return props["spec"]["containers"][0]


def told(props: Props, name: str) -> Props:
    """The entry of a container's environment."""
    return next(entry for entry in container(props)["env"] if entry["name"] == name)


def set_expiry(props: Props, day: str | None) -> None:
    """In the tags of a resource and in those that the plugin has made of them and the provider's default ones."""
    for field in {"tags", "tagsAll"} & set(props):
        others = {key: value for key, value in props[field].items() if key != "expires"}
        props[field] = others if day is None else {**others, "expires": day}


VIOLATIONS = (
    # serving
    Violation(
        "s3-prefixes-end-with-slash",
        "the service's prefix lost its slash",
        "local",
        "InferenceService",
        "mistral-24b-full",
        lambda props: model(props)["storage"].update(path="mistral-24b"),
        "'mistral-24b'",
    ),
    Violation(
        "s3-prefixes-end-with-slash",
        "the seed Job's prefix lost its slash",
        "dev",
        "Job",
        "seed-mistral-24b-fp8",
        lambda props: told(props, "WEIGHTS_PREFIX").update(value="mistral-24b-fp8"),
        "'mistral-24b-fp8'",
    ),
    Violation(
        "no-quantization-of-quantized-checkpoints",
        "the seed document's flag",
        "dev",
        "InferenceService",
        "mistral-24b-fp8",
        lambda props: set_argument(props, "--quantization", "fp8"),
        "--quantization fp8 on a compressed-tensors checkpoint",
    ),
    Violation(
        "services-fit-their-pool",
        "FP8 on one L4 without offload",
        "dev",
        "InferenceService",
        "mistral-24b-fp8",
        lambda props: set_argument(props, "--cpu-offload-gb", "0"),
        "does not fit 1x L4",
    ),
    Violation(
        "services-fit-their-pool",
        "a pool that is not made",
        "local",
        "InferenceService",
        "mistral-24b-full",
        lambda props: predictor(props)["nodeSelector"].update({"mistral-on-l4/pool": "l4-8gpu"}),
        "names pool l4-8gpu",
    ),
    Violation(
        "services-fit-their-pool",
        "eight GPUs of a node that has four",
        "dev",
        "InferenceService",
        "mistral-24b-full",
        lambda props: (
            model(props)["resources"]["requests"].update({"nvidia.com/gpu": "8"}),
            model(props)["resources"]["limits"].update({"nvidia.com/gpu": "8"}),
            set_argument(props, "--tensor-parallel-size", "8"),
        )[0],
        "which has 4",
    ),
    Violation(
        "services-fit-their-pool",
        "the model split over more GPUs than the pod gets",
        "dev",
        "InferenceService",
        "mistral-24b-full",
        lambda props: model(props)["resources"]["limits"].update({"nvidia.com/gpu": "2"}),
        "splits the model over 4",
    ),
    Violation(
        "services-fit-their-pool",
        "a pool that shrank to nothing",
        "dev",
        "NodeGroup",
        "pool-l4-4gpu",
        lambda props: props["scalingConfig"].update(desiredSize=0),
        "0x g6.12xlarge",
    ),
    Violation(
        "stack-within-budget",
        "eight nodes of four GPUs",
        "dev",
        "NodeGroup",
        "pool-l4-4gpu",
        lambda props: props["scalingConfig"].update(desiredSize=8, maxSize=8),
        "more than $12.00",
    ),
    Violation(
        "kept-data-stays",
        "the store's data in the pod",
        "dev",
        "StatefulSet",
        "minio",
        lambda props: (
            pod(props)["volumes"][-1].pop("persistentVolumeClaim"),
            pod(props)["volumes"][-1].update(emptyDir={}),
        )[1],
        "emptyDir",
    ),
    Violation(
        "nothing-bills-after-destroy",
        "volumes that stay",
        "dev",
        "StatefulSet",
        "minio",
        lambda props: props["spec"].update(volumeClaimTemplates=[{"metadata": {"name": "more"}, "spec": {}}]),
        "its volumes stay",
    ),
    Violation(
        "nothing-bills-after-destroy",
        "a StorageClass that retains",
        "dev",
        "StorageClass",
        "gp3",
        lambda props: props.update(reclaimPolicy="Retain"),
        "its volumes stay",
    ),
    # consistency
    Violation(
        "references-exist",
        "a key from a Secret that nobody makes",
        "dev",
        "InferenceService",
        "mistral-24b-full",
        lambda props: model(props)["env"][0]["valueFrom"]["secretKeyRef"].update(name="vllm-key"),
        "names Secret vllm-key",
    ),
    Violation(
        "references-exist",
        "a runtime of another name",
        "local",
        "InferenceService",
        "mistral-24b-full",
        lambda props: model(props).update(runtime="vllm-cuda-runtime"),
        "names ServingRuntime vllm-cuda-runtime",
    ),
    Violation(
        "services-load-what-is-seeded",
        "a prefix that no Job fills",
        "dev",
        "InferenceService",
        "mistral-24b-fp8",
        lambda props: model(props)["storage"].update(path="mistral-24b-fp8-dynamic/"),
        "no Job seeds 'mistral-24b-fp8-dynamic/'",
    ),
    Violation(
        "services-have-time-to-load",
        "one minute for a load of four",
        "dev",
        "InferenceService",
        "mistral-24b-full",
        lambda props: model(props)["startupProbe"].update(failureThreshold=30),
        "has 60 s to load",
    ),
    Violation(
        "store-holds-its-checkpoints",
        "50 GiB for both checkpoints",
        "dev",
        "PersistentVolumeClaim",
        "store-data",
        lambda props: props["spec"]["resources"]["requests"].update(storage="50Gi"),
        "50 GiB for checkpoints of 67 GiB",
    ),
    Violation(
        "selectors-select-something",
        "a Service of pods that are called otherwise",
        "local",
        "Service",
        "minio",
        lambda props: props["spec"]["selector"].update({"app.kubernetes.io/name": "minio-2"}),
        "matches no pod",
    ),
    # answering
    Violation(
        "probes-ask-what-answers",
        "a path that vLLM does not have",
        "dev",
        "InferenceService",
        "mistral-24b-full",
        lambda props: model(props)["readinessProbe"]["httpGet"].update(path="/healthz"),
        "readinessProbe of container kserve-container asks /healthz, and vLLM tells its health at /health or /ping",
    ),
    Violation(
        "probes-ask-what-answers",
        "a path that wants the key",
        "local",
        "InferenceService",
        "mistral-24b-fp8",
        lambda props: model(props)["livenessProbe"]["httpGet"].update(path="/v1/models"),
        "livenessProbe of container kserve-container asks /v1/models",
    ),
    Violation(
        "probes-ask-what-answers",
        "vLLM's default port, which is not the runtime's",
        "dev",
        "InferenceService",
        "mistral-24b-fp8",
        lambda props: model(props)["startupProbe"]["httpGet"].update(port=8000),
        "asks port 8000, and vLLM listens on 8080",
    ),
    Violation(
        "probes-ask-what-answers",
        "a runtime that moved away from its probes",
        "local",
        "ServingRuntime",
        "vllm-mistral-runtime",
        lambda props: engine(props)["args"].remove("--port=8080"),
        "asks port 8080, and vLLM listens on 8000",
    ),
    Violation(
        "probes-ask-what-answers",
        "a port that the container calls otherwise",
        "local",
        "Deployment",
        "private-ai-registry",
        lambda props: container(props)["readinessProbe"]["httpGet"].update(port="http"),
        "asks port 'http', and the container names http-api",
    ),
    Violation(
        "probes-ask-what-answers",
        "the registry's path asked of the store",
        "dev",
        "StatefulSet",
        "minio",
        lambda props: container(props)["livenessProbe"]["httpGet"].update(path="/readyz/health"),
        "asks /readyz/health, and MinIO tells its health at /minio/health/live",
    ),
    Violation(
        "services-answer-to-their-name",
        "one name for all",
        "dev",
        "ServingRuntime",
        "vllm-mistral-runtime",
        lambda props: engine(props).update(args=["--port=8080", "--model=/mnt/models", "--served-model-name=model"]),
        "mistral-24b-fp8: answers to 'model' and not to its own name",
    ),
    Violation(
        "services-answer-to-their-name",
        "no name at all, so that the path of the weights is the model's",
        "local",
        "ServingRuntime",
        "vllm-mistral-runtime",
        lambda props: engine(props)["args"].remove("--served-model-name={{.Name}}"),
        "mistral-24b-full: answers to '/mnt/models'",
    ),
    Violation(
        "services-answer-to-their-name",
        "a check that asks one service by the other's name",
        "dev",
        "Job",
        "check-mistral-24b-fp8",
        lambda props: told(props, "SERVICE_NAME").update(value="mistral-24b-full"),
        "asks mistral-24b-fp8 for model 'mistral-24b-full', which answers to 'mistral-24b-fp8'",
    ),
    # workloads
    Violation(
        "containers-have-requests-and-limits",
        "no memory limit",
        "local",
        "Deployment",
        "private-ai-registry",
        lambda props: container(props)["resources"]["limits"].pop("memory") and None,
        "no limits.memory",
    ),
    Violation(
        "long-running-pods-have-probes",
        "no startup probe for a model that loads for minutes",
        "local",
        "InferenceService",
        "mistral-24b-fp8",
        lambda props: model(props).pop("startupProbe") and None,
        "startupProbe",
    ),
    Violation(
        "containers-run-as-non-root",
        "the store as root",
        "dev",
        "StatefulSet",
        "minio",
        lambda props: container(props)["securityContext"].update(runAsUser=0),
        "runs as user 0",
    ),
    Violation(
        "containers-run-as-non-root",
        "the engine as root",
        "dev",
        "ServingRuntime",
        "vllm-mistral-runtime",
        lambda props: engine(props)["securityContext"].update(runAsNonRoot=False),
        "may run as root",
    ),
    Violation(
        "containers-have-no-privileges",
        "a privileged Job",
        "local",
        "Job",
        "seed-mistral-24b-",
        lambda props: container(props)["securityContext"].update(privileged=True),
        "is privileged",
    ),
    Violation(
        "containers-have-no-privileges",
        "a folder of the node",
        "dev",
        "Deployment",
        "private-ai-registry",
        lambda props: pod(props)["volumes"].append({"name": "node", "hostPath": {"path": "/"}}),
        "folder of the node",
    ),
    Violation(
        "pods-have-a-seccomp-profile",
        "an unconfined engine",
        "dev",
        "ServingRuntime",
        "vllm-mistral-runtime",
        lambda props: engine(props)["securityContext"].update(seccompProfile={"type": "Unconfined"}),
        "without a seccomp profile",
    ),
    Violation(
        "gpu-pods-name-their-pool",
        "no node selector",
        "local",
        "InferenceService",
        "mistral-24b-full",
        lambda props: predictor(props).update(nodeSelector={}),
        "without naming a pool",
    ),
    Violation(
        "gpu-pods-name-their-pool",
        "no toleration",
        "dev",
        "InferenceService",
        "mistral-24b-fp8",
        lambda props: predictor(props).update(tolerations=[]),
        "does not tolerate",
    ),
    Violation(
        "gpu-nodes-are-tainted",
        "GPU nodes for everybody",
        "dev",
        "NodeGroup",
        "pool-l4-1gpu",
        lambda props: props.update(taints=[]),
        "without the taint",
    ),
    Violation(
        "gpu-nodes-are-tainted",
        "a local GPU node for everybody",
        "local",
        "Node",
        "l4-1gpu",
        lambda props: props["spec"].update(taints=[]),
        "without the taint",
    ),
    Violation(
        "gpu-services-can-start",
        "a rolling update of a GPU pod",
        "dev",
        "InferenceService",
        "mistral-24b-full",
        lambda props: predictor(props).update(deploymentStrategy={"type": "RollingUpdate"}),
        "second 4-GPU node",
    ),
    Violation(
        "gpu-services-can-start",
        "a read-only root filesystem under NVIDIA's hook",
        "dev",
        "ServingRuntime",
        "vllm-mistral-runtime",
        lambda props: engine(props)["securityContext"].update(readOnlyRootFilesystem=True),
        "read-only root filesystem",
    ),
    Violation(
        "jobs-have-deadlines-and-stay",
        "a Job without an end",
        "local",
        "Job",
        "seed-mistral-24b-",
        lambda props: props["spec"].pop("activeDeadlineSeconds") and None,
        "no activeDeadlineSeconds",
    ),
    Violation(
        "jobs-have-deadlines-and-stay",
        "a Job that vanishes",
        "dev",
        "Job",
        "register-mistral-24b-full",
        lambda props: props["spec"].update(ttlSecondsAfterFinished=60),
        "vanishes",
    ),
    Violation(
        "rights-are-narrow",
        "a Job that may do everything",
        "dev",
        "Role",
        "weights-seeder",
        lambda props: props["rules"][0].update(verbs=["*"]),
        "allows *",
    ),
    Violation(
        "namespaces-enforce-pod-security",
        "a namespace that admits anything",
        "local",
        "Namespace",
        "private-ai",
        lambda props: props["metadata"]["labels"].pop("pod-security.kubernetes.io/enforce") and None,
        "does not say which pods it admits",
    ),
    # images
    Violation(
        "images-are-pinned",
        "a moving tag",
        "dev",
        "ServingRuntime",
        "vllm-mistral-runtime",
        lambda props: engine(props).update(image="docker.io/vllm/vllm-openai:latest"),
        "moving tag latest",
    ),
    Violation(
        "images-are-pinned",
        "a chart of no version",
        "dev",
        "Release",
        "charts-kserve-crd",
        lambda props: props.update(version=">=0.20"),
        "not pinned to one version",
    ),
    Violation(
        "images-have-a-digest",
        "the digest dropped",
        "local",
        "StatefulSet",
        "minio",
        lambda props: container(props).update(image=container(props)["image"].partition("@")[0]),
        "quay.io/minio/minio",
    ),
    Violation(
        "engine-has-no-known-advisories",
        "an engine of a year ago behind a mirror",
        "dev",
        "ServingRuntime",
        "vllm-mistral-runtime",
        lambda props: engine(props).update(image="mirror.example.com/all/vllm/vllm-openai:v0.14.0"),
        "is vLLM 0.14.0, which lacks fixes of GHSA-4r2x-xpjr-7cvv (fixed in 0.14.1), GHSA-7972",
    ),
    # secrets
    Violation(
        "no-secret-in-clear",
        "the hub's token typed into an environment",
        "local",
        "Job",
        "seed-mistral-24b-",
        lambda props: container(props)["env"].append({"name": "HF_TOKEN", "value": "hf_" + "aB3dE5fG7h" * 3 + "xY12"}),
        "a Hugging Face token",
    ),
    Violation(
        "no-secret-in-clear",
        "the key as an argument",
        "dev",
        "InferenceService",
        "mistral-24b-full",
        lambda props: set_argument(props, "--api-key", "correct-horse-battery"),
        "argument after --api-key",
    ),
    Violation(
        "no-secret-in-clear",
        "a generated key under a harmless name",
        "dev",
        "Deployment",
        "private-ai-registry",
        lambda props: container(props)["env"].append({"name": "SALT", "value": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b"}),
        "looks generated",
    ),
    Violation(
        "no-secret-in-clear",
        "a password in a ConfigMap",
        "local",
        "ConfigMap",
        "minio-setup",
        lambda props: props["data"].update({"settings.ini": "[store]\nuser = 'weights'\npassword = 'hunter2000'\n"}),
        "a literal value for password",
    ),
    # exposure
    Violation(
        "no-public-exposure-without-auth",
        "a public load balancer",
        "dev",
        "Service",
        "minio",
        lambda props: props["spec"].update(type="LoadBalancer"),
        "public address",
    ),
    Violation(
        "no-public-exposure-without-auth",
        "an exposed service that asks nobody",
        "dev",
        "InferenceService",
        "mistral-24b-fp8",
        lambda props: (
            model(props).pop("env"),
            props["metadata"]["labels"].update({"networking.kserve.io/visibility": "exposed"}),
        )[1],
        "asks nobody for a token",
    ),
    Violation(
        "services-ask-for-a-token",
        "no key",
        "local",
        "InferenceService",
        "mistral-24b-fp8",
        lambda props: model(props).pop("env") and None,
        "asks nobody",
    ),
    Violation(
        "network-policies-name-their-peers",
        "a fence with its gate open",
        "dev",
        "NetworkPolicy",
        "inference-clients",
        lambda props: props["spec"]["ingress"][0].pop("from") and None,
        "admits everybody",
    ),
    Violation(
        "services-are-behind-a-network-policy",
        "a fence around something else",
        "dev",
        "NetworkPolicy",
        "inference-clients",
        lambda props: props["spec"]["podSelector"]["matchExpressions"][0].update(values=["mistral-24b-full"]),
        "mistral-24b-fp8",
    ),
    Violation(
        "services-fit-their-pool",
        "two replicas on a pool of one GPU",
        "dev",
        "InferenceService",
        "mistral-24b-fp8",
        lambda props: predictor(props).update(minReplicas=2, maxReplicas=2),
        "2 pods ask for 1 + 1 GPU",
    ),
    Violation(
        "services-fit-their-pool",
        "all the memory that its node nominally has",
        "dev",
        "InferenceService",
        "mistral-24b-fp8",
        lambda props: model(props)["resources"]["requests"].update(memory="32Gi"),
        "requests 32.0 GiB of memory of a g6.2xlarge, which leaves",
    ),
    Violation(
        "services-fit-their-pool",
        "a memory limit below what loading takes",
        "dev",
        "InferenceService",
        "mistral-24b-fp8",
        lambda props: model(props)["resources"]["limits"].update(memory="4Gi"),
        "is limited to 4 GiB of memory and needs",
    ),
    Violation(
        "references-exist",
        "a class of volumes that nobody makes",
        "dev",
        "PersistentVolumeClaim",
        "store-data",
        lambda props: props["spec"].update(storageClassName="gp4"),
        "names StorageClass gp4",
    ),
    Violation(
        "references-exist",
        "a binding to a Role of another name",
        "local",
        "RoleBinding",
        "weights-seeder",
        lambda props: props["roleRef"].update(name="weight-seeder"),
        "names Role weight-seeder",
    ),
    Violation(
        "references-exist",
        "a binding of an account that nobody makes",
        "dev",
        "RoleBinding",
        "model-registrar",
        lambda props: props["subjects"][0].update(name="registrar"),
        "names ServiceAccount registrar",
    ),
    Violation(
        "references-exist",
        "a store that KServe's Secret does not hold",
        "dev",
        "InferenceService",
        "mistral-24b-fp8",
        lambda props: model(props)["storage"].update(key="mino"),
        "wants mino of Secret storage-config, which holds minio",
    ),
    Violation(
        "references-exist",
        "an entry that its Secret does not have",
        "dev",
        "InferenceService",
        "mistral-24b-full",
        lambda props: model(props)["env"][0]["valueFrom"]["secretKeyRef"].update(key="token"),
        "wants token of Secret vllm-api-key, which holds api-key",
    ),
    Violation(
        "services-have-time-to-load",
        "a minute for the seed",
        "dev",
        "Job",
        "seed-mistral-24b-fp8",
        lambda props: props["spec"].update(activeDeadlineSeconds=60),
        "has 60 s to seed",
    ),
    Violation(
        "gpu-nodes-have-a-driver",
        "the image of nodes without GPUs",
        "dev",
        "NodeGroup",
        "pool-l4-1gpu",
        lambda props: props.update(amiType="AL2023_x86_64_STANDARD"),
        "has no driver",
    ),
    Violation(
        "network-policies-name-their-peers",
        "one half of the internet",
        "dev",
        "NetworkPolicy",
        "minio",
        lambda props: props["spec"]["ingress"][0].update({"from": [{"ipBlock": {"cidr": "128.0.0.0/1"}}]}),
        "admits 128.0.0.0/1",
    ),
    # AWS
    Violation(
        "aws-data-is-encrypted",
        "a plain root disk",
        "dev",
        "LaunchTemplate",
        "pool-l4-1gpu",
        lambda props: props["blockDeviceMappings"][0]["ebs"].update(encrypted="false"),
        "not encrypted",
    ),
    Violation(
        "aws-data-is-encrypted",
        "plain volumes for the weights",
        "dev",
        "StorageClass",
        "gp3-weights",
        lambda props: props["parameters"].pop("encrypted") and None,
        "not encrypted",
    ),
    Violation(
        "aws-instances-use-imdsv2",
        "the old metadata service",
        "dev",
        "LaunchTemplate",
        "pool-l4-4gpu",
        lambda props: props["metadataOptions"].update(httpTokens="optional"),
        "without a token",
    ),
    Violation(
        "aws-networks-are-not-open",
        "an API for the whole internet",
        "dev",
        "Cluster",
        "eks",
        lambda props: props["vpcConfig"].update(endpointPublicAccess=True, publicAccessCidrs=["0.0.0.0/0"]),
        "open to 0.0.0.0/0",
    ),
    Violation(
        "aws-resources-are-tagged",
        "a NAT gateway that never expires",
        "dev",
        "NatGateway",
        "",
        lambda props: set_expiry(props, None),
        "no tag expires",
    ),
    Violation(
        "aws-expiry-is-ahead",
        "a demo of the year 2099",
        "dev",
        "Cluster",
        "eks",
        lambda props: set_expiry(props, "2099-01-01"),
        "2099-01-01",
    ),
    Violation(
        "aws-instance-types-are-allowed",
        "eight H100",
        "dev",
        "NodeGroup",
        "pool-l4-1gpu",
        lambda props: props.update(instanceTypes=["p5.48xlarge"]),
        "p5.48xlarge",
    ),
)
