"""Promoting containers and images, against the engine's fake."""

import pytest

from events.messages import ImagePromoted
from services.adapters.memory_archives import tar_of
from services.errors import BadReference, NotFound, RedisUnavailable
from services.ingest.promote import PromoteService
from tests.unit.services.twins import Cluster


def _world() -> Cluster:
    world = Cluster()
    world.engine.add_image("web:1", [tar_of({"f": b"1"})])
    world.engine.add_container("shop", "web:1", {"changed": b"yes"})
    return world


def _service(world: Cluster) -> PromoteService:
    return PromoteService(engine=world.engine, announcer=world.announcer())


async def test_a_container_becomes_an_image() -> None:
    """A layer more than the image it came from; the origin is the container."""
    world = _world()
    message = await _service(world).promote_container("shop", reference="web:changed", push="ask")
    image, base = await world.engine.inspect("web:changed"), await world.engine.inspect("web:1")
    assert image is not None
    assert base is not None
    assert image.diff_ids[:-1] == base.diff_ids
    assert isinstance(message, ImagePromoted)
    assert (message.image_id, message.origin, message.push) == (image.image_id, "shop", "ask")
    assert await world.said() == [message]


async def test_an_image_gets_another_name() -> None:
    """The same image id; the origin is the old name, normalised."""
    world = _world()
    message = await _service(world).promote_image("web:1", reference="host:5000/web:stable")
    image = await world.engine.inspect("web:1")
    assert image is not None
    assert message.image_id == image.image_id
    assert message.origin == "docker.io/library/web:1"
    assert message.reference == "host:5000/web:stable"


async def test_what_is_not_there_is_said() -> None:
    """Neither an unknown container nor an unknown image makes an event."""
    world = _world()
    with pytest.raises(NotFound):
        await _service(world).promote_container("nobody", reference="x:1")
    with pytest.raises(NotFound, match="no image nothing:1"):
        await _service(world).promote_image("nothing:1", reference="x:1")
    assert await world.said() == []


async def test_a_bad_name_or_no_redis_begins_nothing() -> None:
    """Nothing is committed."""
    world = _world()
    with pytest.raises(BadReference):
        await _service(world).promote_container("shop", reference="UPPER:1")
    world.bus.calls_left = 0
    with pytest.raises(RedisUnavailable):
        await _service(world).promote_container("shop", reference="x:1")
    assert world.engine.counts == {}
