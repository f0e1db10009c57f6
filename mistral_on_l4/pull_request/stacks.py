"""Which stacks a change concerns: `git diff --name-only BASE...HEAD | python -m mistral_on_l4.pull_request.stacks` prints JSON.

Standard library only, so that CI asks before it installs anything.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path

# What every stack is made of. Tests, benchmarks and prose change no stack.
SHARED = ("__main__.py", "Pulumi.yaml", "requirements.txt", "pyproject.toml")
SHARED_FOLDERS = ("components/", "mistral_on_l4/", "policies/")
# Inside these, what no stack runs.
ASIDE = ("mistral_on_l4/pull_request/", "mistral_on_l4/embedded/README.md")


def concerned(paths: Iterable[str], stacks: Iterable[str]) -> list[str]:
    """Stacks of which an input is among the changed paths; all of them if something that they share is."""
    changed = {path.strip() for path in paths if path.strip()}
    shared = any(
        path in SHARED or (path.startswith(SHARED_FOLDERS) and not path.startswith(ASIDE) and not path.endswith(".md"))
        for path in changed
    )
    return sorted(stack for stack in stacks if shared or f"Pulumi.{stack}.yaml" in changed)


def main() -> None:
    stacks = {path.name.split(".")[1] for path in Path.cwd().glob("Pulumi.*.yaml")}
    print(json.dumps(concerned(sys.stdin, stacks)))


if __name__ == "__main__":
    main()
