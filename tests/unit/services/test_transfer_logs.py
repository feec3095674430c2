"""What the one line of a transfer tells: what, where, which way, how much, how long, and for whose request."""

from __future__ import annotations

import io
from typing import Any

import orjson
import pytest

from events.messages import ImageBuilt
from services.adapters.memory_engine import Fault
from services.core.images.manifests import Descriptor, Manifest
from services.errors import BadInput, TransferFailed
from services.runtime import telemetry
from tests.unit.services.agent.scene import BASE, RANGE, REFERENCE, TOOLS, Scene
from tests.unit.services.layer_twins import layer
from tests.unit.services.registry_pusher.test_role import NAME, House
from tests.unit.services.test_registry_service import House as ServiceHouse

Fields = dict[str, Any]


class Lines:
    """The log as JSON, as it goes to stderr."""

    def __init__(self) -> None:
        self._stream = io.StringIO()
        telemetry.set_up(stream=self._stream, log_format="json")

    def one(self, event: str) -> Fields:
        """The only line of that kind, checked for what every transfer's has."""
        (line,) = [one for one in map(orjson.loads, self._stream.getvalue().splitlines()) if one["event"] == event]
        assert isinstance(line["seconds"], float)
        assert line["correlation_id"]
        fields: Fields = {name: line.get(name) for name in ("image", "range", "path", "bytes")}
        return fields


@pytest.fixture
def lines() -> Lines:
    return Lines()


async def _pushed(house: House) -> None:
    image = house.engine.add_image(NAME, [layer("a", 4000), layer("b", 3000)])
    async with house.running():
        await house.say(ImageBuilt(reference=NAME, image_id=image.local_id, push="always"))
        await house.heard()


async def test_a_push_has_its_line(lines: Lines) -> None:
    """Bytes are what was sent: layers and config."""
    house = House()
    await _pushed(house)
    size = 7000 + len(house.engine.config(NAME))
    assert lines.one("pushed") == {"image": NAME, "range": None, "path": "layers", "bytes": size}


async def test_a_push_that_failed_has_its_line(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the bytes it had read until then."""
    house = House()

    async def refuses(repository: str, reference: str, manifest: Manifest) -> Descriptor:
        raise BadInput("the registry takes no such manifest")

    monkeypatch.setattr(house.registry, "put_manifest", refuses)
    await _pushed(house)
    assert lines.one("push failed") == {"image": NAME, "range": None, "path": "none", "bytes": 7000}


@pytest.mark.parametrize("broken", [False, True])
async def test_a_pull_has_its_line(lines: Lines, *, broken: bool) -> None:
    """One that failed as well, with the bytes that had come."""
    scene = Scene()
    request = await scene.pull_request(scene.build(BASE, TOOLS))
    if broken:
        scene.engine.faults["pull"] = Fault(after_bytes=1 << 16, error=TransferFailed("cut"))
    async with scene.listening():
        await scene.say(request)
        await scene.answer()
    path, count = ("none", 1 << 16) if broken else ("pulled", len(BASE) + len(TOOLS))
    assert lines.one("pull") == {"image": REFERENCE, "range": RANGE, "path": path, "bytes": count}


async def test_a_push_by_the_service_has_its_line(lines: Lines) -> None:
    """As the pusher's, for there is no other role that would write it."""
    house = ServiceHouse()
    await house.service.push_image("team/app:1")
    size = 3000 + len(house.engine.config("team/app:1"))
    assert lines.one("pushed") == {"image": NAME, "range": None, "path": "layers", "bytes": size}
