"""Deployments in memory: a row for each, from the deployer's records, and what is under way for each range."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime
from itertools import islice

import msgspec

from events.envelope import Envelope
from events.lease import Bus
from events.messages import DeploymentFailed, DeploymentRequested
from services.core.deployments.admission import Ticket, places
from services.core.deployments.deployment import Deployment
from services.core.deployments.index import DeploymentKeys
from services.queries.class_view import (
    DEPLOYMENTS_LIMIT,
    ClassDeployment,
    ClassView,
    arranged,
    as_a_whole,
    of_record,
)
from services.queries.read_model.listing import Listing
from services.queries.read_model.record_follower import RecordFollower
from services.queries.read_model.rows import NAMED, DeploymentRow, cut, cut_failure
from services.queries.read_model.table import Table

#: What was asked for within this time is looked for in the index of all: it may have ended before it was seen open.
RECENT_SECONDS = 120.0
#: Of so many different searches in the class the answer is kept.
_VIEWS_KEPT = 16


class Deployments:
    """The table of deployments."""

    def __init__(self, bus: Bus, prefix: str) -> None:
        self._bus = bus
        self._keys = DeploymentKeys(prefix)
        self._follower = RecordFollower(bus, self._keys.record)
        self.table = Table[DeploymentRow](
            {
                "requested": lambda row: row.requested_at.timestamp(),
                "range": lambda row: row.range_id,
                "state": lambda row: row.state,
                "priority": lambda row: row.priority,
            }
        )
        self.listing = Listing(
            table=self.table,
            text=lambda row: f"{row.deployment_id} {row.range_id} {' '.join(row.references)} {row.actor}",
            sorts={"requested": "desc", "range": "asc", "state": "asc", "priority": "desc"},
            state=lambda row: row.state,
        )
        self.images: dict[str, frozenset[str]] = {}
        self._open: dict[str, str] = {}
        self._open_of: dict[str, set[str]] = defaultdict(set)
        self._wants: dict[str, Mapping[str, str | None]] = {}
        self.places: Mapping[str, int] = {}
        self._places_of: Mapping[tuple[str, int], int] = {}
        self._class: dict[str, ClassDeployment] = {}
        self._class_version = 0
        self._views: dict[str, tuple[tuple[object, ...], ClassView]] = {}

    async def sync(self, now: datetime, *, full: bool) -> set[str]:
        """Take over what changed. Returns the ids of rows that did. Raises BusError."""
        low = float("-inf") if full else now.timestamp() - RECENT_SECONDS
        listed = await self._bus.members(self._keys.all, low=low)
        asked = {*listed, *await self._bus.members(self._keys.open), *self._open}
        if full:
            asked |= set(self._follower.known())
        changed = {
            ident for ident, deployment in (await self._follower.changes(asked)).items() if self._put(ident, deployment)
        }
        self._places_of = await self._places() if self._open else {}
        places: dict[str, int] = {}
        for (ident, _), place in sorted(self._places_of.items(), key=lambda one: one[1]):
            places.setdefault(ident, place)
        self.places = places
        return changed

    def _put(self, ident: str, deployment: Deployment | None) -> bool:
        if deployment is None:
            self._close(ident)
            self.images.pop(ident, None)
            self._show(ident, None)
            return self.table.remove(ident)
        self._show(ident, of_record(deployment))
        self.images[ident] = frozenset((*deployment.asked, *(image.reference for image in deployment.images)))
        if deployment.open:
            self._open[ident] = deployment.range_id
            self._open_of[deployment.range_id].add(ident)
            self._wants[ident] = {
                **dict.fromkeys(deployment.asked),
                **{image.reference: image.image_id for image in deployment.images},
            }
        else:
            self._close(ident)
        return self.table.put(ident, row_of(deployment))

    def _show(self, ident: str, deployment: ClassDeployment | None) -> None:
        if deployment is None:
            self._class.pop(ident, None)
        else:
            self._class[ident] = deployment
        self._class_version += 1

    def class_view(self, image: str, at: datetime) -> ClassView:
        """The class by the latest deployments; the same object until something changes, or `at`."""
        version = (self._class_version, self._places_of, at)
        known = self._views.get(image)
        if known is not None and known[0] == version:
            return known[1]
        latest = islice(self.table.walk("requested", descending=True), DEPLOYMENTS_LIMIT)
        view = arranged((self._in_queue(ident) for (_, ident), _ in latest), image, now=at)
        if len(self._views) >= _VIEWS_KEPT:
            self._views.clear()
        self._views[image] = version, view
        return view

    def _in_queue(self, ident: str) -> ClassDeployment:
        """A deployment with the places of its images in the queue."""
        deployment = self._class[ident]
        if all(one.queue_position is None for one in deployment.images):
            return deployment
        images = tuple(
            msgspec.structs.replace(one, queue_position=self._places_of.get((ident, index)))
            if one.queue_position is not None
            else one
            for index, one in enumerate(deployment.images)
        )
        return msgspec.structs.replace(deployment, images=images)

    def _close(self, ident: str) -> None:
        range_id = self._open.pop(ident, None)
        if range_id is not None:
            self._open_of[range_id].discard(ident)
        self._wants.pop(ident, None)

    def asked_for(self, message: DeploymentRequested, envelope: Envelope) -> bool:
        """Show a request that no deployer has made a record of yet. Whether it is one."""
        if message.deployment_id in self.table.rows:
            return False
        self.images[message.deployment_id] = frozenset(message.images)
        self._show(
            message.deployment_id,
            ClassDeployment(
                deployment_id=message.deployment_id,
                range_id=message.range_id,
                images=as_a_whole(message.images, "requested"),
            ),
        )
        row = DeploymentRow(
            deployment_id=message.deployment_id,
            range_id=message.range_id,
            state="requested",
            priority=message.priority,
            requested_at=envelope.time,
            images=len(message.images),
            references=message.images[:NAMED],
            actor=cut(envelope.actor),
        )
        return self.table.put(message.deployment_id, row)

    def given_up(self, message: DeploymentFailed) -> bool:
        """Show the end of a request that was given up before there was a record."""
        row = self.table.rows.get(message.deployment_id)
        if row is None or row.state != "requested":
            return False
        before = self._class[message.deployment_id]
        images = as_a_whole([one.reference for one in before.images], "failed")
        self._show(message.deployment_id, msgspec.structs.replace(before, images=images, error=message.error))
        failed = msgspec.structs.replace(row, state="failed", error=cut_failure(message.error))
        return self.table.put(message.deployment_id, failed)

    def under_way(self) -> dict[str, dict[str, str | None]]:
        """By range, the images of its open deployments: reference → image id, None while it is not known."""
        found: dict[str, dict[str, str | None]] = defaultdict(dict)
        for ident, range_id in self._open.items():
            found[range_id].update(self._wants[ident])
        return found

    def open_of(self, range_id: str) -> list[str]:
        """The ids of open deployments of one range."""
        return sorted(self._open_of.get(range_id, ()))

    async def _places(self) -> Mapping[tuple[str, int], int]:
        """(deployment, image) → its place in the host's queue, by the rules of admission."""
        queue = [Ticket.parse(text) for text in await self._bus.members(self._keys.queue)]
        if not queue:
            return {}
        active = [Ticket.parse(text) for text in await self._bus.members(self._keys.active)]
        return {(ticket.deployment_id, ticket.index): place for ticket, place in places(queue, active).items()}


def row_of(deployment: Deployment) -> DeploymentRow:
    """The summary of a deployment."""
    references = tuple(image.reference for image in deployment.images) or deployment.asked
    return DeploymentRow(
        deployment_id=deployment.deployment_id,
        range_id=deployment.range_id,
        state=deployment.state,
        priority=deployment.priority,
        requested_at=deployment.requested_at,
        ended_at=deployment.ended_at,
        images=len(references),
        ready=sum(image.state == "ready" for image in deployment.images),
        failed=sum(image.state == "failed" for image in deployment.images),
        references=references[:NAMED],
        error=cut_failure(deployment.error or next((one.error for one in deployment.images if one.error), None)),
        reason=cut(deployment.reason),
        actor=cut(deployment.actor),
    )
