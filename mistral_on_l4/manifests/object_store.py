"""MinIO: one server with one volume, a plain user for writing and one for reading, both held to one bucket.

MinIO's last published images lack the fix for CVE-2025-62506, a privilege hole of service accounts and session policies: so
users here are plain users with a policy each, and the console is off.
"""

from __future__ import annotations

import json
from typing import Any

from mistral_on_l4.config.names import READER_SECRET, WRITER_SECRET
from mistral_on_l4.manifests.jobs import from_secret, value
from mistral_on_l4.manifests.metadata import (
    KEYS_ANNOTATION,
    REPLACE_FAILED_JOB,
    SKIP_AWAIT,
    labels,
    manifest,
    metadata,
    selector,
)
from mistral_on_l4.manifests.security import PodUserIds, container_security, pod_security
from mistral_on_l4.manifests.serving import Placement
from mistral_on_l4.manifests.volumes import single_server

NAME = "minio"
PORT = 9000
ROOT_SECRET = "minio-root"
SETUP_CONFIG = "minio-setup"
_TAGS = labels(NAME, "object-store")
_SELECTOR = selector(NAME, "object-store")
# Any user but root will do: neither image names one.
_UID = 1000
# mc saves its configuration with every command.
_MC_FOLDER = "/mc"

# Seeding holds multipart uploads open, and lists, continues and aborts them.
WRITER_ACTIONS = (
    "s3:GetObject",
    "s3:PutObject",
    "s3:DeleteObject",
    "s3:AbortMultipartUpload",
    "s3:ListMultipartUploadParts",
)
WRITER_BUCKET_ACTIONS = ("s3:ListBucket", "s3:GetBucketLocation", "s3:ListBucketMultipartUploads")
READER_ACTIONS = ("s3:GetObject",)
READER_BUCKET_ACTIONS = ("s3:ListBucket", "s3:GetBucketLocation")


def bucket_policy(bucket: str, bucket_actions: tuple[str, ...], object_actions: tuple[str, ...]) -> str:
    """An S3 policy document, as JSON, that allows the actions in one bucket and nothing else."""
    statements = [
        {"Effect": "Allow", "Action": list(bucket_actions), "Resource": [f"arn:aws:s3:::{bucket}"]},
        {"Effect": "Allow", "Action": list(object_actions), "Resource": [f"arn:aws:s3:::{bucket}/*"]},
    ]
    return json.dumps({"Version": "2012-10-17", "Statement": statements}, indent=2)


def service(namespace: str) -> dict[str, Any]:
    """It is ready when it has endpoints; it is declared with the pods, and neither waits for the other."""
    spec = {"selector": _SELECTOR, "ports": [{"name": "s3", "port": PORT, "targetPort": "s3"}]}
    return manifest("v1", "Service", metadata(NAME, namespace, _TAGS, SKIP_AWAIT), spec=spec)


def stateful_set(
    namespace: str,
    image: str,
    claim: Any,
    tls_secret: str | None = None,
    pull_secret: str | None = None,
    placement: Placement | None = None,
    keys: Any = None,
    user_ids: PodUserIds = "fixed",
) -> dict[str, Any]:
    """claim: name of the one that the bucket is on; keys: mark of the root user's, which the server reads when it starts."""
    scheme = "HTTPS" if tls_secret else "HTTP"
    args = ["server", "/data", "--address", f":{PORT}"]
    mounts: list[dict[str, Any]] = [{"name": "data", "mountPath": "/data"}]
    volumes: list[dict[str, Any]] = []
    if tls_secret:
        args += ["--certs-dir", "/certs"]
        mounts.append({"name": "certs", "mountPath": "/certs", "readOnly": True})
        # MinIO makes a folder CAs there, which a Secret's volume does not allow, unless there is one.
        files = {"tls.crt": "public.crt", "tls.key": "private.key", "ca.crt": "CAs/ca.crt"}
        items = [{"key": key, "path": path} for key, path in files.items()]
        volumes.append({"name": "certs", "secret": {"secretName": tls_secret, "items": items}})

    def probe(path: str, **timing: int) -> dict[str, Any]:
        return {"httpGet": {"path": path, "port": "s3", "scheme": scheme}, **timing}

    container = {
        "name": NAME,
        "image": image,
        "args": args,
        "env": [
            from_secret("MINIO_ROOT_USER", ROOT_SECRET, "user"),
            from_secret("MINIO_ROOT_PASSWORD", ROOT_SECRET, "password"),
            value("MINIO_BROWSER", "off"),
        ],
        "ports": [{"name": "s3", "containerPort": PORT}],
        "startupProbe": probe("/minio/health/live", periodSeconds=1, failureThreshold=120, timeoutSeconds=5),
        # One server is ready as soon as it lives (MinIO answers both alike then), and the local store knows one health path.
        "readinessProbe": probe("/minio/health/live", periodSeconds=5, failureThreshold=3, timeoutSeconds=5),
        # A small MinIO that streams shards answers slowly; six failures keep its probes from killing it.
        "livenessProbe": probe("/minio/health/live", periodSeconds=15, failureThreshold=6, timeoutSeconds=5),
        "resources": {"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"cpu": "2", "memory": "4Gi"}},
        "securityContext": container_security(user_ids, {"runAsUser": _UID}),
        "volumeMounts": mounts,
    }
    pod: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "securityContext": {
            **pod_security(user_ids, {"runAsUser": _UID, "runAsGroup": _UID, "fsGroup": _UID}),
            "fsGroupChangePolicy": "OnRootMismatch",
        },
        "containers": [container],
        "terminationGracePeriodSeconds": 30,
    }
    if volumes:
        pod["volumes"] = volumes
    if placement:
        pod["nodeSelector"] = dict(placement.node_selector)
        pod["tolerations"] = [dict(toleration) for toleration in placement.tolerations]
    if pull_secret:
        pod["imagePullSecrets"] = [{"name": pull_secret}]
    annotations = None if keys is None else {KEYS_ANNOTATION: keys}
    return single_server(NAME, namespace, _TAGS, _SELECTOR, pod, claim, annotations)


def network_policy(namespace: str, client_namespaces: tuple[str, ...]) -> dict[str, Any]:
    peers = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}} for name in client_namespaces]
    ports = [{"protocol": "TCP", "port": PORT}]
    spec = {
        "podSelector": {"matchLabels": _SELECTOR},
        "policyTypes": ["Ingress"],
        "ingress": [{"from": [*peers, {"podSelector": {}}], "ports": ports}],
    }
    return manifest("networking.k8s.io/v1", "NetworkPolicy", metadata(NAME, namespace, _TAGS), spec=spec)


# Secrets reach mc by its environment and its standard input, never as arguments. `attach` fails when there is nothing to change;
# that is success. Each user's policy has the name of the Secret with the user's keys.
SETUP_SCRIPT = (
    """\
set -eu
mc ready store
mc mb --ignore-existing "store/$BUCKET"
grant() {
  mc admin policy create store "$1" "/setup/$1.json"
  printf '%s\\n%s\\n' "$2" "$3" | mc admin user add store
  answer=$(mc admin policy attach store "$1" --user "$2" 2>&1) || case "$answer" in
    *"already in effect"*) ;;
    *) echo "$answer" >&2; exit 1 ;;
  esac
}
"""
    f"""\
grant {WRITER_SECRET} "$WRITER_ACCESS_KEY" "$WRITER_SECRET_KEY"
grant {READER_SECRET} "$READER_ACCESS_KEY" "$READER_SECRET_KEY"
"""
    """\
echo "bucket $BUCKET is ready, with a writer and a reader"
"""
)


def setup_data(bucket: str) -> dict[str, str]:
    """ConfigMap data of the setup Job: the script and both policies."""
    return {
        "setup.sh": SETUP_SCRIPT,
        f"{WRITER_SECRET}.json": bucket_policy(bucket, WRITER_BUCKET_ACTIONS, WRITER_ACTIONS),
        f"{READER_SECRET}.json": bucket_policy(bucket, READER_BUCKET_ACTIONS, READER_ACTIONS),
    }


def setup_job(
    name: str,
    namespace: str,
    image: str,
    bucket: str,
    store_uid: Any,
    keys: Any,
    ca_secret: str | None = None,
    pull_secret: str | None = None,
    user_ids: PodUserIds = "fixed",
) -> dict[str, Any]:
    """The Job that makes bucket and users.

    `store_uid` and `keys`, the mark of all users' keys, make it run again when the volume is a new one, and when a key is.
    """
    tags = labels("minio-setup", "job")
    volumes: list[dict[str, Any]] = [
        {"name": "setup", "configMap": {"name": SETUP_CONFIG}},
        {"name": "tmp", "emptyDir": {"sizeLimit": "16Mi"}},
        {"name": "mc", "emptyDir": {"sizeLimit": "16Mi"}},
    ]
    mounts: list[dict[str, Any]] = [
        {"name": "setup", "mountPath": "/setup", "readOnly": True},
        {"name": "tmp", "mountPath": "/tmp"},
        # Its own volume: the runtime makes missing parents of a mount as root, and in those mc could not write.
        {"name": "mc", "mountPath": _MC_FOLDER},
    ]
    if ca_secret:
        # mc trusts what lies in certs/CAs of its configuration folder.
        mounts.append({"name": "ca", "mountPath": f"{_MC_FOLDER}/certs/CAs", "readOnly": True})
        volumes.append({"name": "ca", "secret": {"secretName": ca_secret, "items": [{"key": "ca.crt", "path": "ca.crt"}]}})
    container = {
        "name": "mc",
        "image": image,
        "command": ["/bin/sh", "/setup/setup.sh"],
        "env": [
            value("MC_CONFIG_DIR", _MC_FOLDER),
            value("BUCKET", bucket),
            from_secret("MC_HOST_store", ROOT_SECRET, "mc-host"),
            from_secret("WRITER_ACCESS_KEY", WRITER_SECRET, "AWS_ACCESS_KEY_ID"),
            from_secret("WRITER_SECRET_KEY", WRITER_SECRET, "AWS_SECRET_ACCESS_KEY"),
            from_secret("READER_ACCESS_KEY", READER_SECRET, "AWS_ACCESS_KEY_ID"),
            from_secret("READER_SECRET_KEY", READER_SECRET, "AWS_SECRET_ACCESS_KEY"),
        ],
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"cpu": "500m", "memory": "256Mi"}},
        "securityContext": container_security(user_ids, {"runAsUser": _UID}),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    }
    pod: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "restartPolicy": "Never",
        "securityContext": pod_security(user_ids, {"runAsUser": _UID}),
        "containers": [container],
        "volumes": volumes,
    }
    if pull_secret:
        pod["imagePullSecrets"] = [{"name": pull_secret}]
    annotations = {"mistral-on-l4/store-uid": store_uid, KEYS_ANNOTATION: keys}
    template = {"metadata": {"labels": tags, "annotations": annotations}, "spec": pod}
    spec = {"backoffLimit": 5, "activeDeadlineSeconds": 600, "template": template}
    return manifest("batch/v1", "Job", metadata(name, namespace, tags, REPLACE_FAILED_JOB), spec=spec)
