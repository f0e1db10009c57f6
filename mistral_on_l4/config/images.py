"""Container images of the stack, pinned in one place. The engine's image is the planner's catalogue's."""

from __future__ import annotations

from mistral_on_l4.config.settings import ImagesSettings

PINNED = {
    # The last server image that was published; quay.io only, since Docker Hub's minio organisation is gone (2026-09).
    "minio": "quay.io/minio/minio:RELEASE.2025-09-07T16-13-09Z"
    "@sha256:14cea493d9a34af32f524e538b8346cf79f3321eff8e708c1e2960462bd8936e",
    "mc": "quay.io/minio/mc:RELEASE.2025-08-13T08-35-41Z",
    # Jobs run in KServe's own image: Python 3.11 with boto3, huggingface_hub and requests, already on the nodes.
    "jobs": "docker.io/kserve/storage-initializer:v0.20.0",
    "registry": "ghcr.io/kubeflow/model-registry/server:v0.3.8",
    "postgres": "docker.io/library/postgres:16-alpine",
}


def image(role: str, settings: ImagesSettings, pinned: str | None = None) -> str:
    """The reference to pull for a role: an override, or the pinned one, behind the mirror if there is one.

    A mirror replaces the registry's host and keeps the rest: quay.io/minio/mc:X becomes MIRROR/minio/mc:X.
    """
    if role in settings.overrides:
        return settings.overrides[role]
    reference = pinned or PINNED[role]
    if settings.mirror:
        host, _, rest = reference.partition("/")
        path = rest if "." in host or ":" in host else reference
        return f"{settings.mirror.rstrip('/')}/{path}"
    return reference
