"""Routes of plans: announce and follow; ids that are taken."""

from __future__ import annotations

from datetime import UTC, datetime

from events.bus import Outcome
from events.messages import (
    DeploymentPlanned,
)
from events.records import ANY
from services.core.deployments.plans import Plan, PlanKeys
from tests.unit.services.api.site import Service
from tests.unit.services.twins import STREAMS


async def test_a_plan_is_accepted_and_followed(service: Service) -> None:
    """202 with its place, where it is told that nobody took it yet; one key names one plan."""
    wanted = {"images": ["web:1", "docker.io/library/web:1"], "range_ids": ["r1"]}
    body, location = await service.post("/api/v1/plans", wanted)
    assert location == f"/api/v1/plans/{body['plan_id']}"
    (message,) = await service.world.said(STREAMS.deployments)
    assert message == DeploymentPlanned(plan_id=body["plan_id"], images=("docker.io/library/web:1",), range_ids=("r1",))
    row = await service.get(location)
    assert (row["state"], [one["state"] for one in row["ranges"]]) == ("announced", ["announced"])
    await service.look()
    assert [row["plan_id"] for row in (await service.get("/api/v1/plans"))["items"]] == [body["plan_id"]]
    places = []
    for _ in range(2):
        async with service.client.post("/api/v1/plans", json=wanted, headers={"Idempotency-Key": "k"}) as answer:
            places.append(answer.headers["Location"])
    assert places[0] == places[1] != location


async def test_a_plans_id_that_is_taken_is_a_conflict(service: Service) -> None:
    """Announcing the same again is the same plan; something else under its id is refused here."""
    body = {"images": ["web:1"], "range_ids": ["r1", "r2"], "plan_id": "p1"}
    taken = Plan(
        plan_id="p1",
        images=("docker.io/library/web:1",),
        range_ids=("r1", "r2"),
        announced_at=datetime.now(UTC),
    )
    record = PlanKeys(STREAMS.prefix).record("p1").write(taken, expected=ANY)
    await service.world.bus.commit(Outcome(records=(record,)))
    await service.post("/api/v1/plans", body)
    problem, _ = await service.post("/api/v1/plans", {**body, "range_ids": ["r1"]}, 409)
    assert problem["code"] == "duplicate_plan"
    assert len(await service.world.said(STREAMS.deployments)) == 1
