"""What a host's cache takes from the registry: four ranges that have nothing at once, then one more."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence

from deploy.lab import EngineServer, Lab, MachineError, RegistryServer
from deploy.lab.cache_server import CacheServer

NAME = "bench/cached:1"
RANGES = 4


def cache_figures(lab: Lab, *, megabytes: int) -> dict[str, float]:
    """Bytes of blobs that the registry sent, as parts of the image, and seconds. Real nginx, registry and engines.

    The image has two layers of random bytes. Raises MachineError where a pull fails.
    """
    registry, host = lab.registry("origin"), lab.engine("builder")
    _push(lab, host, registry, megabytes)
    image_bytes = sum(path.stat().st_size for path in (registry.storage / "docker/registry/v2/blobs").rglob("data"))
    cache = lab.start(CacheServer("cache", lab.place("cache"), lab.mark, origin=registry.url))
    ranges = [lab.engine(f"range-{number}") for number in range(RANGES + 1)]
    cold, cold_seconds = _pulled(ranges[:RANGES], registry, cache.address)
    second, second_seconds = _pulled(ranges[RANGES:], registry, cache.address)
    ranges[RANGES].docker("image", "rm", f"{cache.address}/{NAME}")
    _, direct_seconds = _pulled(ranges[RANGES:], registry, registry.address)
    return {
        "origin_bytes_vs_image": round(cold / image_bytes, 4),
        "origin_bytes_second_range": second,
        "cached_image_bytes": image_bytes,
        "four_cold_ranges_seconds": round(cold_seconds, 2),
        "second_range_seconds": round(second_seconds, 2),
        "second_range_vs_direct": round(second_seconds / direct_seconds, 2),
    }


def _push(lab: Lab, host: EngineServer, registry: RegistryServer, megabytes: int) -> None:
    folder = lab.folder / "context"
    folder.mkdir()
    for name in ("first", "second"):
        with (folder / name).open("wb") as file:
            for _ in range(megabytes // 2):
                file.write(os.urandom(1 << 20))
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY first /\nCOPY second /\n")
    host.docker("build", "--tag", f"{registry.address}/{NAME}", str(folder), seconds=600)
    host.docker("push", f"{registry.address}/{NAME}", seconds=600)
    host.stop()


def _pulled(engines: Sequence[EngineServer], registry: RegistryServer, address: str) -> tuple[int, float]:
    """All of them pull at once: the bytes that the registry sent of blobs, and how long the last one took."""
    problems: list[MachineError] = []

    def pull(engine: EngineServer) -> None:
        try:
            engine.docker("pull", f"{address}/{NAME}", seconds=600)
        except MachineError as problem:
            problems.append(problem)

    since, begun = registry.log.stat().st_size, time.monotonic()
    pulling = [threading.Thread(target=pull, args=(engine,)) for engine in engines]
    for one in pulling:
        one.start()
    for one in pulling:
        one.join()
    if problems:
        raise problems[0]
    seconds = time.monotonic() - begun
    asked = registry.requests(since)
    return sum(one.sent_bytes for one in asked if one.method == "GET" and "/blobs/" in one.path), seconds
