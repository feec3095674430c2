"""Importing archives and references, against the engine's twin."""

import pytest

from events.messages import ImageImported
from services.adapters.memory_archives import tar_of
from services.adapters.memory_engine import MemoryEngine
from services.errors import BadArchive, BadInput, NotFound, RedisUnavailable
from services.importer import Archive, Importer
from tests.unit.services.twins import World, chunks


def _importer(world: World) -> Importer:
    return Importer(engine=world.engine, announcer=world.announcer())


async def _saved(*references: str) -> bytes:
    other = MemoryEngine()
    for number, reference in enumerate(references):
        other.add_image(reference, [tar_of({"f": b"%d" % number})])
    async with other.save(references) as archive:
        return b"".join([chunk async for chunk in archive])


async def test_every_name_of_an_archive_is_announced() -> None:
    """One event per name, in the archive's order, with the engine's image id."""
    world = World()
    content = await _saved("web:1", "db:2")
    messages = await _importer(world).import_archive(Archive(chunks=chunks(content), origin="a.tar"), push="always")
    assert await world.said() == messages
    assert {message.reference for message in messages} == {"docker.io/library/web:1", "docker.io/library/db:2"}
    for message in messages:
        assert isinstance(message, ImageImported)
        image = await world.engine.inspect(message.reference)
        assert image is not None
        assert (message.image_id, message.origin, message.push) == (image.image_id, "a.tar", "always")


async def test_an_archives_image_can_get_a_further_name() -> None:
    """The event tells the name that was asked for."""
    world = World()
    archive = Archive(chunks=chunks(await _saved("web:1")), origin="a.tar", reference="shop/web:9")
    (message,) = await _importer(world).import_archive(archive)
    assert message.reference == "docker.io/shop/web:9"
    assert await world.engine.inspect("shop/web:9") is not None


async def test_one_name_for_several_images_is_refused() -> None:
    """Nobody could know which is meant."""
    world = World()
    archive = Archive(chunks=chunks(await _saved("web:1", "db:2")), origin="a.tar", reference="x:1")
    with pytest.raises(BadInput, match="holds 2 images or names") as caught:
        await _importer(world).import_archive(archive)
    assert caught.value.code == "many_names"
    assert await world.said() == []


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"no tar at all" * 100, "is no tar archive"),
        (tar_of({"etc/passwd": b"root"}), "a file system"),
        (tar_of({"readme.txt": b"hi"}), "no image archive"),
    ],
)
async def test_what_is_no_archive_leaves_nothing(content: bytes, reason: str) -> None:
    """One clear error, no image, no event."""
    world = World()
    with pytest.raises(BadArchive, match=reason):
        await _importer(world).import_archive(Archive(chunks=chunks(content), origin="x.tar"))
    assert await world.engine.images() == []
    assert await world.said() == []


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
async def test_an_archive_that_is_cut_off_leaves_nothing(part: float) -> None:
    """Wherever it ends, the engine never gets to the end of it."""
    world = World()
    content = (await _saved("web:1")).rstrip(b"\0")
    cut = content[: int(len(content) * part)]
    with pytest.raises(BadArchive, match="cut off"):
        await _importer(world).import_archive(Archive(chunks=chunks(cut), origin="x.tar"))
    assert await world.engine.images() == []


async def test_a_reference_is_pulled_by_the_engine() -> None:
    """The event's origin is the reference."""
    world = World()
    other = MemoryEngine(registries={world.registry.address: world.registry})
    name = f"{world.registry.address}/web:1"
    other.add_image(name, [tar_of({"f": b"1"})])
    async with other.push(name) as lines:
        assert [line async for line in lines]
    message = await _importer(world).import_reference(name)
    assert message.reference == message.origin == name
    assert await world.said() == [message]


async def test_one_bad_item_does_not_stop_the_others() -> None:
    """A list is done item by item, each with its own result."""
    world = World()
    results = await _importer(world).import_many(
        [
            Archive(chunks=chunks(b"junk" * 1000), origin="junk.tar"),
            f"{world.registry.address}/nothing:1",
            Archive(chunks=chunks(await _saved("web:1")), origin="good.tar"),
        ]
    )
    assert [type(result.error) for result in results] == [BadArchive, NotFound, type(None)]
    assert [len(result.images) for result in results] == [0, 0, 1]


async def test_without_redis_nothing_is_begun() -> None:
    """The engine is not asked to load."""
    world = World()
    world.bus.calls_left = 0
    with pytest.raises(RedisUnavailable):
        await _importer(world).import_archive(Archive(chunks=chunks(await _saved("web:1")), origin="x"))
    assert world.engine.counts == {}
