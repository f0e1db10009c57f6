"""Why a node group does not come up, in words: EKS's issue codes and EC2's errors, each with what to do about it."""

from __future__ import annotations

import re

# EC2's own words inside an issue say more than the issue's code, so they come first.
_SIGNS = (
    (
        "VcpuLimitExceeded",
        "the account's vCPU quota for these instances is too small: `demo doctor` says by how much; ask for more with `aws "
        "service-quotas request-service-quota-increase --service-code ec2 --quota-code L-DB2E81BA --desired-value 64` "
        "(L-3819A6DF for GPUs on spot, L-1216C47A for system nodes)",
    ),
    (
        "MaxSpotInstanceCountExceeded",
        "the account's spot quota for GPU instances is too small: ask for more of L-3819A6DF, or set the pool's capacityType to "
        "ON_DEMAND",
    ),
    (
        "InsufficientInstanceCapacity",
        "AWS has no such instance left in these zones at the moment: try again later, in another region (aws:region), or with "
        "another instance type of the same GPU (mistral-on-l4:pools.groups)",
    ),
    ("UnfulfillableCapacity", "AWS has no spot capacity for this type now: set the pool's capacityType to ON_DEMAND, or try later"),
    (
        "InsufficientFreeAddresses",
        "the subnets have no free addresses: give the network a larger block (mistral-on-l4:network.cidr)",
    ),
    (
        "NodeCreationFailure",
        "instances start but do not join the cluster: look at their route to the internet (NAT) and at the add-on vpc-cni; on the "
        "instance, `journalctl -u kubelet` says why",
    ),
    ("IamNodeRoleNotFound", "the nodes' IAM role is gone: `pulumi refresh`, then `pulumi up`, makes it anew"),
    (
        "IamInstanceProfileNotFound",
        "the nodes' instance profile is gone: delete the node group with `pulumi destroy --target`, then `pulumi up`",
    ),
    ("InstanceLimitExceeded", "the account's limit of running instances is reached: `demo doctor` shows the quota"),
    ("Ec2LaunchTemplate", "the launch template was changed or deleted outside: `pulumi refresh`, then `pulumi up`"),
    ("Ec2SecurityGroup", "the cluster's security group was changed or deleted outside: `pulumi refresh` shows it"),
    ("Ec2Subnet", "a subnet of the group was changed or deleted outside: `pulumi refresh` shows it"),
    ("Ec2InstanceTypeDoesNotExist", "the region has no such instance type: `demo doctor` lists what it offers, zone by zone"),
    ("AmiIdNotFound", "the node image was withdrawn: `pulumi up --replace` the group takes the newest"),
    ("PodEvictionFailure", "pods refuse to leave the old nodes: look at PodDisruptionBudgets with `kubectl get pdb -A`"),
    ("AccessDenied", "EKS may not do this in the account: look at the nodes' role and at service control policies"),
    ("AsgInstanceLaunchFailures", "EC2 did not start the instances; its own words are above"),
)
# EC2 has none of them left, whatever the quota.
NO_INSTANCES = ("InsufficientInstanceCapacity", "UnfulfillableCapacity")
_CODES = re.compile(r"\b[A-Z][A-Za-z0-9]{5,}\b")


def explain(text: str) -> str | None:
    """The most telling of the known problems in a provider's error or an issue's message, or None if there is none.

    One cause shows several signs: an Auto Scaling failure quotes EC2's error, and the group then lacks its nodes.
    """
    words = set(_CODES.findall(text))
    for sign, advice in _SIGNS:
        if any(word.startswith(sign) for word in words):
            return f"{sign}: {advice}"
    return None
