"""What cannot work in an account or a cluster, said before anything is declared."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence, Set

import pulumi

from components.aws.cluster import AdoptedCluster
from components.aws.storage_class import STORAGE_CLASSES
from components.charts import CHARTS
from components.namespaces import owned_elsewhere
from mistral_on_l4.aws import quotas
from mistral_on_l4.aws.session import AwsTrouble, Clients, in_words, session
from mistral_on_l4.aws.token import token_status
from mistral_on_l4.cluster.client import ApiError, KubeClient
from mistral_on_l4.cluster.local import rehearsed_quotas
from mistral_on_l4.config.names import PROJECT, STACK_LABEL, UP_STOPS
from mistral_on_l4.config.settings import Settings
from mistral_on_l4.planner.catalogue import Catalogue

_PRINCIPAL = re.compile(r"arn:aws[a-z-]*:iam::(?P<account>\d{12}):(?P<kind>user|role)/(?:[^/]+/)*(?P<name>[^/]+)")
_CALLER = re.compile(r"arn:aws[a-z-]*:(?:iam|sts)::(?P<account>\d{12}):(?P<kind>user|assumed-role)/(?P<path>.+)")


def refuse_another_stack(cluster: AdoptedCluster, settings: Settings, profile: str | None) -> None:
    """Looks into an adopted cluster before anything is declared; one that cannot be looked into is only warned of."""
    name = cluster.cluster_name
    try:
        token = token_status(session(settings.region, profile), name, settings.region)["token"]
        config = {
            "current-context": name,
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
            "clusters": [{"name": name, "cluster": {"server": cluster.endpoint, "certificate-authority-data": cluster.ca}}],
            "users": [{"name": name, "user": {"token": token}}],
        }
        client = KubeClient.from_kubeconfig_text(json.dumps(config))
        problem = owned_elsewhere(client, settings.namespaces) or _installed_already(client, name)
    except (AwsTrouble, ApiError, OSError, ValueError) as error:
        pulumi.log.warn(f"whether another stack lives in cluster {name} could not be looked at: {error}")
        return
    if problem:
        raise pulumi.RunError(problem)


def refuse_small_quotas(settings: Settings, catalogue: Catalogue, profile: str | None, rehearsal: bool) -> None:
    """Nodes that the account would not start: said in a preview, refused in an `up`. What may not be asked is only warned of."""
    asked = quotas.needed(settings, catalogue)
    if rehearsal:
        limits = rehearsed_quotas() or {}
        grants = {kind: quotas.Grant(limits[code]) for kind in asked if (code := quotas.CODES[kind]) in limits}
    else:
        try:
            with in_words():
                grants = quotas.granted(Clients(settings.region, profile), pulumi.get_stack(), asked)
        except AwsTrouble as error:
            pulumi.log.warn(f"whether the account's quotas hold the stack's nodes could not be asked: {error}")
            return
    lacking = [text for kind in grants if (text := quotas.shortage(kind, asked[kind], grants[kind], settings.region))]
    if not lacking:
        return
    if not pulumi.runtime.is_dry_run():
        raise pulumi.RunError("\n".join(lacking))
    for text in lacking:
        pulumi.log.warn(UP_STOPS + text)


def _installed_already(client: KubeClient, cluster: str) -> str | None:
    """What stands where the stack puts its charts and storage classes, in words; None if nothing does. Raises ApiError."""
    wanted = [("v1", "Namespace", namespace) for namespace in sorted({chart.namespace for chart in CHARTS})]
    wanted += [("storage.k8s.io/v1", "StorageClass", name) for name in STORAGE_CLASSES]
    for api_version, kind, name in wanted:
        try:
            found = client.get(api_version, kind, name)
        except ApiError as error:
            if error.status == 404:
                continue
            raise
        owner = (found["metadata"].get("labels") or {}).get(STACK_LABEL)
        if owner != pulumi.get_stack():
            whose = f"of stack {owner!r}" if owner else "of its own"
            return (
                f"cluster {cluster} has a {kind} {name} {whose}, and the stack brings one: a cluster is adopted by one stack, and "
                "without cert-manager, KServe and NVIDIA's charts. Remove it, or take a cluster of the stack's own "
                "(mistral-on-l4:cluster.existing: false)"
            )
    return None


def refuse_reserved_names(settings: Settings, reserved: Set[str]) -> None:
    """Node groups are told apart by the pool's name, and the platform has two of its own."""
    if taken := sorted({pool.name for pool in settings.pools.groups} & reserved):
        raise pulumi.RunError(f"{PROJECT}:pools.groups: the platform has a pool {taken[0]!r} of its own: choose another name")


def refuse_principals(principals: Sequence[str], creator: str | None) -> None:
    """Administrators that EKS would not take. creator: ARN of who is about to make the cluster, and so administers it."""
    key = f"{PROJECT}:cluster.adminPrincipalArns"
    for principal in principals:
        if not (found := _PRINCIPAL.fullmatch(principal)):
            raise pulumi.RunError(
                f"{key}: {principal!r} is no ARN of an IAM user or role, such as arn:aws:iam::123456789012:role/ops (of a session, "
                "name its role)"
            )
        if principals.count(principal) > 1:
            raise pulumi.RunError(f"{key}: {principal} is named more than once")
        if creator and (found["account"], found["kind"], found["name"]) == _identity(creator):
            raise pulumi.RunError(f"{key}: {principal} makes the cluster and administers it anyway: leave it out")


def _identity(caller: str) -> tuple[str, str, str] | None:
    """(account, kind, name) of the user, or of the role behind a session; None for others, such as an account's root."""
    if not (found := _CALLER.fullmatch(caller)):
        return None
    parts = found["path"].split("/")
    if found["kind"] == "user":
        return found["account"], "user", parts[-1]
    return found["account"], "role", parts[0]
