"""An agent that is asked for an image: it sends the archive, or says that it has none, and never fails for it."""

from __future__ import annotations

import pytest
from aiohttp import web

from events.bus import NOTHING, Delivery
from events.envelope import Envelope
from events.messages import SaveRequested
from services.adapters.memory_engine import MemoryEngine
from services.agent.image_sending import ImageSending
from services.runtime.http_server import listening
from tests.images import tar_of
from tests.laboratory import free_port

NAME = "docker.io/library/web:1"


async def _asked(engine: MemoryEngine, image_id: str, port: int) -> None:
    message = SaveRequested(
        transfer_id="u1", reference=NAME, image_id=image_id, url=f"http://127.0.0.1:{port}/images/u1", token="secret"
    )
    envelope = Envelope(message=message, source="test", subject=NAME)
    delivery: Delivery[SaveRequested] = Delivery(envelope, "inbox", "1-0")
    assert await ImageSending(engine, "r1").requested(delivery) is NOTHING


@pytest.mark.parametrize("status", [204, 404, 302, 500])
@pytest.mark.parametrize("has", [True, False])
async def test_the_image_is_sent_or_declined(has: bool, status: int) -> None:
    """By its id under its name, with the token; whatever the answer is, there is no second try."""
    engine, other = MemoryEngine(), MemoryEngine()
    image = engine.add_image("web:1", [tar_of({"f": b"1"})])
    other.add_image("web:1", [tar_of({"f": b"rebuilt"})])
    got: list[tuple[str, str, bytes]] = []

    async def answer(request: web.Request) -> web.Response:
        got.append((request.method, request.headers["Authorization"], await request.read()))
        return web.Response(status=status, headers={"Location": "/elsewhere"})

    app = web.Application()
    app.router.add_route("*", "/{any:.*}", answer)
    async with listening(app, "127.0.0.1", 0) as (_, port):
        await _asked(engine if has else other, image.local_id, port)
    async with engine.save([image.local_id]) as chunks:
        archive = b"".join([chunk async for chunk in chunks])
    assert got == [("PUT", "Bearer secret", archive) if has else ("DELETE", "Bearer secret", b"")]


async def test_a_request_that_came_too_late_ends() -> None:
    """Nobody listens any more, or the engine is away."""
    engine = MemoryEngine()
    image = engine.add_image("web:1", [tar_of({"f": b"1"})])
    await _asked(engine, image.local_id, free_port())
    engine.away = True
    await _asked(engine, image.local_id, free_port())
