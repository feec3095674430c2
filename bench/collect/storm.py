"""A storm on one registry: pushers, pullers, deletions and host reclaims beside a collector and a scrubber; all of them
are killed at every step."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import time
from dataclasses import dataclass

from bench.collect.clients import Clients, Ledger
from bench.collect.collector_process import PINS
from bench.collect.host import StormHost
from bench.collect.kills import killed_at_random
from deploy.lab import Lab
from events.redis.bus import RedisBus
from events.streams import Streams
from services.adapters.registry import HttpRegistry
from services.collector.storage import RegistryStorage
from services.collector.sweep import CollectionPolicy, Sweep
from services.core.store.mark import Mark
from services.registry_pusher.intents import AnnouncingRegistry

GRACE_SECONDS = 2.0
KEEP_SECONDS = 2.0


@dataclass(slots=True)
class StormReport:
    """What a storm did and what it left."""

    ledger: Ledger
    kills: dict[str, int]
    acknowledged_lost: int
    lost_blobs: int
    broken_manifests: int
    left_over_blobs: int
    reclaim_lost: int


class Storm:
    """One storm in a laboratory. With `careless` there is neither grace nor an intent: the control, which must fail.
    A `calm` one kills nobody: whatever then holds a push up is the collector.
    """

    def __init__(
        self, lab: Lab, name: str, *, seconds: float, seed: int, careless: bool = False, calm: bool = False
    ) -> None:
        self.writer = lab.registry(f"{name}-writer")
        self.reader = lab.registry(f"{name}-reader", storage=self.writer.storage, readonly=True)
        self.redis = lab.redis(f"{name}-redis")
        self.prefix = name
        self._seconds = seconds
        self._dice = random.Random(seed)
        self._careless = careless
        self._calm = calm
        self.kills = {"collector": 0, "scrubber": 0, "reclaimer": 0, "registry": 0, "pusher": 0}
        self.host = None if careless or calm else StormHost(lab, name)

    async def run(self) -> StormReport:
        storage = RegistryStorage(self.writer.storage)
        async with (
            RedisBus.open(self.redis.url, streams=Streams(self.prefix)) as bus,
            HttpRegistry.open(self.writer.url) as plain,
            HttpRegistry.open(self.reader.url) as pull,
        ):
            own = plain if self._careless else AnnouncingRegistry(plain, bus=bus, prefix=self.prefix)
            clients = Clients(
                own=own,
                plain=plain,
                pull=pull,
                storage=storage,
                bus=bus,
                pins=f"{self.prefix}:{PINS}",
                dice=random.Random(self._dice.random()),
            )
            if self.host is not None:
                await self.host.fill()
            await self._storm(clients)
            return await self._settled(storage, clients.ledger, plain)

    async def _storm(self, clients: Clients) -> None:
        pushers = [self._pusher(clients, stranger=stranger) for stranger in (False, False, True, True)]
        pullers = [clients.pull_for_ever() for _ in range(8)]
        collectors = [self._collect("collect"), self._collect("scrub")]
        work = [*pushers, *pullers, clients.delete_for_ever(), *collectors, self._kill_registry(), self._reclaim()]
        tasks = [asyncio.ensure_future(one) for one in work]
        done, _ = await asyncio.wait(tasks, timeout=self._seconds, return_when=asyncio.FIRST_EXCEPTION)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for task in done:
            task.result()  # a client that ended before its time ended with an error

    async def _pusher(self, clients: Clients, *, stranger: bool) -> None:
        """A pusher that is killed in the middle of what it does, and begins anew."""
        while True:
            patience = None if self._careless or self._calm else self._dice.uniform(3, 9)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await clients.push_for_ever(stranger=stranger)
            self.kills["pusher"] += 1

    async def _collect(self, what: str) -> None:
        """Collections or scrubs without a pause in a process that dies by itself or is killed at a random moment. Those
        of the control and of the calm storm live: they do all the harm, or hold up all, that they can."""
        grace, keep = ("0", "0") if self._careless else (str(GRACE_SECONDS), str(KEEP_SECONDS))
        lives = self._careless or self._calm
        command = (sys.executable, "-m", "bench.collect.collector_process", str(self.writer.storage), self.redis.url)
        more = (self.prefix, grace, keep, "0" if self._careless else "1", "0" if lives else "0.01", what)
        between = None if lives else (2.0, 6.0) if what == "collect" else (4.0, 9.0)
        async for _ in killed_at_random((*command, *more), self._dice, between):
            self.kills["collector" if what == "collect" else "scrubber"] += 1

    async def _reclaim(self) -> None:
        if self.host is not None:
            async for _ in self.host.reclaim(self.writer.url, self.redis.url, self.prefix, self._dice):
                self.kills["reclaimer"] += 1

    async def _kill_registry(self) -> None:
        """The process that writes is killed now and then; a careless storm has enough without it."""
        while not (self._careless or self._calm):
            await asyncio.sleep(self._dice.uniform(4, 8))
            await asyncio.to_thread(self.writer.kill)
            self.kills["registry"] += 1
            await asyncio.to_thread(self.writer.start)

    # ---- afterwards ----

    async def _settled(self, storage: RegistryStorage, ledger: Ledger, registry: HttpRegistry) -> StormReport:
        """Quiet collections until nothing changes; then the storage against what was acknowledged."""
        broken = lost = 0
        mark = await self._quiet(storage)
        for (repository, _), digest in list(mark.tagged.items()):
            if storage.manifest(digest) is None:
                broken += 1
                continue
            for blob in storage.manifest(digest).blobs:  # type: ignore[union-attr]  # asked a line above
                if storage.is_intact(blob) is not True or not storage.linked_at(repository, blob):
                    lost += 1
        named = {f"{repository}:{tag}": f"sha256:{digest}" for (repository, tag), digest in mark.tagged.items()}
        acknowledged = {f"{repository}:{tag}": digest for (repository, tag), digest in ledger.tags.items()}
        gone = [name for name, digest in acknowledged.items() if named.get(name) != digest]
        left = [blob for blob in storage.blobs() if blob.digest not in mark.live]
        return StormReport(
            ledger=ledger,
            kills=self.kills,
            acknowledged_lost=len(gone),
            lost_blobs=lost,
            broken_manifests=broken + len(mark.damaged),
            left_over_blobs=len(left),
            reclaim_lost=0 if self.host is None else await self.host.lost(registry),
        )

    async def _quiet(self, storage: RegistryStorage) -> Mark:
        async def nothing() -> tuple[str, ...]:
            return ()

        policy = CollectionPolicy(grace_seconds=GRACE_SECONDS, keep_seconds=KEEP_SECONDS)
        sweep = Sweep(storage, pins=nothing, intents=nothing, policy=policy)
        unchanged, ends_at = 0, time.monotonic() + 60
        while unchanged < 3 and time.monotonic() < ends_at:
            await asyncio.sleep(GRACE_SECONDS + 0.3)
            result = await sweep.collect()
            changed = result.quarantined + result.removed + result.untagged_removed + result.restored
            unchanged = 0 if changed else unchanged + 1
        return await sweep.mark()
