"""Memory of a push stays flat, however large a layer is."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import tarfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from events.memory.bus import MemoryBus
from services.adapters.engine import DockerEngine
from services.adapters.layer_sources import Folders
from services.adapters.registry import HttpRegistry
from services.registry_pusher.image_push import ImagePush
from services.registry_pusher.layer_encodings import LayerEncodings
from services.registry_pusher.layer_push import LayerPush
from services.registry_pusher.progress import ProgressCounters
from tests.laboratory import EngineServer, RegistryServer

pytestmark = pytest.mark.real

Servers = Callable[[str], EngineServer]


class HugeLayer:
    """A tar with one file of nine gigabytes, made as it is read; its digest is known at its end."""

    size = 9_000_000_005

    def __init__(self, word: str) -> None:
        self._word = word.encode()
        self.state = hashlib.sha256()

    async def chunks(self) -> AsyncIterator[bytes]:
        info = tarfile.TarInfo("t/huge")
        info.size = self.size
        block = self._word + bytes((4 << 20) - len(self._word))
        yield await self._through(info.tobuf(tarfile.GNU_FORMAT))
        for start in range(0, self.size, len(block)):
            yield await self._through(block[: min(len(block), self.size - start)])
        yield await self._through(bytes(-self.size % 512 + 1024))

    async def _through(self, chunk: bytes) -> bytes:
        await asyncio.to_thread(self.state.update, chunk)
        return chunk


async def test_a_file_of_nine_gigabytes(engine_servers: Servers, registry_server: RegistryServer, unique: str) -> None:
    """Its size does not fit the tar header's octal digits; it is pushed with memory flat, and the registry counts its
    digest. A pull would write it a third time, which takes a minute and shows nothing that other pulls do not.
    """
    server, huge = engine_servers("machine"), HugeLayer(unique)
    name = f"docker.io/test/{unique}:1"
    most = 0

    def note(counters: ProgressCounters) -> None:
        nonlocal most
        most = max(most, resident_bytes())

    async with DockerEngine.open(server.url) as engine, HttpRegistry.open(registry_server.url) as registry:
        async with engine.import_root(huge.chunks(), reference=name) as progress:
            async for _ in progress:
                pass
        digest = f"sha256:{huge.state.hexdigest()}"
        try:
            image = await engine.inspect(name)
            assert image is not None
            assert image.diff_ids == (digest,)
            source = Folders(server.root)
            push = ImagePush(
                engine=engine,
                registry=registry,
                sources=(source,),
                layers=LayerPush(
                    registry=registry, sources=(source,), encodings=LayerEncodings(bus=MemoryBus(), prefix="t")
                ),
                engine_registry=registry_server.address,
            )
            before = resident_bytes()  # what making the layer cost is this test's own
            pushed = await push.push(name, changed=note)
            assert (pushed.method, pushed.layers[0].digest) == ("layers", digest)
            assert pushed.layers[0].size_bytes == await registry.blob_size(pushed.repository, digest)
            assert pushed.layers[0].size_bytes > huge.size
            assert before < most < before + (64 << 20)
            await registry.delete_manifest(pushed.repository, pushed.manifest_digest)
        finally:
            await engine.untag(name)
            kept = registry_server.storage / "docker/registry/v2/blobs/sha256" / digest[7:9] / digest[7:]
            await asyncio.to_thread(shutil.rmtree, kept, ignore_errors=True)


def resident_bytes() -> int:
    """Memory of this process now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
