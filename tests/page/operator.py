"""Somebody at the page: a browser's tab with a look at its console, its requests, and its accessibility."""

from __future__ import annotations

import json
import os
import signal
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from playwright.async_api import Browser, Page, expect

AXE = (Path(__file__).parent / "vendor/axe.min.js").read_text()
PATIENCE_MS = 60_000.0
expect.set_options(timeout=PATIENCE_MS)


def answers(url: str) -> bool:
    """Whether an API answers there."""
    try:
        with urllib.request.urlopen(f"{url}/livez", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def listed_ranges(url: str) -> set[str]:
    """The ranges that an API lists."""
    with urllib.request.urlopen(f"{url}/api/v1/ranges", timeout=20) as answer:
        return {row["range_id"] for row in json.load(answer)["items"]}


@asynccontextmanager
async def asleep(browser: Browser) -> AsyncIterator[None]:
    """Meanwhile no process of the browser runs, as on a machine that is suspended."""
    session = await browser.new_browser_cdp_session()
    said: Any = await session.send("SystemInfo.getProcessInfo")
    await session.detach()
    processes = [one["id"] for one in said["processInfo"]]
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            os.kill(process, signal.SIGCONT)


@dataclass(slots=True)
class Operator:
    """A tab of a browser."""

    page: Page
    url: str
    console: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    @classmethod
    @asynccontextmanager
    async def at(
        cls,
        browser: Browser,
        url: str,
        *,
        width: int = 1280,
        height: int = 900,
        scheme: Literal["light", "dark"] = "light",
    ) -> AsyncIterator[Operator]:
        """A fresh browser profile at the page's address."""
        context = await browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion="reduce"
        )
        context.set_default_timeout(PATIENCE_MS)
        page = await context.new_page()
        somebody = cls(page, url)
        page.on("console", lambda said: somebody.console.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda problem: somebody.console.append(str(problem)))
        page.on("dialog", lambda dialog: somebody.console.append(f"a script opened a dialog: {dialog.message}"))
        page.on("request", lambda one: None if one.url.startswith(f"{url}/") else somebody.foreign.append(one.url))
        try:
            yield somebody
        finally:
            await context.close()

    async def open(self, place: str = "registry") -> None:
        """Open a tab of the page by its address."""
        await self.page.goto(f"{self.url}/#/{place}")
        await expect(self.page.locator("nav[aria-label=Tabs]")).to_be_visible()

    async def tab_to(self, selector: str, limit: int = 200) -> None:
        """Press Tab until the element has the focus."""
        target = self.page.locator(selector).first
        await expect(target).to_be_visible()
        for _ in range(limit):
            if await target.evaluate("(element) => element === document.activeElement"):
                return
            await self.page.keyboard.press("Tab")
        raise AssertionError(f"Tab does not reach {selector}")

    async def axe(self) -> list[str]:
        """What axe-core finds wrong."""
        await self.page.evaluate(AXE)
        found: Any = await self.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        return [
            f"{one['id']}: {one['help']} at {node['target']} {node.get('failureSummary', '')}"
            for one in found["violations"]
            for node in one["nodes"][:3]
        ]

    async def is_within_its_width(self) -> bool:
        """Whether nothing makes the whole page scroll sideways."""
        fits: bool = await self.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        return fits

    def check_quiet(self) -> None:
        """No error in the console, and no other server was asked."""
        assert self.console == []
        assert self.foreign == []
