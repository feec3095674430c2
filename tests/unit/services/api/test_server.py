"""The application: requests that are refused, and errors as problem documents."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.unit.services.api.site import Service
from tests.unit.services.twins import STREAMS


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
        ("/nowhere", None, 404, "not_found", "Not Found"),
        ("/livez", None, 405, "method_not_allowed", "Method Not Allowed"),
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
    path, kind = "/api/v1/deployments", {"Content-Type": "application/json"}
    async with service.client.post(path, data=b"{not json", headers=kind) as answer:
        assert (answer.status, (await answer.json())["code"]) == (400, "bad_input")
    async with service.client.post(path, data=io.BytesIO(bytes(2_000_000)), headers=kind) as answer:
        assert (answer.status, answer.content_type) == (413, "application/problem+json")


async def test_each_route_has_its_own_limit(service: Service) -> None:
    """A push names one image, a deployment up to 500."""
    filler = {"x": "x" * 20_000}
    _, _ = await service.post("/api/v1/registry/push", filler, 413)
    problem, _ = await service.post("/api/v1/deployments", filler, 400)
    assert problem["code"] == "bad_input"


async def test_a_body_that_is_not_encoded_as_it_says_is_400(service: Service) -> None:
    """`Content-Encoding: gzip` before plain text."""
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    async with service.client.post("/api/v1/registry/push", data=b'{"reference": "a"}', headers=headers) as answer:
        assert (answer.status, (await answer.json())["code"]) == (400, "bad_request")


async def test_a_body_that_does_not_come_is_408(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stalled body holds its connection for so long and no longer."""
    monkeypatch.setattr("services.api.server.BODY_SECONDS", 0.05)
    stalled = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"{"
        await stalled.wait()

    headers = {"Content-Type": "application/json"}
    async with service.client.post("/api/v1/registry/push", data=body(), headers=headers) as answer:
        assert (answer.status, (await answer.json())["code"]) == (408, "timeout")
    stalled.set()


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/deployments?limit=" + "1" * 5000,
        "/api/v1/deployments?limit=1&limit=2",
        "/api/v1/ranges?colour=red",
        "/api/v1/ranges/%2A/verification",
    ],
)
async def test_parameters_that_do_not_fit_are_400(service: Service, path: str) -> None:
    """Unknown, doubled, or far too long."""
    assert (await service.get(path, 400))["code"] == "bad_input"


async def test_no_error_names_a_command_of_the_command_line(service: Service) -> None:
    """The caller may have none."""
    for path in ("/api/v1/deployments/none", "/api/v1/plans/none", "/api/v1/ranges/none/verification"):
        assert "cyroid-images" not in (await service.get(path, 404))["detail"]
    problem, _ = await service.post("/api/v1/plans", {"images": ["a"], "range_ids": ["bad id"]}, 400)
    assert problem["detail"].startswith("range_ids[0] 'bad id' is not allowed")


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

    monkeypatch.setattr("services.api.ranges.forget_range", broken)
    async with service.client.delete("/api/v1/ranges/r1") as answer:
        assert answer.status == 500
        problem = await answer.json()
    assert problem["code"] == "internal_error"
    assert "secret" not in str(problem)


async def test_a_limit_must_be_a_number(service: Service) -> None:
    """Lists are bounded."""
    assert "limit must be" in (await service.get("/api/v1/deployments?limit=all", 400))["detail"]
