"""Building, against the engine's fake."""

from collections.abc import AsyncIterator

import pytest

from events.messages import ImageBuilt
from services.adapters.memory_archives import tar_of
from services.core.builds.options import BuildOptions
from services.errors import BadInput, BadReference, BuildFailed, EngineUnavailable, RedisUnavailable
from services.ingest.build import BuildService
from tests.unit.services.twins import Cluster, chunks

CONTEXT = tar_of({"Dockerfile": b"FROM scratch\nCOPY a /a\n", "a": b"hello"})


def _service(world: Cluster, limit_bytes: int = 1 << 20) -> BuildService:
    return BuildService(engine=world.engine, announcer=world.announcer(), context_limit_bytes=limit_bytes)


async def test_a_built_image_is_announced_as_the_engine_has_it() -> None:
    """The event carries the normalised name, the engine's image id, the platform, the origin and the push choice."""
    world = Cluster()
    lines: list[str] = []
    message = await _service(world).build(
        chunks(CONTEXT), reference="web", origin="/src/web", push="never", on_line=lines.append
    )
    image = await world.engine.inspect("web:latest")
    assert image is not None
    assert await world.said() == [message]
    assert isinstance(message, ImageBuilt)
    assert message.reference == "docker.io/library/web:latest"
    assert message.image_id == image.image_id
    assert message.size_bytes == image.size_bytes
    assert (message.origin, message.push, message.platform) == ("/src/web", "never", "linux/amd64")
    assert lines


async def test_a_context_over_the_limit_is_refused() -> None:
    """No image, no event, and the rest of a stream that never ends is not read; one of that very size is built."""
    world, read = Cluster(), 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        yield CONTEXT
        while True:
            read += 1
            yield bytes(512)

    with pytest.raises(
        BadInput, match=f"more than {len(CONTEXT) + 511} bytes.*CYROID_BUILD_CONTEXT_LIMIT_BYTES"
    ) as found:
        await _service(world, len(CONTEXT) + 511).build(endless(), reference="web:1", origin="standard input")
    assert (found.value.code, read) == ("too_large", 1)
    assert await world.said() == []
    assert await world.engine.inspect("web:1") is None
    await _service(world, len(CONTEXT)).build(chunks(CONTEXT), reference="web:1", origin="x")


async def test_a_build_that_fails_announces_nothing() -> None:
    """No event, no tag; the engine's words are in the error."""
    world = Cluster()
    with pytest.raises(BuildFailed):
        await _service(world).build(
            chunks(tar_of({"Dockerfile": b"FROM scratch\nCOPY nothing /\n"})), reference="web:1", origin="x"
        )
    assert await world.said() == []
    assert await world.engine.inspect("web:1") is None


async def test_a_wrong_dockerfile_name_fails_the_build() -> None:
    """The options reach the engine."""
    world = Cluster()
    with pytest.raises(BuildFailed):
        await _service(world).build(
            chunks(CONTEXT), reference="web:1", origin="x", options=BuildOptions(dockerfile="other")
        )


@pytest.mark.parametrize("reference", ["Web:1", "web:1@sha256:" + "0" * 64, "", "host:port/x"])
async def test_a_bad_name_begins_nothing(reference: str) -> None:
    """The engine is not asked at all."""
    world = Cluster()
    with pytest.raises(BadReference):
        await _service(world).build(chunks(CONTEXT), reference=reference, origin="x")
    assert world.engine.counts == {}


async def test_without_redis_nothing_is_begun() -> None:
    """An hour of building must not end in nobody hearing of it."""
    world = Cluster()
    world.bus.calls_left = 0
    with pytest.raises(RedisUnavailable, match="nothing was begun"):
        await _service(world).build(chunks(CONTEXT), reference="web:1", origin="x")
    assert world.engine.counts == {}


async def test_redis_that_goes_away_meanwhile_says_how_to_catch_up() -> None:
    """The image is there; the message names the command that tells the others later."""
    world = Cluster()
    world.bus.calls_left = 1
    with pytest.raises(RedisUnavailable, match=r"cyroid-images images push docker\.io/library/web:1"):
        await _service(world).build(chunks(CONTEXT), reference="web:1", origin="x")
    assert await world.engine.inspect("web:1") is not None


async def test_a_lost_reply_is_no_second_event() -> None:
    """Publishing is repeated until it is confirmed; the event is there once."""
    world = Cluster()
    world.bus.replies_lost = 2
    await _service(world).build(chunks(CONTEXT), reference="web:1", origin="x")
    assert len(await world.said()) == 1


async def test_an_engine_that_is_away_is_said() -> None:
    """Before anything is sent."""
    world = Cluster()
    world.engine.away = True
    with pytest.raises(EngineUnavailable):
        await _service(world).build(chunks(CONTEXT), reference="web:1", origin="x")
