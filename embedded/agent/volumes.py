"""A pod's volumes: folders in the pod's own folder, or of a PersistentVolume, that are bound into its containers."""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedded.agent import environment, permissions, quantities
from embedded.agent.environment import ConfigProblem, Lookup
from embedded.agent.permissions import Ownership, User
from mistral_on_l4.cluster.client import ApiError, KubeClient, Object

# kubelet asks for a new token when a fifth of its life is left.
_TOKEN_RENEWAL = 0.8
_DEFAULT_MODE = 0o644
_EVERYBODYS = Ownership(0, 0, 0o777)
_CONTENT_KINDS = ("configMap", "secret", "projected", "downwardAPI")


class VolumeProblem(Exception):
    """A volume that cannot be prepared, in kubelet's words. `final` when waiting cannot help."""

    def __init__(self, message: str, final: bool = False) -> None:
        super().__init__(message)
        self.final = final


@dataclass(frozen=True)
class Prepared:
    """A volume ready to be bound. owned: whose its folder would be on a node; memory_bytes: it is a tmpfs that the pod mounts on
    `path`, of this size (0: half of memory)."""

    path: Path
    read_only: bool = False
    memory_bytes: int | None = None
    owned: Ownership = _EVERYBODYS


@dataclass(frozen=True)
class File:
    """token: of a service account, which kubelet gives to the pod's user, whoever that is."""

    data: bytes
    mode: int
    token: bool = False

    def as_seen_in(self, pod: Object, volume: str) -> File:
        """With the mode that keeps out whom it would keep out on a node."""
        mode = self.mode | 0o400 if self.token else permissions.content_mode(self.mode, pod, volume)
        return File(self.data, mode, self.token)


class Volumes:
    """Prepares and refreshes the volumes of one pod.

    lookup: ConfigMaps and Secrets of the pod's namespace; folder: where the pod's volumes lie, one folder each.
    """

    def __init__(self, api: KubeClient, folder: Path, lookup: Lookup, node: Callable[[], Object | None]) -> None:
        self._api, self._folder, self._lookup, self._node = api, folder, lookup, node
        self._tokens: dict[str, tuple[str, float]] = {}

    def prepare(self, pod: Object) -> dict[str, Prepared]:
        """All volumes by name. Raises VolumeProblem."""
        return {volume["name"]: self._one(volume, pod) for volume in pod["spec"].get("volumes") or []}

    def refresh(self, pod: Object) -> None:
        """Writes again what came from ConfigMaps, Secrets, tokens or the pod itself, if it changed. Raises VolumeProblem."""
        for volume in pod["spec"].get("volumes") or []:
            if any(kind in volume for kind in _CONTENT_KINDS):
                self._one(volume, pod)

    def _one(self, volume: Mapping[str, Any], pod: Object) -> Prepared:
        name = volume["name"]
        path = self._folder / name
        kind = next((key for key in volume if key != "name"), "emptyDir")
        source = volume.get(kind) or {}
        try:
            if kind in _CONTENT_KINDS:
                files = self._contents(kind, source, pod, name)
                write_contents(path, {file: found.as_seen_in(pod, name) for file, found in files.items()})
                return Prepared(path, read_only=True)
            if kind == "emptyDir":
                path.mkdir(mode=0o777, parents=True, exist_ok=True)
                path.chmod(0o777)
                if source.get("medium") == "Memory":
                    return Prepared(path, memory_bytes=int(quantities.parse(source.get("sizeLimit") or 0)))
                return Prepared(path)
            if kind == "hostPath":
                path = _host_path(source)
                found = path.stat()
                return Prepared(path, owned=Ownership(found.st_uid, found.st_gid, found.st_mode))
            if kind == "persistentVolumeClaim":
                return self._claim(source, pod)
        except (ConfigProblem, ValueError) as error:
            raise VolumeProblem(f'MountVolume.SetUp failed for volume "{name}" : {error}') from error
        except OSError as error:
            raise VolumeProblem(f'MountVolume.SetUp failed for volume "{name}" : {error.strerror}: {error.filename}') from error
        raise VolumeProblem(
            f'MountVolume.SetUp failed for volume "{name}" : volumes of kind {kind} are not supported by the local node agent '
            f"(supported: {', '.join([*_CONTENT_KINDS, 'emptyDir', 'hostPath', 'persistentVolumeClaim'])})",
            final=True,
        )

    # -- contents ------------------------------------------------------------------------------------------------------

    def _contents(self, kind: str, source: Mapping[str, Any], pod: Object, volume: str) -> dict[str, File]:
        mode = int(source.get("defaultMode") or _DEFAULT_MODE)
        if kind != "projected":
            return self._source(kind, source, pod, volume, mode)
        files: dict[str, File] = {}
        for part in source.get("sources") or []:
            for part_kind, part_source in part.items():
                files |= self._source(part_kind, part_source or {}, pod, volume, mode)
        return files

    def _source(self, kind: str, source: Mapping[str, Any], pod: Object, volume: str, mode: int) -> dict[str, File]:
        if kind in ("configMap", "secret"):
            return self._keys(kind, source, mode)
        if kind == "downwardAPI":
            files = {}
            for item in source.get("items") or []:
                if (reference := item.get("fieldRef")) is not None:
                    text = environment.field_value(pod, reference["fieldPath"])
                else:
                    text = environment.resource_value(item["resourceFieldRef"], {}, pod, self._node())
                files[item["path"]] = File(text.encode(), int(item.get("mode") or mode))
            return files
        if kind == "serviceAccountToken":
            token = self._token(source, pod, f"{volume}/{source['path']}")
            return {source["path"]: File(token.encode(), mode, token=True)}
        raise ConfigProblem(f"a projected source of kind {kind} is not supported by the local node agent")

    def _keys(self, kind: str, source: Mapping[str, Any], mode: int) -> dict[str, File]:
        name = source.get("secretName") or source.get("name") or ""
        kinds = {"configMap": "ConfigMap", "secret": "Secret"}
        source_object = self._lookup(kinds[kind], name)
        if source_object is None:
            if source.get("optional"):
                return {}
            raise ConfigProblem(f'{kind.lower()} "{name}" not found')
        data = _bytes_data(source_object)
        items = source.get("items")
        if not items:
            return {key: File(value, mode) for key, value in data.items()}
        files = {}
        for item in items:
            if item["key"] in data:
                files[item["path"]] = File(data[item["key"]], int(item.get("mode") or mode))
            elif not source.get("optional"):
                raise ConfigProblem(f"references non-existent {kind.lower()} key: {item['key']}")
        return files

    def _token(self, source: Mapping[str, Any], pod: Object, key: str) -> str:
        token, renew = self._tokens.get(key, ("", 0.0))
        if token and time.time() < renew:
            return token
        metadata = pod["metadata"]
        seconds = int(source.get("expirationSeconds") or 3600)
        reference = {"apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": metadata["uid"]}
        spec: dict[str, Any] = {"expirationSeconds": seconds, "boundObjectRef": reference}
        if source.get("audience"):
            spec["audiences"] = [source["audience"]]
        account = pod["spec"].get("serviceAccountName") or "default"
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        path = f"/api/v1/namespaces/{metadata['namespace']}/serviceaccounts/{account}/token"
        try:
            issued = self._api.request("POST", path, body=body)
        except ApiError as error:
            raise ConfigProblem(f"failed to fetch token: {error}") from error
        token = str(issued["status"]["token"])
        self._tokens[key] = (token, time.time() + seconds * _TOKEN_RENEWAL)
        return token

    # -- persistent volumes --------------------------------------------------------------------------------------------

    def _claim(self, source: Mapping[str, Any], pod: Object) -> Prepared:
        name, namespace = source["claimName"], pod["metadata"]["namespace"]
        try:
            claim = self._api.get("v1", "PersistentVolumeClaim", name, namespace)
            if claim.get("status", {}).get("phase") != "Bound":
                raise ConfigProblem(f'persistentvolumeclaim "{name}" is not bound yet')
            volume = self._api.get("v1", "PersistentVolume", claim["spec"]["volumeName"])
        except ApiError as error:
            raise ConfigProblem(str(error)) from error
        spec = volume["spec"]
        if "hostPath" in spec:
            path = _host_path(spec["hostPath"])
        elif "local" in spec:
            path = _host_path({"path": spec["local"]["path"], "type": "Directory"})
        else:
            raise ConfigProblem(f"PersistentVolume {volume['metadata']['name']} is neither hostPath nor local")
        # A folder here, a disk anywhere else.
        return Prepared(path, read_only=bool(source.get("readOnly")), owned=permissions.disk(pod))


def _host_path(source: Mapping[str, Any]) -> Path:
    path, kind = Path(source["path"]), source.get("type") or ""
    if kind == "DirectoryOrCreate":
        path.mkdir(mode=0o755, parents=True, exist_ok=True)
    elif kind == "FileOrCreate":
        path.touch(mode=0o644, exist_ok=True)
    elif kind == "Directory" and not path.is_dir():
        raise ConfigProblem(f"hostPath type check failed: {path} is not a directory")
    elif kind == "File" and not path.is_file():
        raise ConfigProblem(f"hostPath type check failed: {path} is not a file")
    elif not path.exists():
        raise ConfigProblem(f"hostPath {path} does not exist")
    return path


def _bytes_data(obj: Object) -> dict[str, bytes]:
    if obj.get("kind") == "Secret":
        return {key: base64.b64decode(value) for key, value in (obj.get("data") or {}).items()}
    texts = {key: value.encode() for key, value in (obj.get("data") or {}).items()}
    return texts | {key: base64.b64decode(value) for key, value in (obj.get("binaryData") or {}).items()}


def write_contents(folder: Path, files: Mapping[str, File]) -> bool:
    """Lays files out as kubelet does: `name -> ..data/name`, `..data -> a dated folder`, so that all change in one step.

    True if anything changed. Raises OSError, ConfigProblem for a path that leaves the folder.
    """
    for path in files:
        if path.startswith("/") or ".." in path.split("/"):
            raise ConfigProblem(f"invalid path {path!r}")
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    link = folder / "..data"
    if link.is_symlink() and _contents(folder / link.readlink()) == {path: file.data for path, file in files.items()}:
        return False
    fresh = folder / f"..{time.strftime('%Y_%m_%d_%H_%M_%S')}.{time.time_ns() % 10**9:09d}"
    fresh.mkdir(mode=0o755)
    for path, file in files.items():
        (fresh / path).parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        descriptor = os.open(fresh / path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            out.write(file.data)
        (fresh / path).chmod(file.mode)
    old = folder / link.readlink() if link.is_symlink() else None
    temporary = folder / "..data_tmp"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(fresh.name)
    temporary.replace(link)
    names = {path.split("/")[0] for path in files}
    for name in names:
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")
    for entry in folder.iterdir():
        if not entry.name.startswith("..") and entry.name not in names:
            entry.unlink()
    if old is not None:
        with contextlib.suppress(OSError):
            shutil.rmtree(old)
    return True


def _contents(folder: Path) -> dict[str, bytes]:
    contents = {}
    for path in folder.rglob("*"):
        if path.is_file():
            contents[str(path.relative_to(folder))] = _read(path)
    return contents


def _read(path: Path) -> bytes:
    """Also of a file whose mode keeps its owner out."""
    try:
        return path.read_bytes()
    except PermissionError:
        mode = path.stat().st_mode & 0o777
        path.chmod(mode | 0o400)
        try:
            return path.read_bytes()
        finally:
            path.chmod(mode)


def mounts(
    container: Mapping[str, Any], volumes: Mapping[str, Prepared], env: Mapping[str, str], user: User
) -> list[dict[str, Any]]:
    """What pod_init binds for a container's volumeMounts, read-only where its user could not write. Raises ConfigProblem."""
    out = []
    for mount in container.get("volumeMounts") or []:
        volume = volumes.get(mount["name"])
        if volume is None:
            raise ConfigProblem(f'volume "{mount["name"]}" is not one of the pod\'s')
        source = volume.path
        sub = environment.expand(mount.get("subPathExpr") or "", env) or mount.get("subPath") or ""
        if sub:
            if sub.startswith("/") or ".." in sub.split("/"):
                raise ConfigProblem(f"subPath {sub!r} must stay inside the volume")
            source = source / sub
            if not source.exists():
                if volume.memory_bytes is not None or volume.read_only:
                    raise ConfigProblem(f"subPath {sub!r} of volume {mount['name']!r} does not exist")
                source.mkdir(mode=0o777, parents=True)
                source.chmod(0o777)
        # A folder that is made for a subPath gets the mode and the group of the volume's own.
        read_only = volume.read_only or bool(mount.get("readOnly")) or not permissions.may_write(user, volume.owned)
        out.append({"source": str(source), "target": mount["mountPath"], "readOnly": read_only, "follow": True})
    if container.get("volumeDevices"):
        raise ConfigProblem("raw block devices are not supported by the local node agent")
    return out
