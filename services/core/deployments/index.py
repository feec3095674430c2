"""Keys of deployments: names of records and indexes, and which index entries a transition changes.

    {prefix}:deployment:<id>             the record
    {prefix}:claim:<id>                  what the id was first asked for (`services.core.deployments.idempotency`)
    {prefix}:index:deployments           ids by the time they were asked for
    {prefix}:index:open                  ids of those that have not ended, by the time of their next timer
    {prefix}:index:range:<range_id>      the same, of one range
    {prefix}:index:push:<reference>      ids that wait for a push of that reference
    {prefix}:index:queue                 tickets of images that wait for a slot, by the time they began to
    {prefix}:index:active                tickets of images that hold a slot
    {prefix}:admission                   a record that every admission rewrites, so that no two count the same slots

Index entries are never written by hand: they follow from what a record says before and after a step, so none is left
behind.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from events.bus import IndexWrite
from events.records import Key
from services.core.deployments.admission import Ticket
from services.core.deployments.deployment import Deployment
from services.core.deployments.idempotency import Claim


@dataclass(frozen=True, slots=True)
class DeploymentKeys:
    """Names under a key prefix. `DeploymentKeys("cyroid").queue == "cyroid:index:queue"`."""

    prefix: str

    def record(self, deployment_id: str) -> Key[Deployment]:
        return Key(f"{self.prefix}:deployment:{deployment_id}", Deployment)

    def claim(self, deployment_id: str) -> Key[Claim]:
        return Key(f"{self.prefix}:claim:{deployment_id}", Claim)

    def range(self, range_id: str) -> str:
        return f"{self.prefix}:index:range:{range_id}"

    def push(self, reference: str) -> str:
        return f"{self.prefix}:index:push:{reference}"

    @property
    def all(self) -> str:
        return f"{self.prefix}:index:deployments"

    @property
    def open(self) -> str:
        return f"{self.prefix}:index:open"

    @property
    def queue(self) -> str:
        return f"{self.prefix}:index:queue"

    @property
    def active(self) -> str:
        return f"{self.prefix}:index:active"

    @property
    def admission(self) -> str:
        return f"{self.prefix}:admission"


def entries(
    keys: DeploymentKeys, deployment: Deployment, images: Iterable[int]
) -> Iterator[tuple[tuple[str, str], float]]:
    """(index, member) → score of what a deployment's record puts into indexes for itself and those of its images."""
    ident = deployment.deployment_id
    yield (keys.all, ident), deployment.requested_at.timestamp()
    if not deployment.open:
        return
    yield (keys.open, ident), (deployment.wake_at or deployment.requested_at).timestamp()
    yield (keys.range(deployment.range_id), ident), deployment.requested_at.timestamp()
    for index in images:
        image = deployment.images[index]
        if image.state == "pushing":
            yield (keys.push(image.reference), ident), image.since.timestamp()
        elif image.waits_for_slot or image.holds_slot:
            place = keys.queue if image.waits_for_slot else keys.active
            yield (place, str(ticket_of(deployment, index))), image.since.timestamp()


def ticket_of(deployment: Deployment, index: int) -> Ticket:
    """The ticket of one image, in the queue and among those that hold a slot."""
    size_bytes, where = deployment.images[index].size_bytes, (deployment.range_id, deployment.host)
    return Ticket(deployment.deployment_id, index, deployment.priority, size_bytes, *where)


def index_writes(
    keys: DeploymentKeys, before: Deployment | None, after: Deployment, *, afresh: bool = False
) -> tuple[IndexWrite, ...]:
    """The index entries to add and remove, so that the indexes match `after`; `afresh`: also those that should be
    there already.
    """
    if before is None or afresh or _moves_all(before, after):
        old = dict(entries(keys, before, range(len(before.images)))) if before is not None else {}
        new = dict(entries(keys, after, range(len(after.images))))
    else:
        pairs = enumerate(zip(before.images, after.images, strict=True))
        changed = [index for index, (old_image, new_image) in pairs if old_image is not new_image]
        old, new = dict(entries(keys, before, changed)), dict(entries(keys, after, changed))
    gone = [IndexWrite(key, member, None) for (key, member) in old if (key, member) not in new]
    put = [IndexWrite(*place, score) for place, score in new.items() if afresh or old.get(place) != score]
    return (*gone, *put)


def _moves_all(before: Deployment, after: Deployment) -> bool:
    """Whether something changed that is part of every image's entry."""
    return (before.open, before.priority, before.range_id, before.host, len(before.images)) != (
        after.open,
        after.priority,
        after.range_id,
        after.host,
        len(after.images),
    )
