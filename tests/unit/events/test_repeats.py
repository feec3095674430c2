"""A Redis whose replies get lost: what is sent again takes effect once, and answers as it did."""

from __future__ import annotations

from collections.abc import AsyncIterator

import fakeredis
import pytest

from events.bus import NOTHING, BusRefused, Outcome, RecordConflict, RecordWrite
from events.dead_letters import dead_letters
from events.envelope import Envelope
from events.lease import DeadLetterReason, Holder
from events.messages import PushRequested
from events.redis.bus import RedisBus
from events.redis.client import Argument, Commands, Reply
from tests.contract.buses import without_shebang

HOLDER = Holder("g", "w", 10.0)


class Forgetful(Commands):
    """Sends every call of a script twice, as after a reply that got lost."""

    async def call(self, *arguments: Argument) -> Reply:
        if arguments[0] == "EVALSHA":
            await super().call(*arguments)
        return await super().call(*arguments)


@pytest.fixture
async def commands() -> AsyncIterator[Commands]:
    client = fakeredis.FakeAsyncRedis(protocol=2, legacy_responses=False)
    client.response_callbacks.clear()
    async with Forgetful(client) as commands:
        yield commands


async def test_a_repeat_after_a_lost_reply_says_the_same(commands: Commands) -> None:
    """Done, not gone; and the entry is there once more, not twice."""
    bus = RedisBus(commands, commands, dialect=without_shebang)
    async with bus.running():
        letter_id = await _buried(bus)
        assert await bus.redrive("dead", letter_id) is True
        assert await dead_letters(bus, "dead") == []
        assert await commands.call("XLEN", "s") == 2
        assert await bus.redrive("dead", letter_id) is False


async def test_a_letter_stays_where_its_stream_is_no_stream(commands: Commands) -> None:
    """What can fail is done before the letter is removed."""
    bus = RedisBus(commands, commands, dialect=without_shebang)
    async with bus.running():
        letter_id = await _buried(bus)
        await commands.call("DEL", "s")
        await commands.call("SET", "s", "a string")
        with pytest.raises(BusRefused):
            await bus.redrive("dead", letter_id)
        assert len(await dead_letters(bus, "dead")) == 1


async def _buried(bus: RedisBus) -> str:
    await bus.publish("s", Envelope(message=PushRequested(reference="a"), source="t", subject="a"))
    (lease,) = (await bus.take(HOLDER, ["s"], 1)).leases or (await bus.recover(HOLDER, ["s"], 1, [])).leases
    await bus.dead_letter(lease, DeadLetterReason("dead", "permanent", "because", "t"), NOTHING)
    (letter,) = await dead_letters(bus, "dead")
    return letter.letter_id


async def test_a_deletion_that_is_repeated_is_no_conflict(commands: Commands) -> None:
    """The record is gone with its revision, and the repeat still knows that this was its own doing."""
    bus = RedisBus(commands, commands, dialect=without_shebang)
    async with bus.running():
        await bus.commit(Outcome(records=(RecordWrite("k", b"1", expected=0),)))
        await bus.commit(Outcome(records=(RecordWrite("k", None, expected=1),)))
        assert await bus.load("k") is None
        with pytest.raises(RecordConflict):
            await bus.commit(Outcome(records=(RecordWrite("k", None, expected=1),)))


async def test_a_name_that_comes_twice_is_kept_twice(commands: Commands) -> None:
    """In the dead letter, and when that is sent again: every byte as it lay on the stream."""
    bus = RedisBus(commands, commands, dialect=without_shebang)
    raw = [b"id", b"1", b"source", b"t", b"data", b"{", b"data", b"}"]
    async with bus.running():
        await commands.call("XADD", "s", "*", *raw)
        await commands.call("XGROUP", "CREATE", "s", "g", "0")
        (lease,) = (await bus.take(HOLDER, ["s"], 1)).leases or (await bus.recover(HOLDER, ["s"], 1, [])).leases
        await bus.dead_letter(lease, DeadLetterReason("dead", "bad_data", "because", "t"), NOTHING)
        (letter,) = await dead_letters(bus, "dead")
        assert letter.fields == {b"id": b"1", b"source": b"t", b"data": b"}"}
        assert await bus.redrive("dead", letter.letter_id)
        assert [flat for _, flat in await commands.call("XRANGE", "s", "-", "+")] == [raw, raw]
