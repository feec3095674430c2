"""Bringing an image to a range's engine at once, on fakes: whose trouble leads to which way."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.adapters.memory_engine import Fault, MemoryEngine
from services.adapters.memory_registry import MemoryRegistry
from services.agent.pull import Patience
from services.core.images.references import Reference
from services.errors import BadArchive, EngineUnavailable, NoSpace
from services.ports import BlobDigest, Chunks
from services.tar_server.exports import Exports
from services.tar_server.image_reader import ImageReader
from services.tar_server.spool import SpoolFolder
from services.transfer import Transfer, Transferred
from tests.unit.services.layer_twins import TwinSource, layer, twin_push

NAME = "docker.io/team/app:1"


class DiskOfRegistry(MemoryRegistry):
    """A registry whose disk can be full."""

    full = False

    async def put_blob(self, repository: str, digest: BlobDigest, size_bytes: int | None, chunks: Chunks) -> None:
        if self.full:
            raise NoSpace("the registry has no room for a blob")
        await super().put_blob(repository, digest, size_bytes, chunks)


class Ground:
    """A host, a registry and a range."""

    def __init__(self, spool: Path) -> None:
        self.registry = DiskOfRegistry()
        reached = {self.registry.address: self.registry}
        self.host, self.range = MemoryEngine(registries=reached), MemoryEngine(registries=reached)
        self.image = self.host.add_image(NAME, [layer("a"), layer("b")])
        sources = (TwinSource(self.host),)
        self.push = twin_push(self.host, self.registry)
        self.transfer = Transfer(
            host=self.host,
            sources=sources,
            registry=self.registry,
            push=self.push,
            exports=Exports(
                reader=ImageReader(engine=self.host, sources=sources, registry=self.registry),
                folder=SpoolFolder(spool, limit_bytes=1 << 30),
                limit=1,
                linger_seconds=0,
            ),
            patience=Patience(stall_seconds=5),
        )

    async def move(self) -> Transferred:
        return await self.transfer.run("7", self.range, Reference.parse(NAME), lambda told: None)


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground(tmp_path)


async def test_a_full_registry_is_passed_over(ground: Ground) -> None:
    """Its disk is not the range's: the range has room, so the image comes by tar."""
    ground.registry.full = True
    moved = await ground.move()
    assert moved.how == "loaded"
    assert [failure.code for failure in moved.passed_over] == ["no_space"]


async def test_a_full_range_is_an_error(ground: Ground) -> None:
    """No other way needs less room there."""
    await ground.push.push(NAME)
    ground.range.faults["pull"] = Fault(error=NoSpace("no space left on device"))
    with pytest.raises(NoSpace, match="on device"):
        await ground.move()
    assert ground.range.counts == {"pull": 1}


async def test_what_the_registry_has_is_moved_without_the_hosts_engine(ground: Ground) -> None:
    """A stopped engine is no reason: the registry says what the name means, and gives it."""
    await ground.push.push(NAME)
    ground.host.away = True
    moved = await ground.move()
    assert (moved.how, moved.image_id) == ("pulled", ground.image.image_id)


async def test_without_the_hosts_engine_nobody_else_may_have_it(ground: Ground) -> None:
    """Then the engine that is away is the error, not that the image is unknown: it may be there."""
    ground.host.away = True
    with pytest.raises(EngineUnavailable, match=r"cannot talk to the engine .* nor is there another place"):
        await ground.move()


async def test_a_new_config_is_loaded_without_a_layer(ground: Ground) -> None:
    """The range has all layers: a few thousand bytes come, whatever it would make of a pull."""
    ground.range.add_image("old:1", [layer("a"), layer("b")], author="before")
    moved = await ground.move()
    assert (moved.how, moved.layers_reused, moved.layers_total) == ("loaded", 2, 2)
    assert ground.range.counts == {"load": 1}


async def test_a_config_that_cannot_be_loaded_is_pulled(ground: Ground) -> None:
    """The other way is as good as ever."""
    ground.range.add_image("old:1", [layer("a"), layer("b")], author="before")
    ground.range.faults["load"] = Fault(error=BadArchive("it cannot be used"))
    moved = await ground.move()
    assert (moved.how, [failure.code for failure in moved.passed_over]) == ("pulled", ["bad_archive"])


async def test_a_range_that_is_away_is_an_error_at_once(ground: Ground) -> None:
    """There is nothing to bring it to."""
    ground.range.away = True
    with pytest.raises(EngineUnavailable):
        await ground.move()
