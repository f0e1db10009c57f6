"""The Deployment whose deletion lasts until the stack's volumes are deleted; see jobs/await_volumes.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mistral_on_l4.manifests.jobs import Program, script_pod, value
from mistral_on_l4.manifests.metadata import labels, manifest, metadata, selector

NAME = "volume-guard"
# Detaching and deleting a volume takes EBS a minute; after ten nobody is deleting it.
AWAIT_SECONDS = 600
GRACE_SECONDS = AWAIT_SECONDS + 30


def deployment(program: Program, namespaces: Sequence[str]) -> dict[str, Any]:
    """namespaces: whose claims' volumes are awaited."""
    tags = labels(NAME, "storage")
    env = [value("VOLUME_NAMESPACES", ",".join(namespaces)), value("VOLUME_SECONDS", str(AWAIT_SECONDS))]
    # It sleeps; what it may take beyond is for its start.
    resources = {"requests": {"cpu": "5m", "memory": "48Mi"}, "limits": {"cpu": "1", "memory": "128Mi"}}
    pod = script_pod(NAME, program, env, resources)
    pod["terminationGracePeriodSeconds"] = GRACE_SECONDS
    # It sleeps, so that being there is being alive; it is ready once it may read what its end depends on.
    probe = {"exec": {"command": ["test", "-f", "/tmp/ready"]}, "periodSeconds": 5}
    pod["containers"][0] |= {
        "readinessProbe": dict(probe),
        "livenessProbe": {**probe, "initialDelaySeconds": 120, "periodSeconds": 60},
    }
    spec = {
        "replicas": 1,
        "selector": {"matchLabels": selector(NAME, "storage")},
        "template": {"metadata": {"labels": tags}, "spec": pod},
    }
    return manifest("apps/v1", "Deployment", metadata(NAME, program.namespace, tags), spec=spec)


def network_policy(namespace: str) -> dict[str, Any]:
    """It serves nobody, so nobody is let in."""
    spec = {"podSelector": {"matchLabels": selector(NAME, "storage")}, "policyTypes": ["Ingress"], "ingress": []}
    return manifest("networking.k8s.io/v1", "NetworkPolicy", metadata(NAME, namespace), spec=spec)


def rules() -> list[dict[str, Any]]:
    """What its account may do, in the whole cluster."""
    return [
        {"apiGroups": [""], "resources": ["persistentvolumes"], "verbs": ["list"]},
        {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get"]},
    ]
