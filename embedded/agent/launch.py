"""From a container's spec to what pod_init starts: program, arguments, environment, user, mounts."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from embedded.agent import environment, permissions, volumes
from embedded.agent.context import Context, ProgramLike
from embedded.agent.environment import ConfigProblem
from embedded.home import CHECKOUT, tools_cache
from mistral_on_l4.cluster.client import Object
from mistral_on_l4.files import write_whole

POD_FILE = "/run/mistral-on-l4/pod.json"
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_DEFAULT_TERMINATION_LOG = "/dev/termination-log"


def request(
    context: Context, pod: Object, container: Mapping[str, Any], attempt: int, prepared: Mapping[str, volumes.Prepared]
) -> tuple[dict[str, Any], ProgramLike]:
    """(pod_init's `start` request, the program). Raises NoLocalProgram, ConfigProblem.

    `pod` carries status.podIP and status.hostIP.
    """
    metadata, spec = pod["metadata"], pod["spec"]
    program = context.program_for(container["image"])
    folder = context.pod_folder(metadata["uid"])
    node = context.node(spec.get("nodeName", ""))
    services = environment.service_variables(context.services(), metadata["namespace"], spec.get("enableServiceLinks", True))
    declared = environment.resolve(container, pod, context.lookup(metadata["namespace"]), services, node)
    user = permissions.user_of(pod, container)
    env = {
        "PATH": _DEFAULT_PATH,
        "HOME": "/root" if user.uid == 0 else "/",
        "HOSTNAME": hostname(pod),
        **({"TERM": "xterm"} if container.get("tty") else {}),
        **program.env,
        **declared,
        "MISTRAL_ON_L4_POD": POD_FILE,
        "MISTRAL_ON_L4_PYTHON": sys.executable,
    }
    command = [environment.expand(part, env) for part in container.get("command") or program.entrypoint]
    args = [environment.expand(part, env) for part in container.get("args") or []]
    if not command and not args:
        raise ConfigProblem("no command specified")
    binds = volumes.mounts(container, prepared, env, user)
    taken = {bind["target"] for bind in binds}
    binds += [bind for bind in _etc(folder) if bind["target"] not in taken]
    binds.append(_bind(termination_file(folder, container["name"], attempt), termination_path(container), read_only=False))
    binds += [_bind(Path(source), target) for target, source in program.overlay.items()]
    security = container.get("securityContext") or {}
    return {
        "op": "start",
        "name": container["name"],
        "attempt": attempt,
        "argv": command + args,
        "env": env,
        "cwd": environment.expand(container.get("workingDir") or "/", env),
        "uid": user.uid,
        "gid": user.gid,
        "root": str(folder / "root"),
        "mounts": binds,
        # Other pods' files and the cluster's keys are none of a pod's business.
        "hide": [str(context.home.root)],
        "keep": _kept(context),
        "readOnlyRoot": bool(security.get("readOnlyRootFilesystem")),
        "log": str(log_file(folder, container["name"], attempt)),
        "stdin": bool(container.get("stdin")),
        "terminal": bool(container.get("tty")),
    }, program


def hostname(pod: Object) -> str:
    return str(pod["spec"].get("hostname") or pod["metadata"]["name"])[:63]


def termination_path(container: Mapping[str, Any]) -> str:
    return str(container.get("terminationMessagePath") or _DEFAULT_TERMINATION_LOG)


def termination_file(folder: Path, name: str, attempt: int) -> Path:
    return folder / "termination" / name / str(attempt)


def log_file(folder: Path, name: str, attempt: int) -> Path:
    return folder / "logs" / name / f"{attempt}.log"


def write_pod_files(context: Context, pod: Object) -> None:
    """The files of /etc that a kubelet manages, and what our own programs may ask about their pod."""
    metadata = pod["metadata"]
    folder = context.pod_folder(metadata["uid"])
    for name in ("root", "volumes", "logs"):
        (folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
    write_hosts(context, pod)
    (folder / "hostname").write_text(f"{hostname(pod)}\n")
    # There is no DNS here; names come from the hosts file. Without a server in this file a lookup fails at once.
    search = f"{metadata['namespace']}.svc.cluster.local svc.cluster.local cluster.local"
    (folder / "resolv.conf").write_text(f"search {search}\noptions ndots:1 timeout:1 attempts:1\n")
    facts = {
        key: metadata.get(key) or ({} if key in ("labels", "annotations") else "")
        for key in ("name", "namespace", "labels", "annotations")
    }
    write_whole(folder / "pod.json", json.dumps(facts), mode=0o644)


def write_hosts(context: Context, pod: Object) -> None:
    """Writes the hosts file in place: it is bound into running containers, which would keep a replaced one's old contents."""
    text = hosts_text(pod, context.services())
    path = context.pod_folder(pod["metadata"]["uid"]) / "hosts"
    try:
        if path.read_text() == text:
            return
    except FileNotFoundError:
        pass
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    with os.fdopen(descriptor, "wb") as out:
        out.write(text.encode())
        out.truncate()


def hosts_text(pod: Object, services: list[Object]) -> str:
    metadata, spec = pod["metadata"], pod["spec"]
    address = (pod.get("status") or {}).get("podIP", "")
    name = hostname(pod)
    if spec.get("subdomain"):
        name = f"{name}.{spec['subdomain']}.{metadata['namespace']}.svc.cluster.local {name}"
    lines = [
        "# Managed by the local node agent.",
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost ip6-localhost ip6-loopback",
        f"{address}\t{name}",
    ]
    for alias in spec.get("hostAliases") or []:
        lines.append(f"{alias['ip']}\t{' '.join(alias.get('hostnames') or [])}")
    for service in sorted(services, key=lambda each: (each["metadata"]["namespace"], each["metadata"]["name"])):
        cluster_ip = service["spec"].get("clusterIP")
        if not cluster_ip or cluster_ip == "None":
            continue
        full = f"{service['metadata']['name']}.{service['metadata']['namespace']}"
        names = [full, f"{full}.svc", f"{full}.svc.cluster.local"]
        if service["metadata"]["namespace"] == metadata["namespace"]:
            names.insert(0, service["metadata"]["name"])
        lines.append(f"{cluster_ip}\t{' '.join(names)}")
    return "\n".join(lines) + "\n"


def _etc(folder: Path) -> list[dict[str, Any]]:
    # /etc/resolv.conf often is a link into /run: followed, or the whole of /etc would be laid out again.
    etc = [_bind(folder / name, f"/etc/{name}") | {"follow": True} for name in ("hosts", "hostname", "resolv.conf")]
    return [*etc, _bind(folder / "pod.json", POD_FILE)]


def _bind(source: Path, target: str, read_only: bool = True) -> dict[str, Any]:
    return {"source": str(source), "target": target, "readOnly": read_only, "follow": False}


def _kept(context: Context) -> list[str]:
    """Host paths that programs need wherever a volume is mounted: interpreters, tools and this package."""
    tools = {str(Path(tool).parent) for tool in context.cluster.tools.values()}
    paths = {str(CHECKOUT), sys.prefix, sys.base_prefix, str(tools_cache()), *tools}
    return sorted(path for path in paths if not any(path != other and path.startswith(f"{other}/") for other in paths))
