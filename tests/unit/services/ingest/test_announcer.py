"""Announcing images of an engine that does not tell their config digest."""

import pytest

from services.adapters.layer_sources import layer_sources
from services.adapters.memory_archives import tar_of
from services.adapters.memory_engine import MemoryEngine
from services.core.images.manifests import sha256
from services.errors import TransferFailed
from services.ingest.announcer import Announcer
from services.ingest.promote import PromoteService
from tests.unit.services.twins import STREAMS, Cluster


async def test_a_containerd_stores_image_id_is_read_out_of_the_image() -> None:
    """The event carries the config digest, not what the engine calls the image."""
    world = Cluster(engine=MemoryEngine(store="containerd"))
    image = world.engine.add_image("web:1", [tar_of({"f": b"1"})])
    assert image.image_id is None
    announcer = Announcer(
        engine=world.engine,
        bus=world.bus,
        streams=STREAMS,
        source="t",
        sources=layer_sources(world.engine, engine_root=None),
    )
    service = PromoteService(engine=world.engine, announcer=announcer)
    message = await service.promote_image("web:1", reference="web:2")
    assert message.image_id == sha256(world.engine.config("web:1")) != image.local_id


async def test_an_image_id_that_cannot_be_known_is_not_invented() -> None:
    """Better no event than a wrong one."""
    world = Cluster(engine=MemoryEngine(store="containerd"))
    world.engine.add_image("web:1", [tar_of({"f": b"1"})])
    service = PromoteService(engine=world.engine, announcer=world.announcer())
    with pytest.raises(TransferFailed, match="its image id is not known"):
        await service.promote_image("web:1", reference="web:2")
    assert await world.said() == []
