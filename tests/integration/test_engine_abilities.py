"""Holds `docs/engines.md` against the engines themselves: each kind does what its row says, and no more."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import zstandard

from services.adapters.engine import DockerEngine
from services.adapters.layer_sources import Folders
from services.adapters.registry import HttpRegistry
from services.core.deployments.offers import Layout
from services.core.images.image import EngineImage
from services.core.images.manifests import (
    DOCKER_CONFIG,
    DOCKER_LAYER,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_LAYER_ZSTD,
    OCI_MANIFEST,
    Descriptor,
    Manifest,
    sha256,
)
from services.errors import CyroidError
from tests.conftest import ENGINE_KINDS
from tests.images import LAYOUTS, archive_of, config_of, tar_of
from tests.integration.engines import pieces, pull
from tests.laboratory import EngineServer, RegistryServer

pytestmark = pytest.mark.real
TABLE = Path(__file__).parents[2] / "docs/engines.md"


def rows() -> dict[tuple[str, str], dict[str, str]]:
    """The table by engine and store."""
    lines = [line for line in TABLE.read_text().splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {(row[0], row[1]): dict(zip(cells[0], row, strict=True)) for row in cells[2:]}


@pytest.fixture(params=list(ENGINE_KINDS))
def server(request: pytest.FixtureRequest, engine_servers: Callable[[str], EngineServer]) -> EngineServer:
    """An engine of each kind."""
    return engine_servers(request.param)


@pytest.fixture
async def engine(server: EngineServer) -> AsyncIterator[DockerEngine]:
    """That engine."""
    async with DockerEngine.open(server.url) as opened:
        yield opened


@pytest.fixture
async def said(engine: DockerEngine) -> dict[str, str]:
    """What the table says of it."""
    info = await engine.info()
    return rows()[".".join(info.version.split(".")[:2]), info.store]


async def pulls(engine: DockerEngine, server: RegistryServer, repository: str, blob: bytes, media_type: str) -> bool:
    """Whether the engine takes a layer of that kind, and has the right image afterwards."""
    layer = tar_of({"t/file": repository.encode() * 1000})
    docker = media_type == DOCKER_LAYER
    config = config_of([sha256(layer)])
    manifest = Manifest.write(
        Descriptor(media_type=DOCKER_CONFIG if docker else OCI_CONFIG, digest=sha256(config), size=len(config)),
        (Descriptor(media_type=media_type, digest=sha256(blob), size=len(blob)),),
        DOCKER_MANIFEST if docker else OCI_MANIFEST,
    )
    async with HttpRegistry.open(server.url) as registry:
        for content in (config, blob):
            await registry.put_blob(repository, sha256(content), len(content), pieces(content))
        await registry.put_manifest(repository, "1", manifest)
    name = f"{server.address}/{repository}@{manifest.digest}"
    try:
        await pull(engine, name)
    except CyroidError:
        assert await engine.inspect(name) is None
        return False
    return is_content(await engine.inspect(name), config, [layer])


async def loads(engine: DockerEngine, name: str, layers: list[bytes], layout: Layout, held: list[int]) -> bool:
    """Whether the engine takes that archive, and has the right image afterwards."""
    config = config_of([sha256(layer) for layer in layers], author=f"{layout} {held}")
    try:
        async with engine.load(archive_of(name, layers, layout=layout, held=held, config=config)) as progress:
            async for _ in progress:
                pass
    except CyroidError:
        assert await engine.inspect(name) is None
        return False
    return is_content(await engine.inspect(name), config, layers)


def is_content(image: EngineImage | None, config: bytes, layers: list[bytes]) -> bool:
    """What `inspect` says is the image."""
    return image is not None and image.is_content(sha256(config), tuple(sha256(layer) for layer in layers))


def word(ability: bool) -> str:
    """As the table says it."""
    return "yes" if ability else "no"


@pytest.mark.parametrize("media_type", [OCI_LAYER, DOCKER_LAYER])
async def test_pulls_of_uncompressed_layers(
    engine: DockerEngine, said: dict[str, str], registry_server: RegistryServer, unique: str, media_type: str
) -> None:
    """Under either media type."""
    layer = tar_of({"t/file": f"raw/{unique}".encode() * 1000})
    assert word(await pulls(engine, registry_server, f"raw/{unique}", layer, media_type)) == said["raw pull"]


async def test_pulls_of_compressed_layers(
    engine: DockerEngine, said: dict[str, str], registry_server: RegistryServer, unique: str
) -> None:
    """gzip and zstd."""
    for codec, pack, media_type in (
        ("gzip", gzip.compress, OCI_LAYER_GZIP),
        ("zstd", zstandard.compress, OCI_LAYER_ZSTD),
    ):
        blob = pack(tar_of({"t/file": f"{codec}/{unique}".encode() * 1000}))
        found = await pulls(engine, registry_server, f"{codec}/{unique}", blob, media_type)
        assert (codec, word(found)) == (codec, said[f"{codec} pull"])


async def test_thin_archives(engine: DockerEngine, said: dict[str, str], unique: str) -> None:
    """Of both layouts: without the base, and without any layer."""
    layers = [tar_of({"t/base": unique.encode()}), tar_of({"t/top": unique.encode()})]
    full = LAYOUTS[(await engine.info()).store]
    assert await loads(engine, f"docker.io/test/{unique}:base", layers[:1], full, [0])
    thin: dict[Layout, bool] = {}
    only: dict[Layout, bool] = {}
    layouts: tuple[Layout, Layout] = ("docker", "oci")
    for layout in layouts:
        thin[layout] = await loads(engine, f"docker.io/test/{unique}:thin-{layout}", layers, layout, [1])
    assert await loads(engine, f"docker.io/test/{unique}:full", layers, full, [0, 1])
    for layout in layouts:
        only[layout] = await loads(engine, f"docker.io/test/{unique}:only-{layout}", layers, layout, [])
    assert word(thin["docker"]) == said["thin docker load"]
    assert word(thin["oci"]) == said["thin oci load"]
    assert [layout for layout in layouts if only[layout]] == [said["config-only load"]]


async def test_where_layers_can_be_read(
    engine: DockerEngine, server: EngineServer, said: dict[str, str], unique: str
) -> None:
    """From the folder that the table names."""
    layer = tar_of({"t/file": unique.encode()})
    name = f"docker.io/test/{unique}:1"
    assert await loads(engine, name, [layer], LAYOUTS[(await engine.info()).store], [0])
    image = await engine.inspect(name)
    assert image is not None
    source = Folders(server.root)
    async with source.layer(image, sha256(layer)) as chunks:
        assert b"".join([chunk async for chunk in chunks]) == layer
    assert {"layers": "layer store", "blobs": "content store"}[source.name] == said["layers from"]


async def test_a_list_of_images_inspects_each_once(
    engine: DockerEngine, unique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names come and go and are told as they are; what an id stands for is asked for once."""
    one, two = f"docker.io/test/{unique}:1", f"docker.io/test/{unique}:2"
    inspects: list[str] = []
    inspect = engine.inspect

    async def counted(reference: str) -> EngineImage | None:
        inspects.append(reference)
        return await inspect(reference)

    monkeypatch.setattr(engine, "inspect", counted)
    async with engine.import_root(pieces(tar_of({"file": unique.encode()})), reference=one) as lines:
        async for _ in lines:
            pass
    assert [image.references for image in await engine.images() if one in image.references] == [(one,)]
    await engine.tag(one, two)
    inspects.clear()
    assert await inspect(two) in await engine.images()
    assert inspects == []
    await engine.untag(one)
    await engine.untag(two)
    assert not [image for image in await engine.images() if two in image.references]
