"""Plan documents, as `demo plan --json` prints them for base and head."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from mistral_on_l4.pull_request.redaction import redacted


@dataclass(frozen=True)
class Plan:
    """document: the planner's answer, {} if there is none; problem: why there is none, in one line."""

    document: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""

    @cached_property
    def services(self) -> Mapping[str, Mapping[str, Any]]:
        return {str(service.get("name")): service for service in self.document.get("services") or () if isinstance(service, dict)}

    @property
    def misfits(self) -> list[Mapping[str, Any]]:
        """Services that load neither with every weight on the GPU nor with the offload that was asked for."""
        return [service for service in self.services.values() if not loads(service)]

    @property
    def idle_usd_per_hour(self) -> float:
        """Of the hourly price, what neither the services nor the stack without any GPU accounts for: nodes without a service."""
        held = sum(float(service.get("usd_per_hour") or 0) for service in self.services.values())
        return (self.usd("usd_per_hour") or 0) - (self.usd("fixed_usd_per_hour") or 0) - held

    def usd(self, key: str) -> float | None:
        value = self.document.get(key)
        return float(value) if isinstance(value, (int, float)) else None


def loads(service: Mapping[str, Any]) -> bool:
    return bool(service.get("fits") or service.get("fits_with_offload"))


def read_plan(path: Path | None) -> Plan:
    """A plan document, or why there is none: a base without the stack, or a configuration that was refused."""
    if path is None:
        return Plan()
    try:
        text = path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError as error:
        return Plan(problem=f"no plan: {error.strerror}")
    if not text:
        return Plan(problem="no plan: the configuration was refused")
    try:
        document = json.loads(text)
    except ValueError:
        return Plan(problem=f"no plan: {redacted(text.splitlines()[0])[:300]}")
    if not isinstance(document, dict) or not isinstance(document.get("services"), list):
        problem = document.get("error") if isinstance(document, dict) else None
        return Plan(problem=f"no plan: {redacted(str(problem or 'the document has no services'))[:300]}")
    return Plan(document)
