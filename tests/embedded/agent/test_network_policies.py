"""NetworkPolicies hold between pods: a client that none of them admits is refused, as the manifests say."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.embedded

SERVER = "import http.server as h; h.ThreadingHTTPServer(('', 8080), h.SimpleHTTPRequestHandler).serve_forever()"
ASK = """
ask() { python -c 'import urllib.request as u; print(u.urlopen("http://shop:80/", timeout=5).status)' 2>/dev/null || echo refused; }
"""
READINESS = {"readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1}}


@pytest.fixture
def shop(lab):
    """A server behind a Service, which only pods labelled as clients may reach."""
    lab.pod("shop", f'cd /usr/share; exec python -c "{SERVER}"', metadata={"labels": {"app": "shop"}}, container=READINESS)
    lab.create("v1", "Service", "shop", spec={"selector": {"app": "shop"}, "ports": [{"port": 80, "targetPort": 8080}]})
    rule = {"from": [{"podSelector": {"matchLabels": {"client": "true"}}}], "ports": [{"port": 8080}]}
    spec = {"podSelector": {"matchLabels": {"app": "shop"}}, "policyTypes": ["Ingress"], "ingress": [rule]}
    lab.create("networking.k8s.io/v1", "NetworkPolicy", "clients", spec=spec)
    lab.eventually(lambda: lab.container("shop").get("ready"))


def test_only_a_pod_with_the_label_is_served(lab, shop):
    wait = "until [ $(ask) = 200 ]; do sleep 0.2; done; echo served"
    lab.pod("friend", ASK + wait, metadata={"labels": {"client": "true"}})
    lab.phase("friend", "Succeeded")
    lab.pod("stranger", f"{ASK}for i in 1 2 3; do ask; done")
    lab.phase("stranger", "Succeeded")
    assert lab.log("stranger").split() == ["refused"] * 3


def test_a_label_and_a_policy_count_from_the_moment_they_change(lab, shop):
    lab.pod("client", f"{ASK}while :; do ask; sleep 0.2; done", terminationGracePeriodSeconds=0)

    def last():
        return (lab.log("client").split() or [""])[-1]

    lab.phase("client", "Running")
    lab.eventually(lambda: last() == "refused")
    lab.client.patch("v1", "Pod", "client", lab.namespace, {"metadata": {"labels": {"client": "true"}}})
    lab.eventually(lambda: last() == "200")
    lab.client.patch("v1", "Pod", "client", lab.namespace, {"metadata": {"labels": {"client": None}}})
    lab.eventually(lambda: last() == "refused")
    lab.client.delete("networking.k8s.io/v1", "NetworkPolicy", "clients", lab.namespace)
    lab.eventually(lambda: last() == "200")
