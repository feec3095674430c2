"""Choice of the host that a command is for: the one that is named, or the one whose engine has the image.

The engine beside this process is asked first, then the records of what the hosts hold.
"""

from __future__ import annotations

from dataclasses import dataclass

from events.bus import BusClient
from events.streams import Streams
from services.core.hosts.held_images import HeldImages, HeldKeys
from services.core.hosts.hosts import HostKeys
from services.core.images.prompts import Prompt
from services.core.images.references import Reference
from services.errors import EngineUnavailable, NotFound
from services.ports import Engine


@dataclass(frozen=True, slots=True, kw_only=True)
class PushSource:
    """What a push brings: the content that is known to be under `reference`, and its host.

    image_id   None: whatever is under the name there
    host       None: any host that has the content
    """

    reference: str
    image_id: str | None
    host: str | None

    def answers(self, prompt: Prompt) -> bool:
        """Whether a push of this is the answer to a prompt."""
        is_there = self.host is None or prompt.host == self.host
        return is_there and self.image_id in (None, prompt.image_id)


async def push_source(
    reference: str, *, engine: Engine, bus: BusClient, streams: Streams, host: str | None = None
) -> PushSource:
    """Where a push takes an image from. Raises NotFound, EngineUnavailable, BadReference, BusError."""
    name = str(Reference.parse(reference))
    if host is not None:
        await check_host(bus, streams, host)
        return PushSource(reference=name, image_id=None, host=host)
    away: EngineUnavailable | None = None
    try:
        image = await engine.inspect(name)
    except EngineUnavailable as problem:
        image, away = None, problem
    if image is not None:
        return PushSource(reference=name, image_id=image.image_id, host=None)
    held = (await HeldKeys(streams.prefix).images(name).load(bus)).value
    holders = held.holders() if held is not None else []
    if held is None or not holders:
        if away is not None:
            raise away
        raise NotFound(
            f"the host's engine has no image {reference}, and no other host is known to hold one",
            hint="cyroid-images images ls",
        )
    return await _held(held, holders, bus, streams)


async def _held(held: HeldImages, holders: list[str], bus: BusClient, streams: Streams) -> PushSource:
    """The content that was announced last, on a host that has it and is there."""
    beats = await bus.beats([streams.host_alive(one) for one in holders])
    for host, beat in zip(holders, beats, strict=True):
        if beat is not None:
            image_id = held.hosts[host].image_id
            return PushSource(reference=held.reference, image_id=image_id, host=host)
    away = f"host {holders[0]} is" if len(holders) == 1 else f"hosts {', '.join(holders)} are"
    raise EngineUnavailable(f"{held.reference} can be pushed only from where it is, and {away} away")


async def check_host(bus: BusClient, streams: Streams, host: str) -> None:
    """Raises NotFound for a host that never reported, EngineUnavailable for one that is away, BusError."""
    beat = (await bus.beats([streams.host_alive(host)]))[0]
    if beat is not None:
        return
    if host not in await bus.members(HostKeys(streams.prefix).all):
        raise NotFound(f"there is no host {host}", hint="cyroid-images hosts ls")
    raise EngineUnavailable(f"host {host} is away: its registry-pusher sends no heartbeat")
