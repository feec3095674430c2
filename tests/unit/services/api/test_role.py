"""The role that serves HTTP."""

import asyncio
import socket

import aiohttp
import pytest

from services.api.role import ApiRole
from services.api.route import no_checks
from services.errors import BadInput
from tests.unit.services.twins import STREAMS, Cluster


def _role(listen: str) -> ApiRole:
    world = Cluster()
    return ApiRole(
        listen=listen,
        bus=world.bus,
        streams=STREAMS,
        registry=world.registry,
        engine=world.engine,
        source="api@t",
        doctor=no_checks,
    )


async def test_it_serves_until_cancelled() -> None:
    """The address is free again afterwards."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    role = _role(f"127.0.0.1:{port}")
    assert role.subscriptions() == ()
    task = asyncio.create_task(role.run())
    async with asyncio.timeout(10), aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.get(f"http://127.0.0.1:{port}/livez") as answer:
                    assert answer.status == 200
                    break
            except aiohttp.ClientConnectionError:
                await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait({task})
    with socket.socket() as again:
        again.bind(("127.0.0.1", port))


async def test_an_address_that_is_taken_is_said() -> None:
    """With the setting that chooses it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(BadInput, match=f"cannot listen at 127.0.0.1:{port}: .*set CYROID_API_LISTEN"):
            await _role(f"127.0.0.1:{port}").run()
