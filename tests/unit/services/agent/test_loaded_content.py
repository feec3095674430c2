"""One content under many names is loaded once, also where the engine does not tell the config digest."""

from pathlib import Path

import pytest

from events.messages import ImageReady
from services.core.images.image import Store
from tests.unit.services.agent.archive_server import BOTH, serving
from tests.unit.services.agent.scene import BASE, TOOLS, Scene


@pytest.mark.parametrize("store", BOTH)
async def test_one_content_under_many_names_is_loaded_once(store: Store, tmp_path: Path) -> None:
    """The others are names: nothing is asked for, and nothing comes."""
    scene = Scene(store)
    image = scene.build(BASE, TOOLS)
    async with serving(scene, tmp_path) as server, scene.listening():
        await server.offered(image)
        first = await scene.answer()
        assert isinstance(first, ImageReady)
        assert first.how == "loaded"
        for number in range(3):
            request = scene.request(image, f"again-{number}", reference=f"docker.io/other/name:{number}", source=None)
            await scene.say(request)
            ready = await scene.answer(f"again-{number}")
            assert isinstance(ready, ImageReady), ready
            assert (ready.how, ready.received_bytes) == ("retagged", 0)
    found = await scene.engine.inspect("docker.io/other/name:2")
    assert found is not None
    assert found.diff_ids == image.diff_ids
