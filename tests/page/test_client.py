"""The client for CYROID and the command line, against the real API."""

from __future__ import annotations

import pytest
from cyroid_images_client import ApiClient, RegistryService, transfer_image_to_dind

from tests.laboratory import RoleServer, System
from tests.page.conftest import BASE, RANGE

pytestmark = pytest.mark.real


async def test_cyroid_pushes_and_transfers_through_the_client(
    page_system: System, page_services: RoleServer, unique: str
) -> None:
    """From an image that only the host's engine has to a range that has it."""
    name = f"client/{unique}:1"
    page_system.host.docker("tag", BASE, name)
    client = ApiClient(page_system.api_url)
    registry = RegistryService(client)
    assert await registry.is_healthy()
    assert await registry.image_needs_push(name)
    percents: list[int] = []
    assert await registry.ensure_image_in_registry(name, lambda status, percent: percents.append(percent))
    assert percents[-1] == 100
    assert await registry.image_exists(name)
    assert not await registry.image_needs_push(name)
    statuses: list[str] = []
    assert await transfer_image_to_dind(
        RANGE, None, name, progress_callback=lambda done, total, status: statuses.append(status), api=client
    )
    assert statuses[0] == "starting"
    assert statuses[-1] in {"complete", "already_exists"}
    assert page_system.ranges[RANGE].layers(name) == page_system.host.layers(name)


def test_the_command_line_asks_the_api(page_system: System, page_services: RoleServer) -> None:
    """`api` and `top` with its address, where no Redis and no engine can be reached."""
    ranges = page_system.cli("api", "get", "ranges", "--api", page_system.api_url)
    assert ranges.status == 0, ranges.talk
    assert RANGE in [row["range_id"] for row in ranges.data["items"]]
    top = page_system.cli("top", "--api", page_system.api_url)
    assert top.status == 0, top.talk
    assert top.data["total"] >= 0
    assert page_system.cli("images", "push", BASE).status == 0
    told = page_system.cli("events", "tail", "-n", "1", "--no-follow", "--api", page_system.api_url)
    assert told.status == 0, told.talk
    assert told.data["stream"].startswith(f"{page_system.prefix}:")
    collected = page_system.cli("registry", "collect", "--dry-run", "--timeout", "120", "--api", page_system.api_url)
    assert collected.data["ended"], collected.talk
    assert collected.status == (5 if collected.data["damaged"] else 0)  # other tests leave damage in the registry
    missing = page_system.cli("api", "get", "deployments/none", "--api", page_system.api_url)
    assert missing.status == 2
    assert "none" in missing.talk
