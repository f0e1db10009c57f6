"""Ports and Service ranges stay with their home, and two homes never share one."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from embedded import addresses
from embedded.home import LocalHome


@contextmanager
def listening(host: str, port: int = 0) -> Iterator[int]:
    with socket.create_server((host, port)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def other(tmp_path: Path) -> LocalHome:
    made = LocalHome(tmp_path / "other")
    made.make()
    return made


def test_two_homes_get_different_ranges_even_before_either_is_recorded(cache: Path, home: LocalHome, other: LocalHome) -> None:
    assert addresses.choose_range(home, None) != addresses.choose_range(other, None)


def test_a_home_keeps_its_range(cache: Path, home: LocalHome, other: LocalHome) -> None:
    addresses.choose_range(other, None)
    first = addresses.choose_range(home, None)
    assert addresses.choose_range(home, first) == first


def test_the_range_of_a_removed_home_is_free_again(cache: Path, home: LocalHome, other: LocalHome) -> None:
    first = addresses.choose_range(other, None)
    shutil.rmtree(other.root)
    assert addresses.choose_range(home, None) == first


def test_a_range_in_which_another_user_listens_is_left_alone(cache: Path, home: LocalHome) -> None:
    first = addresses.choose_range(home, None)
    addresses.forget_range(home)
    with listening(addresses.first_address(first)):
        assert addresses.choose_range(home, None) != first


def test_a_recorded_range_that_another_home_took_is_refused_with_its_name(cache: Path, home: LocalHome, other: LocalHome) -> None:
    taken = addresses.choose_range(other, None)
    with pytest.raises(addresses.NoAddress, match=f"are now those of the cluster in {other.root}: remove one"):
        addresses.choose_range(home, taken)


def test_a_torn_register_is_written_anew(cache: Path, home: LocalHome) -> None:
    register = cache.parent / "service-ranges.json"
    register.parent.mkdir(parents=True)
    register.write_text("{")
    chosen = addresses.choose_range(home, None)
    assert json.loads(register.read_text()) == {chosen: str(home.root)}


def test_recorded_ports_are_kept_when_they_are_free() -> None:
    first = addresses.choose_ports({}, (), "127.95.255.254")
    assert addresses.choose_ports(first, (), "127.95.255.254") == first
    assert len(set(first.values())) == len(first)


def test_only_the_port_that_was_taken_meanwhile_changes() -> None:
    first = addresses.choose_ports({}, (), "127.95.255.254")
    with listening("127.0.0.1", first["kube-apiserver"]):
        second = addresses.choose_ports(first, (), "127.95.255.254")
    changed = {name for name in first if first[name] != second[name]}
    assert changed == {"kube-apiserver"}


def test_a_port_that_our_own_process_holds_is_kept() -> None:
    first = addresses.choose_ports({}, (), "127.95.255.254")
    with listening("127.0.0.1", first["kube-apiserver"]):
        assert addresses.choose_ports(first, {"kube-apiserver"}, "127.95.255.254") == first


def test_ports_lie_below_those_of_outgoing_connections() -> None:
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert max(addresses.choose_ports({}, (), "127.95.255.254").values()) < max(lowest, addresses.PORTS.stop)


def test_the_hub_and_kubernetes_own_service_have_addresses_of_the_range() -> None:
    assert addresses.hub_host("127.70.0.0/16") == "127.70.255.254"
    assert addresses.first_address("127.70.0.0/16") == "127.70.0.1"
