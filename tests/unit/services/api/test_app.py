"""The HTTP API, with twins behind it."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp.test_utils import TestClient, TestServer

from events.bus import IndexWrite, Outcome, Record, RecordWrite
from events.envelope import Envelope
from events.lease import Holder
from events.messages import (
    DeploymentCancelRequested,
    DeploymentPlanned,
    DeploymentRequested,
    Failure,
    ImageFailed,
    PresentImage,
    PushRequested,
)
from services.adapters.memory_archives import tar_of
from services.api.app import Api
from services.core.deployment import Deployment
from services.core.deployment_index import DeploymentKeys, index_writes
from services.core.holdings import HoldingKeys, Holdings
from services.core.plans import Plan, PlanKeys
from services.core.ranges import KnownRange, RangeKeys, WantedImage, WantedImages
from services.statistics import Statistics
from tests.unit.services.twins import STREAMS, World


@dataclass
class Service:
    """A running API and its world."""

    client: TestClient[Any, Any]
    world: World
    clock: list[float]

    async def get(self, path: str, status: int = 200) -> Any:
        async with self.client.get(path) as answer:
            assert answer.status == status, await answer.text()
            if status >= 400 and path not in {"/readyz"}:
                assert answer.content_type == "application/problem+json"
            return await answer.json()

    async def post(self, path: str, body: Any, status: int = 202) -> tuple[Any, str | None]:
        async with self.client.post(path, json=body) as answer:
            assert answer.status == status, await answer.text()
            return await answer.json(), answer.headers.get("Location")

    async def push(self, name: str, *layers: bytes) -> None:
        """Into the registry, as the host's engine would."""
        full = f"{self.world.registry.address}/library/{name}"
        self.world.engine.add_image(full, layers)
        async with self.world.engine.push(full) as lines:
            assert [line async for line in lines]


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    """An API over twins."""
    world, clock = World(), [0.0]
    api = Api(
        bus=world.bus,
        streams=STREAMS,
        registry=world.registry,
        engine=world.engine,
        statistics=Statistics(registry=world.registry, clock=lambda: clock[0]),
        source="api@t",
    )
    async with TestClient(TestServer(api.app())) as client:
        yield Service(client, world, clock)


async def test_livez_touches_nothing(service: Service) -> None:
    """It answers with everything away."""
    service.world.engine.away = service.world.registry.away = True
    service.world.bus.calls_left = 0
    assert await service.get("/livez") == {"status": "ok"}


async def test_readyz_says_per_dependency(service: Service) -> None:
    """200 when all answer; 503 with the one that does not and why."""
    assert (await service.get("/readyz"))["status"] == "ok"
    service.world.registry.away = True
    said = await service.get("/readyz", 503)
    states = {name: state["status"] for name, state in said["dependencies"].items()}
    assert states == {"redis": "ok", "registry": "unavailable", "engine": "ok"}
    assert said["dependencies"]["registry"]["detail"]


async def test_readyz_does_not_wait_for_ever(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dependency that hangs is one that does not answer."""
    monkeypatch.setattr("services.api.health.PATIENCE_SECONDS", 0.01)

    async def hangs(key: str) -> Record | None:
        await asyncio.Event().wait()
        return None

    monkeypatch.setattr(service.world.bus, "load", hangs)
    said = await service.get("/readyz", 503)
    assert "no answer within" in said["dependencies"]["redis"]["detail"]


async def test_metrics_are_in_prometheus_format(service: Service) -> None:
    """Readiness is a metric too."""
    await service.get("/readyz")
    async with service.client.get("/metrics") as answer:
        text = await answer.text()
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert 'cyroid_dependency_up{dependency="redis"} 1.0' in text


async def test_metrics_tell_what_is_stuck(service: Service) -> None:
    """How many entries a group has not read, over all ranges' outboxes together; still answered without Redis."""
    bus = service.world.bus
    for range_id in ("r1", "r2"):
        outbox = STREAMS.outbox(range_id)
        failed = ImageFailed(transfer_id="t", error=Failure(code="c", message="m"))
        await bus.publish(outbox, Envelope(message=failed, source="a", subject="s"))
        await bus.take(Holder("deployer", "t"), [outbox], 0)

    async def scraped() -> str:
        async with service.client.get("/metrics") as answer:
            assert answer.status == 200
            return await answer.text()

    text = await scraped()
    assert 'cyroid_group_entries{group="deployer",state="lag",stream="outbox"} 2.0' in text
    assert 'cyroid_group_oldest_seconds{group="deployer",state="undelivered",stream="outbox"}' in text
    bus.calls_left = 0
    assert "cyroid_group_entries" in await scraped()


async def test_stats_count_shared_layers_once(service: Service) -> None:
    """Two images on one base: stored once, counted twice in what they would take."""
    empty = await service.get("/api/v1/registry/stats")
    assert (empty["healthy"], empty["images"]) == (True, 0)
    base = tar_of({"base": bytes(5000)})
    await service.push("web:1", base, tar_of({"web": b"1"}))
    await service.push("web:2", base, tar_of({"web": b"2"}))
    await service.push("db:1", base)
    service.clock[0] += 60
    stats = await service.get("/api/v1/registry/stats")
    assert (stats["images"], stats["repositories"], stats["layers"]) == (3, 2, 3)
    assert stats["saved_bytes"] == 2 * len(base)
    assert stats["logical_bytes"] - stats["saved_bytes"] == stats["storage_used_bytes"]
    assert stats["storage_measured"] is False


async def test_stats_are_not_counted_for_every_request(service: Service) -> None:
    """Within a few seconds the same numbers are given again."""
    await service.push("web:1", tar_of({"web": b"1"}))
    first = await service.get("/api/v1/registry/stats")
    await service.push("web:2", tar_of({"web": b"2"}))
    assert await service.get("/api/v1/registry/stats") == first
    service.clock[0] += 60
    assert (await service.get("/api/v1/registry/stats"))["images"] == 2


async def test_stats_of_a_registry_that_is_away_are_unhealthy(service: Service) -> None:
    """An answer, not an error: a page shows it."""
    service.world.registry.away = True
    stats = await service.get("/api/v1/registry/stats")
    assert stats["healthy"] is False
    assert stats["error"]["code"] == "registry_unavailable"


async def test_stats_measure_the_storage_where_it_is_mounted(tmp_path: Path) -> None:
    """The disk's own number, and what is free."""
    (tmp_path / "blob").write_bytes(bytes(100_000))
    stats = await Statistics(registry=World().registry, storage=str(tmp_path)).get()
    assert stats.storage_measured
    assert stats.storage_used_bytes >= 100_000
    assert stats.storage_free_bytes
    missing = await Statistics(registry=World().registry, storage=str(tmp_path / "none")).get()
    assert not missing.storage_measured


async def test_images_of_the_registry_are_listed(service: Service) -> None:
    """With the reference they came from, size and image id."""
    await service.push("web:1", tar_of({"web": b"1"}))
    listed = await service.get("/api/v1/registry/images")
    (item,) = listed["items"]
    assert (item["reference"], item["repository"], item["tag"]) == ("docker.io/library/web:1", "library/web", "1")
    assert item["layers"] == 1
    assert listed["next"] is None


async def test_a_push_is_accepted(service: Service) -> None:
    """202, where to look, and the command on the bus."""
    image = service.world.engine.add_image("web:1", [tar_of({"web": b"1"})])
    body, location = await service.post("/api/v1/registry/push", {"reference": "web:1"})
    assert body["reference"] == "docker.io/library/web:1"
    assert location == "/api/v1/registry/images"
    assert await service.world.said() == [PushRequested(reference=body["reference"], image_id=image.image_id)]


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
    record = RecordWrite(keys.record(message.deployment_id), msgspec.json.encode(stored))
    await service.world.bus.commit(Outcome(records=(record,), index=index_writes(keys, None, stored)))
    assert (await service.get(location))["state"] == "succeeded"
    assert len((await service.get("/api/v1/deployments?limit=1"))["items"]) == 1


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
    assert len((await service.get("/api/v1/deployments"))["items"]) == 2


async def test_a_plan_is_accepted_and_followed(service: Service) -> None:
    """202 with its place, where it is told that nobody took it yet; one key names one plan."""
    wanted = {"images": ["web:1", "docker.io/library/web:1"], "range_ids": ["r1"]}
    body, location = await service.post("/api/v1/plans", wanted)
    assert location == f"/api/v1/plans/{body['plan_id']}"
    (message,) = await service.world.said(STREAMS.deployments)
    assert message == DeploymentPlanned(plan_id=body["plan_id"], images=("docker.io/library/web:1",), range_ids=("r1",))
    row = await service.get(location)
    assert (row["state"], [one["state"] for one in row["ranges"]]) == ("announced", ["announced"])
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
    record = RecordWrite(PlanKeys(STREAMS.prefix).record("p1"), msgspec.json.encode(taken))
    await service.world.bus.commit(Outcome(records=(record,)))
    await service.post("/api/v1/plans", body)
    problem, _ = await service.post("/api/v1/plans", {**body, "range_ids": ["r1"]}, 409)
    assert problem["code"] == "duplicate_plan"
    assert len(await service.world.said(STREAMS.deployments)) == 1


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
    record = RecordWrite(DeploymentKeys(STREAMS.prefix).record("d1"), msgspec.json.encode(taken))
    await service.world.bus.commit(Outcome(records=(record,)))
    await service.post("/api/v1/deployments", body)
    async with service.client.post("/api/v1/deployments", json={**body, "range_id": "r2"}) as answer:
        assert (answer.status, (await answer.json())["code"]) == (409, "duplicate_deployment")
    assert len(await service.world.said(STREAMS.deployments)) == 2


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
        name: WantedImage(reference=name, image_id=f"sha256:{'1' * 64}", diff_ids=(), deployment_id="d")
        for name in names
    }
    records = (
        RecordWrite(keys.known(range_id), msgspec.json.encode(known)),
        RecordWrite(keys.wanted(range_id), msgspec.json.encode(WantedImages(range_id=range_id, images=wanted))),
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
    holdings = Holdings.announced("r1", (toy,), datetime.now(UTC))
    record = RecordWrite(HoldingKeys(STREAMS.prefix).holdings("r1"), msgspec.json.encode(holdings))
    await service.world.bus.commit(Outcome(records=(record,)))
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
    assert (await service.get("/api/v1/ranges/r1/verification"))["items"] == []


async def test_a_range_is_forgotten_once_its_agent_is_gone(service: Service) -> None:
    """409 while it is alive, unless forced; then there is no such range."""
    await _know(service, "r1", "docker.io/library/web:1")
    await service.world.bus.beat(STREAMS.alive("r1"), b"{}", 60)
    assert await _delete(service, "/api/v1/ranges/r1") == (409, "range_alive")
    assert await _delete(service, "/api/v1/ranges/r1?force=yes") == (400, "bad_input")
    assert await _delete(service, "/api/v1/ranges/r1?force=true") == (204, "")
    assert await _delete(service, "/api/v1/ranges/nobody") == (404, "not_found")


@pytest.mark.parametrize(
    ("path", "body", "status", "code", "detail"),
    [
        ("/api/v1/registry/push", {"reference": "none:1"}, 404, "not_found", "has no image none:1"),
        ("/api/v1/registry/push", {"reference": "UPPER"}, 400, "bad_reference", "must be lower case"),
        ("/api/v1/registry/push", {}, 400, "bad_input", "missing required field `reference`"),
        ("/api/v1/registry/push", {"reference": "a", "x": 1}, 400, "bad_input", "unknown field `x`"),
        ("/api/v1/deployments", {"range_id": "a/b", "images": ["a"]}, 400, "bad_input", "range_id 'a/b'"),
        ("/api/v1/deployments", {"range_id": "r", "images": []}, 400, "bad_input", "at least one image"),
        ("/api/v1/deployments", {"range_id": "r", "images": ["a"], "priority": 10}, 400, "bad_input", "from 0 to 9"),
        ("/api/v1/deployments", {"range_id": "r", "images": ["A"]}, 400, "bad_reference", "must be lower case"),
        ("/api/v1/plans", {"images": []}, 400, "bad_input", "at least one image"),
        ("/api/v1/plans", {"images": ["a"] * 2 + [f"a:{n}" for n in range(500)]}, 400, "bad_input", "at most 500"),
        ("/api/v1/plans", {"images": ["a"], "range_ids": ["a/b"]}, 400, "bad_input", "a/b"),
        ("/api/v1/plans", {"images": ["a"], "plan_id": "a/b"}, 400, "bad_input", "plan_id 'a/b'"),
        ("/api/v1/deployments/none/cancel", None, 404, "not_found", "no deployment 'none'"),
        ("/nowhere", None, 404, "http_error", "Not Found"),
        ("/livez", None, 405, "http_error", "Method Not Allowed"),
    ],
)
async def test_bad_requests_are_problems(
    service: Service, *, path: str, body: Any, status: int, code: str, detail: str
) -> None:
    """problem+json with the project's code and what is wrong; nothing is published."""
    async with service.client.post(path, json=body) as answer:
        assert (answer.status, answer.content_type) == (status, "application/problem+json")
        problem = await answer.json()
    assert problem["status"] == status
    assert problem["code"] == code
    assert detail in problem["detail"]
    assert await service.world.said() == await service.world.said(STREAMS.deployments) == []


async def test_no_json_and_too_much_are_problems(service: Service) -> None:
    """Whatever the body is, the answer is a problem document."""
    async with service.client.post("/api/v1/deployments", data=b"{not json") as answer:
        assert (answer.status, (await answer.json())["code"]) == (400, "bad_input")
    async with service.client.post("/api/v1/deployments", data=io.BytesIO(bytes(2_000_000))) as answer:
        assert (answer.status, answer.content_type) == (413, "application/problem+json")


async def test_redis_away_is_503(service: Service) -> None:
    """With the project's code and that a retry can help."""
    service.world.bus.calls_left = 0
    async with service.client.post("/api/v1/deployments", json={"range_id": "r", "images": ["a"]}) as answer:
        problem = await answer.json()
    assert (problem["status"], problem["code"], problem["retryable"]) == (503, "redis_unavailable", True)


async def test_a_surprise_is_500_without_its_insides(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trace is in the log, not in the answer."""

    async def broken(*_: object) -> None:
        raise ZeroDivisionError("secret insides")

    monkeypatch.setattr("services.inventory.known_ranges", broken)
    problem = await service.get("/api/v1/ranges", 500)
    assert problem["code"] == "internal_error"
    assert "secret" not in str(problem)


async def test_a_limit_must_be_a_number(service: Service) -> None:
    """Lists are bounded."""
    assert "limit must be" in (await service.get("/api/v1/deployments?limit=all", 400))["detail"]
