"""Ranges of a running stack: each gets a network, a secret and a user in Redis of its own, and a container.

    python -m deploy.stack.ranges add ID [--engine 28.5] [--containerd-store]
    python -m deploy.stack.ranges rm ID
    python -m deploy.stack.ranges ls

A range's network is eight addresses out of 172.30.1.0/24 (STACK_RANGES_SUBNET: a wider one for more than 30 ranges).
On it are the registry's pull side, Redis and the tar server; the host has no address there, and there is no way out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from urllib.parse import unquote, urlsplit

from deploy.lab.commands import LabError
from deploy.lab.server import poll
from deploy.stack import range_networks
from deploy.stack.acl import range_user, set_user
from deploy.stack.compose import Stack, image_there, look_around
from deploy.stack.images import SUITES, range_image
from deploy.stack.nested import nested_options
from deploy.stack.plugins import docker
from deploy.stack.prepare import RANGE_ID
from deploy.stack.range_networks import LABEL, names

PREPARE = ("python", "-m", "deploy.stack.prepare", "/data")
#: Compose's profile `demo` has two ranges, on networks that end in 1 and 2.
OF_COMPOSE = frozenset({"1", "2", "range-1", "range-2"})
STOP_SECONDS = "45"


def add(stack: Stack, name: str, *, engine: str = "28.5", containerd_store: bool = False) -> None:
    """Make a range, start it and wait until its engine and its agent are up. Raises LabError, and leaves nothing."""
    check_name(name)
    image = range_image(engine)
    if not image_there(image):
        raise LabError(f"{image} is not built: run `make images`")
    if _containers(name):
        raise LabError(f"there is a range {name} already: choose another name, or remove that one first")
    range_networks.who(stack, "redis")  # without it there is no use in beginning
    with ExitStack() as undo:
        undo.callback(_undo, partial(remove, stack, name))
        _make_user(stack, name)
        address = range_networks.ensure(stack, name)
        docker(
            *("run", "--detach", "--name", container(name), "--hostname", name, "--label", f"{LABEL}={name}"),
            *("--network", range_networks.NETWORK + name, "--ip", address, "--restart", "unless-stopped"),
            *("--stop-timeout", STOP_SECONDS, "--memory", "4g", "--cpus", "2", "--pids-limit", "8192"),
            *("--log-opt", "max-size=10m", "--log-opt", "max-file=3", "--health-interval", "5s"),
            *(stack.ranges or nested_options(image)),
            *("--volume", "/var/lib/docker", "--volume", f"{stack.data}/secrets/ranges/{name}:/run/cyroid:ro"),
            *("--env", f"CYROID_RANGE_ID={name}", "--env", f"RANGE_CONTAINERD_STORE={int(containerd_store)}"),
            image,
        )
        _wait_until_well(name)
        undo.pop_all()


def check_name(name: str) -> None:
    """Raises LabError for what is no range id, and for those that Compose's demo ranges have."""
    if not RANGE_ID.fullmatch(name):
        raise LabError(f"{name!r} is no range id: letters, digits, dots, dashes and underscores, at most 63")
    if name in OF_COMPOSE:
        raise LabError(
            f"{name} belongs to the demo ranges of docker-compose.yml (`make up DEMO=1`): call yours something else"
        )


def _undo(step: Callable[[], object]) -> None:
    """What cannot be taken back is said, and does not hide why it is taken back."""
    try:
        step()
    except LabError as problem:
        sys.stderr.write(f"not all could be taken back: {problem}\n")


def _wait_until_well(name: str) -> None:
    if not poll(lambda: _health(name) == "healthy", seconds=180, every=1.0):
        raise LabError(f"{container(name)} is {_health(name)}:\n{docker('logs', '--tail', '20', container(name))}")


def _health(name: str) -> str:
    return docker("inspect", "--format", "{{.State.Health.Status}}", container(name)).strip()


def remove(stack: Stack, name: str) -> None:
    """Stop a range and take away its content, its network, its secret and its user. Nothing is no error.

    With Redis down its list of users is written anew all the same: it is read at Redis's next start.
    """
    check_name(name)
    _remove_container(name)
    range_networks.remove(name)
    if (stack.data / "secrets").exists():
        _in_data_folder(stack, *PREPARE, "--forget", name)
    if stack.join or "redis" in stack.running():
        _tell_redis(stack, "ACL", "DELUSER", range_user(name))


def remove_all(stack: Stack) -> None:
    """Containers, content and networks of all ranges; secrets and our own Redis go with the data folder."""
    for name in names():
        _remove_container(name)
        range_networks.remove(name)
        if stack.join:
            _undo(partial(_tell_redis, stack, "ACL", "DELUSER", range_user(name)))


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


def _make_user(stack: Stack, name: str) -> None:
    """The range's secret, and a user in the running Redis that has it."""
    _in_data_folder(stack, *PREPARE, "--ranges", name)
    users = _in_data_folder(stack, "cat", "/data/redis/users.acl").splitlines()
    (line,) = (user for user in users if user.split()[1] == range_user(name))
    _tell_redis(stack, *set_user(line))


def _tell_redis(stack: Stack, *words: str) -> None:
    """Say `words` to Redis as its user `admin`, to CYROID's as the services' own. Raises LabError."""
    if stack.join:
        url = urlsplit(_in_data_folder(stack, "cat", "/data/secrets/services/redis_url").strip())
        user, password = url.username or "default", unquote(url.password or "")
    else:
        user, password = "admin", _in_data_folder(stack, "cat", "/data/secrets/admin/redis_password").strip()
    inside = ["exec", "--env", "REDISCLI_AUTH", range_networks.who(stack, "redis"), "redis-cli", "--user", user]
    answer = docker(*inside, *words, environment={**stack.environment, "REDISCLI_AUTH": password}).strip()
    if answer not in ("OK", "0", "1"):
        raise LabError(f"Redis did not take `{' '.join(words[:3])} …`: {answer}")


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
        stack = look_around(demo=False, need_images=options.verb == "add")
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
