"""Deployment record: one per deployment, readable with `redis-cli`, and the policy that the state machine is given.

`services.core.deployments.transitions` holds the moves, `state_table` beside it the table of the allowed ones.

Every image that has not ended has a `deadline`: the moment at which it is looked at again even if nobody says a word.
`wake_at` is the earliest moment for which a timer is on its way. So a timer carries no state, and one that comes
late, twice or never does no harm: the reconciler posts another for each deployment whose `wake_at` has passed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

import msgspec

from events.messages import Arrival, Failure, ImageOutcome, Provenance

State = Literal[
    "resolving", "pushing", "queued", "mounting", "pulling", "falling_back", "loading", "ready", "failed", "cancelled"
]
#: States in which the range's engine works for us: they hold one of the host's slots.
ACTIVE: frozenset[State] = frozenset({"mounting", "pulling", "falling_back", "loading"})
ENDED: frozenset[State] = frozenset({"ready", "failed", "cancelled"})
#: Room in an id of 128 characters for `.<image>.<attempt>` (see `transfer_id`).
DEPLOYMENT_ID_LIMIT = 112


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Limits and patience of the deployer. The defaults are those of the settings.

    check_seconds           how often a running transfer is looked at
    missed_seconds          when a push that was asked for is first looked at: it may have ended before this deployment
                            was known to wait for it, and then nobody wakes it
    push_patience_seconds   without progress of a push, images go by tar
    silence_seconds         without a sign of life of a transfer it counts as stalled
    standing_bytes_per_second, attempt_seconds, attempt_bytes_per_second
                            see `standing_seconds` and `attempt_limit_seconds`
    agent_grace_seconds     how long a range may be without an agent; what it works at keeps its slots meanwhile
    returns                 how often the agent may come back during one transfer
    resolve_seconds         how long host engine and registry may both be unavailable before an image fails
    attempts                tries over one path (pull, or tar) before the other, or the end
    offers                  archives offered in one attempt: an agent that was cut off asks again
    recreations             new engines of a range during one deployment
    pulls_per_host          transfers at work at the same time, on each host
    pulls_per_range         of these, in one range
    large_bytes             an image from this size on leaves one slot to smaller ones
    images                  in one deployment at most
    mount_seconds           how long the host may say nothing while it mounts an image's layers, before they are pulled
    keep_seconds            how long an ended deployment is remembered
    signatures              only images are deployed that are signed by a key of the operator
    """

    check_seconds: float = 10.0
    missed_seconds: float = 1.0
    push_patience_seconds: float = 60.0
    silence_seconds: float = 120.0
    standing_bytes_per_second: int = 4 * 1024**2
    attempt_seconds: float = 3600.0
    attempt_bytes_per_second: int = 1024**2
    agent_grace_seconds: float = 60.0
    returns: int = 10
    resolve_seconds: float = 120.0
    attempts: int = 3
    offers: int = 5
    recreations: int = 10
    backoff_seconds: float = 1.0
    backoff_limit_seconds: float = 30.0
    pulls_per_host: int = 4
    pulls_per_range: int = 3
    large_bytes: int = 2 * 1024**3
    images: int = 500
    offer_seconds: float = 3600.0
    mount_seconds: float = 30.0
    keep_seconds: float = 30 * 86400.0
    signatures: bool = False

    def backoff(self, failures: int) -> timedelta:
        """Doubles with every failure, up to the limit."""
        return timedelta(seconds=min(self.backoff_seconds * 2 ** max(failures - 1, 0), self.backoff_limit_seconds))

    def standing_seconds(self, size_bytes: int) -> float:
        """How long a transfer may speak without getting further: while it unpacks, an engine says nothing new."""
        return self.silence_seconds + size_bytes / self.standing_bytes_per_second

    def attempt_limit_seconds(self, size_bytes: int) -> float:
        """How long one transfer may take in all: this ends one whose range tells of one byte more for ever."""
        return self.attempt_seconds + size_bytes / self.attempt_bytes_per_second


class ImageState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One image of a deployment. Times are aware.

    host                whose engine has the content, as far as it is known
    image_id, diff_ids  the wanted content, once resolved; `pinned` if it was given and not resolved
    source              `host:port/repository@sha256:…` if the registry has it
    by_tar              the archive's path is taken; `pull_failed`: because pulling was tried often enough
    attempt             number of the transfer, part of its id
    first_attempt       word of attempts before this one is about an engine that is no more
    recreations         how often the range got a new engine under it
    failures            of this path so far
    offered             layers that the range had when the first archive without them was offered in this attempt
    offered_raw         those of them that the range's engine has raw, whatever the registry has
    returns             how often the agent came back during this transfer
    absent_since        the range's agent was found missing then
    begun_at            this transfer was given to the agent then
    heard_at            last sign of life of the transfer
    advanced_at         last sign that it got further
    platform            of the wanted content, as far as it is known
    queued_behind       how many images were before it in the queue when it was put there
    mounted             the agent was told that the host shows its range all layers
    not_mounted         why the layers could not be mounted, or the engine did not take them so: they are pulled
    not_pulled          why the agent asked for an archive in place of a pull
    arrived_at          the range's engine had it then, by the range's clock: arrivals of one range are in that order
    """

    reference: str
    state: State
    since: datetime
    host: str = ""
    deadline: datetime | None = None
    image_id: str | None = None
    diff_ids: tuple[str, ...] = ()
    size_bytes: int = 0
    pinned: bool = False
    source: str | None = None
    by_tar: bool = False
    pull_failed: bool = False
    push_failed: bool = False
    attempt: int = 1
    first_attempt: int = 1
    recreations: int = 0
    failures: int = 0
    offers: int = 0
    offered: tuple[str, ...] = ()
    offered_raw: tuple[str, ...] = ()
    returns: int = 0
    absent_since: datetime | None = None
    begun_at: datetime | None = None
    heard_at: datetime | None = None
    advanced_at: datetime | None = None
    platform: str = ""
    queued_behind: int = 0
    transfer_id: str | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    how: Arrival | None = None
    arrived_at: datetime | None = None
    received_bytes: int = 0
    layers_reused: int = 0
    layers_total: int = 0
    error: Failure | None = None
    mounted: bool = False
    not_mounted: Failure | None = None
    not_pulled: Failure | None = None
    provenance: Provenance | None = None

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    @property
    def holds_slot(self) -> bool:
        """Whether the range's engine is at work for it. It goes on while its agent is unavailable, and after that: were
        the slot given to others meanwhile, more would be at work than there are slots."""
        return self.state in ACTIVE

    @property
    def waits_for_slot(self) -> bool:
        return self.state == "queued" and self.absent_since is None

    def is_due(self, now: datetime) -> bool:
        return self.deadline is not None and self.deadline <= now

    def outcome(self) -> ImageOutcome:
        """The image's result as the deployment's last message has it."""
        begun, ended = self.started_at or self.since, self.ended_at or self.since
        return ImageOutcome(
            reference=self.reference,
            image_id=self.image_id,
            how=self.how if self.state == "ready" else None,
            ready_at=self.arrived_at if self.state == "ready" else None,
            sent_bytes=self.received_bytes,
            layers_reused=self.layers_reused,
            layers_total=self.layers_total,
            seconds=max((ended - begun).total_seconds(), 0.0),
            error=self.error if self.state == "failed" else None,
            not_mounted=self.not_mounted,
            not_pulled=self.not_pulled if self.how == "loaded" else None,
            provenance=self.provenance,
        )


class Deployment(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One deployment. `asked` are the references as they were asked for, to know the same request again.

    asked_digest    of all references asked for, where they are too many to keep
    actor           who asked for it, where that is known
    host            where the range is; for one with `engine_url` whose agent pool drives it. Empty: not known
    traceparent     W3C trace context of the request, so that timers and pushes for others stay in its trace
    """

    deployment_id: str
    range_id: str
    state: Literal["running", "succeeded", "failed", "cancelled"]
    asked: tuple[str, ...]
    images: tuple[ImageState, ...]
    requested_at: datetime
    correlation_id: str
    priority: int = 5
    platform: str | None = None
    engine_url: str | None = None
    engine_id: str | None = None
    round: int = 1
    wake_at: datetime | None = None
    ended_at: datetime | None = None
    error: Failure | None = None
    reason: str = ""
    asked_digest: str | None = None
    actor: str = ""
    host: str = ""
    traceparent: str = ""

    @property
    def open(self) -> bool:
        return self.state == "running"

    def trace_after(self, cause: str | None) -> str | None:
        """The trace context of what follows from `cause` for this deployment: of its own trace, whoever caused it."""
        if not self.traceparent:
            return cause
        own = self.traceparent.split("-")[1:2]
        return cause if cause is not None and cause.split("-")[1:2] == own else self.traceparent

    def transfer_id(self, index: int) -> str:
        """The id of the current transfer of one image; `parse_transfer_id` reads it back."""
        return f"{self.deployment_id}.{index}.{self.images[index].attempt}"


def parse_transfer_id(transfer_id: str) -> tuple[str, int, int] | None:
    """Deployment id, number of the image, number of the attempt; None if the deployer did not make it."""
    deployment_id, _, rest = transfer_id.rpartition(".")
    deployment_id, _, index = deployment_id.rpartition(".")
    if not deployment_id or not (index.isascii() and index.isdigit() and rest.isascii() and rest.isdigit()):
        return None
    return deployment_id, int(index), int(rest)
