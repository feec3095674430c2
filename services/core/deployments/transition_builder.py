"""Builder of one transition of a deployment: moves of its images, their effects, and the deployment's outcome."""

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
    MountRequested,
    PullRequested,
    TransferCancelled,
    UnmountRequested,
)
from services.core.deployments.deployment import Deployment, ImageState, Policy, State
from services.core.deployments.state_table import Cause, check_move


@dataclass(frozen=True, slots=True)
class PushEffect:
    """Effect: request a push of this content, from the host that has it (empty: it is not known which)."""

    reference: str
    image_id: str | None
    host: str = ""


@dataclass(frozen=True, slots=True)
class CommandEffect:
    """Effect: a command for the agent of the deployment's range."""

    message: PullRequested | TransferCancelled


@dataclass(frozen=True, slots=True)
class MountEffect:
    """Effect: a command for the host's layer-mounter."""

    message: MountRequested | UnmountRequested


@dataclass(frozen=True, slots=True)
class OfferEffect:
    """Effect: offer an archive; `present` are the diff IDs that the range's engine has, `raw` those it has raw."""

    index: int
    transfer_id: str
    present: tuple[str, ...]
    layout: Literal["docker", "oci"]
    thin: bool
    raw: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PublishEffect:
    """Effect: publish the deployment's end."""

    message: DeploymentEnded


@dataclass(frozen=True, slots=True)
class TimerEffect:
    """Effect: evaluate this deployment again at that time."""

    at: datetime


@dataclass(frozen=True, slots=True)
class LogEffect:
    """Effect: a remark for people, while the deployment runs."""

    text: str


Effect = PushEffect | CommandEffect | MountEffect | OfferEffect | PublishEffect | TimerEffect | LogEffect


@dataclass(frozen=True, slots=True)
class Transition:
    """The deployment after a transition, and its effects."""

    deployment: Deployment
    effects: tuple[Effect, ...] = ()

    def then(self, after: Transition) -> Transition:
        """Two transitions committed as one; only the last timer is set."""
        first: Iterable[Effect] = self.effects
        if any(isinstance(effect, TimerEffect) for effect in after.effects):
            first = (effect for effect in first if not isinstance(effect, TimerEffect))
        return Transition(after.deployment, (*first, *after.effects))


#: What a new attempt knows nothing of. Any: these are arguments of different types for `replace`.
_FRESH: dict[str, Any] = {
    "offers": 0,
    "offered": (),
    "offered_raw": (),
    "returns": 0,
    "transfer_id": None,
    "absent_since": None,
    "begun_at": None,
    "heard_at": None,
    "advanced_at": None,
    "ended_at": None,
    "mounted": False,
}


class TransitionBuilder:
    """Builds a transition of a deployment at `now`. `done` returns it, with its timer and its end."""

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
        """Change fields of an image without changing its state."""
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
        """Add a remark for people, once in this transition."""
        if LogEffect(text) not in self.effects:
            self.say(LogEffect(text))

    def transfer_id(self, index: int) -> str:
        return f"{self.deployment.deployment_id}.{index}.{self.images[index].attempt}"

    def stop_transfer(self, index: int, reason: str) -> None:
        """Stop the engine's work for an image, if there is any."""
        image = self.images[index]
        if image.transfer_id is not None:
            self.say(CommandEffect(TransferCancelled(transfer_id=image.transfer_id, reason=reason)))

    def again(self, index: int, cause: Cause, *, at: datetime | None = None, **changes: Any) -> None:
        """Start an image over with a new transfer, at once or `at` a moment."""
        image = self.images[index]
        changes = {**_FRESH, "attempt": image.attempt + 1, **changes}
        self.move(index, cause, "resolving", deadline=at or self.now, **changes)

    def done(self, **changes: Any) -> Transition:
        """The finished transition: the sum over the images, the end if this was it, and a timer for the
        earliest deadline.
        """
        deployment = replace(self.deployment, images=tuple(self.images), **changes)
        if deployment.open and all(image.ended for image in self.images):
            deployment = replace(deployment, state=_sum(self.images), ended_at=self.now, wake_at=None)
            self.say(PublishEffect(ended_message(deployment)))
        return Transition(self._timed(deployment), tuple(self.effects))

    def _timed(self, deployment: Deployment) -> Deployment:
        deadlines = [image.deadline for image in self.images if image.deadline is not None]
        if not deployment.open or not deadlines:
            return deployment
        earliest, current = min(deadlines), deployment.wake_at
        if current is not None and self.now < current <= earliest:
            return deployment
        self.say(TimerEffect(earliest))
        return replace(deployment, wake_at=earliest)


def _sum(images: list[ImageState]) -> Literal["succeeded", "failed", "cancelled"]:
    states = {image.state for image in images}
    if "cancelled" in states:
        return "cancelled"
    return "failed" if "failed" in states or not states else "succeeded"


def ended_message(deployment: Deployment) -> DeploymentEnded:
    """The message about the end of a deployment; the same whenever it is published again."""
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
