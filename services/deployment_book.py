"""Deployments as people see them, from the deployer's own records: state, place in the queue, each image.

`requested` is what was asked for and not taken by a deployer yet: only then the stream is read.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from events.bus import Record
from events.lease import Bus
from events.messages import DeploymentFailed, DeploymentRequested, Failure
from events.streams import Streams
from services.core.admission import Ticket, choose
from services.core.deployment import Deployment, ImageState
from services.core.deployment_index import DeploymentKeys
from services.errors import NotFound

Row = dict[str, Any]
Places = Mapping[tuple[str, int], int]


async def latest_deployments(bus: Bus, streams: Streams, last: int) -> list[Row]:
    """The latest `last` deployments, newest first."""
    keys = DeploymentKeys(streams.prefix)
    idents = (await bus.members(keys.all))[::-1][:last]
    records = await bus.load_many([keys.record(ident) for ident in idents]) if idents else []
    places = await _places(bus, keys)
    recorded = [_row(_read(record), places) for record in records if record is not None]
    return [*reversed(await _not_taken(bus, streams, keys)), *recorded][:last]


async def one_deployment(bus: Bus, streams: Streams, deployment_id: str) -> Row:
    """One of them. Raises NotFound."""
    keys = DeploymentKeys(streams.prefix)
    record = await bus.load(keys.record(deployment_id))
    if record is not None:
        return _row(_read(record), await _places(bus, keys))
    said = await _said(bus, streams)
    if deployment_id not in said:
        raise NotFound(
            f"there is no deployment {deployment_id!r}; `cyroid-images deployments ls` lists those there are"
        )
    return said[deployment_id]


def _read(record: Record) -> Deployment:
    return msgspec.json.decode(record.value, type=Deployment)


async def _places(bus: Bus, keys: DeploymentKeys) -> Places:
    """(deployment, image) → its place in the host's queue, the next one first (1), by the rules of admission."""
    queue = [Ticket.parse(text) for text in await bus.members(keys.queue)]
    active = [Ticket.parse(text) for text in await bus.members(keys.active)]
    everybody = len(queue) + len(active)
    turns = choose(queue, active, slots=everybody, large_bytes=sys.maxsize, per_range=everybody)
    return {(ticket.deployment_id, ticket.index): place for place, ticket in enumerate(turns, 1)}


def _row(deployment: Deployment, places: Places) -> Row:
    images = [
        _image(image, places.get((deployment.deployment_id, index))) for index, image in enumerate(deployment.images)
    ]
    waiting = [image["queue_position"] for image in images if image["queue_position"] is not None]
    ended = deployment.ended_at or datetime.now(UTC)
    return {
        "deployment_id": deployment.deployment_id,
        "range_id": deployment.range_id,
        "state": deployment.state,
        "queue_position": min(waiting, default=None),
        "priority": deployment.priority,
        "requested_at": deployment.requested_at,
        "ended_at": deployment.ended_at,
        "seconds": max((ended - deployment.requested_at).total_seconds(), 0.0),
        "images": images or [{"reference": name, "state": deployment.state} for name in deployment.asked],
        "error": deployment.error,
        "reason": deployment.reason,
    }


def _image(image: ImageState, place: int | None) -> Row:
    """One image; `how` once it is ready, `transfer_id` ties it to its progress."""
    outcome = image.outcome()
    return {
        "reference": image.reference,
        "state": image.state,
        "queue_position": place if image.waits_for_slot else None,
        "agent_away_since": image.absent_since,
        "image_id": image.image_id,
        "size_bytes": image.size_bytes,
        "transfer_id": image.transfer_id,
        "attempt": image.attempt,
        "by_tar": image.by_tar,
        "how": outcome.how,
        "received_bytes": image.received_bytes,
        "layers_reused": image.layers_reused,
        "layers_total": image.layers_total,
        "error": image.error,
    }


async def _not_taken(bus: Bus, streams: Streams, keys: DeploymentKeys) -> Sequence[Row]:
    """What no deployer has made a record of yet; read from where the deployer stands, mostly nothing."""
    after = await first_not_taken(bus, streams)
    if after is None:
        return ()
    said = await _said(bus, streams, after)
    records = await bus.load_many([keys.record(ident) for ident in said]) if said else []
    return [row for row, record in zip(said.values(), records, strict=True) if record is None]


async def first_not_taken(bus: Bus, streams: Streams) -> str | None:
    """After which entry of their stream those begin that no deployer has finished; None if there are none."""
    statuses = await bus.groups([streams.deployments], 1)
    status = next((status for status in statuses if status.group == "deployer"), None)
    if status is None or status.lag != 0:
        return "0"
    return f"{int(status.entries[0].entry_id.partition('-')[0]) - 1}-0" if status.entries else None


async def _said(bus: Bus, streams: Streams, after: str = "0") -> dict[str, Row]:
    """Deployments as the stream tells them: asked for, or given up before there was a record."""
    found: dict[str, Row] = {}
    async for entry in bus.tail((streams.deployments,), after=after, follow=False):
        envelope = entry.envelope
        message = envelope.message if envelope else None
        if envelope is not None and isinstance(message, DeploymentRequested):
            found.setdefault(message.deployment_id, _asked(message, envelope.time))
        elif isinstance(message, DeploymentFailed) and message.deployment_id in found:
            found[message.deployment_id] |= _given_up(message.error)
    return found


def _asked(message: DeploymentRequested, at: datetime) -> Row:
    return {
        "deployment_id": message.deployment_id,
        "range_id": message.range_id,
        "state": "requested",
        "queue_position": None,
        "priority": message.priority,
        "requested_at": at,
        "ended_at": None,
        "seconds": max((datetime.now(UTC) - at).total_seconds(), 0.0),
        "images": [{"reference": reference, "state": "requested"} for reference in message.images],
        "error": None,
        "reason": "",
    }


def _given_up(error: Failure | None) -> Row:
    return {"state": "failed", "error": error}
