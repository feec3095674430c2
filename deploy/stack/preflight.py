"""What would stop the stack from starting, said before it starts: a line for each, with what to do about it."""

from __future__ import annotations

import ipaddress
import json
import re
import shutil
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

from deploy.stack.plugins import docker

#: The subnets that docker-compose.yml takes.
SUBNETS = ("172.30.0.0/24", "172.30.1.0/24")
OWN_NETWORKS = re.compile(r"cyroid-(mgmt|ranges-.*)")
OLDEST_ENGINE = (20, 10)
LEAST_FREE_BYTES = 5 * 1024**3


def obstacles(data: Path, facts: Mapping[str, str], ports: Mapping[str, int]) -> list[str]:
    """All of them at once. `ports`: what each published port is for, while it is not ours already."""
    return [
        *old_engine(facts.get("ServerVersion", "0")),
        *bad_folder(data),
        *taken_ports(ports),
        *overlaps({name: subnet for name, subnet in networks() if not OWN_NETWORKS.fullmatch(name)}),
    ]


def old_engine(version: str) -> Iterator[str]:
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if numbers < OLDEST_ENGINE:
        yield f"the host's engine is {version}: 20.10 or newer is needed"


def bad_folder(data: Path) -> Iterator[str]:
    """The folder can be made and has room."""
    existing = next(path for path in (data, *data.parents) if path.exists())
    if not existing.is_dir():
        yield f"{existing} is no folder: set CYROID_DATA_DIR to another one"
        return
    free = shutil.disk_usage(existing).free
    if free < LEAST_FREE_BYTES:
        wanted = LEAST_FREE_BYTES / 1e9
        yield f"{existing} has {free / 1e9:.1f} GB left, {wanted:.0f} are needed: make room, or set CYROID_DATA_DIR"


def taken_ports(ports: Mapping[str, int]) -> Iterator[str]:
    for variable, port in ports.items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as problem:
                yield f"port {port} on 127.0.0.1 is taken ({problem.strerror}): set {variable} to a free one"


def overlaps(others: Mapping[str, str]) -> Iterator[str]:
    """`others`: the name and subnet of each network of the engine that is not ours."""
    for name, subnet in others.items():
        for own in SUBNETS:
            theirs = ipaddress.ip_network(subnet)
            if theirs.version == 4 and theirs.overlaps(ipaddress.ip_network(own)):
                yield f"the engine's network {name} ({subnet}) overlaps {own}: remove it, or make it anew elsewhere"


def networks() -> Iterator[tuple[str, str]]:
    names = docker("network", "ls", "--format", "{{.Name}}").split()
    for network in json.loads(docker("network", "inspect", *names)):
        for config in network["IPAM"]["Config"] or []:
            if config.get("Subnet"):
                yield network["Name"], config["Subnet"]
