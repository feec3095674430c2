"""Mounted layers against a tar stream and against unpacked layers, on each kind of store.

`python -m bench transfer --mounted [--size BYTES] [--huge BYTES]`. One image serves all ways: from a registry that
holds it already ("known") to one range and to sixteen, and from a registry that holds nothing ("first", push included);
a tar stream to cold ranges of the same kind is what these are compared with. Starts and reads are compared with an
engine that has unpacked the same layers. Content is read back in a container of each range.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from bench.transfer.images import build_import, build_large, build_small_files
from bench.transfer.methods import Ours, pull, tar
from bench.transfer.mounted_report import report, table
from bench.transfer.mounting import cached_bytes, drop_caches, launched, mounting, read_all, used_bytes
from bench.transfer.testbed import Testbed, copied, gone
from deploy.lab import EngineServer, Lab, RedisServer, RegistryServer
from deploy.lab.erofs_tools import mkfs_erofs
from deploy.machine.polling import poll
from services.core.images.references import Reference

#: Kind → version of the engine (None: the machine's own), and whether it is on containerd's store.
KINDS: dict[str, tuple[str | None, bool]] = {
    "20.10-classic": (None, False),
    "28.5-classic": ("28.5", False),
    "28.5-containerd": ("28.5", True),
}
_SMALLER_BYTES = 100_000_000
_STARTS, _READS, _TINY = 5, 3, 5
_LARGE_FILES = "cat /large/*.img"
_SMALL_FILES = "find /many -type f | xargs cat"


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """What is on the host: one large image, and those that each way of measuring needs of its own."""

    large: str
    files: str
    tiny: tuple[str, ...]
    smaller: tuple[str, ...]
    huge: str | None

    @classmethod
    def build(cls, host: EngineServer, root_tar: Path, options: argparse.Namespace) -> Images:
        def imported(name: str, size_bytes: int) -> str:
            return build_import(host, root_tar, f"bench-{name}:1", size_bytes)

        return cls(
            large=build_large(host, root_tar, options.size),
            files=build_small_files(host, root_tar, options.files),
            tiny=tuple(imported(f"tiny-{number}", 1_000_000) for number in range(_TINY)),
            smaller=tuple(imported(f"smaller-{number}", min(_SMALLER_BYTES, options.size)) for number in range(3)),
            huge=imported("huge", options.huge) if options.huge else None,
        )

    @property
    def known(self) -> tuple[str, ...]:
        """Those that the registry has beforehand."""
        return (*self.tiny, *self.smaller, self.files, self.large, *([self.huge] if self.huge else []))


@dataclass
class KindRun:
    """What is measured on one kind of store: lists of seconds by name, and ratios of bytes."""

    testbed: Testbed
    redis: RedisServer
    kind: str
    images: Images
    image_bytes: int
    digest: str
    program: Path
    many: int
    written: bool
    seconds: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    bytes_ratios: dict[str, float] = field(default_factory=dict)

    def measure(self, registry: RegistryServer) -> dict[str, Any]:
        """All of it; `registry` has the known images."""
        sys.stderr.write(f"{self.kind}\n")
        self._tar_4()
        with ExitStack() as stack:
            unpacked = self._engine("cold")
            stack.callback(gone, unpacked)
            self._timed("tar_1", lambda: tar(self.testbed, [unpacked], self.images.large))
            self._first_start("pulled", unpacked, self.images.large)
            for image in (*self.images.tiny, self.images.files):
                reference = Reference.parse(image)
                name = f"{registry.address}/{reference.repository}:{reference.registry_tag}"
                pull(self.testbed, [unpacked], name, image)
            with self._mounting(1, registry) as ours:
                self._known_to_one(ours, unpacked)
        with self._mounting(self.many, registry) as ours:
            self._known_to_many(ours)
        for count in (1, 4):
            self._first(count)
        return report(self.kind, self.seconds, self.bytes_ratios, many=self.many)

    def _tar_4(self) -> None:
        cold = [self._engine("cold") for _ in range(4)]
        try:
            self._timed("tar_4", lambda: tar(self.testbed, cold, self.images.large))
        finally:
            gone(*cold)

    def _known_to_one(self, ours: Ours, unpacked: EngineServer) -> None:
        (engine,) = ours.ranges.values()
        self._prepared(ours, *self.images.known)
        for image in (*self.images.tiny, self.images.files):
            self._deployed("known_tiny", ours, image)
        for image in self.images.smaller:
            self._deployed("known_100MB", ours, image)
        self._deployed("known_1", ours, self.images.large)
        self._first_start("mounted", engine, self.images.large)
        self._check(engine)
        for image in self.images.tiny:
            self._first_start("mounted", engine, image)
            self._first_start("pulled", unpacked, image)
        both = {"mounted": engine, "pulled": unpacked}
        for _ in range(_STARTS):
            for name, one in both.items():
                self._timed(f"start_{name}", partial(_start, one, self.images.large))
        for _ in range(_READS):
            for name, one in both.items():
                self._read(f"cold_read_{name}", one, self.images.large, _LARGE_FILES)
                self._read(f"small_files_{name}", one, self.images.files, _SMALL_FILES)
                self._read(f"small_files_warm_{name}", one, self.images.files, _SMALL_FILES, cold=False)
        if self.images.huge:
            self._deployed("known_huge", ours, self.images.huge)
            self._check_huge(engine, self.images.huge)

    def _known_to_many(self, ours: Ours) -> None:
        """To all at once; what that takes on disk, and in the page cache once all have read it."""
        self._prepared(ours, self.images.tiny[0], self.images.large)
        self._deployed("known_tiny_many", ours, self.images.tiny[0])
        before = used_bytes(list(ours.ranges.values()))
        self._deployed(f"known_{self.many}", ours, self.images.large)
        grown = used_bytes(list(ours.ranges.values())) - before
        self.bytes_ratios["disk_16_vs_1"] = round(1 + grown / self.image_bytes, 4)
        drop_caches()
        for engine in ours.ranges.values():  # what starting containers needs is no matter of the image
            _start(engine, self.images.large)
        before, found = cached_bytes(), list[int]()
        engines = list(ours.ranges.values())
        for engine in engines:  # all read all of it; to compute the digest in each would take most of the time
            if engine in (engines[0], engines[-1]):
                self._check(engine)
            else:
                engine.docker(*_RUN, self.images.large, "sh", "-c", f"{_LARGE_FILES} >/dev/null", seconds=600)
            found.append(cached_bytes() - before)
        self.bytes_ratios["page_cache_16_vs_1"] = round(found[-1] / max(found[0], 1), 4)

    def _first(self, count: int) -> None:
        """Into a registry that holds nothing, and to ranges that hold nothing."""
        with self.testbed.registry() as registry, self._mounting(count, registry) as ours:
            told: dict[str, float] = {}
            read_all(self.testbed.host, self.images.large)  # as after a build, and as the copy below finds its source
            self._timed(f"first_{count}", lambda: told.update(ours.deploy(self.images.large)))
            if told["range_bytes"] > self.image_bytes // 100:
                raise AssertionError(f"{self.images.large} was sent to a range ({told['range_bytes']:.0f} bytes)")
            for engine in ours.ranges.values():
                self._check(engine)
            if count == 1:
                self.seconds["ingest"].append(told["push_seconds"])
                target = self.testbed.lab.folder / "copy"
                self._timed("copy", lambda: copied(registry.storage / "docker/registry/v2/blobs", target))
                shutil.rmtree(target)
                self._recreated(ours)

    def _recreated(self, ours: Ours) -> None:
        """From the start of an engine that has lost its data until it has the image; and what one takes to its first
        answer that is to have nothing. No agent runs meanwhile: nobody tells the range anything.
        """
        ((range_id, engine),) = ours.ranges.items()
        agent, lab = ours.agents[range_id], self.testbed.lab
        seeds = lab.shown(range_id) / "seeds"
        if not poll(lambda: seeds.is_dir() and any(seeds.iterdir()), seconds=60):
            raise AssertionError("the range is shown nothing that its next engine starts with")
        empty = self._engine("empty", shown=True)
        agent.stop()
        for _ in range(_STARTS):
            for name, one in (("empty_start", empty), ("new_range", engine)):
                one.stop()
                shutil.rmtree(one.root)
                wanted = () if one is empty else (self.images.large,)
                self._timed(name, partial(launched, one, wanted))
        gone(empty)
        self._check(engine)

    # ---- steps ----

    def _engine(self, name: str, *, shown: bool = False) -> EngineServer:
        version, containerd = KINDS[self.kind]
        lab, own = self.testbed.lab, self.testbed.name(name)
        return lab.engine(own, version=version, containerd_store=containerd, shown=lab.shown(own) if shown else None)

    def _mounting(self, count: int, registry: RegistryServer) -> Any:
        return mounting(
            self.testbed,
            self.redis,
            registry,
            [self._engine("shown", shown=True) for _ in range(count)],
            self.program,
            written=self.written,
        )

    def _prepared(self, ours: Ours, *images: str) -> None:
        """Push what the registry has, until the layer-mounter has made what it makes after each push."""
        wanted = [diff_id.removeprefix("sha256:") for one in images for diff_id in self.testbed.host.layers(one)]
        made = [self.testbed.lab.layers / "index" / f"{digits}.split" for digits in wanted]
        for image in images:
            ours.pushed(image)
        if not poll(lambda: all(path.exists() for path in made), seconds=300):
            raise AssertionError("the layer-mounter has not prepared what was pushed")

    def _deployed(self, name: str, ours: Ours, image: str) -> None:
        """Deploy to every range, mounted. Raises AssertionError where it came in another way."""
        found: list[Any] = []
        self._timed(name, lambda: found.extend(ours.outcomes(image)))
        sent = [one for one in found if one.how != "mounted"]
        if sent:
            raise AssertionError(f"{image} was not mounted: {sent[0].not_mounted}")

    def _first_start(self, name: str, engine: EngineServer, image: str) -> None:
        self._timed(f"first_start_{name}", lambda: _start(engine, image))

    def _read(self, name: str, engine: EngineServer, image: str, command: str, *, cold: bool = True) -> None:
        """Seconds that reading takes in a container, without the container's start."""
        if cold:
            drop_caches()
        clock = "read now rest </proc/uptime; echo $now"
        said = engine.docker(*_RUN, image, "sh", "-c", f"{clock}; {command} >/dev/null; {clock}", seconds=600)
        began, ended = map(float, said.split())
        self._note(name, max(ended - began, 0.01))

    def _check(self, engine: EngineServer) -> None:
        if content_digest(engine, self.images.large) != self.digest:
            raise AssertionError(f"{self.images.large} has other content in {engine.name}")

    def _check_huge(self, engine: EngineServer, image: str) -> None:
        """Both ends and the size: to read all of it says little more about where its blocks are."""
        command = "stat -c %s /bulk; head -c 1000000 /bulk | md5sum; tail -c 1000000 /bulk | md5sum"
        found, wanted = (
            one.docker(*_RUN, image, "sh", "-c", command, seconds=600) for one in (engine, self.testbed.host)
        )
        if found != wanted:
            raise AssertionError(f"{image} has other content in {engine.name}")

    def _timed(self, name: str, step: Callable[[], object]) -> None:
        started = time.monotonic()
        step()
        self._note(name, time.monotonic() - started)

    def _note(self, name: str, seconds: float) -> None:
        self.seconds[name].append(seconds)
        sys.stderr.write(f"  {name:<26} {seconds:8.2f} s\n")
        sys.stderr.flush()


_RUN = ("run", "--rm", "--network", "none")


def content_digest(engine: EngineServer, image: str) -> str:
    """Of the large files, as a container reads them."""
    return engine.docker(*_RUN, image, "sh", "-c", f"{_LARGE_FILES} | md5sum", seconds=600)


def _start(engine: EngineServer, image: str) -> None:
    engine.docker(*_RUN, image, "true")


def measure(lab: Lab, options: argparse.Namespace) -> dict[str, Any]:
    """All kinds of stores that are asked for, in one laboratory."""
    assert lab.layers.is_dir()  # before the first engine, so that it is shown there
    testbed = Testbed(lab, lab.engine("host"))
    sys.stderr.write("building the images\n")
    images = Images.build(testbed.host, lab.base_image_tar(), options)
    redis, registry = lab.redis(), lab.registry()
    image_bytes, digest = testbed.image(images.large).size_bytes, content_digest(testbed.host, images.large)
    kinds: dict[str, Any] = {}
    with mkfs_erofs(lab.cache) as program:
        for number, kind in enumerate(options.kinds.split(",")):
            run = KindRun(
                testbed,
                redis,
                kind,
                images,
                image_bytes,
                digest=digest,
                program=program,
                many=options.many,
                written=not options.sent,
            )
            if not number:
                with mounting(testbed, redis, registry, [], program) as ours:
                    for image in images.known:
                        ours.pushed(image)
            kinds[kind] = run.measure(registry)
    table(kinds)
    asked = {"huge_bytes": options.huge, "ranges": options.many, "written": not options.sent}
    return {"image_bytes": image_bytes, **asked, "kinds": kinds}
