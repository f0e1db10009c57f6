"""A managed node group with its launch template: what every group of nodes of this stack is made of."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pulumi
from pulumi_aws import ec2, eks

from components.aws.tags import name_tag
from mistral_on_l4.aws.nodegroup_problems import NO_INSTANCES, explain

# What EKS and EC2 append to a prefix of ours leaves this much of their 63 characters.
_LONGEST_PREFIX = 37
# Capacity or quota that is missing is missing after fifteen minutes as well; a node is usually there in five.
_CREATE = "25m"

# nodeadm, which starts a node of Amazon Linux 2023, lays kubelet, containerd and pod logs on the instance's own disks.
_NVME_CONFIG = """\
apiVersion: node.eks.aws/v1alpha1
kind: NodeConfig
spec:
  instance:
    localStorage:
      strategy: RAID0
"""


@dataclass(frozen=True)
class NodePoolArgs:
    """cluster_name: known in a preview; cluster: the same as an Output; subnet_ids: where instances may start; root_gib: of the
    gp3 root volume; root_throughput: its MiB/s; nvme: lay everything that grows on the instance's disks; release_version: of the
    node image, None for EKS's newest; release_pinned: the settings name it, so a change of it is meant; scarce: an update ends the
    old nodes before it starts new ones; taints: key -> (value, effect by AWS's words); tags: of instances and volumes, which the
    provider's default ones do not reach; where_else: what to say beside a lack of instances.
    """

    pool: str
    cluster_name: str
    cluster: pulumi.Input[str]
    role_arn: pulumi.Input[str]
    subnet_ids: Sequence[pulumi.Input[str]]
    instance_types: Sequence[str]
    count: int
    ami_type: str
    root_gib: int
    tags: Mapping[str, str]
    root_throughput: int = 125
    nvme: bool = False
    capacity_type: str = "ON_DEMAND"
    release_version: str | None = None
    release_pinned: bool = False
    scarce: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    where_else: Callable[[], str] | None = None


class NodePool(pulumi.ComponentResource):
    """`nodes`: the group, created when its nodes have joined the cluster."""

    nodes: pulumi.Resource

    def __init__(self, name: str, args: NodePoolArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """It depends on control plane, role policies and network add-ons: without them a node never gets ready."""
        super().__init__("mistral-on-l4:aws:NodePool", name, None, opts)
        self.nodes = _node_group(name, args, _launch_template(name, args, self), self)
        self.register_outputs({})


def _launch_template(name: str, args: NodePoolArgs, parent: pulumi.Resource) -> ec2.LaunchTemplate:
    shown = name_tag(f"{args.cluster_name}-{args.pool}")
    return ec2.LaunchTemplate(
        f"{name}-template",
        name_prefix=f"{args.cluster_name}-{args.pool}-"[:_LONGEST_PREFIX],
        update_default_version=True,
        # Neither image, instance type nor security group: EKS fills them in, and with a security group of ours the nodes
        # would lose the cluster's.
        block_device_mappings=[
            {
                "device_name": "/dev/xvda",
                "ebs": {
                    "volume_type": "gp3",
                    "volume_size": args.root_gib,
                    "throughput": args.root_throughput,
                    "encrypted": "true",
                    "delete_on_termination": "true",
                },
            }
        ],
        # One hop: pods cannot take the node's credentials; what needs AWS has a role of its own, by Pod Identity.
        metadata_options={"http_endpoint": "enabled", "http_tokens": "required", "http_put_response_hop_limit": 1},
        # Tags of a node group, and the provider's, reach neither its instances nor their volumes.
        tag_specifications=[
            {"resource_type": "instance", "tags": {**args.tags, **shown}},
            {"resource_type": "volume", "tags": {**args.tags, **shown}},
        ],
        user_data=_user_data(_NVME_CONFIG) if args.nvme else None,
        tags=shown,
        opts=pulumi.ResourceOptions(parent=parent),
    )


def _node_group(name: str, args: NodePoolArgs, template: ec2.LaunchTemplate, parent: pulumi.Resource) -> eks.NodeGroup:
    return eks.NodeGroup(
        f"{name}-nodes",
        cluster_name=args.cluster,
        # A prefix: most changes of a group are replacements, and a fixed name would collide with itself.
        node_group_name_prefix=f"{args.pool}-"[:_LONGEST_PREFIX],
        node_role_arn=args.role_arn,
        subnet_ids=list(args.subnet_ids),
        ami_type=args.ami_type,
        capacity_type=args.capacity_type,
        instance_types=list(args.instance_types),
        release_version=args.release_version,
        launch_template={"id": template.id, "version": template.latest_version.apply(_whole)},
        scaling_config={"min_size": 0, "desired_size": args.count, "max_size": max(args.count, 1)},
        # By default an update starts up to two nodes in every zone before it ends one.
        update_config={"max_unavailable": 1, "update_strategy": "MINIMAL" if args.scarce else None},
        labels=dict(args.labels),
        taints=[{"key": key, "value": value, "effect": effect} for key, (value, effect) in args.taints.items()],
        tags=name_tag(f"{args.cluster_name}-{args.pool}"),
        opts=pulumi.ResourceOptions(
            parent=parent,
            # The quota rarely has room for a pool and its successor side by side.
            delete_before_replace=True,
            # The image is chosen once, when the group is made; it does not roll over because AWS published a newer one. One
            # that the settings name is wanted, also where it is older, and a group cannot go back to an older image.
            ignore_changes=None if args.release_pinned else ["releaseVersion"],
            replace_on_changes=["releaseVersion"] if args.release_pinned else None,
            custom_timeouts=pulumi.CustomTimeouts(create=_CREATE, update="30m", delete="30m"),
            hooks=pulumi.ResourceHookBinding(on_error=[_explanation(name, args.where_else)]),
        ),
    )


def _whole(version: float) -> str:
    """Pulumi's wire format has floating-point numbers only, and AWS refuses version 1.0."""
    return str(int(version))


def _user_data(config: str) -> str:
    """A multipart document, which EKS merges with its own part for joining the cluster."""
    boundary = "mistral-on-l4"
    text = (
        f'MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary="{boundary}"\n\n'
        f"--{boundary}\nContent-Type: application/node.eks.aws\n\n{config}\n--{boundary}--\n"
    )
    return base64.b64encode(text.encode()).decode()


def _explanation(name: str, where_else: Callable[[], str] | None) -> pulumi.ErrorHook:
    """Says in words why a group did not come up, beside the provider's own text. Never asks for another try."""

    def say(args: pulumi.ErrorHookArgs) -> bool:
        if (line := explain("\n".join(args.errors))) is not None:
            more = f" ({where_else()})" if where_else and line.startswith(NO_INSTANCES) else ""
            pulumi.log.error(f"{name}: {line}{more}")
        return False

    return pulumi.ErrorHook(f"{name}-explanation", say)
