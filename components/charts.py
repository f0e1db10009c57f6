"""Cluster software from its projects' own Helm charts, each at a pinned version, in the order that they need each other.

A chart is installed by Helm's own code (`Release`), since these have hooks and webhooks that must be ready before the next one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pulumi
from pulumi_kubernetes.apiextensions import CustomResource
from pulumi_kubernetes.core.v1 import Namespace
from pulumi_kubernetes.helm.v3 import Release

from mistral_on_l4.config.images import image
from mistral_on_l4.config.names import GPU_PRESENT_LABEL, GPU_TOLERATION, REHEARSAL_CHARTS, STACK_LABEL
from mistral_on_l4.config.settings import ImagesSettings
from mistral_on_l4.manifests.metadata import MANAGER_LABELS, metadata
from mistral_on_l4.manifests.placement import POOLS_ALONE
from mistral_on_l4.planner.hosting import Downloader, downloader


@dataclass(frozen=True)
class Chart:
    """release: what it is called in the cluster; chart: its name in `repository`, or a whole oci:// address.

    version: exactly as the project tags it.
    """

    release: str
    chart: str
    version: str
    namespace: str
    repository: str | None = None

    @property
    def name(self) -> str:
        """As in its Chart.yaml."""
        return self.chart.rpartition("/")[2]


CERT_MANAGER = Chart("cert-manager", "oci://quay.io/jetstack/charts/cert-manager", "v1.21.1", "cert-manager")
KSERVE_CRD = Chart("kserve-crd", "oci://ghcr.io/kserve/charts/kserve-crd", "v0.20.0", "kserve")
KSERVE = Chart("kserve", "oci://ghcr.io/kserve/charts/kserve-resources", "v0.20.0", "kserve")
DEVICE_PLUGIN = Chart(
    "nvidia-device-plugin", "nvidia-device-plugin", "0.20.0", "nvidia", "https://nvidia.github.io/k8s-device-plugin"
)
DCGM_EXPORTER = Chart("dcgm-exporter", "dcgm-exporter", "4.8.2", "nvidia", "https://nvidia.github.io/dcgm-exporter/helm-charts")
CHARTS = (CERT_MANAGER, KSERVE_CRD, KSERVE, DEVICE_PLUGIN, DCGM_EXPORTER)

_TIMEOUT_SECONDS = 600
_GPU_NODES = {GPU_PRESENT_LABEL: "true"}


@dataclass(frozen=True)
class ChartsArgs:
    """downloader: size of the container that downloads a checkpoint into a service's pod; rehearsal: of the account.

    deployment_mode: KServe's, of services that name none.
    """

    images: ImagesSettings
    deployment_mode: str
    downloader: Downloader = field(default_factory=lambda: downloader(()))
    rehearsal: bool = False


class Charts(pulumi.ComponentResource):
    """cert_manager: certificates can be asked for; serving_ready: InferenceServices can be declared; ready: everything
    that serving needs is there.

    What runs the controllers comes before it, in `depends_on`. Destroy goes the other way, so that no object of theirs is left
    without the controller that takes its finalizer off.
    """

    cert_manager: pulumi.Resource
    serving_ready: list[pulumi.Resource]
    ready: list[pulumi.Resource]

    def __init__(self, name: str, args: ChartsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("mistral-on-l4:cluster:Charts", name, None, opts)
        folder = rehearsal_folder(args.rehearsal)
        namespaces = {
            namespace: Namespace(
                f"{name}-{namespace}",
                metadata={"name": namespace, "labels": {**MANAGER_LABELS, STACK_LABEL: pulumi.get_stack()}},
                opts=pulumi.ResourceOptions(parent=self),
            )
            for namespace in sorted({chart.namespace for chart in CHARTS})
        }

        def release(chart: Chart, values: Mapping[str, Any], *after: pulumi.Resource, awaited: bool = True) -> Release:
            return Release(
                f"{name}-{chart.release}",
                name=chart.release,
                **source(chart, folder),
                namespace=chart.namespace,
                values=dict(values),
                # A failed installation is taken back whole, so that the next `pulumi up` starts from nothing.
                atomic=awaited,
                cleanup_on_fail=awaited,
                skip_await=not awaited,
                timeout=_TIMEOUT_SECONDS,
                opts=pulumi.ResourceOptions(parent=self, depends_on=[namespaces[chart.namespace], *after]),
            )

        self.cert_manager = release(CERT_MANAGER, cert_manager_values(args.images))
        definitions = release(KSERVE_CRD, {})
        # The controller's certificate comes from cert-manager; its pod waits for the Secret.
        kserve = release(KSERVE, kserve_values(args), self.cert_manager, definitions)
        storage = CustomResource(
            f"{name}-storage-container",
            api_version="serving.kserve.io/v1alpha1",
            kind="ClusterStorageContainer",
            metadata=metadata("services-with-a-storage-key"),
            spec=storage_container(args),
            opts=pulumi.ResourceOptions(parent=self, depends_on=[kserve]),
        )
        self.serving_ready = [kserve, storage]
        self.ready = [
            self.cert_manager,
            *self.serving_ready,
            release(DEVICE_PLUGIN, device_plugin_values(args.images)),
        ]
        # Metrics never stand in the way of serving: nothing waits for these pods, and their failure fails no `up`.
        release(DCGM_EXPORTER, dcgm_values(args.images), awaited=False)
        self.register_outputs({})


# -- where charts come from --------------------------------------------------------------------------------------------------


def rehearsal_folder(rehearsal: bool) -> Path | None:
    """The folder that a rehearsal takes its charts from; None: from their projects' addresses. Raises pulumi.RunError."""
    folder = os.environ.get(REHEARSAL_CHARTS)
    if not folder:
        return None
    if not rehearsal:
        raise pulumi.RunError(
            f"{REHEARSAL_CHARTS} names {folder}: its charts install nothing that works, and this is no rehearsal but an account "
            f"of AWS; unset it"
        )
    return Path(folder)


def source(chart: Chart, folder: Path | None) -> dict[str, Any]:
    """The arguments of a Release that say which chart it installs."""
    if folder is not None:
        return {"chart": str(folder / chart.name), "version": chart.version}
    found: dict[str, Any] = {"chart": chart.chart, "version": chart.version}
    if chart.repository:
        found["repository_opts"] = {"repo": chart.repository}
    return found


# -- what they are told ------------------------------------------------------------------------------------------------------


def cert_manager_values(images: ImagesSettings) -> dict[str, Any]:
    values: dict[str, Any] = {
        # By default the chart's uninstallation would leave them behind.
        "crds": {"enabled": True, "keep": False},
        "resources": _resources("10m", "64Mi", "256Mi"),
        "webhook": {"resources": _resources("10m", "32Mi", "128Mi")},
        "cainjector": {"resources": _resources("10m", "64Mi", "512Mi")},
    }
    if images.mirror:
        base = "quay.io/jetstack/cert-manager"
        values["image"] = {"repository": _mirrored(f"{base}-controller", images)}
        for part in ("webhook", "cainjector", "startupapicheck", "acmesolver"):
            values.setdefault(part, {})["image"] = {"repository": _mirrored(f"{base}-{part}", images)}
    return values


def kserve_values(args: ChartsArgs) -> dict[str, Any]:
    # What is downloaded by an address of its own; a service that names a storage key gets `storage_container` instead.
    storage: dict[str, Any] = {"resources": _download_resources(args)}
    controller: dict[str, Any] = {
        "deploymentMode": args.deployment_mode,
        # Nothing is exposed by KServe itself: no ingress controller is needed, and none is asked for.
        "gateway": {"disableIngressCreation": True},
    }
    if args.images.mirror:
        storage["image"] = _mirrored("docker.io/kserve/storage-initializer", args.images)
        controller["image"] = _mirrored("docker.io/kserve/kserve-controller", args.images)
        # The chart's own version of it: it stands in one value with the name.
        controller["rbacProxyImage"] = _mirrored("quay.io/brancz/kube-rbac-proxy:v0.18.0", args.images)
    return {"kserve": {"controller": controller, "storage": storage}}


def storage_container(args: ChartsArgs) -> dict[str, Any]:
    """The spec of a ClusterStorageContainer for services that name a storage key and a path.

    Up to v0.20 the chart's resources reach only services with an address such as s3://: with a key, the address that KServe looks
    containers up by begins with its own placeholder, none of the chart's formats fits, and 1 CPU and 1 GiB are built in
    (pkg/controller/v1beta1/inferenceservice/components/component.go, pkg/credentials/service_account_credentials.go).
    """
    return {
        "container": {"name": "storage-initializer", "resources": _download_resources(args)},
        "supportedUriFormats": [{"prefix": "<scheme-placeholder>://"}],
        "supportsMultiModelDownload": True,
        "workloadType": "initContainer",
    }


def _download_resources(args: ChartsArgs) -> dict[str, Any]:
    """With 1 CPU and 1 GiB a 47 GB checkpoint is slow, and at times killed. What it requests, the model's container does later."""
    size = {"cpu": str(args.downloader.cores), "memory": f"{args.downloader.memory_gib}Gi"}
    return {"requests": size, "limits": dict(size)}


def device_plugin_values(images: ImagesSettings) -> dict[str, Any]:
    values: dict[str, Any] = {
        # The chart's own affinity looks for labels of Node Feature Discovery, or for this one, which our pools carry.
        "nodeSelector": _GPU_NODES,
        "affinity": POOLS_ALONE,
        "tolerations": [dict(GPU_TOLERATION)],
        "resources": _resources("10m", "64Mi", "128Mi"),
    }
    if images.mirror:
        values["image"] = {"repository": _mirrored("nvcr.io/nvidia/k8s-device-plugin", images)}
    return values


def dcgm_values(images: ImagesSettings) -> dict[str, Any]:
    values: dict[str, Any] = {
        # By default it keeps off tainted nodes, and crashes on those without a GPU.
        "nodeSelector": _GPU_NODES,
        "affinity": POOLS_ALONE,
        "tolerations": [dict(GPU_TOLERATION)],
        # Its kind exists only where the Prometheus operator is installed.
        "serviceMonitor": {"enabled": False},
        # It settles close to 512 MiB, the chart's limit.
        "resources": _resources("100m", "256Mi", "1Gi"),
    }
    if images.mirror:
        values["image"] = {"repository": _mirrored("nvcr.io/nvidia/k8s/dcgm-exporter", images)}
    return values


def _resources(cpu: str, memory: str, limit: str) -> dict[str, Any]:
    return {"requests": {"cpu": cpu, "memory": memory}, "limits": {"memory": limit}}


def _mirrored(reference: str, images: ImagesSettings) -> str:
    return image("charts", images, reference)
