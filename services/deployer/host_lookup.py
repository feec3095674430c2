"""Lookup of an image on the hosts: the records name a host that holds it, and that host tells what it has now.

Where no record names one, every host that is there is asked: images get onto an engine without being announced. A host
answers through a key that expires (`services.core.hosts.looks`), so nothing has to be connected to any engine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from events.bus import BusClient
from events.envelope import Envelope, new_id
from events.messages import HostLookRequested
from events.streams import Streams
from services.core.deployments.facts import HostImage
from services.core.hosts.held_images import HeldKeys
from services.core.hosts.hosts import HostKeys, HostRecord
from services.core.hosts.looks import LookAnswer

#: A host has so long to answer. It asks its engine, which may be busy.
ANSWER_SECONDS = 5.0
_PAUSE_SECONDS, _PAUSE_LIMIT_SECONDS = 0.01, 0.2
Found = tuple[HostImage | None, str | None]
_Question = tuple[str, str, str | None, tuple[str, ...]]


@dataclass(slots=True)
class _Asked:
    """A question under way, and how many wait for its answer."""

    task: asyncio.Task[Found]
    askers: int = 0


class HostLookup:
    """Asks for one replica of the deployer. `source` names it in its questions."""

    def __init__(
        self,
        *,
        bus: BusClient,
        streams: Streams,
        source: str,
        clock: Callable[[], datetime],
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        self._bus = bus
        self._streams = streams
        self._source = source
        self._clock = clock
        self._answer_seconds = answer_seconds
        self._keys, self._held = HostKeys(streams.prefix), HeldKeys(streams.prefix)
        self._asked: dict[_Question, _Asked] = {}

    async def find(self, reference: str, image_id: str | None = None, diff_ids: tuple[str, ...] = ()) -> Found:
        """What a host has under this name, or as this content; why that is not known. Raises BusError."""
        held = (await self._held.images(reference).load(self._bus)).value
        holders = held.holders(image_id, diff_ids) if held is not None else []
        alive = await self.alive()
        away: str | None = None
        for host in [one for one in holders if one in alive]:
            found, problem = await self._ask_once((host, reference, image_id, diff_ids))
            if found is not None:
                return found, None
            away = away or problem
        if away is None and holders and not set(holders) & alive.keys():
            away = f"host {holders[0]}, which has {reference}, is away"
        if away is not None:
            return None, away  # what others have under that name is another image
        if not alive:
            return None, "no host is there: see that a registry-pusher runs"
        others = [host for host in alive if host not in holders]
        return await self._ask_all(others, reference, image_id, diff_ids)

    async def alive(self) -> dict[str, HostRecord]:
        """The hosts that are there. Raises BusError."""
        hosts = await self._bus.members(self._keys.all)
        beats = await self._bus.beats([self._streams.host_alive(host) for host in hosts]) if hosts else []
        records = {host: HostRecord.read(beat) for host, beat in zip(hosts, beats, strict=True)}
        return {host: record for host, record in records.items() if record is not None}

    async def tar_url(self, host: str) -> str | None:
        """The tar server of a host, as ranges reach it; None where the host does not say. Raises BusError."""
        if not host:
            return None
        stored = (await self._keys.record(host).load(self._bus)).value
        return stored.tar_url or None if stored is not None else None

    async def _ask_all(
        self, hosts: Sequence[str], reference: str, image_id: str | None, diff_ids: tuple[str, ...]
    ) -> Found:
        questions = [self._ask_once((host, reference, image_id, diff_ids)) for host in hosts]
        ended = await asyncio.gather(*questions, return_exceptions=True)  # none goes on where another one failed
        answers = [_raised(one) for one in ended]
        found = next((image for image, _ in answers if image is not None), None)
        away = next((problem for _, problem in answers if problem is not None), None)
        return found, None if found is not None else away

    async def _ask_once(self, question: _Question) -> Found:
        """Whoever asks what is being asked gets that answer: a deployment to a hundred ranges asks a few times."""
        asked = self._asked.get(question)
        if asked is None:
            asked = self._asked[question] = _Asked(asyncio.create_task(self._ask(*question)))
        asked.askers += 1
        try:
            return await asyncio.shield(asked.task)
        finally:
            asked.askers -= 1
            if not asked.askers:
                await self._end(question, asked)

    async def _end(self, question: _Question, asked: _Asked) -> None:
        """With its last asker a question ends, answered or not: no task outlives the deployer that asked."""
        if self._asked.get(question) is asked:
            del self._asked[question]
        asked.task.cancel()
        await asyncio.wait((asked.task,))
        if not asked.task.cancelled():
            asked.task.exception()  # retrieved, also where the last asker was cancelled

    async def _ask(self, host: str, reference: str, image_id: str | None, diff_ids: tuple[str, ...]) -> Found:
        look_id, loop = new_id(), asyncio.get_running_loop()
        message = HostLookRequested(look_id=look_id, reference=reference, image_id=image_id, diff_ids=diff_ids)
        asked = Envelope(message=message, source=self._source, subject=host, time=self._clock())
        await self._bus.publish(self._streams.host_inbox(host), asked)
        until, pause = loop.time() + self._answer_seconds, _PAUSE_SECONDS
        while loop.time() < until:
            await asyncio.sleep(pause)
            (value,) = await self._bus.beats([self._streams.host_look(host, look_id)])
            answer = LookAnswer.read(value)
            if answer is not None:
                return _read(answer, host)
            pause = min(1.5 * pause, _PAUSE_LIMIT_SECONDS)
        return None, f"host {host} did not answer within {self._answer_seconds:.0f} s"


def _raised(ended: Found | BaseException) -> Found:
    if isinstance(ended, BaseException):
        raise ended
    return ended


def _read(answer: LookAnswer, host: str) -> Found:
    held = answer.found
    if held is None:
        return None, f"host {host}: {answer.away}" if answer.away else None
    image = HostImage(
        image_id=held.image_id, diff_ids=held.diff_ids, size_bytes=held.size_bytes, platform=held.platform, host=host
    )
    return image, None
