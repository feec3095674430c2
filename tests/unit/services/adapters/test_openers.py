"""`services.adapters.openers`: which bus a URL means."""

from __future__ import annotations

import pytest

from events.bus import BusRefused
from events.gateway import GatewayBus
from services.adapters.openers import REAL
from services.settings import Settings


async def test_a_gateways_url_opens_the_bus_behind_it() -> None:
    """Nothing is connected until it is needed."""
    async with REAL.bus(Settings(redis_url="gateway://r1:secret@127.0.0.1:1")) as bus:
        assert isinstance(bus, GatewayBus)


@pytest.mark.parametrize(
    "url", ["gateway://127.0.0.1:1", "gateway://r1@h:1", "gateway://r1:s@:1", "gateway://r1:s@h:x"]
)
async def test_a_gateways_url_names_range_and_secret(url: str) -> None:
    """What is missing is said at once."""
    with pytest.raises(BusRefused, match="gateway://RANGE:SECRET@HOST:PORT"):
        async with REAL.bus(Settings(redis_url=url)):
            pass
