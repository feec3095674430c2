"""An export while the real registry that it reads from dies."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator

import pytest

from services.adapters.memory_engine import MemoryEngine
from services.adapters.registry import HttpRegistry
from services.core.images.manifests import OCI_CONFIG, OCI_LAYER, Descriptor, Manifest, sha256
from services.tar_server.image_reader import ImageReader
from tests.integration.agent.valve import Valve
from tests.laboratory import RegistryServer
from tests.unit.services.layer_twins import TwinSource
from tests.unit.services.twins import chunks

pytestmark = pytest.mark.real
MEGABYTE = 1 << 20


@pytest.mark.parametrize("how", ["killed", "silent"])
async def test_a_layer_goes_on_out_of_the_host(registry_server: RegistryServer, unique: str, how: str) -> None:
    """The registry is killed, or falls silent, half-way through a layer: the host's engine gives the rest."""
    content, name, repository = os.urandom(8 * MEGABYTE), f"docker.io/{unique}/app:1", f"{unique}/app"
    host = MemoryEngine()
    image, config = host.add_image(name, [content]), host.config(name)
    source = TwinSource(host)
    async with (
        Valve.before(registry_server.address) as valve,
        HttpRegistry.open(f"http://{valve.address}", answer_seconds=2, stall_seconds=1) as registry,
    ):
        for blob in (content, config):
            await registry.put_blob(repository, sha256(blob), len(blob), chunks(blob))
        manifest = Manifest.write(
            Descriptor(media_type=OCI_CONFIG, digest=sha256(config), size=len(config)),
            (Descriptor(media_type=OCI_LAYER, digest=sha256(content), size=len(content)),),
        )
        await registry.put_manifest(repository, "1", manifest)
        reader = ImageReader(engine=host, sources=[source], registry=registry)
        opened = await reader.open(name, image.local_id, image.diff_ids)
        valve.close_after(4 * MEGABYTE)
        reading = asyncio.ensure_future(_read(opened.layer(image.diff_ids[0])))
        await valve.closed()
        assert not source.opened
        if how == "killed":
            valve.shut()
            valve.open()
        assert await reading == content
    assert source.opened == list(image.diff_ids)


async def _read(layer: AsyncGenerator[bytes, None]) -> bytes:
    return b"".join([chunk async for chunk in layer])
