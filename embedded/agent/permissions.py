"""Who a container's user is, and what that user may do with files as a node would own them.

Here all files belong to one user of this machine, whoever a container says it is. So what kubelet and the container runtime would
own is reckoned with, not made: where a declared user could not write, the mount is read-only (see volumes and container_root).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from embedded.agent.environment import ConfigProblem
from mistral_on_l4.cluster.client import Object

# Images whose user is not known and must not be root: the storage initializer's is 1000.
_SOME_USER = 1000
_READ, _WRITE = 4, 2


@dataclass(frozen=True)
class User:
    """A container's user. groups: its own and all others that it is in."""

    uid: int
    gid: int
    groups: frozenset[int]


@dataclass(frozen=True)
class Ownership:
    """Whose a file or folder would be on a node, and its mode."""

    uid: int
    gid: int
    mode: int


def user_of(pod: Object, container: Mapping[str, Any]) -> User:
    """The user that a container runs as. Raises ConfigProblem when it would be root and must not be."""
    outer, inner = pod["spec"].get("securityContext") or {}, container.get("securityContext") or {}

    def setting(name: str) -> Any:
        return inner.get(name) if inner.get(name) is not None else outer.get(name)

    uid = setting("runAsUser")
    if uid is None:
        uid = _SOME_USER if setting("runAsNonRoot") else 0
    if uid == 0 and setting("runAsNonRoot"):
        raise ConfigProblem("container's runAsUser breaks non-root policy")
    gid = int(setting("runAsGroup") or 0)
    others = [*(outer.get("supplementalGroups") or []), *([group] if (group := fs_group(pod)) is not None else [])]
    return User(int(uid), gid, frozenset([gid, *map(int, others)]))


def fs_group(pod: Object) -> int | None:
    """The group that kubelet gives a pod's volumes to."""
    group = (pod["spec"].get("securityContext") or {}).get("fsGroup")
    return None if group is None else int(group)


def may_write(user: User, owned: Ownership) -> bool:
    return _may(user, owned, _WRITE)


def may_read(user: User, owned: Ownership) -> bool:
    return _may(user, owned, _READ)


def _may(user: User, owned: Ownership, bit: int) -> bool:
    if user.uid == 0:
        return True
    shift = 6 if user.uid == owned.uid else 3 if owned.gid in user.groups else 0
    return bool(owned.mode >> shift & bit)


def disk(pod: Object) -> Ownership:
    """A new file system on a disk, as root's, or the pod's group's once kubelet has given it that (SetVolumeOwnership)."""
    group = fs_group(pod)
    return Ownership(0, 0, 0o755) if group is None else Ownership(0, group, 0o2775)


def content_mode(mode: int, pod: Object, volume: str) -> int:
    """The mode of a ConfigMap's, Secret's or the pod's own file, such that it keeps out whom it would keep out on a node.

    kubelet's files are root's, and the pod's group may read them if it has one. Whoever is no root, and could not read them then,
    cannot here either: our one owner loses its bits. Of several containers that mount the volume, the one with the least counts.
    """
    group = fs_group(pod)
    owned = Ownership(0, 0, mode) if group is None else Ownership(0, group, mode | 0o440)
    readable = all(may_read(user, owned) for user in _users(pod, volume))
    return owned.mode | 0o400 if readable else owned.mode & 0o077


def _users(pod: Object, volume: str) -> list[User]:
    users = []
    for container in [*(pod["spec"].get("initContainers") or []), *pod["spec"]["containers"]]:
        if any(mount["name"] == volume for mount in container.get("volumeMounts") or []):
            try:
                users.append(user_of(pod, container))
            except ConfigProblem:
                continue  # it is refused before it reads anything
    return users
