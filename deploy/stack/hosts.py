"""Further hosts of an installation, asked of on the first one (docs/hosts.md).

    python -m deploy.stack.hosts add NAME FILE     a certificate, and all that the host has to know, in one file
    python -m deploy.stack.hosts rm NAME           let it in no longer
    python -m deploy.stack.hosts ls                those that are let in

The file is a secret: it has the host's key, and the passwords with which services log in to Redis. On the further host
`make up BUNDLE=FILE` takes it in. Adding a host once more renews its certificate.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from deploy.container.bundle import Bundle, read_bundle
from deploy.machine.commands import MachineError
from deploy.stack.certificates import DAYS, forget_host, make_door, make_host
from deploy.stack.compose import Stack, inspect_machine
from deploy.stack.ranges import PREPARE

#: In the secrets folder, what a further host needs of the first one.
SHARED = ("services/redis_url", "gateway/redis_url", "deployer/registry_pull_key")


def open_door(stack: Stack) -> None:
    """Renew the door's certificate; the authority's is made the first time. Raises MachineError."""
    try:
        make_door(stack.data / "secrets" / "hosts", [stack.environment["STACK_DOOR_ADDRESS"]])
    except OSError as problem:
        raise MachineError(f"the door's certificate cannot be written ({problem}): run this as root") from problem


def add(stack: Stack, name: str, file: Path) -> None:
    """Write the bundle of host `name`. Raises MachineError."""
    address = stack.environment.get("STACK_DOOR_ADDRESS")
    if not address:
        raise MachineError("this host lets no other in: `make up DOOR=ADDRESS` first, with its address for the others")
    vault = stack.data / "secrets"
    try:
        own = make_host(vault / "hosts", name)
        files = {f"link/{one}": (own / one).read_text() for one in ("own.pem", "ca.pem")}
        files |= {one: (vault / one).read_text() for one in SHARED}
        bundle = Bundle(first_host=address, key_prefix=stack.key_prefix, files=files)
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as output:
            output.write(bundle.text())
    except OSError as problem:
        raise MachineError(f"the bundle cannot be made ({problem}): run this as root") from problem
    _tell_the_door(stack)


def remove(stack: Stack, name: str) -> None:
    """Let it in no longer. One that is not there is no error."""
    forget_host(stack.data / "secrets" / "hosts", name)
    _tell_the_door(stack)


def names(stack: Stack) -> list[str]:
    """Those that are let in."""
    listed = stack.data / "secrets" / "hosts" / "door" / "hosts"
    return listed.read_text().split() if listed.exists() else []


def take_in(text: str, environment: dict[str, str]) -> None:
    """Put what a bundle says into the stack's variables. Raises MachineError for what is no bundle."""
    try:
        bundle = read_bundle(text)
    except ValueError as problem:
        raise MachineError(f"this is no bundle of `deploy.stack.hosts add`: {problem}") from problem
    environment |= {"STACK_FIRST_HOST": bundle.first_host, "STACK_KEY_PREFIX": bundle.key_prefix}


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
    verbs.add_parser("rm", help="let a host in no longer").add_argument("name", metavar="NAME")
    verbs.add_parser("ls", help="those that are let in")
    given = parser.parse_args(arguments)
    try:
        stack = inspect_machine(demo=False, need_images=False)
        if given.verb == "add":
            add(stack, given.name, given.file)
            sys.stdout.write(f"{given.file}: take it to {given.name}, there `make up BUNDLE=FILE`, then delete both\n")
        elif given.verb == "rm":
            remove(stack, given.name)
        else:
            sys.stdout.write("".join(f"{name}\n" for name in names(stack)))
    except MachineError as problem:
        sys.stderr.write(f"{problem}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
