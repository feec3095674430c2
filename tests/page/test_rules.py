"""Rules of retention and reclaim, deletion, and the doctor's lines about the store, as an operator sees them."""

from __future__ import annotations

import pytest
from playwright.async_api import Locator, expect

from tests.laboratory import System
from tests.page.conftest import BASE
from tests.page.operator import Operator

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="session")]


async def _rule(section: Locator, pattern: str, **numbers: str) -> None:
    """Add a rule and save it."""
    await section.get_by_role("button", name="Add a rule").click()
    await section.get_by_label("Pattern").last.fill(pattern)
    for label, value in numbers.items():
        await section.get_by_label(label.replace("_", " ")).last.fill(value)
    await section.get_by_role("button", name="Save").click()
    await expect(section.get_by_text("Saved.")).to_be_visible()


async def test_rules_are_written_tried_and_applied(operator: Operator, page_system: System, unique: str) -> None:
    """Retention deletes the older tag, reclaim frees the host's copy, and what is left is deleted by hand; each says
    first what it would do."""
    page, names = operator.page, [f"rules/{unique}:{number}" for number in (1, 2)]
    for name in names:
        page_system.host.docker("tag", BASE, name)
        assert page_system.cli("images", "push", name).status == 0
    await operator.open("settings")
    retention = page.get_by_role("region", name="Retention")
    await _rule(retention, f"*/rules/{unique}:*", Newest_tags="1")
    await retention.get_by_role("button", name="Apply now…").click()
    trial = page.get_by_role("dialog")
    await expect(trial.get_by_text("A trial: 1 image")).to_be_visible()
    await expect(trial.get_by_text("would go")).to_have_count(1)
    assert await operator.axe() == []
    await trial.get_by_role("button", name="Apply").click()
    await expect(trial.get_by_text("will be deleted")).to_have_count(1)
    await trial.get_by_role("button", name="Close").click()

    await page.reload()
    await expect(retention.get_by_label("Newest tags")).to_have_value("1")
    await retention.get_by_role("button", name="Remove rule 1").click()
    await retention.get_by_role("button", name="Save").click()
    await expect(retention.get_by_text("There are no rules")).to_be_visible()

    reclaim = page.get_by_role("region", name="Copies on the host's engine")
    await _rule(reclaim, f"*/rules/{unique}:2", Days_after_the_push="30")
    await reclaim.get_by_role("button", name="Apply now…").click()
    await expect(trial.get_by_text("would go")).to_have_count(1)
    await trial.get_by_role("button", name="Apply").click()
    await expect(trial.get_by_text("freed", exact=True)).to_have_count(1)
    await trial.get_by_role("button", name="Close").click()
    assert page_system.host.docker("images", "-q", names[1]) == ""
    await reclaim.get_by_role("button", name="Remove rule 1").click()
    await reclaim.get_by_role("button", name="Save").click()
    await expect(reclaim.get_by_text("There are no rules")).to_be_visible()

    await operator.open(f"registry?q={unique}")
    stored = page.get_by_role("group", name="Images in the registry")
    await expect(stored.get_by_text(names[0])).to_have_count(0)
    await stored.get_by_label(f"Select docker.io/{names[1]}").check()
    await page.get_by_role("button", name="Delete 1…").click()
    await trial.get_by_role("button", name="What would happen?").click()
    await expect(trial.get_by_text("would be deleted")).to_be_visible()
    await trial.get_by_role("button", name="Delete", exact=True).click()
    await expect(trial.get_by_text("deleted", exact=True)).to_be_visible()
    await trial.get_by_role("button", name="Close").click()
    await expect(page.get_by_text("No image fits the search.")).to_be_visible()


async def test_rules_that_somebody_else_changed_are_not_replaced(operator: Operator, page_system: System) -> None:
    """The page says so, and what was typed stays; after that the other's rule is still there."""
    retention = operator.page.get_by_role("region", name="Retention")
    await operator.open("settings")
    await retention.get_by_role("button", name="Add a rule").click()
    theirs = page_system.cli("registry", "retention", "add", "theirs/*", "--keep-last", "9")
    assert theirs.status == 0, theirs.talk
    try:
        await retention.get_by_label("Pattern 1").fill("ours/*")
        await retention.get_by_role("button", name="Save").click()
        await expect(retention.get_by_text("somebody else changed it meanwhile")).to_be_visible()
        await expect(retention.get_by_label("Pattern 1")).to_have_value("ours/*")
        assert [one["pattern"] for one in page_system.cli("registry", "retention", "show").data["rules"]] == [
            "theirs/*"
        ]
    finally:
        page_system.cli("registry", "retention", "rm", "theirs/*")
    operator.console.clear()  # the browser names each refused request


async def test_the_doctor_names_each_check(operator: Operator) -> None:
    """With its result: the collector that `serve all` started, and the registry's disk."""
    await operator.open("doctor")
    findings = operator.page.get_by_role("listitem")
    for what, found in (("collector", "runs at"), ("disk pressure", "never seen"), ("tracker", "runs at")):
        line = findings.filter(has=operator.page.get_by_text(what, exact=True))
        await expect(line).to_contain_text(found)
        await expect(line.locator(".badge")).to_have_text("ok")
