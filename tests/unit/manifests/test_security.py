"""Users that pods run as: ours, or the platform's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from mistral_on_l4.manifests import object_store, postgres, registry, serving
from mistral_on_l4.manifests.jobs import Program, PythonJob, python_job
from mistral_on_l4.manifests.scripts import sources
from mistral_on_l4.manifests.security import PodUserIds
from mistral_on_l4.manifests.serving import Placement, ServiceSpec

IDS = {"runAsUser", "runAsGroup", "fsGroup"}


def pods(user_ids: PodUserIds) -> dict[str, dict[str, Any]]:
    """Every object of ours with a pod in it, by name."""
    spec = ServiceSpec(
        "service", "ns", "prefix/", "o/r@main", (), {}, {}, Placement({}), 60, 300, 1.0, 1.0, None, user_ids=user_ids
    )
    job = PythonJob("n", "check-service", Program(sources("check_service"), "s", "ns", "i", "a", user_ids=user_ids), [], 60)
    return {
        "store": object_store.stateful_set("ns", "i", "claim", user_ids=user_ids),
        "setup": object_store.setup_job("n", "ns", "i", "bucket", "uid", "keys", user_ids=user_ids),
        "database": postgres.stateful_set("ns", "i", "secret", "claim", user_ids=user_ids),
        "registry": registry.deployment("registry", "ns", "i", [], user_ids=user_ids),
        "runtime": serving.serving_runtime("ns", "i", "1Gi", user_ids),
        "service": serving.inference_service(spec, {}),
        "job": python_job(job),
    }


def contexts(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield from [value["securityContext"]] if "securityContext" in value else []
        yield from (found for item in value.values() for found in contexts(item))
    elif isinstance(value, list):
        yield from (found for item in value for found in contexts(item))


@pytest.mark.parametrize("name", pods("fixed"))
def test_a_platform_that_assigns_users_is_asked_for_none(name: str) -> None:
    fixed, assigned = (list(contexts(pods(user_ids)[name])) for user_ids in ("fixed", "assigned"))
    assert any(IDS & set(context) for context in fixed)
    # Everything else is the same: who runs as any user still may not run as root.
    assert assigned == [{key: value for key, value in context.items() if key not in IDS} for context in fixed]
    assert all(context["runAsNonRoot"] for context in assigned)
