"""Nothing answers to strangers: no public address without authentication in front of it."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network
from typing import Any

from pulumi_policy import Severity

from policies.pods import pod_of
from policies.reading import UNKNOWN, at, items, mapping
from policies.rule import ADVISORY, Resource, Stack, StackFinding, resource_rule, stack_rule

# Shorter than this, an address range holds what nobody can have named: two halves of the internet are the internet.
_NAMED_BITS = {4: 8, 6: 16}
_INTERNAL = {
    "service.beta.kubernetes.io/aws-load-balancer-scheme": ("internal",),
    "service.beta.kubernetes.io/aws-load-balancer-internal": ("true", "0.0.0.0/0"),
}
# Authentication in front of a host name: OpenShift AI's, oauth2-proxy's and the AWS load balancer's annotations.
_GUARDS = (
    "security.opendatahub.io/enable-auth",
    "nginx.ingress.kubernetes.io/auth-url",
    "nginx.ingress.kubernetes.io/auth-type",
    "alb.ingress.kubernetes.io/auth-type",
)
# Without a spec one is only read: it is another's, such as the Route that OpenShift AI makes of a service.
_HOST_NAMES = ("Ingress", "Route", "HTTPRoute", "Gateway", "VirtualService")
_EXPOSED_LABEL = "networking.kserve.io/visibility"


def everywhere(cidr: Any) -> bool:
    """Whether an address range is the internet, or a piece of it that is as good as all."""
    try:
        network = ip_network(cidr, strict=False) if isinstance(cidr, str) else None
    except ValueError:
        return False
    return network is not None and network.prefixlen < _NAMED_BITS[network.version]


def asks_for_token(resource: Resource) -> bool | None:
    """Whether an InferenceService's server wants a key; None if that is unknown."""
    pod = pod_of(resource)
    if pod is None or at(pod.spec, "model") is UNKNOWN:
        return None
    for container in pod.containers:
        if at(container.spec, "env") is UNKNOWN:
            return None
        for entry in items(container.spec, "env"):
            if at(entry, "name") == "VLLM_API_KEY" and at(entry, "valueFrom", "secretKeyRef", "name") is not None:
                return True
    return False


def _guarded(resource: Resource) -> bool:
    annotations = mapping(resource.meta, "annotations")
    return any(annotations.get(guard) not in (None, "", "false", "none", "False") for guard in _GUARDS)


@resource_rule(
    "no-public-exposure-without-auth",
    why="An open inference endpoint is found within hours, and every request is billed to its owner.",
    fix="keep access.exposure at 'none', or put authentication in front (enable-auth on OpenShift)",
    severity=Severity.CRITICAL,
)
def no_public_exposure_without_auth(resource: Resource) -> Iterator[str]:
    if not resource.is_kubernetes:
        return
    if resource.kind == "Service":
        yield from _service(resource)
    elif resource.kind in _HOST_NAMES and at(resource.props, "spec") is not None and not _guarded(resource):
        yield f"{resource.label}: a host name without authentication in front"
    elif resource.kind == "InferenceService":
        exposed = at(resource.meta, "labels", _EXPOSED_LABEL) == "exposed"
        if exposed and not _guarded(resource) and asks_for_token(resource) is False:
            yield f"{resource.label}: exposed and asks nobody for a token"
    pod = pod_of(resource)
    for container in pod.containers if pod else ():
        for port in items(container.spec, "ports"):
            if at(port, "hostPort") is not None:
                yield f"{resource.label}: container {container.name} opens port {at(port, 'hostPort')} of the node"


def _service(resource: Resource) -> Iterator[str]:
    kind = at(resource.props, "spec", "type")
    if kind == "NodePort":
        yield f"{resource.label}: a NodePort opens every node to anyone who reaches it"
    if kind == "LoadBalancer":
        annotations = mapping(resource.meta, "annotations")
        internal = any(str(annotations.get(key)).lower() in values for key, values in _INTERNAL.items())
        ranges = items(resource.props, "spec", "loadBalancerSourceRanges")
        if not internal and (not ranges or any(everywhere(cidr) for cidr in ranges)):
            yield f"{resource.label}: a load balancer with a public address"
    if items(resource.props, "spec", "externalIPs"):
        yield f"{resource.label}: externalIPs take addresses of others"


@resource_rule(
    "services-ask-for-a-token",
    why="Anyone who reaches an InferenceService without a token can use its GPUs.",
    fix="set mistral-on-l4:access.auth to token",
    severity=Severity.MEDIUM,
    level=ADVISORY,
)
def services_ask_for_a_token(resource: Resource) -> Iterator[str]:
    if resource.kind == "InferenceService" and asks_for_token(resource) is False and not _guarded(resource):
        yield f"{resource.label}: asks nobody for a token"


@resource_rule(
    "network-policies-name-their-peers",
    why="A NetworkPolicy that admits everybody is a fence with its gate open.",
    fix="name the pods, namespaces or private address ranges that may connect",
    severity=Severity.HIGH,
)
def network_policies_name_their_peers(resource: Resource) -> Iterator[str]:
    if resource.kind != "NetworkPolicy" or not resource.is_kubernetes:
        return
    for rule in items(resource.props, "spec", "ingress"):
        if at(rule, "from") is UNKNOWN:
            continue
        peers = items(rule, "from")
        if not peers:
            yield f"{resource.label}: an ingress rule without 'from' admits everybody"
        for peer in peers:
            if everywhere(at(peer, "ipBlock", "cidr")):
                yield f"{resource.label}: admits {at(peer, 'ipBlock', 'cidr')}"
            elif at(peer, "namespaceSelector") == {} and at(peer, "podSelector") in (None, {}):
                yield f"{resource.label}: admits every pod of every namespace"


@stack_rule(
    "services-are-behind-a-network-policy",
    why="vLLM's key guards /v1 alone: /invocations answers without one, so only a NetworkPolicy keeps other pods out.",
    fix="declare a NetworkPolicy with policyTypes [Ingress] that selects the pods of every InferenceService and store",
    severity=Severity.HIGH,
)
def services_are_behind_a_network_policy(stack: Stack) -> Iterator[StackFinding]:
    policies = [found for found in stack.of("NetworkPolicy") if found.is_kubernetes]
    for resource in stack.of("InferenceService", "StatefulSet", "Deployment"):
        if "kubernetes:helm.sh/" in resource.urn or not resource.is_kubernetes:
            continue
        if not any(_covers(policy, resource) for policy in policies):
            yield f"{resource.label}: no NetworkPolicy selects its pods", resource.urn


def _covers(policy: Resource, resource: Resource) -> bool:
    if policy.meta.get("namespace") != resource.meta.get("namespace"):
        return False
    selector: Any = at(policy.props, "spec", "podSelector")
    if selector is UNKNOWN:
        return True
    if "Ingress" not in items(policy.props, "spec", "policyTypes"):
        return False
    if resource.kind == "InferenceService":
        # KServe puts the service's name on its pods.
        pods = {"serving.kserve.io/inferenceservice": resource.meta.get("name")}
    else:
        pods = dict(mapping(resource.props, "spec", "template", "metadata", "labels"))
    if any(pods.get(key) != value for key, value in mapping(selector, "matchLabels").items()):
        return False
    return all(_matches(expression, pods) for expression in items(selector, "matchExpressions"))


def _matches(expression: Any, labels: dict[str, Any]) -> bool:
    held, values = labels.get(str(at(expression, "key"))), items(expression, "values")
    match at(expression, "operator"):
        case "In":
            return held in values
        case "NotIn":
            return held not in values
        case "Exists":
            return held is not None
        case "DoesNotExist":
            return held is None
    return False


POLICIES = (
    no_public_exposure_without_auth,
    services_ask_for_a_token,
    network_policies_name_their_peers,
    services_are_behind_a_network_policy,
)
