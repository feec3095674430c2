"""Randomly generated image archives, whole and damaged, given to an engine in memory: crashed, wrong, left over,
memory.

`python -m bench archives [--tries N] [--seed N]`. Each archive is one of every tar dialect, packing, layout and order
of entries, and in seven of eight cases something is wrong at a random place.

    crashed      ended in anything but an image or one of the project's own errors
    wrong        a whole archive was refused; or what the engine has afterwards is not what other code reads in the
                 same bytes (`independent.py`): another name, another config, other layers
    leftovers    a refused archive left an image, or an open file, a thread or a task was left
    peak_rss_bytes   of a process that checks an archive of a small layer, and of one of gigabytes, in four packings
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.archives.generator import Expected, Made, make
from bench.archives.independent import read
from bench.archives.memory import LARGE_BYTES, SMALL_BYTES, peaks
from services.adapters.memory_engine import MemoryEngine
from services.content.decompression import unpacked
from services.core.archives.entry_rules import ArchiveLimits
from services.core.images.image import Store
from services.errors import CyroidError
from services.ingest.archive_flow import Archive, ArchiveFlow
from services.runtime.telemetry import set_up

#: How much more memory gigabytes may take than a mebibyte: what a step of unpacking gives at most, and its copies.
_FLAT_BYTES = 160 << 20
_TOLD_AT_MOST = 20


def main(argv: Sequence[str]) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="python -m bench archives", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tries", type=int, default=6000, help="archives (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the first; the others follow it (%(default)s)")
    parser.add_argument("--large-bytes", type=int, default=LARGE_BYTES, help="of the large layer (%(default)s)")
    options = parser.parse_args(list(argv))
    set_up(level="error", log_format="json")
    result = asyncio.run(try_all(range(options.seed, options.seed + options.tries)))
    for line in result.told:
        sys.stderr.write(f"{line}\n")
    memory = {name: {"small": small, "large": large} for name, small, large in peaks(SMALL_BYTES, options.large_bytes)}
    flat = all(both["large"] - both["small"] < _FLAT_BYTES for both in memory.values())
    return {
        "tried": result.tried,
        "accepted": result.accepted,
        "refused": result.refused,
        "crashed": result.crashed,
        "wrong": result.wrong,
        "leftovers": result.leftovers,
        "by_damage": {name: dict(counts) for name, counts in sorted(result.by_damage.items())},
        "large_layer_bytes": options.large_bytes,
        "peak_rss_bytes": memory,
        "ok": not (result.crashed or result.wrong or result.leftovers) and flat,
    }


@dataclass(slots=True)
class Result:
    """What became of many archives; `told` are the first things that went wrong, with their seeds."""

    tried: int = 0
    accepted: int = 0
    refused: int = 0
    crashed: int = 0
    wrong: int = 0
    leftovers: int = 0
    by_damage: dict[str, Counter[str]] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)

    def tell(self, made: Made, what: str) -> None:
        """One line for people."""
        if len(self.told) < _TOLD_AT_MOST:
            self.told.append(f"{made.words}: {what}")


async def try_all(seeds: range) -> Result:
    """Each seed's archive, one after the other, to an engine of its own."""
    result = Result()
    files = len(os.listdir("/proc/self/fd"))
    for seed in seeds:
        await _try(make(seed), "classic" if seed % 2 else "containerd", result)
    left = len(os.listdir("/proc/self/fd")) - files + len(asyncio.all_tasks()) - 1
    result.leftovers += max(0, left)
    return result


async def _try(made: Made, store: Store, result: Result) -> None:
    engine = MemoryEngine(store=store)
    result.tried += 1
    outcome = "refused"
    try:
        await _imported(engine, made)
        outcome = "accepted"
    except CyroidError as problem:
        if made.damage == "none":
            result.wrong += 1
            result.tell(made, f"a whole archive was refused: {problem}")
    except Exception as problem:  # noqa: BLE001  that is what is counted
        outcome = "crashed"
        result.tell(made, repr(problem))
    result.accepted += outcome == "accepted"
    result.refused += outcome == "refused"
    result.crashed += outcome == "crashed"
    result.by_damage.setdefault(made.damage, Counter())[outcome] += 1
    has = _has(engine)
    if outcome != "accepted":
        result.leftovers += len(engine.store.images)
        return
    wanted = made.expected if made.damage == "none" else read(made.content)
    if has != wanted:
        result.wrong += 1
        result.tell(made, f"the engine has {has}, other code reads {wanted}")


async def _imported(engine: MemoryEngine, made: Made) -> None:
    """Loaded as the importer does it; what was begun and failed is taken back by it, here by the engine alone."""
    archive = Archive(chunks=unpacked(_pieces(made.content), "x"), origin="x")
    flow = ArchiveFlow(archive, engine, wanted=None, limits=ArchiveLimits(), free_bytes=lambda: None)
    try:
        async with engine.load(flow.chunks()) as lines:
            async for _ in lines:
                pass
    except CyroidError:
        for name, before in flow.before.items():
            if before is None:
                await engine.untag(name)
        raise


async def _pieces(content: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(content), 1 << 16):
        yield content[at : at + (1 << 16)]


def _has(engine: MemoryEngine) -> frozenset[Expected]:
    """The images of the engine, by its own account; it verified each layer against the config."""
    return frozenset(
        Expected(
            frozenset(name for name, one in engine.store.names.items() if one == local_id),
            image.image_id,
            image.diff_ids,
        )
        for local_id, image in engine.store.images.items()
    )
