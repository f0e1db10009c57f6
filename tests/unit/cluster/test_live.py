"""How a service is seen from outside."""

from __future__ import annotations

from typing import Any
from unittest.mock import create_autospec

import pytest

from mistral_on_l4.cluster.client import KubeClient
from mistral_on_l4.cluster.live import services


@pytest.mark.parametrize(("limits", "planned"), [({"nvidia.com/gpu": "1"}, 420.0), ({"cpu": "4"}, None)])
def test_the_plans_times_are_shown_of_a_service_on_gpus_alone(limits: dict[str, str], planned: float | None) -> None:
    annotations = {"mistral-on-l4/predicted-ttft-ms": "480", "mistral-on-l4/predicted-tpot-ms": "420"}
    item = {"metadata": {"name": "it", "annotations": annotations}, "status": {}}
    labels = {"serving.kserve.io/inferenceservice": "it"}
    meta = {"name": "it-1", "labels": labels, "creationTimestamp": "2026-01-01T00:00:00Z"}
    pod = {"metadata": meta, "spec": {"containers": [{"resources": {"limits": limits}}]}, "status": {}}
    found: dict[str, Any] = {"InferenceService": [item], "Pod": [pod]}
    client = create_autospec(KubeClient, instance=True)
    client.list.side_effect = lambda _, kind, *args, **kwargs: {"items": found[kind]}
    [state] = services(client, "private-ai")
    assert state.predicted_tpot_ms == planned
