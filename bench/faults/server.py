"""Faults of the Redis server while a workload runs on it. Each has a server of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import redis.asyncio as redis

from bench.faults.proxy import Proxy
from bench.faults.trials import FaultResult, run_all
from bench.faults.workload import (
    LEASE_SECONDS,
    TIMEOUT_SECONDS,
    Journal,
    envelopes,
    extra_runs,
    insist,
    settle,
    subscription,
)
from deploy.lab import Lab, RedisServer
from events.redis.bus import RedisBus
from events.streams import Streams
from events.task_group import TaskGroup
from events.worker.worker import Worker

#: When in the workload the fault strikes, in seconds.
MOMENTS = (0.0, 0.15, 0.5, 1.2)


@dataclass
class FaultyServer:
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


async def killed(faulty: FaultyServer) -> None:
    """SIGKILL, and a restart from the append-only file."""
    await asyncio.to_thread(faulty.server.kill)
    await asyncio.sleep(0.4)
    faulty.server.start()


async def stopped(faulty: FaultyServer) -> None:
    """A clean stop and a restart, longer than a lease."""
    await asyncio.to_thread(faulty.server.stop)
    await asyncio.sleep(1.3 * LEASE_SECONDS)
    faulty.server.start()


async def paused(faulty: FaultyServer) -> None:
    """Frozen for longer than a lease: sockets open, no answers, then all of them."""
    faulty.server.pause()
    await asyncio.sleep(1.5 * LEASE_SECONDS)
    faulty.server.resume()


async def flushed(faulty: FaultyServer) -> None:
    """FLUSHALL: streams, groups, leases, markers, all gone."""
    await faulty.ask("FLUSHALL")


async def scripts_flushed(faulty: FaultyServer) -> None:
    """SCRIPT FLUSH."""
    await faulty.ask("SCRIPT", "FLUSH")


async def out_of_memory(faulty: FaultyServer) -> None:
    """Every write that needs memory is refused for a while."""
    await faulty.ask("CONFIG", "SET", "maxmemory", "1")
    await asyncio.sleep(0.8 * LEASE_SECONDS)
    await faulty.ask("CONFIG", "SET", "maxmemory", "0")


async def read_only(faulty: FaultyServer) -> None:
    """The master becomes a replica of nobody's, then a master again."""
    await faulty.ask("CONFIG", "SET", "replica-serve-stale-data", "yes")
    await faulty.ask("REPLICAOF", "127.0.0.1", "1")
    await asyncio.sleep(0.8 * LEASE_SECONDS)
    await faulty.ask("REPLICAOF", "NO", "ONE")


async def disconnected(faulty: FaultyServer) -> None:
    """Every client is thrown out."""
    await faulty.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


async def blocked(faulty: FaultyServer) -> None:
    """CLIENT PAUSE: commands wait, then go through, late."""
    await faulty.ask("CLIENT", "PAUSE", str(round(1200 * LEASE_SECONDS)), "ALL")


async def _until_info(faulty: FaultyServer, wanted: bytes) -> None:
    async with asyncio.timeout(40):
        while True:
            if wanted in await faulty.ask("INFO", "replication"):
                return
            await asyncio.sleep(0.03)


async def failed_over(faulty: FaultyServer) -> None:
    """A replica takes over (FAILOVER, so nothing acknowledged is missing there); clients are led to it late."""
    replica = await asyncio.to_thread(faulty.lab.redis, f"{faulty.name}-replica")
    follower = FaultyServer(faulty.lab, replica, faulty.proxy, faulty.name)
    await follower.ask("REPLICAOF", "127.0.0.1", str(faulty.server.port))
    await _until_info(follower, b"master_link_status:up")
    await _until_info(faulty, b"state=online")  # the master knows a moment later than the replica
    await faulty.ask("FAILOVER", "TO", "127.0.0.1", str(replica.port))
    await _until_info(follower, b"role:master")
    await asyncio.sleep(0.3)  # the old one answers READONLY meanwhile
    faulty.proxy.upstream = ("127.0.0.1", replica.port)
    await faulty.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


FAULTS: tuple[Callable[[FaultyServer], Awaitable[None]], ...] = (
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


async def run_trials(
    lab: Lab, number: int, *, faults: Any = FAULTS, moments: tuple[float, ...] = MOMENTS
) -> list[FaultResult]:
    """Every fault at every moment."""

    def case(
        fault: Callable[[FaultyServer], Awaitable[None]], moment: float
    ) -> Callable[[str], Awaitable[FaultResult]]:
        return lambda prefix: run_trial(lab, prefix, fault, moment)

    cases = [(f"{fault.__name__} at {moment}", case(fault, moment)) for fault in faults for moment in moments]
    return await run_all(f"server, round {number + 1}", cases, 4)


async def run_trial(
    lab: Lab, prefix: str, fault: Callable[[FaultyServer], Awaitable[None]], moment: float
) -> FaultResult:
    """Run the workload on two workers; the fault strikes after `moment` seconds."""
    name = f"redis-{prefix}".replace(":", "-").replace(",", "-")
    server = lab.redis(name, repl_diskless_sync_delay="0")
    streams, journal, entries = Streams(prefix), Journal(), envelopes()
    proxy = Proxy(("127.0.0.1", server.port))
    faulty = FaultyServer(lab, server, proxy, name)
    async with proxy.running(), RedisBus.open(proxy.url, timeout_seconds=TIMEOUT_SECONDS) as bus:
        workers = [Worker(bus, subscription(bus, streams, journal.begin), name=name) for name in ("one", "two")]
        async with TaskGroup() as tasks:
            running = [tasks.create_task(worker.run()) for worker in workers]
            await insist(bus, streams.images, entries)
            await asyncio.sleep(moment)
            await fault(faulty)
            await insist(bus, streams.images, entries)
            found = await settle(bus, streams)
            for worker in workers:
                await worker.drain(0.5)
            await asyncio.gather(*running)
    await asyncio.to_thread(server.stop)
    return FaultResult(fault.__name__, True, found, extra_runs(journal.began), [], [])
