"""`make up` and `make down`: start the stack with what Compose does not find out by itself, and stop it.

    python -m deploy.stack.up [--demo] [--join] [--mount] [--door ADDRESS | --bundle FILE]
                                                   start; with --demo two ranges as well, and an image deployed to both
    python -m deploy.stack.up --down [--purge]     stop; with --purge take away ranges, their content, and all data

What was found and chosen is written to `.env`, for bare `docker compose` and for the next of these commands.
With `--join` the stack stands on the network of a CYROID that runs here, and uses its Redis: STACK_REDIS_URL names it,
with user and password, the first time. With `--mount` ranges on containerd's image store are shown mounted layers.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from deploy.container.host_proxies import REDIS_PORT, REGISTRY_PORT
from deploy.machine.commands import MachineError
from deploy.stack import compose, hosts, mounted_layers
from deploy.stack.bridges import close_bridges
from deploy.stack.compose import Stack, inspect_machine
from deploy.stack.host_engine import engine_facts, engine_process, engine_socket
from deploy.stack.preflight import Outward, obstacles
from deploy.stack.ranges import PREPARE, remove_all, start_all, stop_all
from deploy.stack.show import deploy_to_both

#: What is published on loopback: the service, the variable that moves it, its usual port.
PORTS = {"api": ("STACK_API_PORT", 8070), "registry": ("STACK_REGISTRY_PORT", 5000)}
#: What the data folder holds; nothing else in it is ours to remove.
OURS = ("registry", "redis", "spool", "scratch", "engine", "layers", "secrets", "cache")


def up(stack: Stack, bundle: str | None = None) -> None:
    """Start everything and wait until it is healthy; ranges that were stopped start again. Raises MachineError.

    `bundle`: what the first host gave for this one.
    """
    check_hosts(stack)
    process = engine_process(engine_socket(stack.environment))
    running = stack.running()
    ports = wanted_ports(stack.environment, [*running, *(["registry"] if "link" in running else [])])
    found = obstacles(
        stack.data, engine_facts(), ports, outward=outward(stack, running), join=stack.join, process=process
    )
    if found:
        raise MachineError("\n".join(found))
    try:
        stack.data.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise MachineError(f"{stack.data} cannot be made ({problem.strerror}): set CYROID_DATA_DIR") from problem
    stack.remember()
    if stack.mount:
        mounted_layers.share(stack.data, process)
    if stack.join:
        _know_redis(stack)
    if stack.door:
        hosts.open_door(stack)
    if bundle is not None:
        hosts.keep(stack, bundle)
    try:
        stack.compose(
            "up", "--detach", "--remove-orphans", "--wait", "--wait-timeout", "300", "--no-build", seconds=420
        )
    except MachineError as problem:
        raise MachineError(
            f"{problem}\n{stack.compose('ps', '--all')}\n{stack.compose('logs', '--tail', '20')}"
        ) from problem
    if not stack.mount:
        _stop_mounter(stack)
    close_bridges(stack)
    start_all(stack)


def check_hosts(stack: Stack) -> None:
    """Raises MachineError for what one host cannot be together."""
    if stack.door and stack.further:
        raise MachineError("a further host has no Redis to let others in to: DOOR is for the first one")
    if stack.further and stack.mount:
        raise MachineError("layers are mounted from the registry's storage, which is on the first host: MOUNT=0")
    if stack.join and (stack.door or stack.further):
        raise MachineError("several hosts need our own Redis on the first one: without JOIN")


def outward(stack: Stack, running: Sequence[str]) -> Outward | None:
    """What other hosts are to reach here, if any are."""
    if stack.door:
        ports: tuple[int, ...] = () if "host-door" in running else (REDIS_PORT, REGISTRY_PORT)
        return Outward(stack.environment["STACK_DOOR_ADDRESS"], "DOOR", ports)
    if stack.archives:
        ports = () if "link" in running else (REGISTRY_PORT,)
        return Outward(stack.environment["STACK_ARCHIVES_ADDRESS"], "`hosts add --address` on the first host", ports)
    return None


def wanted_ports(environment: Mapping[str, str], running: Sequence[str]) -> dict[str, int]:
    """Variable → port of what is still to be published: what runs has its port already. Raises MachineError."""
    wanted = {}
    for service, (variable, usual) in PORTS.items():
        text = environment.get(variable, str(usual))
        if not text.isdecimal() or not 0 < int(text) < 65536:
            raise MachineError(f"{variable} is {text!r}: a number from 1 to 65535 is meant")
        if service not in running:
            wanted[variable] = int(text)
    return wanted


def _know_redis(stack: Stack) -> None:
    """Put the URL of CYROID's Redis where the services read it. Raises MachineError where nobody ever said it."""
    url = stack.environment.get("STACK_REDIS_URL")
    if url:
        words = [*PREPARE, "--prefix", stack.key_prefix, "--redis-url", "-"]
        stack.compose("run", "--rm", "--no-deps", "--no-TTY", "--interactive", "prepare", *words, stdin=f"{url}\n")
    elif not (stack.data / "secrets" / "services").exists():
        raise MachineError(
            "JOIN uses CYROID's Redis: say STACK_REDIS_URL=redis://USER:PASSWORD@172.30.0.12:6379/0 this first time"
        )


def addresses(stack: Stack) -> str:
    """What an operator wants to know next. Commands that work whether or not the machine's docker knows `compose`."""
    ports = {service: stack.environment.get(variable, usual) for service, (variable, usual) in PORTS.items()}
    api = f"http://127.0.0.1:{ports['api']}"
    log_book = f"docker exec cyroid-images-redis-1 redis-cli XRANGE {stack.key_prefix}:images - +"
    rows = [
        ("well?", f"{api}/readyz   (for Prometheus: {api}/metrics)"),
        ("page", f"{api}/   (log in with the token)"),
        ("token", f"$(cat {stack.data}/secrets/admin/api_token)"),
        ("statistics", f'curl -H "Authorization: Bearer TOKEN" {api}/api/v1/registry/stats'),
        ("registry", f"http://127.0.0.1:{ports['registry']}/v2/_catalog   (cyroid-registry:5000, 172.30.0.16:5000)"),
        ("data", str(stack.data)),
    ]
    commands = [
        *([] if stack.join or stack.further else [(log_book, "what happened to images")]),
        ("docker exec cyroid-images-api-1 cyroid-images ranges ls", "which ranges are there"),
        (
            "docker exec -i cyroid-images-ingest-1 cyroid-images images build - -t NAME",
            "a tar on its input; also import",
        ),
        ("docker exec cyroid-images-api-1 cyroid-images doctor", "what is wrong, and what to do"),
        *(
            [("docker logs --follow cyroid-images-link-1", "whether the first host is reached")]
            if stack.further
            else [("docker logs --follow cyroid-images-deployer-1", "what is being decided")]
        ),
        (".venv/bin/python -m deploy.stack.ranges add ID", "another range"),
        *([(".venv/bin/python -m deploy.stack.hosts add NAME FILE", "a further host")] if stack.door else []),
        ("make down", "stop; data and ranges stay (PURGE=1: they go)"),
    ]
    width = max(len(command) for command, _ in commands)
    lines = [f"  {name:<12}{text}" for name, text in rows]
    lines += ["", *(f"  {command:<{width}}   {text}" for command, text in commands)]
    return "".join(f"{line}\n" for line in lines)


def down(stack: Stack, *, purge: bool) -> str:
    """Stop everything, with `purge` take away ranges, volumes and data as well; says what is left."""
    if purge:
        remove_all()
        stack.compose("down", "--volumes", "--remove-orphans", "--timeout", "45")
        _unmount(stack)
        _remove_data(stack)
        compose.forget()
        return "nothing is left but images: `docker image rm` takes them away"
    stopped = stop_all()
    stack.compose("down", "--remove-orphans", "--timeout", "45")
    _unmount(stack)
    kept = f"; ranges stopped: {', '.join(stopped)}" if stopped else ""
    return f"data kept in {stack.data}{kept}; `make up` goes on with it, `make down PURGE=1` takes it away"


def _stop_mounter(stack: Stack) -> None:
    """Compose leaves a service running whose profile is not asked for any more."""
    with_it = dataclasses.replace(stack, mount=True)
    if "layer-mounter" in with_it.running():
        with_it.compose("rm", "--stop", "--force", "layer-mounter")


def _unmount(stack: Stack) -> None:
    """Mounted layers outlive the layer-mounter, for the ranges' sake; no range runs any more."""
    mounted_layers.unmount_all(stack.data, engine_process(engine_socket(stack.environment)))


def _remove_data(stack: Stack) -> None:
    for name in OURS:
        shutil.rmtree(stack.data / name, ignore_errors=True)
    left = [name for name in OURS if (stack.data / name).exists()]
    if left:
        raise MachineError(f"in {stack.data} these cannot be removed: {', '.join(left)}; run this as root")


def _read(file: Path | None) -> str | None:
    try:
        return None if file is None else file.read_text()
    except (OSError, UnicodeDecodeError) as problem:
        raise MachineError(f"{file} cannot be read: {problem}") from problem


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="deploy.stack.up", description="Start or stop the stack.")
    parser.add_argument("--demo", action="store_true", help="two ranges as well, and an image deployed to both")
    parser.add_argument(
        "--join",
        action=argparse.BooleanOptionalAction,
        help="on CYROID's network, with its Redis; kept until --no-join",
    )
    parser.add_argument(
        "--mount",
        action=argparse.BooleanOptionalAction,
        help="with the layer-mounter, for ranges on containerd's image store; kept until --no-mount",
    )
    parser.add_argument("--door", metavar="ADDRESS", help="let further hosts in at this address; kept until --door 0")
    parser.add_argument("--bundle", type=Path, metavar="FILE", help="be a further host, with what the first one gave")
    parser.add_argument("--down", action="store_true", help="stop instead")
    parser.add_argument("--purge", action="store_true", help="with --down: take away ranges and data too")
    options = parser.parse_args(arguments)
    if options.purge and not options.down:
        parser.error("--purge goes with --down")
    try:
        if options.down:
            stack = inspect_machine(demo=True, join=options.join, mount=True, need_images=False)
            sys.stderr.write(f"{down(stack, purge=options.purge)}\n")
        else:
            bundle = _read(options.bundle)
            host = "" if bundle is None else hosts.called(bundle)
            stack = inspect_machine(demo=options.demo, join=options.join, mount=options.mount, build=True, host=host)
            if options.door is not None:
                stack.environment["STACK_DOOR_ADDRESS"] = "" if options.door == "0" else options.door
            if bundle is not None:
                hosts.take_in(bundle, stack.environment)
            if stack.join and stack.demo:
                raise MachineError(
                    "the demo ranges need our own Redis: without DEMO, and then add ranges (ranges add ID)"
                )
            up(stack, bundle)
            if options.demo:
                deploy_to_both(stack)
            sys.stdout.write(addresses(stack))
    except MachineError as problem:
        sys.stderr.write(f"{problem}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
