"""Kills at each step of the way of mounted layers: `python -m bench killall --mounted`.

Each kill has a new image on its way to a range on either store, and hits one of the two; what was killed comes back
after half a second. Content is read in a container afterwards. At the end the images are removed.

lost    deployments without an outcome, or with another one than success
wrong   content of a range that is not the host's, or a container that started on something else
leaked  mounts on the host, or links in an engine's store, that no image needs any more
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.lab import EngineServer, Lab, Server
from deploy.lab.erofs_tools import mkfs_erofs
from deploy.lab.logbook import LogBook, Mark
from deploy.lab.system import System
from deploy.machine.commands import MachineError
from deploy.machine.polling import poll
from events.bus import Outcome
from events.envelope import Envelope, new_id
from events.messages import (
    DeploymentCancelled,
    DeploymentFailed,
    DeploymentRequested,
    DeploymentSucceeded,
    ImageReady,
    LayersMounted,
    MountRequested,
    PullRequested,
)
from events.records import ANY
from events.redis.bus import RedisBus
from services.adapters.kernel_mounts import mounts_below
from services.adapters.placed_layers import PlacedLayersFile
from services.core.ranges.ranges import RangeKeys

#: In their order: the host is asked for mounts, has made them, the agent is asked to pull, has noted the layers, the
#: engine's store has the first link to them, the image is there.
MOMENTS = ("requested", "mount asked", "mounted", "pull asked", "accepted", "placing", "ready")
#: `engine` is dockerd alone; `range` the container with init, containerd, engine and agent.
VICTIMS = ("layer-mounter", "agent", "engine", "range", "registry", "services")
PLAN = tuple((victim, moment) for moment in MOMENTS for victim in VICTIMS)
_AWAY_SECONDS, _MOMENT_SECONDS, _END_SECONDS, _BACK_SECONDS, _GONE_SECONDS = 0.5, 60.0, 120.0, 90.0, 150.0
_BASE = "mounted-kills/base:1"
_SNAPSHOTS = "containerd/daemon/io.containerd.snapshotter.v1.overlayfs/snapshots"


@dataclass
class MountedResult:
    """What one kill led to. `hit`: before the image was there. `hows`: how it came, by range."""

    victim: str
    moment: str
    hit: bool = False
    seconds: float = 0.0
    hows: dict[str, str] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def line(self) -> str:
        """One line for people."""
        where = self.moment if self.hit else f"{self.moment} (too late)"
        return " ".join([f"{self.victim:<14} {where:<24} {self.seconds:6.1f} s", *self.hows.values(), *self.lost])


class MountedKills:
    """Kills in one installation. `base` is an image with a shell on the host; `names` are the processes in the
    laboratory that have the services and the layer-mounter; `ranges` get each image.
    """

    def __init__(
        self, system: System, book: LogBook, *, base: str, names: tuple[str, str], ranges: Sequence[str]
    ) -> None:
        self._system = system
        self._book = book
        self._base = base
        self._services, self._mounter = (system.lab.server(name) for name in names)
        self._ranges = tuple(ranges)
        self._turns = itertools.cycle(self._ranges)
        self._images: list[str] = []

    def run(self, victim: str, moment: str, bulk_bytes: int = 3_000_000) -> MountedResult:
        """One kill. Raises MachineError when something does not come back."""
        result, aim = MountedResult(victim, moment), next(self._turns)
        image, digest = self._build(bulk_bytes)
        streams = self._system.streams
        mark = self._book.mark(
            streams.host_inbox("local"), streams.deployer, streams.inbox(aim), streams.outbox(aim), streams.deployments
        )
        wanted = {new_id(): range_id for range_id in self._ranges}
        asyncio.run(self._publish(wanted, image))
        poll(lambda: self._is_at(moment, aim, image, mark), seconds=_MOMENT_SECONDS, every=0.003)
        result.hit = moment == "ready" or not self._said(ImageReady, streams.outbox(aim), mark)
        began = time.monotonic()
        self._kill(victim, aim)
        for deployment_id, range_id in wanted.items():
            self._at_end(result, deployment_id, range_id, mark)
            self._at_content(result, range_id, image, digest)
        result.seconds = time.monotonic() - began
        return result

    def leaked(self) -> list[str]:
        """What is left when every image was removed and the agents had time to look."""
        ours = {layer.removeprefix("sha256:") for image in self._images for layer in self._system.host.layers(image)}
        ours -= {layer.removeprefix("sha256:") for layer in self._system.host.layers(self._base)}
        asyncio.run(self._unwant())
        for range_id in self._ranges:
            self._system.ranges[range_id].docker("rmi", *self._images)
        # An agent looks for layers that are not used any more when a transfer has ended.
        asyncio.run(self._publish({new_id(): range_id for range_id in self._ranges}, self._base))

        def left() -> list[str]:
            mounts = [str(point.path) for point in mounts_below(self._system.lab.layers)]
            found = [path for path in mounts if Path(path).name.partition(".")[0] in ours]
            for range_id in self._ranges:
                found += [name for name in linked(self._system.ranges[range_id].root) if name in ours]
            return found

        poll(lambda: not left(), seconds=_GONE_SECONDS, every=0.5)
        return left()

    # ---- steps ----

    def _build(self, bulk_bytes: int) -> tuple[str, str]:
        name, content = f"mounted-kills/image-{os.urandom(4).hex()}:1", os.urandom(bulk_bytes)
        folder = self._system.lab.folder / "mounted-kills"
        folder.mkdir(exist_ok=True)
        (folder / "bulk").write_bytes(content)
        (folder / "Dockerfile").write_text(f"FROM {self._base}\nCOPY bulk /bulk\n")
        self._system.host.docker("build", "--quiet", "--tag", name, str(folder))
        self._images.append(name)
        return name, hashlib.md5(content, usedforsecurity=False).hexdigest()

    def _is_at(self, moment: str, aim: str, image: str, mark: Mark) -> bool:
        streams, engine = self._system.streams, self._system.ranges[aim]
        if moment == "mount asked":
            return self._said(MountRequested, streams.host_inbox("local"), mark, range_id=aim)
        if moment == "mounted":
            return self._said(LayersMounted, streams.deployer, mark, range_id=aim)
        if moment == "pull asked":
            return self._said(PullRequested, streams.inbox(aim), mark)
        if moment == "accepted":
            return bool(PlacedLayersFile(engine.root).read().open)
        if moment == "placing":
            top = self._system.host.layers(image)[-1].removeprefix("sha256:")
            return poll(lambda: top in linked(engine.root), seconds=_MOMENT_SECONDS, every=0.003)
        return moment == "requested" or self._said(ImageReady, streams.outbox(aim), mark)

    def _said(self, kind: type[Any], stream: str, mark: Mark, **fields: str) -> bool:
        found = self._book.find(kind, {stream: mark[stream]})
        return any(all(getattr(one, name) == value for name, value in fields.items()) for one in found)

    def _kill(self, victim: str, aim: str) -> None:
        engine, agent = self._system.ranges[aim], self._system.lab.server(f"agent-{aim}")
        if victim == "engine":
            if not poll(lambda: _dockerd(engine) > 0, seconds=_BACK_SECONDS, every=0.003):
                raise MachineError(f"{engine.name} has no engine that could be killed")
            before = _dockerd(engine)
            os.kill(before, signal.SIGKILL)
            poll(lambda: engine.answers() and _dockerd(engine) != before, seconds=_BACK_SECONDS, every=0.05)
            return
        both: dict[str, list[Server]] = {
            "range": [agent, engine],
            "agent": [agent],
            "registry": [self._system.registry],
        }
        killed = {**both, "layer-mounter": [self._mounter], "services": [self._services]}[victim]
        for server in killed:
            server.kill()
        time.sleep(_AWAY_SECONDS)
        for server in reversed(killed):
            server.start()

    def _at_end(self, result: MountedResult, deployment_id: str, range_id: str, mark: Mark) -> None:
        kinds: Any = DeploymentSucceeded | DeploymentFailed | DeploymentCancelled
        stream = self._system.streams.deployments
        try:
            end = self._book.wait(
                kinds, {stream: mark[stream]}, lambda m: m.deployment_id == deployment_id, seconds=_END_SECONDS
            )
        except MachineError as late:
            result.lost.append(f"{range_id}: {late}")
            return
        if isinstance(end, DeploymentSucceeded):
            result.hows[range_id] = str(end.images[0].how)
        else:
            result.lost.append(f"{range_id}: {end}")

    def _at_content(self, result: MountedResult, range_id: str, image: str, digest: str) -> None:
        """A container either has the right content or is refused; refused it is not for ever."""
        engine, problems = self._system.ranges[range_id], list[str]()

        def right() -> bool:
            with suppress(MachineError):
                said = engine.docker("run", "--rm", "--network", "none", image, "md5sum", "/bulk").split()[0]
                if said != digest:
                    problems.append(f"{range_id}: a container of {image} read {said}, not {digest}")
                return True
            return False

        if not poll(right, seconds=_BACK_SECONDS, every=0.2):
            problems.append(f"{range_id}: no container of {image} starts")
        elif engine.layers(image) != self._system.host.layers(image):
            problems.append(f"{range_id}: {image} has other layers")
        result.wrong += problems

    async def _publish(self, wanted: dict[str, str], image: str) -> None:
        streams = self._system.streams
        requests = [
            Envelope(
                message=DeploymentRequested(deployment_id=deployment_id, range_id=range_id, images=(image,)),
                source="bench",
                subject=range_id,
            )
            for deployment_id, range_id in wanted.items()
        ]
        async with asyncio.timeout(20), RedisBus.open(self._system.redis.url, streams=streams) as bus:
            await bus.publish(streams.deployments, *requests)

    async def _unwant(self) -> None:
        keys = RangeKeys(self._system.prefix)
        writes = tuple(keys.wanted(range_id).delete(expected=ANY) for range_id in self._ranges)
        async with asyncio.timeout(20), RedisBus.open(self._system.redis.url, streams=self._system.streams) as bus:
            await bus.commit(Outcome(records=writes))


def main(only: str | None, seed: int) -> dict[str, Any]:
    """All of them, or those of one victim."""
    with tempfile.TemporaryDirectory(prefix="kill-", dir="/var/tmp") as folder, Lab(folder) as lab:
        assert lab.layers.is_dir()  # made before the engines start
        redis, registry, host = lab.redis(appendfsync="always"), lab.registry(), lab.engine("host")
        host.docker("import", str(lab.base_image_tar()), _BASE)
        ranges = {
            "containerd": lab.engine(
                "containerd", version="28.5", containerd_store=True, shown=lab.shown("containerd")
            ),
            "classic": lab.engine("classic", shown=lab.shown("classic")),
        }
        with mkfs_erofs(lab.cache) as program:
            system = System(
                lab=lab,
                redis=redis,
                registry=registry,
                host=host,
                ranges=ranges,
                settings={"lease_seconds": 5},
                mkfs_erofs=program,
            )
            names = ("services", "mounter")
            system.services(name=names[0])
            system.services("layer-mounter", name=names[1])
            for range_id in ranges:
                system.agent(range_id)
            with system.logbook() as book:
                if not poll(book.mounts, seconds=60):
                    raise MachineError("the layer-mounter does not mount")
                kills = MountedKills(system, book, base=_BASE, names=names, ranges=list(ranges))
                return _report(kills, only, seed)


def _report(kills: MountedKills, only: str | None, seed: int) -> dict[str, Any]:
    plan = [kill for kill in PLAN if only in (None, kill[0])]
    random.Random(seed).shuffle(plan)
    results = []
    for victim, moment in plan:
        results.append(kills.run(victim, moment))
        sys.stderr.write(f"{len(results):4} {results[-1].line()}\n")
    lost, wrong = ([line for one in results for line in getattr(one, name)] for name in ("lost", "wrong"))
    leaked = kills.leaked()
    return {
        "kills": sum(one.hit for one in results),
        "lost": len(lost),
        "wrong": len(wrong),
        "leaked": len(leaked),
        "ways": dict(Counter(how for one in results for how in one.hows.values())),
        "came_too_late": sum(not one.hit for one in results),
        "details": [*lost, *wrong, *leaked],
        "ok": not (lost or wrong or leaked),
    }


def linked(root: Path) -> set[str]:
    """Names of the folders that links of an engine's store lead to."""
    return {Path(os.readlink(link)).name.partition(".")[0] for link in _links(root)}


def _links(root: Path) -> Iterator[Path]:
    for pattern, name in (("overlay2/*", "diff"), (f"{_SNAPSHOTS}/*", "fs")):
        for folder in root.glob(pattern):
            if (folder / name).is_symlink():
                yield folder / name


def _dockerd(engine: EngineServer) -> int:
    """The process id of the engine itself; 0 while there is none."""
    for status in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = status.read_bytes().split(b"\0")
            if words[0].endswith(b"dockerd") and str(engine.root).encode() in words:
                return int(status.parent.name)
    return 0
