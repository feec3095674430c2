"""A registry that keeps layers compressed, and a containerd store that got them raw, by archive."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.integration.agent.site import MEGABYTE, Site
from tests.integration.engines import build, pull
from tests.laboratory import EngineServer

pytestmark = pytest.mark.real


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
