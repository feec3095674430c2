"""Further hosts of an installation, asked of on the first one (docs/hosts.md).

    python -m deploy.stack.hosts add NAME FILE [--address ADDRESS]
                                                   a certificate, and all that the host has to know, in one file
    python -m deploy.stack.hosts rm NAME           let it in no longer
    python -m deploy.stack.hosts ls                those that are let in

The file is a secret: it has the host's key, and the passwords with which services log in to Redis. On the further host
`make up BUNDLE=FILE` takes it in. Adding a host once more renews its certificate. ADDRESS is that of the further host:
with it ranges of other hosts get archives of what only its engine has; what was given once stays until `--address 0`.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from deploy.container.bundle import Bundle, read_bundle
from deploy.container.host_proxies import FIRST_TAR_NAME
from deploy.machine.commands import MachineError
from deploy.stack.certificates import DAYS, address_of, forget_host, make_door, make_host, note_address
from deploy.stack.compose import Stack, inspect_machine
from deploy.stack.ranges import PREPARE

#: What a range calls the tar server of its own host.
OWN_TAR_NAME = "cyroid-tar:7070"
REMOVED = """\
{name} is let in no longer. There, `make down PURGE=1` takes the stack away with its ranges.
Out of the lists, in `docker exec cyroid-images-api-1 cyroid-images …`: `hosts forget {name}` (its id in `hosts ls`),
and `ranges forget ID` for each of its ranges.
It knows the passwords of the services in Redis, and the key of pull tokens (docs/hosts.md).
"""
#: In the secrets folder, what a further host needs of the first one.
SHARED = ("services/redis_url", "gateway/redis_url", "deployer/registry_pull_key")


def open_door(stack: Stack) -> None:
    """Renew the door's certificate; the authority's is made the first time. Raises MachineError."""
    try:
        make_door(stack.data / "secrets" / "hosts", [stack.environment["STACK_DOOR_ADDRESS"]])
    except OSError as problem:
        raise MachineError(f"the door's certificate cannot be written ({problem}): run this as root") from problem


def add(stack: Stack, name: str, file: Path, *, address: str | None = None) -> None:
    """Write the bundle of host `name`. Raises MachineError.

    `address` is where the door asks it for archives; None: as before, "0": nowhere.
    """
    first = stack.environment.get("STACK_DOOR_ADDRESS")
    if not first:
        raise MachineError("this host lets no other in: `make up DOOR=ADDRESS` first, with its address for the others")
    if name == stack.environment.get("STACK_HOST_ID"):
        raise MachineError(f"{name} is this host: call the further one something else")
    vault = stack.data / "secrets"
    given = None if address is None else _checked(address)
    try:
        own = make_host(vault / "hosts", name)
        if given is not None:
            note_address(vault / "hosts", name, given)
        files = {f"link/{one}": (own / one).read_text() for one in ("own.pem", "ca.pem", "server.pem")}
        files |= {one: (vault / one).read_text() for one in SHARED}
        bundle = Bundle(
            first_host=first,
            key_prefix=stack.key_prefix,
            files=files,
            name=name,
            address=address_of(vault / "hosts", name),
        )
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as output:
            output.write(bundle.text())
    except OSError as problem:
        raise MachineError(f"the bundle cannot be made ({problem}): run this as root") from problem
    _tell_the_door(stack)


def added(stack: Stack, name: str, file: Path) -> str:
    """What there is to do next."""
    lines = [f"{file}: take it to {name}, there `make up BUNDLE=FILE`, then delete both; it is a secret"]
    if not address_of(stack.data / "secrets" / "hosts", name):
        lines.append(f"without --address, archives of what only {name}'s engine has reach its own ranges alone")
    return "".join(f"{line}\n" for line in lines)


def remove(stack: Stack, name: str) -> None:
    """Let it in no longer. One that is not there is no error."""
    forget_host(stack.data / "secrets" / "hosts", name)
    _tell_the_door(stack)


def names(stack: Stack) -> list[str]:
    """Those that are let in."""
    listed = stack.data / "secrets" / "hosts" / "door" / "hosts"
    return listed.read_text().split() if listed.exists() else []


def called(text: str) -> str:
    """What the first host calls the one that a bundle is for: its host id, if it has none yet. Raises MachineError."""
    return _bundle(text).name


def _bundle(text: str) -> Bundle:
    try:
        return read_bundle(text)
    except ValueError as problem:
        raise MachineError(f"this is no bundle of `deploy.stack.hosts add`: {problem}") from problem


def take_in(text: str, environment: dict[str, str]) -> None:
    """Put what a bundle says into the stack's variables. Raises MachineError for what is no bundle."""
    bundle = _bundle(text)
    environment |= {"STACK_FIRST_HOST": bundle.first_host, "STACK_KEY_PREFIX": bundle.key_prefix}
    environment["STACK_ARCHIVES_ADDRESS"] = bundle.address
    # Without an address a range of another host asks its own host's tar server, which at least reads the registry.
    reached = f"{FIRST_TAR_NAME}:7070/hosts/{bundle.name}" if bundle.name and bundle.address else OWN_TAR_NAME
    environment["STACK_TAR_URL"] = f"http://{reached}"


def _checked(address: str) -> str:
    """As the engine publishes ports: an IP address; empty for 0. Raises MachineError."""
    try:
        return "" if address == "0" else str(ipaddress.ip_address(address))
    except ValueError as problem:
        raise MachineError(
            f"{address!r} is no IP address: one of the further host is meant, or 0 for none"
        ) from problem


def keep(stack: Stack, text: str) -> None:
    """Put the secrets of a bundle into the data folder. Raises MachineError."""
    words = [*PREPARE, "--prefix", stack.key_prefix, "--bundle", "-"]
    stack.compose("run", "--rm", "--no-deps", "--no-TTY", "--interactive", "prepare", *words, stdin=f"{text.strip()}\n")


def _tell_the_door(stack: Stack) -> None:
    """Its list gets its owner, and it reads it."""
    stack.compose("run", "--rm", "--no-deps", "prepare", *PREPARE, "--prefix", stack.key_prefix)
    stack.compose("restart", "host-door")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="deploy.stack.hosts", description="Further hosts of this installation.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    adding = verbs.add_parser("add", help=f"write what a further host needs; its certificate is good for {DAYS} days")
    adding.add_argument("name", metavar="NAME")
    adding.add_argument("file", metavar="FILE", type=Path)
    adding.add_argument("--address", help="of that host: other hosts' ranges then get archives from it; 0 for none")
    verbs.add_parser("rm", help="let a host in no longer").add_argument("name", metavar="NAME")
    verbs.add_parser("ls", help="those that are let in")
    given = parser.parse_args(arguments)
    try:
        stack = inspect_machine(demo=False, need_images=False)
        if given.verb == "add":
            add(stack, given.name, given.file, address=given.address)
            sys.stdout.write(added(stack, given.name, given.file))
        elif given.verb == "rm":
            remove(stack, given.name)
            sys.stdout.write(REMOVED.format(name=given.name))
        else:
            sys.stdout.write("".join(f"{name}\n" for name in names(stack)))
    except MachineError as problem:
        sys.stderr.write(f"{problem}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
