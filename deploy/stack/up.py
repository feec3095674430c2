"""`make up` and `make down`: starts the stack with what Compose does not find out by itself, and takes it down.

python -m deploy.stack.up [--demo]             start; with --demo two ranges as well
python -m deploy.stack.up --down [--purge]     stop; with --purge remove the data folder's content too
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence

from deploy.lab.commands import LabError
from deploy.stack.compose import Stack, look_around
from deploy.stack.nested import engine_facts
from deploy.stack.preflight import obstacles
from deploy.stack.ranges import attach_all, remove_all

#: What is published on loopback, by the variable that moves it.
PORTS = {"STACK_API_PORT": "8070", "STACK_REGISTRY_PORT": "5000"}
#: What the data folder holds; nothing else in it is ours to remove.
OURS = ("registry", "redis", "spool", "secrets")


def up(stack: Stack) -> None:
    """Start everything and wait until it is healthy; the ranges added by hand find their way again."""
    ports = {name: int(stack.environment.get(name, port)) for name, port in PORTS.items()}
    if stack.running() or stack.environment["STACK_ENGINE_SOCKET"] != "/var/run/docker.sock":
        ports = {}  # they are ours already, or those of an engine that may have a network of its own
    found = obstacles(stack.data, engine_facts(), ports)
    if found:
        raise LabError("\n".join(found))
    try:
        stack.compose(
            "up", "--detach", "--remove-orphans", "--wait", "--wait-timeout", "300", "--no-build", seconds=420
        )
    except LabError as problem:
        raise LabError(
            f"{problem}\n{stack.compose('ps', '--all')}\n{stack.compose('logs', '--tail', '20')}"
        ) from problem
    attach_all(stack)


def _unwell(stack: Stack) -> str:
    """What those services said last that are not as they should be."""
    lines = stack.compose("ps", "--all", "--format", "{{.Service}} {{.State}} {{.Health}}").splitlines()
    bad = [line.split()[0] for line in lines if "unhealthy" in line or "restarting" in line or " running" not in line]
    said = [stack.compose("logs", "--no-log-prefix", "--tail", "10", name) for name in bad if name != "prepare"]
    return "\n".join([*lines, *said])


def addresses(stack: Stack) -> str:
    """What an operator wants to know next."""
    api, registry = (stack.environment.get(name, port) for name, port in PORTS.items())
    return f"""\
  API and page    http://127.0.0.1:{api}/
  registry        http://127.0.0.1:{registry}/v2/_catalog   (cyroid-registry:5000, 172.30.0.16:5000)
  data            {stack.data}

  docker compose exec redis redis-cli XRANGE cyroid:images - +     what happened to images
  docker compose exec api cyroid-images ranges ls                  which ranges are there
  docker compose logs --follow deployer                            what is being decided
  make down                                                        stop; the data stays
"""


def down(stack: Stack, *, purge: bool) -> None:
    """Stop and remove containers, networks and volumes; with `purge` the data as well."""
    remove_all(stack)
    stack.compose("down", "--volumes", "--remove-orphans", "--timeout", "45")
    if purge:
        for name in OURS:
            shutil.rmtree(stack.data / name, ignore_errors=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="deploy.stack.up", description="Start or stop the stack.")
    parser.add_argument("--demo", action="store_true", help="two ranges as well")
    parser.add_argument("--down", action="store_true", help="stop instead")
    parser.add_argument("--purge", action="store_true", help="with --down: remove the data too")
    options = parser.parse_args(arguments)
    try:
        stack = look_around(demo=options.demo or options.down, need_images=not options.down)
        if options.down:
            down(stack, purge=options.purge)
        else:
            up(stack)
            sys.stdout.write(addresses(stack))
    except LabError as problem:
        sys.stderr.write(f"{problem}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
