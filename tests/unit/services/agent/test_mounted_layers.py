"""Mounted layers of one transfer: placed, or the reason why not; settled in any case."""

from __future__ import annotations

import asyncio

import pytest

from events.messages import Layer, LayersReleased, PullRequested
from events.range_messages import LAYERS as LAYERS_LIMIT
from events.task_group import TaskGroup
from services.agent.layer_release import LayerRelease
from services.agent.mounted_layers import PLACE_SECONDS, placement, unreadable
from services.errors import LayersNotMounted
from tests.unit.services.agent.placer import Placer

pytestmark = pytest.mark.faked_time
DIGEST = f"sha256:{'a' * 64}"
LAYERS = (Layer(digest=DIGEST, diff_id=DIGEST, size_bytes=1024),)


def request(*, mounted: bool = True) -> PullRequested:
    return PullRequested(transfer_id="t-1", reference="app", image_id=DIGEST, layers=LAYERS, mounted=mounted)


async def test_layers_are_placed_and_settled() -> None:
    """In that order, and nothing is wrong."""
    placer = Placer()
    async with placement(placer, request()) as layers:
        await layers.place()
        assert (layers.placed, layers.why_not) == (True, None)
    assert placer.asked == ["accept t-1", "place t-1", "settle t-1"]


async def test_what_is_not_mounted_is_not_placed() -> None:
    """Nor is anything where the host shows nothing."""
    placer = Placer()
    async with placement(placer, request(mounted=False)) as layers, placement(None, request()) as none:
        await layers.place()
        await none.place()
        assert (layers.placed, none.placed) == (False, False)
    assert placer.asked == []


@pytest.mark.parametrize(
    ("placer", "why"),
    [(Placer(problem=LayersNotMounted("no room")), "no room"), (Placer(seconds=PLACE_SECONDS + 1), "within 60 s")],
    ids=["refused", "slow"],
)
async def test_a_reason_is_kept_for_the_answer(placer: Placer, why: str) -> None:
    """An engine that refuses, or takes too long; what was placed by then is settled."""
    async with placement(placer, request()) as layers:
        await layers.place()
        assert not layers.placed
        assert layers.why_not is not None
        assert why in layers.why_not.message
    assert placer.asked[-1] == "settle t-1"


async def test_unused_layers_are_given_back_in_parts_and_then_forgotten() -> None:
    """A range's gateway takes messages of some kilobytes."""
    placer, said = Placer(idle={str(number): "t-1" for number in range(60)}), list[LayersReleased]()

    async def publish(message: LayersReleased) -> None:
        said.append(message)

    release = LayerRelease(placer, range_id="r-1", look_seconds=60, publish=publish)
    async with TaskGroup() as tasks:
        running = tasks.create_task(release.run())
        release.hint()
        await asyncio.sleep(1)  # in the loop's own time
        running.cancel()
    assert [len(message.grants) for message in said] == [25, 25, 10]


async def test_what_cannot_be_read_is_told_as_far_as_a_message_has_room() -> None:
    """Nothing is told of a store that cannot be looked into."""
    digests = tuple(f"sha256:{number:064x}" for number in range(LAYERS_LIMIT + 1))
    assert await unreadable(None) == ()
    assert await unreadable(Placer(broken=digests)) == digests[:LAYERS_LIMIT]
    assert await unreadable(Placer(broken=digests, problem=LayersNotMounted(""))) == ()
