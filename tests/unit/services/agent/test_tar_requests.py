"""What an agent says when it asks for an archive, and when it does so in place of a pull."""

from __future__ import annotations

from pathlib import Path

from events.messages import ImageReady, Layer, TarRequested
from services.core.images.image import EngineImage
from tests.unit.services.agent.archive_server import serving
from tests.unit.services.agent.scene import APP, BASE, REFERENCE, TOOLS, Scene

_OTHER = "docker.io/library/web:2"


def _packed(image: EngineImage) -> tuple[Layer, ...]:
    """The layers of a registry that keeps them compressed."""
    return tuple(
        Layer(digest=f"sha256:{number:064x}", diff_id=diff_id, size_bytes=10, codec="gzip")
        for number, diff_id in enumerate(image.diff_ids)
    )


async def test_layers_that_came_raw_are_not_pulled_compressed(tmp_path: Path) -> None:
    """A pull on top of them would end well and leave an image without its blobs: the archive comes instead, and names
    them raw. A new agent on the same engine knows it as well.
    """
    scene = Scene("containerd")
    first, second = scene.build(BASE, TOOLS), scene.build(BASE, TOOLS, APP, reference=_OTHER)
    source, _ = await scene.publish(second)
    more = {"source": source, "layers": _packed(second), "reference": _OTHER}
    async with serving(scene, tmp_path) as server:
        async with scene.listening():
            await server.offered(first)
            assert isinstance(await scene.answer(), ImageReady)
            await scene.say(scene.request(second, "t2", **more))
            asked = await scene.answer("t2")
        async with scene.listening():
            await scene.say(scene.request(second, "t3", **more))
            again = await scene.answer("t3")
            await server.offered(second, "t3", held=second.diff_ids[2:], reference=_OTHER)
            ready = await scene.answer("t3", skip=1)
    for said in (asked, again):
        assert isinstance(said, TarRequested)
        assert (said.reason.code, said.thin) == ("other_blobs", True)
        assert (said.diff_ids, said.raw) == (second.diff_ids[:2], second.diff_ids[:2])
    assert isinstance(ready, ImageReady)
    assert (ready.how, ready.layers_reused) == ("loaded", 2)
    assert scene.engine.counts.get("pull", 0) == 0


async def test_layers_that_came_compressed_are_pulled_on(tmp_path: Path) -> None:
    """Nothing came raw by archive, so there is nothing that a pull would pass over."""
    scene = Scene("containerd")
    scene.engine.add_image(REFERENCE, [BASE, TOOLS])
    image = scene.build(BASE, TOOLS, APP, reference=_OTHER)
    source, _ = await scene.publish(image)
    async with scene.listening():
        await scene.say(scene.request(image, source=source, layers=_packed(image), reference=_OTHER))
        ready = await scene.answer()
    assert isinstance(ready, ImageReady)
    assert ready.how == "pulled"
