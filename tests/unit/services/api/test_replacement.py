"""Settings that are replaced as a whole."""

from __future__ import annotations

from typing import Any

from tests.unit.services.api.site import Service

PATH = "/api/v1/settings/reclaim"


async def _put(service: Service, pattern: str, tag: str) -> tuple[int, Any]:
    body = {"rules": [{"pattern": pattern, "after_days": 1.0}]}
    async with service.client.post(PATH, json=body, headers={"If-Match": tag} if tag else {}) as answer:
        return answer.status, await answer.json()


async def test_only_what_was_seen_is_replaced(service: Service) -> None:
    """By its ETag, also before there is any; without one anything is replaced."""
    async with service.client.get(PATH) as answer:
        first = answer.headers["ETag"]
    assert (await _put(service, "a", first))[0] == 200
    status, problem = await _put(service, "b", first)
    assert (status, problem["code"]) == (412, "changed_meanwhile")
    assert (await service.get(PATH))["rules"][0]["pattern"] == "a"
    async with service.client.get(PATH) as answer:
        second = answer.headers["ETag"]
    assert (await _put(service, "c", second))[0] == 200
    assert (await _put(service, "d", ""))[0] == 200
