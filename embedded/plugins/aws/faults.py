"""What goes wrong in a rehearsal: delays at random, creates and deletes that fail once, and hardships of the account that last.

Without a plan nothing does.
"""

from __future__ import annotations

import json
import os
import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from mistral_on_l4.files import write_whole

# Names a JSON file: {"delay": [least, most] seconds, "seed": n, "create": [token, ...], "delete": [token, ...], "with": [switch,
# ...]}; a token is struck off when its failure has happened, so that it happens once, whichever process it meets.
VARIABLE = "MISTRAL_ON_L4_FAULTS"


class Switch(StrEnum):
    """A hardship that an account has for as long as it is switched on: what does a first run meet in it?"""

    QUOTAS = "quotas"
    """vCPUs as AWS gives a new account: 5 of the standard families, none of G and VT."""
    CREATE_FAILED = "create-failed"
    """A node group that EKS gives up on, once."""
    ZONE = "zone"
    """One zone has no GPU instances left: a group with another zone comes up there."""
    DEGRADED = "degraded"
    """No zone has GPU instances left."""
    INTERFACES = "interfaces"
    """The CNI leaves an interface behind for longer than a delete waits for it."""
    ADDRESS = "address"
    """A NAT gateway lets go of its address some time after it is gone."""


def switches(names: Sequence[str]) -> frozenset[Switch]:
    """Raises ValueError with the names that there are."""
    if unknown := sorted(set(names) - set(Switch)):
        raise ValueError(f"there is no switch {', '.join(unknown)}: there are {', '.join(Switch)}")
    return frozenset(map(Switch, names))


@dataclass
class Faults:
    """The plan, read once; failures are taken from the file one by one."""

    path: Path | None = None
    delay: tuple[float, float] = (0.0, 0.0)
    random: random.Random = field(default_factory=random.Random)
    switches: frozenset[Switch] = frozenset()
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def from_environment(cls) -> Faults:
        name = os.environ.get(VARIABLE)
        if not name:
            return cls()
        plan = json.loads(Path(name).read_text())
        low, high = plan.get("delay", (0.0, 0.0))
        return cls(Path(name), (low, high), random.Random(plan.get("seed")), switches(plan.get("with", [])))

    def wait(self, cancelled: threading.Event) -> None:
        """Takes as long as AWS might, in small."""
        with self._lock:
            seconds = self.random.uniform(*self.delay)
        if seconds > 0:
            cancelled.wait(seconds)

    def strikes(self, deed: str, token: str) -> bool:
        """Whether this create or delete is one of those that fail. True once for each entry of the plan."""
        if self.path is None:
            return False
        with self._lock:
            plan = json.loads(self.path.read_text())
            if token not in plan.get(deed, []):
                return False
            plan[deed].remove(token)
            write_whole(self.path, json.dumps(plan))
        return True
