"""The command to push an image."""

from __future__ import annotations

from events.messages import (
    PushRequested,
)
from services.adapters.memory_archives import tar_of
from tests.unit.services.api.site import Service


async def test_a_push_is_accepted(service: Service) -> None:
    """202, where to look, and the command on the bus."""
    image = service.world.engine.add_image("web:1", [tar_of({"web": b"1"})])
    body, location = await service.post("/api/v1/registry/push", {"reference": "web:1"})
    assert body["reference"] == "docker.io/library/web:1"
    assert location == f"/api/v1/pushes/{body['id']}"
    assert await service.world.said() == [PushRequested(reference=body["reference"], image_id=image.image_id)]
