"""A push that meets damage in the registry, with the collector beside it: it fails once, and then is right."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import pytest

from events.messages import CheckRequested
from services.adapters.memory_engine import MemoryEngine
from services.core.images.manifests import sha256
from services.core.images.references import Reference
from services.errors import BlobDamaged, TransferFailed
from services.registry_pusher.damage import BlobSizes
from services.registry_pusher.image_push import ImagePush
from services.registry_pusher.layer_encodings import LayerEncodings
from services.registry_pusher.layer_push import LayerPush
from tests.integration.collector.test_role import Site, collecting
from tests.integration.collector.test_scrub import cut
from tests.integration.collector.test_sweep import hexed
from tests.laboratory import RedisServer, RegistryServer
from tests.unit.services.layer_twins import TwinSource

pytestmark = pytest.mark.real


@pytest.fixture
async def site(redis_server: RedisServer, registry_server: RegistryServer) -> AsyncIterator[Site]:
    async with collecting(redis_server, registry_server) as opened:
        yield opened


class Host:
    """An engine in memory, and pushes of its images into the site's registry."""

    def __init__(self, site: Site) -> None:
        self.engine, self._site = MemoryEngine(), site
        source, registry = TwinSource(self.engine), site.store.registry
        sizes = BlobSizes(registry, self._report)
        encodings = LayerEncodings(bus=site.bus, prefix=site.streams.prefix)
        self.push = ImagePush(
            engine=self.engine,
            registry=registry,
            sources=(source,),
            layers=LayerPush(registry=registry, sources=(source,), encodings=encodings, sizes=sizes),
            engine_registry=registry.address,
            manifest_pauses=(),
            sizes=sizes,
        )

    async def _report(self, digest: str) -> None:
        await self._site.say(CheckRequested(digests=(digest,)))

    async def pushed_in_the_end(self, name: str) -> int:
        """The failures before a push succeeds, as its worker would try again."""
        for failures in range(200):
            try:
                await self.push.push(name)
            except TransferFailed:
                continue
            return failures
        raise AssertionError("it never succeeds")


async def test_a_layer_that_was_cut_is_sent_again_by_the_next_image_on_it(site: Site) -> None:
    """Its size is not taken from the registry: the other image's manifest says the true one, and both images are
    whole."""
    host = Host(site)
    base, top, other = os.urandom(3000), os.urandom(500), os.urandom(600)
    names = [f"docker.io/{site.store.name}:{tag}" for tag in ("1", "2")]
    host.engine.add_image(names[0], [base, top])
    host.engine.add_image(names[1], [base, other])
    await host.push.push(names[0])
    cut(site.store.storage.folder(hexed(sha256(base))) / "data")
    with pytest.raises(BlobDamaged):
        await host.push.push(names[1])
    await host.pushed_in_the_end(names[1])
    for name in names:
        reference = Reference.parse(name)
        found = await site.store.registry.manifest(reference.repository, reference.registry_tag)
        assert found is not None
        assert found[1].body.layers[0].size == 3000
    assert site.store.storage.is_intact(hexed(sha256(base)))


async def test_a_manifest_that_was_cut_blocks_its_tag_no_more(site: Site) -> None:
    """The same push writes it anew once the collector has set it aside."""
    host = Host(site)
    name = f"docker.io/{site.store.name}:1"
    host.engine.add_image(name, [os.urandom(500)])
    pushed = await host.push.push(name)
    cut(site.store.storage.folder(hexed(pushed.manifest_digest)) / "data")
    assert await host.pushed_in_the_end(name) > 0
    assert site.store.storage.is_intact(hexed(pushed.manifest_digest))
    found = await site.store.registry.manifest(pushed.repository, pushed.tag)
    assert found is not None
    assert found[0].digest == pushed.manifest_digest
