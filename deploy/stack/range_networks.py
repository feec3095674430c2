"""Network of a range: eight addresses of its own, and the services that a range may reach on it.

Only networks with our label are touched: Compose's demo ranges have theirs, and an operator may have any.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping

from deploy.machine.commands import MachineError
from deploy.stack.bridges import BRIDGE, bridge_name, close_bridges
from deploy.stack.compose import Stack
from deploy.stack.plugins import docker

LABEL = "cyroid.range"
NETWORK = "cyroid-ranges-"
POOL = "172.30.1.0/24"
#: The two of Compose's profile `demo`, whether they run or not.
DEMO = ipaddress.IPv4Network("172.30.1.0/28")
#: Service → its place among the eight addresses, and the names under which the range finds it.
PLACES: Mapping[str, tuple[int, tuple[str, ...]]] = {
    "range-proxy": (2, ("cyroid-registry", "cyroid-tar", "cyroid-first-tar")),
    "range-gateway": (3, ("cyroid-gateway",)),
    "agent-pool": (5, ("cyroid-pool",)),
}
RANGE_PLACE = 6


def names() -> list[str]:
    """The ranges that were added here (not those of Compose's profile `demo`)."""
    listed = docker("network", "ls", "--filter", f"label={LABEL}", "--format", "{{.Name}}")
    return [network.removeprefix(NETWORK) for network in listed.split()]


def ensure(stack: Stack, name: str) -> str:
    """The network of range `name`, made if it is not there, with the services on it; the range's own address in it.

    Raises MachineError, also for a network of that name which is not ours.
    """
    network = NETWORK + name
    if name not in names():
        if network in docker("network", "ls", "--format", "{{.Name}}").split():
            raise MachineError(f"the network {network} is not one of ours: call the range something else, or remove it")
        subnet = _free(stack)
        docker(
            *("network", "create", "--internal", "--subnet", str(subnet), "--label", f"{LABEL}={name}"),
            *("--opt", "com.docker.network.bridge.inhibit_ipv4=true"),
            *("--opt", f"{BRIDGE}={bridge_name(subnet)}", network),
        )
    attach(stack, name)
    close_bridges(stack)
    return str(_subnet(network)[RANGE_PLACE])


def attach(stack: Stack, name: str) -> None:
    """Those that a range may meet, on its network under the names it knows."""
    network = NETWORK + name
    there, subnet = _attached(network), _subnet(network)
    for service, (place, aliases) in PLACES.items():
        identity = who(stack, service)
        if identity not in there:
            named = [word for alias in aliases for word in ("--alias", alias)]
            docker("network", "connect", "--ip", str(subnet[place]), *named, network, identity)


def who(stack: Stack, service: str) -> str:
    """The id of the container that serves. Raises MachineError."""
    identity = stack.compose("ps", "--quiet", service).strip()
    if not identity:
        raise MachineError(f"{service} does not run: `make up` first")
    return identity


def remove(name: str) -> None:
    """Take it away, whoever is still on it. Nothing of that name, or not ours, is no error."""
    if name in names():
        network = NETWORK + name
        for attached in _attached(network):
            docker("network", "disconnect", "--force", network, attached)
        docker("network", "rm", network)


def free_subnet(
    pool: ipaddress.IPv4Network, taken: Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network]
) -> ipaddress.IPv4Network | None:
    """The first eight addresses of `pool` that neither the demo ranges nor `taken` have."""
    others = [DEMO, *(network for network in taken if isinstance(network, ipaddress.IPv4Network))]
    parts = pool.subnets(new_prefix=29)
    return next((part for part in parts if not any(part.overlaps(other) for other in others)), None)


def _free(stack: Stack) -> ipaddress.IPv4Network:
    pool = ipaddress.IPv4Network(stack.environment.get("STACK_RANGES_SUBNET", POOL))
    every = docker("network", "ls", "--quiet").split()
    configured = docker("network", "inspect", "--format", "{{range .IPAM.Config}}{{.Subnet}} {{end}}", *every)
    found = free_subnet(pool, [ipaddress.ip_network(subnet) for subnet in configured.split()])
    if found is None:
        raise MachineError(
            f"every network in {pool} is taken: remove a range, or set STACK_RANGES_SUBNET to a wider one"
        )
    return found


def _attached(network: str) -> list[str]:
    """Ids of the containers on it. Stopped ones too: one that is left on a network that is gone never starts again."""
    return docker("ps", "--all", "--quiet", "--no-trunc", "--filter", f"network={network}").split()


def _subnet(network: str) -> ipaddress.IPv4Network:
    text = docker("network", "inspect", "--format", "{{(index .IPAM.Config 0).Subnet}}", network)
    return ipaddress.IPv4Network(text.strip())
