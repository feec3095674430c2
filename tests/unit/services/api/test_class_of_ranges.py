"""The route of a class."""

from __future__ import annotations

from tests.unit.services.api.site import Service


async def test_a_class_without_deployments_is_empty(service: Service) -> None:
    """And no error."""
    assert (await service.get("/api/v1/class"))["total"] == 0


async def test_what_is_asked_for_belongs_to_the_class_at_once(service: Service) -> None:
    """Before a deployer has taken it."""
    await service.post("/api/v1/deployments", {"range_id": "range-1", "images": ["web:1", "db:1"]})
    await service.look()
    view = await service.get("/api/v1/class?image=web")
    assert (view["total"], view["ready"]) == (1, 0)
    assert [one["state"] for one in view["ranges"][0]["images"]] == ["requested"]
