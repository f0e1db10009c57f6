"""What `local.engine: vllm` amounts to: other defaults of the engine's image and of the checkpoints' revision, nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

LocalEngine = Literal["simulator", "vllm"]
# Upstream's repository of CPU images, at the version that the local cluster runs in place of it.
IMAGE = "docker.io/vllm/vllm-openai-cpu:v0.32.0"
# Branch of the local hub's repositories with a small model that really answers.
REVISION = "smollm2-135m"


def with_engine(values: Mapping[str, Any]) -> dict[str, Any]:
    """A stack's values, services as entries, with the defaults of its local engine. What is given wins; wrong shapes stay."""
    local = values.get("local")
    if values.get("platform") != "local" or not isinstance(local, Mapping) or local.get("engine") != "vllm":
        return dict(values)
    images, services = values.get("images", {}), values.get("services", [])
    changed = dict(values)
    if isinstance(images, Mapping) and isinstance(images.get("overrides", {}), Mapping):
        changed["images"] = {**images, "overrides": {"engine": IMAGE, **images.get("overrides", {})}}
    if isinstance(services, list):
        changed["services"] = [{"revision": REVISION, **entry} if isinstance(entry, Mapping) else entry for entry in services]
    return changed


def is_real(image: str | None) -> bool:
    """Whether an engine image is vLLM itself on the local cluster, and no simulation; by name, behind a mirror too."""
    name = IMAGE.partition("/")[2].rpartition(":")[0]
    return image is not None and image.partition("@")[0].rpartition(":")[0].endswith(name)
