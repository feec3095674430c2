"""Admission: which waiting image gets the next free slot (one transfer to a range's engine), on each host by itself.

In this order: higher priority; the range that holds the fewest slots; the deployment that holds the fewest; the one
that waits longest; within one deployment the smaller image. Large images never take the last slot of two or more, so a
small one is not stuck behind those of 20 GB, and large ones are not starved by small ones either: everybody's turn
comes by waiting.

A range takes no more slots than its agent works at, and while others wait only its share: one that is slow, or that
never ends what it was given, does not keep the host from all others.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from heapq import heapify, heappop, heappush

#: More than wait at once, else each reading of the queue would parse all of it; some 20 MB at most.
KEPT_TICKETS = 50_000


@dataclass(frozen=True, slots=True)
class Ticket:
    """One image's place in the queue, as text that `redis-cli ZRANGE` shows: id, number, priority, bytes, range, host.

    `host` is where the range is; where that is not known it is empty, and left out of the text.
    """

    deployment_id: str
    index: int
    priority: int
    size_bytes: int
    range_id: str
    host: str = ""

    def __str__(self) -> str:
        text = f"{self.deployment_id} {self.index} {self.priority} {self.size_bytes} {self.range_id}"
        return f"{text} {self.host}" if self.host else text

    @staticmethod
    @lru_cache(maxsize=KEPT_TICKETS)
    def parse(text: str) -> Ticket:
        """A ticket out of its text. A long queue is read many times before its last ticket is served."""
        deployment_id, index, priority, size_bytes, range_id, *host = text.split(" ")
        return Ticket(deployment_id, int(index), int(priority), int(size_bytes), range_id, *host)


def by_host(tickets: Iterable[Ticket]) -> dict[str, list[Ticket]]:
    """The tickets of each host, in their order."""
    found: dict[str, list[Ticket]] = {}
    for ticket in tickets:
        found.setdefault(ticket.host, []).append(ticket)
    return found


def choose(
    queue: Sequence[Ticket], active: Iterable[Ticket], *, slots: int, large_bytes: int, per_range: int
) -> list[Ticket]:
    """The tickets of `queue` (longest wait first) that may start now, given `active`; no range gets more than
    `per_range`, and each host has `slots` of its own.
    """
    working = by_host(active)
    return [
        ticket
        for host, waiting in by_host(queue).items()
        for ticket in _on_host(
            waiting, working.get(host, []), slots=slots, large_bytes=large_bytes, per_range=per_range
        )
    ]


def places(queue: Sequence[Ticket], active: Sequence[Ticket]) -> dict[Ticket, int]:
    """The place of each ticket in its host's queue, the next one first (1), if all of them got slots in turn."""
    everybody = len(queue) + len(active)
    turns = choose(queue, active, slots=everybody, large_bytes=sys.maxsize, per_range=everybody)
    return {ticket: place for tickets in by_host(turns).values() for place, ticket in enumerate(tickets, 1)}


def _on_host(
    queue: Sequence[Ticket], working: Sequence[Ticket], *, slots: int, large_bytes: int, per_range: int
) -> list[Ticket]:
    free = slots - len(working)
    if free <= 0 or not queue:
        return []
    holds = Counter(ticket.deployment_id for ticket in working)
    range_holds = Counter(ticket.range_id for ticket in working)
    free_for_large = max(slots - 1, 1) - sum(ticket.size_bytes >= large_bytes for ticket in working)
    waiting: dict[str, list[Ticket]] = {}
    for ticket in queue:
        waiting.setdefault(ticket.deployment_id, []).append(ticket)
    turns = [
        (-tickets[0].priority, range_holds[tickets[0].range_id], holds[deployment_id], arrival, deployment_id)
        for arrival, (deployment_id, tickets) in enumerate(waiting.items())
    ]
    for tickets in waiting.values():
        tickets.sort(key=lambda ticket: (-ticket.size_bytes, -ticket.index))
    heapify(turns)
    chosen: list[Ticket] = []
    while turns and len(chosen) < free:
        priority, range_held, held, arrival, deployment_id = heappop(turns)
        tickets = waiting[deployment_id]
        range_id = tickets[-1].range_id
        if range_holds[range_id] >= per_range:
            continue
        if range_held < range_holds[range_id]:  # another deployment of this range got a slot meanwhile
            heappush(turns, (priority, range_holds[range_id], held, arrival, deployment_id))
            continue
        large = tickets[-1].size_bytes >= large_bytes
        if large and free_for_large <= 0:
            continue
        free_for_large -= large
        range_holds[range_id] += 1
        chosen.append(tickets.pop())
        if tickets:
            heappush(turns, (priority, range_holds[range_id], held + 1, arrival, deployment_id))
    return chosen
