"""Shared read: one blocking read, and one connection, for those who wait for the same streams at the same time.

The workers of one process mostly wait for the same things: the two of an agent for its range's inbox. Whoever comes
while a read is under way that sees all it wants to see waits for that one, which may end sooner than it asked for; a
wait that ends without news is only repeated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

#: Waits for an entry behind these places, for so many seconds; the streams that have one.
Read = Callable[[Mapping[str, str], float], Awaitable[list[str]]]


@dataclass(slots=True)
class _UnderWay:
    """A read, and how many wait for it."""

    places: Mapping[str, str]
    task: asyncio.Future[list[str]]
    waiting: int = 0


class SharedRead:
    """Joins waits. `read` does one of them."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._under_way: list[_UnderWay] = []

    async def wait(self, places: Mapping[str, str], seconds: float) -> list[str]:
        """The streams of `places` (stream → id of the last entry seen) that have news; none after `seconds` at most."""
        within: float | None = seconds
        one = next((one for one in self._under_way if _sees(one, places)), None)
        if one is None:
            within = None  # this read ends by itself: cut off, it would cost its connection
            one = _UnderWay(places, asyncio.ensure_future(self._read(places, seconds)))
            self._under_way.append(one)
            one.task.add_done_callback(self._ended)
        one.waiting += 1
        try:
            done, _ = await asyncio.wait((one.task,), timeout=within)
            return [stream for stream in one.task.result() if stream in places] if done else []
        finally:
            one.waiting -= 1
            if not one.waiting:
                one.task.cancel()  # nobody waits any more

    async def close(self) -> None:
        """End the reads under way, and return when each has let its connection go.

        Cancelled again and again: the library's `wait_for` may swallow a cancellation (Python 3.11's).
        """
        while tasks := [one.task for one in self._under_way]:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=0.05)

    def _ended(self, task: asyncio.Future[list[str]]) -> None:
        """Retrieves the error of a read whose waiters were cancelled; others get it themselves."""
        self._under_way = [one for one in self._under_way if one.task is not task]
        if not task.cancelled():
            task.exception()


def _sees(one: _UnderWay, places: Mapping[str, str]) -> bool:
    """Whether that read ends with every entry that one behind `places` would end with."""
    if one.task.done() or not places.keys() <= one.places.keys():
        return False
    return all(_order(one.places[stream]) <= _order(place) for stream, place in places.items())


def _order(entry_id: str) -> tuple[int, int]:
    milliseconds, _, sequence = entry_id.partition("-")
    return int(milliseconds), int(sequence or 0)
