"""Importing archives and references, against the engine's fake."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from events.messages import ImageImported
from services.adapters.memory_archives import tar_of
from services.adapters.memory_engine import MemoryEngine
from services.errors import BadArchive, BadInput, NotFound, RedisUnavailable
from services.ingest.archive_flow import Archive
from services.ingest.files import import_many
from services.ingest.importer import Importer
from services.ports import Chunks, EngineProgress
from tests.unit.services.twins import Cluster, chunks


class _Listening(MemoryEngine):
    """Remembers which pieces of an archive it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[bytes] = []

    @asynccontextmanager
    async def load(self, archive: Chunks) -> AsyncIterator[AsyncIterator[EngineProgress]]:
        async with super().load(self._noted(archive)) as lines:
            yield lines

    async def _noted(self, archive: Chunks) -> AsyncIterator[bytes]:
        async for chunk in archive:
            self.given.append(chunk)
            yield chunk


def _importer(world: Cluster) -> Importer:
    return Importer(engine=world.engine, announcer=world.announcer())


async def _saved(*references: str) -> bytes:
    other = MemoryEngine()
    for number, reference in enumerate(references):
        other.add_image(reference, [tar_of({"f": b"%d" % number})])
    async with other.save(references) as archive:
        return b"".join([chunk async for chunk in archive])


def _names(world: Cluster) -> set[str]:
    return set(world.engine.store.names)


async def test_every_name_of_an_archive_is_announced() -> None:
    """One event per name, in the archive's order, with the engine's image id."""
    world = Cluster()
    content = await _saved("web:1", "db:2")
    messages = await _importer(world).import_archive(Archive(chunks=chunks(content), origin="a.tar"), push="always")
    assert await world.said() == messages
    assert {message.reference for message in messages} == {"docker.io/library/web:1", "docker.io/library/db:2"}
    for message in messages:
        assert isinstance(message, ImageImported)
        image = await world.engine.inspect(message.reference)
        assert image is not None
        assert (message.image_id, message.origin, message.push) == (image.image_id, "a.tar", "always")


async def test_an_archives_image_can_get_another_name() -> None:
    """The event tells the name that was asked for, and the engine has only that one: nothing is there unannounced."""
    world = Cluster()
    archive = Archive(chunks=chunks(await _saved("web:1")), origin="a.tar", reference="shop/web:9")
    (message,) = await _importer(world).import_archive(archive)
    assert message.reference == "docker.io/shop/web:9"
    assert _names(world) == {"docker.io/shop/web:9"}


async def test_another_name_may_be_the_archives_own() -> None:
    """Then it stays."""
    world = Cluster()
    archive = Archive(chunks=chunks(await _saved("web:1")), origin="a.tar", reference="web:1")
    (message,) = await _importer(world).import_archive(archive)
    assert {message.reference} == _names(world) == {"docker.io/library/web:1"}


async def test_another_name_leaves_the_hosts_own_image_of_that_name_alone() -> None:
    """The archive is called web:1, and so is something else here: that one keeps its name."""
    world = Cluster()
    mine = world.engine.add_image("web:1", [tar_of({"f": b"mine"})])
    archive = Archive(chunks=chunks(await _saved("web:1")), origin="a.tar", reference="shop/web:9")
    (message,) = await _importer(world).import_archive(archive)
    assert message.image_id != mine.image_id
    assert await world.engine.inspect("web:1") == mine
    assert _names(world) == {"docker.io/library/web:1", "docker.io/shop/web:9"}


async def test_one_name_for_several_images_is_refused() -> None:
    """Nobody could know which is meant; the engine is as it was, tags that the archive holds too."""
    world = Cluster()
    mine = world.engine.add_image("web:1", [tar_of({"f": b"mine"})])
    archive = Archive(chunks=chunks(await _saved("web:1", "db:2")), origin="a.tar", reference="x:1")
    with pytest.raises(BadInput, match="holds 2 images, so --as cannot") as caught:
        await _importer(world).import_archive(archive)
    assert caught.value.code == "many_names"
    assert await world.engine.images() == [mine]
    assert await world.said() == []


async def test_an_archive_that_fails_at_its_second_image_leaves_nothing_of_the_first() -> None:
    """New names are gone again, one that was overwritten means what it meant."""
    world = Cluster()
    mine = world.engine.add_image("web:1", [tar_of({"f": b"mine"})])
    broken = (await _saved("web:1", "cache:3", "db:2")).replace(tar_of({"f": b"2"}), tar_of({"f": b"X"}))
    with pytest.raises(BadArchive, match="came as"):
        await _importer(world).import_archive(Archive(chunks=chunks(broken), origin="a.tar"))
    assert await world.engine.images() == [mine]
    assert await world.said() == []


async def test_an_engine_gets_a_tars_end_only_after_the_archive_was_judged() -> None:
    """It may read no further than that end: padding that follows must not let it begin before."""
    engine = _Listening()
    world = Cluster(engine=engine)
    content = (await _saved("web:1", "db:2")).rstrip(b"\0")
    content += bytes(-len(content) % 512)
    ending = [content, bytes(512), bytes(512), *[bytes(10240)] * 3]
    with pytest.raises(BadInput, match="holds 2 images, so --as cannot"):
        await _importer(world).import_archive(Archive(chunks=chunks(*ending), origin="a.tar", reference="x:1"))
    assert content.startswith(given := b"".join(engine.given))
    assert b"manifest.json" not in given


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
    world = Cluster()
    with pytest.raises(BadArchive, match=reason):
        await _importer(world).import_archive(Archive(chunks=chunks(content), origin="x.tar"))
    assert await world.engine.images() == []
    assert await world.said() == []


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
async def test_an_archive_that_is_cut_off_leaves_nothing(part: float) -> None:
    """Wherever it ends, the engine never gets to the end of it."""
    world = Cluster()
    content = (await _saved("web:1")).rstrip(b"\0")
    cut = content[: int(len(content) * part)]
    with pytest.raises(BadArchive, match="cut off"):
        await _importer(world).import_archive(Archive(chunks=chunks(cut), origin="x.tar"))
    assert await world.engine.images() == []


async def test_a_reference_is_pulled_by_the_engine() -> None:
    """The event's origin is the reference."""
    world = Cluster()
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
    world = Cluster()
    results = await import_many(
        [
            Archive(chunks=chunks(b"junk" * 1000), origin="junk.tar"),
            f"{world.registry.address}/nothing:1",
            Archive(chunks=chunks(await _saved("web:1")), origin="good.tar"),
        ],
        importer=_importer(world),
        limit_bytes=1 << 20,
    )
    assert [type(result.error) for result in results] == [BadArchive, NotFound, type(None)]
    assert [len(result.images) for result in results] == [0, 0, 1]


async def test_without_redis_nothing_is_begun() -> None:
    """The engine is not asked to load."""
    world = Cluster()
    world.bus.calls_left = 0
    with pytest.raises(RedisUnavailable):
        await _importer(world).import_archive(Archive(chunks=chunks(await _saved("web:1")), origin="x"))
    assert world.engine.counts == {}
