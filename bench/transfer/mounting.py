"""Ranges that are shown mounted layers: services, a layer-mounter and agents, and nothing left of them afterwards."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.transfer.methods import Ours
from bench.transfer.testbed import Testbed, gone
from deploy.lab import EngineServer, Lab, RedisServer, RegistryServer
from deploy.lab.system import System
from deploy.machine.commands import MachineError
from deploy.machine.polling import poll
from events.messages import AgentStarted
from services.adapters.kernel_mounts import mounts_below, unmount


@contextmanager
def mounting(
    testbed: Testbed,
    redis: RedisServer,
    registry: RegistryServer,
    ranges: Sequence[EngineServer],
    program: Path,
    *,
    written: bool = True,
) -> Iterator[Ours]:
    """All started and ready. The ranges are gone afterwards, and so is every mount and every index.

    written  the pusher writes large layers into the registry's storage; otherwise it sends them
    """
    named = {one.name: one for one in ranges}
    prefix = testbed.name("mounting")
    system = System(
        lab=testbed.lab,
        redis=redis,
        registry=registry,
        host=testbed.host,
        ranges=named,
        prefix=prefix,
        mkfs_erofs=program,
        settings={"registry_write_storage": registry.storage} if written else {},
    )
    started = [
        system.services(name=testbed.name("services")),
        system.services("layer-mounter", name=testbed.name("mounter")),
    ]
    agents = {name: system.agent(name) for name in named}
    try:
        with system.logbook() as book:
            outboxes = {system.streams.outbox(name): "0-0" for name in named}

            def ready() -> bool:
                able = {m.range_id for m in book.find(AgentStarted, outboxes, lambda m: m.mounts_layers)}
                return able == set(named) and book.mounts()

            if not poll(ready, seconds=180):
                raise MachineError("the ranges are not shown layers")
        yield Ours(testbed, system, {}, agents, named)
    finally:
        gone(*agents.values(), *reversed(started), *ranges)
        cleared(testbed.lab)


def cleared(lab: Lab) -> None:
    """Unmount and remove all below the laboratory's layers: no index that one measurement made serves the next."""
    for point in reversed(mounts_below(lab.layers)):
        if point.path != lab.layers:
            unmount(point.path)
    for entry in lab.layers.iterdir():
        shutil.rmtree(entry)


def launched(engine: EngineServer, images: Sequence[str]) -> None:
    """Start the engine, until it answers and has these images. Raises MachineError, AssertionError."""
    engine.launch()
    if not poll(engine.answers, seconds=120, every=0.005):
        raise AssertionError(f"{engine.name} does not answer: {engine.log_tail()}")
    for image in images:
        engine.layers(image)


def used_bytes(engines: Sequence[EngineServer]) -> int:
    """What their data takes on disk."""
    told = subprocess.run(
        ["du", "--summarize", "--one-file-system", "--block-size=1", *[str(one.root) for one in engines]],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    return sum(int(line.split()[0]) for line in told.splitlines())


def drop_caches() -> None:
    """Empty the machine's page cache; what is to be written is written before."""
    subprocess.run(["sync"], check=True, timeout=300)
    Path("/proc/sys/vm/drop_caches").write_text("3\n")


def read_all(engine: EngineServer, image: str) -> None:
    """Bring the files of an image of an engine on overlay2 into the page cache."""
    parts = "{{.GraphDriver.Data.UpperDir}}:{{.GraphDriver.Data.LowerDir}}"
    folders = engine.docker("image", "inspect", "-f", parts, image).strip().split(":")
    for path in (found for folder in folders if folder.startswith("/") for found in Path(folder).rglob("*")):
        if path.is_file() and not path.is_symlink():
            with path.open("rb", buffering=0) as file:
                while file.read(1 << 20):
                    pass


def cached_bytes() -> int:
    """What the page cache of this machine holds."""
    line = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("Cached:"))
    return int(line.split()[1]) * 1024
