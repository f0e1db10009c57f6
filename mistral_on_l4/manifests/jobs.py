"""Pods that run one of our Python scripts in the storage-initializer image, mounted from a ConfigMap, and Jobs of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mistral_on_l4.manifests.metadata import REPLACE_FAILED_JOB, RESTRICTED_CONTAINER, labels, metadata

SCRIPTS_FOLDER = "/scripts"
# A Job's pods carry its name as a label.
_MAX_NAME = 63


@dataclass(frozen=True)
class PythonJob:
    """What a Job needs to run `python /scripts/<script>`.

    name: of the Job, carrying a fingerprint of what it does, so that an unchanged one never runs twice; env: container
    environment entries; deadline_seconds: total, over all tries; memory, cpu: limits, requests are the same for memory.
    """

    name: str
    namespace: str
    component: str
    image: str
    script: str
    scripts: str
    service_account: str
    env: Sequence[Mapping[str, Any]]
    deadline_seconds: int
    cpu: str = "2"
    cpu_request: str = "100m"
    memory: str = "512Mi"
    retries: int = 3
    annotations: Mapping[str, Any] = field(default_factory=dict)
    pod_labels: Mapping[str, str] = field(default_factory=dict)
    ca_secret: str | None = None
    pull_secret: str | None = None


def job_name(does: str, to: str, mark: str) -> str:
    """<does>-<to>-<mark>; `to`, which people chose, is cut and spelled as Kubernetes takes it. mark: differs where `to` does."""
    plain = re.sub(r"[^a-z0-9]+", "-", to.lower())[: _MAX_NAME - len(does) - len(mark) - 2].strip("-")
    return f"{does}-{plain}-{mark}"


def value(name: str, value: Any) -> dict[str, Any]:
    return {"name": name, "value": value}


def from_secret(name: str, secret: str, key: str, optional: bool = False) -> dict[str, Any]:
    reference: dict[str, Any] = {"name": secret, "key": key}
    if optional:
        reference["optional"] = True
    return {"name": name, "valueFrom": {"secretKeyRef": reference}}


def from_field(name: str, path: str) -> dict[str, Any]:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def script_pod(
    component: str,
    image: str,
    script: str,
    scripts: str,
    service_account: str,
    env: Sequence[Mapping[str, Any]],
    resources: Mapping[str, Any],
    pull_secret: str | None = None,
) -> dict[str, Any]:
    """Spec of a pod whose one container, named after the component, runs `python /scripts/<script>` of ConfigMap `scripts`."""
    container = {
        "name": component,
        "image": image,
        "command": ["python", f"{SCRIPTS_FOLDER}/{script}"],
        "env": [
            value("HOME", "/tmp"),
            value("PYTHONUNBUFFERED", "1"),
            value("PYTHONDONTWRITEBYTECODE", "1"),
            from_field("POD_NAME", "metadata.name"),
            from_field("POD_NAMESPACE", "metadata.namespace"),
            *env,
        ],
        "resources": dict(resources),
        "securityContext": {**RESTRICTED_CONTAINER, "runAsUser": 1000, "readOnlyRootFilesystem": True},
        # The script's own sentence is what `pulumi up` and `kubectl describe` show when it fails.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "scripts", "mountPath": SCRIPTS_FOLDER, "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    }
    pod: dict[str, Any] = {
        "serviceAccountName": service_account,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 1000,
            "runAsGroup": 1000,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [
            {"name": "scripts", "configMap": {"name": scripts, "defaultMode": 0o444}},
            {"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}},
        ],
    }
    if pull_secret:
        pod["imagePullSecrets"] = [{"name": pull_secret}]
    return pod


def python_job(job: PythonJob) -> tuple[dict[str, Any], dict[str, Any]]:
    """(metadata, spec) of the Job. It has no ttl: a Job that vanishes would look like one that never ran."""
    tags = labels(job.component, "job")
    resources = {
        "requests": {"cpu": job.cpu_request, "memory": job.memory},
        "limits": {"cpu": job.cpu, "memory": job.memory},
    }
    pod = script_pod(job.component, job.image, job.script, job.scripts, job.service_account, job.env, resources, job.pull_secret)
    pod["restartPolicy"] = "Never"
    if job.ca_secret:
        secret = {"secretName": job.ca_secret, "items": [{"key": "ca.crt", "path": "ca.crt"}]}
        pod["volumes"].append({"name": "ca", "secret": secret})
        pod["containers"][0]["volumeMounts"].append({"name": "ca", "mountPath": "/etc/store-ca", "readOnly": True})
    template: dict[str, Any] = {"metadata": {"labels": {**tags, **job.pod_labels}}, "spec": pod}
    if job.annotations:
        template["metadata"]["annotations"] = dict(job.annotations)
    # Our scripts try again by themselves what may pass; with exit code 1 they have given up and said why. What is tried again here
    # is a pod that was killed: out of memory, or told to stop. One that had to make room, or went with its node, does not count.
    disrupted = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    own_failure = {"action": "FailJob", "onExitCodes": {"containerName": job.component, "operator": "In", "values": [1]}}
    spec = {
        "backoffLimit": job.retries,
        "activeDeadlineSeconds": job.deadline_seconds,
        "podFailurePolicy": {"rules": [disrupted, own_failure]},
        "template": template,
    }
    return metadata(job.name, job.namespace, tags, REPLACE_FAILED_JOB), spec
