"""Event streams and plans: recorded ones (see record.py), and small ones built for what no recording shows."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

RECORDED = Path(__file__).with_name("recorded")


@pytest.fixture
def recorded() -> Callable[[str, str], Path]:
    """recorded("dev-base", "jsonl" | "plan.json")."""
    return lambda name, kind: RECORDED / f"{name}.{kind}"


@pytest.fixture
def step() -> Callable[..., dict[str, Any]]:
    """An event of the engine: a resource that it would touch."""

    def event(
        op: str,
        token: str = "kubernetes:core/v1:ConfigMap",
        name: str = "thing",
        old: Mapping[str, Any] | None = None,
        new: Mapping[str, Any] | None = None,
        parent: str = "",
        **metadata: Any,
    ) -> dict[str, Any]:
        types = f"{parent}${token}" if parent else token
        urn = f"urn:pulumi:dev::mistral-on-l4::{types}::{name}"

        def state(inputs: Mapping[str, Any] | None) -> dict[str, Any] | None:
            return None if inputs is None else {"type": token, "urn": urn, "custom": True, "inputs": dict(inputs)}

        body = {"op": op, "urn": urn, "type": token, "old": state(old), "new": state(new), "detailedDiff": None, **metadata}
        return {"sequence": 1, "timestamp": 1, "resourcePreEvent": {"metadata": body, "planning": True}}

    return event


@pytest.fixture
def summary() -> dict[str, Any]:
    return {"sequence": 9, "timestamp": 1, "summaryEvent": {"durationSeconds": 3, "isPreview": True, "result": "succeeded"}}


@pytest.fixture
def stream(tmp_path: Path) -> Callable[..., Path]:
    """Writes events as the engine does, one to a line."""

    def write(*events: Mapping[str, Any], name: str = "events.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(event) + "\n" for event in events))
        return path

    return write


@pytest.fixture
def plan() -> Callable[..., dict[str, Any]]:
    """A plan document of one service that fits."""

    def document(**service: Any) -> dict[str, Any]:
        base = {
            "name": "mistral-24b-fp8",
            "gpu": "L4",
            "gpus": 1,
            "instance": "g6.2xlarge",
            "fits": True,
            "fits_with_offload": None,
            "reason": "",
            "weights_gib_per_gpu": 13.18,
            "cpu_offload_gib": 0,
            "tpot_ms": {"1": 56.2, "10": 66.0},
            "ttft_ms": {"1": 280.0, "10": 900.0},
            "output_tokens_per_s": {"1": 17.0, "10": 147.0},
            "usd_per_hour": 0.9776,
            "minutes_to_ready": 9.2,
            "remedies": [],
        }
        return {
            "stack": "dev",
            "usd_per_hour": 6.2,
            "fixed_usd_per_hour": 0.62,
            "usd_per_up": 3.4,
            "services": [{**base, **service}],
        }

    return document
