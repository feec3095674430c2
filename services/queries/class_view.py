"""A class at a glance: how far each image is in each range, by the latest deployments."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import msgspec

from events.lease import Bus
from events.messages import Arrival, Failure
from events.streams import Streams
from services.core.deployments.deployment import Deployment
from services.queries.deployments import DeploymentView, latest_deployments

#: So many of the latest deployments are looked at; what is older is no class of today.
DEPLOYMENTS_LIMIT = 1000
#: So many ranges are shown; all of them are counted.
RANGES_LIMIT = 500


class ClassImage(msgspec.Struct, frozen=True, kw_only=True):
    """One image of one range, as in its latest deployment there. `transfer_id` ties it to its progress."""

    reference: str
    state: str
    transfer_id: str | None = None
    how: Arrival | None = None
    by_tar: bool = False
    queue_position: int | None = None
    agent_away_since: datetime | None = None
    error: Failure | None = None


class ClassRange(msgspec.Struct, frozen=True, kw_only=True):
    """A range with its images; `deployment_id` is the latest deployment's. `state`: ready, failed or open."""

    range_id: str
    deployment_id: str
    state: str
    images: list[ClassImage]


class ClassDeployment(msgspec.Struct, frozen=True, kw_only=True):
    """What the class needs of a deployment. A `queue_position` of 0 waits, and its place is not filled in yet."""

    deployment_id: str
    range_id: str
    images: tuple[ClassImage, ...]
    error: Failure | None = None


class ClassView(msgspec.Struct, frozen=True, kw_only=True):
    """`total` ranges, of which `ready` have all their images. `left_off`: ranges that are counted and not shown."""

    as_of: datetime
    total: int
    ready: int
    failed: int
    left_off: int
    ranges: list[ClassRange]


async def class_view(bus: Bus, streams: Streams, image: str = "") -> ClassView:
    """The class now; with `image` only what has that text in its reference."""
    return arranged(await latest_deployments(bus, streams, DEPLOYMENTS_LIMIT), image, now=datetime.now(UTC))


def arranged(latest: Iterable[DeploymentView | ClassDeployment], image: str, *, now: datetime) -> ClassView:
    """The view of deployments, of which the newest comes first."""
    cells: dict[str, dict[str, ClassImage]] = {}
    newest: dict[str, str] = {}
    for deployment in latest:
        for one in deployment.images:
            if image not in one.reference or one.state == "cancelled":
                continue
            newest.setdefault(deployment.range_id, deployment.deployment_id)
            cells.setdefault(deployment.range_id, {}).setdefault(
                one.reference,
                ClassImage(
                    reference=one.reference,
                    state=one.state,
                    transfer_id=one.transfer_id,
                    how=one.how,
                    by_tar=one.by_tar,
                    queue_position=one.queue_position,
                    agent_away_since=one.agent_away_since,
                    error=one.error or (deployment.error if one.state == "failed" else None),
                ),
            )
    ranges = [
        ClassRange(
            range_id=range_id,
            deployment_id=newest[range_id],
            state=_state([one.state for one in images.values()]),
            images=[images[name] for name in sorted(images)],
        )
        for range_id, images in cells.items()
    ]
    states = [one.state for one in ranges]
    ranges.sort(key=lambda one: (_ORDER.index(one.state), _natural(one.range_id)))
    return ClassView(
        as_of=now,
        total=len(ranges),
        ready=states.count("ready"),
        failed=states.count("failed"),
        left_off=max(0, len(ranges) - RANGES_LIMIT),
        ranges=ranges[:RANGES_LIMIT],
    )


def of_record(deployment: Deployment) -> ClassDeployment:
    """What the class needs of a deployment's record."""
    images = tuple(
        ClassImage(
            reference=one.reference,
            state=one.state,
            transfer_id=one.transfer_id,
            how=one.outcome().how,
            by_tar=one.by_tar,
            queue_position=0 if one.waits_for_slot else None,
            agent_away_since=one.absent_since,
            error=one.error,
        )
        for one in deployment.images
    )
    return ClassDeployment(
        deployment_id=deployment.deployment_id,
        range_id=deployment.range_id,
        images=images or as_a_whole(deployment.asked, deployment.state),
        error=deployment.error,
    )


def as_a_whole(references: Sequence[str], state: str) -> tuple[ClassImage, ...]:
    """The images of a deployment of which nothing more is known."""
    return tuple(ClassImage(reference=name, state=state) for name in references)


#: What needs somebody comes first.
_ORDER = ("failed", "open", "ready")


def _state(states: list[str]) -> str:
    if "failed" in states:
        return "failed"
    return "ready" if all(state == "ready" for state in states) else "open"


def _natural(range_id: str) -> tuple[str, int, str]:
    """`range-9` before `range-10`."""
    stem = range_id.rstrip("0123456789")
    digits = range_id[len(stem) :][:18]
    return stem, int(digits) if digits.isascii() and digits else -1, range_id
