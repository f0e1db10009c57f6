"""Rules for what a stack's own file asks for, which the program follows: images, namespaces, versions, flags, plain connections."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pulumi_policy import Severity

from mistral_on_l4.planner.catalogue import load_catalogue
from policies.images import images_of
from policies.pods import environment_of
from policies.reading import at, items
from policies.rule import Resource, Stack, StackFinding, resource_rule, stack_rule
from policies.served import ServedStack

_STRINGS = {"type": "array", "items": {"type": "string"}}
# What each does that a demo needs a reason for.
_DANGEROUS: Mapping[str, str] = {
    "--trust-remote-code": "runs Python code that lies beside the weights",
    "--config": "reads further flags from a file that no rule sees",
    "--host": "changes where the server listens, beside the probes and NetworkPolicies",
    "--uds": "listens on a file instead of the port",
    "--root-path": "moves the paths that the probes ask",
    "--middleware": "puts other code before the server",
    "--tool-parser-plugin": "runs Python code from a file",
    "--reasoning-parser-plugin": "runs Python code from a file",
    "--worker-extension-cls": "runs other code in the workers",
    "--worker-cls": "runs other code in place of the workers",
    "--scheduler-cls": "runs other code in place of the scheduler",
    "--logits-processors": "runs other code on each token",
    "--load-format": "loads other weights than those that are seeded (dummy: none at all)",
    "--download-dir": "fetches weights beside those that are seeded",
    "--tokenizer": "takes another tokenizer than the checkpoint's",
    "--hf-config-path": "takes another configuration than the checkpoint's",
    "--hf-token": "hands a secret over in the arguments",
    "--hf-overrides": "makes another model of the checkpoint",
    "--enable-lora": "lets clients load adapters",
    "--lora-modules": "loads adapters that nobody seeds",
    "--enable-sleep-mode": "opens a path that unloads the model",
    "--enable-tokenizer-info-endpoint": "opens a path without the key",
    "--allowed-local-media-path": "lets requests read the server's files",
    "--allow-credentials": "lets web pages of others use a visitor's key",
    "--allowed-origins": "lets web pages of others send requests",
    "--allowed-headers": "lets web pages of others send requests",
    "--allowed-methods": "lets web pages of others send requests",
    "--disable-log-stats": "takes the metrics away that the demo measures by",
    "--skip-tokenizer-init": "serves no text",
    "--headless": "serves nothing",
    "--api-key": "hands a secret over in the arguments",
    "--kv-transfer-config": "sends the KV cache elsewhere",
    "--otlp-traces-endpoint": "sends requests' traces elsewhere",
    "--profiler-config": "opens a path that profiles the server",
    "--enable-log-requests": "writes every prompt into the log",
    "--enable-log-outputs": "writes every answer into the log",
}


@stack_rule(
    "engine-flags-are-safe",
    why="Some of vLLM's flags run code from elsewhere, open paths without the key, or serve something else than was planned.",
    fix="remove the flag from extraArgs, or name it in this policy's 'also' and say why in the pull request",
    severity=Severity.HIGH,
    settings={"also": {**_STRINGS, "description": "Flags that are meant, as SERVICE --flag or --flag", "default": []}},
)
def engine_flags_are_safe(stack: Stack) -> Iterator[StackFinding]:
    allowed = {str(text) for text in stack.config["also"]}
    for served in ServedStack(stack).services:
        for flag in served.flags:
            name = flag.partition(".")[0]
            if name in _DANGEROUS and not {name, f"{served.name} {name}"} & allowed:
                yield f"InferenceService {served.name}: {name} {_DANGEROUS[name]}", served.urn


@stack_rule(
    "images-come-from-known-registries",
    why="An image from elsewhere runs with the stack's keys, and nobody has said that its publisher is trusted.",
    fix="take the pinned image (images.overrides), put it behind images.mirror, or add its repository to this policy's 'also'",
    severity=Severity.HIGH,
    settings={
        "also": {
            **_STRINGS,
            "description": "Repositories, or beginnings of them that end in a slash",
            "default": [
                "docker.io/vllm/vllm-openai", "docker.io/kserve/", "docker.io/library/postgres", "quay.io/minio/",
                "ghcr.io/kubeflow/model-registry/", "registry.redhat.io/", "quay.io/jetstack/", "nvcr.io/nvidia/",
            ],
        }
    },
)  # fmt: skip
def images_come_from_known_registries(stack: Stack) -> Iterator[StackFinding]:
    settings = ServedStack(stack).configured
    known = [str(text) for text in stack.config["also"]]
    if settings and settings.images.mirror:
        known.append(settings.images.mirror.rstrip("/") + "/")
    for resource in stack.resources:
        for container, image in images_of(resource):
            repository = _repository(image)
            if not any(repository == name or (name.endswith("/") and repository.startswith(name)) for name in known):
                yield f"{resource.label}: image of {container} is from {repository}, which is no known repository", resource.urn


def _repository(image: str) -> str:
    name = image.partition("@")[0]
    head, _, last = name.rpartition("/")
    name = f"{head}/{last.partition(':')[0]}" if head else last.partition(":")[0]
    host = name.partition("/")[0]
    if "/" not in name:
        return f"docker.io/library/{name}"
    return name if "." in host or ":" in host or host == "localhost" else f"docker.io/{name}"


@resource_rule(
    "image-tags-name-a-release",
    why="A tag of half a version, such as v0.11 or 16-alpine, is moved to each new release below it.",
    fix="name the whole version, better with its digest, or add the reference to this policy's 'also'",
    severity=Severity.MEDIUM,
    settings={
        "also": {**_STRINGS, "description": "References that are meant", "default": ["docker.io/library/postgres:16-alpine"]}
    },
)
def image_tags_name_a_release(resource: Resource) -> Iterator[str]:
    for container, image in images_of(resource):
        tag = image.partition("@")[0].rpartition("/")[2].partition(":")[2]
        plain = re.search(r"\d+\.\d+\.\d+|20\d\d-\d\d-\d\d|[0-9a-f]{12,}", tag)
        ends = any(image == str(name) or image.endswith("/" + str(name).partition("/")[2]) for name in resource.config["also"])
        if "@sha256:" not in image and tag and not plain and not ends:
            yield f"{resource.label}: image of {container} has the tag {tag}, which names no release: {image}"


@stack_rule(
    "engine-is-one-that-was-planned-for",
    why="Memory, speed and flags are computed for the engine of the catalogue; another version counts and refuses otherwise.",
    fix="take an engine of the catalogue, or name the version in this policy's 'also' after a look at `demo plan --engine`",
    severity=Severity.HIGH,
    settings={"also": {**_STRINGS, "description": "Versions of vLLM that are meant", "default": []}},
)
def engine_is_one_that_was_planned_for(stack: Stack) -> Iterator[StackFinding]:
    served = ServedStack(stack)
    catalogue = load_catalogue()
    images = served.traits.engine_images
    planned = catalogue.engine(catalogue.engine_of(images)).version
    known = {planned, *map(str, stack.config["also"])}
    for runtime in stack.of("ServingRuntime", "ClusterServingRuntime"):
        for _, image in images_of(runtime):
            found = re.search(r"/vllm-[a-z0-9-]+:v?(\d+\.\d+\.\d+)", image)
            if found and "vllm-openai" in image and found[1] not in known:
                yield f"{runtime.label}: serves by vLLM {found[1]}, and {planned} is what was planned for", runtime.urn


@stack_rule(
    "namespaces-are-the-stacks-own",
    why="In a namespace of the cluster's own the stack meets its rights and guards, and `destroy` would take it along.",
    fix="give the stack namespaces of its own (mistral-on-l4:namespaces)",
    severity=Severity.CRITICAL,
    settings={
        "taken": {
            **_STRINGS,
            "description": "Regular expressions of namespaces that are not for a stack",
            "default": [
                "default", "kube-.*", "openshift(-.*)?", "istio-.*", "cert-manager", "kserve", "nvidia", "gpu-operator",
                "amazon-.*", "aws-.*", "gatekeeper-system", "flux-system", "argocd", "monitoring", "knative-.*", "redhat-.*",
            ],
        }
    },
)  # fmt: skip
def namespaces_are_the_stacks_own(stack: Stack) -> Iterator[StackFinding]:
    settings = ServedStack(stack).configured
    if settings is None:
        return
    spaces = settings.namespaces
    named = {"services": spaces.services, "objectStore": spaces.object_store, "registry": spaces.registry}
    for key, name in named.items():
        if any(re.fullmatch(str(pattern), name) for pattern in stack.config["taken"]):
            yield f"namespaces.{key} is {name}, which belongs to the cluster or to one of its parts", None


@stack_rule(
    "cluster-version-is-supported",
    why="Out of standard support a control plane costs six times as much, and the node images for it get no driver fixes any more.",
    fix="set mistral-on-l4:cluster.version to one of those, or add it to this policy's 'supported'",
    severity=Severity.HIGH,
    # facts/eks.md: 1.34 leaves standard support on 2026-12-02; GPU images are there for 1.35 and 1.36.
    settings={"supported": {**_STRINGS, "description": "Versions of Kubernetes", "default": ["1.35", "1.36"]}},
)
def cluster_version_is_supported(stack: Stack) -> Iterator[StackFinding]:
    supported = [str(version) for version in stack.config["supported"]]
    for cluster in stack.of("Cluster"):
        version = at(cluster.props, "version")
        if cluster.is_aws and isinstance(version, str) and version not in supported:
            yield f"{cluster.label}: Kubernetes {version} is not among {', '.join(supported)}", cluster.urn


@stack_rule(
    "connections-are-encrypted",
    why="Over plain http the hub's token, the store's keys and the weights themselves are read and changed by anyone on the way.",
    fix="use https (hub.endpoint, objectStore.endpoint)",
    severity=Severity.HIGH,
)
def connections_are_encrypted(stack: Stack) -> Iterator[StackFinding]:
    if ServedStack(stack).traits.embedded:
        return
    for job in stack.of("Job"):
        for name, value in environment_of(job):
            inside = isinstance(value, str) and re.search(r"^http://[a-z0-9-]+(\.[a-z0-9-]+)?(\.svc\b|[:/]|$)", value)
            if (
                name in ("HF_ENDPOINT", "AWS_ENDPOINT_URL")
                and isinstance(value, str)
                and value.startswith("http://")
                and not inside
            ):
                yield f"{job.label}: {name} is {value.partition('?')[0]}, which is not encrypted", job.urn


@stack_rule(
    "one-key-for-the-engine",
    why="Of two entries of one name the last counts: an empty VLLM_API_KEY behind the Secret's leaves the engine without a key.",
    fix="leave one entry of each name",
    severity=Severity.CRITICAL,
)
def one_key_for_the_engine(stack: Stack) -> Iterator[StackFinding]:
    from policies.pods import pod_of

    for resource in stack.resources:
        pod = pod_of(resource)
        for container in pod.containers if pod else ():
            entries = items(container.spec, "env")
            names = [at(entry, "name") for entry in entries]
            for name in dict.fromkeys(name for name in names if isinstance(name, str) and names.count(name) > 1):
                yield f"{resource.label}: container {container.name} has {names.count(name)} entries {name}", resource.urn
            for entry in entries:
                if at(entry, "name") == "VLLM_API_KEY" and _no_key(entry):
                    yield f"{resource.label}: VLLM_API_KEY is empty, so nobody is asked for a key", resource.urn


def _no_key(entry: Any) -> bool:
    return at(entry, "valueFrom") is None and at(entry, "value") in (None, "")


POLICIES = (
    engine_flags_are_safe,
    images_come_from_known_registries,
    image_tags_name_a_release,
    engine_is_one_that_was_planned_for,
    namespaces_are_the_stacks_own,
    cluster_version_is_supported,
    connections_are_encrypted,
    one_key_for_the_engine,
)
