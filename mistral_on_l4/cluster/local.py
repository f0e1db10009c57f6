"""What the product knows of the local stack. The only module of the product that imports `embedded`, when it is asked something."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path


class NoLocalStack(Exception):
    """No local cluster was started here, or a rehearsal has no such cluster. One line that says what to do."""


@dataclass(frozen=True)
class LocalStack:
    """A local stack whose cluster was started, and may have stopped since.

    home: its folder; kubeconfig: of the cluster's administrator; hub_url: of the local model hub; storage_class: the cluster's;
    port_shift: what is added to a Service's port below 1024 (0 where this user can bind those); kubectl: the program; down: names
    of its parts that do not run; outage: why its API cannot respond, None where it can.
    """

    home: Path
    kubeconfig: Path
    hub_url: str
    storage_class: str
    port_shift: int
    kubectl: str
    down: tuple[str, ...] = ()
    outage: str | None = None


def local_stack(root: Path | None = None) -> LocalStack:
    """The local stack in a folder: unless one is named, in $MISTRAL_ON_L4_HOME or in this checkout. Raises NoLocalStack."""
    from embedded import processes
    from embedded.home import LocalHome, NoCluster

    home = LocalHome(root) if root else LocalHome.default()
    try:
        cluster = home.cluster()
    except NoCluster as error:
        raise NoLocalStack(f"{error}: start it with `make up`") from None
    down = tuple(name for name in processes.PARTS if processes.find(home, name) is None)
    return LocalStack(
        home=home.root,
        kubeconfig=home.kubeconfig,
        hub_url=cluster.hub_url,
        storage_class=cluster.storage_class,
        port_shift=cluster.port_shift,
        kubectl=cluster.tools.get("kubectl", "kubectl"),
        down=down,
        outage=_outage(down, stopped=len(down) == len(processes.PARTS)),
    )


def rehearsed_quotas() -> dict[str, float] | None:
    """In a rehearsal: vCPUs by quota code that its account grants; None where it says nothing of them, or AWS is the real one."""
    from embedded.plugins.aws import LEDGER_VARIABLE

    ledger = os.environ.get(LEDGER_VARIABLE)
    if not ledger:
        return None
    try:
        found: dict[str, float] | None = json.loads(Path(ledger).read_text()).get("quotas")
    except (FileNotFoundError, ValueError):
        return None
    return found


def _outage(down: tuple[str, ...], stopped: bool) -> str | None:
    dead = [name for name in ("etcd", "kube-apiserver") if name in down]
    if not dead:
        return None
    what = "the local cluster is stopped" if stopped else f"{' and '.join(dead)} of the local cluster does not run"
    return f"{what}: `make up` starts it again"


def local_shell() -> Path | None:
    """The home whose `make env` this process's shell has evaluated; None in any other shell, and in a rehearsal or its preview."""
    root, backend = os.environ.get("MISTRAL_ON_L4_HOME"), os.environ.get("PULUMI_BACKEND_URL", "")
    if not root or not backend.startswith("file:"):
        return None
    from embedded.home import LocalHome
    from embedded.plugins.aws import LEDGER_VARIABLE

    return Path(root) if backend == LocalHome(Path(root)).backend.as_uri() and LEDGER_VARIABLE not in os.environ else None


def rehearsed_credential(cluster: str) -> dict[str, str] | None:
    """In a rehearsal: the status of an ExecCredential for `cluster`. None where AWS is the real one. Raises NoLocalStack.

    An EKS cluster on the stand-in account is the local one, which takes its administrator's certificate.
    """
    from embedded.home import LocalHome
    from embedded.plugins.aws import LEDGER_VARIABLE

    ledger = os.environ.get(LEDGER_VARIABLE)
    if not ledger:
        return None
    try:
        known = json.loads(Path(ledger).read_text())["resources"]
    except (FileNotFoundError, ValueError, KeyError):
        known = {}
    if known.get(cluster, {}).get("kind") != "cluster":
        raise NoLocalStack(f"the rehearsed account in {ledger} has no cluster {cluster!r}")
    pki = LocalHome.default().pki
    return {
        "clientCertificateData": (pki / "admin.crt").read_text(),
        "clientKeyData": (pki / "admin.key").read_text(),
    }
