"""Routing of pushes among hosts: an image is pushed by the registry-pusher of a host whose engine has it.

All registry-pushers are one group on the images stream, so whichever is free takes a message. What is for another host
it hands on to that host's inbox, in one step with the acknowledgement, under the same id. A message that names no host
goes to one that holds the content, as far as that is recorded, and else from one host to the next until one has it.
"""

from __future__ import annotations

from dataclasses import replace

import msgspec

from events.bus import BusClient, Outcome, Post
from events.envelope import Envelope
from events.messages import PushRequested
from events.streams import Streams
from services.core.hosts.held_images import HeldKeys, route
from services.core.hosts.hosts import HostKeys
from services.core.images.references import Reference
from services.runtime.host_identity import HostIdentity
from services.runtime.telemetry import get_logger


class HostRouting:
    """The routing of one host's registry-pusher."""

    def __init__(self, *, bus: BusClient, streams: Streams, identity: HostIdentity) -> None:
        self._bus = bus
        self._streams = streams
        self._identity = identity
        self._keys, self._held = HostKeys(streams.prefix), HeldKeys(streams.prefix)
        self._log = get_logger(role="registry-pusher")

    @property
    def inbox(self) -> tuple[str, ...]:
        """This host's inbox; none while nobody knows the host's id."""
        known = self._identity.known
        return () if known is None else (self._streams.host_inbox(known),)

    async def mine(self) -> str:
        """This host's id. Raises EngineUnavailable."""
        return await self._identity.get()

    async def elsewhere(self, stream: str, request: PushRequested) -> str | None:
        """The other host that is to carry out a request from `stream`; None: this one. Raises EngineUnavailable."""
        mine = await self.mine()
        if stream == self._streams.host_inbox(mine):
            return None
        if request.host is not None:
            return request.host if request.host != mine else None
        chosen = await self._chosen(request, mine)
        return None if chosen == mine else chosen

    async def next_host(self, request: PushRequested) -> tuple[str, PushRequested] | None:
        """The next host to ask for what this one does not have, and the request as it goes there; None: all were."""
        mine = await self.mine()
        further = msgspec.structs.replace(request, asked=(*request.asked, mine))
        chosen = await self._chosen(further, mine)
        return None if chosen is None else (chosen, further)

    async def is_alone(self) -> bool:
        """Whether the installation has no other host."""
        return set(await self._bus.members(self._keys.all)) <= {await self.mine()}

    def handed_on(self, envelope: Envelope, request: PushRequested, host: str) -> Outcome:
        """The request in that host's inbox, under the id of the message that it comes from: who waits knows it."""
        self._log.info("handed on", image=request.reference, host=host, correlation_id=envelope.correlation_id)
        return Outcome(posts=(Post(self._streams.host_inbox(host), replace(envelope, message=request)),))

    async def _chosen(self, request: PushRequested, mine: str) -> str | None:
        held = (await self._held.images(str(Reference.parse(request.reference))).load(self._bus)).value
        alive = await self._alive()
        return route(held, mine=mine, alive=alive, image_id=request.image_id, asked=request.asked)

    async def _alive(self) -> list[str]:
        hosts = await self._bus.members(self._keys.all)
        beats = await self._bus.beats([self._streams.host_alive(host) for host in hosts]) if hosts else []
        return [host for host, beat in zip(hosts, beats, strict=True) if beat is not None]
