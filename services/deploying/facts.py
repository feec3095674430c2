"""What is so: asked of the host's engine, of the registry and of the ranges' heartbeats, within a bounded time each.

Nothing that is away raises here: that something is away is a fact too, and the machine decides what follows.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence

import msgspec

from events.bus import Speaker
from events.messages import Layer, LayerCodec
from events.streams import Streams
from events.task_group import TaskGroup
from services.core.codecs import LayerForm, form_key
from services.core.deployment import AgentFacts, Deployment, Facts, HostImage, ImageFacts, ImageState, RegistryImage
from services.core.images import EngineImage
from services.core.manifests import (
    DOCKER_LAYER_GZIP,
    OCI_LAYER_GZIP,
    OCI_LAYER_ZSTD,
    ImageConfig,
    Manifest,
    sha256,
)
from services.core.ranges import KnownRange, RangeKeys
from services.core.references import Reference
from services.deploying.host_content import HostContent
from services.deploying.signs import Signs
from services.errors import BadInput, CyroidError, TransferFailed, WrongContent
from services.ports import Engine, LayerSource, Registry

_CODECS: dict[str, LayerCodec] = {DOCKER_LAYER_GZIP: "gzip", OCI_LAYER_GZIP: "gzip", OCI_LAYER_ZSTD: "zstd"}
_CONFIG_LIMIT_BYTES = 8 * 1024 * 1024


class _Beat(msgspec.Struct, frozen=True):
    engine_id: str | None = None


class Finder:
    """Finds out facts. Configs are remembered by manifest digest, which names their content for ever.

    `sources` tell the content of an image where the host's engine itself cannot.
    """

    def __init__(
        self,
        *,
        speaker: Speaker,
        engine: Engine,
        registry: Registry,
        streams: Streams,
        signs: Signs,
        sources: Sequence[LayerSource] = (),
        timeout_seconds: float = 20.0,
        parallel: int = 8,
        remembered: int = 1000,
    ) -> None:
        self._speaker = speaker
        self._engine = engine
        self._registry = registry
        self._streams = streams
        self._range_keys = RangeKeys(streams.prefix)
        self._signs = signs
        self._content = HostContent(sources)
        self._timeout = timeout_seconds
        self._parallel = asyncio.Semaphore(parallel)
        self._remembered = remembered
        self._images: OrderedDict[tuple[str, str], RegistryImage] = OrderedDict()

    async def facts(self, deployment: Deployment, indexes: Sequence[int], *, agent_is_up: bool) -> Facts:
        """About the range, and about those images."""
        agent = await self._agent(deployment.range_id, agent_is_up)
        async with TaskGroup() as tasks:
            found = {index: tasks.create_task(self._image(deployment, index)) for index in indexes}
        return Facts(agent=agent, images={index: task.result() for index, task in found.items()})

    async def _agent(self, range_id: str, is_up: bool) -> AgentFacts:
        (beat,) = await self._speaker.beats([self._streams.alive(range_id)])
        record = await self._speaker.load(self._range_keys.known(range_id))
        known = msgspec.json.decode(record.value, type=KnownRange) if record else None
        engine_id = beat_engine(beat) or (known.engine_id if known else None)
        same = known is not None and known.engine_id == engine_id  # a new engine has not said what it runs yet
        return AgentFacts(
            alive=is_up or beat is not None,
            engine_id=engine_id,
            platform=known.platform if known and same else None,
            known=known is not None,
        )

    async def _image(self, deployment: Deployment, index: int) -> ImageFacts:
        image = deployment.images[index]
        if image.transfer_id is not None and image.holds_slot:
            life = self._signs.transfer(deployment.range_id, image.transfer_id)
            return ImageFacts(heard_at=life.heard_at, advanced_at=life.advanced_at)
        if image.state not in ("resolving", "pushing"):
            return ImageFacts()
        async with self._parallel, TaskGroup() as tasks:
            asked = tasks.create_task(self._on_host(image))
            looked_up = tasks.create_task(self._in_registry(image.reference))
        found, host_away = asked.result()
        registry, registry_away = looked_up.result()
        return ImageFacts(
            host=await self._host(image, found) if found is not None else None,
            host_away=host_away,
            registry=registry,
            registry_away=registry_away,
            push_heard_at=self._signs.push(image.reference),
            pusher_heard_at=self._signs.any_push,
        )

    async def _on_host(self, image: ImageState) -> tuple[EngineImage | None, str | None]:
        """By name; content that is already chosen is also looked for by its id, the name may have moved on."""
        try:
            async with asyncio.timeout(self._timeout):
                found = await self._engine.inspect(image.reference)
                if image.image_id is not None and not _is_wanted(found, image):
                    found = await self._engine.inspect(image.image_id)
        except TimeoutError:
            return None, f"the host's engine did not answer within {self._timeout:.0f} s"
        except CyroidError as problem:
            return None, str(problem)
        if found is None or (image.image_id is not None and not _is_wanted(found, image)):
            return None, None
        return found, None

    async def _host(self, image: ImageState, found: EngineImage) -> HostImage | None:
        """With the config digest, also where that has to be read for it; None if it is other content after all."""
        image_id = await self._content.image_id(found)
        if None not in (image_id, image.image_id) and image_id != image.image_id:
            return None
        return HostImage(
            image_id=image_id, diff_ids=found.diff_ids, size_bytes=found.size_bytes, platform=found.platform
        )

    async def _in_registry(self, text: str) -> tuple[RegistryImage | None, str | None]:
        reference = Reference.parse(text)
        try:
            async with asyncio.timeout(self._timeout):
                return await self._by_tag(reference.repository, reference.registry_tag), None
        except TimeoutError:
            return None, f"the registry did not answer within {self._timeout:.0f} s"
        except BadInput:
            return None, None  # the tag names no image of one platform: what the host has goes there
        except CyroidError as problem:
            return None, str(problem)

    async def registry_image(self, reference: str, source: str | None) -> RegistryImage | None:
        """What `source` (`host:port/repository@digest`) names, for its layers; None if it cannot be had now."""
        if source is None:
            return None
        key = (Reference.parse(reference).repository, source.rpartition("@")[2])
        if key in self._images:
            return self._images[key]
        try:
            async with asyncio.timeout(self._timeout):
                return await self._by_tag(*key)
        except (TimeoutError, CyroidError):
            return None

    async def blobs(self, image: ImageState) -> tuple[Layer, ...]:
        """The layers as the registry has them; what it cannot say now, as their forms are remembered."""
        found = await self.registry_image(image.reference, image.source)
        if found is not None:
            return found.layers
        diff_ids = tuple(dict.fromkeys(image.diff_ids))
        records = await self._speaker.load_many([form_key(self._streams.prefix, diff_id) for diff_id in diff_ids])
        forms = [msgspec.json.decode(record.value, type=LayerForm) if record else None for record in records]
        return tuple(
            form.layer(diff_id, form.digest, form.size_bytes)
            for diff_id, form in zip(diff_ids, forms, strict=True)
            if form is not None and form.digest is not None and form.size_bytes is not None
        )

    async def _by_tag(self, repository: str, tag: str) -> RegistryImage | None:
        answer = await self._registry.manifest(repository, tag)
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
        wanted, content = manifest.body.config.digest, bytearray()
        async with self._registry.open_blob(repository, wanted) as chunks:
            async for chunk in chunks:
                content += chunk
                if len(content) > _CONFIG_LIMIT_BYTES:
                    raise TransferFailed(f"the config {wanted} in {repository} is larger than {_CONFIG_LIMIT_BYTES}")
        if sha256(bytes(content)) != wanted:
            raise WrongContent(f"the registry's config of {repository}@{digest} is not {wanted}")
        config = ImageConfig.parse(bytes(content))
        diff_ids, blobs = config.rootfs.diff_ids, manifest.body.layers
        if len(diff_ids) != len(blobs):
            raise BadInput(f"{repository}@{digest} names {len(blobs)} layers, its config {len(diff_ids)}")
        layers = tuple(
            Layer(digest=blob.digest, diff_id=diff_id, size_bytes=blob.size, codec=_CODECS.get(blob.media_type, "raw"))
            for blob, diff_id in zip(blobs, diff_ids, strict=True)
        )
        return RegistryImage(
            source=f"{self._registry.address}/{repository}@{digest}",
            image_id=wanted,
            diff_ids=diff_ids,
            layers=layers,
            platform=config.platform,
        )


def _is_wanted(found: EngineImage | None, image: ImageState) -> bool:
    return found is not None and image.image_id is not None and found.is_content(image.image_id, image.diff_ids)


def beat_engine(beat: bytes | None) -> str | None:
    """The engine id in a heartbeat; the range wrote it, so it may be anything."""
    try:
        return None if beat is None else msgspec.json.decode(beat, type=_Beat).engine_id
    except msgspec.DecodeError:
        return None
