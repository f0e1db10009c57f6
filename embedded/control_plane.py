"""etcd and the Kubernetes control plane as processes of this user: their commands, and how each shows that it is healthy."""

from __future__ import annotations

import hashlib
import http.client
import os
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from embedded import addresses
from embedded.home import ClusterInfo, LocalHome
from mistral_on_l4.files import write_whole

GENERATION = "MISTRAL_ON_L4_GENERATION"
# What the processes get of the environment of the command that starts them.
INHERITED = ("PATH", "HOME", "LANG", "TZ", "XDG_CACHE_HOME", "MISTRAL_ON_L4_HUB_TOKEN")
ETCD_SOCKET = "etcd.sock"
PEER_SOCKET = "etcd-peer.sock"
# What does not work ends by itself, and is noticed at once; one that only is slow gets this long, on a busy machine.
# Where ten others want the same two cores the API server takes two minutes; one that ends is noticed at once.
START_SECONDS = 300.0
# A demo's objects are a few MiB; a full disk of the user is worse than a refused write.
ETCD_QUOTA_BYTES = 512 * 2**20

# Controllers of features that the local cluster has no use for: kubelet certificates, dynamic resources, attaching volumes.
# Everything that acts on objects of ours stays.
UNUSED_CONTROLLERS = (
    "certificatesigningrequest-approving-controller",
    "certificatesigningrequest-cleaner-controller",
    "certificatesigningrequest-signing-controller",
    "device-taint-eviction-controller",
    "kube-apiserver-serving-clustertrustbundle-publisher-controller",
    "podcertificaterequest-cleaner-controller",
    "resourceclaim-controller",
    "resourcepoolstatusrequest-controller",
    "storage-version-migrator-controller",
)


@dataclass(frozen=True)
class Component:
    """A process of the cluster: its command, what it needs around it, and how long it may take to become healthy (seconds)."""

    name: str
    command: tuple[str, ...]
    healthy: Callable[[], bool]
    seconds: float
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None

    def environment(self, generation: str) -> dict[str, str]:
        """The environment to start it with. The generation tells a process of older certificates or flags from a current one."""
        key = hashlib.sha256("\0".join((generation, *self.command, *sorted(self.env.values()))).encode()).hexdigest()[:16]
        base = {name: os.environ[name] for name in INHERITED if name in os.environ}
        return {**base, **self.env, GENERATION: key}


def generation(home: LocalHome) -> str:
    """Changes with everything that running processes have read once: certificates, keys, kubeconfig."""
    key = hashlib.sha256()
    for path in (*sorted(home.pki.iterdir()), home.kubeconfig):
        if path.is_file():
            key.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return key.hexdigest()


def write_kubeconfig(home: LocalHome, cluster: ClusterInfo) -> None:
    """The administrator's kubeconfig; it names the certificates' files, so a renewed one is picked up."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": "mistral-on-l4",
                "cluster": {"server": cluster.api_server_url, "certificate-authority": str(home.pki / "ca.crt")},
            }
        ],
        "users": [
            {
                "name": "admin",
                "user": {"client-certificate": str(home.pki / "admin.crt"), "client-key": str(home.pki / "admin.key")},
            }
        ],
        "contexts": [{"name": "mistral-on-l4", "context": {"cluster": "mistral-on-l4", "user": "admin"}}],
        "current-context": "mistral-on-l4",
    }
    text = yaml.safe_dump(config, sort_keys=False)
    if not home.kubeconfig.exists() or home.kubeconfig.read_text() != text:
        write_whole(home.kubeconfig, text)


def etcd(home: LocalHome, cluster: ClusterInfo) -> Component:
    """etcd listens on a Unix socket in a folder of mode 0700: it holds every Secret, and over TCP any user could read them."""
    command = (
        cluster.tools["etcd"],
        f"--data-dir={home.etcd}",
        # Relative to its working folder, since a Unix socket's path may have 107 characters at most.
        f"--listen-client-urls=unix://{ETCD_SOCKET}",
        f"--advertise-client-urls=unix://{ETCD_SOCKET}",
        f"--listen-peer-urls=unix://{PEER_SOCKET}",
        f"--initial-advertise-peer-urls=unix://{PEER_SOCKET}",
        f"--initial-cluster=default=unix://{PEER_SOCKET}",
        "--enable-grpc-gateway=false",
        f"--quota-backend-bytes={ETCD_QUOTA_BYTES}",
        "--auto-compaction-mode=periodic",
        "--auto-compaction-retention=10m",
        "--snapshot-count=5000",
        "--max-request-bytes=8388608",
        "--logger=zap",
        "--log-level=warn",
    )
    return Component("etcd", command, lambda: _etcd_health(home), START_SECONDS, cwd=home.run)


def api_server(home: LocalHome, cluster: ClusterInfo) -> Component:
    pki = home.pki
    port = cluster.api_server_port
    command = (
        cluster.tools["kube-apiserver"],
        f"--etcd-servers=unix://{ETCD_SOCKET}",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        f"--tls-cert-file={pki / 'apiserver.crt'}",
        f"--tls-private-key-file={pki / 'apiserver.key'}",
        f"--client-ca-file={pki / 'ca.crt'}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={pki / 'sa.pub'}",
        f"--service-account-signing-key-file={pki / 'sa.key'}",
        f"--service-cluster-ip-range={cluster.service_cidr}",
        "--allow-privileged=true",
        "--authorization-mode=RBAC",
        "--enable-priority-and-fairness=false",
        # Endpoints of the Service `kubernetes` may not be loopback addresses; the node agent serves that one itself.
        "--advertise-address=10.255.255.1",
        "--endpoint-reconciler-type=none",
        # `kubectl logs` goes through here to the node agent.
        f"--kubelet-certificate-authority={pki / 'ca.crt'}",
        f"--kubelet-client-certificate={pki / 'kubelet-client.crt'}",
        f"--kubelet-client-key={pki / 'kubelet-client.key'}",
        "--kubelet-preferred-address-types=InternalIP",
        "--profiling=false",
    )
    # Measured: 70 MiB less of 450 resident, for no more processor time at the start and a tenth more afterwards.
    env = {"GOGC": "50"}
    return Component("kube-apiserver", command, lambda: https_ok(home, port, "/readyz"), START_SECONDS, env, home.run)


def _client_of_the_api_server(home: LocalHome, port: int) -> tuple[str, ...]:
    """Flags of a component that acts through the API server as the administrator, and serves its health on `port`."""
    return (
        f"--kubeconfig={home.kubeconfig}",
        f"--authentication-kubeconfig={home.kubeconfig}",
        f"--authorization-kubeconfig={home.kubeconfig}",
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        f"--tls-cert-file={home.pki / 'apiserver.crt'}",
        f"--tls-private-key-file={home.pki / 'apiserver.key'}",
        "--profiling=false",
    )


def controller_manager(home: LocalHome, cluster: ClusterInfo) -> Component:
    port = cluster.ports["kube-controller-manager"]
    command = (
        cluster.tools["kube-controller-manager"],
        *_client_of_the_api_server(home, port),
        f"--root-ca-file={home.pki / 'ca.crt'}",
        f"--service-account-private-key-file={home.pki / 'sa.key'}",
        "--use-service-account-credentials=true",
        f"--controllers=*,{','.join('-' + name for name in UNUSED_CONTROLLERS)}",
    )
    return Component("kube-controller-manager", command, lambda: https_ok(home, port, "/healthz"), START_SECONDS)


def scheduler(home: LocalHome, cluster: ClusterInfo) -> Component:
    port = cluster.ports["kube-scheduler"]
    command = (
        cluster.tools["kube-scheduler"],
        *_client_of_the_api_server(home, port),
    )
    return Component("kube-scheduler", command, lambda: https_ok(home, port, "/readyz"), START_SECONDS)


def https_ok(home: LocalHome, port: int, path: str) -> bool:
    """Whether a server of ours on 127.0.0.1 answers 200, with a certificate of our authority."""
    if not addresses.is_listening("127.0.0.1", port):
        return False
    context = ssl.create_default_context(cafile=str(home.pki / "ca.crt"))
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=5.0, context=context)
    return _get_ok(connection, path)


def http_ok(port: int, path: str) -> bool:
    return _get_ok(http.client.HTTPConnection("127.0.0.1", port, timeout=5.0), path)


def _get_ok(connection: http.client.HTTPConnection, path: str) -> bool:
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _etcd_health(home: LocalHome) -> bool:
    connection = http.client.HTTPConnection("etcd", timeout=5.0)
    descriptor = None
    with socket.socket(socket.AF_UNIX) as unix:
        unix.settimeout(5.0)
        try:
            # Through /proc, since the path itself may be longer than a socket's address can be.
            descriptor = os.open(home.run, os.O_PATH | os.O_DIRECTORY)
            unix.connect(f"/proc/self/fd/{descriptor}/{ETCD_SOCKET}")
            connection.sock = unix
            return _get_ok(connection, "/health")
        except OSError:
            return False
        finally:
            if descriptor is not None:
                os.close(descriptor)
