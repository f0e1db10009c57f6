"""IAM roles and the policies attached to them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from embedded.plugins.aws.bridge import Bridge
from embedded.plugins.aws.kinds.base import Kind, Values, present, require
from embedded.plugins.aws.ledger import Account, AwsError, Entry, new_name
from embedded.plugins.aws.service_model import Call
from embedded.plugins.values import UNKNOWN

# AWS's managed policies that this project attaches; the stand-in knows no others (facts: docs/aws.md).
MANAGED_POLICIES = frozenset(
    {
        "AmazonEKSClusterPolicy",
        "AmazonEKSWorkerNodePolicy",
        "AmazonEC2ContainerRegistryPullOnly",
        "AmazonEKS_CNI_Policy",
        "service-role/AmazonEBSCSIDriverPolicy",
    }
)


class Role(Kind):
    token = "aws:iam/role:Role"
    kind = "role"
    known = frozenset({"name", "namePrefix", "assumeRolePolicy", "tags"})
    computed = ("arn", "createDate", "uniqueId")

    def named(self, inputs: Values) -> Values:
        if "name" in inputs or inputs.get("namePrefix") in (None, UNKNOWN):
            return inputs
        return {**inputs, "name": new_name(inputs["namePrefix"])}

    def calls(self, inputs: Values) -> Iterator[Call]:
        tags = inputs.get("tags")
        yield (
            "iam",
            "CreateRole",
            present(
                {
                    "RoleName": inputs.get("name"),
                    "AssumeRolePolicyDocument": inputs.get("assumeRolePolicy"),
                    "Tags": [{"Key": key, "Value": text} for key, text in tags.items()] if isinstance(tags, dict) else None,
                }
            ),
        )

    def enter(self, account: Account, inputs: Values) -> Entry:
        name = inputs["name"]
        if account.find("role", name):
            raise AwsError("IAM: CreateRole", "EntityAlreadyExists", f"Role with name {name} already exists.")
        try:
            statements = json.loads(inputs["assumeRolePolicy"])["Statement"]
            services = [statement["Principal"]["Service"] for statement in statements if statement["Effect"] == "Allow"]
        except (ValueError, KeyError, TypeError):
            raise AwsError("IAM: CreateRole", "MalformedPolicyDocument", "the trust policy has no readable statement") from None
        actions = [action for statement in statements for action in statement["Action"]]
        return account.add(Entry(name, "role", name, data={"services": services, "actions": actions}))

    def settle(self, account: Account, entry: Entry, inputs: Values, bridge: Bridge) -> Values:  # noqa: ARG002
        entry.data["arn"] = account.arn("iam", f"role/{entry.name}", regional=False)
        return {"arn": entry.data["arn"], "createDate": "2026-01-01T00:00:00Z", "uniqueId": "AROA" + "0" * 17}

    def blockers(self, account: Account, entry: Entry) -> Sequence[Entry]:
        return account.users(entry.id, "role-policy")

    def refusal(self, entry: Entry, blockers: Sequence[Entry]) -> AwsError:  # noqa: ARG002
        return AwsError("IAM: DeleteRole", "DeleteConflict", "Cannot delete entity, must detach all policies first.")


class RolePolicyAttachment(Kind):
    token = "aws:iam/rolePolicyAttachment:RolePolicyAttachment"
    kind = "role-policy"
    known = frozenset({"role", "policyArn"})

    def calls(self, inputs: Values) -> Iterator[Call]:
        yield "iam", "AttachRolePolicy", present({"RoleName": inputs.get("role"), "PolicyArn": inputs.get("policyArn")})

    def enter(self, account: Account, inputs: Values) -> Entry:
        role = require(account, "IAM: AttachRolePolicy", "NoSuchEntity", "role", inputs["role"])
        policy = str(inputs["policyArn"]).removeprefix("arn:aws:iam::aws:policy/")
        if policy not in MANAGED_POLICIES:
            raise AwsError(
                "IAM: AttachRolePolicy", "NoSuchEntity", f"Policy {inputs['policyArn']} does not exist or is not attachable."
            )
        return account.add(Entry(f"{role.name}/{inputs['policyArn']}", self.kind, policy, {"role": [role.id]}))

    def settle(self, account: Account, entry: Entry, inputs: Values, bridge: Bridge) -> Values:  # noqa: ARG002
        return {}


def role_by_arn(account: Account, operation: str, arn: str, service: str, *policies: str) -> Entry:
    """The role of an ARN that a service may take and that holds these policies. Raises AwsError, as EKS does."""
    role = next((found for found in account.of("role") if found.data.get("arn") == arn), None)
    if role is None:
        raise AwsError(operation, "InvalidParameterException", f"The role {arn} does not exist")
    if service not in role.data["services"]:
        raise AwsError(operation, "InvalidParameterException", f"The role {arn} cannot be assumed by {service}")
    held = {found.name for found in account.users(role.id, "role-policy")}
    if missing := set(policies) - held:
        raise AwsError(operation, "InvalidParameterException", f"The role {arn} lacks {', '.join(sorted(missing))}")
    return role


IDENTITY: tuple[Kind, ...] = (Role(), RolePolicyAttachment())
