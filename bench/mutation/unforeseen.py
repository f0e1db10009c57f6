"""More ways to break the shipped stacks: what gates that know only what they list let through.

`mistakes` are single changes that people made or tried; `sweep` takes every resource, edge and field of a stack in turn, and
changes one in so many of them.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from bench.mutation.mutants import (
    FOUR_GPU,
    FP8,
    FULL,
    FileMutant,
    ManifestMutant,
    container_of,
    model_of,
    pod_spec_of,
    pool,
    predictor_of,
    section,
    service,
)
from mistral_on_l4.config.names import DECLARATION
from policies.blueprint import own_leaves
from policies.offline import Declared, Recording


def file_mistakes() -> Iterator[FileMutant]:
    on = FileMutant
    yield on("a volume of 100 TiB", "dev", section("objectStore", volumeSize="100Ti"))
    yield on("forty nodes", "dev", pool(FOUR_GPU, count=40))
    yield on("float32", "dev", service(FULL, extraArgs=["--dtype", "float32"]))
    for flag in ("--max-modle-len", "--enable-foo", "--host", "--trust-remote-code", "--config", "--middleware", "--api-key"):
        yield on(f"extraArgs {flag}", "dev", service(FULL, extraArgs=[flag, "x"]))
    yield on("weights that are made up", "dev", service(FULL, extraArgs=["--load-format", "dummy"]))
    yield on("code beside the weights", "dev", service(FULL, extraArgs=["--trust-remote-code"]))
    for key in ("services", "objectStore", "registry"):
        yield on(f"{key} in the cluster's own namespace", "dev", section("namespaces", **{key: "kube-system"}))
    yield on("the default namespace", "dev", section("namespaces", services="default"))
    yield on("a cluster of years ago", "dev", section("cluster", version="1.24"))
    yield on("an engine of years ago", "dev", section("images", overrides={"engine": "docker.io/vllm/vllm-openai:v0.6.0"}))
    yield on("somebody's copy of the engine", "dev", section("images", overrides={"engine": "docker.io/me/vllm-openai:v0.11.0"}))
    yield on("a database that moves", "dev", section("images", overrides={"postgres": "docker.io/library/postgres:16"}))
    yield on("a store from nowhere", "local", section("images", overrides={"minio": "ghcr.io/me/minio:1.2.3"}))
    yield on("a hub over plain http", "dev", section("hub", endpoint="http://hub.example.com"))
    yield on("no service at all", "dev", lambda config: config.update(services={FULL: None, FP8: None, "mistral-24b-w4a16": None}))
    yield on("an empty list of services", "dev", lambda config: config.update(services=[]))
    yield on("a token in plain text", "dev", lambda config: config.update(hubToken="hf_" + "AbCdEfGhIj" * 3))
    yield on(
        "a budget that Frankfurt breaks",
        "dev",
        lambda config: config.update({"budget": {"maxHourlyUsd": 6.3}, "aws:region": "eu-central-1"}),
    )


def _updated(**values: Any) -> Callable[[Any], None]:
    return lambda props: props.update(**values)


def _told(name: str, value: str) -> Callable[[Any], None]:
    return lambda props: container_of(props)["env"].append({"name": name, "value": value})


def mistakes() -> Iterator[ManifestMutant]:
    on = ManifestMutant
    full, fp8, store = ("InferenceService", FULL), ("InferenceService", FP8), ("StatefulSet", "minio")
    seed, database = ("Job", "seed-mistral-24b-"), ("StatefulSet", "model-registry-db")
    privileged = {"containers": [{"name": "t", "image": "quay.io/x/t:latest", "securityContext": {"privileged": True}}]}
    yield on("two stores behind one Service", "dev", *store, lambda p: p["spec"].update(replicas=2))
    yield on(
        "the store's data elsewhere", "dev", *store, lambda p: container_of(p)["volumeMounts"][0].update(mountPath="/tmp/data")
    )
    yield on(
        "the database's data elsewhere", "dev", *database,
        lambda p: container_of(p)["env"].append({"name": "PGDATA", "value": "/tmp/data"}),
    )  # fmt: skip
    yield on("a transformer", "dev", *full, lambda p: p["spec"].update(transformer=privileged))
    yield on("workers of their own", "dev", *full, lambda p: predictor_of(p).update(workerSpec=privileged))
    yield on("a second container", "dev", *store, lambda p: pod_spec_of(p)["containers"].append(privileged["containers"][0]))
    yield on("an ephemeral container", "dev", *store, lambda p: pod_spec_of(p).update(ephemeralContainers=privileged["containers"]))
    yield on("shared processes", "dev", *store, lambda p: pod_spec_of(p).update(shareProcessNamespace=True))
    yield on("a token in every pod", "dev", *store, lambda p: pod_spec_of(p).update(automountServiceAccountToken=True))
    yield on(
        "every pod by an empty selector", "dev", "NetworkPolicy", "inference-clients",
        lambda p: p["spec"]["ingress"][0].update({"from": [{"namespaceSelector": {"matchLabels": {}}}]}),
    )  # fmt: skip
    yield on("no network policies in the CNI", "dev", "Addon", "addons-network-vpc-cni", lambda p: p.pop("configurationValues"))
    for name in ("AdministratorAccess", "AmazonS3FullAccess"):
        yield on(
            f"{name} on the nodes", "dev", "RolePolicyAttachment", "nodes-AmazonEKSWorkerNodePolicy",
            _updated(policyArn=f"arn:aws:iam::aws:policy/{name}"),
        )  # fmt: skip
    yield on(
        "anybody may be a node", "dev", "Role", "nodes-role",
        lambda p: p.update(assumeRolePolicy=p["assumeRolePolicy"].replace('{"Service": "ec2.amazonaws.com"}', '"*"')),
    )  # fmt: skip
    yield on("an inline policy", "dev", "Role", "nodes-role", lambda p: p.update(inlinePolicies=[{"name": "x", "policy": "{}"}]))
    yield on(
        "a key in an env file",
        "dev",
        "ConfigMap",
        "minio-setup",
        lambda p: p["data"].update({".env": "A=1\nMYSQL_PWD=hunter2hunter2\n"}),
    )
    yield on(
        "a token in an annotation",
        "local",
        *store,
        lambda p: p["metadata"].setdefault("annotations", {}).update(note="hf_" + "QwErTyUiOp" * 3),
    )
    for name in ("MYSQL_PWD", "AUTH_HEADER", "AuthToken", "connection_string"):
        yield on(
            f"{name} in clear", "dev", *seed,
            _told(name, "hunter2hunter2"),
        )  # fmt: skip
    yield on(
        "a key in a probe's header", "dev", *full,
        lambda p: model_of(p)["livenessProbe"]["httpGet"].update(
            httpHeaders=[{"name": "Authorization", "value": "Bearer hunter2hunter2"}]
        ),
    )  # fmt: skip
    yield on("a second, empty key", "dev", *full, lambda p: model_of(p)["env"].append({"name": "VLLM_API_KEY", "value": ""}))
    yield on(
        "edit for everybody who is logged in",
        "dev",
        "RoleBinding",
        "model-registrar",
        lambda p: p["subjects"].append({"kind": "Group", "name": "system:authenticated"}),
    )
    yield on(
        "anybody",
        "dev",
        "RoleBinding",
        "weights-seeder",
        lambda p: p["subjects"].append({"kind": "Group", "name": "system:unauthenticated"}),
    )
    yield on(
        "secrets of the whole cluster",
        "dev",
        "ClusterRole",
        "volume-guard",
        lambda p: p["rules"].append({"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}),
    )
    yield on("one verb more", "dev", "Role", "weights-seeder", lambda p: p["rules"][0]["verbs"].append("delete"))
    yield on(
        "a taint's value misspelt", "dev", *full, lambda p: predictor_of(p)["tolerations"][0].update(operator="Equal", value="true")
    )
    yield on("a second node selector", "dev", *full, lambda p: predictor_of(p)["nodeSelector"].update(disk="ssd"))
    yield on(
        "5000 GiB of scratch disk",
        "dev",
        *full,
        lambda p: model_of(p)["resources"]["requests"].update({"ephemeral-storage": "5000Gi"}),
    )
    yield on("a seed in 128 MiB", "dev", *seed, lambda p: container_of(p)["resources"]["limits"].update(memory="128Mi"))
    yield on(
        "a seed that only looks", "dev", *seed, lambda p: container_of(p)["env"].append({"name": "WEIGHTS_MODE", "value": "verify"})
    )
    yield on("two seeds at once", "dev", *seed, lambda p: p["spec"].update(parallelism=2))
    yield on("a seed without a second try", "dev", *seed, lambda p: p["spec"].update(backoffLimit=0))
    yield on("ten minutes for BF16", "dev", "Job", "seed-mistral-24b-3", lambda p: p["spec"].update(activeDeadlineSeconds=600))
    for image in ("AL2_x86_64_GPU", "AL2023_ARM_64_NVIDIA", "BOTTLEROCKET_x86_64_NVIDIA"):
        yield on(f"node image {image}", "dev", "NodeGroup", "pool-l4-1gpu", _updated(amiType=image))
    yield on(
        "a dearer type behind the first", "dev", "NodeGroup", "pool-l4-4gpu", lambda p: p["instanceTypes"].append("g6.48xlarge")
    )
    yield on("spot without a word", "dev", "NodeGroup", "pool-l4-4gpu", lambda p: p.update(capacityType="SPOT"))
    yield on(
        "a Service for the internet",
        "dev",
        "Service",
        "minio",
        lambda p: p["spec"].update(type="LoadBalancer", loadBalancerClass="x"),
    )
    yield on("plain keys", "dev", "Secret", "weights-writer", lambda p: p.update(stringData=p["stringData"]["value"]))
    yield on(
        "a plain database password", "dev", "Secret", "model-registry-db", lambda p: p.update(stringData=p["stringData"]["value"])
    )
    yield on(
        "a public subnet's address for every node",
        "dev",
        "Subnet",
        "mistral-on-l4-dev-private-0",
        lambda p: p.update(mapPublicIpOnLaunch=True),
    )
    yield on("a user script", "dev", "LaunchTemplate", "system-template", lambda p: p.update(userData="IyEvYmluL3NoCmN1cmwgeA=="))
    yield on(
        "a role for anybody's pods",
        "dev",
        "ServiceAccount",
        "weights-seeder",
        lambda p: p["metadata"].update(annotations={"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/x"}),
    )
    yield on(
        "scripts that somebody changed",
        "dev",
        "ConfigMap",
        "seed-weights",
        lambda p: p["data"].update({"mistral_on_l4.jobs.trust.py": "import os\n"}),
    )
    yield on("the API for everybody", "dev", "Cluster", "eks", lambda p: p["vpcConfig"].update(endpointPublicAccess=True))
    yield on("no encryption of the claim's class", "dev", "StorageClass", "gp3", lambda p: p["parameters"].pop("encrypted"))
    yield on("a chart from elsewhere", "dev", "Release", "charts-kserve", lambda p: p.update(chart="oci://ghcr.io/me/kserve"))
    yield on(
        "a setting of a chart",
        "dev",
        "Release",
        "charts-cert-manager",
        lambda p: p.setdefault("values", {}).update(extraArgs=["--v=9"]),
    )
    yield on(
        "a model from a volume", "dev", *fp8, lambda p: (model_of(p).pop("storage"), model_of(p).update(storageUri="pvc://w/m"))
    )


GraphChange = Callable[[Recording], Recording]


def added() -> Iterator[tuple[str, GraphChange]]:
    """Resources that nobody foresaw, and options that change what a destroy leaves."""

    def more(token: str, name: str, props: dict[str, Any]) -> GraphChange:
        urn = f"urn:pulumi:dev::mistral-on-l4::{token}::{name}"
        return lambda shipped: dataclasses.replace(shipped, resources=(*shipped.resources, Declared(token, name, urn, props)))

    meta = {"name": "more", "namespace": "private-ai"}
    yield "a load balancer", more("aws:lb/loadBalancer:LoadBalancer", "lb", {"internal": False})
    yield "a bucket", more("aws:s3/bucketV2:BucketV2", "b", {"bucket": "more"})
    yield "a user with keys", more("aws:iam/accessKey:AccessKey", "k", {"user": "me"})
    yield "an inline role policy", more("aws:iam/rolePolicy:RolePolicy", "p", {"role": "x", "policy": '{"Statement": []}'})
    yield "a TCPRoute", more("kubernetes:gateway.networking.k8s.io/v1alpha2:TCPRoute", "r", {"metadata": meta, "spec": {}})
    yield "an Ingress", more("kubernetes:networking.k8s.io/v1:Ingress", "i", {"metadata": meta, "spec": {}})
    yield "a bare pod", more("kubernetes:core/v1:Pod", "pod", {"metadata": meta, "spec": {"containers": []}})
    yield "a CronJob", more("kubernetes:batch/v1:CronJob", "c", {"metadata": meta, "spec": {}})
    yield "a command on this machine", more("command:local:Command", "x", {"create": "curl x"})
    yield (
        "a webhook",
        more("kubernetes:admissionregistration.k8s.io/v1:MutatingWebhookConfiguration", "w", {"metadata": {"name": "w"}}),
    )
    yield "a provider by default", more("pulumi:providers:aws", "default_7_37_0", {"region": "us-east-1"})

    def option(name: str, keep: bool) -> GraphChange:
        def change(shipped: Recording) -> Recording:
            resources = []
            for found in shipped.resources:
                if found.name == name and not keep:
                    resources.append(dataclasses.replace(found, protect=True))
                elif found.token == DECLARATION and keep:
                    resources.append(dataclasses.replace(found, props={**found.props, "kept": [name]}))
                else:
                    resources.append(found)
            return dataclasses.replace(shipped, resources=tuple(resources))

        return change

    for name in ("store-server", "mistral-on-l4-dev-vpc", "pool-l4-4gpu-nodes", "store-data"):
        yield f"{name} protected", option(name, keep=False)
        yield f"{name} kept on destroy", option(name, keep=True)


def sweep(shipped: Recording, every: int) -> Iterator[tuple[str, Recording]]:
    """One in `every` of: a resource dropped, its edges dropped, a field dropped, a field changed."""
    count = 0
    for index, found in enumerate(shipped.resources):
        if not found.token.startswith(("kubernetes:", "aws:")):
            continue

        def instead(other: Declared | None, index: int = index) -> Recording:
            kept = list(shipped.resources)
            kept[index : index + 1] = [] if other is None else [other]
            return dataclasses.replace(shipped, resources=tuple(kept))

        label = f"{found.token.rpartition(':')[2]} {found.name}"
        changes: list[tuple[str, Callable[[], Declared | None]]] = [(f"{label} dropped", lambda: None)]
        if found.depends_on:
            changes.append((f"{label} depends on nothing", partial(dataclasses.replace, found, depends_on=())))
        for path, value in own_leaves(found.token, found.props):
            keys = _keys(found.props, path)
            if keys is None or "annotations" in keys or (keys[-1] in ("name", "value") and keys[0] == "metadata"):
                continue
            changes.append((f"{label}: no {path}", partial(_without, found, keys)))
            changes.append((f"{label}: another {path}", partial(_with, found, keys, _other(value))))
        for what, change in changes:
            count += 1
            if count % every == 0:
                yield what, instead(change())


def _keys(props: Any, path: str) -> list[Any] | None:
    """The keys of a path without lists, None for another one."""
    keys: list[Any] = []
    value = props
    for part in path.split("."):
        if not isinstance(value, dict) or part not in value:
            return None
        keys.append(part)
        value = value[part]
    return keys


def _without(found: Declared, keys: list[Any]) -> Declared:
    props = copy.deepcopy(dict(found.props))
    inner: Any = props
    for key in keys[:-1]:
        inner = inner[key]
    del inner[keys[-1]]
    return dataclasses.replace(found, props=props)


def _with(found: Declared, keys: list[Any], value: Any) -> Declared:
    props = copy.deepcopy(dict(found.props))
    inner: Any = props
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    return dataclasses.replace(found, props=props)


def _other(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    return [*value, "more"] if isinstance(value, list) else f"{value}x"
