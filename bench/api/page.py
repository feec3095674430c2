"""How long a browser takes until the operators' page can be used, on the installation that is measured."""

from __future__ import annotations

import statistics
from time import perf_counter

CHROMIUM = "/usr/bin/chromium"
TRIES = 3


async def interactive_ms(port: int) -> float:
    """Milliseconds from asking for the page, with an empty cache, until its table of images is drawn and the search
    field takes text; the median of some tries.
    """
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        took = []
        for _ in range(TRIES):
            context = await chromium.new_context()
            page = await context.new_page()
            began = perf_counter()
            await page.goto(f"http://127.0.0.1:{port}/", wait_until="commit")
            await page.get_by_role("group", name="Images in the registry").locator("tbody tr").first.wait_for()
            await page.get_by_label("Search images").fill("course")
            took.append((perf_counter() - began) * 1000)
            await context.close()
        await chromium.close()
    return round(statistics.median(took), 1)
