"""Who gets the next free slot. A slot is one transfer at work in some range's engine on this host.

In this order: higher priority; the deployment that holds the fewest slots; the one that waits longest; within one
deployment the smaller image. Large images never take the last slot of two or more, so a small one is not stuck
behind those of 20 GB, and large ones are not starved by small ones either: everybody's turn comes by waiting.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Self


@dataclass(frozen=True, slots=True)
class Ticket:
    """One image's place in the queue, as a word that `redis-cli ZRANGE` shows: id, number, priority, bytes."""

    deployment_id: str
    index: int
    priority: int
    size_bytes: int

    def __str__(self) -> str:
        return f"{self.deployment_id} {self.index} {self.priority} {self.size_bytes}"

    @classmethod
    def parse(cls, text: str) -> Self:
        deployment_id, index, priority, size_bytes = text.split(" ")
        return cls(deployment_id, int(index), int(priority), int(size_bytes))


def choose(queue: Sequence[Ticket], active: Iterable[Ticket], *, slots: int, large_bytes: int) -> list[Ticket]:
    """Who of `queue` (longest wait first) may start now, given who is `active`."""
    working = list(active)
    free = slots - len(working)
    if free <= 0 or not queue:
        return []
    holds = Counter(ticket.deployment_id for ticket in working)
    free_for_large = max(slots - 1, 1) - sum(ticket.size_bytes >= large_bytes for ticket in working)
    waiting: dict[str, list[Ticket]] = {}
    for ticket in queue:
        waiting.setdefault(ticket.deployment_id, []).append(ticket)
    turns = [
        (-tickets[0].priority, holds[deployment_id], arrival, deployment_id)
        for arrival, (deployment_id, tickets) in enumerate(waiting.items())
    ]
    for tickets in waiting.values():
        tickets.sort(key=lambda ticket: (-ticket.size_bytes, -ticket.index))
    heapify(turns)
    chosen: list[Ticket] = []
    while turns and len(chosen) < free:
        priority, held, arrival, deployment_id = heappop(turns)
        tickets = waiting[deployment_id]
        large = tickets[-1].size_bytes >= large_bytes
        if large and free_for_large <= 0:
            continue
        free_for_large -= large
        chosen.append(tickets.pop())
        if tickets:
            heappush(turns, (priority, held + 1, arrival, deployment_id))
    return chosen
