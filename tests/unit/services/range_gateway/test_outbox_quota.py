"""`services.range_gateway.outbox_quota`: an outbox takes a bounded part of Redis, whatever its range does."""

from __future__ import annotations

from collections.abc import Sequence

from events.streams import Streams
from services.range_gateway.outbox_quota import BYTES_LIMIT, ENTRIES_LIMIT, OutboxQuota

STREAMS = Streams()


class Sizes:
    """An outbox of so many entries and bytes, of which a trim takes all that was acknowledged."""

    def __init__(self, entries: int = 0, weight: int = 0, acknowledged: int = 0) -> None:
        self.entries, self.weight, self.acknowledged = entries, weight, acknowledged
        self.looks = 0

    async def lengths(self, streams: Sequence[str]) -> list[int]:
        self.looks += 1
        return [self.entries]

    async def weights(self, streams: Sequence[str]) -> list[int]:
        return [self.weight]

    async def trim(self, stream: str, keep_seconds: float) -> int:
        assert stream == STREAMS.outbox("r1")
        each = self.weight // max(1, self.entries)
        self.entries -= self.acknowledged
        self.weight -= self.acknowledged * each
        return self.acknowledged


async def test_many_small_messages_are_looked_at_now_and_then() -> None:
    """Redis is not asked for each."""
    sizes = Sizes()
    quota = OutboxQuota(sizes, STREAMS)
    for _ in range(100):
        assert await quota.take("r1", 1, 100)
    assert sizes.looks == 2


async def test_a_full_outbox_takes_nothing() -> None:
    """Neither by number nor by bytes."""
    for sizes in (Sizes(entries=ENTRIES_LIMIT), Sizes(entries=10, weight=BYTES_LIMIT)):
        assert not await OutboxQuota(sizes, STREAMS).take("r1", 1, 100)


async def test_what_was_acknowledged_makes_room() -> None:
    """Entries that every group has read are dropped before a range has to wait."""
    sizes = Sizes(entries=ENTRIES_LIMIT, weight=BYTES_LIMIT, acknowledged=ENTRIES_LIMIT // 2)
    assert await OutboxQuota(sizes, STREAMS).take("r1", 1, 100)


async def test_a_message_larger_than_what_is_left_has_to_wait() -> None:
    """The last bytes are not overdrawn."""
    sizes = Sizes(entries=10, weight=BYTES_LIMIT - 1000)
    quota = OutboxQuota(sizes, STREAMS)
    assert not await quota.take("r1", 1, 2000)
    assert await quota.take("r1", 1, 500)
