"""What stops the stack from starting is said before it starts."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path
from typing import NamedTuple

import pytest

from deploy.stack.preflight import (
    MANAGEMENT_NETWORK,
    Network,
    Outward,
    bad_folder,
    foreign_network,
    listeners,
    little_space,
    missing_network,
    old_engine,
    overlaps,
    own_addresses,
    routes,
    taken_places,
    taken_ports,
    taken_routes,
    unfit_address,
)

CYROIDS = Network(MANAGEMENT_NETWORK, ("172.30.0.0/24",), {"com.docker.compose.project": "cyroid"})
OURS = Network(MANAGEMENT_NETWORK, ("172.30.0.0/24",), {"com.docker.compose.project": "cyroid-images"})


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.mark.parametrize(("version", "lines"), [("19.03.15", 1), ("20.10.24+dfsg1", 0), ("28.5.2", 0), ("0", 1)])
def test_an_engine_that_is_too_old_is_named(version: str, lines: int) -> None:
    """20.10 is the oldest that is tested."""
    assert len(list(old_engine(version))) == lines


def test_a_taken_port_is_named_with_the_setting_that_moves_it() -> None:
    """Somebody listens there already, as the kernel's own table of our network says."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (line,) = taken_ports({"STACK_API_PORT": port}, listeners(None))
        assert f"port {port}" in line
        assert "STACK_API_PORT" in line
    assert list(taken_ports({"STACK_API_PORT": port}, listeners(None))) == []


@pytest.mark.parametrize(
    ("address", "lines"),
    [("127.0.0.1", 1), ("0.0.0.0", 1), ("::", 1), ("::ffff:127.0.0.1", 1), ("192.0.2.7", 0), ("::1", 0)],
)
def test_a_port_is_taken_on_the_address_that_is_used(address: str, lines: int) -> None:
    """On loopback, or on all addresses; another address of the machine does not matter."""
    assert len(list(taken_ports({"STACK_API_PORT": 8070}, [(address, 8070)]))) == lines


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("10.0.0.1", ""),
        ("fd00::1", ""),
        ("0.0.0.0", "this machine does not have"),
        ("10.0.0.9", "this machine does not have; it has 10.0.0.1, fd00::1"),
        ("a.example", "an IP address of this machine is meant"),
        ("10.0.0.1:6380", "an IP address of this machine is meant"),
    ],
)
def test_an_address_for_other_hosts_is_this_machines_own(address: str, told: str) -> None:
    """Else the engine would say so in the middle of the start."""
    own = ["127.0.0.1", "10.0.0.1", "fd00::1", "fe80::1"]
    lines = list(unfit_address(Outward(address, "DOOR", (6380,)), own, [("10.0.0.7", 6380)]))
    assert [told in line and "DOOR" in line for line in lines] == ([True] if told else [])
    assert list(unfit_address(Outward("10.0.0.9", "DOOR", (6380,)), [], [])) == []


@pytest.mark.parametrize("where", ["10.0.0.1", "0.0.0.0", "::"])
def test_a_port_for_other_hosts_that_is_taken_is_named(where: str) -> None:
    """At that address, or at all."""
    (line,) = unfit_address(Outward("10.0.0.1", "DOOR", (6380, 5443)), ["10.0.0.1"], [(where, 5443), ("::1", 6380)])
    assert "port 5443 on 10.0.0.1" in line


def test_the_addresses_of_this_machine_are_known() -> None:
    """As the kernel lists them."""
    assert "127.0.0.1" in own_addresses(None)


def test_the_kernels_tables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Addresses as /proc/net has them; listening sockets alone; routes without the default one."""
    tables = {
        "tcp": "head\n 0: 0100007F:1F90 00000000:0000 0A x\n 1: 0100007F:1F91 0100007F:0016 01 x\n",
        "tcp6": "head\n 0: 00000000000000000000000001000000:1388 0:0 0A x\n",
        "route": "head\neth0 00000000 010200C0 3 0 0 0 00000000\nbr0 00001EAC 00000000 1 0 0 0 00FFFFFF\n",
    }
    monkeypatch.setattr(Path, "read_text", lambda path: tables[path.name])
    assert listeners(7) == [("127.0.0.1", 8080), ("::1", 5000)]
    assert routes(7) == [("br0", "172.30.0.0/255.255.255.0")]


def test_a_folder_that_cannot_be_one_is_named(tmp_path: Path) -> None:
    """A file in the way of the data folder."""
    (tmp_path / "file").write_text("")
    (line,) = bad_folder(tmp_path / "file" / "data")
    assert "CYROID_DATA_DIR" in line


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder itself, or the parent in which it would have to be made."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    (there,) = bad_folder(tmp_path)
    assert there.startswith(f"{tmp_path} cannot be written to")
    (missing,) = bad_folder(tmp_path / "parent" / "data")
    assert missing.startswith(f"{tmp_path}/parent/data cannot be made in {tmp_path}:")
    assert "CYROID_DATA_DIR" in missing


def test_a_disk_nearly_full_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Less than the least that is useful, under the data folder and under the engine's root."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(100, 99, 1))
    (line,) = bad_folder(tmp_path / "not" / "yet")
    assert line.endswith("free some space, or set CYROID_DATA_DIR")
    (line,) = little_space(tmp_path)
    assert "GB left" in line


def test_an_engines_root_that_cannot_be_seen_is_not_looked_at(tmp_path: Path) -> None:
    """The engine may run where its folder is not ours to see."""
    assert list(little_space(tmp_path / "none")) == []


def test_a_network_in_the_way_is_named() -> None:
    """Another network of the engine on our addresses; one elsewhere, of IPv6, or our own is no obstacle."""
    other = Network("other", ("172.30.0.0/16",))
    harmless = [Network("elsewhere", ("10.0.0.0/8",)), Network("six", ("fd00::/64",)), OURS]
    harmless.append(Network("cyroid-ranges-a", ("172.30.1.16/29",), {"cyroid.range": "a"}))
    found = list(overlaps([other, *harmless], join=False))
    assert len(found) == 2
    assert all("other" in line for line in found)


def test_a_network_named_like_a_ranges_is_in_the_way_if_it_is_not_ours() -> None:
    """The label counts, not the name."""
    assert len(list(overlaps([Network("cyroid-ranges-a", ("172.30.1.16/29",))], join=False))) == 1


def test_cyroids_own_network_is_joined_or_named() -> None:
    """Alone it is in the way, with what joins it; with JOIN it has to be there, with the addresses we use."""
    (line,) = foreign_network([CYROIDS])
    assert "JOIN=1" in line
    assert list(foreign_network([OURS])) == []
    assert list(missing_network([CYROIDS])) == []
    assert list(overlaps([CYROIDS], join=True)) == []
    assert "start CYROID first" in next(missing_network([]))
    assert "172.31.0.0/24" in next(missing_network([Network(MANAGEMENT_NETWORK, ("172.31.0.0/24",))]))


def test_an_address_that_somebody_else_has_is_named() -> None:
    """A container of CYROID's on one of our addresses; our own, and others on theirs, are no obstacle."""
    places = {"172.30.0.16": "cyroid-mirror-1", "172.30.0.12": "cyroid-redis-1", "172.30.0.23": "cyroid-images-api-1"}
    (line,) = taken_places([Network(MANAGEMENT_NETWORK, ("172.30.0.0/24",), places=places)])
    assert line.startswith("172.30.0.16 on cyroid-mgmt is taken by cyroid-mirror-1")


def test_a_route_of_the_machine_into_our_addresses_is_named() -> None:
    """Not those of the engine's own networks, and not a wide one, which ours come before."""
    found = [
        ("br-1", "172.30.0.0/255.255.255.0"),
        ("vpn0", "172.16.0.0/255.240.0.0"),
        ("eth1", "172.30.1.0/255.255.255.0"),
    ]
    (line,) = taken_routes(found, [OURS])
    assert "172.30.1.0/24 over eth1" in line
