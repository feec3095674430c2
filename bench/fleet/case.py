"""Scaling of the deployer with the number of ranges: real Redis, fakes of engine and registry, simulated agents.

`python -m bench fleet --json [--ranges 1000] [--images 5] [--idle 200] [--growth [10,100,1000,5000]]`

Two processes share two cores with Redis: the deployer (with the fakes it asks, so its memory is measured with theirs),
and this one, which asks for one deployment per range and answers for all agents, those that were asked meanwhile in
one commit. Agents answer at once: what is measured is the deployer and the bus, not the transfers. The clock starts
when the deployer knows all ranges. There are `--per-host` ranges on each host, and the slots are those that are
shipped (`CYROID_EXTRACTIONS_LIMIT`, 4 for each host). Beside them `--idle` real agents of the same installation have
nothing to do, in processes of their own. `--growth` measures smaller (or larger) fleets too, and writes `docs/fleet.md`
from all of them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from bench.fleet import report as fleet_page
from bench.fleet.host import PREFIX, other_process
from bench.idle.agents import idle_agents, raise_open_files
from bench.simulation.cluster import eventually
from deploy.lab import Lab
from events.bus import Outcome, Post
from events.envelope import Envelope
from events.messages import (
    AgentStarted,
    DeploymentEnded,
    DeploymentRequested,
    DeploymentSucceeded,
    ImageReady,
    PullRequested,
)
from events.redis.bus import RedisBus
from events.streams import Streams
from events.task_group import TaskGroup
from services.core.ranges.ranges import RangeKeys

LIMIT_SECONDS = 180.0
#: Some machines need that much longer for each range.
LIMIT_SECONDS_PER_RANGE = 0.1
#: All hearts beat once, for longer than any run takes.
BEAT_SECONDS = 3600.0
#: What is to be reached with the numbers that are the default.
AT_MOST_SECONDS = 20.0
#: How many messages one commit holds.
TOGETHER = 100
#: How often all inboxes are looked through together. (An agent waits for its own alone, which costs Redis nothing.)
POLL_SECONDS = 0.03


class Fleet:
    """All agents of all ranges, and the client that requests deployments."""

    def __init__(self, bus: RedisBus, *, ranges: int, images: int, per_host: int, idle: int) -> None:
        self._bus, self._per_host, self._idle = bus, per_host, idle
        self._streams = Streams(PREFIX)
        self._range_ids = [f"range-{number:05}" for number in range(ranges)]
        self._references = tuple(f"docker.io/library/image-{number}:1" for number in range(images))
        self.pulls: Counter[tuple[str, str]] = Counter()
        self.ended: Counter[str] = Counter()
        self.succeeded = 0
        self._answers: list[Post] = []
        self._answered = asyncio.Event()
        self._all = asyncio.Event()

    async def beat(self) -> None:
        """Send every agent's heartbeat and first message."""
        for range_id in self._range_ids:
            beat = msgspec.json.encode({"engine_id": f"{range_id}.1"})
            await self._bus.beat(self._streams.alive(range_id), beat, BEAT_SECONDS)
        await self._publish(
            [
                (
                    self._streams.outbox(range_id),
                    AgentStarted(
                        range_id=range_id,
                        engine_id=f"{range_id}.1",
                        engine_version="26.1.5",
                        store="classic",
                        platform="linux/amd64",
                        host=f"host-{number // self._per_host}",
                    ),
                )
                for number, range_id in enumerate(self._range_ids)
            ]
        )

    async def known(self) -> None:
        """Wait until the deployer has handled every agent's first message."""

        async def all_known() -> bool:
            known = len(await self._bus.members(RangeKeys(PREFIX).known_index))
            return known == len(self._range_ids) + self._idle

        await eventually(all_known, within_seconds=self._limit)

    @property
    def _limit(self) -> float:
        return LIMIT_SECONDS + LIMIT_SECONDS_PER_RANGE * len(self._range_ids)

    async def ask(self) -> None:
        """Request one deployment of all images for every range."""
        await self._publish(
            [
                (
                    self._streams.deployments,
                    DeploymentRequested(deployment_id=f"d-{range_id}", range_id=range_id, images=self._references),
                )
                for range_id in self._range_ids
            ]
        )

    async def answer(self) -> None:
        """Do every agent's part: what is requested for the first time is pulled; `tell` reports it."""
        inboxes = [self._streams.inbox(range_id) for range_id in self._range_ids]
        places = dict.fromkeys(inboxes, "0")
        while True:
            async for entry in self._bus.tail(inboxes, after=places, follow=False):
                places[entry.stream] = entry.entry_id
                if entry.envelope is not None and isinstance(entry.envelope.message, PullRequested):
                    self._pull(entry.stream, entry.envelope, entry.envelope.message)
            await asyncio.sleep(POLL_SECONDS)

    def _pull(self, inbox: str, envelope: Envelope, message: PullRequested) -> None:
        range_id = self._streams.range_of(inbox) or ""
        self.pulls[range_id, message.reference] += 1
        ready = ImageReady(transfer_id=message.transfer_id, image_id=message.image_id, how="pulled")
        said = envelope.causes(ready, source=f"agent@{range_id}", subject=range_id)
        self._answers.append(Post(self._streams.outbox(range_id), said))
        self._answered.set()

    async def tell(self) -> None:
        """Say what all agents have to say by now, a page of the inboxes and more at a time."""
        while True:
            await self._answered.wait()
            self._answered.clear()
            while self._answers:
                posts, self._answers = self._answers[:TOGETHER], self._answers[TOGETHER:]
                await self._bus.commit(Outcome(posts=tuple(posts)))

    async def watch(self) -> None:
        """Count the ends of deployments."""
        async for entry in self._bus.tail([self._streams.deployments], after="0"):
            message = entry.envelope.message if entry.envelope else None
            if isinstance(message, DeploymentEnded):
                self.ended[message.deployment_id] += 1
                self.succeeded += isinstance(message, DeploymentSucceeded)
                if len(self.ended) == len(self._range_ids):
                    self._all.set()

    async def all_ended(self) -> None:
        async with asyncio.timeout(self._limit):
            await self._all.wait()

    async def _publish(self, said: Sequence[tuple[str, Any]]) -> None:
        for start in range(0, len(said), TOGETHER):
            posts = [
                Post(stream, Envelope(message=message, source="fleet", subject=stream))
                for stream, message in said[start : start + TOGETHER]
            ]
            await self._bus.commit(Outcome(posts=tuple(posts)))


async def measure(
    url: str, redis_pid: int, *, ranges: int, images: int, per_host: int = 50, idle: int = 0
) -> dict[str, Any]:
    """One run on an empty Redis. Who uses how much of the processors is told too: agents are to be no bottleneck."""
    async with (
        RedisBus.open(url, streams=Streams(PREFIX), timeout_seconds=30.0, name="fleet") as bus,
        other_process(url, images) as process,
        idle_agents(url, PREFIX, idle) as beside,
        TaskGroup() as tasks,
    ):
        fleet = Fleet(bus, ranges=ranges, images=images, per_host=per_host, idle=idle)
        await fleet.beat()
        await fleet.known()
        background = [tasks.create_task(one) for one in (fleet.answer(), fleet.tell(), fleet.watch())]
        started, cpu, rested = datetime.now(UTC), time.process_time(), sum(map(_cpu_seconds, beside))
        await fleet.ask()
        try:
            await fleet.all_ended()
        except TimeoutError:
            sys.stderr.write("not all deployments ended" + "\n")
        seconds = (datetime.now(UTC) - started).total_seconds()
        for task in background:
            task.cancel()
        peak, busy = _peak_rss(process.pid), _cpu_seconds(process.pid)
        rested = sum(map(_cpu_seconds, beside)) - rested
        process.terminate()
        async with asyncio.timeout(30):
            out, _ = await process.communicate()
        pushed = json.loads(out.splitlines()[-1])
        again = sum(count - 1 for count in (*fleet.pulls.values(), *fleet.ended.values()))
        return {
            "ranges": ranges,
            "images": images,
            "hosts": -(-ranges // per_host),
            "idle_agents": idle,
            "idle_agents_cpu_seconds": round(rested, 2),
            "seconds": round(seconds, 2),
            "deployer_peak_rss_bytes": peak,
            "deployer_cpu_seconds": busy,
            "redis_cpu_seconds": _cpu_seconds(redis_pid),
            "agents_cpu_seconds": round(time.process_time() - cpu, 2),
            "succeeded": fleet.succeeded,
            "lost": ranges - len(fleet.ended),
            "duplicate_effects": again + pushed["uploads"] - pushed["blobs"],
        }


def _peak_rss(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def _cpu_seconds(pid: int) -> float:
    """What a process used so far, of all cores."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return round((int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), 2)


def main(argv: Sequence[str]) -> dict[str, Any]:
    """One object: the figures for `--ranges`, `growth` with those of the other runs, `ok` if nothing went wrong."""
    parser = argparse.ArgumentParser(
        prog="bench fleet", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ranges", type=int, default=1000)
    parser.add_argument("--images", type=int, default=5)
    parser.add_argument("--per-host", type=int, default=50, help="ranges on each host")
    parser.add_argument("--idle", type=int, default=200, help="real agents without work beside them")
    parser.add_argument(
        "--growth", nargs="?", const=fleet_page.GROWTH, default="", help=f"also these numbers ({fleet_page.GROWTH})"
    )
    chosen = parser.parse_args(argv)
    numbers = sorted({*map(int, filter(None, chosen.growth.split(","))), chosen.ranges})
    results, load = [], os.getloadavg()[0]
    raise_open_files()
    with tempfile.TemporaryDirectory(prefix="cyroid-fleet-") as folder, Lab(Path(folder)) as lab:
        for number, ranges in enumerate(numbers):
            server = lab.redis(name=f"redis{number}")
            figures = measure(
                server.url,
                server.pid,
                ranges=ranges,
                images=chosen.images,
                per_host=chosen.per_host,
                idle=chosen.idle,
            )
            results.append(asyncio.run(figures))
            server.stop()
            sys.stderr.write(f"{ranges:>6} ranges: {results[-1]}\n")
    if chosen.growth:
        fleet_page.write(results, cpus=os.cpu_count(), load=load)
    whole = all(not one["lost"] and not one["duplicate_effects"] for one in results)
    own = results.pop(numbers.index(chosen.ranges))
    reached = {"seconds": own["seconds"] <= AT_MOST_SECONDS}
    return {**own, "cpus": os.cpu_count(), "load": load, "growth": results, "reached": reached, "ok": whole}
