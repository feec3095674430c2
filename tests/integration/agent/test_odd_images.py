"""Unusual images on the whole path: a sparse file, an index of many platforms."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from events.messages import ImageFailed
from services.adapters.engine import DockerEngine
from services.adapters.layer_sources import Folders
from services.core.images.manifests import sha256
from services.errors import LayerDamaged, TransferFailed
from tests.images import many_platforms
from tests.integration.agent.conftest import open_site
from tests.integration.agent.site import Site
from tests.integration.engines import pieces
from tests.integration.test_layer_corners import sparse_tar
from tests.integration.test_layer_sources import digest_of, files_of, load
from tests.laboratory import EngineServer, Lab, RedisServer, RegistryServer

pytestmark = pytest.mark.real


@pytest.mark.parametrize("tar_format", ["gnu", "posix"])
async def test_a_sparse_file_is_refused_with_a_reason(site: Site, unique: str, tmp_path: Path, tar_format: str) -> None:
    """By the engine that is to load it, or by push and tar alike, soon: nothing of it is in sight anywhere."""
    name = f"docker.io/test/{unique}:1"
    packed = sparse_tar(tmp_path, tar_format, unique)
    try:
        image = await load(site.host, name, [packed])
    except TransferFailed as problem:
        assert (tar_format, "unhandled tar header" in str(problem)) == ("gnu", True)  # noqa: PT017
        return
    async with asyncio.timeout(20):
        with pytest.raises(LayerDamaged, match=f"{sha256(packed)}.*sparse"):
            await site.push(name)
    assert await site.registry.tags(f"test/{unique}") == []
    async with site.agent(), site.tar_server():
        request = site.tar_request(image, name)
        await site.say(request)
        await site.say(await site.offer(request, await site.asks_for_tar()))
        failed = await site.answer(skip=1)
        assert isinstance(failed, ImageFailed)
        assert (failed.error.code, failed.error.retryable) == ("layer_damaged", False)
        assert f"layer {sha256(packed)} came with sparse files" in failed.error.message
    assert await site.engine.inspect(name) is None


async def load_index(host: DockerEngine, name: str, unique: str) -> bytes:
    """An image of two platforms; the layer of the host's own."""
    archive, _, layers = many_platforms(name, unique)
    async with host.load(pieces(archive)) as progress:
        async for _ in progress:
            pass
    return layers["amd64"]


@pytest.fixture(scope="module", params=["classic", "containerd"])
def ranged(
    request: pytest.FixtureRequest, lab: Lab, range_engine_servers: tuple[EngineServer, EngineServer]
) -> EngineServer:
    """A range of either store, which is not the host."""
    if request.param == "classic":
        return range_engine_servers[0]
    return lab.engine("other-containerd", version="28.5", containerd_store=True)


@pytest.mark.parametrize("path", ["pull", "tar"])
async def test_an_index_of_many_platforms_comes_as_the_hosts_own(  # noqa: PLR0917  pytest hands fixtures over by name
    ranged: EngineServer,
    engine_servers: Callable[[str], EngineServer],
    redis_server: RedisServer,
    registry_server: RegistryServer,
    base_image_tar: Path,
    unique: str,
    tmp_path: Path,
    path: str,
) -> None:
    """Of an index in a containerd host the range gets the platform that the host runs, as a plain image."""
    host = engine_servers("28.5-containerd")
    name = f"docker.io/test/{unique}:1"
    async with (
        open_site(
            redis=redis_server,
            registry=registry_server,
            host=host,
            range_engine=ranged,
            prefix=unique,
            base=base_image_tar,
            spool=tmp_path / "spool",
        ) as site,
        site.agent(),
        site.tar_server(),
    ):
        layer = await load_index(site.host, name, unique)
        image = await site.host.inspect(name)
        assert image is not None
        config = await Folders(host.root).config(image)
        if path == "pull":
            pushed = await site.push(name)
            assert (pushed.method, pushed.image_id) == ("blobs", sha256(config))
            assert [one.codec for one in pushed.layers] == ["gzip"]
            await site.say(site.pull_request(pushed))
            ready = await site.ready()
        else:
            request = site.tar_request(replace(image, image_id=sha256(config)), name)
            await site.say(request)
            await site.say(await site.offer(request, await site.asks_for_tar()))
            ready = await site.ready(skip=1)
        assert ready.how == ("pulled" if path == "pull" else "loaded")
        arrived = await site.assert_named_alone(name, sha256(config))
    assert (arrived.platform, arrived.diff_ids) == ("linux/amd64", (sha256(layer),))
    assert (await digest_of(Folders(ranged.root), arrived, sha256(layer)))[0] == sha256(layer)
    assert files_of(ranged, name)["t/arch"] == files_of(host, name)["t/arch"]
