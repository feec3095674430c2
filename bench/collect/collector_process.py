"""The collector, or the scrubber, of a storm as a process that can be killed: without a pause, a JSON line each time.

Run as `python -m bench.collect.collector_process STORAGE REDIS_URL PREFIX GRACE KEEP INTENTS(0|1) CRASH collect|scrub`;
the scrubber checks sizes and hashes, beside the collections, as it does after a push that met damage. CRASH is the
chance that the process kills itself at any one change of the storage, so that every step is hit in time.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import random
import signal
import sys
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from events.redis.bus import RedisBus
from events.streams import Streams
from services.collector.scrub import Scrub, ScrubResult
from services.collector.storage import RegistryStorage
from services.collector.sweep import CollectionPolicy, CollectionResult, Sweep
from services.core.store.intents import intents_key

PINS = "pins"


class FragileStorage(RegistryStorage):
    """A storage whose process may be killed before or after any of its changes."""

    crash = 0.0
    CHANGES = (
        "quarantine",
        "restore",
        "discard",
        "unlink_revision",
        "relink_revision",
        "set_damaged_aside",
        "is_intact",
        "drop_tag",
    )

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name not in type(self).CHANGES:
            return found

        def struck(*arguments: Any) -> Any:
            self._strike()
            result = found(*arguments)
            self._strike()
            return result

        return struck

    def _strike(self) -> None:
        if self.crash and random.random() < self.crash:
            os.kill(os.getpid(), signal.SIGKILL)


async def collect_for_ever(
    storage: FragileStorage, url: str, prefix: str, policy: CollectionPolicy, *, reads_intents: bool, scrubs: bool
) -> None:
    """Until it is killed."""
    async with RedisBus.open(url, streams=Streams(prefix)) as bus:

        async def intents() -> Collection[str]:
            return await bus.members(intents_key(prefix), low=time.time()) if reads_intents else ()

        async def pins() -> Collection[str]:
            return await bus.members(f"{prefix}:{PINS}")

        sweep = Sweep(storage, pins=pins, intents=intents, policy=policy)
        scrub = Scrub(storage)
        while True:
            result: CollectionResult | ScrubResult
            if scrubs:
                mark, blobs, _ = await sweep.plan()
                result = (await scrub.check_sizes(mark, blobs)).and_also(await scrub.scrub(mark, blobs))
            else:
                result = await sweep.collect()
            sys.stdout.write(json.dumps(dataclasses.asdict(result)) + "\n")
            sys.stdout.flush()
            await asyncio.sleep(0.05)


def main(arguments: list[str]) -> None:
    root, url, prefix, grace, keep, reads_intents, crash, what = arguments
    storage = FragileStorage(Path(root))
    storage.crash = float(crash)
    policy = CollectionPolicy(grace_seconds=float(grace), keep_seconds=float(keep), batch=50)
    reads = reads_intents == "1"
    asyncio.run(collect_for_ever(storage, url, prefix, policy, reads_intents=reads, scrubs=what == "scrub"))


if __name__ == "__main__":
    main(sys.argv[1:])
