"""Cluster software from its projects' own Helm charts, each at a pinned version, in the order that they need each other.

A chart is installed by Helm's own code (`Release`), since these have hooks and webhooks that must be ready before the next one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_kubernetes as k8s

from components.aws.gpu_node_pool import POOLS_ALONE
from components.kubernetes import Namespace
from mistral_on_l4.config.images import image
from mistral_on_l4.config.names import STACK_LABEL
from mistral_on_l4.config.settings import ImagesSettings
from mistral_on_l4.manifests.metadata import MANAGER_LABELS


@dataclass(frozen=True)
class Chart:
    """chart: its name in `repository`, or a whole oci:// address; version: exactly as the project tags it."""

    name: str
    chart: str
    version: str
    namespace: str
    repository: str | None = None


CERT_MANAGER = Chart("cert-manager", "oci://quay.io/jetstack/charts/cert-manager", "v1.21.1", "cert-manager")
KSERVE_CRD = Chart("kserve-crd", "oci://ghcr.io/kserve/charts/kserve-crd", "v0.20.0", "kserve")
KSERVE = Chart("kserve", "oci://ghcr.io/kserve/charts/kserve-resources", "v0.20.0", "kserve")
DEVICE_PLUGIN = Chart(
    "nvidia-device-plugin", "nvidia-device-plugin", "0.20.0", "nvidia", "https://nvidia.github.io/k8s-device-plugin"
)
DCGM_EXPORTER = Chart("dcgm-exporter", "dcgm-exporter", "4.8.2", "nvidia", "https://nvidia.github.io/dcgm-exporter/helm-charts")
CHARTS = (CERT_MANAGER, KSERVE_CRD, KSERVE, DEVICE_PLUGIN, DCGM_EXPORTER)

_TIMEOUT_SECONDS = 600
_GPU_NODES = {"nvidia.com/gpu.present": "true"}
_GPU_TOLERATION = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}


@dataclass(frozen=True)
class ChartsArgs:
    """storage_memory: limit of the container that downloads a checkpoint into a service's pod."""

    images: ImagesSettings
    deployment_mode: str
    storage_memory: str = "4Gi"


class Charts(pulumi.ComponentResource):
    """cert_manager: certificates can be asked for; serving_ready: InferenceServices can be declared; ready: everything is there.

    Destroy goes the other way, so that no object of theirs is left without the controller that takes its finalizer off.
    """

    cert_manager: pulumi.Resource
    serving_ready: list[pulumi.Resource]
    ready: list[pulumi.Resource]

    def __init__(
        self,
        name: str,
        args: ChartsArgs,
        provider: k8s.Provider,
        depends_on: Sequence[pulumi.Resource],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """depends_on: nodes that run the controllers."""
        super().__init__("mistral-on-l4:cluster:Charts", name, None, opts)
        self._name, self._provider = name, provider
        self._namespaces = {
            namespace: Namespace(
                f"{name}-{namespace}",
                metadata={"name": namespace, "labels": {**MANAGER_LABELS, STACK_LABEL: pulumi.get_stack()}},
                opts=pulumi.ResourceOptions(parent=self, provider=provider, depends_on=[*depends_on]),
            )
            for namespace in sorted({chart.namespace for chart in CHARTS})
        }
        self.cert_manager = self._release(CERT_MANAGER, cert_manager_values(args.images))
        definitions = self._release(KSERVE_CRD, {})
        # The controller's certificate comes from cert-manager; its pod waits for the Secret.
        kserve = self._release(KSERVE, kserve_values(args), self.cert_manager, definitions)
        self.serving_ready = [kserve]
        gpu = [
            self._release(DEVICE_PLUGIN, device_plugin_values(args.images)),
            self._release(DCGM_EXPORTER, dcgm_values(args.images)),
        ]
        self.ready = [self.cert_manager, kserve, *gpu]
        self.register_outputs({})

    def _release(self, chart: Chart, values: Mapping[str, Any], *after: pulumi.Resource) -> k8s.helm.v3.Release:
        return k8s.helm.v3.Release(
            f"{self._name}-{chart.name}",
            name=chart.name,
            chart=chart.chart,
            version=chart.version,
            namespace=chart.namespace,
            repository_opts={"repo": chart.repository} if chart.repository else None,
            values=dict(values),
            # A failed installation is taken back whole, so that the next `pulumi up` starts from nothing.
            atomic=True,
            cleanup_on_fail=True,
            timeout=_TIMEOUT_SECONDS,
            opts=pulumi.ResourceOptions(
                parent=self, provider=self._provider, depends_on=[self._namespaces[chart.namespace], *after]
            ),
        )


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
    storage: dict[str, Any] = {
        # Four files at a time; with the chart's 1 CPU and 1 GiB a 47 GB checkpoint is slow, and at times killed.
        "resources": {"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"cpu": "4", "memory": args.storage_memory}}
    }
    controller: dict[str, Any] = {
        "deploymentMode": args.deployment_mode,
        # Nothing is exposed by KServe itself: no ingress controller is needed, and none is asked for.
        "gateway": {"disableIngressCreation": True},
    }
    if args.images.mirror:
        storage["image"] = _mirrored("docker.io/kserve/storage-initializer", args.images)
        controller["image"] = _mirrored("docker.io/kserve/kserve-controller", args.images)
    return {"kserve": {"controller": controller, "storage": storage}}


def device_plugin_values(images: ImagesSettings) -> dict[str, Any]:
    values: dict[str, Any] = {
        # The chart's own affinity looks for labels of Node Feature Discovery, or for this one, which our pools carry.
        "nodeSelector": _GPU_NODES,
        "affinity": POOLS_ALONE,
        "tolerations": [_GPU_TOLERATION],
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
        "tolerations": [_GPU_TOLERATION],
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


def _mirrored(repository: str, images: ImagesSettings) -> str:
    return image("charts", images, repository)
