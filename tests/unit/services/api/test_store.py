"""The store over HTTP, with a collector that answers from memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from events.envelope import Envelope
from events.messages import (
    DeletionPlanned,
    Failure,
    ImageDeleted,
    ImageDeleteRefused,
    ImageDeleteRequested,
    Message,
    RegistryCollected,
    RegistryRestored,
    RetentionPlanned,
)
from services.api.authentication import NoAuthentication
from services.api.routes import ROUTES
from services.api.server import application
from tests.unit.services.api.site import api_context
from tests.unit.services.twins import STREAMS, Cluster

WEB = "docker.io/library/web:1"
DIGEST = "sha256:" + "1" * 64


class Service:
    """A running API. `answer` is what a collector says to every command; None: there is no collector."""

    def __init__(self, client: TestClient[Any, Any], world: Cluster) -> None:
        self.client = client
        self.answer: Message | None = None
        self.asked: list[Message] = []
        self._publish, self._streams = world.bus.publish, STREAMS

    async def publish(self, stream: str, *envelopes: Envelope) -> None:
        await self._publish(stream, *envelopes)
        for one in envelopes:
            self.asked.append(one.message)
            if self.answer is not None:
                await self._publish(stream, one.causes(self.answer, source="collector", subject="registry"))

    async def call(self, method: str, path: str, status: int, body: Any = None) -> Any:
        async with self.client.request(method, path, json=body) as answer:
            assert answer.status == status, await answer.text()
            return await answer.json()


@pytest.fixture
async def service(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Service]:
    world = Cluster()
    context = replace(api_context(world), answer_seconds=0.2)
    async with TestClient(TestServer(application(context, authenticator=NoAuthentication()))) as client:
        opened = Service(client, world)
        monkeypatch.setattr(world.bus, "publish", opened.publish)
        yield opened


async def test_a_dry_run_of_a_deletion_is_answered_with_what_it_means(service: Service) -> None:
    """The command that is published says so as well."""
    service.answer = DeletionPlanned(reference=WEB, manifest_digest=DIGEST, tags=("1",), needed_by=("plan p-1",))
    said = await service.call("DELETE", "/api/v1/images/web:1?dry_run=true", 200)
    assert (said["deleted"], said["tags"], said["needed_by"]) == (False, ["1"], ["plan p-1"])
    assert service.asked == [ImageDeleteRequested(reference=WEB, dry_run=True)]


async def test_a_deletion_is_done_or_refused(service: Service) -> None:
    """What somebody needs is a conflict, an unknown name is not found; force goes along."""
    service.answer = ImageDeleted(reference=WEB, manifest_digest=DIGEST, freed_bytes=7, tags=("1",))
    said = await service.call("DELETE", "/api/v1/images/web:1?force=true", 200)
    assert (said["deleted"], said["freed_later_bytes"]) == (True, 7)
    assert service.asked == [ImageDeleteRequested(reference=WEB, force=True)]
    service.answer = ImageDeleteRefused(reference=WEB, error=Failure(code="in_use", message="plan p-1 needs it"))
    assert (await service.call("DELETE", "/api/v1/images/web:1", 409))["code"] == "in_use"
    service.answer = ImageDeleteRefused(reference=WEB, error=Failure(code="not_found", message="no such tag"))
    assert (await service.call("DELETE", "/api/v1/images/web:1", 404))["code"] == "not_found"


async def test_without_an_answer_the_command_was_accepted(service: Service) -> None:
    """What was asked for is done later, so it is no failure."""
    assert (await service.call("DELETE", "/api/v1/images/web:1", 202))["ended"] is False
    assert (await service.call("POST", "/api/v1/registry/collect", 202, {}))["ended"] is False
    assert (await service.call("POST", "/api/v1/registry/retention/run", 202, {}))["ended"] is False
    path, body = "/api/v1/registry/quarantine/restore", {"digests": [DIGEST]}
    assert (await service.call("POST", path, 202, body))["ended"] is False


async def test_a_collection_is_answered_with_its_figures(service: Service) -> None:
    """A registry that may not be collected is told by its code."""
    service.answer = RegistryCollected(quarantined=3, freed_bytes=9)
    assert (await service.call("POST", "/api/v1/registry/collect", 200, {}))["freed_bytes"] == 9
    service.answer = RegistryCollected(error=Failure(code="registry_has_cache", message="it has a cache"))
    assert (await service.call("POST", "/api/v1/registry/collect", 409, {}))["code"] == "registry_has_cache"


async def test_what_was_not_measured_is_not_found(service: Service) -> None:
    """Growth has no samples then."""
    for path in ("figures", "figures/details", "quarantine"):
        await service.call("GET", f"/api/v1/registry/{path}", 404)
    assert await service.call("GET", "/api/v1/registry/figures/growth", 200) == {"samples": []}


async def test_quarantine_is_restored_by_digest(service: Service) -> None:
    """A digest that is none is refused before anybody is asked."""
    service.answer = RegistryRestored(restored=(DIGEST,))
    path = "/api/v1/registry/quarantine/restore"
    assert (await service.call("POST", path, 200, {"digests": [DIGEST]}))["restored"] == [DIGEST]
    await service.call("POST", path, 400, {"digests": ["web"]})
    assert len(service.asked) == 1


async def test_rules_are_read_and_replaced(service: Service) -> None:
    """Retention and auto-push, each as a whole."""
    rules = {"rules": [{"pattern": "*/team/*", "keep_last": 3}]}
    assert await service.call("POST", "/api/v1/registry/retention", 200, rules) == rules
    assert await service.call("GET", "/api/v1/registry/retention", 200) == rules
    await service.call("POST", "/api/v1/registry/retention", 400, {"rules": [{"pattern": "*", "keep_last": 0}]})
    service.answer = RetentionPlanned(dry_run=True, kept=1)
    assert (await service.call("POST", "/api/v1/registry/retention/run", 200, {"dry_run": True}))["kept"] == 1
    chosen = {"push": False, "rules": [{"pattern": "*/team/*", "push": True}]}
    assert await service.call("POST", "/api/v1/settings/auto-push", 200, chosen) == chosen
    assert await service.call("GET", "/api/v1/settings/auto-push", 200) == chosen


def test_who_may_do_it() -> None:
    """Viewers look, operators delete images, administrators do what concerns the whole store."""
    access = {
        (route.method, route.path): route.access
        for route in ROUTES
        if "/registry/" in route.path or "/settings/" in route.path or route.method == "DELETE"
    }
    assert access["DELETE", "/api/v1/images/{reference:.+}"] == "operator"
    assert access["GET", "/api/v1/registry/quarantine"] == "viewer"
    assert access["POST", "/api/v1/registry/collect"] == "admin"
    assert access["POST", "/api/v1/registry/retention"] == "admin"
    assert access["POST", "/api/v1/settings/auto-push"] == "admin"
