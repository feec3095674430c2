"""The client for CYROID, against an API that says what a test wants."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cyroid_images_client import ApiClient, ApiError, RegistryService, transfer_image_to_dind
from cyroid_images_client import registry_service as module
from cyroid_images_client import transfer as transfer_module
from cyroid_images_client.client import path_of

Answers = dict[str, Any]


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits between two looks."""
    monkeypatch.setattr(module, "POLL_SECONDS", 0.001)
    monkeypatch.setattr(transfer_module, "POLL_SECONDS", 0.001)
    monkeypatch.setattr(module, "RECORD_SECONDS", 0.05)


@pytest.fixture
def said() -> Answers:
    """What the API answers: by method and path, a body, a status with a body, or several in turn."""
    return {}


@pytest.fixture
async def api(said: Answers) -> AsyncIterator[TestServer]:
    """The API."""

    async def answer(request: web.Request) -> web.Response:
        found = said.get(f"{request.method} {request.path}", (404, {"code": "not_found", "detail": "nothing there"}))
        if isinstance(found, list):
            found = found.pop(0) if len(found) > 1 else found[0]
        status, body = found if isinstance(found, tuple) else (200, found)
        return web.json_response(body, status=status)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    server = TestServer(app)
    await server.start_server()
    yield server
    await server.close()


@pytest.fixture
def registry(api: TestServer) -> RegistryService:
    """CYROID's view of it."""
    return RegistryService(ApiClient(str(api.make_url("/"))))


def _preview(tag: str) -> Answers:
    return {"GET /api/v1/registry/push/preview": {"tag": tag}}


async def test_a_push_is_followed_to_its_end(registry: RegistryService, said: Answers) -> None:
    """Percentages go up, and the last one is 100."""
    said["POST /api/v1/registry/push"] = (202, {"id": "one", "reference": "web:1"})
    said["GET /api/v1/pushes/one"] = [
        (404, {"code": "not_found", "detail": "no record yet"}),
        {"state": "pushing", "done_bytes": 50, "total_bytes": 100},
        {"state": "pushed"},
    ]
    heard: list[tuple[str, int]] = []
    assert await registry.push_image("web:1", lambda status, percent: heard.append((status, percent)))
    assert [percent for _, percent in heard] == [0, 50, 100]


async def test_a_push_that_fails_is_false(registry: RegistryService, said: Answers) -> None:
    """As is one that was refused, or that no pusher ever took."""
    assert not await registry.push_image("web:1")
    said["POST /api/v1/registry/push"] = (202, {"id": "one"})
    assert not await registry.push_image("web:1")
    said["GET /api/v1/pushes/one"] = {"state": "failed", "error": {"code": "no_space", "message": "full"}}
    assert not await registry.push_image("web:1")


async def test_a_callback_that_raises_does_not_break_the_work(registry: RegistryService, said: Answers) -> None:
    """It is not called again."""
    said["POST /api/v1/registry/push"] = (202, {"id": "one"})
    said["GET /api/v1/pushes/one"] = {"state": "pushed"}
    called: list[int] = []

    def fails(status: str, percent: int) -> None:
        called.append(percent)
        raise RuntimeError("the page is gone")

    assert await registry.push_image("web:1", fails)
    assert called == [0]


@pytest.mark.parametrize(
    ("tag", "exists", "needs"), [("same", True, False), ("other", True, True), ("none", False, True)]
)
async def test_what_the_registry_has(
    registry: RegistryService, said: Answers, tag: str, exists: bool, needs: bool
) -> None:
    """A tag that was rebuilt exists, and needs a push all the same."""
    said.update(_preview(tag))
    assert (await registry.image_exists("web:1"), await registry.image_needs_push("web:1")) == (exists, needs)


async def test_what_only_the_registry_has_is_enough(registry: RegistryService, said: Answers) -> None:
    """The host's engine need not have it."""
    said["GET /api/v1/registry/images/web:1"] = {"reference": "web:1"}
    assert await registry.image_exists("web:1")
    assert await registry.ensure_image_in_registry("web:1")
    assert not await registry.image_exists("other:1")


async def test_cleanup_comes_after_the_push(registry: RegistryService, said: Answers) -> None:
    """And never without one."""
    removed: list[str] = []
    assert not await registry.push_and_cleanup("web:1", remove=removed.append)
    assert removed == []
    said["POST /api/v1/registry/push"] = (202, {"id": "one"})
    said["GET /api/v1/pushes/one"] = {"state": "pushed"}
    assert await registry.push_and_cleanup("web:1", remove=removed.append)
    assert removed == ["web:1"]


async def test_the_figures_have_the_names_that_cyroid_reads(registry: RegistryService, said: Answers) -> None:
    """Also when nobody answers."""
    assert await registry.get_stats() == {"image_count": 0, "tag_count": 0, "healthy": False}
    said["GET /api/v1/registry/stats"] = {"healthy": True, "images": 5, "repositories": 2}
    stats = await registry.get_stats()
    assert (stats["image_count"], stats["tag_count"], stats["healthy"]) == (2, 5, True)
    assert await registry.is_healthy()


async def test_all_pages_of_a_list_are_read(registry: RegistryService, said: Answers) -> None:
    """Tags by repository."""
    said["GET /api/v1/registry/images"] = [
        {"items": [{"repository": "web", "tag": "1"}], "next": "more"},
        {"items": [{"repository": "web", "tag": "2"}, {"repository": "db", "tag": "1"}], "next": None},
    ]
    assert await registry.list_images() == [{"name": "web", "tags": ["1", "2"]}, {"name": "db", "tags": ["1"]}]


async def test_an_image_is_deleted(registry: RegistryService, said: Answers) -> None:
    """False where that is refused."""
    assert not await registry.delete_image("team/web:1")
    said["DELETE /api/v1/images/team/web:1"] = {"deleted": True}
    assert await registry.delete_image("team/web:1")


async def test_a_transfer_ends_as_the_deployment_does(api: TestServer, said: Answers) -> None:
    """With the statuses that CYROID knows."""
    client = ApiClient(str(api.make_url("/")))
    said["POST /api/v1/deployments"] = (202, {"deployment_id": "one"})
    image = {"state": "pulling", "size_bytes": 10, "received_bytes": 4}
    said["GET /api/v1/deployments/one"] = [
        {"state": "open", "images": [image]},
        {"state": "succeeded", "images": [{**image, "state": "ready", "how": "pulled"}]},
    ]
    heard: list[tuple[int, int, str]] = []

    def hear(done: int, total: int, status: str) -> None:
        heard.append((done, total, status))

    assert await transfer_image_to_dind("range-1", "tcp://10.0.0.2:2375", "web:1", True, hear, "amd64", api=client)
    assert heard == [(0, 0, "starting"), (4, 10, "transferring"), (10, 10, "complete")]
    said["GET /api/v1/deployments/one"] = {"state": "succeeded", "images": [{"size_bytes": 10, "how": "present"}]}
    assert await transfer_image_to_dind("range-1", None, "web:1", progress_callback=hear, api=client)
    assert heard[-1] == (10, 10, "already_exists")
    said["GET /api/v1/deployments/one"] = {"state": "failed", "images": [], "error": {"code": "x", "message": "y"}}
    assert not await transfer_image_to_dind("range-1", None, "web:1", progress_callback=hear, api=client)
    assert heard[-1][2] == "error"


async def test_one_service_serves_several_event_loops(registry: RegistryService, said: Answers) -> None:
    """Each thread of a web server's may have a loop of its own."""
    said.update(_preview("same"))
    found: list[bool] = []
    threads = [
        threading.Thread(target=lambda: found.append(asyncio.run(registry.image_exists("web:1")))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    assert await registry.image_exists("web:1")
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert found == [True, True, True]


async def test_errors_are_the_apis_own(api: TestServer, said: Answers) -> None:
    """Code, status, whether another try may help; an API that is away is one of them."""
    client = ApiClient(str(api.make_url("/")))
    said["GET /x"] = (503, {"code": "redis_unavailable", "detail": "away", "retryable": True})
    with pytest.raises(ApiError, match="away") as refused:
        await client.get("/x")
    assert (refused.value.code, refused.value.status, refused.value.retryable) == ("redis_unavailable", 503, True)
    nobody = ApiClient("http://127.0.0.1:1")
    with pytest.raises(ApiError, match="does not answer"):
        await nobody.get("/x")


@pytest.mark.parametrize("wrong", ["ftp://host", "host:8070", "http://"])
def test_an_address_that_is_none_is_refused(wrong: str) -> None:
    """When the client is made, not at the first request."""
    with pytest.raises(ValueError, match="CYROID_IMAGES_API"):
        ApiClient(wrong)


def test_references_stay_readable_in_paths() -> None:
    """Slashes and colons stay; what would end the path does not."""
    assert path_of("images", "team/web:1") == "/api/v1/images/team/web:1"
    assert path_of("images", "a?b#c") == "/api/v1/images/a%3Fb%23c"
