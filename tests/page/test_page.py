"""What a person sees and does on the page, in a real browser."""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec
import pytest
import redis
from playwright.async_api import Browser, expect

from deploy.machine.polling import poll
from events.codec import encode
from events.envelope import Envelope
from events.messages import AgentStarted
from services.core.ranges.heartbeat import AgentHeartbeat
from tests.laboratory import RoleServer, System, free_port
from tests.page.conftest import BASE, RANGE
from tests.page.operator import Operator, answers, asleep

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="session")]

#: Longer than the heartbeat of the event stream. Ten minutes were tried as well.
ASLEEP_SECONDS = 20.0
TABS = ("registry", "prompts", "deployments", "events", "ranges", "settings", "doctor")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_every_tab_is_accessible(
    browser: Browser, page_system: System, page_services: RoleServer, scheme: Literal["light", "dark"]
) -> None:
    """By axe-core, without an error in the console, and without a request to another server."""
    async with Operator.at(browser, page_system.api_url, scheme=scheme) as somebody:
        for tab in TABS:
            await somebody.open(tab)
            await expect(somebody.page.get_by_text("Loading…")).to_have_count(0)
            assert await somebody.axe() == [], tab
            assert await somebody.page.locator(".problem").count() == 0, tab
        somebody.check_quiet()


@pytest.mark.parametrize("width", [390, 1280, 2560, 3840])
async def test_every_tab_fits_its_window(
    browser: Browser, page_system: System, page_services: RoleServer, width: int
) -> None:
    """From a telephone to a wall of 4K: tables scroll inside, the page does not, and no place is left unused."""
    async with Operator.at(browser, page_system.api_url, width=width) as somebody:
        for tab in TABS:
            await somebody.open(tab)
            await expect(somebody.page.get_by_text("Loading…")).to_have_count(0)
            assert await somebody.is_within_its_width(), tab
            assert await somebody.page.evaluate("document.getElementById('main').offsetWidth") > 0.9 * width, tab
        somebody.check_quiet()


async def test_an_image_is_pushed_and_deployed_with_the_keyboard_alone(
    operator: Operator, page_system: System, unique: str
) -> None:
    """From the name of an image on the host to a range that has it."""
    name, page = f"page/{unique}:1", operator.page
    page_system.host.docker("tag", BASE, name)
    await operator.open("registry")
    await operator.tab_to("input[name=reference]")
    await page.keyboard.type(name)
    await operator.tab_to("text=What is missing?")
    await page.keyboard.press("Enter")
    await expect(page.locator("#push ~ *, section").get_by_text(re.compile("missing")).first).to_be_visible()
    await operator.tab_to("button.primary:has-text('Push')")
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("was asked for")).to_be_visible()
    await operator.tab_to("input[aria-label='Search images']")
    await page.keyboard.type(unique)
    await expect(page.get_by_role("group", name="Images in the registry").get_by_text(name)).to_be_visible()
    await operator.open("deployments")
    await operator.tab_to("input[name=ranges]")
    await page.keyboard.type(RANGE)
    await operator.tab_to("input[name=images]")
    await page.keyboard.type(name)
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("1 deployment asked for")).to_be_visible()
    await operator.tab_to("text=show it")
    await page.keyboard.press("Enter")
    await expect(page.locator(".facts-list .badge", has_text="succeeded")).to_be_visible()
    assert page_system.ranges[RANGE].layers(name) == page_system.host.layers(name)


async def test_an_image_is_pushed_from_the_host_that_holds_it(
    operator: Operator, page_system: System, unique: str
) -> None:
    """The hosts are above the ranges; each opens to what it holds, and a range says where it runs."""
    name, page = f"held/{unique}:1", operator.page
    done = page_system.cli("images", "promote", "--image", BASE, name, "--push", "never")
    assert done.status == 0, done.talk
    await operator.open("ranges")
    host = page.get_by_role("group", name="Hosts", exact=True).get_by_role("button").first
    await expect(page.get_by_role("row", name=RANGE)).to_contain_text("alive")
    await host.click()
    await page.get_by_label("Search its images").fill(unique)
    await page.get_by_role("button", name=f"Push {name}").click()
    await expect(page.get_by_text("was asked for")).to_be_visible()
    held = page.get_by_role("group", name="Images of the host").get_by_role("row", name=unique)
    await expect(held.locator(".badge")).to_have_text("yes")
    assert await operator.axe() == []


async def test_a_question_is_asked_on_the_page_and_answered_there(
    operator: Operator, page_system: System, unique: str, tmp_path: Path
) -> None:
    """An image that came with `push: ask` is asked about on whatever tab is open, until somebody answers."""
    name, page = f"asked/{unique}:1", operator.page
    await operator.open("settings")
    (tmp_path / "Dockerfile").write_text(f"FROM {BASE}\nLABEL asked={unique}\n")
    done = page_system.cli("images", "build", str(tmp_path), "-t", name, "--push", "ask", "--quiet")
    assert done.status == 0, done.talk
    toast = page.get_by_role("group", name="Push to registry?")
    await expect(toast).to_contain_text(name)
    await toast.get_by_role("button", name="Push").click()
    await expect(toast).to_have_count(0)
    await operator.open(f"registry?q={unique}")
    await expect(page.get_by_role("group", name="Images in the registry").get_by_text(name)).to_be_visible()


async def test_a_link_shows_the_same_after_a_reload(operator: Operator) -> None:
    """The tab, the search, the order."""
    await operator.open("registry?q=nothing-has-this-name&sort=-size")
    await expect(operator.page.get_by_text("No image fits the search.")).to_be_visible()
    await operator.page.reload()
    await expect(operator.page.get_by_label("Search images")).to_have_value("nothing-has-this-name")
    await expect(operator.page.get_by_text("No image fits the search.")).to_be_visible()


async def test_what_the_server_knew_stays_while_it_is_away(
    browser: Browser, page_system: System, page_services: RoleServer
) -> None:
    """It is marked as old, and new again once the server is back, without a reload."""
    async with Operator.at(browser, page_system.api_url) as somebody:
        await somebody.open("ranges")
        row = somebody.page.get_by_role("link", name=RANGE)
        await expect(row).to_be_visible()
        page_services.kill()
        await somebody.page.evaluate("dispatchEvent(new Event('online'))")
        await expect(somebody.page.get_by_text("The list of ranges may be old")).to_be_visible()
        await expect(row).to_be_visible()
        page_services.start()
        assert poll(lambda: answers(page_system.api_url), seconds=60)
        await expect(somebody.page.locator(".stale")).to_have_count(0)
        await expect(row).to_be_visible()


async def test_tabs_of_one_browser_share_one_stream(
    browser: Browser, page_system: System, page_services: RoleServer
) -> None:
    """The tab that reads it tells the others; when it is closed, another one reads on."""
    context = await browser.new_context()
    streams: list[str] = []
    context.on("request", lambda one: streams.append(one.url) if one.url.endswith("/api/v1/events") else None)
    pages = []
    for _ in range(7):
        page = await context.new_page()
        await page.goto(page_system.api_url)
        await expect(page.locator(".connection")).to_have_text("live")
        pages.append(page)
    assert len(streams) == 1
    async with context.expect_event("request", lambda one: one.url.endswith("/api/v1/events")):
        await pages[0].close()
    await expect(pages[1].locator(".connection")).to_have_text("live")
    await context.close()


async def test_without_redis_the_page_says_how_old_it_is(
    browser: Browser, page_system: System, page_services: RoleServer
) -> None:
    """The rows stay, and are marked until Redis is back."""
    async with Operator.at(browser, page_system.api_url) as somebody:
        await somebody.open("ranges")
        row = somebody.page.get_by_role("link", name=RANGE)
        await expect(row).to_be_visible()
        page_system.redis.kill()
        try:
            await expect(somebody.page.get_by_text("The list of ranges may be old")).to_be_visible()
            await expect(row).to_be_visible()
        finally:
            page_system.redis.start()
        await expect(somebody.page.locator(".stale")).to_have_count(0)
        await expect(row).to_be_visible()


async def test_a_page_that_was_asleep_shows_what_happened_meanwhile(
    browser: Browser, page_system: System, page_services: RoleServer, unique: str
) -> None:
    """A laptop whose lid was closed: the page is live again and has the new row, without a reload."""
    name = f"page/asleep-{unique}:1"
    async with Operator.at(browser, page_system.api_url) as somebody:
        await somebody.open(f"registry?q={unique}")
        await expect(somebody.page.locator(".connection")).to_have_text("live")
        rows = somebody.page.get_by_role("row").filter(has_text=name)  # of the registry's images, and of the host's
        await expect(rows).to_have_count(0)
        page_system.host.docker("tag", BASE, name)
        async with asleep(browser):
            page_system.cli("images", "push", name)
            await asyncio.sleep(ASLEEP_SECONDS)
        await expect(rows.first).to_be_visible()
        await expect(somebody.page.locator(".connection")).to_have_text("live")
        await expect(somebody.page.locator(".stale")).to_have_count(0)
        somebody.check_quiet()


HOSTILE = "<img src=x onerror=alert(1)>\u202egnp.exe\u0007\u200b"


async def test_text_from_a_range_is_shown_as_text(operator: Operator, page_system: System, unique: str) -> None:
    """Markup stays text, and characters that hide text or turn it around are named."""
    range_id = f"evil-{unique}"
    started = AgentStarted(
        range_id=range_id, engine_id=HOSTILE, engine_version=HOSTILE, store="classic", platform="linux/amd64"
    )
    beat = AgentHeartbeat(engine_id=HOSTILE, engine_version=HOSTILE, at=HOSTILE)
    streams = page_system.streams
    with redis.Redis.from_url(page_system.redis.url) as client:
        client.set(streams.alive(range_id), msgspec.json.encode(beat), ex=120)
        client.xadd(streams.outbox(range_id), encode(Envelope(message=started, source="agent", subject=range_id)))
    await operator.open(f"ranges?q={range_id}")
    row = operator.page.get_by_role("row", name=range_id)
    await expect(row).to_contain_text("<img src=x onerror=alert(1)>")
    await expect(row.locator(".hidden-char").first).to_have_text("U+202E")
    await row.get_by_role("link").first.click()
    await expect(operator.page.get_by_role("heading", name=range_id)).to_be_visible()
    assert await operator.page.locator("main img").count() == 0


async def test_a_token_opens_a_session(browser: Browser, token_system: System) -> None:
    """A wrong one does not; the cookie outlives a reload, no script can read it, and logging out ends it."""
    async with Operator.at(browser, token_system.api_url) as somebody:
        page = somebody.page
        await page.goto(f"{token_system.api_url}/#/ranges")
        await page.get_by_label("Token").fill("token-of-operator")
        await page.keyboard.press("Enter")
        await expect(page.get_by_text("operator").first).to_be_visible()
        await page.reload()
        await expect(page.get_by_role("button", name="Log out")).to_be_visible()
        assert await page.evaluate("document.cookie") == ""
        assert "token-of-operator" not in await page.evaluate("JSON.stringify([location.href, {...localStorage}])")
        assert await somebody.axe() == []
        await page.get_by_role("button", name="Log out").click()
        await expect(page.get_by_label("Token")).to_be_visible()
        assert await somebody.axe() == []
        somebody.check_quiet()
        await page.get_by_label("Token").fill("a guess")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("alert")).to_contain_text("not known")


async def test_a_viewer_is_shown_no_commands(browser: Browser, token_system: System) -> None:
    """What only an operator may do is not offered."""
    async with Operator.at(browser, token_system.api_url) as somebody:
        page = somebody.page
        await page.goto(f"{token_system.api_url}/#/registry")
        await page.get_by_label("Token").fill("token-of-viewer")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading", name="In the registry")).to_be_visible()
        for name in ("Push", "Delete…", "Push all that are missing"):
            assert await page.get_by_role("button", name=name, exact=True).count() == 0
        somebody.check_quiet()


@pytest.fixture
def prefixed(page_system: System, page_services: RoleServer, tmp_path: Path) -> Iterator[str]:
    """The page's address behind HAProxy, which shows it below /images/ and takes that away."""
    port = free_port()
    configuration = tmp_path / "haproxy.cfg"
    configuration.write_text(
        "defaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n"
        f"frontend page\n  bind 127.0.0.1:{port}\n  http-request deny unless {{ path_beg /images/ }}\n"
        "  http-request replace-path /images/(.*) /\\1\n  default_backend api\n"
        f"backend api\n  server api 127.0.0.1:{page_system.api_port}\n"
    )
    process = subprocess.Popen(["haproxy", "-f", str(configuration)], stdin=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}/images"
        assert poll(lambda: answers(url), seconds=30)
        yield url
    finally:
        process.terminate()
        process.wait(30)


async def test_it_works_under_a_prefix(browser: Browser, prefixed: str) -> None:
    """Behind a real reverse proxy; every request stays below the prefix."""
    async with Operator.at(browser, prefixed) as somebody:
        await somebody.open("ranges")
        await expect(somebody.page.get_by_role("link", name=RANGE)).to_be_visible()
        somebody.check_quiet()
