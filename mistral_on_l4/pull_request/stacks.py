"""Which stacks a change concerns, and how each is previewed. Lines for $GITHUB_OUTPUT:

git diff --name-only --no-renames -z BASE HEAD | python -m mistral_on_l4.pull_request.stacks [--credentials]

Standard library only, so that CI asks before it installs anything.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from mistral_on_l4.config.traits import TRAITS

# What every stack is made of. Tests, benchmarks and prose change no stack.
SHARED = ("__main__.py", "Pulumi.yaml", "requirements.txt", "pyproject.toml")
SHARED_FOLDERS = ("components/", "embedded/", "mistral_on_l4/", "policies/")
# Inside these, what no stack runs.
ASIDE = ("mistral_on_l4/pull_request/", "embedded/README.md")
# The key as Pulumi reads it: with the project's namespace or none, in quotes or not (config/stack_file.py, which needs PyYAML).
_PLATFORM = re.compile(r"""^\s*["']?(?:mistral-on-l4:)?platform["']?\s*:\s*["']?([a-z]+)\b""", re.MULTILINE)


def concerned(paths: Iterable[str], stacks: Iterable[str]) -> list[str]:
    """Stacks of which an input is among the changed paths; all of them if something that they share is."""
    changed = {path for path in paths if path}
    shared = any(
        path in SHARED or (path.startswith(SHARED_FOLDERS) and not path.startswith(ASIDE) and not path.endswith(".md"))
        for path in changed
    )
    return sorted(stack for stack in stacks if shared or f"Pulumi.{stack}.yaml" in changed)


def by_preview(stacks: Iterable[str], folder: Path, credentials: bool) -> dict[str, list[str]]:
    """`real` against an account and a state, for which credentials are needed; `simulated` on the stand-in providers.

    A stack on an embedded cluster lives on somebody's machine: CI has no state of it, whatever credentials it has; and an OpenShift
    cluster is not reached by an account's.
    """
    how: dict[str, list[str]] = {"simulated": [], "real": []}
    for stack in stacks:
        text = (folder / f"Pulumi.{stack}.yaml").read_text(encoding="utf-8", errors="replace")
        how["real" if credentials and not _needs_no_account(text) else "simulated"].append(stack)
    return how


def _needs_no_account(stack_file: str) -> bool:
    """What the platform's traits say; False where the file names no platform that there is."""
    named = _PLATFORM.search(stack_file)
    return named is not None and named[1] in {platform.value for platform, traits in TRAITS.items() if not traits.aws_account}


def main() -> None:
    folder = Path.cwd()
    stacks = {path.name.split(".")[1] for path in folder.glob("Pulumi.*.yaml")}
    found = concerned(sys.stdin.read().split("\0"), stacks)
    for name, value in by_preview(found, folder, "--credentials" in sys.argv[1:]).items():
        print(f"{name}={json.dumps(value)}")


if __name__ == "__main__":
    main()
