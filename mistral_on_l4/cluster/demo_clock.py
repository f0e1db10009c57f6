"""The demo clock: since when a stack has been up, when its time ends, and what it costs by then.

A stack is as old as its namespace for services. Its end is that plus `ttl` of the stack file, or what `demo expire --extend` wrote
on the namespace, where Pulumi does not look; so the clock needs no state of its own, and a changed `ttl` counts at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from mistral_on_l4.cluster.client import ApiError, KubeClient
from mistral_on_l4.config.settings import Settings

# RFC 3339, on the namespace of the services.
EXTENDED_ANNOTATION = "mistral-on-l4/extended-until"


@dataclass(frozen=True)
class DemoClock:
    """started: None where the stack is not up; ends: None without a ttl; usd_per_hour: None where a price is unknown.

    extended: whether `ends` is later than the stack file says.
    """

    started: datetime | None
    ends: datetime | None
    usd_per_hour: float | None
    extended: bool = False

    def cost_usd(self, until: datetime) -> float | None:
        """What the stack has cost by the hour from its start; not what an `up` costs once."""
        if self.started is None or self.usd_per_hour is None:
            return None
        return max(0.0, (until - self.started).total_seconds()) / 3600 * self.usd_per_hour

    def left(self, now: datetime) -> timedelta | None:
        """Below zero when its time is over; None where it has no end."""
        return None if self.ends is None else self.ends - now


def demo_clock(client: KubeClient, settings: Settings, usd_per_hour: float | None) -> DemoClock:
    """Reads the clock of a stack. Raises ApiError."""
    try:
        namespace = client.get("v1", "Namespace", settings.namespaces.services)
    except ApiError as error:
        if error.status in (403, 404):
            return DemoClock(None, None, usd_per_hour)
        raise
    meta = namespace["metadata"]
    started = datetime.fromisoformat(meta["creationTimestamp"])
    ends = None if settings.ttl_span is None else started + settings.ttl_span
    until = (meta.get("annotations") or {}).get(EXTENDED_ANNOTATION)
    later = datetime.fromisoformat(until) if until else None
    if ends is not None and later is not None and later > ends:
        return DemoClock(started, later, usd_per_hour, extended=True)
    return DemoClock(started, ends, usd_per_hour)


def extend(client: KubeClient, settings: Settings, until: datetime) -> None:
    """Writes a new end on the namespace. Raises ApiError."""
    body = {"metadata": {"annotations": {EXTENDED_ANNOTATION: until.astimezone(UTC).isoformat(timespec="seconds")}}}
    client.patch("v1", "Namespace", settings.namespaces.services, None, body)


def in_words(span: timedelta) -> str:
    """5 d 3 h, 2 h 10 min, 45 min; without its sign."""
    minutes = int(abs(span).total_seconds() // 60)
    days, hours = minutes // 1440, minutes // 60 % 24
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min"
