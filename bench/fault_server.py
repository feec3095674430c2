"""Faults of the server, while a story is being told on it. Each has a server of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import redis.asyncio as redis

from bench.fault_proxy import Proxy
from bench.fault_story import LEASE_SECONDS, TIMEOUT_SECONDS, Journal, envelopes, extra_runs, insist, subscription
from bench.fault_story import verdict as judge
from bench.fault_wire import Told
from deploy.lab import Lab, RedisServer
from events.redis_bus import RedisBus
from events.streams import Streams
from events.task_group import TaskGroup
from events.worker import Worker

#: When in the story the fault strikes, in seconds.
MOMENTS = (0.0, 0.15, 0.5, 1.2)


@dataclass
class Stage:
    """What a fault may touch."""

    lab: Lab
    server: RedisServer
    proxy: Proxy
    name: str

    async def ask(self, *words: str) -> Any:
        async with redis.Redis(
            host="127.0.0.1", port=self.server.port, protocol=2, legacy_responses=False, socket_timeout=5
        ) as client:
            client.response_callbacks.clear()  # replies as they come
            return await client.execute_command(*words)  # type: ignore[no-untyped-call]


async def killed(stage: Stage) -> None:
    """SIGKILL, and a restart from the append-only file."""
    await asyncio.to_thread(stage.server.kill)
    await asyncio.sleep(0.4)
    stage.server.start()


async def stopped(stage: Stage) -> None:
    """A clean stop and a restart, longer than a lease."""
    await asyncio.to_thread(stage.server.stop)
    await asyncio.sleep(1.3 * LEASE_SECONDS)
    stage.server.start()


async def paused(stage: Stage) -> None:
    """Frozen for longer than a lease: sockets open, no answers, then all of them."""
    stage.server.pause()
    await asyncio.sleep(1.5 * LEASE_SECONDS)
    stage.server.resume()


async def flushed(stage: Stage) -> None:
    """FLUSHALL: streams, groups, leases, markers, all gone."""
    await stage.ask("FLUSHALL")


async def scripts_flushed(stage: Stage) -> None:
    """SCRIPT FLUSH."""
    await stage.ask("SCRIPT", "FLUSH")


async def out_of_memory(stage: Stage) -> None:
    """Every write that needs memory is refused for a while."""
    await stage.ask("CONFIG", "SET", "maxmemory", "1")
    await asyncio.sleep(0.8 * LEASE_SECONDS)
    await stage.ask("CONFIG", "SET", "maxmemory", "0")


async def read_only(stage: Stage) -> None:
    """The master becomes a replica of nobody's, then a master again."""
    await stage.ask("CONFIG", "SET", "replica-serve-stale-data", "yes")
    await stage.ask("REPLICAOF", "127.0.0.1", "1")
    await asyncio.sleep(0.8 * LEASE_SECONDS)
    await stage.ask("REPLICAOF", "NO", "ONE")


async def disconnected(stage: Stage) -> None:
    """Every client is thrown out."""
    await stage.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


async def blocked(stage: Stage) -> None:
    """CLIENT PAUSE: commands wait, then go through, late."""
    await stage.ask("CLIENT", "PAUSE", str(round(1200 * LEASE_SECONDS)), "ALL")


async def _until_info(stage: Stage, wanted: bytes) -> None:
    async with asyncio.timeout(40):
        while True:
            if wanted in await stage.ask("INFO", "replication"):
                return
            await asyncio.sleep(0.03)


async def failed_over(stage: Stage) -> None:
    """A replica takes over (FAILOVER, so nothing acknowledged is missing there); clients are led to it late."""
    replica = await asyncio.to_thread(stage.lab.redis, f"{stage.name}-replica")
    follower = Stage(stage.lab, replica, stage.proxy, stage.name)
    await follower.ask("REPLICAOF", "127.0.0.1", str(stage.server.port))
    await _until_info(follower, b"master_link_status:up")
    await _until_info(stage, b"state=online")  # the master knows a moment later than the replica
    await stage.ask("FAILOVER", "TO", "127.0.0.1", str(replica.port))
    await _until_info(follower, b"role:master")
    await asyncio.sleep(0.3)  # the old one answers READONLY meanwhile
    stage.proxy.upstream = ("127.0.0.1", replica.port)
    await stage.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


FAULTS: tuple[Callable[[Stage], Awaitable[None]], ...] = (
    killed,
    stopped,
    paused,
    flushed,
    scripts_flushed,
    out_of_memory,
    read_only,
    disconnected,
    blocked,
    failed_over,
)


async def tell_all(lab: Lab, number: int, *, faults: Any = FAULTS, moments: tuple[float, ...] = MOMENTS) -> list[Told]:
    """Every fault at every moment."""
    from bench.faults import run_all

    def case(fault: Callable[[Stage], Awaitable[None]], moment: float) -> Callable[[str], Awaitable[Told]]:
        return lambda prefix: tell(lab, prefix, fault, moment)

    cases = [(f"{fault.__name__} at {moment}", case(fault, moment)) for fault in faults for moment in moments]
    return await run_all(f"server, round {number + 1}", cases, 4)


async def tell(lab: Lab, prefix: str, fault: Callable[[Stage], Awaitable[None]], moment: float) -> Told:
    """The story, told by two workers; the fault strikes after `moment` seconds."""
    name = f"redis-{prefix}".replace(":", "-").replace(",", "-")
    server = lab.redis(name, repl_diskless_sync_delay="0")
    streams, journal, story = Streams(prefix), Journal(), envelopes()
    proxy = Proxy(("127.0.0.1", server.port))
    stage = Stage(lab, server, proxy, name)
    async with proxy.running(), RedisBus.open(proxy.url, timeout_seconds=TIMEOUT_SECONDS) as bus:
        workers = [Worker(bus, subscription(bus, streams, journal.begin), name=name) for name in ("one", "two")]
        async with TaskGroup() as tasks:
            running = [tasks.create_task(worker.run()) for worker in workers]
            await insist(bus, streams.images, story)
            await asyncio.sleep(moment)
            await fault(stage)
            await insist(bus, streams.images, story)
            found = await judge(bus, streams)
            for worker in workers:
                await worker.drain(0.5)
            await asyncio.gather(*running)
    await asyncio.to_thread(server.stop)
    return Told(fault.__name__, True, found, extra_runs(journal.began), [], [])
