"""Deployments from the deployer's own records: state, place in the queue, each image.

`requested` is a deployment that no deployer has taken yet: only then the stream is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import msgspec

from events.envelope import Envelope
from events.lease import Bus
from events.messages import Arrival, DeploymentFailed, DeploymentRequested, Failure, Provenance
from events.records import load_all, load_values
from events.streams import Streams
from services.core.deployments.admission import Ticket, places
from services.core.deployments.deployment import Deployment, ImageState
from services.core.deployments.index import DeploymentKeys
from services.errors import NotFound

Places = Mapping[tuple[str, int], int]


class DeploymentImageView(msgspec.Struct, frozen=True, kw_only=True):
    """One image of a deployment. `how` it came, once it is ready; `transfer_id` ties it to its progress.

    `queue_position` counts from 1 over all ranges of the host; `agent_away_since`: it waits for the range's agent.
    """

    reference: str
    state: str
    queue_position: int | None = None
    agent_away_since: datetime | None = None
    image_id: str | None = None
    size_bytes: int = 0
    transfer_id: str | None = None
    attempt: int = 1
    by_tar: bool = False
    how: Arrival | None = None
    received_bytes: int = 0
    layers_reused: int = 0
    layers_total: int = 0
    error: Failure | None = None
    provenance: Provenance | None = None
    """Its manifest in the registry, who had it pushed, and whether it is signed."""


class DeploymentView(msgspec.Struct, frozen=True, kw_only=True):
    """A deployment: asked for (`requested`), open, or ended. `seconds` since it was asked for, until it ended."""

    deployment_id: str
    range_id: str
    state: str
    queue_position: int | None = None
    priority: int
    requested_at: datetime
    ended_at: datetime | None = None
    seconds: float
    images: list[DeploymentImageView]
    error: Failure | None = None
    reason: str = ""
    actor: str = ""
    """Who asked for it, where that is known."""


async def latest_deployments(bus: Bus, streams: Streams, last: int) -> list[DeploymentView]:
    """The latest `last` deployments, newest first."""
    keys = DeploymentKeys(streams.prefix)
    idents = (await bus.members(keys.all))[::-1][:last]
    found = await load_values(bus, [keys.record(ident) for ident in idents])
    places = await _places(bus, keys)
    recorded = [_row(deployment, places) for deployment in found]
    return [*reversed(await _not_taken(bus, streams, keys)), *recorded][:last]


async def one_deployment(bus: Bus, streams: Streams, deployment_id: str) -> DeploymentView:
    """One deployment by id. Raises NotFound."""
    keys = DeploymentKeys(streams.prefix)
    deployment = (await keys.record(deployment_id).load(bus)).value
    if deployment is not None:
        return _row(deployment, await _places(bus, keys))
    claimed = (await keys.claim(deployment_id).load(bus)).value is not None
    after = "0" if claimed else await first_not_taken(bus, streams)
    said = await _said(bus, streams, after) if after is not None else {}
    if deployment_id not in said:
        raise NotFound(f"there is no deployment {deployment_id!r}", hint="cyroid-images deployments ls")
    return said[deployment_id]


async def _places(bus: Bus, keys: DeploymentKeys) -> Places:
    """(deployment, image) → its place in the host's queue, the next one first (1), by the rules of admission."""
    queue = [Ticket.parse(text) for text in await bus.members(keys.queue)]
    active = [Ticket.parse(text) for text in await bus.members(keys.active)]
    return {(ticket.deployment_id, ticket.index): place for ticket, place in places(queue, active).items()}


def _row(deployment: Deployment, found: Places) -> DeploymentView:
    images = [
        _image(image, found.get((deployment.deployment_id, index))) for index, image in enumerate(deployment.images)
    ]
    waiting = [image.queue_position for image in images if image.queue_position is not None]
    ended = deployment.ended_at or datetime.now(UTC)
    return DeploymentView(
        deployment_id=deployment.deployment_id,
        range_id=deployment.range_id,
        state=deployment.state,
        queue_position=min(waiting, default=None),
        priority=deployment.priority,
        requested_at=deployment.requested_at,
        ended_at=deployment.ended_at,
        seconds=max((ended - deployment.requested_at).total_seconds(), 0.0),
        images=images or [DeploymentImageView(reference=name, state=deployment.state) for name in deployment.asked],
        error=deployment.error,
        reason=deployment.reason,
        actor=deployment.actor,
    )


def _image(image: ImageState, place: int | None) -> DeploymentImageView:
    return DeploymentImageView(
        reference=image.reference,
        state=image.state,
        queue_position=place if image.waits_for_slot else None,
        agent_away_since=image.absent_since,
        image_id=image.image_id,
        size_bytes=image.size_bytes,
        transfer_id=image.transfer_id,
        attempt=image.attempt,
        by_tar=image.by_tar,
        how=image.outcome().how,
        received_bytes=image.received_bytes,
        layers_reused=image.layers_reused,
        layers_total=image.layers_total,
        error=image.error,
        provenance=image.provenance,
    )


async def _not_taken(bus: Bus, streams: Streams, keys: DeploymentKeys) -> Sequence[DeploymentView]:
    """Requests that no deployer has made a record of yet, read from where the deployer's group stands."""
    after = await first_not_taken(bus, streams)
    if after is None:
        return ()
    said = await _said(bus, streams, after)
    stored = await load_all(bus, [keys.record(ident) for ident in said])
    return [row for row, found in zip(said.values(), stored, strict=True) if found.value is None]


async def first_not_taken(bus: Bus, streams: Streams) -> str | None:
    """The entry id after which those begin that no deployer has finished; None if there are none."""
    statuses = await bus.groups([streams.deployments], 1)
    status = next((status for status in statuses if status.group == "deployer"), None)
    if status is None or status.lag != 0:
        return "0"
    return f"{int(status.entries[0].entry_id.partition('-')[0]) - 1}-0" if status.entries else None


async def _said(bus: Bus, streams: Streams, after: str = "0") -> dict[str, DeploymentView]:
    """Deployments according to the stream: requested, or given up before there was a record."""
    found: dict[str, DeploymentView] = {}
    async for entry in bus.tail((streams.deployments,), after=after, follow=False):
        envelope = entry.envelope
        message = envelope.message if envelope else None
        if envelope is not None and isinstance(message, DeploymentRequested):
            found.setdefault(message.deployment_id, _asked(message, envelope))
        elif isinstance(message, DeploymentFailed) and message.deployment_id in found:
            asked = found[message.deployment_id]
            found[message.deployment_id] = msgspec.structs.replace(asked, state="failed", error=message.error)
    return found


def _asked(message: DeploymentRequested, envelope: Envelope) -> DeploymentView:
    return DeploymentView(
        deployment_id=message.deployment_id,
        range_id=message.range_id,
        state="requested",
        priority=message.priority,
        requested_at=envelope.time,
        seconds=max((datetime.now(UTC) - envelope.time).total_seconds(), 0.0),
        actor=envelope.actor,
        images=[DeploymentImageView(reference=reference, state="requested") for reference in message.images],
    )
