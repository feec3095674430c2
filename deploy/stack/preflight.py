"""Preflight checks of the stack: a line for each problem that would stop the start, with what to do about it."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from deploy.stack.plugins import docker

#: The subnets that docker-compose.yml takes.
MANAGEMENT, RANGES = "172.30.0.0/24", "172.30.1.0/24"
MANAGEMENT_NETWORK = "cyroid-mgmt"
#: Who made a network of ours: Compose, or `deploy.stack.ranges`.
PROJECT = ("com.docker.compose.project", "cyroid-images")
RANGE = "cyroid.range"
#: Our own places on cyroid-mgmt (docker-compose.yml).
PLACES = tuple(f"172.30.0.{last}" for last in (16, 17, 18, 19, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30))
OLDEST_ENGINE = (20, 10)
LEAST_FREE_BYTES = 5 * 1024**3
LOOPBACK = ipaddress.IPv4Address("127.0.0.1")
LISTENING = "0A"
#: An address of the machine's own in /proc/net/fib_trie.
_LOCAL = re.compile(r"\|-- ([0-9.]+)\n +/32 host LOCAL")
NARROW = 16


@dataclass(frozen=True, slots=True)
class Network:
    """A network of the engine. `places`: address → container, of those that run."""

    name: str
    subnets: tuple[str, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict)

    @property
    def ours(self) -> bool:
        return self.labels.get(PROJECT[0]) == PROJECT[1] or RANGE in self.labels


def obstacles(
    data: Path,
    facts: Mapping[str, str],
    ports: Mapping[str, int],
    *,
    outward: Outward | None = None,
    join: bool = False,
    process: int | None = None,
) -> list[str]:
    """All of them at once.

    `ports`: what each published port is for, while it is not ours already. `outward`: what other hosts reach.
    `join`: beside CYROID, on its network. `process`: the engine's, whose network counts; None is this one's.
    """
    there = list(networks())
    return [
        *old_engine(facts.get("ServerVersion", "0")),
        *bad_folder(data),
        *little_space(Path(facts.get("DockerRootDir", "/"))),
        *taken_ports(ports, listeners(process)),
        *(unfit_address(outward, own_addresses(process), listeners(process)) if outward is not None else ()),
        *(missing_network(there) if join else foreign_network(there)),
        *overlaps(there, join=join),
        *taken_routes(routes(process), there),
        *taken_places(there),
    ]


@dataclass(frozen=True, slots=True)
class Outward:
    """What is published for other hosts: at which address, which setting says so, and the ports, if not ours yet."""

    address: str
    setting: str
    ports: tuple[int, ...]


def unfit_address(outward: Outward, own: Iterable[str], taken: Iterable[tuple[str, int]]) -> Iterator[str]:
    """An address that is not this machine's, or has somebody else's port; `own` empty: nobody knows."""
    try:
        address = ipaddress.ip_address(outward.address)
    except ValueError:
        yield f"{outward.setting} is {outward.address!r}: an IP address of this machine is meant"
        return
    known = {ipaddress.ip_address(one) for one in own}
    if known and address not in known:
        shown = ", ".join(sorted(str(one) for one in known if not one.is_loopback and not one.is_link_local))
        yield f"{outward.setting} is {address}, which this machine does not have; it has {shown}"
        return
    there = {port for where, port in taken if where in (str(address), "0.0.0.0", "::")}
    for port in outward.ports:
        if port in there:
            yield f"port {port} on {address} is taken: end what listens there, other hosts need it ({outward.setting})"


def own_addresses(process: int | None) -> list[str]:
    """The IP addresses of the network of `process`."""
    try:
        fourth = Path(f"/proc/{process or 'self'}/net/fib_trie").read_text()
    except OSError:
        return []
    sixth = [words[0] for words in _table(process, "if_inet6", heading=0)]
    found = _LOCAL.findall(fourth) + [str(ipaddress.IPv6Address(int(word, 16))) for word in sixth]
    return list(dict.fromkeys(found))


def old_engine(version: str) -> Iterator[str]:
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if numbers < OLDEST_ENGINE:
        yield f"the host's engine is {version}: 20.10 or newer is needed"


def bad_folder(data: Path) -> Iterator[str]:
    """The folder is there or can be made, can be written to and has free space."""
    existing = next(path for path in (data, *data.parents) if path.exists())
    if not existing.is_dir():
        yield f"{existing} is no folder: set CYROID_DATA_DIR to another one"
    elif not os.access(existing, os.W_OK | os.X_OK):
        what = f"{data} cannot be written to" if existing == data else f"{data} cannot be made in {existing}"
        yield f"{what}: run this as root, or set CYROID_DATA_DIR to a folder of yours"
    else:
        yield from little_space(existing, ", or set CYROID_DATA_DIR")


def little_space(folder: Path, otherwise: str = "") -> Iterator[str]:
    """An engine's root that cannot be seen from here is not checked."""
    try:
        free = shutil.disk_usage(folder).free
    except OSError:
        return
    if free < LEAST_FREE_BYTES:
        wanted = LEAST_FREE_BYTES / 1e9
        yield f"{folder} has {free / 1e9:.1f} GB left, {wanted:.0f} are needed: free some space{otherwise}"


def taken_ports(ports: Mapping[str, int], taken: Iterable[tuple[str, int]]) -> Iterator[str]:
    """`taken`: address and port of whatever listens where the engine publishes."""
    there = {port for address, port in taken if _reaches_loopback(address)}
    for variable, port in ports.items():
        if port in there:
            yield f"port {port} on {LOOPBACK} is taken: end what listens there, or set {variable} to a free one"


def _reaches_loopback(address: str) -> bool:
    found = ipaddress.ip_address(address)
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (mapped or found) == LOOPBACK or found.is_unspecified


def listeners(process: int | None) -> list[tuple[str, int]]:
    """Address and port of every TCP socket that listens in the network of `process`."""
    found = []
    for name in ("tcp", "tcp6"):
        for words in _table(process, name):
            if words[3] == LISTENING:
                address, _, port = words[1].partition(":")
                found.append((_kernel_address(address), int(port, 16)))
    return found


def routes(process: int | None) -> list[tuple[str, str]]:
    """Interface and subnet of every IPv4 route of that network, the default one left out."""
    found = []
    for words in _table(process, "route"):
        destination, mask = _kernel_address(words[1]), _kernel_address(words[7])
        if mask != "0.0.0.0":
            found.append((words[0], f"{destination}/{mask}"))
    return found


def _table(process: int | None, name: str, *, heading: int = 1) -> list[list[str]]:
    """The lines of a table of the kernel's, without its heading; none where it has no such table."""
    try:
        lines = Path(f"/proc/{process or 'self'}/net/{name}").read_text().splitlines()[heading:]
    except OSError:
        return []
    return [line.split() for line in lines]


def _kernel_address(text: str) -> str:
    """As /proc/net has it: hexadecimal, each four bytes in the machine's own (little-endian) order."""
    raw = bytes.fromhex(text)
    return str(ipaddress.ip_address(b"".join(raw[at : at + 4][::-1] for at in range(0, len(raw), 4))))


def foreign_network(there: Iterable[Network]) -> Iterator[str]:
    """CYROID's own management network, which Compose would refuse with words about labels."""
    for network in there:
        if network.name == MANAGEMENT_NETWORK and not network.ours:
            yield (
                f"the network {MANAGEMENT_NETWORK} belongs to another project: `make up JOIN=1` if that is CYROID,"
                f" else `docker network rm {MANAGEMENT_NETWORK}`"
            )


def missing_network(there: Iterable[Network]) -> Iterator[str]:
    found = next((network for network in there if network.name == MANAGEMENT_NETWORK), None)
    if found is None:
        yield f"there is no network {MANAGEMENT_NETWORK} to join: start CYROID first, or leave JOIN out"
    elif MANAGEMENT not in found.subnets:
        subnets = " ".join(found.subnets) or "nothing"
        yield f"{MANAGEMENT_NETWORK} is {subnets}, not {MANAGEMENT}: our services have fixed addresses in the latter"


def overlaps(there: Iterable[Network], *, join: bool) -> Iterator[str]:
    """Networks of the engine on our addresses that are not ours; with `join` CYROID's own is meant to be there."""
    for network in there:
        if network.ours or network.name == MANAGEMENT_NETWORK:
            continue
        for own in (RANGES,) if join else (MANAGEMENT, RANGES):
            for subnet in network.subnets:
                if _overlap(subnet, own):
                    yield (
                        f"the engine's network {network.name} ({subnet}) overlaps {own}:"
                        " remove it, or make it anew elsewhere"
                    )


def taken_routes(found: Iterable[tuple[str, str]], there: Iterable[Network]) -> Iterator[str]:
    """Routes of the machine into our addresses that no network of the engine accounts for.

    Wide ones (a VPN's) are left alone: our own, narrower ones come before them.
    """
    known = {subnet for network in there for subnet in network.subnets}
    for interface, subnet in found:
        shown = str(ipaddress.ip_network(subnet))
        if shown in known or ipaddress.ip_network(subnet).prefixlen < NARROW:
            continue
        for own in (MANAGEMENT, RANGES):
            if _overlap(subnet, own):
                yield f"this machine reaches {shown} over {interface}, which overlaps {own}: take that route away"


def taken_places(there: Iterable[Network]) -> Iterator[str]:
    """Somebody else's container on an address that docker-compose.yml gives to one of ours."""
    for network in there:
        if network.name == MANAGEMENT_NETWORK:
            for address, container in network.places.items():
                if address in PLACES and not container.startswith(f"{PROJECT[1]}-"):
                    yield f"{address} on {network.name} is taken by {container}: give that container another address"


def _overlap(one: str, other: str) -> bool:
    first, second = ipaddress.ip_network(one), ipaddress.ip_network(other)
    return first.version == second.version and first.overlaps(second)


def networks() -> Iterator[Network]:
    names = docker("network", "ls", "--quiet").split()
    for network in json.loads(docker("network", "inspect", *names)):
        places = {
            one["IPv4Address"].partition("/")[0]: one["Name"] for one in (network.get("Containers") or {}).values()
        }
        subnets = tuple(one["Subnet"] for one in network["IPAM"]["Config"] or [] if one.get("Subnet"))
        yield Network(network["Name"], subnets, network.get("Labels") or {}, places)
