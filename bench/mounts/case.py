"""Mounted layers against a tar stream: an image in the registry, new to running ranges, on each kind of store.

`python -m bench mounts [--size BYTES] [--ranges N] [--repeats N]`. What is in the registry is deployed to one range, to
N ranges, and at a twentieth of its size; a tar stream to one cold range of the same kind is what it is compared with. A
repeat uses an image of its own, so that no layer but the base is there. Content is read back in a container.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.transfer.images import partly_compressible
from bench.transfer.methods import Ours, tar
from bench.transfer.testbed import Testbed, gone
from deploy.lab import EngineServer, Lab, RedisServer, RegistryServer
from deploy.lab.erofs_tools import mkfs_erofs
from deploy.lab.system import System
from deploy.machine.commands import MachineError
from deploy.machine.polling import poll
from events.messages import AgentStarted, ImageOutcome

#: Kind → version of the engine (None: the machine's own), and whether it is on containerd's store.
KINDS: dict[str, tuple[str | None, bool]] = {
    "28.5-containerd": ("28.5", True),
    "28.5-classic": ("28.5", False),
    "20.10-classic": (None, False),
}
#: What is to be reached, and what would be better still; for a classic store the first is 0.05.
TARGETS = {"known_1_vs_tar": (0.03, 0.015), "known_n_vs_tar_1": (0.15, 0.05), "known_large_vs_small": (1.5, 1.1)}
TARGETS |= {"disk_n_vs_1": (1.02, 1.02), "page_cache_n_vs_1": (1.05, 1.0), "first_1_vs_tar": (0.35, 0.15)}
TARGETS |= {"start_vs_pulled": (1.1, 1.0), "new_range_seconds": (0.3, 0.1)}
_SMALLER = 20
_STARTS = 5


@dataclass
class Run:
    """What is measured on one kind of store: lists of seconds by name."""

    testbed: Testbed
    redis: RedisServer
    registry: RegistryServer
    size: int
    seconds: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    disk: list[float] = field(default_factory=list)
    page_cache: list[float] = field(default_factory=list)

    def image(self, size: int) -> str:
        """An image of its own, on the host."""
        name = self.testbed.name("mounts") + ":1"
        with tempfile.TemporaryDirectory(dir=self.testbed.lab.folder) as folder:
            bulk = Path(folder, "bulk")
            with bulk.open("wb") as file:
                file.writelines(partly_compressible(size, name))
            Path(folder, "Dockerfile").write_text("FROM mounts/base:1\nCOPY bulk /bulk\n")
            self.testbed.host.docker("build", "--quiet", "--tag", name, folder, seconds=600)
        return name

    def tar(self, kind: str, image: str) -> None:
        version, containerd = KINDS[kind]
        engine = self.testbed.lab.engine(self.testbed.name("cold"), version=version, containerd_store=containerd)
        try:
            self._timed("tar_1", lambda: tar(self.testbed, [engine], image))
            self.starts("loaded", engine, image)
        finally:
            gone(engine)

    def known(self, name: str, ours: Ours, image: str) -> None:
        ours.pushed(image)
        found: list[ImageOutcome] = []
        self._timed(name, lambda: found.extend(ours.outcomes(image)))
        sent = [one for one in found if one.how != "mounted"]
        if sent:
            raise AssertionError(f"{image} was not mounted: {sent[0].not_mounted}")
        for engine in ours.ranges.values():
            size = engine.docker("run", "--rm", "--network", "none", image, "wc", "-c", "/bulk").split()[0]
            shown = self.testbed.host.docker("run", "--rm", "--network", "none", image, "md5sum", "/bulk")
            if engine.docker("run", "--rm", "--network", "none", image, "md5sum", "/bulk") != shown:
                raise AssertionError(f"{image} has other content in {engine.name} ({size} bytes)")

    def first(self, name: str, ours: Ours, image: str) -> None:
        """Deploy what the registry does not have, push included."""
        self._timed(name, lambda: ours.outcomes(image))

    def starts(self, name: str, engine: EngineServer, image: str) -> None:
        """Containers of an image that has run before."""
        for count in range(_STARTS + 1):
            started = time.monotonic()
            engine.docker("run", "--rm", "--network", "none", image, "true")
            if count:
                self.seconds[f"start_{name}"].append(time.monotonic() - started)

    def recreated(self, kind: str, ours: Ours, image: str) -> None:
        """From the start of an engine that has lost its data until it has the image; and what one takes to its first
        answer that is to have nothing. No agent runs meanwhile: nobody tells the range anything.
        """
        ((range_id, engine),) = ours.ranges.items()
        agent, lab = ours.agents[range_id], self.testbed.lab
        seeds = lab.shown(range_id) / "seeds"
        if not poll(lambda: seeds.is_dir() and any(seeds.iterdir()), seconds=60):
            raise AssertionError("the range is shown nothing that its next engine starts with")
        version, containerd = KINDS[kind]
        name = self.testbed.name("empty")
        empty = lab.engine(name, version=version, containerd_store=containerd, shown=lab.shown(name))
        agent.stop()
        for _ in range(_STARTS):
            for name, one in (("empty_start", empty), ("new_range", engine)):
                one.stop()
                shutil.rmtree(one.root)
                wanted = () if one is empty else (image,)
                self._timed(name, lambda one=one, wanted=wanted: _launched(one, wanted))
        gone(empty)
        agent.start()
        shown = self.testbed.host.docker("run", "--rm", "--network", "none", image, "md5sum", "/bulk")
        if engine.docker("run", "--rm", "--network", "none", image, "md5sum", "/bulk") != shown:
            raise AssertionError(f"{image} has other content in {engine.name}, made anew")

    def cached(self, ours: Ours, image: str) -> None:
        """Bytes in the page cache when all ranges have read the large image, against one."""
        found = []
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
        before = _cached_bytes()
        for engine in ours.ranges.values():
            engine.docker("run", "--rm", "--network", "none", image, "md5sum", "/bulk", seconds=300)
            found.append(_cached_bytes() - before)
        self.page_cache.append(found[-1] / found[0])

    def _timed(self, name: str, step: Any) -> None:
        started = time.monotonic()
        step()
        self.seconds[name].append(time.monotonic() - started)
        sys.stderr.write(f"  {name:<16} {self.seconds[name][-1]:8.2f} s\n")

    def ratios(self) -> dict[str, float]:
        median = {name: statistics.median(all_) for name, all_ in self.seconds.items()}
        return {
            "known_1_vs_tar": round(median["known_1"] / median["tar_1"], 4),
            "known_n_vs_tar_1": round(median["known_n"] / median["tar_1"], 4),
            "known_large_vs_small": round(median["known_1"] / median["known_small"], 3),
            "disk_n_vs_1": round(1 + statistics.median(self.disk) / self.size, 4),
            "page_cache_n_vs_1": round(statistics.median(self.page_cache), 4),
            "first_1_vs_tar": round(median["first_1"] / median["tar_1"], 4),
            "start_vs_pulled": round(median["start_mounted"] / median["start_loaded"], 3),
            "new_range_seconds": round(median["new_range"] - median["empty_start"], 3),
        }


@contextmanager
def mounting(run: Run, kind: str, count: int, program: Path) -> Iterator[Ours]:
    """Services, a layer-mounter and `count` ranges that are shown layers."""
    version, containerd = KINDS[kind]
    lab, made = run.testbed.lab, [run.testbed.name("shown") for _ in range(count)]
    engines: dict[str, EngineServer] = {
        name: lab.engine(name, version=version, containerd_store=containerd, shown=lab.shown(name)) for name in made
    }
    system = System(
        lab=lab,
        redis=run.redis,
        registry=run.registry,
        host=run.testbed.host,
        ranges=engines,
        prefix=run.testbed.name("mounts"),
        mkfs_erofs=program,
    )
    started = [system.services(name=run.testbed.name("services"))]
    started.append(system.services("layer-mounter", name=run.testbed.name("mounter")))
    agents = {name: system.agent(name) for name in made}
    try:
        with system.logbook() as book:
            outboxes = {system.streams.outbox(name): "0-0" for name in made}

            def ready() -> bool:
                able = {m.range_id for m in book.find(AgentStarted, outboxes, lambda m: m.mounts_layers)}
                return able == set(made) and book.mounts()

            if not poll(ready, seconds=120):
                raise MachineError("the ranges are not shown layers")
        yield Ours(run.testbed, system, {}, agents, engines)
    finally:
        gone(*agents.values(), *reversed(started), *engines.values())


def used_bytes(engines: Sequence[EngineServer]) -> int:
    """What their data takes on disk."""
    told = subprocess.run(
        ["du", "--summarize", "--one-file-system", "--block-size=1", *[str(one.root) for one in engines]],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    return sum(int(line.split()[0]) for line in told.splitlines())


def _launched(engine: EngineServer, images: Sequence[str]) -> None:
    """Start the engine, until it answers and has these images. Raises MachineError, AssertionError."""
    engine.launch()
    if not poll(engine.answers, seconds=120, every=0.005):
        raise AssertionError(f"{engine.name} does not answer: {engine.log_tail()}")
    for image in images:
        engine.layers(image)


def _cached_bytes() -> int:
    """What the page cache of this machine holds."""
    line = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("Cached:"))
    return int(line.split()[1]) * 1024


def measure(run: Run, kind: str, options: argparse.Namespace, program: Path) -> dict[str, Any]:
    """One kind of store."""
    sys.stderr.write(f"{kind}\n")
    for _ in range(options.repeats):
        image = run.image(run.size)
        run.tar(kind, image)
        with mounting(run, kind, 1, program) as ours:
            run.known("known_first", ours, run.image(run.size // _SMALLER))  # with the base
            run.known("known_small", ours, run.image(run.size // _SMALLER))
            run.known("known_1", ours, image)
            run.starts("mounted", next(iter(ours.ranges.values())), image)
            run.first("first_1", ours, run.image(run.size))
            run.recreated(kind, ours, image)
        with mounting(run, kind, options.ranges, program) as ours:
            run.known("known_first_n", ours, run.image(run.size // _SMALLER))
            before = used_bytes(list(ours.ranges.values()))
            run.known("known_n", ours, image := run.image(run.size))
            run.disk.append(used_bytes(list(ours.ranges.values())) - before)
            run.cached(ours, image)
    return {
        "seconds": {name: round(statistics.median(all_), 3) for name, all_ in run.seconds.items()},
        "ratios": run.ratios(),
    }


def main(argv: Sequence[str]) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="python -m bench mounts", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", type=int, default=1_000_000_000, help="bytes of the large image (%(default)s)")
    parser.add_argument("--ranges", type=int, default=4, help="how many ranges at once (%(default)s)")
    parser.add_argument("--repeats", type=int, default=1, help="how often each way is run (%(default)s)")
    parser.add_argument("--kinds", default=",".join(KINDS), help="kinds of stores, comma separated (%(default)s)")
    options = parser.parse_args(list(argv))
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/var/tmp") as folder, Lab(folder) as lab:
        assert lab.layers.is_dir()
        testbed = Testbed(lab, lab.engine("host"))
        testbed.host.docker("import", str(lab.base_image_tar()), "mounts/base:1")
        redis, registry = lab.redis(), lab.registry()
        with mkfs_erofs(lab.cache) as program:
            found = {
                kind: measure(Run(testbed, redis, registry, options.size), kind, options, program)
                for kind in options.kinds.split(",")
            }
    return {"image_bytes": options.size, "ranges": options.ranges, "kinds": found, "targets": TARGETS}
