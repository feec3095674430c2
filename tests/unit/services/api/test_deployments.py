"""Routes of deployments: request, follow, cancel; idempotency keys and ids that are taken."""

from __future__ import annotations

from datetime import UTC, datetime

from aiohttp.test_utils import TestClient, TestServer
from msgspec.structs import replace

from events.bus import Outcome
from events.messages import (
    DeploymentCancelRequested,
    DeploymentRequested,
)
from events.records import ANY
from services.api.authentication import NoAuthentication
from services.api.server import application
from services.core.deployments.deployment import Deployment
from services.core.deployments.index import DeploymentKeys, index_writes
from services.core.deployments.transitions import answered_again, same_request
from tests.unit.services.api.site import Service, api_context
from tests.unit.services.twins import STREAMS, Cluster


async def test_a_deployment_is_accepted_followed_and_cancelled(service: Service) -> None:
    """202 with its place; its place tells its state; cancelling is a command."""
    body, location = await service.post("/api/v1/deployments", {"range_id": "r1", "images": ["web:1"]})
    assert location == f"/api/v1/deployments/{body['deployment_id']}"
    assert (await service.get(location))["state"] == "requested"
    (message,) = await service.world.said(STREAMS.deployments)
    assert isinstance(message, DeploymentRequested)
    await service.post(f"{location}/cancel", None)
    assert isinstance((await service.world.said(STREAMS.deployments))[-1], DeploymentCancelRequested)
    keys = DeploymentKeys(STREAMS.prefix)
    stored = Deployment(
        deployment_id=message.deployment_id,
        range_id="r1",
        state="succeeded",
        asked=message.images,
        images=(),
        requested_at=datetime.now(UTC),
        correlation_id="c",
    )
    record = keys.record(message.deployment_id).write(stored, expected=ANY)
    await service.world.bus.commit(Outcome(records=(record,), index=index_writes(keys, None, stored)))
    assert (await service.get(location))["state"] == "succeeded"
    await service.look()
    assert len((await service.get("/api/v1/deployments?limit=1"))["items"]) == 1


async def test_the_priority_of_one_that_waits_is_changed(service: Service) -> None:
    """By its request once more; one that has ended, or that nobody knows, has none."""
    keys = DeploymentKeys(STREAMS.prefix)
    stored = Deployment(
        deployment_id="d1",
        range_id="r1",
        state="running",
        asked=("docker.io/library/web:1",),
        images=(),
        requested_at=datetime.now(UTC),
        correlation_id="c",
    )
    await service.world.bus.commit(Outcome(records=(keys.record("d1").write(stored, expected=ANY),)))
    await service.post("/api/v1/deployments/d1/priority", {"priority": 9})
    (message,) = await service.world.said(STREAMS.deployments)
    assert isinstance(message, DeploymentRequested)
    assert (message.priority, same_request(stored, message)) == (9, True)
    assert answered_again(stored, message.priority).deployment.priority == 9
    ended = replace(stored, state="succeeded", ended_at=stored.requested_at)
    assert answered_again(ended, 9).deployment.priority == stored.priority
    await service.world.bus.commit(Outcome(records=(keys.record("d1").write(ended, expected=ANY),)))
    refused, _ = await service.post("/api/v1/deployments/d1/priority", {"priority": 9}, 400)
    assert "has ended" in refused["detail"]
    await service.post("/api/v1/deployments/none/priority", {"priority": 9}, 404)
    await service.post("/api/v1/deployments/d1/priority", {"priority": 10}, 400)


async def test_an_idempotency_key_names_one_deployment(service: Service) -> None:
    """Asking twice with one key gives one place; another key another one."""
    places = []
    for key in ("a key with spaces", "a key with spaces", "other"):
        async with service.client.post(
            "/api/v1/deployments", json={"range_id": "r1", "images": ["web:1"]}, headers={"Idempotency-Key": key}
        ) as answer:
            assert answer.status == 202
            places.append(answer.headers["Location"])
    assert places[0] == places[1] != places[2]
    await service.look()
    assert len((await service.get("/api/v1/deployments"))["items"]) == 2


async def test_an_id_that_is_taken_is_a_conflict(service: Service) -> None:
    """The deployer would refuse it where nobody hears it; asking for the same again is the same deployment."""
    body = {"range_id": "r1", "images": ["web:1"], "deployment_id": "d1"}
    await service.post("/api/v1/deployments", body)
    taken = Deployment(
        deployment_id="d1",
        range_id="r1",
        state="running",
        asked=("docker.io/library/web:1",),
        images=(),
        requested_at=datetime.now(UTC),
        correlation_id="c",
    )
    record = DeploymentKeys(STREAMS.prefix).record("d1").write(taken, expected=ANY)
    await service.world.bus.commit(Outcome(records=(record,)))
    await service.post("/api/v1/deployments", body)
    async with service.client.post("/api/v1/deployments", json={**body, "range_id": "r2"}) as answer:
        assert (answer.status, (await answer.json())["code"]) == (409, "duplicate_deployment")
    assert len(await service.world.said(STREAMS.deployments)) == 2


async def test_an_engine_outside_of_the_named_networks_is_refused() -> None:
    """The caller's word would make the agent pool call any address."""
    world = Cluster()
    context = api_context(world, engine_networks="172.30.1.0/24")
    body = {"range_id": "r1", "images": ["web:1"], "engine_url": "tcp://172.30.0.24:9099"}
    async with TestClient(TestServer(application(context, authenticator=NoAuthentication()))) as client:
        async with client.post("/api/v1/deployments", json=body) as answer:
            assert (answer.status, (await answer.json())["code"]) == (400, "bad_input")
        async with client.post("/api/v1/deployments", json={**body, "engine_url": "tcp://172.30.1.6:2375"}) as answer:
            assert answer.status == 202
