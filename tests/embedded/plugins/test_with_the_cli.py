"""Ordinary `pulumi` commands on the stand-ins, in a project of their own that git watches."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from embedded import plugins
from embedded.home import CHECKOUT

pytestmark = pytest.mark.embedded

PREAMBLE = """
import os
import pulumi
import pulumi_kubernetes as k8s

provider = k8s.Provider("provider", kubeconfig=os.environ["KUBECONFIG"], cluster_identifier="test")
opts = pulumi.ResourceOptions(provider=provider)
"""


class Project:
    """A Pulumi project in a git repository, with a stack `local` in the cluster's home."""

    def __init__(self, folder: Path, cluster: Any) -> None:
        self.folder, self._cluster = folder, cluster
        self.environment = {**os.environ, **plugins.pulumi_environment(cluster.home, cluster.info)}
        folder.mkdir()
        (folder / "Pulumi.yaml").write_text(f"name: {folder.name}\nruntime: python\n")
        (folder / "Pulumi.local.yaml").write_text("# by hand\nconfig:\n    pulumi:tags:\n        a: b     # an odd layout\n")
        self.program("")
        self.git("init", "-q")
        self.git("add", "-A")
        self.git("-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "start")
        plugins.ensure_stack(cluster.home, cluster.info, folder, "local")

    def program(self, text: str) -> None:
        (self.folder / "__main__.py").write_text(text)

    def git(self, *arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=self.folder, check=True, capture_output=True, text=True).stdout

    def pulumi(self, *arguments: str, fails: bool = False, timeout: float = 180.0) -> str:
        done = subprocess.run(
            [self._cluster.info.tools["pulumi"], *arguments, "--non-interactive", "--color", "never"],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert (done.returncode != 0) is fails, done.stdout + done.stderr
        return done.stdout + done.stderr

    def up(self, fails: bool = False) -> str:
        return self.pulumi("up", "--yes", "--skip-preview", fails=fails)

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.pulumi("stack", "export"))["deployment"]
        return found


@pytest.fixture
def project(cluster: Any, tmp_path: Path) -> Iterator[Project]:
    plugins.install(cluster.home, cluster.info.tools)
    made = Project(tmp_path / f"project-{os.urandom(3).hex()}", cluster)
    yield made
    made.pulumi("destroy", "--yes", "--skip-preview", "--remove")


# -- the language host -----------------------------------------------------------------------------------------------------


def test_prints_logs_and_configuration_work_as_people_expect(project: Project) -> None:
    (project.folder / "beside.py").write_text("word = 'from a module beside'\n")
    project.program(
        "import beside, pulumi\nprint('printed', beside.word)\npulumi.log.warn('careful')\n"
        "pulumi.export('tags', pulumi.Config().get_object('tags'))\npulumi.export('where', __file__)\n"
    )
    project.pulumi("config", "set", "--path", "tags.owner", "me")
    said = project.up()
    assert "printed from a module beside" in said
    assert "warning: careful" in said
    assert json.loads(project.pulumi("stack", "output", "tags")) == {"owner": "me"}
    assert project.pulumi("stack", "output", "where").strip() == str(project.folder / "__main__.py")


def test_a_run_error_is_one_line_without_a_traceback(project: Project) -> None:
    project.program("import pulumi\nraise pulumi.RunError('the cluster is not there: run `make up`')\n")
    said = project.pulumi("preview", fails=True)
    assert said.count("the cluster is not there: run `make up`") <= 2
    assert "Traceback" not in said
    assert "exited with" not in said


def test_any_other_exception_shows_its_traceback_from_the_programs_own_line_on(project: Project) -> None:
    project.program("def deep():\n    raise ValueError('wrong value 7')\n\ndeep()\n")
    said = project.pulumi("preview", fails=True)
    frames = [line for line in said.splitlines() if line.strip().startswith('File "')]
    assert str(project.folder / "__main__.py") in frames[0]
    assert "ValueError: wrong value 7" in said
    assert "runner.py" not in said


@pytest.mark.parametrize(("ending", "fails"), [("sys.exit(0)", False), ("sys.exit(3)", True), ("sys.exit('no disk left')", True)])
def test_the_programs_own_exit_code_counts(project: Project, ending: str, fails: bool) -> None:
    project.program(f"import sys\n{ending}\n")
    said = project.pulumi("preview", fails=fails)
    assert ("exited with code 3" in said) is ("3" in ending)
    assert ("no disk left" in said) is ("disk" in ending)


def test_an_interrupt_ends_the_program_and_leaves_no_process(project: Project, tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    project.program(f"import os, time, pathlib\npathlib.Path({str(mark)!r}).write_text(str(os.getpid()))\ntime.sleep(600)\n")
    command = [project._cluster.info.tools["pulumi"], "preview", "--non-interactive"]
    running = subprocess.Popen(
        command, cwd=project.folder, env=project.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    _until(lambda: mark.exists() and mark.read_text(), "the program's start")
    running.send_signal(signal.SIGINT)
    time.sleep(0.2)
    running.send_signal(signal.SIGINT)
    said, _ = running.communicate(timeout=60)
    assert "Traceback" not in said
    _until(lambda: not Path("/proc", mark.read_text()).exists(), "the program's end")


def test_a_policy_pack_runs_and_stops_what_it_forbids(project: Project) -> None:
    pack = project.folder / "pack"
    pack.mkdir()
    (pack / "PulumiPolicy.yaml").write_text("runtime: python\n")
    (pack / "__main__.py").write_text(
        "from pulumi_policy import *\n"
        "def no_b(args, report):\n"
        "    if args.resource_type == 'kubernetes:core/v1:ConfigMap' and 'b' in args.props['data']:\n"
        "        report('the key b is not allowed')\n"
        "PolicyPack('pack', policies=[ResourceValidationPolicy('no-b', 'no b', no_b, enforcement_level=EnforcementLevel.MANDATORY)])\n"
    )
    cm = "k8s.core.v1.ConfigMap('cm', data={{'{key}': '1'}}, opts=opts)\n"
    project.program(PREAMBLE + cm.format(key="a"))
    project.pulumi("preview", "--policy-pack", "pack")
    project.program(PREAMBLE + cm.format(key="b"))
    assert "the key b is not allowed" in project.pulumi("preview", "--policy-pack", "pack", fails=True)


# -- the whole way ---------------------------------------------------------------------------------------------------------

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
    assert f"ConfigMap {namespace}/x is not ready after 1 s: it has no .data.ready yet" in said
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


def test_a_stack_of_official_plugins_is_refused_in_one_line(project: Project) -> None:
    project.program(PREAMBLE + "k8s.core.v1.ConfigMap('cm', data={'a': '1'}, opts=opts)\n")
    project.up()
    deployment = project.state()
    for resource in deployment["resources"]:
        for values in (resource.get("inputs"), resource.get("outputs")):
            (values or {}).pop("__standIn", None)
    file = project.folder / "state.json"
    file.write_text(json.dumps({"version": 3, "deployment": deployment}))
    ours = json.dumps({"version": 3, "deployment": project.state()})
    project.pulumi("stack", "import", "--file", str(file))
    for command in (["preview"], ["destroy", "--yes", "--skip-preview"]):
        assert "brought up with the official pulumi-kubernetes plugin" in project.pulumi(*command, fails=True)
    file.write_text(ours)
    project.pulumi("stack", "import", "--file", str(file))


def test_secrets_of_the_configuration_are_encrypted_in_the_stack_file(project: Project) -> None:
    project.pulumi("config", "set", "--secret", "token", "very-secret-token")
    text = (project.folder / "Pulumi.local.yaml").read_text()
    assert "very-secret-token" not in text
    project.program("import pulumi\npulumi.export('token', pulumi.Config().require_secret('token'))\n")
    project.up()
    assert project.pulumi("stack", "output", "token", "--show-secrets").strip() == "very-secret-token"
    assert "encryptionsalt" in (project.folder / "Pulumi.local.yaml").read_text()


def test_the_shipped_stack_files_are_not_laid_out_anew(cluster: Any, tmp_path: Path) -> None:
    folder = tmp_path / f"project-{os.urandom(3).hex()}"
    project = Project(folder, cluster)
    for file in sorted(CHECKOUT.glob("Pulumi.*.yaml")):
        shutil.copy(file, folder / "Pulumi.local.yaml")
        (folder / ".git").rename(folder / "not-git")
        project.pulumi("preview")
        (folder / "not-git").rename(folder / ".git")
        assert (folder / "Pulumi.local.yaml").read_bytes() == file.read_bytes()
    project.pulumi("stack", "rm", "--yes")


def _until(found: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + 30
    while not found():
        assert time.monotonic() < deadline, f"{what} did not come within 30 s"
        time.sleep(0.05)
