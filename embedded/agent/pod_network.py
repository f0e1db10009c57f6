"""A pod's network: its own, with one wire to a second one where the Services' addresses are listened on.

Both are network namespaces of the pod. In the first, where the containers are, addresses of 127.64.0.0/10 (Services and the hub)
are routed over a veth pair instead of belonging to `lo`; the second answers there. So a container may listen on a port on every
address and still reach Services with that port, which listeners beside it would forbid. Runs inside the pod: standard library only.
"""

from __future__ import annotations

import os
import socket
import struct

from embedded.agent import syscalls

# Message types, flags and attributes of rtnetlink: linux/rtnetlink.h, if_link.h, if_addr.h, veth.h.
_NEWLINK, _NEWADDR, _NEWROUTE = 16, 20, 24
_REQUEST, _ACK, _CREATE = 0x1, 0x4, 0x600
_IFNAME, _MTU, _LINKINFO, _INFO_KIND, _INFO_DATA, _NET_NS_FD, _VETH_PEER = 3, 4, 18, 1, 2, 28, 1
_ADDRESS, _LOCAL = 1, 2
_DESTINATION, _INTERFACE, _PREFERRED_SOURCE = 1, 4, 7
_UP = 1
_MAIN_TABLE, _BOOT, _LINK_SCOPE, _UNICAST = 254, 3, 253, 1

SERVICES = ("127.64.0.0", 10)
# As on `lo`: nothing on this wire needs Ethernet's 1500 bytes, and weights pass over it.
_MTU_BYTES = 65535
# Never seen by a program: the service side's end of the wire.
_SERVICE_END = "169.254.0.1"


class Network:
    """`services` is the namespace of the second network, None if only one could be made."""

    def __init__(self, pods: int, services: int | None) -> None:
        self._pods, self.services = pods, services

    def listener(self, address: str, port: int) -> socket.socket:
        """A listening socket on a Service's address. Raises OSError."""
        if self.services is not None:
            syscalls.setns(self.services, syscalls.CLONE_NEWNET)
        try:
            listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        finally:
            if self.services is not None:
                syscalls.setns(self._pods, syscalls.CLONE_NEWNET)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((address, port))
            listener.listen(1024)
        except OSError:
            listener.close()
            raise
        return listener


def build(pod_ip: str) -> Network:
    """Makes both networks of a fresh network namespace, or one where the kernel has no veth. Raises OSError."""
    pods = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    services: int | None = None
    try:
        syscalls.unshare(syscalls.CLONE_NEWNET)
        services = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        with _Link() as link:
            link.veth("svc0", "eth0", pods)
            link.up("lo")
            link.address("svc0", _SERVICE_END, 32)
            _settings("svc0")
            link.up("svc0")
            link.route(pod_ip, 32, "svc0", _SERVICE_END)
    except OSError:
        if services is not None:
            os.close(services)
        syscalls.setns(pods, syscalls.CLONE_NEWNET)
        syscalls.loopback_up(pod_ip)
        return Network(pods, None)
    syscalls.setns(pods, syscalls.CLONE_NEWNET)
    with _Link() as link:
        # Half of what `lo` would take by itself; the other half holds the Services.
        link.address("lo", "127.0.0.1", SERVICES[1])
        link.up("lo")
        link.address("eth0", pod_ip, 32)
        _settings("eth0")
        link.up("eth0")
        link.route(*SERVICES, "eth0", pod_ip)
    return Network(pods, services)


def _settings(interface: str) -> None:
    """Loopback addresses may pass over this wire, and answers come the way that requests went."""
    for name, value in (("route_localnet", "1"), ("rp_filter", "0")):
        descriptor = os.open(f"/proc/sys/net/ipv4/conf/{interface}/{name}", os.O_WRONLY)
        try:
            os.write(descriptor, value.encode())
        finally:
            os.close(descriptor)


class _Link:
    """rtnetlink in the current network namespace."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)

    def __enter__(self) -> _Link:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def veth(self, here: str, there: str, namespace: int) -> None:
        mtu = _attribute(_MTU, struct.pack("I", _MTU_BYTES))
        peer = _link_header() + _attribute(_IFNAME, _text(there)) + mtu + _attribute(_NET_NS_FD, struct.pack("I", namespace))
        kind = _attribute(_INFO_KIND, b"veth") + _attribute(_INFO_DATA, _attribute(_VETH_PEER, peer))
        self._ask(_NEWLINK, _CREATE, _link_header() + _attribute(_IFNAME, _text(here)) + mtu + _attribute(_LINKINFO, kind))

    def up(self, interface: str) -> None:
        self._ask(_NEWLINK, 0, _link_header(socket.if_nametoindex(interface), _UP))

    def address(self, interface: str, address: str, prefix: int) -> None:
        packed = socket.inet_aton(address)
        header = struct.pack("BBBBI", socket.AF_INET, prefix, 0, 0, socket.if_nametoindex(interface))
        self._ask(_NEWADDR, _CREATE, header + _attribute(_LOCAL, packed) + _attribute(_ADDRESS, packed))

    def route(self, network: str, prefix: int, interface: str, source: str) -> None:
        header = struct.pack("BBBBBBBBI", socket.AF_INET, prefix, 0, 0, _MAIN_TABLE, _BOOT, _LINK_SCOPE, _UNICAST, 0)
        body = _attribute(_DESTINATION, socket.inet_aton(network))
        body += _attribute(_INTERFACE, struct.pack("I", socket.if_nametoindex(interface)))
        self._ask(_NEWROUTE, _CREATE, header + body + _attribute(_PREFERRED_SOURCE, socket.inet_aton(source)))

    def _ask(self, kind: int, flags: int, body: bytes) -> None:
        self._socket.send(struct.pack("=IHHII", 16 + len(body), kind, _REQUEST | _ACK | flags, 1, 0) + body)
        reply = self._socket.recv(65536)
        (code,) = struct.unpack_from("=i", reply, 16)
        if code:
            raise OSError(-code, os.strerror(-code), "the pod's network")


def _link_header(index: int = 0, flags: int = 0) -> bytes:
    return struct.pack("BxHiII", socket.AF_UNSPEC, 0, index, flags, flags)


def _attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("HH", 4 + len(data), kind) + data + b"\0" * (-len(data) % 4)


def _text(name: str) -> bytes:
    return name.encode() + b"\0"
