"""Chapter 1: everything starts, as child processes in one folder, on loopback."""

from __future__ import annotations

import time
from pathlib import Path

from deploy.demo.show import Show
from deploy.lab import Lab
from deploy.lab.engine_server import engine_answers
from deploy.lab.server import Server
from deploy.lab.system import System
from deploy.machine.commands import MachineError
from deploy.machine.polling import poll

RANGES = ("range-1", "range-2")
USUAL_ENGINE = Path("/var/run/docker.sock")


class Roll:
    """The servers that were started, for the table."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str, str, str]] = []
        self._since = time.monotonic()

    def add(self, server: Server, what: str, where: str) -> None:
        """Note that `server` is up; it took the time since the one before."""
        now = time.monotonic()
        self.rows.append((server.name, what, where, f"{now - self._since:.1f}"))
        self._since = now


def start(lab: Lab, show: Show) -> System:
    """Start everything, in the order of dependencies, and show the addresses."""
    show.step("1", "Redis, a registry, three engines, the services and two agents start")
    if engine_answers(USUAL_ENGINE):
        show.say(f"[yellow]An engine answers at {USUAL_ENGINE}: it is left alone, the engines here are others.[/]")
    roll = Roll()
    with show.busy("starting"):
        redis, registry = lab.redis(), lab.registry()
        roll.add(redis, "Redis", redis.url)
        roll.add(registry, "registry", registry.url)
        engines = {}
        for name in ("host", *RANGES):
            engines[name] = lab.engine(name)
            roll.add(engines[name], f"Docker engine {engines[name].version()}", f"{name}/docker.sock")
        host = engines.pop("host")
        system = System(lab=lab, redis=redis, registry=registry, host=host, ranges=engines)
        roll.add(system.services(), "cyroid-images serve all", system.api_url)
        agents = {range_id: system.agent(range_id) for range_id in RANGES}
        with system.logbook() as book:
            for range_id, agent in agents.items():
                if not poll(lambda at=range_id: book.alive(at) is not None, seconds=20):  # type: ignore[misc]
                    raise MachineError(f"the agent of {range_id} does not announce itself:\n{agent.log_tail()}")
                roll.add(agent, "cyroid-images serve agent", f"for {engines[range_id].name}")
    show.table(("NAME", "WHAT", "WHERE", "SECONDS"), roll.rows, right=(3,))
    return system
