"""Supervisor of an installation whose parts may be killed at any time: starts them again.

Every role is a process of its own. The supervisor does what Compose would: whatever has died is started again after
`RESTART_SECONDS`. It runs inside the main thread's waiting (`tend`), because a child ends with the thread that made it.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.killall.images import load_image
from deploy.lab import EngineServer, Lab, Server, Valve
from deploy.lab.server import free_port
from deploy.lab.system import System
from deploy.machine.commands import MachineError
from deploy.machine.polling import poll
from events.bus import Outcome
from events.envelope import Envelope, new_id
from events.messages import DeploymentRequested
from events.records import ANY
from events.redis.bus import RedisBus
from services.core.ranges.ranges import RangeKeys

RESTART_SECONDS = 0.7
ROLES = ("registry-pusher", "deployer", "tracker", "tar-server", "agent-pool")
DRIVEN = "driven"
"""The range that has no agent: the pool drives its engine."""
SETTLE_SECONDS = 60.0
_SETTINGS = {
    "lease_seconds": 3,
    "stall_seconds": 6,
    "push_wait_seconds": 15,
    "agent_grace_seconds": 30,
    "beat_seconds": 1,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Valves:
    """Relays that hold a transfer in its middle: into the registry, out of it, and out of the tar server.

    `heard` is from Redis to the api, `told` from the api to its clients.
    """

    push: Valve
    pull: Valve
    tar: Valve
    heard: Valve
    told: Valve

    def open(self) -> None:
        for valve in (self.push, self.pull, self.tar, self.heard, self.told):
            valve.open()


@dataclass(slots=True, kw_only=True)
class Supervisor:
    """The running installation. `victims` are its processes by the name of what they are.

    aim      the range that kills are aimed at
    resting  names of victims that are unavailable on purpose: nobody starts them
    died     how often a process ended that nobody had killed
    """

    system: System
    valves: Valves
    victims: dict[str, Server]
    others: list[Server]
    layer_bytes: int
    driven_url: str
    aim: str = "range-1"
    resting: set[str] = field(default_factory=set)
    died: Counter[str] = field(default_factory=Counter)
    _found_dead: dict[str, float] = field(default_factory=dict)
    _killed: set[str] = field(default_factory=set)
    _images: int = 0

    @property
    def host(self) -> EngineServer:
        return self.system.host

    @property
    def range(self) -> EngineServer:
        """The engine of the range that kills are aimed at."""
        return self.system.ranges[self.aim]

    # ---- dying and coming back ----

    def kill(self, victim: str) -> None:
        """As `kill -9`."""
        self._killed.add(self.victims[victim].name)
        self.victims[victim].kill()

    def rest(self, victim: str) -> None:
        """Stop it in good order; it stays away until `resting` is cleared."""
        self.resting.add(victim)
        self._killed.add(self.victims[victim].name)
        self.victims[victim].stop()

    def tend(self) -> None:
        """Start again what has been dead for long enough. Called while waiting for anything."""
        resting = {self.victims[name].name for name in self.resting}
        for server in (*self.victims.values(), *self.others):
            if server.running or server.name in resting:
                continue
            found = self._found_dead.setdefault(server.name, time.monotonic())
            if time.monotonic() - found >= RESTART_SECONDS:
                del self._found_dead[server.name]
                if server.name not in self._killed:
                    self.died[server.name] += 1
                self._killed.discard(server.name)
                server.launch()

    def wait(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Whether it became true in time; the supervisor works meanwhile."""

        def tended() -> bool:
            self.tend()
            return condition()

        return poll(tended, seconds=seconds, every=0.005)

    def settle(self) -> None:
        """Wait until everything is up again. Raises MachineError with the log of what is not."""
        servers = [*self.victims.values(), *self.others]
        if not self.wait(lambda: all(one.running and one.answers() for one in servers), SETTLE_SECONDS):
            down = [one for one in servers if not (one.running and one.answers())]
            raise MachineError("\n".join(f"{one.name} does not come back:\n{one.log_tail()}" for one in down))

    # ---- images and deployments ----

    def build(self) -> str:
        """A new image on the host's engine, of which no range has the large layer."""
        self._images += 1
        name = f"kills/image:{self._images}"
        load_image(self.host, self.system.lab.folder, name, self.layer_bytes)
        return name

    def wanted(self) -> dict[str, str]:
        """Range id by new deployment id: each range that has an agent, or the one that has none if that is aimed at."""
        ranges = [range_id for range_id in self.system.ranges if range_id != DRIVEN]
        return {new_id(): range_id for range_id in ([DRIVEN] if self.aim == DRIVEN else ranges)}

    def request(self, wanted: dict[str, str], image: str) -> None:
        """Ask for them on the stream."""
        asyncio.run(self._publish(wanted, image))

    async def _publish(self, wanted: dict[str, str], image: str) -> None:
        requests = [
            Envelope(
                message=DeploymentRequested(
                    deployment_id=deployment_id,
                    range_id=range_id,
                    images=(image,),
                    engine_url=self.driven_url if range_id == DRIVEN else None,
                ),
                source="bench",
                subject=range_id,
            )
            for deployment_id, range_id in wanted.items()
        ]
        streams = self.system.streams
        async with asyncio.timeout(20), RedisBus.open(self.system.redis.url, streams=streams) as bus:
            await bus.publish(streams.deployments, *requests)

    def unwant(self) -> None:
        """Forget what was deployed to the ranges so far: what is removed now is not deployed again."""
        asyncio.run(self._unwant())

    async def _unwant(self) -> None:
        keys = RangeKeys(self.system.prefix)
        writes = tuple(keys.wanted(range_id).delete(expected=ANY) for range_id in self.system.ranges)
        async with asyncio.timeout(20), RedisBus.open(self.system.redis.url, streams=self.system.streams) as bus:
            await bus.commit(Outcome(records=writes))

    # ---- looking from outside ----

    def unfinished(self) -> set[str]:
        """Layers that the range's engine has begun and not finished; what a kill left stays there for ever."""
        return {found.name for found in (self.range.root / "image/overlay2/layerdb/tmp").glob("write-set-*")}

    def open_uploads(self) -> int:
        """Uploads that the registry still has open; it purges them by their age."""
        repositories = self.system.registry.storage / "docker/registry/v2/repositories"
        return sum(1 for _ in repositories.glob("**/_uploads/*"))

    def spools(self) -> int:
        folder = Path(str(self.system.all_settings()["spool_folder"]))
        return sum(1 for _ in folder.glob("*"))


@contextmanager
def supervised(lab: Lab, *, ranges: int, layer_bytes: int, appendfsync: str) -> Iterator[Supervisor]:
    """Start all of it; `lab` ends it."""
    redis = lab.redis(appendfsync=appendfsync)
    registry = lab.registry()
    host = lab.engine("host")
    engines = {f"range-{number}": lab.engine(f"range-{number}") for number in range(1, ranges + 1)}
    driven_url = f"tcp://127.0.0.1:{free_port()}"
    engines[DRIVEN] = lab.engine(DRIVEN, options=["--host", driven_url])
    system = System(lab=lab, redis=redis, registry=registry, host=host, ranges=engines, settings=_SETTINGS)
    with (
        Valve(registry.port, uploads=True) as push,
        Valve(registry.port) as pull,
        Valve(system.tar_port) as tar,
        Valve(redis.port) as heard,
        Valve(system.api_port) as told,
    ):
        settings = {
            **_SETTINGS,
            "registry_url": f"http://{push.address}",
            "registry_address": pull.address,
            "tar_url": f"http://{tar.address}",
        }
        system = replace(system, settings=settings)
        relayed = replace(system, settings={**settings, "redis_url": f"redis://{heard.address}/0"})
        roles: dict[str, Server] = {role: system.services(role, name=role) for role in ROLES}
        agents = {range_id: system.agent(range_id) for range_id in engines if range_id != DRIVEN}
        victims: dict[str, Server] = {
            "redis": redis,
            "registry": registry,
            "host-engine": host,
            "range-engine": engines["range-1"],
            "agent": agents["range-1"],
            "api": relayed.services("api", name="api"),
            **roles,
        }
        known = {server.name for server in victims.values()}
        others = [server for server in (*engines.values(), *agents.values()) if server.name not in known]
        yield Supervisor(
            system=system,
            valves=Valves(push=push, pull=pull, tar=tar, heard=heard, told=told),
            victims=victims,
            others=others,
            layer_bytes=layer_bytes,
            driven_url=driven_url,
        )
