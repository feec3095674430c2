"""Metrics of transfers to ranges, as the deployer counts them."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from events.messages import Failure
from services.deployer.transfer_metrics import BYTES_LIMIT, begin, count_ends, reason
from services.errors.register import REGISTER
from services.runtime.metrics import REGISTRY
from tests.simulation import Cluster
from tests.unit.services.core.deployments.test_transfer_results import deployment, image
from tests.unit.services.deployment_requests import APP, BASE, request


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"cyroid_{name}", labels) or 0.0


def step(before: Any, **changes: Any) -> None:
    count_ends(deployment(before), deployment(replace(before, **changes)))


def test_error_codes_that_a_range_makes_up_are_one_label() -> None:
    """However many it makes up, in failures and in reasons for what was not mounted."""
    begin()
    before = len(list(REGISTRY.collect()))
    for number in range(50):
        made_up = Failure(code=f"made-up-{number}", message="")
        step(image("pulling"), state="failed", error=made_up)
        step(image("pulling"), not_mounted=made_up)
    series = {
        sample.labels["reason"]
        for family in REGISTRY.collect()
        if family.name in {"cyroid_range_transfer_failures", "cyroid_layers_not_mounted"}
        for sample in family.samples
    }
    assert series <= {*REGISTER, "other"}
    assert len(list(REGISTRY.collect())) == before
    assert reason("stalled") == "stalled"


def test_a_number_of_bytes_that_cannot_be_is_not_believed() -> None:
    """Else one lie of a range would be all that the counter tells."""
    before = counted("range_transferred_bytes_total", way="pulled")
    step(image("pulling"), state="ready", how="pulled", received_bytes=2**53)
    assert counted("range_transferred_bytes_total", way="pulled") - before == BYTES_LIMIT


def test_an_archive_that_is_asked_for_again_has_no_reason() -> None:
    """It is counted among the transfers, and not among the failures by code."""
    labels = {"kind": "load", "way": "none", "outcome": "tar_requested"}
    before = (
        counted("range_transfers_total", **labels),
        counted("range_transfer_failures_total", kind="load", reason="other"),
    )
    step(image("loading", offers=1), offers=2)
    assert counted("range_transfers_total", **labels) - before[0] == 1
    assert counted("range_transfer_failures_total", kind="load", reason="other") == before[1]


@pytest.mark.faked_time
async def test_an_image_is_counted_where_the_deployer_learns_of_it() -> None:
    """Once each, with its way, its bytes and its seconds."""
    done = {"kind": "pull", "way": "pulled", "outcome": "done"}
    names = (("range_transfers_total", done), ("range_transfer_seconds_count", {"way": "pulled"}))
    before = [counted(name, **labels) for name, labels in names]
    received = counted("range_transferred_bytes_total", way="pulled")
    async with Cluster() as world:
        world.host.add_image(APP, [BASE, b"app"])
        world.host.add_image("docker.io/library/other:1", [BASE, b"other"])
        await world.say(world.streams.deployments, request("d1", "r0", APP, "docker.io/library/other:1"))
        assert (await world.ended("d1", within_seconds=30)).state == "succeeded"
    assert [counted(name, **labels) - was for (name, labels), was in zip(names, before, strict=True)] == [2, 2]
    assert counted("range_transferred_bytes_total", way="pulled") > received
