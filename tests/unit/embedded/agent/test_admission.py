"""Which pods a pod's NetworkPolicies admit."""

from __future__ import annotations

import pytest

from embedded.agent.admission import Admission, selects

ADDRESSES = {"store": "10.128.0.1", "near": "10.128.0.2", "far": "10.129.0.3", "stranger": "10.129.0.4"}


def pod(namespace, ports=(), **labels):
    containers = [{"name": "main", "ports": [{"name": name, "containerPort": number} for name, number in ports]}]
    return {"metadata": {"namespace": namespace, "labels": labels}, "spec": {"containers": containers}}


PODS = {
    "store": pod("shop", [("s3", 9000)], app="store"),
    "near": pod("shop", role="client"),
    "far": pod("office", role="client"),
    "stranger": pod("office"),
}
NAMESPACES = [{"metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}}} for name in ("shop", "office")]


def policy(*ingress, namespace="shop", selector=None, **spec):
    rules = {"ingress": list(ingress)} if ingress else {}
    return {"metadata": {"namespace": namespace, "name": "p"}, "spec": {"podSelector": selector or {}, **rules, **spec}}


def admitted(*policies, port=9000):
    return Admission(policies, NAMESPACES, PODS, ADDRESSES).clients("store", port)


def test_a_pod_that_no_ingress_policy_selects_is_open():
    other = {"matchLabels": {"app": "other"}}
    assert admitted() is None
    assert admitted(policy(namespace="office"), policy(selector=other), policy(policyTypes=["Egress"])) is None


def test_a_policy_without_rules_admits_nobody_but_the_pod_itself():
    assert admitted(policy()) == ["store"]


def test_an_empty_rule_admits_everybody_on_its_ports():
    rule = {"ports": [{"port": 9000}]}
    assert admitted(policy(rule)) is None
    assert admitted(policy(rule), port=9001) == ["store"]
    assert admitted(policy({})) is None


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        ({"podSelector": {}}, ["near", "store"]),
        ({"podSelector": {"matchLabels": {"role": "client"}}}, ["near", "store"]),
        ({"podSelector": {"matchLabels": {"role": "client"}}, "namespaceSelector": {}}, ["far", "near", "store"]),
        ({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "office"}}}, ["far", "store", "stranger"]),
        ({"ipBlock": {"cidr": "10.129.0.0/16", "except": ["10.129.0.4/32"]}}, ["far", "store"]),
    ],
)
def test_a_peer_is_a_pod_by_its_labels_its_namespace_or_its_address(peer, expected):
    assert admitted(policy({"from": [peer]})) == expected


def test_policies_add_up():
    one, two = ({"from": [{"ipBlock": {"cidr": f"{ADDRESSES[name]}/32"}}]} for name in ("near", "far"))
    assert admitted(policy(one), policy(two)) == ["far", "near", "store"]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"port": "s3"}, True),
        ({"port": "web"}, False),
        ({"port": 8000, "endPort": 9000}, True),
        ({"port": 8000, "endPort": 8999}, False),
        ({"port": 9000, "protocol": "UDP"}, False),
        ({"protocol": "TCP"}, True),
    ],
)
def test_a_port_is_meant_by_number_range_or_name(entry, expected):
    found = admitted(policy({"from": [{"podSelector": {}}], "ports": [entry]}))
    assert found == (["near", "store"] if expected else ["store"])


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ({"key": "app", "operator": "In", "values": ["a", "b"]}, True),
        ({"key": "app", "operator": "NotIn", "values": ["a"]}, False),
        ({"key": "tier", "operator": "NotIn", "values": ["a"]}, True),
        ({"key": "app", "operator": "Exists"}, True),
        ({"key": "tier", "operator": "Exists"}, False),
        ({"key": "tier", "operator": "DoesNotExist"}, True),
        ({"key": "app", "operator": "Later"}, False),
    ],
)
def test_a_selector_understands_every_operator(expression, expected):
    assert selects({"matchExpressions": [expression]}, {"app": "a"}) is expected
