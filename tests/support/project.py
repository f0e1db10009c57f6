"""A Pulumi project of a test's own, against a running embedded cluster, by ordinary `pulumi` commands."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from embedded import plugins

# What every program of a test begins with: the cluster's provider, in the version that lies in its home.
PREAMBLE = """
import os
import pulumi
import pulumi_kubernetes as k8s

version = os.environ["MISTRAL_ON_L4_KUBERNETES_PROVIDER"] or None
named = pulumi.ResourceOptions(version=version)
provider = k8s.Provider("provider", kubeconfig=os.environ["KUBECONFIG"], cluster_identifier="test", opts=named)
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
