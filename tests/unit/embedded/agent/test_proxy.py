"""The service proxy: which rules follow from Services and endpoints, and that bytes arrive."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import socket
import subprocess
import threading

import pytest

from embedded.agent import frames, proxy, proxy_process
from embedded.agent.sandbox import boot_command
from embedded.home import ClusterInfo

CLUSTER = ClusterInfo(
    "127.64.0.0/16", "https://127.0.0.1:6443", 6443, "http://127.64.255.1:9", "127.64.255.1:9", "local-path", True, 0, {}
)


def slice_of(name, namespace, ports, *endpoints):
    return {
        "metadata": {"namespace": namespace, "labels": {"kubernetes.io/service-name": name}},
        "ports": ports,
        "endpoints": [
            {"addresses": [address], "conditions": {} if ready is None else {"ready": ready}} for address, ready in endpoints
        ],
    }


def rules(services, slices, cluster=CLUSTER):
    owners = {"10.128.0.1": "one", "10.128.0.2": "two"}
    found = proxy.rules(services, slices, owners.get, cluster, lambda uid, port: ["two"] if (uid, port) == ("one", 8080) else None)
    return {(rule["ip"], rule["port"]): rule for rule in found}


def test_only_ready_endpoints_of_running_pods_get_connections_by_the_name_of_the_port(service):
    ports = [{"name": "web", "port": 8080}, {"name": "metrics", "port": 9090}]
    slices = [slice_of("web", "shop", ports, ("10.128.0.1", True), ("10.128.0.2", False), ("10.128.0.9", True))]
    found = rules([service("web", "shop", "127.64.0.5", {"name": "web", "port": 80, "targetPort": "http"})], slices)
    assert found[("127.64.0.5", 80)]["targets"] == [["pod", "one", "10.128.0.1", 8080, ["two"]]]


def test_unknown_readiness_counts_as_ready_and_a_service_without_endpoints_has_no_target(service):
    ports = [{"port": 8080}]
    slices = [slice_of("web", "shop", ports, ("10.128.0.1", None)), slice_of("idle", "elsewhere", ports, ("10.128.0.2", True))]
    found = rules([service("web", "shop", "127.64.0.5"), service("idle", "shop", "127.64.0.6")], slices)
    assert [target[1] for target in found[("127.64.0.5", 80)]["targets"]] == ["one"]
    assert found[("127.64.0.6", 80)]["targets"] == []


def test_headless_external_and_udp_services_are_not_listened_for(service):
    services = [
        service("a", "shop", "None"),
        service("b", "shop", "127.64.0.6", type="ExternalName"),
        service("c", "shop", "127.64.0.7", {"port": 53, "protocol": "UDP"}),
    ]
    assert list(rules(services, [])) == [("127.64.255.1", 9)]


def test_the_api_servers_service_leads_to_the_api_server_and_the_hub_to_itself(service):
    found = rules([service("kubernetes", "default", "127.64.0.1", {"name": "https", "port": 443})], [])
    assert found[("127.64.0.1", 443)]["targets"] == [["host", "127.0.0.1", 6443]]
    assert found[("127.64.255.1", 9)] == {
        "ip": "127.64.255.1",
        "port": 9,
        "host_port": None,
        "targets": [["host", "127.64.255.1", 9]],
    }


def test_ports_that_the_user_may_not_bind_move_up_on_the_host_only(service):
    plain = dataclasses.replace(CLUSTER, privileged_ports=False, port_shift=8000)
    found = rules([service("web", "shop", "127.64.0.5", {"port": 80}, {"name": "b", "port": 9000})], [], plain)
    assert [found[("127.64.0.5", port)]["host_port"] for port in (80, 9000)] == [8080, 9000]


@pytest.fixture
def running():
    """(tell, free address): a proxy process told whole states, and an address of this host to listen on."""
    ours, theirs = socket.socketpair()
    process = subprocess.Popen([*boot_command("proxy_process"), str(theirs.fileno())], pass_fds=(theirs.fileno(),))
    theirs.close()
    ours.settimeout(60)

    def tell(*wanted):
        frames.send(ours, {"seq": 1, "rules": list(wanted), "pods": {}})
        answer, _ = frames.receive(ours)
        return answer["problems"]

    yield tell
    ours.close()
    try:
        assert process.wait(timeout=60) == 0, "the proxy ends with the agent"
    finally:
        process.kill()


@pytest.fixture
def free_port():
    with socket.socket() as probe:
        probe.bind(("127.93.7.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def upstream():
    """A server whose connections a function handles; its address."""
    with contextlib.ExitStack() as stack:

        def serve(handle):
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

            def accept():
                with contextlib.suppress(OSError):
                    while True:
                        connection, _ = listener.accept()
                        threading.Thread(target=handle, args=(connection,), daemon=True).start()

            threading.Thread(target=accept, daemon=True).start()
            stack.callback(listener.shutdown, socket.SHUT_RDWR)
            return listener.getsockname()

        yield serve


def rule(port, *targets):
    return {"ip": "127.93.7.1", "port": port, "host_port": port, "targets": [["host", *target] for target in targets]}


def test_bytes_arrive_whole_in_both_directions_and_each_side_can_end_alone(running, upstream, free_port):
    def count(connection):
        digest, total = hashlib.sha256(), 0
        while data := connection.recv(2**20):
            digest.update(data)
            total += len(data)
        connection.sendall(f"{total} {digest.hexdigest()} ".encode() + b"y" * 3_000_000)
        connection.close()

    assert running(rule(free_port, upstream(count))) == []
    data = os.urandom(2**20) * 24 + b"tail"
    with socket.create_connection(("127.93.7.1", free_port), timeout=60) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := client.recv(2**20):
            answer += piece
    head = f"{len(data)} {hashlib.sha256(data).hexdigest()} ".encode()
    assert answer == head + b"y" * 3_000_000


def test_a_target_that_refuses_is_passed_over_and_without_any_the_client_is_reset(running, upstream, free_port):
    def greet(connection):
        connection.sendall(b"hello")
        connection.close()

    dead = ("127.0.0.1", 1)
    running(rule(free_port, dead, upstream(greet)))
    for _ in range(4):
        with socket.create_connection(("127.93.7.1", free_port), timeout=60) as client:
            assert client.recv(100) == b"hello"
    running(rule(free_port, dead))
    # The reset may overtake the client's own look at its new connection.
    with pytest.raises(ConnectionResetError), socket.create_connection(("127.93.7.1", free_port), timeout=60) as client:
        client.recv(100)


def test_a_service_without_ready_endpoints_refuses_connections(running, upstream, free_port):
    running(rule(free_port, upstream(lambda connection: connection.close())))
    socket.create_connection(("127.93.7.1", free_port), timeout=60).close()
    running(rule(free_port))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.93.7.1", free_port), timeout=60)


def test_an_address_that_is_taken_is_reported_and_the_others_are_served(running, upstream, free_port):
    address = upstream(lambda connection: connection.close())
    with socket.create_server(("127.93.7.1", 0)) as taken:
        busy = taken.getsockname()[1]
        [problem] = running(rule(busy, address), rule(free_port, address))
        assert problem["port"] == busy
        assert "Address already in use" in problem["message"]
        socket.create_connection(("127.93.7.1", free_port), timeout=60).close()


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.93.7.1"), (socket.AF_INET6, "::ffff:127.93.7.1")])
def test_the_user_at_the_other_end_is_known_until_that_end_is_closed(family, address):
    with socket.create_server(("127.93.7.1", 0)) as server, socket.socket(family) as there:
        there.connect((address, server.getsockname()[1]))
        here, _ = server.accept()
        with here:
            assert proxy_process.user_of(here) == os.geteuid()
            there.close()
            assert proxy_process.user_of(here) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_another_user_of_this_host_is_served_nothing(running, upstream, free_port):
    running(rule(free_port, upstream(lambda connection: connection.sendall(b"hello"))))
    code = "import socket, sys; print(socket.create_connection(('127.93.7.1', int(sys.argv[1])), timeout=60).recv(9))"

    def served(user):
        command = ["/usr/bin/env", "python3", "-c", code, str(free_port)]
        return subprocess.run(command, user=user, capture_output=True, text=True, timeout=60, check=False)

    assert "hello" in served(0).stdout
    refused = served(65534)
    assert "ConnectionResetError" in refused.stderr
    assert "hello" not in refused.stdout


def test_a_slow_reader_holds_back_only_its_own_connection(running, upstream, free_port):
    def pour(connection):
        with contextlib.suppress(OSError):
            connection.sendall(b"z" * 20_000_000)
        connection.close()

    running(rule(free_port, upstream(pour)))
    with (
        socket.create_connection(("127.93.7.1", free_port), timeout=60) as slow,
        socket.create_connection(("127.93.7.1", free_port), timeout=60) as quick,
    ):
        assert slow.recv(1) == b"z"
        total = 0
        while piece := quick.recv(2**20):
            total += len(piece)
        assert total == 20_000_000
        total = 1
        while piece := slow.recv(2**20):
            total += len(piece)
        assert total == 20_000_000
