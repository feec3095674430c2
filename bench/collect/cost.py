"""What a collection costs: time and memory of a mark, reading the figures, and a large pull beside collections."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deploy.lab import Lab, RedisServer
from events.bus import Outcome
from events.records import ANY
from events.redis.bus import RedisBus
from events.streams import Streams
from services.adapters.registry import HttpRegistry
from services.collector.measure import measure
from services.collector.storage import RegistryStorage
from services.collector.sweep import CollectionPolicy, CollectionResult, Sweep
from services.core.store.figures import details_key, figures_key

MEGABYTE = 1024 * 1024


# ---- a mark ----


def generate(folder: Path, images: int, layers: int = 11, shared: int = 8) -> None:
    """A storage of `images` tags: each has `layers` layers, of which `shared` come from one of a few bases."""
    v2 = folder / "docker/registry/v2"
    for number in range(images):
        base = number % max(1, images // 50)
        digests = [_name(f"base {base} {index}") for index in range(shared)]
        digests += [_name(f"own {number} {index}") for index in range(layers - shared)]
        config = _name(f"config {number}")
        described = [{"digest": f"sha256:{digest}", "size": 1} for digest in digests]
        content = json.dumps({"config": {"digest": f"sha256:{config}", "size": 1}, "layers": described}).encode()
        manifest = hashlib.sha256(content).hexdigest()
        repository = v2 / f"repositories/team{number % 100}/image{number}"
        for digest in (*digests, config):
            _file(v2 / "blobs/sha256" / digest[:2] / digest / "data", b"x")
            _file(repository / "_layers/sha256" / digest / "link", f"sha256:{digest}".encode())
        _file(v2 / "blobs/sha256" / manifest[:2] / manifest / "data", content)
        link = f"sha256:{manifest}".encode()
        _file(repository / "_manifests/revisions/sha256" / manifest / "link", link)
        _file(repository / "_manifests/tags/1/current/link", link)
        _file(repository / "_manifests/tags/1/index/sha256" / manifest / "link", link)


def _name(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _file(path: Path, content: bytes) -> None:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def mark_in_its_own_process(folder: Path) -> dict[str, Any]:
    """Seconds of one mark, and how much memory the process took for a whole dry run of that store."""
    command = [sys.executable, "-m", "bench.collect.cost", str(folder)]
    found = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=600).stdout
    return dict(json.loads(found))


async def nothing() -> tuple[str, ...]:
    """No pins, or no intents."""
    return ()


def _mark_once(folder: Path) -> dict[str, Any]:
    async def plan() -> CollectionResult:
        sweep = Sweep(RegistryStorage(folder), pins=nothing, intents=nothing, policy=CollectionPolicy())
        _, _, result = await sweep.plan()
        return result

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = asyncio.run(plan())
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "mark_seconds": round(result.mark_seconds, 3),
        "mark_cpu_seconds": round(result.mark_cpu_seconds, 3),
        "mark_peak_bytes": (after - before) * 1024,
    }


# ---- the figures, from their record ----


async def stats_p99_ms(redis: RedisServer, folder: Path, reads: int = 500) -> float:
    """Reading the figures of a store that was measured, as CLI and API do: the 99th percentile of `reads`."""
    storage = RegistryStorage(folder)
    sweep = Sweep(storage, pins=nothing, intents=nothing, policy=CollectionPolicy())
    mark, blobs, _ = await sweep.plan()
    measured = await asyncio.to_thread(measure, storage, mark, blobs, datetime.now(UTC))
    streams = Streams("figures")
    async with RedisBus.open(redis.url, streams=streams) as bus:
        figures, details = figures_key(streams.prefix), details_key(streams.prefix)
        writes = figures.write(measured.figures, expected=ANY), details.write(measured.details, expected=ANY)
        await bus.commit(Outcome(records=writes))
        taken = []
        for _ in range(reads):
            began = time.perf_counter()
            await figures.load(bus)
            taken.append(time.perf_counter() - began)
    return round(statistics.quantiles(taken, n=100)[-1] * 1000, 3)


# ---- a large pull beside collections ----


async def pull_ratio(lab: Lab, redis: RedisServer, size_bytes: int, generated: Path, rounds: int = 5) -> float:
    """Reading one large blob through the registry while collections run without a pause, against alone.

    Rounds alternate, so that whatever else the machine does falls on both; the fastest of each are compared.
    """
    server = lab.registry("pulled")
    async with HttpRegistry.open(server.url) as registry:
        chunk = os.urandom(MEGABYTE)
        whole = hashlib.sha256()
        for _ in range(size_bytes // MEGABYTE):
            whole.update(chunk)
        digest = f"sha256:{whole.hexdigest()}"
        await registry.put_blob("large", digest, size_bytes, _repeated(chunk, size_bytes // MEGABYTE))
        alone, beside = [], []
        await _pull(registry, digest)
        for _ in range(rounds):
            alone.append(await _pull(registry, digest))
            async with _collecting(redis, generated):
                beside.append(await _pull(registry, digest))
    return round(min(beside) / min(alone), 3)


async def _repeated(chunk: bytes, times: int) -> AsyncIterator[bytes]:
    for _ in range(times):
        yield chunk


async def _pull(registry: HttpRegistry, digest: str) -> float:
    began = time.perf_counter()
    async with registry.open_blob("large", digest) as chunks:
        async for _ in chunks:
            pass
    return time.perf_counter() - began


@asynccontextmanager
async def _collecting(redis: RedisServer, generated: Path) -> AsyncIterator[None]:
    """Collections of a store of generated images, one after the other, in a process of their own."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.collect.collector_process", str(generated), redis.url),
        *("pulled", "60", "600", "1", "0", "collect"),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        await process.stdout.readline()  # the first collection has ended: the next one runs
        yield
    finally:
        process.kill()
        await process.wait()


def _main() -> None:
    sys.stdout.write(json.dumps(_mark_once(Path(sys.argv[1]))) + "\n")


if __name__ == "__main__":
    _main()
