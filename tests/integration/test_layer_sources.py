"""Layers out of real engines, through a real registry, into other real engines: the bytes and then the files."""

from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest

from services.adapters.engine import DockerEngine
from services.adapters.layer_sources import Folders
from services.adapters.registry import HttpRegistry
from services.adapters.save_stream import SaveStream
from services.core.images.image import EngineImage
from services.core.images.manifests import OCI_CONFIG, OCI_LAYER, Descriptor, Manifest, sha256
from services.ports import LayerSource
from tests.conftest import ENGINE_KINDS
from tests.images import LAYOUTS, archive_of
from tests.integration.engines import pieces, pull
from tests.integration.hard_layers import INPUTS
from tests.laboratory import EngineServer, RegistryServer

pytestmark = pytest.mark.real

TO = {"machine": "28.5-containerd", "28.5-containerd": "26.1", "26.1": "28.5", "28.5": "machine"}
"""To which kind of engine the images of a kind go, so that each is host and range once."""


@dataclass(frozen=True)
class Pair:
    """A host's engine and a range's."""

    host: DockerEngine
    host_server: EngineServer
    range: DockerEngine
    range_server: EngineServer


@pytest.fixture(params=list(ENGINE_KINDS))
async def pair(request: pytest.FixtureRequest, engine_servers: Callable[[str], EngineServer]) -> AsyncIterator[Pair]:
    """Each kind of host, with another kind of range."""
    servers = engine_servers(request.param), engine_servers(TO[request.param])
    async with AsyncExitStack() as stack:
        host, ranged = [await stack.enter_async_context(DockerEngine.open(server.url)) for server in servers]
        yield Pair(host, servers[0], ranged, servers[1])


async def load(engine: DockerEngine, name: str, layers: list[bytes], config: bytes | None = None) -> EngineImage:
    """An image of exactly these layers."""
    layout = LAYOUTS[(await engine.info()).store]
    async with engine.load(archive_of(name, layers, layout=layout, config=config)) as progress:
        async for _ in progress:
            pass
    image = await engine.inspect(name)
    assert image is not None
    return image


async def digest_of(source: LayerSource, image: EngineImage, diff_id: str) -> tuple[str, int]:
    """sha256 and length of a layer as a source gives it."""
    state, length = hashlib.sha256(), 0
    async with source.layer(image, diff_id) as chunks:
        async for chunk in chunks:
            state.update(chunk)
            length += len(chunk)
    return f"sha256:{state.hexdigest()}", length


async def put(registry: HttpRegistry, repository: str, source: LayerSource, image: EngineImage) -> str:
    """An image into the registry, layer by layer, uncompressed. Returns its manifest's digest."""
    config = await source.config(image)
    descriptors = []
    for diff_id in image.diff_ids:
        _, size = await digest_of(source, image, diff_id)
        async with source.layer(image, diff_id) as chunks:
            await registry.put_blob(repository, diff_id, size, chunks)
        descriptors.append(Descriptor(media_type=OCI_LAYER, digest=diff_id, size=size))
    await registry.put_blob(repository, sha256(config), len(config), pieces(config))
    described = Descriptor(media_type=OCI_CONFIG, digest=sha256(config), size=len(config))
    return (await registry.put_manifest(repository, "1", Manifest.write(described, tuple(descriptors)))).digest


def files_of(server: EngineServer, name: str) -> dict[str, tuple[object, ...]]:
    """Everything below `t/` in a container of the image: kind, mode, owner, time, link, device, attributes, content."""
    docker = ["docker", "-H", server.url]
    created = subprocess.run([*docker, "create", name, "/x"], check=True, capture_output=True, text=True, timeout=120)
    container = created.stdout.strip()
    try:
        exported = subprocess.run([*docker, "export", container], check=True, capture_output=True, timeout=120).stdout
    finally:
        subprocess.run([*docker, "rm", container], check=True, capture_output=True, timeout=120)
    found: dict[str, tuple[object, ...]] = {}
    with tarfile.open(fileobj=io.BytesIO(exported), errors="surrogateescape") as tar:
        for member in tar:
            if not member.name.startswith("t"):
                continue
            content = tar.extractfile(member) if member.isreg() else None
            found[member.name] = (
                member.type,
                member.mode & 0o7777,  # 20.10 adds the kind
                (member.uid, member.gid),
                int(member.mtime),
                member.linkname,
                (member.devmajor, member.devminor) if member.isdev() else None,
                {key: value for key, value in member.pax_headers.items() if "xattr" in key},
                hashlib.sha256(content.read()).hexdigest() if content is not None else None,
            )
    return found


@pytest.mark.parametrize(
    ("pair", "hard"),
    # An engine takes half a minute for a hundred and twenty layers: once out of each kind of store.
    [
        (kind, hard)
        for kind in ENGINE_KINDS
        for hard in INPUTS
        if hard != "hundred_and_twenty" or kind in {"26.1", "28.5-containerd"}
    ],
    indirect=["pair"],
)
async def test_hard_layers_arrive_as_they_are(
    pair: Pair, registry_server: RegistryServer, unique: str, hard: str
) -> None:
    """Every source gives each layer byte for byte; the range has the same diff IDs and the same files."""
    layers = INPUTS[hard]()
    name = f"docker.io/test/{unique}:1"
    image = await load(pair.host, name, layers)
    assert image.diff_ids == tuple(sha256(layer) for layer in layers)
    folders = Folders(pair.host_server.root)
    wanted = {diff_id: len(layer) for layer, diff_id in zip(layers, image.diff_ids, strict=True)}
    for diff_id, size in wanted.items():
        assert await digest_of(folders, image, diff_id) == (diff_id, size)
        assert await folders.size(image, diff_id) == size
    saved = {}
    async with SaveStream(pair.host).layers(image, image.diff_ids) as opened:
        async for one in opened:
            content = b"".join([chunk async for chunk in one.chunks])
            saved[sha256(content)] = len(content)
    assert saved == wanted
    async with HttpRegistry.open(registry_server.url) as registry:
        digest = await put(registry, f"test/{unique}", folders, image)
    source = f"{registry_server.address}/test/{unique}@{digest}"
    await pull(pair.range, source)
    await pair.range.tag(source, name)
    arrived = await pair.range.inspect(name)
    assert arrived is not None
    assert arrived.diff_ids == image.diff_ids
    assert files_of(pair.range_server, name) == files_of(pair.host_server, name)
