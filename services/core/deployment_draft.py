"""One step of a deployment while it is made: moves of its images, what follows from them, and the sum at the end."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from msgspec.structs import replace

from events.messages import (
    DeploymentCancelled,
    DeploymentEnded,
    DeploymentFailed,
    DeploymentSucceeded,
    Failure,
    PullRequested,
    TransferCancelled,
)
from services.core.deployment import Deployment, ImageState, Policy, State
from services.core.deployment_table import Cause, check_move


@dataclass(frozen=True, slots=True)
class AskPush:
    """The registry should have this content."""

    reference: str
    image_id: str | None


@dataclass(frozen=True, slots=True)
class Tell:
    """A command for the agent of the deployment's range."""

    message: PullRequested | TransferCancelled


@dataclass(frozen=True, slots=True)
class OfferArchive:
    """The agent asked for a tar: `present` are the diff IDs its engine has."""

    index: int
    transfer_id: str
    present: tuple[str, ...]
    layout: Literal["docker", "oci"]
    thin: bool


@dataclass(frozen=True, slots=True)
class Say:
    """The deployment's end, for everybody."""

    message: DeploymentEnded


@dataclass(frozen=True, slots=True)
class Wake:
    """Look at this deployment again then."""

    at: datetime


@dataclass(frozen=True, slots=True)
class Note:
    """Something a person should see while it happens."""

    text: str


Effect = AskPush | Tell | OfferArchive | Say | Wake | Note


@dataclass(frozen=True, slots=True)
class Step:
    """What a deployment became, and what is to be said because of it."""

    deployment: Deployment
    effects: tuple[Effect, ...] = ()

    def then(self, after: Step) -> Step:
        """Two steps committed as one; only the last timer is set."""
        first: Iterable[Effect] = self.effects
        if any(isinstance(effect, Wake) for effect in after.effects):
            first = (effect for effect in first if not isinstance(effect, Wake))
        return Step(after.deployment, (*first, *after.effects))


#: What a new attempt knows nothing of.
_FRESH: dict[str, Any] = {
    "offers": 0,
    "returns": 0,
    "transfer_id": None,
    "absent_since": None,
    "begun_at": None,
    "heard_at": None,
    "advanced_at": None,
    "ended_at": None,
}


class Draft:
    """A deployment being advanced at `now`. `done` sums it up, sets its timer and says its end."""

    def __init__(self, deployment: Deployment, now: datetime, policy: Policy) -> None:
        self.deployment = deployment
        self.now = now
        self.policy = policy
        self.images = list(deployment.images)
        self.effects: list[Effect] = []

    def move(self, index: int, cause: Cause, after: State, **changes: Any) -> None:
        """Change the state of an image as the table allows. Without `deadline` among the changes it has none."""
        image = self.images[index]
        check_move(image.state, cause, after)
        changes.setdefault("deadline", None)
        changes.setdefault("since", self.now)
        self.images[index] = replace(image, state=after, **changes)

    def change(self, index: int, **changes: Any) -> None:
        """Change something about an image that is not its state."""
        self.images[index] = replace(self.images[index], **changes)

    def end(self, index: int, cause: Cause, after: State, *, error: Failure | None = None, **changes: Any) -> None:
        """Move to one of the ended states."""
        self.move(index, cause, after, error=error, ended_at=self.now, absent_since=None, **changes)

    def fail(self, index: int, cause: Cause, code: str, message: str, *, retryable: bool = False) -> None:
        self.end(index, cause, "failed", error=Failure(code=code, message=message, retryable=retryable))

    def in_seconds(self, seconds: float) -> datetime:
        return self.now + timedelta(seconds=seconds)

    def next_check(self) -> datetime:
        return self.in_seconds(self.policy.check_seconds)

    def say(self, effect: Effect) -> None:
        self.effects.append(effect)

    def note(self, text: str) -> None:
        """Something a person should see, once in this step."""
        if Note(text) not in self.effects:
            self.say(Note(text))

    def transfer_id(self, index: int) -> str:
        return f"{self.deployment.deployment_id}.{index}.{self.images[index].attempt}"

    def stop_transfer(self, index: int, reason: str) -> None:
        """Stop the engine's work for an image, if there is any."""
        image = self.images[index]
        if image.transfer_id is not None:
            self.say(Tell(TransferCancelled(transfer_id=image.transfer_id, reason=reason)))

    def again(self, index: int, cause: Cause, *, at: datetime | None = None, **changes: Any) -> None:
        """Start an image over with a new transfer, at once or `at` a moment."""
        image = self.images[index]
        changes = {**_FRESH, "attempt": image.attempt + 1, **changes}
        self.move(index, cause, "resolving", deadline=at or self.now, **changes)

    def done(self, **changes: Any) -> Step:
        """The step: the sum over the images, the end if this was it, and a timer for the earliest deadline."""
        deployment = replace(self.deployment, images=tuple(self.images), **changes)
        if deployment.open and all(image.ended for image in self.images):
            deployment = replace(deployment, state=_sum(self.images), ended_at=self.now, wake_at=None)
            self.say(Say(ended_message(deployment)))
        return Step(self._timed(deployment), tuple(self.effects))

    def _timed(self, deployment: Deployment) -> Deployment:
        deadlines = [image.deadline for image in self.images if image.deadline is not None]
        if not deployment.open or not deadlines:
            return deployment
        earliest, current = min(deadlines), deployment.wake_at
        if current is not None and self.now < current <= earliest:
            return deployment
        self.say(Wake(earliest))
        return replace(deployment, wake_at=earliest)


def _sum(images: list[ImageState]) -> Literal["succeeded", "failed", "cancelled"]:
    states = {image.state for image in images}
    if "cancelled" in states:
        return "cancelled"
    return "failed" if "failed" in states or not states else "succeeded"


def ended_message(deployment: Deployment) -> DeploymentEnded:
    """What everybody is told of an ended deployment; the same whenever it is asked for again."""
    images = tuple(image.outcome() for image in deployment.images)
    begun, ended = deployment.requested_at, deployment.ended_at or deployment.requested_at
    deployment_id, range_id, seconds = deployment.deployment_id, deployment.range_id, (ended - begun).total_seconds()
    if deployment.state == "succeeded":
        return DeploymentSucceeded(deployment_id=deployment_id, range_id=range_id, images=images, seconds=seconds)
    if deployment.state == "cancelled":
        return DeploymentCancelled(
            deployment_id=deployment_id, range_id=range_id, images=images, seconds=seconds, reason=deployment.reason
        )
    return DeploymentFailed(
        deployment_id=deployment_id, range_id=range_id, images=images, seconds=seconds, error=deployment.error
    )
