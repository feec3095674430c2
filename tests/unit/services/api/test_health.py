"""Liveness, readiness and metrics of the API."""

from __future__ import annotations

import asyncio

import pytest

from events.bus import Record
from events.envelope import Envelope
from events.lease import Holder
from events.messages import (
    Failure,
    ImageFailed,
)
from tests.unit.services.api.site import Service
from tests.unit.services.twins import STREAMS


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
    monkeypatch.setattr("services.runtime.readiness.PATIENCE_SECONDS", 0.01)

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

    service.mirror.ranges.addressed = {"r1", "r2"}

    async def scraped() -> str:
        async with service.client.get("/metrics") as answer:
            assert answer.status == 200
            return await answer.text()

    text = await scraped()
    assert 'cyroid_group_entries{group="deployer",state="lag",stream="outbox"} 2.0' in text
    assert 'cyroid_group_oldest_seconds{group="deployer",state="undelivered",stream="outbox"}' in text
    bus.calls_left = 0
    assert "cyroid_group_entries" in await scraped()
