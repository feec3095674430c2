"""An engine that was started with a proxy says so."""

import pytest

from services.adapters.engine import DockerEngine
from services.core.ranges.proxies import proxy_note
from tests.laboratory import Lab

pytestmark = pytest.mark.real


async def test_an_engine_tells_its_proxy(lab: Lab, unique: str) -> None:
    """So that pulls which fail because of it can be explained."""
    options = ["--http-proxy", "http://me:hunter2@127.0.0.1:9", "--no-proxy", "10.0.0.0/8"]
    server = lab.engine(f"proxied-{unique}", version="28.5", options=options)
    async with DockerEngine.open(server.url) as engine:
        info = await engine.info()
    server.stop()
    assert "127.0.0.1:9" in info.proxy
    assert "hunter2" not in info.proxy
    assert proxy_note("10.1.2.3:5000", info.proxy, info.no_proxy) is None
    assert proxy_note("registry:5000", info.proxy, info.no_proxy) is not None
