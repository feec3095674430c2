"""Hands out the host's slots. Every admission rewrites one record under its revision, so no two count the same slots.

A deployment whose images come up while nobody waits is admitted in the same step. Otherwise they queue, and the pass
that every replica makes whenever slots may have become free admits them in turn.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import datetime

import msgspec
from msgspec.structs import replace

from events.bus import BusError, IndexWrite, Outcome, RecordConflict, RecordWrite
from services.core.admission import Ticket, choose
from services.core.deployment import Deployment, RegistryImage
from services.core.deployment_draft import Step
from services.core.deployment_index import ticket_of
from services.core.deployment_look import admit
from services.deploying.facts import Finder
from services.deploying.outcomes import Desk, Stored, merged

_IDLE_SECONDS = 0.5
_BUSY_SECONDS = 0.05
_PAUSE_SECONDS = 0.01
#: The next pass waits for so much of what this one took. With 3, 1,000 ranges were ready after 20 s in place of 7.
_REST = 0.3
#: How many deployments one commit of a pass admits.
_TOGETHER = 25


class Slots:
    """Admission for one replica."""

    def __init__(self, desk: Desk, finder: Finder) -> None:
        self._speaker = desk.speaker
        self._finder = finder
        self._writer = desk.writer
        self._keys = desk.writer.keys
        self._policy = desk.policy
        self._clock = desk.clock
        self._hint = asyncio.Event()
        #: How many waited at this replica's last pass: while somebody does, nobody is let in past the queue.
        self._waiting = 0

    def hint(self) -> None:
        """A slot may have become free."""
        self._hint.set()

    async def admitted(self, before: Deployment | None, step: Step, now: datetime) -> tuple[Step, Outcome]:
        """The step with those of its images admitted for which slots are free, if nobody else waits."""
        after = step.deployment
        waiting = [index for index, image in enumerate(after.images) if image.waits_for_slot]
        known = {index for index in waiting if before is not None and before.images[index].waits_for_slot}
        if not after.open or len(known) == len(waiting):
            return step, Outcome()
        if self._waiting:
            self.hint()
            return self._placed(step, self._waiting), Outcome()
        revision = await self._revision()
        queue = await self._speaker.members(self._keys.queue)
        if not queue:
            tickets = [ticket_of(after, index) for index in waiting]
            active = await self._active()
            chosen = [ticket.index for ticket in self._choose(tickets, active)]
            if chosen:
                found = {index: await self._layers(after, index) for index in chosen}
                step = step.then(admit(after, found, now, self._policy))
                return self._placed(step, 0), Outcome(records=(self._claim(now, revision),))
        return self._placed(step, len(queue)), Outcome()

    async def run(self) -> None:
        """Admits for ever. A pass over a long queue is followed by a longer rest, so that handlers get on."""
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            self._hint.clear()
            try:
                waiting = await self.admit_waiting()
            except (BusError, RecordConflict):
                waiting = True
            await asyncio.sleep(max(_REST * (loop.time() - started), _PAUSE_SECONDS))
            with suppress(TimeoutError):
                async with asyncio.timeout(_BUSY_SECONDS if waiting else _IDLE_SECONDS):
                    await self._hint.wait()

    async def admit_waiting(self) -> bool:
        """One pass over the queue; whether somebody waits with all slots taken. Raises RecordConflict, BusError.

        Who waits while slots are free waits for its range, or for smaller images: passes in a hurry do not help.
        """
        revision = await self._revision()
        active = await self._active()
        if self._waiting and len(active) >= self._policy.pulls_per_host:
            return True
        queue = [Ticket.parse(text) for text in await self._speaker.members(self._keys.queue)]
        chosen: dict[str, list[Ticket]] = {}
        for ticket in self._choose(queue, active):
            chosen.setdefault(ticket.deployment_id, []).append(ticket)
        idents = list(chosen)
        for start in range(0, len(idents), _TOGETHER):
            part = {ident: chosen[ident] for ident in idents[start : start + _TOGETHER]}
            revision += await self._admit_together(part, revision)
        admitted = sum(map(len, chosen.values()))
        self._waiting = len(queue) - admitted
        return self._waiting > 0 and len(active) + admitted >= self._policy.pulls_per_host

    async def _admit_together(self, chosen: dict[str, list[Ticket]], revision: int) -> int:
        """In one commit; if one of the deployments moved meanwhile, each by itself. How often a claim was made."""
        try:
            return await self._admit(chosen, revision)
        except RecordConflict:
            claims = 0
            for ident, tickets in chosen.items():
                with suppress(RecordConflict):  # it moved again, or another replica admits: the next pass sees
                    claims += await self._admit({ident: tickets}, revision + claims)
            return claims

    async def _admit(self, chosen: dict[str, list[Ticket]], revision: int) -> int:
        """1 if the admission's record was rewritten, 0 if there was nothing to admit. Raises RecordConflict."""
        records = await self._speaker.load_many([self._keys.record(ident) for ident in chosen])
        now, outcomes, stale = self._clock(), list[Outcome](), list[IndexWrite]()
        for record, tickets in zip(records, chosen.values(), strict=True):
            deployment = msgspec.json.decode(record.value, type=Deployment) if record else None
            wanted = [ticket for ticket in tickets if deployment is not None and _waits(deployment, ticket)]
            stale += [IndexWrite(self._keys.queue, str(ticket), None) for ticket in tickets if ticket not in wanted]
            if record is not None and deployment is not None and wanted:
                found = {ticket.index: await self._layers(deployment, ticket.index) for ticket in wanted}
                step = admit(deployment, found, now, self._policy)
                stored = Stored(deployment=deployment, revision=record.revision)
                outcomes.append(self._writer.outcome(stored, step, now))
        claim = (self._claim(now, revision),) if outcomes else ()
        await self._speaker.commit(merged(*outcomes, Outcome(records=claim, index=tuple(stale))))
        return len(claim)

    async def _active(self) -> list[Ticket]:
        return [Ticket.parse(text) for text in await self._speaker.members(self._keys.active)]

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
        record = await self._speaker.load(self._keys.admission)
        return record.revision if record else 0

    def _claim(self, now: datetime, revision: int) -> RecordWrite:
        return RecordWrite(self._keys.admission, now.isoformat().encode(), expected=revision)

    def _placed(self, step: Step, before: int) -> Step:
        """The step with each waiting image's place in the queue noted."""
        images = list(step.deployment.images)
        for index, image in enumerate(images):
            if image.waits_for_slot:
                images[index] = replace(image, queued_behind=before)
                before += 1
        return Step(replace(step.deployment, images=tuple(images)), step.effects)


def _waits(deployment: Deployment, ticket: Ticket) -> bool:
    return ticket.index < len(deployment.images) and deployment.images[ticket.index].waits_for_slot
