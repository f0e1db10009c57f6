"""Pods that run a module of mistral_on_l4/jobs in the storage-initializer image, and Jobs of such pods."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mistral_on_l4.manifests.metadata import REPLACE_FAILED_JOB, labels, manifest, metadata
from mistral_on_l4.manifests.scripts import Sources
from mistral_on_l4.manifests.security import PodUserIds, container_security, pod_security

SCRIPTS_FOLDER = "/scripts"
AUTHORITY_FOLDER = "/etc/store-ca"
# What the image runs as by itself.
_IDS = {"runAsUser": 1000, "runAsGroup": 1000}
# A Job's pods carry its name as a label.
_MAX_NAME = 63


@dataclass(frozen=True)
class Program:
    """What a pod runs: `python -m <module>`, with the sources mounted from a ConfigMap.

    config_map: its name; ca_secret: with the certificate of the authority that the object store's own is from.
    """

    sources: Sources
    config_map: str
    namespace: str
    image: str
    service_account: str
    ca_secret: str | None = None
    pull_secret: str | None = None
    user_ids: PodUserIds = "fixed"


@dataclass(frozen=True)
class PythonJob:
    """A Job of a program.

    name: carries a fingerprint of what the Job does, so that an unchanged one never runs twice; component: also the container's
    name; env: container environment entries; deadline_seconds: total, over all tries; memory, cpu: limits, requests are the same
    for memory; annotations, pod_labels: of the pod.
    """

    name: str
    component: str
    program: Program
    env: Sequence[Mapping[str, Any]]
    deadline_seconds: int
    cpu: str = "2"
    cpu_request: str = "100m"
    memory: str = "512Mi"
    retries: int = 3
    annotations: Mapping[str, Any] = field(default_factory=dict)
    pod_labels: Mapping[str, str] = field(default_factory=dict)


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


def script_pod(component: str, program: Program, env: Sequence[Mapping[str, Any]], resources: Mapping[str, Any]) -> dict[str, Any]:
    """Spec of a pod whose one container, named after the component, runs the program."""
    container: dict[str, Any] = {
        "name": component,
        "image": program.image,
        "command": ["python", "-m", program.sources.module],
        "env": [
            value("HOME", "/tmp"),
            value("PYTHONPATH", SCRIPTS_FOLDER),
            value("PYTHONUNBUFFERED", "1"),
            value("PYTHONDONTWRITEBYTECODE", "1"),
            from_field("POD_NAME", "metadata.name"),
            from_field("POD_NAMESPACE", "metadata.namespace"),
            *env,
        ],
        "resources": dict(resources),
        "securityContext": container_security(program.user_ids, {"runAsUser": _IDS["runAsUser"]}, read_only=True),
        # The program's own sentence is what `pulumi up` and `kubectl describe` show when it fails.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "scripts", "mountPath": SCRIPTS_FOLDER, "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    }
    scripts = {"name": program.config_map, "defaultMode": 0o444, "items": program.sources.items}
    volumes: list[dict[str, Any]] = [
        {"name": "scripts", "configMap": scripts},
        {"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}},
    ]
    if program.ca_secret:
        secret = {"secretName": program.ca_secret, "items": [{"key": "ca.crt", "path": "ca.crt"}]}
        volumes.append({"name": "ca", "secret": secret})
        container["volumeMounts"].append({"name": "ca", "mountPath": AUTHORITY_FOLDER, "readOnly": True})
        container["env"].append(value("AWS_CA_BUNDLE", f"{AUTHORITY_FOLDER}/ca.crt"))
    pod: dict[str, Any] = {
        "serviceAccountName": program.service_account,
        "securityContext": pod_security(program.user_ids, _IDS),
        "containers": [container],
        "volumes": volumes,
    }
    if program.pull_secret:
        pod["imagePullSecrets"] = [{"name": program.pull_secret}]
    return pod


def python_job(job: PythonJob) -> dict[str, Any]:
    """The Job. It has no ttl: a Job that vanishes would look like one that never ran."""
    tags = labels(job.component, "job")
    resources = {
        "requests": {"cpu": job.cpu_request, "memory": job.memory},
        "limits": {"cpu": job.cpu, "memory": job.memory},
    }
    pod = script_pod(job.component, job.program, job.env, resources)
    pod["restartPolicy"] = "Never"
    template: dict[str, Any] = {"metadata": {"labels": {**tags, **job.pod_labels}}, "spec": pod}
    if job.annotations:
        template["metadata"]["annotations"] = dict(job.annotations)
    # Our jobs try again by themselves what may pass; with exit code 1 they have given up and said why. What is tried again here
    # is a pod that was killed: out of memory, or told to stop. One that had to make room, or went with its node, does not count.
    disrupted = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    own_failure = {"action": "FailJob", "onExitCodes": {"containerName": job.component, "operator": "In", "values": [1]}}
    spec = {
        "backoffLimit": job.retries,
        "activeDeadlineSeconds": job.deadline_seconds,
        "podFailurePolicy": {"rules": [disrupted, own_failure]},
        "template": template,
    }
    return manifest("batch/v1", "Job", metadata(job.name, job.program.namespace, tags, REPLACE_FAILED_JOB), spec=spec)
