"""`demo park`: GPU pools to zero. The store, the registry and the cluster stay, and go on billing; `demo unpark` goes back."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import typer

from mistral_on_l4.aws.account import cluster_name
from mistral_on_l4.aws.nodegroup_problems import explain
from mistral_on_l4.aws.session import AwsTrouble, Clients, in_words
from mistral_on_l4.cli import Failure, terminal
from mistral_on_l4.cli.stacks import StackOption, acting_on, connection_to, stack_profile, stack_settings, whereabouts
from mistral_on_l4.config.names import POOL_LABEL, STACK_TAG
from mistral_on_l4.config.settings import Settings
from mistral_on_l4.openshift.pools import NoPool
from mistral_on_l4.openshift.pools import resize as resize_machine_sets
from mistral_on_l4.openshift.site import Site
from mistral_on_l4.planner import PlanError, plan_stack

app = typer.Typer(add_completion=False)

_DEADLINE_SECONDS = 900.0


@app.command()
def park(stack: StackOption = "dev") -> None:
    """Bring the GPU pools to zero and keep everything else."""
    resize(stack, parked=True)


def resize(stack: str, parked: bool) -> None:
    """Parks or unparks a stack, and says what bills from now on. Raises Failure."""
    settings = stack_settings(stack)
    if not settings.traits.nodes_bill:
        raise Failure(f"stack {stack} runs on {settings.platform.value}: only GPU pools that bill are parked, these are free")
    console = terminal.console()
    if settings.traits.given_cluster:
        for name, size in _resize_machine_sets(settings, stack, parked).items():
            console.print(f"{name}: {size} machine{'' if size == 1 else 's'}", highlight=False)
        console.print(costs(settings, stack, parked), highlight=False)
        return
    try:
        with in_words():
            clients, name = Clients(settings.region, stack_profile(stack)), cluster_name(settings, stack)
            account = clients("sts").get_caller_identity()["Account"]
            acting_on(stack, f"account {account}, {settings.region}, cluster {name}")
            eks = clients("eks")
            for group, size in resize_pools(eks, name, stack, wanted_sizes(settings, parked)).items():
                console.print(f"{group}: {size} node{'' if size == 1 else 's'}", highlight=False)
    except AwsTrouble as error:
        raise Failure(str(error)) from None
    console.print(costs(settings, stack, parked), highlight=False)


def _resize_machine_sets(settings: Settings, stack: str, parked: bool) -> dict[str, int]:
    with connection_to(settings, stack) as connection:
        acting_on(stack, whereabouts(connection))
        try:
            return resize_machine_sets(Site(connection.client, settings, stack), connection.client, wanted_sizes(settings, parked))
        except NoPool as error:
            raise Failure(str(error)) from None


def wanted_sizes(settings: Settings, parked: bool) -> dict[str, int]:
    """Pool -> nodes."""
    return {pool.name: 0 if parked else pool.count for pool in settings.pools.groups}


def resize_pools(
    eks: Any, cluster: str, stack: str, wanted: Mapping[str, int], deadline: float = _DEADLINE_SECONDS
) -> dict[str, int]:
    """Sets the size of every pool's node group and waits until EKS has taken it; returns group -> size.

    A group is known by its stack's tag and its pool's label. A pool that is to be empty and has no group is empty. Raises
    botocore's ClientError, or Failure if a pool has no group, one that cannot be resized, or one that is busy too long.
    """
    groups: dict[str, str] = {}
    failed: dict[str, str] = {}
    for page in eks.get_paginator("list_nodegroups").paginate(clusterName=cluster):
        for name in page["nodegroups"]:
            found = eks.describe_nodegroup(clusterName=cluster, nodegroupName=name)["nodegroup"]
            pool = (found.get("labels") or {}).get(POOL_LABEL)
            # In an adopted cluster another stack may have pools of the same names.
            ours = (found.get("tags") or {}).get(STACK_TAG) == stack
            if ours and pool is not None and pool in wanted and found["status"] != "DELETING":
                (failed if found["status"] == "CREATE_FAILED" else groups)[pool] = name
    absent = set(wanted) - set(groups) - set(failed)
    if missing := sorted(pool for pool in absent if wanted[pool] or absent == set(wanted)):
        raise Failure(f"cluster {cluster} has no node group of stack {stack} for pool {', '.join(missing)}: `pulumi up` makes it")
    for pool, name in groups.items():
        size = wanted[pool]
        # The program declares a smallest size of zero, so that a parked pool is no drift of it.
        scaling = {"minSize": 0, "desiredSize": size, "maxSize": max(size, 1)}
        eks.update_nodegroup_config(clusterName=cluster, nodegroupName=name, scalingConfig=scaling)
    until = time.monotonic() + deadline
    for name in groups.values():
        while (group := eks.describe_nodegroup(clusterName=cluster, nodegroupName=name)["nodegroup"])["status"] != "ACTIVE":
            if time.monotonic() > until:
                raise Failure(f"node group {name} is still {group['status']} after {deadline:.0f} s: {_reason(group)}")
            time.sleep(2)
    if failed:
        raise Failure(
            f"node group {', '.join(failed.values())} was never made whole and EKS resizes no such group, while its instances may "
            "bill: `pulumi up` replaces it, `pulumi destroy` removes it (the other pools are done)"
        )
    return {groups[pool]: wanted[pool] for pool in groups}


def _reason(group: Mapping[str, Any]) -> str:
    """Why a group does not settle, by EKS's own issues where it names any."""
    issues = (group.get("health") or {}).get("issues") or []
    text = "; ".join(f"{issue['code']}: {issue['message']}" for issue in issues)
    return explain(text) or text or "the console says why"


def costs(settings: Settings, stack: str, parked: bool) -> str:
    """What bills now, by the hour."""
    try:
        plan = plan_stack(settings, stack=stack)
    except PlanError as error:
        raise Failure(str(error)) from None
    fixed, whole = plan.fixed_usd_per_hour, plan.usd_per_hour
    if fixed is None or whole is None:
        return f"the catalogue has no prices for {settings.region}: `demo plan -s {stack} --live-prices` asks AWS"
    if parked:
        rest = "cluster, system nodes and volumes" if settings.traits.makes_cluster else "volumes, beside your cluster,"
        return f"parked: ${fixed:.2f} an hour for {rest} instead of ${whole:.2f}; `demo unpark -s {stack}` goes on"
    return f"unparked: ${whole:.2f} an hour; the services are ready again when image and weights are on the new nodes"
