"""One Chromium for all tests of the page, and the system whose page it is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright

from deploy.machine.polling import poll
from services.api.authentication import token_hash
from tests.laboratory import EngineServer, Lab, RedisServer, RegistryServer, RoleServer, System
from tests.page.operator import Operator, answers, listed_ranges

BASE = "page/base:1"
RANGE = "page-range-1"


@pytest.fixture(scope="session")
def page_system(
    lab: Lab,
    redis_server: RedisServer,
    registry_server: RegistryServer,
    host_engine_server: EngineServer,
    range_engine_servers: tuple[EngineServer, EngineServer],
) -> System:
    """The shared servers, with services and an agent of their own under a prefix of their own."""
    host_engine_server.docker("import", str(lab.base_image_tar()), BASE)
    return System(
        lab=lab,
        redis=redis_server,
        registry=registry_server,
        host=host_engine_server,
        ranges={RANGE: range_engine_servers[0]},
        prefix="page",
        settings={"spool_folder": lab.folder / "spool-page"},
    )


@pytest.fixture(scope="session")
def page_services(page_system: System) -> RoleServer:
    """The host's side and the range's agent, running."""
    services = page_system.services(name="page-services")
    page_system.agent(RANGE)
    assert poll(lambda: answers(page_system.api_url), seconds=60)
    assert poll(lambda: RANGE in listed_ranges(page_system.api_url), seconds=60, every=0.2)
    return services


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """Debian's Chromium, started once."""
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        yield chromium
        await chromium.close()


@pytest_asyncio.fixture(loop_scope="session")
async def operator(browser: Browser, page_system: System, page_services: RoleServer) -> AsyncIterator[Operator]:
    """Somebody at the page of the running system. Afterwards the console is clean and nobody else was asked."""
    async with Operator.at(browser, page_system.api_url) as somebody:
        yield somebody
        somebody.check_quiet()


@pytest.fixture
def token_system(lab: Lab, page_system: System, tmp_path: Path) -> Iterator[System]:
    """A second API over the same data that asks for tokens."""
    tokens = tmp_path / "tokens"
    tokens.write_text("".join(f"{name} {name} {token_hash(f'token-of-{name}')}\n" for name in ("viewer", "operator")))
    system = System(
        lab=lab,
        redis=page_system.redis,
        registry=page_system.registry,
        host=page_system.host,
        ranges={},
        prefix=page_system.prefix,
        settings={"api_auth": "token", "api_tokens": tokens},
    )
    server = system.services("api", name=f"page-api-{system.api_port}")
    assert poll(lambda: answers(system.api_url), seconds=60)
    yield system
    server.stop()
