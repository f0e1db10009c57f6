"""`python -m policies.listing > policies/README.md`: the table of policies, from the policies themselves."""

from __future__ import annotations

from pulumi_policy import Policy

from policies.pack import POLICIES

_HEAD = """\
# Policies

What a stack of this project may declare, checked by Pulumi's engine in every preview and every `up` that is given the pack:

    pulumi preview --policy-pack policies
    pulumi up --policy-pack policies --policy-pack-config limits.json

The pack needs no account and no cloud. It runs in the project's environment (`make venv`), since it asks the planner whether the
manifests that are about to be applied fit their GPUs ([why](../docs/adr/0012-policies-replan.md)). *Mandatory* stops the preview;
*advisory* is only said. Settings go by policy name, any of them also with an `enforcementLevel`:

    {"stack-within-budget": {"maxHourlyUsd": 8}, "images-have-a-digest": "mandatory"}

| policy | level | severity | why | fix | settings |
|---|---|---|---|---|---|
"""


def listing() -> str:
    """The whole README of the pack."""
    return _HEAD + "".join(f"{_row(policy)}\n" for policy in POLICIES)


def _row(policy: Policy) -> str:
    schema = policy.config_schema.properties if policy.config_schema else {}
    settings = ", ".join(f"`{name}`" + _default(value) for name, value in schema.items())
    level = policy.enforcement_level.value if policy.enforcement_level else ""
    severity = policy.severity.value if policy.severity else ""
    cells = (f"`{policy.name}`", level, severity, policy.description, policy.remediation_steps or "", settings)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _default(schema: dict[str, object]) -> str:
    default = schema.get("default")
    return f" ({default})" if isinstance(default, (int, float)) else ""


if __name__ == "__main__":
    print(listing(), end="")
