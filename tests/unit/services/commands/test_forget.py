"""Forgetting, where others write at the same moment."""

import msgspec
import pytest

from events.bus import Outcome, RecordConflict
from events.records import ANY
from services.commands.forget import forget_images
from services.core.ranges.ranges import DesiredImage, DesiredImages, RangeKeys
from tests.unit.services.twins import STREAMS, Cluster

WEB, DB = "docker.io/library/web:1", "docker.io/library/db:1"
KEY = RangeKeys(STREAMS.prefix).wanted("r1")


async def test_a_deployment_that_ends_at_this_moment_is_not_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it brought stays wanted, what is forgotten is forgotten."""
    world = Cluster()

    def image(reference: str) -> DesiredImage:
        return DesiredImage(reference=reference, image_id=f"sha256:{'1' * 64}", diff_ids=(), deployment_id="d")

    async def want(*names: str) -> None:
        value = DesiredImages(range_id="r1", images={name: image(name) for name in names})
        await world.bus.commit(Outcome(records=(KEY.write(value, expected=ANY),)))

    await want(WEB)
    load = world.bus.load
    raced: list[str] = []

    async def load_and_race(key: str) -> object:
        record = await load(key)
        if not raced:
            raced.append(key)
            await want(WEB, DB)
        return record

    monkeypatch.setattr(world.bus, "load", load_and_race)
    assert await forget_images(world.bus, STREAMS, "r1", ["web:1"]) == [WEB]
    record = await load(KEY.name)
    assert record is not None
    assert list(msgspec.json.decode(record.value, type=DesiredImages).images) == [DB]
    monkeypatch.setattr(world.bus, "commit", _conflict)
    with pytest.raises(RecordConflict):
        await forget_images(world.bus, STREAMS, "r1", ["db:1"])


async def _conflict(outcome: Outcome) -> None:
    raise RecordConflict("somebody was faster")
