"""Loading a bundle: its images go into the registry and are announced, so that the read model and deployments know."""

from __future__ import annotations

from events.bus import BusClient
from events.envelope import Envelope
from events.messages import CheckRequested, ImagePushed
from events.streams import Streams
from services.content.bundle import BundleReader, load_bundle
from services.ports import Registry


async def load_and_announce(
    reader: BundleReader, *, registry: Registry, bus: BusClient, streams: Streams, source: str
) -> list[ImagePushed]:
    """`image.pushed` for each image as soon as it is whole. Raises what `load_bundle` raises, and BusError."""

    async def damaged(digest: str) -> None:
        """The collector hashes it, and sets it aside."""
        asked = Envelope(message=CheckRequested(digests=(digest,)), source=source, subject="registry")
        await bus.publish(streams.images, asked)

    loaded: list[ImagePushed] = []
    async for pushed in load_bundle(registry, reader, damaged):
        await bus.publish(streams.images, Envelope(message=pushed, source=source, subject=pushed.reference))
        loaded.append(pushed)
    return loaded
