"""What engines do when the other side hangs, breaks off or gives wrong bytes, and that leaving ends their work."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from services.adapters.engine import DockerEngine
from services.core.images.manifests import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, Descriptor, Manifest, sha256
from services.errors import CyroidError, EngineUnavailable, Stalled
from services.ports import Chunks
from tests.conftest import ENGINE_KINDS
from tests.images import LAYOUTS, archive_of, config_of, tar_of
from tests.integration.engines import pull
from tests.integration.faulty_registry import answering
from tests.laboratory import EngineServer, Lab

pytestmark = pytest.mark.real
BOUND_SECONDS = 60


class HangingRegistry:
    """Serves one image whose layer comes half; then nothing until `resume`; `left` says that the engine hung up."""

    def __init__(self) -> None:
        self.layer = tar_of({"t/file": os.urandom(40_000_000)})
        config = config_of([sha256(self.layer)])
        described = [
            Descriptor(media_type=kind, digest=sha256(content), size=len(content))
            for kind, content in ((OCI_CONFIG, config), (OCI_LAYER, self.layer))
        ]
        self.manifest = Manifest.write(described[0], (described[1],))
        self.blobs = {sha256(config): config}
        self.address = ""
        self.hanging = asyncio.Event()
        self.resume = asyncio.Event()
        self.left = asyncio.Event()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        digest = request.path.rpartition("/")[2]
        if "/manifests/" in request.path:
            headers = {"Content-Type": OCI_MANIFEST, "Docker-Content-Digest": self.manifest.digest}
            return web.Response(body=self.manifest.content, headers=headers)
        if digest in self.blobs:
            return web.Response(body=self.blobs[digest], content_type="application/octet-stream")
        if digest != sha256(self.layer):
            return web.Response()
        response = web.StreamResponse(headers={"Content-Length": str(len(self.layer))})
        await response.prepare(request)
        await response.write(self.layer[: len(self.layer) // 2])
        self.hanging.set()
        try:
            await self.resume.wait()
            for start in range(len(self.layer) // 2, len(self.layer), 1 << 16):
                await response.write(self.layer[start : start + (1 << 16)])
        except (asyncio.CancelledError, ConnectionError):
            self.left.set()
            raise
        return response


@asynccontextmanager
async def hanging_registry() -> AsyncIterator[HangingRegistry]:
    """On a loopback port of its own."""
    registry = HangingRegistry()
    # The handler is cancelled when the engine hangs up: that is how the test sees it.
    async with answering(registry.handle) as registry.address:
        yield registry


async def load(engine: DockerEngine, archive: Chunks) -> None:
    """Load to the end."""
    async with engine.load(archive) as progress:
        async for _ in progress:
            pass


@pytest.fixture(params=list(ENGINE_KINDS))
def server(request: pytest.FixtureRequest, engine_servers: Callable[[str], EngineServer]) -> EngineServer:
    """An engine of each kind."""
    return engine_servers(request.param)


async def test_a_pull_without_progress_is_stalled_and_ended(server: EngineServer, unique: str) -> None:
    """An engine that only repeats itself is stalled too. What comes later it does not take: it hangs up.

    A classic engine notices with the next byte from the registry, a containerd one at once.
    """
    async with (
        hanging_registry() as registry,
        DockerEngine.open(server.url, stall_seconds=2) as engine,
        asyncio.timeout(BOUND_SECONDS),
    ):
        source = f"{registry.address}/test/{unique}@{registry.manifest.digest}"
        with pytest.raises(Stalled, match=unique):
            await pull(engine, source)
        registry.resume.set()
        await registry.left.wait()
        assert await engine.inspect(source) is None


async def test_leaving_a_pull_ends_it_in_the_engine(server: EngineServer, unique: str) -> None:
    """A cancelled pull is hung up by the engine itself."""
    async with (
        hanging_registry() as registry,
        DockerEngine.open(server.url) as engine,
        asyncio.timeout(BOUND_SECONDS),
    ):
        source = f"{registry.address}/test/{unique}@{registry.manifest.digest}"
        pulling = asyncio.create_task(pull(engine, source))
        await registry.hanging.wait()
        assert not registry.left.is_set()
        pulling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pulling
        registry.resume.set()
        await registry.left.wait()
        assert await engine.inspect(source) is None


async def test_an_engine_that_freezes_or_dies_is_away(lab: Lab, unique: str) -> None:
    """Frozen: a plain call ends in its time, a transfer is stalled. Killed in the middle of a load: away, then back."""
    server = lab.engine(f"frozen-{unique}")
    layers = [tar_of({"t/file": os.urandom(1_000_000)})]
    name = f"docker.io/test/{unique}:1"

    async def load_half(engine: DockerEngine, when_half: Callable[[], None]) -> None:
        async def archive() -> AsyncIterator[bytes]:
            given = 0
            async for chunk in archive_of(name, layers, layout="docker"):
                yield chunk
                given += len(chunk)
                if given > 500_000:
                    when_half()

        await load(engine, archive())

    async with DockerEngine.open(server.url, answer_seconds=10, stall_seconds=2, quiet_seconds=2) as engine:
        with pytest.raises(Stalled):
            await load_half(engine, server.pause)
        async with DockerEngine.open(server.url, answer_seconds=0.5) as impatient:
            with pytest.raises(EngineUnavailable, match="did not answer"):
                await impatient.info()
        server.resume()
        await engine.ping()

        killed = False

        def kill_once() -> None:
            nonlocal killed
            if not killed:
                killed = True
                server.kill()

        with pytest.raises(EngineUnavailable):
            await load_half(engine, kill_once)
        with pytest.raises(EngineUnavailable):
            await engine.info()
        server.start()
        assert await engine.inspect(name) is None
        await load_half(engine, lambda: None)
        assert await engine.inspect(name) is not None
    server.stop()


async def test_a_layer_that_is_not_what_it_should_be_makes_no_image(server: EngineServer, unique: str) -> None:
    """An archive whose layer has other bytes than the config says is refused, and no name is left."""
    layer, other = tar_of({"t/file": b"right"}), tar_of({"t/file": b"wrong"})
    name = f"docker.io/test/{unique}:1"
    async with DockerEngine.open(server.url) as engine:
        layout = LAYOUTS[(await engine.info()).store]

        async def archive() -> AsyncIterator[bytes]:
            async for chunk in archive_of(name, [layer], layout=layout):
                yield chunk.replace(layer, other)

        with pytest.raises(CyroidError):
            await load(engine, archive())
        assert await engine.inspect(name) is None
