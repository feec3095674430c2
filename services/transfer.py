"""Transfer of one image to one range's engine, for Python code of other CYROID services, without streams or an agent.

Consumes and emits nothing of its own (a push says `image.pushed.v1` only where `services.registry_service` does it).
The ways are the agent's, in the same order, with the range's engine reached over its address:

    there already             nothing, or a name
    the registry              what is missing is pushed, then the range pulls by digest
    a thin tar, a whole tar   host → range, where the registry or the pull fails; only the missing layers if the
                              range's engine takes that

    moved = await transfer_image_to_dind("range-7", "tcp://172.30.1.7:2375", "kali:2026", progress_callback=print)
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from events.bus import BusError
from events.messages import Arrival, Failure
from services.adapters.openers import REAL, Adapters
from services.agent.inspection import Wanted, give_name, inspect_content
from services.agent.load import load
from services.agent.pull import Patience, pull
from services.agent.stall_watch import Activity
from services.content.host_config import host_config
from services.content.registry_config import registry_config
from services.content.registry_image import layers_of, platform_manifest
from services.core.archives import raw_layers
from services.core.deployments.offers import Layout, Offer
from services.core.images.manifests import sha256
from services.core.images.pull_progress import PullProgress
from services.core.images.references import Reference
from services.core.ranges.abilities import layout, left_out
from services.errors import CyroidError, EngineUnavailable, NoSpace, NotFound, RegistryUnavailable, of_bus
from services.ports import Engine, LayerSource, PlainDict, Registry
from services.registry_pusher.image_push import ImagePush
from services.runtime.callbacks import guarded
from services.runtime.telemetry import get_logger
from services.tar_server.exports import Exports
from services.tar_server.spool import Spool, SpoolFolder

if TYPE_CHECKING:
    from services.settings import Settings

log = get_logger(role="transfer")
#: Called with `reference`, `phase` (checking, sending, downloading, extracting, done), `percent`, bytes and layers.
ProgressCallback = Callable[[PlainDict], None]


class Transferred(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The result: how the image got there. `passed_over` says why each better way was not taken, best first."""

    range_id: str
    reference: str
    image_id: str
    how: Arrival
    received_bytes: int = 0
    layers_reused: int = 0
    layers_total: int = 0
    seconds: float = 0.0
    passed_over: tuple[Failure, ...] = ()


async def transfer_image_to_dind(
    range_id: str,
    docker_url: str,
    image: str,
    progress_callback: ProgressCallback | None = None,
    *,
    settings: Settings | None = None,
    adapters: Adapters = REAL,
) -> Transferred:
    """Bring what the host's engine (or the registry) has as `image` to the engine at `docker_url`, under that name.

    Composed by the settings, those of the environment if none are given. A call that returns has done what it says;
    errors are `services.errors`: BadReference, NotFound, EngineUnavailable, NoSpace, TransferFailed and their
    subclasses.
    """
    from services.resources import open_resources
    from services.runtime.environment import read_settings
    from services.tar_server.image_reader import ImageReader

    async with open_resources(settings or read_settings(os.environ), adapters) as resources:
        chosen = resources.settings
        sources = await resources.layer_sources()
        registry, host = await resources.registry(), await resources.host_engine()
        transfer = Transfer(
            host=host,
            sources=sources,
            registry=registry,
            push=await resources.image_push(),
            exports=Exports(
                reader=ImageReader(engine=host, sources=sources, registry=registry),
                folder=SpoolFolder(Path(chosen.spool_folder), limit_bytes=chosen.spool_limit_bytes),
                limit=chosen.exports_limit,
                linger_seconds=0,
            ),
            patience=Patience(stall_seconds=chosen.stall_seconds),
        )
        engine = await resources.engine(docker_url)
        return await transfer.run(range_id, engine, Reference.parse(image), progress_callback)


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """The transfer, over ports: tries one way after the other."""

    host: Engine
    sources: Sequence[LayerSource]
    registry: Registry
    push: ImagePush
    exports: Exports
    patience: Patience
    activity: Activity = field(default_factory=Activity)

    async def run(
        self, range_id: str, engine: Engine, reference: Reference, progress_callback: ProgressCallback | None
    ) -> Transferred:
        started = time.monotonic()
        tell = guarded(progress_callback, f"the progress of {reference.familiar}")
        moving = _Moving(range_id, engine, str(reference), tell)
        moving.say("checking")
        wanted = await self._resolve(reference, engine)
        moved = await self._move(moving, wanted, reference)
        moved = msgspec.structs.replace(moved, seconds=round(time.monotonic() - started, 3))
        moving.say("done")
        about = {"image": moved.reference, "range": range_id, "bytes": moved.received_bytes, "seconds": moved.seconds}
        log.info("transfer", path=moved.how, layers_reused=f"{moved.layers_reused}/{moved.layers_total}", **about)
        return moved

    async def _move(self, moving: _Moving, wanted: Wanted, reference: Reference) -> Transferred:
        here = await inspect_content(moving.engine, wanted)
        if here is not None:
            named = wanted.reference in here.references
            await give_name(moving.engine, wanted, here)
            return moving.moved(wanted, "present" if named else "retagged", 0, len(wanted.diff_ids))
        sourced: Wanted | None = None
        try:
            sourced = await self._sourced(moving, wanted, reference)
        except (CyroidError, BusError) as problem:  # a full registry, or the host's engine away: not the range's
            moving.passed_over(problem)
        info = await moving.engine.info()
        images = await moving.engine.images()
        present = left_out(info.store, wanted.diff_ids, [image.diff_ids for image in images])
        raw, form, layers = raw_layers.raw_of(present, images), layout(info.store), (sourced or wanted).layers
        whole_pull = sourced is not None and not raw_layers.passed_over(wanted.diff_ids, layers, images)
        pull = [partial(self._by_registry, moving, sourced)] if sourced is not None and whole_pull else []
        for_thin = replace(wanted, layers=tuple(layer for layer in layers if layer.diff_id not in raw))
        thin = [partial(self._by_tar, moving, for_thin, present, form)] if present else []
        only_config = set(present).issuperset(wanted.diff_ids)  # a pull may bring layers again that came by load
        for way in (*thin, *pull) if only_config else (*pull, *thin):
            try:
                return await way()
            except (EngineUnavailable, NoSpace):
                raise
            except CyroidError as problem:
                moving.passed_over(problem)
        return await self._by_tar(moving, wanted, (), form)

    async def _resolve(self, reference: Reference, engine: Engine) -> Wanted:
        """The content that the host's engine has under the name; if it has none or is unavailable, what the
        registry has.
        """
        away: EngineUnavailable | None = None
        try:
            image = await self.host.inspect(str(reference))
        except EngineUnavailable as problem:
            image, away = None, problem
        if image is not None:
            image_id = image.image_id or sha256(await host_config(self.sources, image))
            return Wanted(reference=str(reference), image_id=image_id, diff_ids=image.diff_ids)
        try:
            return await self._resolve_in_registry(reference, (await engine.info()).platform)
        except (NotFound, RegistryUnavailable) as problem:
            if away is None:
                raise
            raise EngineUnavailable(f"{away}; nor is there another place to have it from: {problem}") from problem

    async def _resolve_in_registry(self, reference: Reference, platform: str) -> Wanted:
        found = await platform_manifest(self.registry, reference.repository, reference.registry_tag, platform)
        if found is None:
            raise NotFound(f"neither the host's engine nor the registry has {reference.familiar}: build or import it")
        descriptor, manifest = found
        config = await registry_config(self.registry, reference.repository, manifest)
        return Wanted(
            reference=str(reference),
            image_id=manifest.body.config.digest,
            diff_ids=config.rootfs.diff_ids,
            source=f"{self.registry.address}/{reference.repository}@{descriptor.digest}",
            layers=layers_of(manifest, config),
        )

    async def _sourced(self, moving: _Moving, wanted: Wanted, reference: Reference) -> Wanted:
        """The content with its source in the registry, if the registry has it or gets it now."""
        if wanted.source is not None:
            return wanted
        pushed = await self.push.present(reference, wanted.image_id, wanted.diff_ids) or await self.push.push(
            str(reference),
            image_id=wanted.image_id,
            changed=lambda counters: moving.say("sending", counters.done_bytes, counters.total_bytes),
        )
        source = f"{self.registry.address}/{pushed.repository}@{pushed.manifest_digest}"
        return replace(wanted, source=source, layers=pushed.layers)

    async def _by_registry(self, moving: _Moving, wanted: Wanted) -> Transferred:
        progress = await pull(
            moving.engine, wanted, activity=self.activity, patience=self.patience, report=moving.pulled
        )
        return moving.moved(wanted, "pulled", progress.received_bytes, progress.layers_reused)

    async def _by_tar(self, moving: _Moving, wanted: Wanted, present: Sequence[str], form: Layout) -> Transferred:
        held = tuple(diff_id for diff_id in dict.fromkeys(wanted.diff_ids) if diff_id not in present)
        offer = Offer.make(
            token="",  # nobody fetches it: the archive is written by this process
            transfer_id=f"direct-{moving.range_id}",
            reference=wanted.reference,
            image_id=wanted.image_id,
            diff_ids=wanted.diff_ids,
            held=held,
            layout=form,
            now=datetime.now(UTC),
            lifetime_seconds=0,
            range_id=moving.range_id,
            layers=wanted.layers,
        )
        received = 0
        failed: CyroidError | None = None
        async with self.exports.serving():
            try:
                async with self.exports.join(offer) as spool:
                    received = await self._load(moving, wanted, spool)
            except CyroidError as problem:  # raised outside: the group of tasks that serves would wrap it
                failed = problem
        if failed is not None:
            raise failed
        return moving.moved(wanted, "loaded", received, sum(one in present for one in wanted.diff_ids))

    async def _load(self, moving: _Moving, wanted: Wanted, spool: Spool) -> int:
        def report(done: int, ended: bool) -> None:
            moving.say("extracting" if ended else "downloading", done, spool.total_bytes or 0)

        activity, patience = self.activity, self.patience
        return await load(moving.engine, wanted, spool.read(), activity=activity, patience=patience, report=report)


class _Moving:
    """One transfer under way: its progress, and which ways failed."""

    def __init__(self, range_id: str, engine: Engine, reference: str, tell: ProgressCallback) -> None:
        self.range_id = range_id
        self.engine = engine
        self._reference = reference
        self._tell = tell
        self._problems: list[Failure] = []

    def passed_over(self, problem: CyroidError | BusError) -> None:
        failure = (problem if isinstance(problem, CyroidError) else of_bus(problem)).failure()
        self._problems.append(failure)
        about = {"image": self._reference, "range": self.range_id, "code": failure.code}
        log.warning("another way is taken", why=failure.message, **about)

    def moved(self, wanted: Wanted, how: Arrival, received: int, reused: int) -> Transferred:
        return Transferred(
            range_id=self.range_id,
            reference=wanted.reference,
            image_id=wanted.image_id,
            how=how,
            received_bytes=received,
            layers_reused=reused,
            layers_total=len(wanted.diff_ids),
            passed_over=tuple(self._problems),
        )

    def pulled(self, progress: PullProgress) -> None:
        phase = "extracting" if progress.phase == "extracting" else "downloading"
        self.say(phase, progress.done_bytes, progress.total_bytes, progress.layers_done, progress.layers_total)

    def say(self, phase: str, done: int = 0, total: int = 0, layers: int = 0, layers_total: int = 0) -> None:
        percent = 100.0 if phase == "done" else round(100 * done / (total or 1), 1)
        self._tell(
            {
                "reference": self._reference,
                "range_id": self.range_id,
                "phase": phase,
                "percent": percent,
                "done_bytes": done,
                "total_bytes": total,
                "layers_done": layers,
                "layers_total": layers_total,
            }
        )
