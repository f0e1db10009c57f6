"""The stand-in for Pulumi's Python language host, under ordinary `pulumi` commands in a project that git watches."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embedded import plugins
from embedded.home import CHECKOUT
from tests.support.project import PREAMBLE, Project

pytestmark = pytest.mark.embedded


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


def test_secrets_of_the_configuration_are_encrypted_in_the_stack_file(project: Project) -> None:
    project.pulumi("config", "set", "--secret", "token", "very-secret-token")
    text = (project.folder / "Pulumi.local.yaml").read_text()
    assert "very-secret-token" not in text
    project.program("import pulumi\npulumi.export('token', pulumi.Config().require_secret('token'))\n")
    project.up()
    assert project.pulumi("stack", "output", "token", "--show-secrets").strip() == "very-secret-token"
    assert "encryptionsalt" in (project.folder / "Pulumi.local.yaml").read_text()


def test_the_shipped_stack_files_are_not_laid_out_anew(cluster: Any, tmp_path: Path) -> None:
    plugins.install(cluster.home, cluster.info.tools)
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
