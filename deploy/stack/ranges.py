"""Ranges of a running stack: each gets a network, a secret and a container of its own.

    python -m deploy.stack.ranges add ID [--engine 28.5] [--containerd-store]
    python -m deploy.stack.ranges rm ID
    python -m deploy.stack.ranges ls

A range's network is eight addresses out of 172.30.1.0/24 (STACK_RANGES_SUBNET: a wider one for more than 30 ranges).
On it are the range gateway and the proxy in front of the registry's pull side and the tar server; the host has no
address there, and there is no way out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial

from deploy.container.prepare import RANGE_ID
from deploy.machine.commands import MachineError
from deploy.machine.polling import poll
from deploy.stack import mounted_layers, range_networks
from deploy.stack.compose import Stack, image_there, inspect_machine
from deploy.stack.images import SUITES, range_image
from deploy.stack.nested import nested_options
from deploy.stack.plugins import docker
from deploy.stack.range_networks import LABEL, names

PREPARE = ("python", "-m", "deploy.container.prepare", "/data")
#: Compose's profile `demo` has two ranges, on networks that end in 1 and 2.
OF_COMPOSE = frozenset({"1", "2", "range-1", "range-2"})
STOP_SECONDS = "45"
#: Of 1024 that a service has: where processors are short, the services come before what runs in ranges.
CPU_SHARES = "256"


def add(stack: Stack, name: str, *, engine: str = "28.5", containerd_store: bool = False) -> None:
    """Make a range, start it and wait until its engine and its agent are up. Raises MachineError and leaves nothing."""
    check_name(name)
    image = range_image(engine)
    if not image_there(image):
        raise MachineError(f"{image} is not built: run `make images`")
    if _containers(name):
        raise MachineError(f"there is a range {name} already: choose another name, or remove that one first")
    range_networks.who(stack, "range-gateway")  # without it there is no use in beginning
    with ExitStack() as undo:
        if _claim(stack, name):
            undo.callback(_undo, partial(_ranges_command, stack, "release", name))
        undo.callback(_undo, partial(remove, stack, name))
        _in_data_folder(stack, *PREPARE, "--prefix", stack.key_prefix, "--ranges", name)
        address = range_networks.ensure(stack, name)
        docker(
            *("run", "--detach", "--name", container(name), "--hostname", name, "--label", f"{LABEL}={name}"),
            *("--network", range_networks.NETWORK + name, "--ip", address, "--restart", "unless-stopped"),
            *("--stop-timeout", STOP_SECONDS, "--memory", "4g", "--cpus", "2", "--cpu-shares", CPU_SHARES),
            *("--pids-limit", "8192", "--log-opt", "max-size=10m", "--log-opt", "max-file=3"),
            *(stack.ranges or nested_options(image)),
            *("--volume", "/var/lib/docker", "--volume", f"{stack.data}/secrets/ranges/{name}:/run/cyroid:ro"),
            *(mounted_layers.range_options(stack.data, name) if stack.mount else ()),
            *("--env", f"CYROID_RANGE_ID={name}", "--env", f"CYROID_KEY_PREFIX={stack.key_prefix}"),
            *("--env", f"RANGE_CONTAINERD_STORE={int(containerd_store)}"),
            image,
        )
        _wait_until_well(name)
        undo.pop_all()


def _claim(stack: Stack, name: str) -> bool:
    """Claim the id for this host; whether there is a claim now.

    Raises MachineError at once where another host of the installation has it.
    """
    claimed = bool(stack.environment.get("STACK_HOST_ID"))
    if claimed:
        _ranges_command(stack, "claim", name)
    return claimed


def _ranges_command(stack: Stack, *words: str) -> None:
    """`cyroid-images ranges …`, with the rights of the range gateway."""
    stack.compose("exec", "--no-TTY", "range-gateway", "cyroid-images", "ranges", *words, seconds=60)


def check_name(name: str) -> None:
    """Raises MachineError for what is no range id, and for those that Compose's demo ranges have."""
    if not RANGE_ID.fullmatch(name):
        raise MachineError(f"{name!r} is no range id: letters, digits, dots, dashes and underscores, at most 63")
    if name in OF_COMPOSE:
        raise MachineError(
            f"{name} belongs to the demo ranges of docker-compose.yml (`make up DEMO=1`): call yours something else"
        )


def _undo(step: Callable[[], object]) -> None:
    """What cannot be taken back is said, and does not hide why it is taken back."""
    try:
        step()
    except MachineError as problem:
        sys.stderr.write(f"not all could be taken back: {problem}\n")


def _wait_until_well(name: str) -> None:
    """Runs the health check itself: the engine runs it seldom, since fifty ranges are checked on one host."""
    if not poll(lambda: not _unhealthy(name), seconds=180, every=1.0):
        logs = docker("logs", "--tail", "20", container(name))
        raise MachineError(f"{container(name)} is not healthy: {_unhealthy(name)}\n{logs}")


def _unhealthy(name: str) -> str:
    """Why the range is not healthy; empty if it is."""
    try:
        docker("exec", container(name), "/usr/local/bin/range-healthy", seconds=30.0)
    except MachineError as problem:
        return str(problem)
    return ""


def remove(stack: Stack, name: str) -> None:
    """Stop a range and take away its content, its network and its secret. Nothing is no error."""
    check_name(name)
    _remove_container(name)
    range_networks.remove(name)
    if (stack.data / "secrets").exists():
        _in_data_folder(stack, *PREPARE, "--prefix", stack.key_prefix, "--forget", name)


def remove_all() -> None:
    """Containers, content and networks of all ranges; their secrets go with the data folder."""
    for name in names():
        _remove_container(name)
        range_networks.remove(name)


def start_all(stack: Stack) -> None:
    """Bring up again what `stop_all` stopped.

    The services get their places on every range's network first: Compose forgets them when it makes them anew.
    """
    there = [name for name in names() if _containers(name)]
    for name in there:
        range_networks.attach(stack, name)
        docker("start", container(name))
    for name in there:
        _wait_until_well(name)


def stop_all() -> list[str]:
    """Stop all ranges, which keep what they have; their names."""
    there = [name for name in names() if _containers(name)]
    if there:
        docker("stop", "--time", STOP_SECONDS, *map(container, there), seconds=60 + 50.0 * len(there))
    return there


def container(name: str) -> str:
    return f"cyroid-range-{name}"


def _containers(name: str) -> list[str]:
    """The range's container, if it is there and ours."""
    ours = ("--filter", f"name=^/?{container(name)}$", "--filter", f"label={LABEL}={name}")
    return docker("ps", "--all", "--quiet", *ours).split()


def _remove_container(name: str) -> None:
    for identity in _containers(name):
        docker("rm", "--force", "--volumes", identity)


def _in_data_folder(stack: Stack, *command: str) -> str:
    """Run `command` where the data folder is mounted; its output."""
    return stack.compose("run", "--rm", "--no-deps", "prepare", *command)


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
        if options.verb != "ls":
            check_name(options.name)
        stack = inspect_machine(demo=False, need_images=options.verb == "add")
        if options.verb == "add":
            add(stack, options.name, engine=options.engine, containerd_store=options.containerd_store)
        elif options.verb == "rm":
            remove(stack, options.name)
        else:
            sys.stdout.write("".join(f"{name}\n" for name in names()))
    except MachineError as problem:
        sys.stderr.write(f"{problem}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
