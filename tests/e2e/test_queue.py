"""Who goes first when there are fewer slots than transfers, and what a retry does of a deployment that ended badly."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from deploy.machine.polling import poll
from events.messages import DeploymentFailed, DeploymentSucceeded
from tests.e2e.narrow import BULK, NARROW, NarrowScene
from tests.e2e.scene import MEGABYTE, SLACK_BYTES
from tests.laboratory import RoleServer

pytestmark = pytest.mark.real


def test_of_two_that_wait_for_the_one_slot_the_more_urgent_goes_first(narrow: NarrowScene) -> None:
    """Though it came last: it stands before the other in the queue, where everybody sees it, and ends before it."""
    names = at_work, usual, urgent = [f"e2e/{narrow.name}:{part}" for part in ("work", "usual", "urgent")]
    for name in names:
        narrow.make(name, name, bulk_bytes=BULK if name == at_work else 0)
    narrow.under_way(NARROW[0], at_work, narrow.lines.pull)
    second = narrow.begin(NARROW[1], usual)
    assert narrow.waits(second)
    assert narrow.place(second) == 1
    third = narrow.begin(NARROW[0], urgent, priority=9)
    assert narrow.waits(third)
    assert (narrow.place(third), narrow.place(second)) == (1, 2)
    narrow.lines.open()
    narrow.ended(second)
    said = [one.deployment_id for one in narrow.book.find(DeploymentSucceeded, narrow.mark)]
    assert said.index(third) < said.index(second)


@contextmanager
def two_slots(narrow: NarrowScene) -> Iterator[None]:
    """Other services meanwhile: two slots, and images count as large from four megabytes on."""
    told = {**narrow.system.settings, "extractions_limit": 2, "large_image_bytes": 4 * MEGABYTE}
    wider = dataclasses.replace(narrow.system, settings=told)
    narrow.services.stop()
    try:
        others: RoleServer = wider.services(name=f"wider-{narrow.name}")
        try:
            narrow.wait_for_api()
            yield
        finally:
            others.stop()
    finally:
        narrow.services.start()
        narrow.wait_for_api()


def test_a_small_image_is_not_stuck_behind_large_ones(narrow: NarrowScene) -> None:
    """Two large ones wait for the same slot while small ones come and go; both arrive in the end."""
    names = [f"e2e/{narrow.name}:{part}" for part in ("large", "larger", "small")]
    for name in names:
        narrow.make(name, name, bulk_bytes=0 if name.endswith("small") else BULK)
    with two_slots(narrow):
        first = narrow.under_way(NARROW[0], names[0], narrow.lines.pull)
        second = narrow.begin(NARROW[1], names[1])
        assert narrow.waits(second)
        assert narrow.deploy(NARROW[1], names[2])[0].how == "pulled"
        assert [narrow.show(one)["images"][0]["state"] for one in (first, second)] == ["pulling", "queued"]
        narrow.lines.open()
        assert [narrow.ended(one).images[0].how for one in (first, second)] == ["pulled", "pulled"]


def test_a_retry_brings_only_the_image_that_failed(narrow: NarrowScene) -> None:
    """Two of three arrived; once the third is there, a retry moves its bytes and no others, and all are ready."""
    names = one, late, other = [f"e2e/{narrow.name}:{part}" for part in ("one", "late", "other")]
    narrow.make(one, "one", bulk_bytes=3 * MEGABYTE)
    narrow.make(other, "other", bulk_bytes=3 * MEGABYTE)
    begun = narrow.begin(NARROW[0], *names)
    failed = narrow.ended(begun)
    assert isinstance(failed, DeploymentFailed)
    assert [image.how for image in failed.images] == ["pulled", None, "pulled"]
    narrow.make(late, "late", bulk_bytes=2 * MEGABYTE)
    narrow.from_now()
    before = narrow.asked(NARROW[0], begun)
    narrow.retry(begun)
    ended = narrow.book.wait(DeploymentSucceeded, narrow.mark, lambda message: message.deployment_id == begun)
    assert [image.how for image in ended.images] == ["pulled"] * 3
    assert 2 * MEGABYTE < narrow.fetched_bytes() < 2 * MEGABYTE + SLACK_BYTES
    assert narrow.asked(NARROW[0], begun) == before + 1
    assert [narrow.read(NARROW[0], name) for name in names] == ["one", "late", "other"]


@pytest.mark.parametrize("range_id", NARROW)
def test_a_retry_goes_on_from_what_the_engine_kept(narrow: NarrowScene, range_id: str) -> None:
    """What an image that had arrived brought is not fetched again; a containerd engine even goes on within a layer.

    A classic engine throws away what it has of a pull that ends early: of the image that was cancelled, all is fetched.
    """
    base, arrived, partly = (f"e2e/{narrow.name}-{part}:1" for part in ("base", "arrived", "partly"))
    narrow.make(base, "base", bulk_bytes=3 * MEGABYTE)
    narrow.make(arrived, "arrived", base=base)
    narrow.make(partly, "partly", base=base, bulk_bytes=BULK)
    narrow.deploy(range_id, arrived)
    line = narrow.lines.pull
    begun = narrow.under_way(range_id, partly, line)
    narrow.cancel(begun)
    narrow.cancelled(begun)
    assert poll(lambda: not line.held, seconds=20)
    passed = line.passed_bytes
    line.open()
    narrow.from_now()
    narrow.retry(begun)
    ended = narrow.book.wait(DeploymentSucceeded, narrow.mark, lambda message: message.deployment_id == begun)
    assert ended.images[0].layers_reused >= ended.images[0].layers_total - 2
    fetched = line.passed_bytes - passed
    if range_id == NARROW[0]:
        assert BULK <= fetched < BULK + SLACK_BYTES
    else:
        assert 0 < fetched < BULK - MEGABYTE // 2
    assert narrow.read(range_id, partly) == "partly"
