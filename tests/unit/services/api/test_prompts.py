"""Prompts are answered once for all."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from events.messages import PushRequested, PushSkipped
from events.records import Stored
from services.adapters.memory_archives import tar_of
from services.core.images.prompts import Prompt, asked, prompt_id
from services.core.images.pushes import PushKeys, PushRecord, written
from tests.unit.services.api.site import Service
from tests.unit.services.twins import STREAMS

WEB, ONE, TWO = "docker.io/library/web:1", f"sha256:{'1' * 64}", f"sha256:{'2' * 64}"
ANSWER = f"/api/v1/prompts/{prompt_id(WEB)}/answer"


async def _ask(service: Service, image_id: str = ONE) -> None:
    prompt = Prompt(
        id=prompt_id(WEB), reference=WEB, image_id=image_id, asked_at=datetime.now(UTC), correlation_id="built-1"
    )
    await service.world.bus.commit(asked(STREAMS.prefix, prompt))
    await service.look()


async def _open(service: Service) -> list[Any]:
    await service.look()
    listed = await service.get("/api/v1/prompts")
    return list(listed["items"])


async def test_one_answer_wins_and_the_other_is_told_whose_it_was(service: Service) -> None:
    """The push is of the content that was asked about, and belongs to the event that asked."""
    await _ask(service)
    given, location = await service.post(ANSWER, {"answer": "push"}, 200)
    assert location == f"/api/v1/pushes/{given['push_id']}"
    late, _ = await service.post(ANSWER, {"answer": "skip"}, 409)
    assert (late["code"], "had it pushed" in late["detail"]) == ("prompt_answered", True)
    assert await service.world.said() == [PushRequested(reference=WEB, image_id=ONE, why="prompt")]
    assert await _open(service) == []


async def test_a_skip_is_an_event_and_a_newer_image_asks_again(service: Service) -> None:
    """An answer about the older content is refused then."""
    await _ask(service)
    await service.post(ANSWER, {"answer": "skip", "image_id": ONE}, 200)
    assert await service.world.said() == [PushSkipped(reference=WEB, prompt_id=prompt_id(WEB), image_id=ONE)]
    await _ask(service, TWO)
    assert [row["image_id"] for row in await _open(service)] == [TWO]
    stale, _ = await service.post(ANSWER, {"answer": "push", "image_id": ONE}, 409)
    assert "newer content" in stale["detail"]
    await service.post(ANSWER, {"answer": "push", "image_id": TWO}, 200)


async def test_a_push_that_was_no_answer_is_told_to_whoever_answers_later(service: Service) -> None:
    """A push by hand is the answer, with its sender; one by a rule or for a deployment is named as such."""
    layer = tar_of({"web": b"1"})
    image = service.world.engine.add_image(WEB, [layer])
    await _ask(service, image.image_id or "")
    await service.post("/api/v1/registry/push", {"reference": "web:1"})
    late, _ = await service.post(ANSWER, {"answer": "skip"}, 409)
    assert (late["code"], "had it pushed" in late["detail"]) == ("prompt_answered", True)
    assert [message.why for message in await service.world.said()] == ["prompt"]  # type: ignore[union-attr]
    keys, now = PushKeys(STREAMS.prefix), datetime.now(UTC)
    other = PushRecord(id="p2", reference="docker.io/library/db:1", asked_at=now, changed_at=now, why="on_demand")
    await service.world.bus.commit(written(keys, Stored(None, 0), other, now))
    await service.look()
    path = f"/api/v1/prompts/{prompt_id(other.reference)}/answer"
    late, _ = await service.post(path, {"answer": "push"}, 409)
    assert (late["code"], "for a deployment" in late["detail"]) == ("prompt_answered", True)


async def test_what_nobody_asked_cannot_be_answered(service: Service) -> None:
    """Nor can it be answered with another word."""
    assert (await service.post(ANSWER, {"answer": "push"}, 404))[0]["code"] == "not_found"
    assert (await service.post(ANSWER, {"answer": "maybe"}, 400))[0]["code"] == "bad_input"
