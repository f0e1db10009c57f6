"""How a cluster is reached may change; what is in it stays. Asked of the official Kubernetes provider (pulumi-kubernetes#4019)."""

from __future__ import annotations

import base64
import json
import stat

import pytest
import yaml

pytestmark = pytest.mark.embedded

# The shape of components/aws/kubeconfig.py: a command that fetches the credential, and the cluster's identity beside it.
PROGRAM = """
import os
import pulumi
import pulumi_kubernetes as k8s

named = pulumi.ResourceOptions(version=os.environ["MISTRAL_ON_L4_KUBERNETES_PROVIDER"] or None)
provider = k8s.Provider("provider", kubeconfig=open("kubeconfig.json").read(), {identity}opts=named)
opts = pulumi.ResourceOptions(provider=provider)
for number in range(2):
    k8s.core.v1.ConfigMap(f"kept-{{number}}", metadata={{"name": f"kept-{{number}}", "namespace": "{namespace}"}}, opts=opts)
"""


@pytest.fixture
def reached(project, cluster, namespace, tmp_path):
    """Brings the stack up over a kubeconfig and returns the objects' uids; or, for another identity, what a preview says."""
    known = yaml.safe_load(cluster.home.kubeconfig.read_text())
    user = known["users"][0]["user"]
    read = {
        key: base64.b64decode(user[f"{name}-data"]).decode() if f"{name}-data" in user else open(user[name]).read()  # noqa: PTH123, SIM115
        for key, name in (("clientCertificateData", "client-certificate"), ("clientKeyData", "client-key"))
    }
    credential = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": read}
    (tmp_path / "credential.json").write_text(json.dumps(credential))

    def up(identity="test", command="demo", changed=None, **cluster_settings):
        path = tmp_path / command
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\ncat {tmp_path}/credential.json\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        how = {"apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Never", "command": str(path), **(changed or {})}
        config = {
            **known,
            "clusters": [{**each, "cluster": {**each["cluster"], **cluster_settings}} for each in known["clusters"]],
            "users": [{**known["users"][0], "user": {"exec": how}}],
        }
        (project.folder / "kubeconfig.json").write_text(json.dumps(config))
        project.program(PROGRAM.format(identity=f'cluster_identifier="{identity}", ', namespace=namespace))
        if identity != "test":
            return project.pulumi("preview")
        project.up()
        return [cluster.client.get("v1", "ConfigMap", f"kept-{number}", namespace)["metadata"]["uid"] for number in range(2)]

    return up


def test_another_path_proxy_certificate_or_address_of_a_cluster_replaces_none_of_its_objects(reached, cluster):
    before = reached()
    authority = (cluster.home.pki / "ca.crt").read_bytes()
    renewed = base64.b64encode(authority + authority).decode()
    assert reached(command="elsewhere/demo") == before
    assert reached(changed={"env": [{"name": "HTTPS_PROXY", "value": "http://127.0.0.1:1"}]}) == before
    assert reached(**{"certificate-authority-data": renewed}) == before
    assert reached(server=cluster.info.api_server_url.replace("127.0.0.1", "localhost")) == before
    # And so that this test can fail: what the identity says is another cluster, is.
    assert "3 to replace" in reached(identity="another")
