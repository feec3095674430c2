"""Quarantine is listed and undone by hand; a blob that a push found damaged is checked."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator

import pytest

from events.messages import CheckRequested, CollectRequested, PushRequested, RestoreRequested
from services.commands.store import collect, delete_image, restoration
from services.core.images.manifests import sha256
from services.core.store.quarantine import quarantine_key
from tests.integration.collector.test_role import Site, collecting, eventually_published
from tests.integration.collector.test_scrub import cut
from tests.integration.collector.test_sweep import DAY, hexed
from tests.laboratory import RedisServer, RegistryServer

pytestmark = pytest.mark.real


@pytest.fixture
def later() -> list[float]:
    """Seconds that the collector's clock is ahead."""
    return [0.0]


@pytest.fixture
async def site(redis_server: RedisServer, registry_server: RegistryServer, later: list[float]) -> AsyncIterator[Site]:
    async with collecting(redis_server, registry_server, lambda: time.time() + later[0]) as opened:
        yield opened


async def collected_until_set_aside(site: Site, later: list[float], digest: str) -> None:
    for _ in range(8):
        later[0] += 2 * DAY
        await collect(site.bus, site.streams, CollectRequested(), source="test")
        if site.store.storage.blob(hexed(digest)).quarantined_bytes is not None:
            return
    raise AssertionError("it was not set aside")


async def test_an_image_comes_back_from_quarantine_whole(site: Site, later: list[float]) -> None:
    """Its manifest is listed with its repository; restored, it can be pulled by digest and tagged again."""
    layer = os.urandom(3000)
    manifest = await site.store.push("1", layer)
    await delete_image(site.bus, site.streams, site.reference, source="test")
    await collected_until_set_aside(site, later, manifest.digest)
    aside = (await quarantine_key(site.streams.prefix).load(site.bus)).value
    assert aside is not None
    (listed,) = [one for one in aside.listed if one.digest == manifest.digest]
    assert listed.repositories == (site.store.name,)
    command = RestoreRequested(digests=(manifest.digest,))
    back = await restoration(site.asking, command)
    assert {manifest.digest, manifest.body.config.digest, sha256(layer)} == set(back.restored)
    assert back.missing == ()
    assert (await site.store.registry.manifest(site.store.name, manifest.digest) or (None, None))[1] == manifest
    assert await site.store.registry.blob_size(site.store.name, sha256(layer)) == 3000
    await collect(site.bus, site.streams, CollectRequested(), source="test")
    assert site.store.there(manifest.digest)


async def test_what_is_nowhere_is_told(site: Site) -> None:
    """A digest that is neither there nor in quarantine is missing."""
    unknown = sha256(os.urandom(8))
    back = await restoration(site.asking, RestoreRequested(digests=(unknown,)))
    assert (back.restored, back.missing) == ((), (unknown,))


async def test_a_blob_that_a_push_suspects_is_hashed_and_set_aside(site: Site) -> None:
    """A damaged one is taken away, and the images that need it are asked for; a sound one stays."""
    layer, sound = os.urandom(3000), os.urandom(3000)
    await site.store.push("1", layer, sound)
    cut(site.store.storage.folder(hexed(sha256(layer))) / "data")
    asked = await site.say(CheckRequested(digests=(sha256(layer), sha256(sound))))
    (push,) = await eventually_published(site, asked.id)
    assert isinstance(push, PushRequested)
    assert push.reference == site.reference
    assert not site.store.there(sha256(layer))
    assert site.store.there(sha256(sound))
