"""Streams with huge or malformed entries of a range, on a real Redis: other ranges and memory are not affected."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from events.bus import BusRefused, Outcome, Post
from events.envelope import Envelope
from events.lease import Holder
from events.memory.store import LAST_ID
from events.messages import PushRequested, TransferCancelled
from events.redis.bus import RedisBus
from events.streams import Streams
from tests.laboratory import RedisServer

MEGABYTE = 1024 * 1024
HOLDER = Holder("deployer", "one", 30.0)


class Site:
    """A bus of the services, and Redis as a range has it that may write its streams."""

    def __init__(self, bus: RedisBus, redis: Redis, streams: Streams) -> None:
        self.bus, self.redis, self.streams = bus, redis, streams
        self.outbox, self.inbox = streams.outbox("evil"), streams.inbox("evil")

    @asynccontextmanager
    async def little_memory(self, megabytes: int) -> AsyncIterator[None]:
        """Nothing inside makes the process of Redis grow, by what the kernel saw at most."""
        process = Path(f"/proc/{(await self.redis.info('server'))['process_id']}")
        await self.redis.memory_purge()
        before = _kilobytes(process, "VmRSS")
        (process / "clear_refs").write_text("5")  # the peak begins anew
        yield
        assert _kilobytes(process, "VmHWM") - before < megabytes * 1024


def _kilobytes(process: Path, what: str) -> int:
    line = next(line for line in (process / "status").read_text().splitlines() if line.startswith(f"{what}:"))
    return int(line.split()[1])


@pytest.fixture
async def site(redis_server: RedisServer, key_prefix: str) -> AsyncIterator[Site]:
    """Whatever a range put there is gone afterwards."""
    streams = Streams(key_prefix)
    redis = Redis.from_url(redis_server.url, socket_timeout=60.0)
    async with RedisBus.open(redis_server.url, streams=streams) as bus, redis:
        yield Site(bus, redis, streams)
        keys = [key async for key in redis.scan_iter(f"{key_prefix}*")]
        if keys:
            await redis.unlink(*keys)


def plain(number: int) -> Any:
    """An entry that is none of ours, small."""
    return {"id": b"%d" % number, "data": b"x" * 300}


async def test_a_giant_entry_in_an_outbox_is_cut_unread(site: Site) -> None:
    """It lay there before the services started; what came after it is taken, another range's stream too."""
    honest = site.streams.outbox("honest")
    await site.redis.xadd(site.outbox, {"id": b"0", "data": b"x" * (64 * MEGABYTE)})
    for number in range(40):
        await site.redis.xadd(site.outbox, plain(number))
    await site.redis.xadd(honest, plain(7))
    async with site.little_memory(4):
        taken = await site.bus.take(HOLDER, [site.outbox, honest], 8)
        await site.bus.recover(HOLDER, [site.outbox, honest], 8, [])
        await site.bus.groups([site.outbox, honest])
    assert {lease.stream for lease in taken.leases} == {site.outbox, honest}
    assert taken.skipped == 1
    assert await site.redis.xlen(site.outbox) == 20
    (weight,) = await site.bus.weights([site.outbox])
    assert weight < MEGABYTE


async def test_many_large_entries_are_cut_to_what_a_range_may_have(site: Site) -> None:
    """The last ones stay."""
    for number in range(60):
        await site.redis.xadd(site.outbox, {"id": b"%d" % number, "data": b"x" * MEGABYTE})
    async with site.little_memory(40):
        taken = await site.bus.take(HOLDER, [site.outbox], 4)
    assert len(taken.leases) == 1
    (weight,) = await site.bus.weights([site.outbox])
    assert 0 < weight <= 16 * MEGABYTE
    newest: Any = await site.redis.xrevrange(site.outbox, count=1)
    assert newest[0][1][b"id"] == b"59"


async def test_a_pending_entry_that_was_cut_is_forgotten(site: Site) -> None:
    """It was given to a worker that vanished; what took its place is found."""
    await site.redis.xadd(site.outbox, plain(1))
    await site.bus.take(Holder("deployer", "gone", 0.01), [site.outbox], 1)
    await site.redis.xadd(site.outbox, {"id": b"0", "data": b"x" * (50 * MEGABYTE)})
    await site.redis.xadd(site.outbox, plain(2))
    found = await site.bus.recover(Holder("deployer", "two", 0.01), [site.outbox], 8, [])
    assert found.leases == []
    taken = await site.bus.take(HOLDER, [site.outbox], 8)
    assert [lease.fields[b"id"] for lease in taken.leases] == [b"2"]


async def test_a_giant_entry_in_an_inbox_is_not_read_for_the_metrics(site: Site) -> None:
    """Nor by whoever takes from it."""
    await site.bus.take(Holder("agent", "a", 30.0), [site.inbox], 1)
    await site.redis.xadd(site.inbox, {"id": b"0", "data": b"x" * (64 * MEGABYTE)})
    async with site.little_memory(4):
        (status,) = await site.bus.groups([site.inbox])
        assert status.lag == 1
        assert (await site.bus.take(Holder("agent", "a", 30.0), [site.inbox], 1)).leases == []


async def test_giant_progress_is_not_read_by_whoever_follows_it(site: Site) -> None:
    """The tracker follows all ranges in one call."""
    evil, honest = site.streams.range_progress("evil"), site.streams.range_progress("honest")
    await site.redis.xadd(evil, {"id": b"0", "data": b"x" * (64 * MEGABYTE)})
    await site.redis.xadd(honest, plain(1))
    async with site.little_memory(4):
        found = [entry async for entry in site.bus.tail([evil, honest], after="0", follow=False)]
    assert [entry.stream for entry in found] == [honest]


async def test_no_more_of_a_beat_is_read_than_a_beat_has(site: Site) -> None:
    """A range may write 50 MB there; an honest one beside it is read whole."""
    await site.redis.set(site.streams.alive("evil"), b"x" * (50 * MEGABYTE))
    await site.redis.rpush(site.streams.alive("list"), "x")
    await site.bus.beat(site.streams.alive("honest"), b'{"engine_id":"e"}', 60.0)
    names = [site.streams.alive(name) for name in ("evil", "list", "none", "honest")]
    async with site.little_memory(2):
        evil, listed, missing, honest = await site.bus.beats(names)
    assert evil == b"x" * 4096
    assert (listed, missing) == (None, None)
    assert honest == b'{"engine_id":"e"}'


async def test_a_commit_that_one_stream_refuses_leaves_nothing_behind(site: Site) -> None:
    """The inbox has the greatest id there is: not one post before it is added, remembered or timed."""
    await site.redis.xadd(site.inbox, plain(1), id=LAST_ID)
    said = Envelope(message=PushRequested(reference="a:1"), source="s", subject="a:1")
    timer = Envelope(message=PushRequested(reference="b:1"), source="s", subject="b:1")
    command = Envelope(message=TransferCancelled(transfer_id="t"), source="s", subject="evil")
    images = site.streams.images
    outcome = Outcome(
        posts=(Post(images, said), Post(images, timer, due=timer.time), Post(site.inbox, command)),
    )
    with pytest.raises(BusRefused, match=f"{site.inbox} takes no entry.*exhausted"):
        await site.bus.commit(outcome)
    assert await site.redis.xlen(images) == 0
    assert await site.redis.zcard(f"{images}:timers") == 0
    await site.redis.delete(site.inbox)
    await site.bus.commit(outcome)
    assert [entry.envelope async for entry in site.bus.tail([images], after="0", follow=False)] == [said]
    assert await site.redis.zcard(f"{images}:timers") == 1
    assert await site.redis.xlen(site.inbox) == 1


async def test_thousands_of_groups_are_not_told(site: Site) -> None:
    """Whoever may write a stream may make them."""
    pipeline = site.redis.pipeline(transaction=False)
    for number in range(2000):
        pipeline.xgroup_create(site.inbox, f"made-up-{number:05}", mkstream=True)
    await pipeline.execute()
    assert len(await site.bus.groups([site.inbox])) == 32
