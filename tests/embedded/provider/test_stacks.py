"""Whole stacks on the official Kubernetes provider: what this project counts on in it, by ordinary `pulumi` commands."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from tests.support.project import PREAMBLE, Project

pytestmark = pytest.mark.embedded

STACK = (
    PREAMBLE
    + """
space = k8s.core.v1.Namespace("space", metadata={"name": "SPACE"}, opts=opts)
inside = {"namespace": space.metadata["name"]}
stash = pulumi.Stash("password", input=pulumi.Output.secret("hunter2-hunter2"))
keys = k8s.core.v1.Secret("keys", metadata={**inside, "name": "keys"}, string_data={"key": stash.output, "plain": "seen-by-nobody"}, opts=opts)
settings = k8s.core.v1.ConfigMap("settings", metadata=inside, data={"a": "1"}, opts=opts)
names = {"kind": "Gadget", "plural": "gadgets"}
schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
version = {"name": "v1", "served": True, "storage": True, "schema": schema}
spec = {"group": "SPACE.example.org", "names": names, "scope": "Namespaced", "versions": [version]}
definition = k8s.apiextensions.v1.CustomResourceDefinition("gadgets", metadata={"name": "gadgets.SPACE.example.org"}, spec=spec, opts=opts)
after = pulumi.ResourceOptions(provider=provider, depends_on=[definition])
gadget = k8s.apiextensions.CustomResource(
    "gadget", api_version="SPACE.example.org/v1", kind="Gadget", metadata={**inside, "name": "g"}, spec={"a": [1, 2.5]}, opts=after
)
found = k8s.core.v1.ConfigMap.get("found", settings.id, opts=opts)
pulumi.export("data", found.data)
pulumi.export("uid", settings.metadata.apply(lambda meta: meta.uid))
pulumi.export("key", keys.data)
"""
)


def test_a_stack_comes_up_stays_the_same_and_goes_without_a_trace_in_git(project: Project, cluster: Any) -> None:
    space = f"s{os.urandom(3).hex()}"
    project.program(STACK.replace("SPACE", space))
    project.git("-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-aqm", "program")
    preview = project.pulumi("preview")
    assert "+ 8 to create" in preview
    project.up()
    assert json.loads(project.pulumi("stack", "output", "data")) == {"a": "1"}
    live = [
        found for found in cluster.client.list("v1", "ConfigMap", space)["items"] if found["metadata"]["name"] != "kube-root-ca.crt"
    ]
    assert project.pulumi("stack", "output", "uid").strip() == live[0]["metadata"]["uid"]
    project.pulumi("preview", "--expect-no-changes")
    # What `get` has read gets its whole object at the first refresh; nothing else may change.
    project.pulumi("refresh", "--yes")
    project.pulumi("refresh", "--yes", "--expect-no-changes")
    project.pulumi("up", "--yes", "--expect-no-changes")
    text = json.dumps(project.state())
    for secret in ("hunter2", "seen-by-nobody", "aHVudGVyMi", "c2Vlbi1ieS1ub2JvZHk"):
        assert secret not in text
    project.pulumi("destroy", "--yes")
    assert project.state().get("resources", []) == []
    assert project.git("status", "--porcelain") == ""


def test_what_did_not_become_ready_is_in_the_state_and_the_next_up_goes_on_with_it(
    project: Project, cluster: Any, namespace: str
) -> None:
    wait = "pulumi.com/waitFor"
    program = (
        PREAMBLE
        + f"meta = {{'namespace': '{namespace}', 'name': 'x', 'annotations': {{'{wait}': 'jsonpath={{.data.ready}}=yes'}}}}\n"
        + "late = pulumi.ResourceOptions(provider=provider, custom_timeouts=pulumi.CustomTimeouts(create='1s', update='20s'))\n"
        + "k8s.core.v1.ConfigMap('cm', metadata=meta, data={'a': '1'}, opts=late)\n"
    )
    project.program(program)
    said = project.up(fails=True)
    assert "failed to fully initialize or become live" in said
    kept = [r for r in project.state()["resources"] if r["type"] == "kubernetes:core/v1:ConfigMap"]
    assert kept[0]["id"] == f"{namespace}/x"
    cluster.client.patch("v1", "ConfigMap", "x", namespace, {"data": {"ready": "yes"}})
    project.up()
    assert cluster.client.get("v1", "ConfigMap", "x", namespace)["data"] == {"a": "1", "ready": "yes"}


def test_an_existing_object_can_be_imported(project: Project, cluster: Any, namespace: str) -> None:
    cluster.client.create(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "namespace": namespace}, "data": {"a": "1"}}
    )
    meta = f"metadata={{'namespace': '{namespace}', 'name': 'x'}}, data={{'a': '1'}}"
    taken = f"opts=pulumi.ResourceOptions(provider=provider, import_='{namespace}/x')"
    project.program(PREAMBLE + f"k8s.core.v1.ConfigMap('cm', {meta}, {taken})\n")
    project.up()
    project.program(PREAMBLE + f"k8s.core.v1.ConfigMap('cm', {meta}, opts=opts)\n")
    project.up()
    assert cluster.client.get("v1", "ConfigMap", "x", namespace)["data"] == {"a": "1"}


def test_a_replaced_config_map_with_a_fixed_name_is_deleted_first(project: Project, cluster: Any, namespace: str) -> None:
    program = (
        PREAMBLE
        + f"k8s.core.v1.ConfigMap('cm', metadata={{'namespace': '{namespace}', 'name': 'x'}}, data={{'a': '1'}}, opts=opts)\n"
    )
    project.program(program)
    project.up()
    before = cluster.client.get("v1", "ConfigMap", "x", namespace)["metadata"]["uid"]
    project.program(program.replace("'1'", "'2'"))
    assert "replace" in project.pulumi("preview")
    project.up()
    after = cluster.client.get("v1", "ConfigMap", "x", namespace)
    assert (after["data"], after["metadata"]["uid"] != before) == ({"a": "2"}, True)


def test_a_replaced_config_map_with_a_made_up_name_gets_another_before_the_old_one_goes(
    project: Project, cluster: Any, namespace: str
) -> None:
    program = PREAMBLE + f"k8s.core.v1.ConfigMap('cm', metadata={{'namespace': '{namespace}'}}, data={{'a': '1'}}, opts=opts)\n"
    project.program(program)
    project.up()
    project.program(program.replace("'1'", "'2'"))
    project.up()
    names = [
        item["data"]
        for item in cluster.client.list("v1", "ConfigMap", namespace)["items"]
        if item["metadata"]["name"].startswith("cm-")
    ]
    assert names == [{"a": "2"}]
