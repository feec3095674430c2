"""A registry that keeps layers compressed, and a containerd store that got them raw, by archive."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.integration.agent.site import MEGABYTE, Site
from tests.integration.agent.test_transfer import Mover, mover
from tests.integration.engines import build, pull
from tests.laboratory import EngineServer, RegistryServer

pytestmark = pytest.mark.real
__all__ = ["mover"]  # a fixture of its own module


@pytest.fixture
def range_engine_server(engine_servers: Callable[[str], EngineServer]) -> EngineServer:
    """The engine of the range of `site`."""
    return engine_servers("28.5-containerd")


async def test_a_new_layer_on_raw_ones_comes_by_thin_archive(site: Site, unique: str) -> None:
    """A pull passes over the blobs of what is unpacked already, and ends well without an image. So the agent asks for
    the new layer by archive at once, also one that was started anew, and for nothing else.
    """
    one, two, three = (f"docker.io/{unique}/app:{number}" for number in (1, 2, 3))
    texts = [f"{number} {unique} ".encode() * (MEGABYTE // 20) for number in range(3)]
    layers = [{f"file-{number}": text} for number, text in enumerate(texts)]
    first = await build(site.host, one, layers[0])
    second = await build(site.host, two, *layers[:2])
    third = await build(site.host, three, *layers)
    async with site.tar_server():
        async with site.agent():
            request = site.tar_request(first, one, "whole")
            await site.say(request)
            await site.say(await site.offer(request, await site.asks_for_tar("whole")))
            assert (await site.ready("whole", skip=1)).how == "loaded"
        for name, image, there in ((two, second, first), (three, third, second)):
            request = site.pull_request(await site.push(name, layer_codec="zstd"), name[-1])
            assert {layer.codec for layer in request.layers} == {"zstd"}
            assert request.source is not None
            await pull(site.engine, request.source)
            assert await site.engine.inspect(request.source) is None
            await site.engine.untag(request.source)
            async with site.agent():
                await site.say(request)
                asked = await site.asks_for_tar(name[-1])
                assert asked.reason.code == "other_blobs"
                assert asked.diff_ids == asked.raw == there.diff_ids
                await site.say(await site.offer(request, asked))
                ready = await site.ready(name[-1], skip=1)
            assert (ready.how, ready.layers_total - ready.layers_reused) == ("loaded", 1)
            assert ready.received_bytes < 1.5 * MEGABYTE
            await site.assert_named_alone(name, image.local_id)
    paths = [f"/data/file-{number}" for number in range(3)]
    assert site.files(three, paths) == dict(zip(paths, texts, strict=True))


async def test_a_transfer_without_an_agent_knows_what_is_raw(
    site: Site, mover: Mover, registry_server: RegistryServer, unique: str
) -> None:
    """The first image came by archive, the next one is compressed in the registry: only the new layer comes."""
    one, two = f"{unique}/app:1", f"{unique}/app:2"
    layers = [{f"file-{number}": f"{number} {unique} ".encode() * (MEGABYTE // 20)} for number in range(2)]
    await build(site.host, one, layers[0])
    image = await build(site.host, two, *layers)
    await site.push(two, layer_codec="zstd")
    registry_server.stop()
    try:
        assert (await mover.move(one)).how == "loaded"
    finally:
        registry_server.start()
    moved = await mover.move(two)
    assert (moved.how, moved.layers_total - moved.layers_reused, moved.passed_over) == ("loaded", 1, ())
    await site.assert_named_alone(f"docker.io/{two}", image.local_id)
    assert site.files(two, ["/data/file-1"]) == {"/data/file-1": layers[1]["file-1"]}
