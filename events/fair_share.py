"""Fair share: the part of a worker's concurrency that one range may use, however many messages it publishes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from events.authority import kind_of

#: Of a worker's slots, and of what one take brings, one range's outbox gets this part.
_PART = 4


def fair_share(slots: int) -> int:
    """The number of entries of one range's outbox that a worker handles at a time; at least one."""
    return max(1, slots // _PART)


def is_outbox(stream: str) -> bool:
    """Whether the stream is the outbox of a range."""
    return kind_of(stream) == "outbox"


def within_share(streams: Sequence[str], in_flight: Iterable[tuple[str, str]], slots: int) -> list[str]:
    """The streams without the outboxes of ranges that use up their share; `in_flight` are (stream, entry id)."""
    running = Counter(stream for stream, _ in in_flight)
    share = fair_share(slots)
    full = {stream for stream, count in running.items() if count >= share and is_outbox(stream)}
    return [stream for stream in streams if stream not in full] if full else list(streams)
