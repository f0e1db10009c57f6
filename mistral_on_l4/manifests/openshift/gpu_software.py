"""What makes a GPU node usable on OpenShift: feature discovery, driver and device plugin; and the console's dashboard of GPUs."""

from __future__ import annotations

import json
from typing import Any

from mistral_on_l4.config.names import GPU_RESOURCE, STACK_LABEL
from mistral_on_l4.manifests.metadata import MANAGER_LABELS, SKIP_AWAIT, manifest, metadata
from mistral_on_l4.manifests.openshift.names import GPU_API, NFD_API
from mistral_on_l4.manifests.openshift.operators import NFD

DISCOVERY = "nfd-instance"
CLUSTER_POLICY = "gpu-cluster-policy"
DASHBOARD = "nvidia-dcgm-exporter-dashboard"
DASHBOARD_NAMESPACE = "openshift-config-managed"
# Without it the workers of NFD, and the driver's pods, never come to a tainted node; its driver is then built for no kernel.
_TOLERATION = {"key": GPU_RESOURCE, "operator": "Exists", "effect": "NoSchedule"}
# PCI classes of network and display controllers and of accelerators; the label has the vendor alone.
_WORKER = """\
core:
  sleepInterval: 60s
sources:
  pci:
    deviceClassWhitelist: ["0200", "03", "12"]
    deviceLabelFields: [vendor]
"""
# (title, query, unit of Grafana's) of the eight panels.
_PANELS = (
    ("GPU temperature", "DCGM_FI_DEV_GPU_TEMP", "celsius"),
    ("GPU temperature, mean", "avg(DCGM_FI_DEV_GPU_TEMP)", "celsius"),
    ("GPU power usage", "DCGM_FI_DEV_POWER_USAGE", "watt"),
    ("GPU power usage, sum", "sum(DCGM_FI_DEV_POWER_USAGE)", "watt"),
    ("GPU SM clock", "DCGM_FI_DEV_SM_CLOCK * 1000000", "hertz"),
    ("GPU utilization", "DCGM_FI_DEV_GPU_UTIL", "percent"),
    ("Framebuffer memory used", "DCGM_FI_DEV_FB_USED * 1048576", "bytes"),
    ("Tensor core utilization", "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", "percentunit"),
)


def feature_discovery() -> dict[str, Any]:
    """Without an image: a pinned one breaks with the cluster's next version."""
    spec = {
        "operand": {"servicePort": 12000},
        "workerTolerations": [dict(_TOLERATION)],
        "workerConfig": {"configData": _WORKER},
    }
    return manifest(NFD_API, "NodeFeatureDiscovery", metadata(DISCOVERY, NFD.namespace), spec=spec)


def cluster_policy(stack: str, driver_version: str | None) -> dict[str, Any]:
    """driver_version: what the engine's CUDA needs; None: the operator's own."""
    driver: dict[str, Any] = {"enabled": True}
    if driver_version:
        driver |= {"repository": "nvcr.io/nvidia", "image": "driver", "version": driver_version}
    spec = {
        "operator": {"defaultRuntime": "crio", "use_ocp_driver_toolkit": True},
        "daemonsets": {
            "updateStrategy": "RollingUpdate",
            "rollingUpdate": {"maxUnavailable": "1"},
            "tolerations": [dict(_TOLERATION)],
        },
        "driver": driver,
        "toolkit": {"enabled": True},
        "devicePlugin": {"enabled": True},
        "dcgm": {"enabled": True},
        "dcgmExporter": {"enabled": True, "serviceMonitor": {"enabled": True}},
        "gfd": {"enabled": True},
        "migManager": {"enabled": True},
        "nodeStatusExporter": {"enabled": True},
    }
    # It is ready when nodes are, and those are awaited themselves (jobs/await_gpus.py).
    meta = metadata(CLUSTER_POLICY, None, {**MANAGER_LABELS, STACK_LABEL: stack}, SKIP_AWAIT)
    return manifest(GPU_API, "ClusterPolicy", meta, spec=spec)


def dashboard() -> dict[str, Any]:
    """The console shows it under Observe > Dashboards."""
    panels = [
        {
            "id": number,
            "title": title,
            "type": "graph",
            "datasource": "prometheus",
            "gridPos": {"h": 8, "w": 12, "x": 12 * ((number - 1) % 2), "y": 8 * ((number - 1) // 2)},
            "yaxes": [{"format": unit, "show": True}, {"show": False}],
            "lines": True,
            "targets": [{"expr": query, "legendFormat": "{{Hostname}} GPU {{gpu}}", "refId": "A"}],
        }
        for number, (title, query, unit) in enumerate(_PANELS, 1)
    ]
    document = {"title": "NVIDIA DCGM Exporter Dashboard", "tags": [], "time": {"from": "now-30m", "to": "now"}, "panels": panels}
    labels = {**MANAGER_LABELS, "console.openshift.io/dashboard": "true", "console.openshift.io/odc-dashboard": "true"}
    meta = metadata(DASHBOARD, DASHBOARD_NAMESPACE, labels)
    return manifest("v1", "ConfigMap", meta, data={"dcgm-exporter-dashboard.json": json.dumps(document, indent=1)})


def monitoring() -> dict[str, Any]:
    """Prometheus for namespaces that are not the cluster's own, such as that of the services."""
    text = "enableUserWorkload: true\n"
    return manifest("v1", "ConfigMap", metadata("cluster-monitoring-config", "openshift-monitoring"), data={"config.yaml": text})
