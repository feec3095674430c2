"""The bus in memory, on Redis' fake, and on a real Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from events.streams import Streams
from tests.contract.bus.site import Case
from tests.contract.buses import KINDS, open_bus
from tests.laboratory import RedisServer


@pytest.fixture(params=KINDS)
async def case(request: pytest.FixtureRequest, key_prefix: str) -> AsyncIterator[Case]:
    def url() -> str:
        server: RedisServer = request.getfixturevalue("redis_server")
        return server.url

    async with open_bus(request.param, url, key_prefix) as bus:
        yield Case(bus, Streams(key_prefix))
