"""What a container finds in its environment."""

from __future__ import annotations

import pytest

from embedded.agent import environment, quantities
from embedded.agent.environment import ConfigProblem


def resolve(pod, lookup, **container):
    return environment.resolve({"name": "main", **container}, pod, lookup, {"DB_SERVICE_HOST": "127.64.0.9"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(A)-$(B)", "1-$(B)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$A ${A} $(A", "$A ${A} $(A"),
        ("cost: 5$", "cost: 5$"),
    ],
)
def test_only_names_in_parentheses_with_a_value_are_replaced(text, expected):
    assert environment.expand(text, {"A": "1"}) == expected


def test_a_value_sees_what_was_declared_before_it_and_services_but_not_what_comes_later(pod, lookup):
    env = [
        {"name": "FIRST", "value": "$(SECOND)"},
        {"name": "SECOND", "value": "$(FIRST)/$(DB_SERVICE_HOST)"},
    ]
    found = resolve(pod, lookup, env=env)
    assert found["FIRST"] == "$(SECOND)"
    assert found["SECOND"] == "$(SECOND)/127.64.0.9"


def test_a_declared_value_wins_over_a_service_variable_of_that_name(pod, lookup):
    assert resolve(pod, lookup, env=[{"name": "DB_SERVICE_HOST", "value": "mine"}])["DB_SERVICE_HOST"] == "mine"


def test_secrets_and_config_maps_become_values_and_env_wins_over_env_from(pod, lookup):
    found = resolve(
        pod,
        lookup,
        envFrom=[{"configMapRef": {"name": "settings"}, "prefix": "S_"}, {"secretRef": {"name": "keys"}}],
        env=[{"name": "user", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "mode"}}}],
    )
    assert found["S_mode"] == "fast"
    assert found["password"] == "p4ss"
    assert found["user"] == "fast"
    assert "S_not valid" not in found


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ({"secretKeyRef": {"name": "gone", "key": "a"}}, 'secret "gone" not found'),
        ({"configMapKeyRef": {"name": "gone", "key": "a"}}, 'configmap "gone" not found'),
        ({"secretKeyRef": {"name": "keys", "key": "nokey"}}, "couldn't find key nokey in Secret shop/keys"),
        ({"fieldRef": {"fieldPath": "spec.hostname"}}, "unsupported fieldPath: spec.hostname"),
        ({"fileKeyRef": {"path": "x"}}, "not supported"),
    ],
)
def test_a_reference_to_what_is_missing_is_named(pod, lookup, reference, words):
    with pytest.raises(ConfigProblem, match=words):
        resolve(pod, lookup, env=[{"name": "A", "valueFrom": reference}])


def test_optional_references_to_what_is_missing_leave_the_name_unset(pod, lookup):
    found = resolve(
        pod,
        lookup,
        envFrom=[{"secretRef": {"name": "gone", "optional": True}}],
        env=[
            {"name": "A", "valueFrom": {"secretKeyRef": {"name": "gone", "key": "a", "optional": True}}},
            {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "none", "optional": True}}},
        ],
    )
    assert {"A", "B"} & found.keys() == set()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("metadata.name", "web-0"),
        ("metadata.namespace", "shop"),
        ("metadata.labels['app']", "web"),
        ("metadata.annotations['note']", "first\nsecond"),
        ("metadata.annotations['none']", ""),
        ("metadata.labels", 'app="web"\ntier="a\\"b"'),
        ("spec.nodeName", "gpu-0"),
        ("spec.serviceAccountName", "clerk"),
        ("status.podIP", "10.128.0.7"),
        ("status.hostIP", "127.0.0.1"),
    ],
)
def test_the_downward_api_knows_the_pod(pod, path, expected):
    assert environment.field_value(pod, path) == expected


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ({"resource": "limits.cpu"}, "2"),
        ({"resource": "limits.cpu", "divisor": "1m"}, "1500"),
        ({"resource": "limits.memory", "divisor": "1Mi"}, "1024"),
        ({"resource": "requests.memory"}, "0"),
        ({"resource": "limits.ephemeral-storage", "divisor": "1Gi"}, "7"),
    ],
)
def test_resources_are_given_in_divisors_rounded_up_and_a_missing_limit_is_the_nodes(pod, reference, expected):
    node = {"status": {"allocatable": {"ephemeral-storage": "7Gi"}}}
    assert environment.resource_value(reference, pod["spec"]["containers"][0], pod, node) == expected


def test_services_of_the_namespace_and_the_api_server_are_announced_unless_links_are_off(service):
    services = [
        service("kubernetes", "default", "127.64.0.1", {"name": "https", "port": 443}),
        service("my-db", "shop", "127.64.0.9", {"port": 5432}),
        service("other", "elsewhere", "127.64.0.10"),
        service("headless", "shop", "None"),
    ]
    found = environment.service_variables(services, "shop", links=True)
    assert found["KUBERNETES_SERVICE_PORT_HTTPS"] == "443"
    assert found["MY_DB_SERVICE_HOST"] == "127.64.0.9"
    assert found["MY_DB_PORT_5432_TCP"] == "tcp://127.64.0.9:5432"
    assert not [name for name in found if name.startswith(("OTHER", "HEADLESS"))]
    assert {name.split("_")[0] for name in environment.service_variables(services, "shop", links=False)} == {"KUBERNETES"}


@pytest.mark.parametrize(("text", "bytes_"), [("16Gi", 16 * 2**30), ("1e3", 1000), ("500m", 0.5), (4, 4), ("2k", 2000)])
def test_quantities_are_read_exactly(text, bytes_):
    assert quantities.parse(text) == quantities.parse(str(bytes_))


@pytest.mark.parametrize("text", ["", "16GiB", "lots", "nan"])
def test_what_is_no_quantity_is_refused_by_name(text):
    with pytest.raises(ValueError, match="quantity"):
        quantities.parse(text)
