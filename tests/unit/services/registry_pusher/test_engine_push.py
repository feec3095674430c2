"""The engine's own push, where no layer source gives what is missing."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from services.adapters.memory_engine import MemoryEngine
from services.adapters.memory_registry import MemoryRegistry
from services.core.images.image import EngineImage
from services.core.images.manifests import (
    OCI_CONFIG,
    OCI_LAYER_GZIP,
    Descriptor,
    Manifest,
    sha256,
)
from services.core.images.references import Reference
from services.errors import LayerUnreadable, RegistryUnavailable, TransferFailed
from services.ports import EngineProgress
from services.runtime import metrics
from tests.unit.services.layer_twins import TwinSource, layer
from tests.unit.services.registry_pusher.site import NAME, Setup
from tests.unit.services.twins import chunks


async def test_what_no_source_gives_the_engine_pushes_itself(setup: Setup) -> None:
    """The last way; the registry's name that it needs is gone from the engine afterwards."""
    image = setup.engine.add_image(NAME, [layer("a")])
    setup.source.broken = {image.diff_ids[0]: None}
    pushed = await setup.push.push(NAME)
    assert (pushed.method, pushed.image_id) == ("docker_push", image.image_id)
    found = await setup.engine.inspect(NAME)
    assert found is not None
    assert found.references == (NAME,)


async def test_a_name_that_a_killed_push_left_goes_with_the_next_one(setup: Setup) -> None:
    """A name under the registry's own address is the pusher's, whoever made it."""
    setup.engine.add_image(NAME, [layer("a")])
    await setup.engine.tag(NAME, "registry:5000/team/app:1")
    setup.use()
    assert (await setup.push.push(NAME)).method == "docker_push"
    found = await setup.engine.inspect(NAME)
    assert found is not None
    assert found.references == (NAME,)


async def test_what_the_engine_packed_is_found_by_the_next_image() -> None:
    """The engine's own push makes gzip: the layer keeps that form, and the next image mounts it."""
    setup = Setup()
    setup.engine = Packing(setup.registry)
    base = setup.engine.add_image("base:1", [layer("base")])
    setup.use()
    (packed,) = (await setup.push.push("base:1")).layers
    assert packed.codec == "gzip"
    setup.engine.add_image(NAME, [layer("base"), layer("own")])
    setup.use(TwinSource(setup.engine))
    pushed = await setup.push.push(NAME)
    assert pushed.layers[0] == packed
    assert base.diff_ids[0] not in setup.sent


class Packing(MemoryEngine):
    """Pushes as a classic engine does: every layer as gzip."""

    def __init__(self, registry: MemoryRegistry) -> None:
        super().__init__(registries={registry.address: registry})
        self._to = registry

    @asynccontextmanager
    async def push(self, reference: str) -> AsyncIterator[AsyncIterator[EngineProgress]]:
        named, image = Reference.parse(reference), await self.inspect(reference)
        assert image is not None
        config = self.config(reference)
        blobs = [gzip.compress(self.store.layers[diff_id], mtime=0) for diff_id in image.diff_ids]
        for blob in (config, *blobs):
            await self._to.put_blob(named.path, sha256(blob), None, chunks(blob))
        described = Descriptor(media_type=OCI_CONFIG, digest=sha256(config), size=len(config))
        layers = (Descriptor(media_type=OCI_LAYER_GZIP, digest=sha256(blob), size=len(blob)) for blob in blobs)
        await self._to.put_manifest(named.path, named.tag or "", Manifest.write(described, tuple(layers)))
        yield _pushed()


async def _pushed() -> AsyncIterator[EngineProgress]:
    yield EngineProgress(status="Pushed")


async def test_a_source_that_does_not_tell_the_config_is_counted(setup: Setup) -> None:
    """Each step down has a number that says why: the config's source, and in the end the engine's own push."""
    setup.engine.add_image(NAME, [layer("a")])

    class Mute(TwinSource):
        async def config(self, image: EngineImage) -> bytes:
            raise LayerUnreadable("it is not mounted")

    def counted(source: str) -> float:
        labels = {"source": source, "reason": "layer_unreadable"}
        return metrics.REGISTRY.get_sample_value("cyroid_layer_source_fallbacks_total", labels) or 0

    before = counted("mute"), counted("all")
    setup.use(Mute(setup.engine, "mute"))
    assert (await setup.push.push(NAME)).method == "docker_push"
    assert (counted("mute"), counted("all")) == (before[0] + 1, before[1] + 1)


async def test_without_sources_the_engine_pushes_itself(setup: Setup) -> None:
    """A host that offers nothing but its API still gets its images in."""
    image = setup.engine.add_image(NAME, [layer("a")])
    setup.use()
    pushed = await setup.push.push(NAME)
    assert (pushed.method, pushed.image_id) == ("docker_push", image.image_id)


async def test_a_containerd_store_image_is_known_by_its_config() -> None:
    """Its engine names images by manifest; the push goes by the config digest that the source's config has."""
    setup = Setup(store="containerd")
    image = setup.engine.add_image(NAME, [layer("a")])
    assert image.image_id is None
    pushed = await setup.push.push(NAME)
    assert pushed.image_id == setup.image_id()
    assert (await setup.push.push(NAME)).method == "present"


async def test_a_layer_nobody_gives_and_an_engine_that_fails_is_an_error(setup: Setup) -> None:
    """No source, and the engine's own push fails: the engine's error comes out and its temporary name is gone."""
    setup.engine.add_image(NAME, [layer("a")])
    setup.use()
    setup.registry.away = True
    with pytest.raises((TransferFailed, RegistryUnavailable, LayerUnreadable)):
        await setup.push.push(NAME)
    found = await setup.engine.inspect(NAME)
    assert found is not None
    assert found.references == (NAME,)
