"""Slots of each host (concurrency limit of transfers): each admission rewrites one record, so no slot is given twice.

A deployment whose images come up while nobody waits is admitted in the same step. Otherwise they queue, and the pass
that every replica makes whenever slots may have become free admits them in turn.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime

from msgspec.structs import replace

from events.bus import BusError, BusRefused, IndexWrite, Outcome, RecordConflict, RecordWrite
from events.records import load_all
from services.core.deployments.admission import Ticket, by_host, choose
from services.core.deployments.deployment import Deployment
from services.core.deployments.facts import RegistryImage
from services.core.deployments.index import ticket_of
from services.core.deployments.transfer_start import admit
from services.core.deployments.transition_builder import Transition
from services.core.deployments.transitions import commands_refused
from services.deployer.context import DeployerContext
from services.deployer.facts import FactFinder
from services.deployer.outcomes import merged
from services.deployer.standstill import Standstill
from services.runtime.telemetry import get_logger

_IDLE_SECONDS = 0.5
_BUSY_SECONDS = 0.05
#: Between two passes at least: what became free meanwhile is given out together.
_PAUSE_SECONDS = 0.025
#: So long a pass goes by the queue that an earlier one read: of a long one, reading is most of a pass.
_QUEUE_SECONDS = 0.25
#: The next pass waits for so much of what this one took. With 3, 1,000 ranges were ready after 20 s in place of 7.
_REST = 0.3
#: How many commits of a pass travel together.
_TOGETHER = 25


class Slots:
    """Admission of one replica."""

    def __init__(self, context: DeployerContext, finder: FactFinder) -> None:
        self._bus = context.bus
        self._finder = finder
        self._writer = context.writer
        self._keys = context.writer.keys
        self._policy = context.policy
        self._clock = context.clock
        self._hint = asyncio.Event()
        self._log = get_logger(role="deployer")
        self._standstill = Standstill()
        #: How many waited on each host at this replica's last pass: while somebody does, nobody is let in past the
        #: queue of that host.
        self._waiting = Counter[str]()
        self._passed_at = float("-inf")
        #: The queue as it was read last, by host, without what was chosen of it since; and when it was read.
        self._known: dict[str, list[Ticket]] = {}
        self._read_at = float("-inf")
        #: How many waited on each host when the queue was read last, whoever read it, and who came here since then.
        self._counts = Counter[str]()
        self._counted_at = float("-inf")

    def hint(self) -> None:
        """Note that a slot may have become free."""
        self._hint.set()

    async def admitted(self, before: Deployment | None, step: Transition, now: datetime) -> tuple[Transition, Outcome]:
        """The transition with those of its images admitted for which slots are free, if nothing else waits."""
        after = step.deployment
        waiting = [index for index, image in enumerate(after.images) if image.waits_for_slot]
        known = {index for index in waiting if before is not None and before.images[index].waits_for_slot}
        if not after.open or len(known) == len(waiting):
            return step, Outcome()
        if self._waiting[after.host]:
            self.hint()
            return self._placed(step, self._waiting[after.host]), Outcome()
        revision = await self._revision()
        queued = await self._queued(after.host)
        if not queued:
            tickets = [ticket_of(after, index) for index in waiting]
            active = await self._active()
            chosen = [ticket.index for ticket in self._choose(tickets, active)]
            if chosen:
                found = {index: await self._layers(after, index) for index in chosen}
                store = (await self._finder.mountable([after])).get(after.deployment_id)
                step = step.then(admit(after, found, now, self._policy, mountable=store))
                return self._placed(step, 0), Outcome(records=(self._claim(now, revision),))
        self.hint()  # whoever was counted may have its slot by now
        self._counts[after.host] += len(waiting)
        self._waiting[after.host] = queued + len(waiting)
        return self._placed(step, queued), Outcome()

    async def run(self) -> None:
        """Admit until cancelled. A long queue is followed by a longer pause, so that handlers get on."""
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            self._hint.clear()
            try:
                waiting = await self.admit_waiting()
                self._standstill.moved(loop.time())
            except (BusError, RecordConflict) as problem:
                waiting, self._read_at = True, float("-inf")
                self._tell_standstill(problem, loop.time())
            await asyncio.sleep(max(_REST * (loop.time() - started), _PAUSE_SECONDS))
            with suppress(TimeoutError):
                async with asyncio.timeout(_BUSY_SECONDS if waiting else _IDLE_SECONDS):
                    await self._hint.wait()

    def _tell_standstill(self, problem: Exception, now: float) -> None:
        seconds = self._standstill.failed(now)
        if seconds is not None:
            self._log.error("admission stands still: nobody is given a slot", seconds=round(seconds), why=str(problem))

    async def admit_waiting(self) -> bool:
        """One pass over the queue; whether somebody waits with all slots taken. Raises RecordConflict, BusError.

        Who waits while slots are free waits for its range, or for smaller images: passes in a hurry do not help.
        """
        revision = await self._revision()
        active = await self._active()
        now = asyncio.get_running_loop().time()
        if self._all_full(active) and now - self._passed_at < _IDLE_SECONDS:
            return True
        self._passed_at = now
        fresh = await self._look_again(now)
        chosen: dict[str, list[Ticket]] = {}
        admitted = self._chosen(active)
        for ticket in admitted:
            chosen.setdefault(ticket.deployment_id, []).append(ticket)
        idents = list(chosen)
        for start in range(0, len(idents), _TOGETHER):
            part = {ident: chosen[ident] for ident in idents[start : start + _TOGETHER]}
            revision += await self._admit_together(part, revision, fresh=fresh)
        self._waiting = Counter({host: len(tickets) for host, tickets in self._known.items()})
        return self._all_full([*active, *admitted])

    async def _look_again(self, now: float) -> bool:
        """Read the queue, unless that was just done and somebody is left in it. Whether it was read.

        Who began to wait meanwhile is seen a moment later; who was admitted meanwhile, by another replica, is left out
        when the record is read. Slots are counted afresh in every pass.
        """
        if self._known and now - self._read_at < _QUEUE_SECONDS:
            return False
        self._known, self._read_at = await self._queue(), now
        return True

    def _chosen(self, active: list[Ticket]) -> list[Ticket]:
        """Who is given the free slots; each of them, and a host for which nobody is left, leaves the known queue."""
        working, chosen = by_host(active), list[Ticket]()
        for host, queue in list(self._known.items()):
            held = working.get(host, [])
            taken = self._choose(queue, held) if len(held) < self._policy.pulls_per_host else []
            if taken:
                gone = set(taken)
                self._known[host] = [ticket for ticket in queue if ticket not in gone]
                chosen += taken
        self._known = {host: queue for host, queue in self._known.items() if queue}
        return chosen

    def _all_full(self, active: Iterable[Ticket]) -> bool:
        """Whether somebody waits, and on no host that somebody waits for a slot is free."""
        held = Counter(ticket.host for ticket in active)
        waited_for = [host for host, count in self._waiting.items() if count > 0]
        return bool(waited_for) and all(held[host] >= self._policy.pulls_per_host for host in waited_for)

    async def _admit_together(self, chosen: dict[str, list[Ticket]], revision: int, *, fresh: bool) -> int:
        """Each deployment in a commit of its own, so that no range's keys are in another's. How often a claim was made.

        They travel together, each expecting the claim of the one before it. One that is refused, or that moved
        meanwhile, fails those behind it, and each of them is tried again by itself. Tickets of images that do not wait
        are removed only if the queue was read just now: an older one may name a ticket that is there again.
        """
        outcomes, stale = await self._outcomes(chosen)
        if stale and fresh:
            await self._bus.commit(Outcome(index=stale))
        now = self._clock()
        results = await asyncio.gather(
            *(
                self._bus.commit(merged(outcome, Outcome(records=(self._claim(now, revision + place),))))
                for place, outcome in enumerate(outcomes.values())
            ),
            return_exceptions=True,
        )
        claims = 0
        for ident, result in zip(outcomes, results, strict=True):
            if isinstance(result, RecordConflict | BusRefused):
                claims += await self._admit_alone(ident, chosen[ident], revision + claims)
            elif isinstance(result, BaseException):
                raise result
            else:
                claims += 1
        return claims

    async def _admit_alone(self, ident: str, tickets: list[Ticket], revision: int) -> int:
        """1 if a claim was made."""
        try:
            outcomes, _ = await self._outcomes({ident: tickets})
            for outcome in outcomes.values():
                await self._bus.commit(merged(outcome, Outcome(records=(self._claim(self._clock(), revision),))))
            return len(outcomes)
        except BusRefused as problem:
            await self._end(ident, str(problem))
        except RecordConflict:
            pass  # it moved again, or another replica admits: the next pass sees
        return 0

    async def _end(self, ident: str, why: str) -> None:
        """End the deployment whose range can be given no command, so that it keeps no other waiting."""
        stored = await self._keys.record(ident).load(self._bus)
        if stored.value is None:
            return
        self._log.error("no command can be given to a range", range=stored.value.range_id, deployment=ident, why=why)
        now = self._clock()
        step = commands_refused(stored.value, why, now, self._policy)
        with suppress(RecordConflict):
            await self._bus.commit(self._writer.outcome(stored, step, now))

    async def _outcomes(self, chosen: dict[str, list[Ticket]]) -> tuple[dict[str, Outcome], tuple[IndexWrite, ...]]:
        """What admits each deployment, as far as its images still wait; and the tickets of those that do not."""
        found = await load_all(self._bus, [self._keys.record(ident) for ident in chosen])
        stores = await self._finder.mountable([one.value for one in found if one.value is not None])
        now, outcomes, stale = self._clock(), dict[str, Outcome](), list[IndexWrite]()
        for stored, (ident, tickets) in zip(found, chosen.items(), strict=True):
            deployment = stored.value
            wanted = [ticket for ticket in tickets if deployment is not None and _waits(deployment, ticket)]
            stale += [IndexWrite(self._keys.queue, str(ticket), None) for ticket in tickets if ticket not in wanted]
            if deployment is not None and wanted:
                layers = {ticket.index: await self._layers(deployment, ticket.index) for ticket in wanted}
                step = admit(deployment, layers, now, self._policy, mountable=stores.get(ident))
                outcomes[ident] = self._writer.outcome(stored, step, now)
        return outcomes, tuple(stale)

    async def _queue(self) -> dict[str, list[Ticket]]:
        """Who waits, by host, the longest wait first."""
        queue = by_host([Ticket.parse(text) for text in await self._bus.members(self._keys.queue)])
        self._counts = Counter({host: len(tickets) for host, tickets in queue.items()})
        self._counted_at = asyncio.get_running_loop().time()
        return queue

    async def _queued(self, host: str) -> int:
        """How many wait on the host. Who came to another replica is seen a moment later, if anybody waits at all."""
        if not self._counts or asyncio.get_running_loop().time() - self._counted_at >= _QUEUE_SECONDS:
            await self._queue()
        return self._counts[host]

    async def _active(self) -> list[Ticket]:
        return [Ticket.parse(text) for text in await self._bus.members(self._keys.active)]

    def _choose(self, tickets: list[Ticket], active: list[Ticket]) -> list[Ticket]:
        policy = self._policy
        return choose(
            tickets,
            active,
            slots=policy.pulls_per_host,
            large_bytes=policy.large_bytes,
            per_range=policy.pulls_per_range,
        )

    async def _layers(self, deployment: Deployment, index: int) -> RegistryImage | None:
        image = deployment.images[index]
        return None if image.by_tar else await self._finder.registry_image(image.reference, image.source)

    async def _revision(self) -> int:
        record = await self._bus.load(self._keys.admission)
        return record.revision if record else 0

    def _claim(self, now: datetime, revision: int) -> RecordWrite:
        """The write of the admission's record. Its value is for people; only the revision counts."""
        return RecordWrite(self._keys.admission, now.isoformat().encode(), expected=revision)

    def _placed(self, step: Transition, before: int) -> Transition:
        """The transition with each waiting image's place in the queue."""
        images = list(step.deployment.images)
        for index, image in enumerate(images):
            if image.waits_for_slot:
                images[index] = replace(image, queued_behind=before)
                before += 1
        return Transition(replace(step.deployment, images=tuple(images)), step.effects)


def _waits(deployment: Deployment, ticket: Ticket) -> bool:
    return ticket.index < len(deployment.images) and deployment.images[ticket.index].waits_for_slot
