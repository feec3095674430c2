"""Facts of a deployment: queried from the hosts, the registry and heartbeats, each within a bounded time.

A dependency that is unavailable raises nothing here: that is a fact too, and the state machine decides what follows.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from events.bus import BusClient
from events.messages import Layer, Provenance
from events.records import load_all, load_both
from events.streams import Streams
from events.task_group import TaskGroup
from services.content.registry_config import registry_config
from services.content.registry_image import layers_of, platform_manifest
from services.core.deployments.deployment import Deployment, ImageState
from services.core.deployments.facts import AgentFacts, Facts, HostImage, ImageFacts, RegistryImage
from services.core.images.encodings import encoding_key
from services.core.images.image import Store
from services.core.images.manifests import (
    Manifest,
)
from services.core.images.read_model import ReadModelKeys
from services.core.images.references import Reference
from services.core.ranges.contest import ContestKeys
from services.core.ranges.heartbeat import engine_of
from services.core.ranges.ranges import KnownRange, RangeKeys
from services.deployer.liveness import Liveness
from services.deployer.recent_answers import RecentAnswers
from services.deployer.recent_looks import HostFinder, RecentLooks
from services.errors import BadInput, CyroidError
from services.ports import Registry

if TYPE_CHECKING:
    from services.content.image_signatures import ImageSignatures  # loads cryptography: 8 MB


class FactFinder:
    """Finds out facts. Configs are cached by manifest digest, which identifies their content.

    `host` is that of ranges which do not say where they are.
    """

    def __init__(
        self,
        *,
        bus: BusClient,
        hosts: HostFinder,
        registry: Registry,
        streams: Streams,
        liveness: Liveness,
        host: str = "local",
        signatures: ImageSignatures | None = None,
        timeout_seconds: float = 20.0,
        parallel: int = 8,
        remembered: int = 1000,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._bus = bus
        self._hosts = hosts
        self._looks = RecentLooks(hosts, clock)
        self._clock = clock
        #: For images that nobody pushes at the moment: what is there after a push is to be seen at once.
        self._answers: RecentAnswers[tuple[str, str | None], ImageFacts] = RecentAnswers()
        self._registry = registry
        self._streams = streams
        self._host_id = host
        self._range_keys = RangeKeys(streams.prefix)
        self._contests = ContestKeys(streams.prefix)
        self._read_model = ReadModelKeys(streams.prefix)
        self._signatures = signatures
        self._liveness = liveness
        self._timeout = timeout_seconds
        self._parallel = asyncio.Semaphore(parallel)
        self._remembered = remembered
        self._images: OrderedDict[tuple[str, str], RegistryImage] = OrderedDict()

    async def facts(self, deployment: Deployment, indexes: Sequence[int], *, agent_is_up: bool) -> Facts:
        """About the range, and about those images."""
        agent = await self._agent(deployment.range_id, agent_is_up)
        async with TaskGroup() as tasks:
            found = {
                index: tasks.create_task(self._image(deployment, index, deployment.platform or agent.platform))
                for index in indexes
            }
        return Facts(agent=agent, images={index: task.result() for index, task in found.items()})

    async def _agent(self, range_id: str, is_up: bool) -> AgentFacts:
        (beat,) = await self._bus.beats([self._streams.alive(range_id)])
        stored, contest = await load_both(self._bus, self._range_keys.known(range_id), self._contests.record(range_id))
        known = stored.value
        engine_id = engine_of(beat) or (known.engine_id if known else None)
        same = known is not None and known.engine_id == engine_id  # a new engine has not said what it runs yet
        return AgentFacts(
            alive=is_up or beat is not None,
            engine_id=engine_id,
            platform=known.platform if known and same else None,
            known=known is not None,
            contested=contest.value.explain() if contest.value is not None else None,
            host=known.host if known else "",
        )

    async def _image(self, deployment: Deployment, index: int, platform: str | None) -> ImageFacts:
        image = deployment.images[index]
        if image.transfer_id is not None and image.holds_slot:
            life = self._liveness.transfer(deployment.range_id, image.transfer_id)
            if image.state == "mounting":
                registry = await self.registry_image(image.reference, image.source)
                return ImageFacts(registry=registry, heard_at=life.heard_at, advanced_at=life.advanced_at)
            return ImageFacts(heard_at=life.heard_at, advanced_at=life.advanced_at)
        if image.state not in ("resolving", "pushing"):
            return ImageFacts()
        now, question = self._clock(), (image.reference, platform)
        known = self._answers.find(question, since=image.since, now=now) if image.state == "resolving" else None
        if known is None:
            async with self._parallel, TaskGroup() as tasks:
                asked = tasks.create_task(self._on_host(image))
                looked_up = tasks.create_task(self._registry_facts(image.reference, platform))
            (host, host_away), known = asked.result(), looked_up.result()
            if known.registry is not None and known.unsigned is None:
                self._answers.keep(question, known, now)
        else:
            async with self._parallel:
                host, host_away = await self._on_host(image)
        return replace(
            known,
            host=host,
            host_away=host_away,
            push_heard_at=self._liveness.push(image.reference),
            pusher_heard_at=self._liveness.any_push,
        )

    async def _registry_facts(self, reference: str, platform: str | None) -> ImageFacts:
        """What the registry has for `platform`, and where that came from."""
        registry, registry_away, registry_unfit = await self._in_registry(reference, platform)
        provenance, unsigned = None, None
        if registry is not None:
            provenance, unsigned, registry_away = await self._provenance(reference, registry)
            registry = registry if registry_away is None else None
        return ImageFacts(
            registry=registry,
            registry_away=registry_away,
            registry_unfit=registry_unfit,
            provenance=provenance,
            unsigned=unsigned,
        )

    async def _provenance(
        self, reference: str, registry: RegistryImage
    ) -> tuple[Provenance | None, str | None, str | None]:
        """Where the registry's image came from; why it counts as unsigned; why that is not known."""
        digest = registry.source.rpartition("@")[2]
        unsigned: str | None = None
        if self._signatures is not None:
            try:
                async with asyncio.timeout(self._timeout):
                    unsigned = await self._signatures.problem(Reference.parse(reference).repository, digest)
            except TimeoutError:
                return None, None, f"the registry told no signature of {reference} within {self._timeout:.0f} s"
            except CyroidError as problem:
                return None, None, str(problem)
        entry = (await self._read_model.image(reference).load(self._bus)).value
        pushed = entry if entry is not None and entry.manifest_digest == digest else None
        provenance = Provenance(
            manifest_digest=digest,
            actor=pushed.actor if pushed else "",
            source=pushed.source if pushed else "",
            signed=self._signatures is not None and unsigned is None,
        )
        return provenance, unsigned, None

    async def _on_host(self, image: ImageState) -> tuple[HostImage | None, str | None]:
        """What a host has; content that is already chosen also by its id, since the name may have moved."""
        try:
            async with asyncio.timeout(self._timeout):
                return await self._looks.find(image)
        except TimeoutError:
            return None, f"no host answered within {self._timeout:.0f} s"

    async def tar_url(self, host: str) -> str | None:
        """The tar server of the host that has an image. Raises BusError."""
        return await self._hosts.tar_url(host)

    async def _in_registry(
        self, text: str, platform: str | None
    ) -> tuple[RegistryImage | None, str | None, str | None]:
        """What is there for `platform`; why that is not known; why what is there is no image that a range can run."""
        reference = Reference.parse(text)
        try:
            async with asyncio.timeout(self._timeout):
                return await self._by_tag(reference.repository, reference.registry_tag, platform), None, None
        except TimeoutError:
            return None, f"the registry did not answer within {self._timeout:.0f} s", None
        except BadInput as problem:
            return None, None, str(problem)  # what the host has goes there
        except CyroidError as problem:
            return None, str(problem), None

    async def mountable(self, deployments: Sequence[Deployment]) -> dict[str, Store]:
        """By deployment id, the store of the range's engine; without those whose host no layer-mounter serves, or whose
        engine takes no mounted layers. Raises BusError.
        """
        hosts = list(dict.fromkeys(one.host or self._host_id for one in deployments))
        beats = await self._bus.beats([self._streams.mounter_alive(host) for host in hosts])
        served = {host for host, beat in zip(hosts, beats, strict=True) if beat is not None}
        asked = [one for one in deployments if (one.host or self._host_id) in served]
        known = await load_all(self._bus, [self._range_keys.known(one.range_id) for one in asked])
        stores = {one.deployment_id: _mounts(stored.value, one) for one, stored in zip(asked, known, strict=True)}
        return {ident: store for ident, store in stores.items() if store is not None}

    async def registry_image(self, reference: str, source: str | None) -> RegistryImage | None:
        """What `source` (`host:port/repository@digest`) names, for its layers; None if it cannot be had now."""
        if source is None:
            return None
        key = (Reference.parse(reference).repository, source.rpartition("@")[2])
        if key in self._images:
            return self._images[key]
        try:
            async with asyncio.timeout(self._timeout):
                return await self._by_tag(*key, None)
        except (TimeoutError, CyroidError):
            return None

    async def blobs(self, image: ImageState) -> tuple[Layer, ...]:
        """The layers as the registry has them; what it cannot say now, as their forms are remembered."""
        found = await self.registry_image(image.reference, image.source)
        if found is not None:
            return found.layers
        diff_ids = tuple(dict.fromkeys(image.diff_ids))
        encodings = await load_all(self._bus, [encoding_key(self._streams.prefix, diff_id) for diff_id in diff_ids])
        return tuple(
            form.layer(diff_id, form.digest, form.size_bytes)
            for diff_id, form in zip(diff_ids, (stored.value for stored in encodings), strict=True)
            if form is not None and form.digest is not None and form.size_bytes is not None
        )

    async def _by_tag(self, repository: str, tag: str, platform: str | None) -> RegistryImage | None:
        answer = await platform_manifest(self._registry, repository, tag, platform)
        if answer is None:
            return None
        descriptor, manifest = answer
        key = (repository, descriptor.digest)
        if key not in self._images:
            self._images[key] = await self._read(repository, descriptor.digest, manifest)
            while len(self._images) > self._remembered:
                self._images.popitem(last=False)
        self._images.move_to_end(key)
        return self._images[key]

    async def _read(self, repository: str, digest: str, manifest: Manifest) -> RegistryImage:
        config = await registry_config(self._registry, repository, manifest)
        return RegistryImage(
            source=f"{self._registry.address}/{repository}@{digest}",
            image_id=manifest.body.config.digest,
            diff_ids=config.rootfs.diff_ids,
            layers=layers_of(manifest, config),
            platform=config.platform,
        )


def _mounts(known: KnownRange | None, deployment: Deployment) -> Store | None:
    """The store of a range's engine, if that takes mounted layers and is still the one that the deployment knows."""
    if known is None or not known.mounts_layers or deployment.engine_id not in (None, known.engine_id):
        return None
    return known.store
