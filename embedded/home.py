"""Where one local stack keeps everything: certificates, etcd's data, volumes, logs, pid files, Pulumi's state.

Two stacks (a user's and a test's) differ in nothing but their home, so they run side by side on one machine.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mistral_on_l4.files import write_whole

CHECKOUT = Path(__file__).resolve().parents[1]
HOME_VARIABLE = "MISTRAL_ON_L4_HOME"
SIMULATED_LABEL = "mistral-on-l4/simulated"
CAPACITY_ANNOTATION = "mistral-on-l4/capacity"
STORAGE_CLASS = "local-path"
STORAGE_PROVISIONER = "mistral-on-l4/local-path"
# Homes of `demo rehearse` and `demo preview`, inside the one they belong to.
INNER = REHEARSAL, PREVIEW = "rehearsal", "preview"


class NotOurs(Exception):
    """The home belongs to another checkout, or was moved. One line that names both places and says what to do."""


class NoCluster(Exception):
    """No local cluster was started in this home."""


@dataclass(frozen=True)
class ClusterInfo:
    """Addresses of a started cluster, as its start wrote them down.

    service_cidr: a /16 of 127.64.0.0 to 127.95.0.0, all of it answered by this host; hub_url: of the local hub, hub_address the
    same as "127.x.y.z:port"; privileged_ports: whether ports below 1024 can be bound; port_shift: what is added to those that
    cannot (0 or 8000); tools: name -> path of every program that runs.
    """

    service_cidr: str
    api_server_url: str
    api_server_port: int
    hub_url: str
    hub_address: str
    storage_class: str
    privileged_ports: bool
    port_shift: int
    tools: Mapping[str, str]
    ports: Mapping[str, int] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class LocalHome:
    """Paths below one folder. Nothing of a local stack lies elsewhere, except the shared cache of built tools."""

    root: Path

    @classmethod
    def default(cls) -> LocalHome:
        """$MISTRAL_ON_L4_HOME, or .local in the checkout."""
        return cls(Path(os.environ.get(HOME_VARIABLE) or CHECKOUT / ".local").absolute())

    @property
    def pki(self) -> Path:
        return self.root / "pki"

    @property
    def etcd(self) -> Path:
        return self.root / "etcd"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def run(self) -> Path:
        """Pid files and sockets of what runs."""
        return self.root / "run"

    @property
    def volumes(self) -> Path:
        """Data of PersistentVolumes, one folder each."""
        return self.root / "volumes"

    @property
    def pods(self) -> Path:
        return self.root / "pods"

    @property
    def hub(self) -> Path:
        return self.root / "hub"

    @property
    def pulumi_home(self) -> Path:
        return self.root / "pulumi-home"

    @property
    def backend(self) -> Path:
        """Pulumi's file:// backend."""
        return self.root / "pulumi-state"

    @property
    def kubeconfig(self) -> Path:
        """Of the cluster's administrator; mode 0600."""
        return self.root / "kubeconfig"

    @property
    def cluster_file(self) -> Path:
        return self.root / "cluster.json"

    @property
    def owner_file(self) -> Path:
        """Which checkout's program made this home, and where it lay then."""
        return self.root / "owner.json"

    @property
    def command_lock(self) -> Path:
        """Held by the command that brings the stack up or down."""
        return self.root / "command.lock"

    @property
    def cluster_lock(self) -> Path:
        """Held while the cluster's processes are started or stopped."""
        return self.root / "cluster.lock"

    @property
    def inner(self) -> list[LocalHome]:
        """Homes of rehearsals and previews that lie in this one."""
        return [LocalHome(self.root / name) for name in INNER if (self.root / name).is_dir()]

    def make(self) -> None:
        """Makes the folders, for their owner alone."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.root.chmod(0o700)
        for folder in (
            self.pki,
            self.run,
            self.logs,
            self.volumes,
            self.pods,
            self.hub,
            self.pulumi_home,
            self.backend,
        ):
            folder.mkdir(mode=0o700, exist_ok=True)
        if not self.owner_file.exists():
            write_whole(self.owner_file, json.dumps({"checkout": str(CHECKOUT), "home": str(self.root)}) + "\n")

    def check_owner(self, purging: bool = False) -> None:
        """Refuses the home of another checkout, and one that was moved, unless it is about to be purged. Raises NotOurs.

        Volumes, certificates and the state name the home by its path, so a moved one cannot go on.
        """
        try:
            owner = json.loads(self.owner_file.read_text())
            checkout, root = Path(owner["checkout"]), Path(owner["home"])
        except (OSError, ValueError, KeyError, TypeError):
            # None yet, or one of an older version.
            return
        if root != self.root and not root.exists():
            if not purging:
                raise NotOurs(
                    f"the stack in {self.root} was made in {root} and cannot run elsewhere: move it back, or `make venv` and "
                    "`demo down --purge` here, which drops it"
                )
        elif checkout != CHECKOUT and (checkout / "Pulumi.yaml").exists():
            raise NotOurs(
                f"the stack in {self.root} belongs to the checkout {checkout}, and this is {CHECKOUT}: run the command there, or "
                f"`unset {HOME_VARIABLE}` for this checkout's own stack"
            )
        elif checkout != CHECKOUT:
            raise NotOurs(
                f"the stack in {self.root} belongs to the checkout {checkout}, which is gone, and this is {CHECKOUT}: "
                f"`rm {self.owner_file}` makes it this one's, `unset {HOME_VARIABLE}` leaves it alone"
            )

    def cluster(self) -> ClusterInfo:
        """What the last start wrote down. Raises NoCluster."""
        try:
            values = json.loads(self.cluster_file.read_text())
        except FileNotFoundError:
            raise NoCluster(f"no local cluster has been started in {self.root}") from None
        except ValueError:
            raise NoCluster(f"{self.cluster_file} is not readable as JSON") from None
        try:
            return ClusterInfo(**values)
        except TypeError:
            raise NoCluster(f"{self.cluster_file} was written by another version of this project") from None

    def record(self, cluster: ClusterInfo) -> None:
        write_whole(self.cluster_file, json.dumps(dataclasses.asdict(cluster), indent=2) + "\n")


def tools_cache() -> Path:
    """Where built tools are kept for every checkout of this user: $XDG_CACHE_HOME or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mistral-on-l4" / "tools"
