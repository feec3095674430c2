"""What a person commands on the page, in a real browser: images made, prompts answered, deployments, dead letters."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import redis
from playwright.async_api import Browser, Page, expect

from events.codec import encode
from events.envelope import Envelope
from events.messages import Failure, ImagePushFailed
from services.adapters.memory_archives import tar_of
from tests.laboratory import RoleServer, System
from tests.page.conftest import BASE, RANGE
from tests.page.operator import Operator
from tests.page.test_page import HOSTILE

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="session")]


async def _add(page: Page, how: str, name: str, file: Path | None = None, **fields: str) -> None:
    """Fill in and send the form for one image; wait until it is there."""
    form = page.get_by_role("region", name="Add an image")
    await form.get_by_label("How").select_option(how)
    if file is not None:
        await form.locator("input[type=file]").set_input_files(file)
    await form.locator("input[name=name]").fill(name)
    for label, value in fields.items():
        await form.get_by_label(label, exact=True).fill(value)
    if how == "archive":
        await form.get_by_label("Push to registry").uncheck()
    elif how == "image":
        await form.get_by_label("Push to registry").select_option("ask")
    else:
        await form.get_by_label("Push to registry").select_option("always")
    await form.locator("button.primary").click()
    await expect(form.get_by_role("listitem").filter(has_text=name).locator(".badge")).to_have_text("done")


async def test_images_are_made_on_the_page_and_a_question_is_answered_once_for_all(
    browser: Browser, operator: Operator, page_system: System, unique: str, tmp_path: Path
) -> None:
    """An archive and a context are uploaded, an image is promoted; of two pages one answers, the other says who did."""
    page, host = operator.page, page_system.host
    archive, context = tmp_path / "saved.tar", tmp_path / "context.tar"
    host.docker("save", "-o", str(archive), BASE)
    context.write_bytes(tar_of({"Dockerfile": f"FROM {BASE}\nLABEL made={unique}\n".encode()}))
    await operator.open(f"registry?q={unique}")
    await _add(page, "archive", f"loaded/{unique}:1", archive)
    await _add(page, "build", f"built/{unique}:1", context)
    assert host.layers(f"loaded/{unique}:1") == host.layers(BASE)
    stored = page.get_by_role("group", name="Images in the registry")
    await expect(stored.get_by_text(f"built/{unique}:1")).to_be_visible()
    await expect(stored.get_by_text(f"loaded/{unique}:1")).to_have_count(0)
    assert await operator.axe() == []

    async with Operator.at(browser, page_system.api_url) as other:
        await _add(page, "image", f"named/{unique}:1", Image=f"built/{unique}:1")
        await other.open("prompts")
        row = other.page.get_by_role("row", name=f"named/{unique}:1")
        await expect(row).to_be_visible()
        await other.page.route("**/api/v1/prompts?*", lambda route: route.abort())  # it hears no more of prompts
        toast = page.get_by_role("group", name="Push to registry?")
        await toast.get_by_role("button", name="Skip").click()
        await expect(toast).to_have_count(0)
        await row.get_by_role("button", name="Push").click()
        await expect(other.page.get_by_text("skipped it at")).to_be_visible()
    await page.reload()
    skipped = page.get_by_role("region", name="Pushes").get_by_role("listitem").filter(has_text=f"named/{unique}:1")
    await expect(skipped.locator(".badge")).to_have_text("skipped")


async def test_several_images_are_pushed_at_once(operator: Operator, page_system: System, unique: str) -> None:
    """A line says how far the pushes of one request are, until all of them have ended."""
    names = [f"batch/{unique}:{number}" for number in (1, 2)]
    for name in names:
        made = page_system.cli("images", "promote", "--image", BASE, name, "--push", "never")
        assert made.status == 0, made.talk
    page = operator.page
    await operator.open(f"registry?hq={unique}")
    rows = page.get_by_role("group", name="Images of the host's engine").locator("tbody tr")
    await expect(rows).to_have_count(2)
    await page.get_by_role("group", name="Images of the host's engine").get_by_label("Select all rows").check()
    await page.get_by_role("button", name="Push 2 selected").click()
    await expect(page.get_by_text("2 of 2 pushes done.")).to_be_visible()
    await expect(rows.locator(".badge").get_by_text("in the registry")).to_have_count(2)


async def test_a_plan_is_announced_and_followed(operator: Operator) -> None:
    """Its images go to the registry, then to the ranges that are up; one that is away is named."""
    page = operator.page
    await operator.open("deployments")
    await page.locator("input[name=ranges]").fill(f"{RANGE} nobody-at-home")
    await page.locator("input[name=images]").fill(BASE)
    await page.get_by_role("button", name="Announce as a plan").click()
    await page.get_by_text("show it").click()
    plan = page.get_by_role("region", name="Plan ")
    await expect(plan.get_by_role("listitem").filter(has_text=BASE).locator(".badge")).to_have_text("there")
    await expect(plan.get_by_role("listitem").filter(has_text=RANGE).locator(".badge")).to_have_text("succeeded")
    await expect(plan.get_by_role("listitem").filter(has_text="nobody-at-home").locator(".badge")).to_have_text("away")
    await page.get_by_role("link", name="← Deployments").click()
    row = page.get_by_role("group", name="Plans").locator("tbody tr").first
    await expect(row).to_contain_text("1 of 1 image")
    await expect(row).to_contain_text("1 of 2")


async def test_a_deployment_is_cancelled_and_retried_on_the_page(operator: Operator, unique: str) -> None:
    """To a range without an agent, for which it waits; its priority is changed meanwhile."""
    page = operator.page
    await operator.open("deployments")
    await page.locator("input[name=ranges]").fill(f"nobody-{unique}")
    await page.locator("input[name=images]").fill(BASE)
    await page.get_by_label("Priority").select_option("9")
    await page.get_by_role("button", name="Deploy", exact=True).click()
    await page.get_by_text("show it").click()
    await expect(page.get_by_text("priority 9")).to_be_visible()
    await page.get_by_label("Priority").select_option("2")
    await expect(page.get_by_text("priority 2")).to_be_visible()
    await page.get_by_role("button", name="Cancel").click()
    state = page.locator(".facts-list .badge").first
    await expect(state).to_have_text("cancelled")
    await page.get_by_role("button", name="Retry what is missing").click()
    await expect(state).not_to_have_text("cancelled")
    await page.get_by_role("button", name="Cancel").click()
    await expect(state).to_have_text("cancelled")


async def test_dead_letters_are_redriven_and_dropped_and_hostile_text_stays_text(
    operator: Operator, page_system: System, page_services: RoleServer, unique: str
) -> None:
    """A number is confirmed first. Names of images and words of events are shown as they are, whatever they hold."""
    page, images = operator.page, page_system.streams.images
    error = Failure(code="error", message=HOSTILE, retryable=False)
    failed = ImagePushFailed(reference=f"{HOSTILE}{unique}", image_id=None, error=error)
    with redis.Redis.from_url(page_system.redis.url) as client:
        spoilt = {**encode(Envelope(message=failed, source="test", subject=HOSTILE)), b"data": b"{"}
        client.xadd(images, spoilt)
        client.xadd(images, encode(Envelope(message=failed, source=HOSTILE, subject=f"{HOSTILE}{unique}")))
    await operator.open(f"events?subject={unique}")
    log = page.get_by_role("group", name="Event log")
    await expect(log.get_by_text("<img src=x onerror=alert(1)>").first).to_be_visible()
    await log.get_by_role("button", name="image.push_failed").first.click()
    await expect(log.locator("pre .hidden-char").first).to_be_visible()
    letters = page.get_by_role("group", name="Dead letters").locator("tbody tr")
    await expect(letters.first).to_be_visible()
    await page.get_by_role("button", name=re.compile("^Redrive all")).click()
    await page.get_by_role("dialog").get_by_role("button", name="Redrive").click()
    await expect(page.get_by_text("on their streams again")).to_be_visible()
    await page.get_by_role("dialog").get_by_role("button", name="Close").click()
    await page.get_by_role("button", name=re.compile("^Drop all")).click()
    await page.get_by_role("dialog").get_by_role("button", name="Drop").click()
    await expect(page.get_by_text(re.compile("are gone|is gone|match")).first).to_be_visible()
    await page.get_by_role("dialog").get_by_role("button", name=re.compile("Close|Keep")).click()
    await operator.open("registry")
    pushes = page.get_by_role("region", name="Pushes")
    await expect(pushes.get_by_text("<img src=x onerror=alert(1)>").first).to_be_visible()
    assert await page.locator("main img").count() == 0
