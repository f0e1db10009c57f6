"""Measurements as they are kept in the bucket, and the checks that a number passes before it is believed.

A level's `result` has the keys of `vllm bench serve --save-result` (vllm/benchmarks/serve.py): times in ms, throughput per second.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mistral_on_l4.jobs.measure_service import RESULT, Profile

FOLDER = "measurements/"
SCHEMA = 1
# The profile that the public measurements of the source demo used, and therefore ours: docs/planner.md compares with them.
STANDARD = Profile(levels=(1, 5, 10, 15), input_tokens=256, output_tokens=256)
QUICK = Profile(levels=(1, 5), input_tokens=32, output_tokens=16, prompts_per_user=1, least_prompts=2)
# Rounding and the clocks of two processes; a count of the wrong tokens is off by a factor.
_TOLERANCE = 1.05


@dataclass(frozen=True)
class Measurement:
    """One service, measured once. tool: what measured; started: RFC 3339; simulated: whether the engine was a simulation.

    levels: one result for each number of users, in their order; problems: what makes it less than it should be, () if nothing.
    """

    stack: str
    service: str
    started: str
    tool: str
    engine: str
    image: str
    simulated: bool
    profile: Profile
    levels: tuple[Mapping[str, Any], ...]
    problems: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Where it is kept in the bucket; the newest of a service sorts last."""
        return f"{FOLDER}{self.stack}/{self.service}/{self.started}.json"

    @property
    def standard(self) -> bool:
        """Whether it can be compared with others."""
        return self.profile == STANDARD and not self.problems

    def to_json(self) -> str:
        return json.dumps({"schema": SCHEMA, **asdict(self)}, indent=1, sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes, source: str) -> Measurement:
        """Raises ValueError naming the source."""
        try:
            found = dict(json.loads(text))
            if found.pop("schema") != SCHEMA:
                raise ValueError("of another version of this program")
            profile = found.pop("profile")
            return cls(
                **{
                    **found,
                    "profile": Profile(**{**profile, "levels": tuple(profile["levels"])}),
                    "levels": tuple(found["levels"]),
                    "problems": tuple(found["problems"]),
                }
            )
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{source} is no measurement: {error}") from None


def results_in(log: str) -> list[dict[str, Any]]:
    """The results that a Job has printed so far."""
    return [json.loads(line.removeprefix(RESULT)) for line in log.splitlines() if line.startswith(RESULT)]


def problems_of(levels: Iterable[Mapping[str, Any]], profile: Profile) -> list[str]:
    """What makes these results less than whole, or impossible; one line each."""
    problems = []
    seen = set()
    for result in levels:
        users = int(result["max_concurrency"])
        seen.add(users)
        failed = int(result["num_prompts"]) - int(result["completed"])
        if failed:
            why = "; ".join(result.get("errors") or ()) or "no reason given"
            problems.append(f"{users} users: {failed} of {result['num_prompts']} requests failed: {why}")
        if contradiction := impossible(result):
            problems.append(f"{users} users: {contradiction}")
    if missing := [users for users in profile.levels if users not in seen]:
        problems.append(f"not measured: {', '.join(map(str, missing))} users")
    return problems


def impossible(result: Mapping[str, Any]) -> str | None:
    """Why a result cannot be true by Little's law (answers in the system = rate x time in it), or None.

    Public tables were off by a factor here: prompt tokens counted among the output.
    """
    users, rate = float(result["max_concurrency"]), float(result["request_throughput"])
    latency, tpot = result.get("mean_e2el_ms"), result.get("mean_tpot_ms")
    if latency and rate * latency / 1000 > users * _TOLERANCE:
        return f"{rate * latency / 1000:.1f} answers in the system, with {users:.0f} users"
    tokens = float(result["output_throughput"])
    if tpot and tokens > users * 1000 / tpot * _TOLERANCE:
        return f"{tokens:.0f} output tokens/s, with {users:.0f} users who each get one in {tpot:.0f} ms"
    return None
