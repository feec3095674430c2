"""Ranges of a running stack: each gets a network, a secret and a user in Redis of its own, and a container.

    python -m deploy.stack.ranges add ID [--engine 28.5] [--containerd-store]
    python -m deploy.stack.ranges rm ID
    python -m deploy.stack.ranges ls

A range's network is eight addresses out of 172.30.1.0/24 (STACK_RANGES_SUBNET: a wider one for more than 30 ranges).
On it are the registry's pull side, Redis and the tar server; the host has no address there, and there is no way out.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import sys
from collections.abc import Mapping, Sequence

from deploy.lab.commands import LabError
from deploy.lab.server import poll
from deploy.stack.acl import range_user, set_user
from deploy.stack.compose import Stack, image_there, look_around
from deploy.stack.images import SUITES, range_image
from deploy.stack.nested import nested_options
from deploy.stack.plugins import docker

LABEL = "cyroid.range"
NETWORK = "cyroid-ranges-"
#: Service → its place among the eight addresses, and its name if the range is to find it.
DOORS: Mapping[str, tuple[int, str | None]] = {
    "registry-pull": (2, "cyroid-registry"),
    "redis": (3, "cyroid-redis"),
    "tar-server": (4, "cyroid-tar"),
    "agent-pool": (5, None),
}
RANGE_PLACE = 6
PREPARE = ("python", "-m", "deploy.stack.prepare", "/data")


def add(stack: Stack, name: str, *, engine: str = "28.5", containerd_store: bool = False) -> None:
    """Make a range, start it and wait until its engine and its agent are up. Raises LabError."""
    image = range_image(engine)
    if not image_there(image):
        raise LabError(f"{image} is not built: run `make images`")
    _in_data_folder(stack, *PREPARE, "--ranges", name)
    users = _in_data_folder(stack, "cat", "/data/redis/users.acl").splitlines()
    (line,) = (user for user in users if user.split()[1] == range_user(name))
    _tell_redis(stack, *set_user(line))
    network = NETWORK + name
    if network not in _networks():
        subnet = _free_subnet(stack)
        docker(
            *("network", "create", "--internal", "--subnet", str(subnet), "--label", f"{LABEL}={name}"),
            *("--opt", "com.docker.network.bridge.inhibit_ipv4=true", network),
        )
    attach(stack, network)
    address = str(_subnet(network)[RANGE_PLACE])
    docker(
        *("run", "--detach", "--name", container(name), "--hostname", name, "--label", f"{LABEL}={name}"),
        *("--network", network, "--ip", address, "--restart", "unless-stopped", "--stop-timeout", "45"),
        *("--memory", "4g", "--cpus", "2", "--pids-limit", "8192"),
        *("--log-opt", "max-size=10m", "--log-opt", "max-file=3", "--health-interval", "5s"),
        *(stack.ranges or nested_options(image)),
        *("--volume", "/var/lib/docker", "--volume", f"{stack.data}/secrets/ranges/{name}:/run/cyroid:ro"),
        *("--env", f"CYROID_RANGE_ID={name}", "--env", f"RANGE_CONTAINERD_STORE={int(containerd_store)}"),
        image,
    )
    if not poll(lambda: _health(name) == "healthy", seconds=180, every=1.0):
        raise LabError(f"{container(name)} is {_health(name)}:\n{docker('logs', '--tail', '20', container(name))}")


def _health(name: str) -> str:
    return docker("inspect", "--format", "{{.State.Health.Status}}", container(name)).strip()


def remove(stack: Stack, name: str) -> None:
    """Stop a range and take away its content, its network, its secret and its user. Nothing is no error."""
    if docker("ps", "--all", "--quiet", "--filter", f"name=^{container(name)}$"):
        docker("rm", "--force", "--volumes", container(name))
    network = NETWORK + name
    if network in _networks():
        for attached in _attached(network):
            docker("network", "disconnect", "--force", network, attached)
        docker("network", "rm", network)
    if "redis" in stack.running():
        _in_data_folder(stack, *PREPARE, "--forget", name)
        _tell_redis(stack, "ACL", "DELUSER", range_user(name))


def attach_all(stack: Stack) -> None:
    """Give the services their places on every range's network again: Compose forgets them when it makes them anew."""
    for name in names():
        attach(stack, NETWORK + name)


def remove_all(stack: Stack) -> None:
    for name in names():
        remove(stack, name)


def names() -> list[str]:
    """The ranges that were added here (not those of Compose's profile `demo`)."""
    listed = docker("network", "ls", "--filter", f"label={LABEL}", "--format", "{{.Name}}")
    return [network.removeprefix(NETWORK) for network in listed.split()]


def attach(stack: Stack, network: str) -> None:
    """Those that a range may meet, on its network under the names it knows."""
    there, subnet = _attached(network), _subnet(network)
    for service, (place, alias) in DOORS.items():
        identity = stack.compose("ps", "--quiet", service).strip()
        if not identity:
            raise LabError(f"{service} does not run: `make up` first")
        if identity not in there:
            name = ["--alias", alias] if alias else []
            docker("network", "connect", "--ip", str(subnet[place]), *name, network, identity)


def container(name: str) -> str:
    return f"cyroid-range-{name}"


def _tell_redis(stack: Stack, *words: str) -> None:
    """Say `words` to Redis as its user `admin`. Raises LabError."""
    password = _in_data_folder(stack, "cat", "/data/secrets/admin/redis_password").strip()
    logged_in = ["exec", "--no-TTY", "--env", "REDISCLI_AUTH", "redis", "redis-cli", "--user", "admin"]
    answer = stack.compose(*logged_in, *words, environment={"REDISCLI_AUTH": password}).strip()
    if answer not in ("OK", "0", "1"):
        raise LabError(f"Redis did not take `{' '.join(words[:3])} …`: {answer}")


def _in_data_folder(stack: Stack, *command: str) -> str:
    """Run `command` where the data folder is mounted; its output."""
    return stack.compose("run", "--rm", "--no-deps", "prepare", *command)


def _networks() -> list[str]:
    return docker("network", "ls", "--format", "{{.Name}}").split()


def _inspect(network: str) -> dict[str, object]:
    (found,) = json.loads(docker("network", "inspect", network))
    return dict(found)


def _attached(network: str) -> list[str]:
    containers = _inspect(network)["Containers"]
    return list(containers) if isinstance(containers, dict) else []


def _subnet(network: str) -> ipaddress.IPv4Network:
    text = docker("network", "inspect", "--format", "{{(index .IPAM.Config 0).Subnet}}", network)
    return ipaddress.IPv4Network(text.strip())


def _free_subnet(stack: Stack) -> ipaddress.IPv4Network:
    pool = ipaddress.IPv4Network(stack.environment.get("STACK_RANGES_SUBNET", "172.30.1.0/24"))
    configured = docker("network", "inspect", "--format", "{{range .IPAM.Config}}{{.Subnet}} {{end}}", *_networks())
    taken = [ipaddress.ip_network(subnet) for subnet in configured.split()]
    demo = ipaddress.IPv4Network("172.30.1.0/28")  # the two of Compose's profile, whether they run or not
    for subnet in pool.subnets(new_prefix=29):
        if not subnet.overlaps(demo) and not any(
            isinstance(other, ipaddress.IPv4Network) and subnet.overlaps(other) for other in taken
        ):
            return subnet
    raise LabError(f"every network in {pool} is taken: remove a range, or set STACK_RANGES_SUBNET to a wider one")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="deploy.stack.ranges", description="Ranges of a running stack.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    adding = verbs.add_parser("add", help="make a range and start it")
    adding.add_argument("name", metavar="ID")
    adding.add_argument("--engine", choices=list(SUITES), default="28.5")
    adding.add_argument("--containerd-store", action="store_true", help="its engine keeps images in containerd's store")
    removing = verbs.add_parser("rm", help="stop a range and take away what it had")
    removing.add_argument("name", metavar="ID")
    verbs.add_parser("ls", help="the ranges added here")
    options = parser.parse_args(arguments)
    try:
        stack = look_around(demo=False)
        if options.verb == "add":
            add(stack, options.name, engine=options.engine, containerd_store=options.containerd_store)
        elif options.verb == "rm":
            remove(stack, options.name)
        else:
            sys.stdout.write("".join(f"{name}\n" for name in names()))
    except LabError as problem:
        sys.stderr.write(f"{problem}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
