"""A container's root filesystem: a tmpfs with the host's folders bound in read-only, and mount points wherever they are declared.

Runs in a container's own mount namespace, in an interpreter without site-packages: standard library only. Every mount ends with
that namespace, so nothing is ever left on the host.
"""

# pathlib would cost every pod a MiB.
# ruff: noqa: PTH101, PTH102, PTH110, PTH112, PTH114, PTH115, PTH116, PTH208, PTH211

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from typing import Any

from embedded.agent import syscalls

# Made fresh for each container instead of being the host's.
_OWN = frozenset({"proc", "dev", "sys", "tmp", "run", "lost+found"})
# A folder that a mount point needed to be made in: the runtime's, so root's and nobody else's to write in, wherever it lies. Among
# the bits of its mode, the sticky one says so to later containers; where nobody but the owner may write, it means nothing else.
_MADE = 0o1755
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
# What a container runtime gives /dev/shm when the pod mounts nothing there.
_DEFAULT_SHM_BYTES = 64 * 2**20


class Root:
    """Builds one root below `path`, an existing empty folder. Paths given to its methods are the container's own."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._splits: list[str] = []
        self._temporary: dict[str, int] = {}
        self._points: list[str] = []
        syscalls.mount("tmpfs", path, "tmpfs", syscalls.MS_NODEV | syscalls.MS_NOSUID, "mode=755")
        # Else the host folder that holds `path` would bring this root into itself.
        syscalls.mount("none", path, None, syscalls.MS_UNBINDABLE)

    def host(self) -> None:
        """Host folders read-only; own /proc, /dev, /tmp, /run and /var/tmp."""
        for name in sorted(os.listdir("/")):
            if name in _OWN:
                continue
            target = f"{self.path}/{name}"
            if self._copy_or_bind(f"/{name}", target):
                syscalls.make_read_only(target)
        for name, mode in (("proc", 0o555), ("sys", 0o555), ("dev", 0o755), ("run", 0o755), ("tmp", 0o1777)):
            os.mkdir(f"{self.path}/{name}")
            os.chmod(f"{self.path}/{name}", mode)
        if os.path.isdir("/sys"):
            syscalls.bind("/sys", f"{self.path}/sys")
            syscalls.make_read_only(f"{self.path}/sys")
        try:
            syscalls.mount("proc", f"{self.path}/proc", "proc", syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC)
        except OSError:
            # Inside some containers the kernel refuses a fresh one because the outer /proc is masked.
            syscalls.bind("/proc", f"{self.path}/proc")
        self._devices()
        for path in (f"{self.path}/tmp", f"{self.path}/var/tmp"):
            if os.path.isdir(path):
                syscalls.mount("tmpfs", path, "tmpfs", syscalls.MS_NODEV | syscalls.MS_NOSUID, "mode=1777")
                self._temporary[path] = os.stat(path).st_dev

    def _devices(self) -> None:
        dev = f"{self.path}/dev"
        for name in _DEVICES:
            if os.path.exists(f"/dev/{name}"):
                _touch(f"{dev}/{name}")
                syscalls.bind(f"/dev/{name}", f"{dev}/{name}")
        for name, target in (
            ("fd", "/proc/self/fd"),
            ("stdin", "fd/0"),
            ("stdout", "fd/1"),
            ("stderr", "fd/2"),
            ("core", "/proc/kcore"),
        ):
            os.symlink(target, f"{dev}/{name}")
        os.mkdir(f"{dev}/shm")
        flags = syscalls.MS_NODEV | syscalls.MS_NOSUID
        syscalls.mount("tmpfs", f"{dev}/shm", "tmpfs", flags, f"mode=1777,size={_DEFAULT_SHM_BYTES}")
        os.mkdir(f"{dev}/pts")
        try:
            syscalls.mount("devpts", f"{dev}/pts", "devpts", syscalls.MS_NOSUID, "newinstance,ptmxmode=0666,mode=620")
            os.symlink("pts/ptmx", f"{dev}/ptmx")
        except OSError:
            pass  # no terminals in this container, then; nothing here asks for one

    def bind(self, source: str, target: str, read_only: bool, follow: bool = True) -> None:
        """Mounts a host file or folder at `target`. Without `follow`, a link at that very name is replaced, not followed."""
        point = self.point(target, os.path.isdir(source), follow)
        syscalls.bind(source, point)
        if read_only:
            syscalls.make_read_only(point)

    def hide(self, path: str) -> None:
        """Shows an empty folder instead of the host's."""
        if os.path.isdir(self.path + path):
            syscalls.mount("tmpfs", self.path + path, "tmpfs", syscalls.MS_NODEV | syscalls.MS_NOSUID, "mode=700,size=64k")
            syscalls.make_read_only(self.path + path)

    def keep(self, path: str) -> None:
        """Brings a host path back, read-only, if a mount covers it."""
        try:
            wanted = os.stat(path)
        except OSError:
            return
        if self.path + path in self._splits:
            return  # it is there, with something declared below it
        try:
            shown = os.stat(self.path + path)
        except OSError:
            pass
        else:
            if (shown.st_dev, shown.st_ino) == (wanted.st_dev, wanted.st_ino):
                return
        self.bind(path, path, read_only=True)
        self._points.pop()  # ours, not the manifest's

    def read_only(self, of_everybody: bool) -> None:
        """What the container's image would hold becomes read-only; volumes stay as they are.

        Without `of_everybody`, what everybody may write to on a node stays so: the folders for temporary files.
        """
        # Unless a volume is mounted there.
        temporary = [path for path, device in self._temporary.items() if of_everybody and os.stat(path).st_dev == device]
        for path in [*self._splits, *temporary, self.path]:
            if os.path.ismount(path):
                syscalls.make_read_only(path, recursive=False)

    def close_made(self) -> None:
        """Folders that were made for mount points below volumes become read-only; what is mounted in them stays as it is."""
        for point in self._points:
            path = self.path
            for name in point.removeprefix(self.path).split("/")[1:]:
                path = f"{path}/{name}"
                status = os.lstat(path)
                if not stat.S_ISDIR(status.st_mode) or os.statvfs(path).f_flag & os.ST_RDONLY:
                    continue
                if stat.S_IMODE(status.st_mode) == _MADE:
                    syscalls.bind(path, path)
                    syscalls.make_read_only(path, recursive=False)

    def point(self, target: str, folder: bool, follow: bool = True) -> str:
        """The path, seen from outside, of an existing file or folder at `target`; made where it is missing."""
        parent, rest = self._resolve(target, follow)
        for position, name in enumerate(rest):
            last = position == len(rest) - 1
            path = f"{parent}/{name}"
            if last and os.path.lexists(path):
                status = os.lstat(path)
                if not stat.S_ISLNK(status.st_mode) and stat.S_ISDIR(status.st_mode) == folder:
                    self._points.append(path)
                    return path
                self._split(parent, without=name)
            make = _touch if last and not folder else os.mkdir
            try:
                make(path)
            except FileExistsError:
                pass
            except OSError:
                self._split(parent)
                make(path)
            if make is os.mkdir:
                os.chmod(path, _MADE)
            parent = path
        self._points.append(parent)
        return parent

    def _resolve(self, target: str, follow: bool) -> tuple[str, list[str]]:
        """The deepest existing folder on the way, links followed inside this root, and the names that are left (at least one)."""
        names = [name for name in target.split("/") if name not in ("", ".")]
        here: list[str] = []
        for _ in range(40):
            for position, name in enumerate(names):
                if name == "..":
                    here = here[:-1]
                    continue
                path = "/".join([self.path, *here, name])
                last = position == len(names) - 1
                if os.path.islink(path) and (follow or not last):
                    link = os.readlink(path)
                    if link.startswith("/"):
                        here = []
                    names = [part for part in link.split("/") if part not in ("", ".")] + names[position + 1 :]
                    break
                if last or not os.path.isdir(path):
                    return "/".join([self.path, *here]), names[position:]
                here.append(name)
            else:
                return "/".join([self.path, *here[:-1]]), here[-1:]
        raise OSError(f"{target}: too many links")

    def _split(self, folder: str, without: str | None = None) -> None:
        """Covers a folder by a tmpfs that holds the same entries, each bound by itself, so that more can be put beside them."""
        names = sorted(os.listdir(folder))
        mode = stat.S_IMODE(os.stat(folder).st_mode) | 0o700
        descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
        try:
            syscalls.mount("tmpfs", folder, "tmpfs", syscalls.MS_NODEV | syscalls.MS_NOSUID, f"mode={mode:o}")
            for name in names:
                if name != without:
                    self._copy_or_bind(f"/proc/self/fd/{descriptor}/{name}", f"{folder}/{name}")
        finally:
            os.close(descriptor)
        self._splits.append(folder)

    @staticmethod
    def _copy_or_bind(source: str, target: str) -> bool:
        """True if it was bound; links are copied."""
        status = os.lstat(source)
        if stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(source), target)
            return False
        if stat.S_ISDIR(status.st_mode):
            os.mkdir(target)
        else:
            _touch(target)
        try:
            syscalls.bind(source, target)
        except OSError:
            return False  # not ours to see (a dead network mount, say): the name stays, empty
        return True


def _touch(path: str) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o644))


def build(spec: Mapping[str, Any]) -> str:
    """Builds a container's root: `root`, `uid`, `mounts` (source, target, readOnly, follow), `hide`, `keep`, `readOnlyRoot`."""
    root = Root(spec["root"])
    root.host()
    for path in spec["hide"]:
        root.hide(path)
    for mount in _outer_first(spec["mounts"]):
        root.bind(mount["source"], mount["target"], mount["readOnly"], mount.get("follow", True))
    for path in spec["keep"]:
        root.keep(path)
    root.point(spec["cwd"], folder=True)
    if spec["uid"] != 0 or spec["readOnlyRoot"]:
        root.read_only(of_everybody=spec["readOnlyRoot"])
    if spec["uid"] != 0:
        root.close_made()
    return root.path


def _outer_first(mounts: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return sorted(mounts, key=lambda mount: mount["target"].rstrip("/").count("/"))
