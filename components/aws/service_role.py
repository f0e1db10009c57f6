"""An IAM role for one AWS service to take, with the policies that it needs and no others."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
from pulumi_aws import iam

# IAM appends 26 characters of its own to a prefix, and a role's name has at most 64.
_LONGEST_PREFIX = 38


@dataclass(frozen=True)
class ServiceRoleArgs:
    """service: the principal that may take the role; policies: names of AWS's managed policies, with their path."""

    cluster_name: str
    purpose: str
    service: str
    policies: Sequence[str]
    actions: Sequence[str] = ("sts:AssumeRole",)


class ServiceRole(pulumi.ComponentResource):
    """`arn`, and `ready`: who uses the role waits for its policies and, at destroy, goes before they do."""

    arn: pulumi.Output[str]
    ready: list[pulumi.Resource]

    def __init__(self, name: str, args: ServiceRoleArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("mistral-on-l4:aws:ServiceRole", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        trust = {"Effect": "Allow", "Principal": {"Service": args.service}, "Action": list(args.actions)}
        role = iam.Role(
            f"{name}-role",
            name_prefix=role_prefix(args.cluster_name, args.purpose),
            assume_role_policy=json.dumps({"Version": "2012-10-17", "Statement": [trust]}),
            opts=child,
        )
        self.arn = role.arn
        self.ready = [
            iam.RolePolicyAttachment(
                f"{name}-{policy.rpartition('/')[2]}", role=role.name, policy_arn=f"arn:aws:iam::aws:policy/{policy}", opts=child
            )
            for policy in args.policies
        ]
        self.register_outputs({"arn": self.arn})


def role_prefix(cluster_name: str, purpose: str) -> str:
    return f"{cluster_name[: _LONGEST_PREFIX - len(purpose) - 2]}-{purpose}-"
