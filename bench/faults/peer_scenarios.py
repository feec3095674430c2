"""One run of one library's workload under one fault."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import redis.asyncio as redis

from bench.faults.peer_worker import Crew, Library
from bench.faults.peers.workload import JOB_SECONDS, SUBJECTS
from bench.faults.proxy import Fault, Proxy
from deploy.lab import Lab, RedisServer

#: What strikes, in the order of the table.
FAULTS = (
    "handler_raises",
    "job_outlives_lease",
    "sigkill",
    "sigstop",
    "sigterm",
    "reply_of_read_lost",
    "reply_of_finish_lost",
    "redis_killed",
    "redis_full",
    "clients_thrown_out",
    "script_flush",
    "flushall",
)
_TIMED = frozenset(FAULTS) - {"handler_raises", "job_outlives_lease", "reply_of_read_lost", "reply_of_finish_lost"}
START_SECONDS = 120.0
#: An entry without its effect so long after the fault is lost: six times what any library should need.
LOST_SECONDS = 25.0
#: Writes are refused for so long: over the end of the long job, so that its acknowledgement meets it.
FULL_SECONDS = JOB_SECONDS


@dataclass
class Peer:
    """The result of one run."""

    library: str
    fault: str
    struck: bool
    lost: int
    duplicate_effects: int
    duplicate_runs: int
    workers_ended: int
    takeover_seconds: float | None


async def run_scenario(lab: Lab, library: Library, fault: str, number: int, lease_seconds: float) -> Peer:
    """`lease_seconds` is what `job_outlives_lease` sets for every library."""
    name = f"{library.name}-{fault}-{number}"
    server = await asyncio.to_thread(lab.redis, name)
    folder = lab.folder / f"peer-{name}"
    folder.mkdir()
    harm = {
        "reply_of_read_lost": Fault("", marker=b"quick-1"),
        "reply_of_finish_lost": Fault(library.finish, kind="cut_after"),
    }.get(fault)
    proxy = Proxy(("127.0.0.1", server.port), harm)
    lease = lease_seconds if fault == "job_outlives_lease" else library.lease_seconds
    async with proxy.running(), Crew(library, proxy.url, server.url, lease, folder) as crew:
        async with asyncio.timeout(START_SECONDS):
            await crew.start("one", "two")
            await crew.publish()
        struck_at = await _strike(fault, crew, server, lease)
        ends = await _effects_in_time(server)
        await asyncio.sleep(JOB_SECONDS + 1)  # what runs a second time gets its chance to do harm
        ends = await _effects(server)
    await asyncio.to_thread(server.stop)
    result = _judge(library.name, fault, crew, ends, struck_at)
    return replace(result, struck=harm.injected.is_set()) if harm else result


async def _strike(fault: str, crew: Crew, server: RedisServer, lease: float) -> float | None:
    """Do it while the long job runs; when, or None where the fault is not a matter of time."""
    if fault not in _TIMED:
        return None
    async with asyncio.timeout(START_SECONDS):
        victim = await crew.who_began("long")
    await asyncio.sleep(0.2)
    struck_at = time.time()
    match fault:
        case "sigkill":
            victim.strike(signal.SIGKILL)
        case "sigterm":
            victim.strike(signal.SIGTERM)
        case "sigstop":
            victim.send(signal.SIGSTOP)
            await asyncio.sleep(2 * lease)
            victim.send(signal.SIGCONT)
        case "redis_killed":
            await asyncio.to_thread(server.kill)
            await asyncio.sleep(0.4)
            await asyncio.to_thread(server.start)
        case "redis_full":
            await _ask(server, "CONFIG", "SET", "maxmemory", "1")
            await asyncio.sleep(FULL_SECONDS)
            await _ask(server, "CONFIG", "SET", "maxmemory", "0")
        case "clients_thrown_out":
            await _ask(server, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        case "script_flush":
            await _ask(server, "SCRIPT", "FLUSH")
        case "flushall":
            await _ask(server, "FLUSHALL")
            await crew.publish()  # whoever wanted the work says so again, as ours does
    return struck_at


async def _ask(server: RedisServer, *words: str) -> None:
    async with redis.Redis(port=server.port, protocol=2, legacy_responses=False, socket_timeout=5) as client:
        client.response_callbacks.clear()
        await client.execute_command(*words)  # type: ignore[no-untyped-call]


async def _effects(server: RedisServer) -> Counter[str]:
    async with redis.Redis(port=server.port, protocol=2, legacy_responses=False, socket_timeout=5) as client:
        client.response_callbacks.clear()
        entries: Any = await client.execute_command("XRANGE", "peer:effects", "-", "+")  # type: ignore[no-untyped-call]
    found = [
        subject for _, fields in entries for subject in SUBJECTS if f"done:{subject};".encode() in b" ".join(fields)
    ]
    return Counter(found)


async def _effects_in_time(server: RedisServer) -> Counter[str]:
    end = time.monotonic() + LOST_SECONDS
    while True:
        ends = await _effects(server)
        if len(ends) == len(SUBJECTS) or time.monotonic() > end:
            return ends
        await asyncio.sleep(0.1)


def _judge(library: str, fault: str, crew: Crew, ends: Counter[str], struck_at: float | None) -> Peer:
    wanted = Counter(SUBJECTS) + Counter(["flaky"])
    if fault == "flushall":
        wanted += Counter(SUBJECTS)  # published a second time
    runs = Counter(subject for subject, _ in crew.began)
    again = [at - struck_at for subject, at in crew.began if struck_at and subject == "long" and at > struck_at]
    return Peer(
        library=library,
        fault=fault,
        struck=bool(again) or fault not in ("sigkill", "sigterm"),  # else the job had ended before the signal came
        lost=len(SUBJECTS) - len(ends),
        duplicate_effects=sum(ends.values()) - len(ends),
        duplicate_runs=max(0, sum((runs - wanted).values()) - (fault in ("sigkill", "sigterm"))),
        workers_ended=crew.ended,
        takeover_seconds=again[0] if again and fault in ("sigkill", "sigterm") else None,
    )
