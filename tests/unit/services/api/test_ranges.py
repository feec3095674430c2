"""Routes of ranges: verification, unreferenced images, forgetting."""

from __future__ import annotations

from datetime import UTC, datetime

from events.bus import IndexWrite, Outcome
from events.messages import (
    PresentImage,
)
from events.records import ANY
from services.core.images.read_model import RangeInventory, ReadModelKeys
from services.core.ranges.ranges import DesiredImage, DesiredImages, KnownRange, RangeKeys
from tests.unit.services.api.site import Service
from tests.unit.services.twins import STREAMS


async def _know(service: Service, range_id: str, *names: str) -> None:
    """A range that spoke, and should have these images."""
    keys = RangeKeys(STREAMS.prefix)
    known = KnownRange(
        range_id=range_id,
        engine_id="e",
        engine_version="26.1.5",
        store="classic",
        platform="linux/amd64",
        started_at=datetime.now(UTC),
    )
    wanted = {
        name: DesiredImage(reference=name, image_id=f"sha256:{'1' * 64}", diff_ids=(), deployment_id="d")
        for name in names
    }
    records = (
        keys.known(range_id).write(known, expected=ANY),
        keys.wanted(range_id).write(DesiredImages(range_id=range_id, images=wanted), expected=ANY),
    )
    index = (IndexWrite(keys.known_index, range_id, 1.0),)
    await service.world.bus.commit(Outcome(records=records, index=index))


async def _delete(service: Service, path: str) -> tuple[int, str]:
    async with service.client.delete(path) as reply:
        return reply.status, (await reply.json())["code"] if reply.status >= 400 else await reply.text()


async def test_a_range_is_verified_by_what_its_agent_said(service: Service) -> None:
    """The command line's JSON; of one image where it is named; 404 for a range that never spoke."""
    web, db = "docker.io/library/web:1", "docker.io/library/db:1"
    await _know(service, "r1", web, db)
    await service.look()
    said = await service.get("/api/v1/ranges/r1/verification")
    assert (said["range_id"], said["well"], said["as_of"] is not None) == ("r1", False, True)
    assert [(one["reference"], one["verdict"]) for one in said["items"]] == [(db, "missing"), (web, "missing")]
    (one,) = (await service.get("/api/v1/ranges/r1/verification?image=web:1"))["items"]
    assert one["reference"] == web
    assert (await service.get("/api/v1/ranges/nobody/verification", 404))["code"] == "not_found"


async def test_what_a_range_has_and_nobody_wants_is_told(service: Service) -> None:
    """Of one range, of all that have such, and of the registry; 404 for a range that never said what it has."""
    await _know(service, "r1", "docker.io/library/web:1")
    toy = PresentImage(
        references=("docker.io/library/toy:1",), diff_ids=(), image_id=f"sha256:{'2' * 64}", size_bytes=7
    )
    holdings = RangeInventory.announced("r1", (toy,), datetime.now(UTC))
    record = ReadModelKeys(STREAMS.prefix).holdings("r1").write(holdings, expected=ANY)
    await service.world.bus.commit(Outcome(records=(record,)))
    await service.look()
    said = await service.get("/api/v1/ranges/r1/unwanted")
    (image,) = said["images"]
    assert (said["agent"], image["references"], image["size_bytes"]) == ("away", list(toy.references), 7)
    assert (await service.get("/api/v1/unwanted"))["items"] == [said]
    assert (await service.get("/api/v1/registry/unwanted"))["items"] == []
    assert (await service.get("/api/v1/ranges/nobody/unwanted", 404))["code"] == "not_found"


async def test_an_image_of_a_range_is_forgotten(service: Service) -> None:
    """Names with slashes and colons are a path's end; one that the range should not have is not found."""
    web, tools = "docker.io/library/web:1", "registry.example:5000/training/tools:2.1"
    await _know(service, "r1", web, tools)
    assert await _delete(service, "/api/v1/ranges/r1/images/web:1") == (204, "")
    assert await _delete(service, "/api/v1/ranges/r1/images/registry.example%3A5000/training/tools%3A2.1") == (204, "")
    assert await _delete(service, "/api/v1/ranges/r1/images/web:1") == (404, "not_found")
    await service.look()
    assert (await service.get("/api/v1/ranges/r1/verification"))["items"] == []


async def test_a_range_is_forgotten_once_its_agent_is_gone(service: Service) -> None:
    """409 while it is alive, unless forced; then there is no such range."""
    await _know(service, "r1", "docker.io/library/web:1")
    await service.world.bus.beat(STREAMS.alive("r1"), b"{}", 60)
    assert await _delete(service, "/api/v1/ranges/r1") == (409, "range_alive")
    assert await _delete(service, "/api/v1/ranges/r1?force=yes") == (400, "bad_input")
    assert await _delete(service, "/api/v1/ranges/r1?force=true") == (204, "")
    assert await _delete(service, "/api/v1/ranges/nobody") == (404, "not_found")
