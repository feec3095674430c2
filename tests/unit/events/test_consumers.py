"""Consumers of workers that are gone."""

from __future__ import annotations

import asyncio

import fakeredis

from events.bus import NOTHING
from events.envelope import Envelope
from events.lease import Holder
from events.messages import PushRequested
from events.redis.bus import RedisBus
from events.redis.client import Commands
from tests.contract.buses import without_shebang


async def test_consumers_that_have_nothing_and_do_nothing_are_removed() -> None:
    """Each start of a worker is one; one with an entry pending stays, whatever it does, and so does the entry."""
    client = fakeredis.FakeAsyncRedis(protocol=2, legacy_responses=False)
    client.response_callbacks.clear()
    commands = Commands(client)
    bus = RedisBus(commands, commands, dialect=without_shebang)
    async with commands, bus.running():
        for subject in ("a", "b"):
            said = Envelope(message=PushRequested(reference=subject), source="t", subject=subject)
            await bus.publish("s", said)
        done, busy, me = (Holder("g", owner, 10.0) for owner in ("done", "busy", "me"))
        (lease,) = (await bus.take(done, ["s"], 1)).leases
        await bus.introduce(done, ["s"], 60.0)
        await bus.finish(lease, NOTHING)
        await bus.take(busy, ["s"], 1)
        await bus.take(me, ["s"], 1)
        assert await bus.introduce(me, ["s", "none"], 60.0) == 0
        async with asyncio.timeout(10):
            while True:
                if await bus.introduce(me, ["s"], 0.02):
                    break
                await asyncio.sleep(0.005)
        left = {consumer[1] for consumer in await commands.call("XINFO", "CONSUMERS", "s", "g")}
        assert left == {b"busy", b"me"}
        assert await commands.call("HKEYS", "s:lease:g") == [b"me"]
        (status,) = await bus.groups(["s"])
        assert [entry.owner for entry in status.entries] == ["busy"]
