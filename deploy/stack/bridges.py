"""Bridges under the ranges' networks: their names on this machine, and whether IPv6 is open on one.

`bridge-guard` (deploy.container.bridge_guard) closes them; here it is asked whether it could.
"""

from __future__ import annotations

import ipaddress
import sys
from typing import TYPE_CHECKING

from deploy.container.bridge_guard import PREFIX, told
from deploy.machine.commands import MachineError
from deploy.stack.plugins import docker
from deploy.stack.preflight import PROJECT, RANGE

if TYPE_CHECKING:
    from deploy.stack.compose import Stack

#: The option of `docker network create` that names the bridge.
BRIDGE = "com.docker.network.bridge.name"
#: The engine's own name for a bridge, unless it was told one; so they were called in earlier versions.
FORM = f'{{{{with index .Options "{BRIDGE}"}}}}{{{{.}}}}{{{{else}}}}br-{{{{slice .Id 0 12}}}}{{{{end}}}}'
OURS = (
    ("--filter", f"label={RANGE}"),
    ("--filter", f"label={'='.join(PROJECT)}", "--filter", "name=cyroid-ranges-"),
)


def bridge_name(subnet: ipaddress.IPv4Network) -> str:
    """Of the network with this subnet, which no other network of the engine has. A link's name has 15 letters."""
    return f"{PREFIX}{int(subnet.network_address):08x}"


def bridges() -> list[str]:
    """Of all ranges' networks, also those of Compose's demo ranges."""
    found = [identity for ours in OURS for identity in docker("network", "ls", "--quiet", *ours).split()]
    return docker("network", "inspect", "--format", FORM, *found).split() if found else []


def close_bridges(stack: Stack) -> None:
    """Have the guard close them all; says in one line on standard error which stay open, and what closes them."""
    there = bridges()
    guard = ("python", "-m", "deploy.container.bridge_guard")
    try:
        left = stack.compose("exec", "--no-TTY", "bridge-guard", *guard, *there).split() if there else []
    except MachineError as problem:
        sys.stderr.write(f"bridge-guard does not work: {problem}\n")
        left = there
    if left:
        sys.stderr.write(f"{told(left)}\n")
