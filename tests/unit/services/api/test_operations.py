"""Dead letters, groups, the event log and doctor over HTTP."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from aiohttp.test_utils import TestClient, TestServer

from events.bus import NOTHING
from events.envelope import Envelope
from events.lease import DeadLetterReason, Holder
from events.messages import DeploymentRequested, PushRequested
from services.api.authentication import NoAuthentication
from services.api.route import DoctorFinding
from services.api.server import application
from tests.unit.services.api.site import Service, api_context
from tests.unit.services.twins import STREAMS, Cluster


async def _bury(service: Service, reason: str = "not_found", count: int = 1) -> None:
    bus = service.world.bus
    for number in range(count):
        envelope = Envelope(message=PushRequested(reference=f"web:{number}"), source="api", subject="web")
        await bus.publish(STREAMS.images, envelope)
        (lease,) = (await bus.take(Holder("pusher", "w"), [STREAMS.images], 1)).leases
        await bus.dead_letter(
            lease, DeadLetterReason(STREAMS.dead, reason, "x" * 5000, "2026-01-01T00:00:00Z"), NOTHING
        )


async def test_dead_letters_are_paged_and_filtered(service: Service) -> None:
    """Each once; a filter counts what matches; the details have the entry's fields."""
    await _bury(service, count=5)
    await _bury(service, "crashed", count=2)
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = await service.get(f"/api/v1/dead-letters?limit=3&cursor={cursor}")
        assert page["total"] == 7
        seen += [one["letter"] for one in page["items"]]
        cursor = page["next"]
    assert len(seen) == len(set(seen)) == 7
    filtered = await service.get("/api/v1/dead-letters?reason=crashed&group=pusher&type=image.push_requested.v1")
    assert (filtered["total"], len(filtered["items"]), len(filtered["items"][0]["message"])) == (2, 2, 500)
    assert (await service.get("/api/v1/dead-letters?on=other"))["items"] == []
    assert (await service.get(f"/api/v1/dead-letters/{seen[0]}"))["fields"]["data"] == '{"reference":"web:0"}'
    assert (await service.get("/api/v1/dead-letters/9-9", 404))["code"] == "not_found"
    assert (await service.get("/api/v1/dead-letters?cursor=x", 400))["code"] == "bad_input"


async def test_letters_are_redriven_only_when_their_number_is_confirmed(service: Service) -> None:
    """Without it they are counted; with another number nothing is done; a drop is the same."""
    await _bury(service, count=2)
    await _bury(service, "crashed")
    path = "/api/v1/dead-letters/redrive"
    assert (await service.post(path, {"reason": "not_found"}, 200))[0] == {"matching": 2, "done": 0}
    assert (await service.post(path, {"reason": "not_found", "confirm": 3}, 409))[0]["code"] == "not_confirmed"
    assert (await service.post(path, {"reason": "not_found", "confirm": 2}, 200))[0] == {"matching": 2, "done": 2}
    (left,) = (await service.get("/api/v1/dead-letters"))["items"]
    dropped, _ = await service.post("/api/v1/dead-letters/drop", {"letters": [left["letter"]], "confirm": 1}, 200)
    assert dropped == {"matching": 1, "done": 1}
    assert (await service.get("/api/v1/dead-letters"))["total"] == 0


async def test_groups_say_how_far_behind_they_are(service: Service) -> None:
    """Of each stream that somebody reads."""
    await service.world.bus.publish(
        STREAMS.images, Envelope(message=PushRequested(reference="web:1"), source="api", subject="web")
    )
    await service.world.bus.take(Holder("registry-pusher", "w"), [STREAMS.images], 1)
    (row,) = (await service.get("/api/v1/groups"))["items"]
    assert (row["stream"], row["group"], row["pending"]) == (STREAMS.images, "registry-pusher", 1)


async def test_the_event_log_is_newest_first(service: Service) -> None:
    """Filtered by type, subject, request and text, and paged by the last event."""
    for number in range(5):
        message = DeploymentRequested(deployment_id=f"d{number}", range_id="r1", images=("web:1",))
        envelope = Envelope(message=message, source="api", subject=f"r{number}", correlation_id=f"c{number}")
        await service.world.bus.publish(STREAMS.deployments, envelope)
    await service.look()
    first = await service.get("/api/v1/event-log?limit=2&type=deployment.requested")
    assert [one["data"]["deployment_id"] for one in first["items"]] == ["d4", "d3"]
    rest = await service.get(f"/api/v1/event-log?cursor={first['next'].replace('|', '%7C')}")
    assert [one["data"]["deployment_id"] for one in rest["items"]] == ["d2", "d1", "d0"]
    for query in ("subject=r3", "correlation_id=c3", "q=D3"):
        (one,) = (await service.get(f"/api/v1/event-log?{query}"))["items"]
        assert one["data"]["deployment_id"] == "d3"
    assert (await service.get("/api/v1/event-log?cursor=gone", 400))["code"] == "bad_input"


async def test_doctor_tells_every_finding() -> None:
    """Well only where nothing is wrong."""

    async def checks() -> list[DoctorFinding]:
        return [DoctorFinding(state="ok", what="redis", found="7.0"), found]

    found = DoctorFinding(state="wrong", what="registry", found="away", advice="start it")
    context = replace(api_context(Cluster()), doctor=checks)
    client: TestClient[Any, Any]
    async with TestClient(TestServer(application(context, authenticator=NoAuthentication()))) as client:
        report = await (await client.get("/api/v1/doctor")).json()
    assert (report["well"], [one["what"] for one in report["items"]]) == (False, ["redis", "registry"])
