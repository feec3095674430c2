"""The operations listener: liveness, readiness and metrics of a process."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestClient, TestServer

from events.bus import BusError
from services.errors import BadInput
from services.runtime.operations import Operations, Phase, networks
from services.runtime.readiness import Dependency


@dataclass
class Process:
    """A process as its operations listener sees it."""

    phase: Phase = "running"
    is_redis_there: bool = True
    is_engine_there: bool = True
    asked: list[str] = field(default_factory=list)

    async def redis(self) -> None:
        self.asked.append("redis")
        if not self.is_redis_there:
            raise BusError("connection refused")

    async def engine(self) -> None:
        if not self.is_engine_there:
            raise ConnectionError("no engine")

    def operations(self, clients: str = "") -> Operations:
        return Operations(
            dependencies=lambda: {"redis": Dependency(self.redis), "engine": Dependency(self.engine, required=False)},
            phase=lambda: self.phase,
            clients=networks(clients),
        )


async def get(process: Process, path: str, *, clients: str = "") -> tuple[int, Any]:
    async with (
        TestClient(TestServer(process.operations(clients).app())) as client,
        client.get(path) as answer,
    ):
        return answer.status, await (answer.json() if answer.content_type == "application/json" else answer.text())


async def test_liveness_asks_nobody() -> None:
    """A process that waits for Redis is alive."""
    process = Process(phase="starting", is_redis_there=False)
    assert await get(process, "/livez") == (200, {"status": "ok"})
    assert process.asked == []


async def test_readiness_needs_redis() -> None:
    """503 and the reason without it, 200 with it."""
    process = Process()
    assert await get(process, "/readyz") == (
        200,
        {"status": "ok", "dependencies": {"redis": {"status": "ok"}, "engine": {"status": "ok"}}},
    )
    process.is_redis_there = False
    status, body = await get(process, "/readyz")
    assert (status, body["status"]) == (503, "unavailable")
    assert body["dependencies"]["redis"] == {"status": "unavailable", "detail": "connection refused"}


async def test_readiness_tells_of_an_engine_that_is_away() -> None:
    """The process still takes work."""
    status, body = await get(Process(is_engine_there=False), "/readyz")
    assert (status, body["status"], body["dependencies"]["engine"]["detail"]) == (200, "degraded", "no engine")


@pytest.mark.parametrize("phase", ["starting", "stopping"])
async def test_a_process_that_starts_or_stops_is_not_ready(phase: Phase) -> None:
    """Whatever its dependencies say."""
    status, body = await get(Process(phase=phase), "/readyz")
    assert (status, body["status"]) == (503, phase)
    assert body["dependencies"]["redis"] == {"status": "ok"}


async def test_metrics_are_in_prometheus_format_and_about_now() -> None:
    """Dependencies are asked when the metrics are; the process's memory is among them."""
    status, text = await get(Process(is_engine_there=False), "/metrics")
    assert status == 200
    assert 'cyroid_dependency_up{dependency="redis"} 1.0' in text
    assert 'cyroid_dependency_up{dependency="engine"} 0.0' in text
    assert "process_resident_memory_bytes" in text


@pytest.mark.parametrize(
    ("clients", "status"),
    [("", 200), ("127.0.0.0/8", 200), ("10.0.0.0/8, 127.0.0.1", 200), ("172.30.0.0/24", 403), ("::1/128", 403)],
)
async def test_only_clients_of_the_networks_are_answered(clients: str, status: int) -> None:
    """Every path is refused to others; none named means everybody."""
    assert (await get(Process(), "/livez", clients=clients))[0] == status
    assert (await get(Process(), "/metrics", clients=clients))[0] == status


@pytest.mark.parametrize("text", ["172.30.0.1/24", "10.0.0.0/99", "1.2.3"])
def test_networks_that_are_none_are_refused(text: str) -> None:
    """With the setting's name."""
    with pytest.raises(BadInput, match="CYROID_OPERATIONS_CLIENTS"):
        networks(text)


async def test_it_listens_where_it_is_told_and_no_longer_than_asked() -> None:
    """The address is free again afterwards."""
    async with Process().operations().listen("127.0.0.1:0"):
        pass
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    for _ in range(2):
        async with (
            Process().operations().listen(address),
            ClientSession() as session,
            session.get(f"http://{address}/livez") as answer,
        ):
            assert answer.status == 200


async def test_an_address_that_is_taken_is_told() -> None:
    """With the setting's name."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(BadInput, match=f"cannot listen at {address}: .*set CYROID_OPERATIONS_LISTEN"):
            async with Process().operations().listen(address):
                pass
