"""The host's images over HTTP, with a registry-pusher that answers from memory."""

from __future__ import annotations

from events.messages import (
    Adoption,
    AdoptRequested,
    Failure,
    FetchRequested,
    ImageFetched,
    ImagesAdopted,
    ImagesReclaimed,
    Reclaim,
    ReclaimRequested,
)
from services.api.request_reply import wait_of
from tests.unit.services.api.test_store import DIGEST, WEB, Service, service

__all__ = ["service"]


async def test_an_adoption_is_asked_for_and_answered(service: Service) -> None:
    """With sizes and an estimate; the command carries the patterns."""
    one = Adoption(reference=WEB, origin="host", state="new", size_bytes=7, missing_bytes=5)
    service.answer = ImagesAdopted(dry_run=True, new=1, size_bytes=7, missing_bytes=5, images=(one,))
    body = {"patterns": ["web:*"], "origin": "host", "dry_run": True}
    said = await service.call("POST", "/api/v1/images/adopt", 200, body)
    assert (said["new"], said["missing_bytes"], said["images"][0]["state"]) == (1, 5, "new")
    assert service.asked == [AdoptRequested(patterns=("web:*",), origin="host", dry_run=True)]


async def test_what_is_not_answered_yet_goes_on(service: Service) -> None:
    """202, and no verdicts."""
    for path in ("adopt", "reclaim"):
        said = await service.call("POST", f"/api/v1/images/{path}", 202, {"patterns": ["*"]})
        assert said["ended"] is False
    said = await service.call("POST", "/api/v1/images/fetch", 202, {"reference": "web:1"})
    assert said["reference"] == WEB


async def test_a_caller_says_how_long_it_waits(service: Service) -> None:
    """By Prefer: the command is published in any case. What is no number of seconds is no wish."""
    path, body = "/api/v1/images/fetch", {"reference": "web:1"}
    async with service.client.post(path, json=body, headers={"Prefer": "respond-async, wait=0"}) as answer:
        assert answer.status == 202
    assert service.asked == [FetchRequested(reference=WEB)]
    assert [wait_of(text, 30) for text in ('a; wait = "5"', "wait=3, wait=9", "WAIT=7")] == [5, 3, 7]
    for text in ("", "wait=", "wait=-1", "wait=1.5", "await=1", "wait=1x", "wait=12345678"):
        assert wait_of(text, 30) == 30


async def test_a_reclaim_tells_a_verdict_on_each_copy(service: Service) -> None:
    """As the command line prints it."""
    service.answer = ImagesReclaimed(
        images=(Reclaim(reference=WEB, freed=True, reason="r", freed_bytes=7),), freed_bytes=7
    )
    said = await service.call("POST", "/api/v1/images/reclaim", 200, {"patterns": ["*"]})
    assert (said["freed_bytes"], said["images"][0]["freed"]) == (7, True)
    assert service.asked == [ReclaimRequested(patterns=("*",))]


async def test_an_image_is_fetched_by_a_familiar_name(service: Service) -> None:
    """The command has the full one."""
    service.answer = ImageFetched(reference=WEB, image_id=DIGEST, seconds=0.5)
    said = await service.call("POST", "/api/v1/images/fetch", 200, {"reference": "web:1"})
    assert said["image_id"] == DIGEST
    assert service.asked == [FetchRequested(reference=WEB)]


async def test_what_fails_is_a_problem(service: Service) -> None:
    """With the code that the registry-pusher gave."""
    failure = Failure(code="not_found", message="the registry has no image web:1")
    for answer, path, body in (
        (ImageFetched(reference=WEB, error=failure), "fetch", {"reference": "web:1"}),
        (ImagesAdopted(error=failure), "adopt", {"patterns": ["*"]}),
        (ImagesReclaimed(error=failure), "reclaim", {"patterns": ["*"]}),
    ):
        service.answer = answer
        assert (await service.call("POST", f"/api/v1/images/{path}", 404, body))["code"] == "not_found"


async def test_the_rules_are_replaced_as_a_whole(service: Service) -> None:
    """And read back."""
    rules = {"rules": [{"pattern": "*/team/*", "after_days": 7.0}]}
    assert await service.call("GET", "/api/v1/settings/reclaim", 200) == {}
    await service.call("POST", "/api/v1/settings/reclaim", 200, rules)
    assert await service.call("GET", "/api/v1/settings/reclaim", 200) == rules
    await service.call("POST", "/api/v1/settings/reclaim", 400, {"rules": [{"pattern": "x", "after_days": -1}]})
