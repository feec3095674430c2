"""Results of transfers to a range, read off a transition of its deployment: which ended, how, or why without the image.

The agents of ranges count the same on their side; nobody can scrape those, and what a range counts it may make up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from events.messages import Arrival, Failure
from services.core.deployments.deployment import ACTIVE, Deployment, ImageState

Kind = Literal["pull", "load"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferResult:
    """One transfer that ended. `how` is set where it brought the image, then with the image's bytes and seconds.

    kind     pull, or load of an archive
    error    why it did not bring the image; None for one whose archive was asked for again: the reason is not kept
    """

    kind: Kind
    outcome: Literal["done", "tar_requested", "failed"]
    how: Arrival | None = None
    received_bytes: int = 0
    seconds: float = 0.0
    error: Failure | None = None


def transfer_results(before: Deployment | None, after: Deployment) -> Iterator[TransferResult]:
    """The transfers that a transition ended. What was cancelled, or began over with another engine, is none."""
    if before is not None:
        for old, new in zip(before.images, after.images, strict=False):
            found = _result(old, new)
            if found is not None:
                yield found


def mount_failures(before: Deployment | None, after: Deployment) -> Iterator[Failure]:
    """Why layers of an image were not mounted, where a transition says so for the first time."""
    if before is not None:
        for old, new in zip(before.images, after.images, strict=False):
            if new.not_mounted is not None and old.not_mounted is None:
                yield new.not_mounted


def _result(old: ImageState, new: ImageState) -> TransferResult | None:
    kind: Kind = "load" if old.state in {"loading", "falling_back"} else "pull"
    if new.state == "ready" and old.state != "ready" and new.how is not None:
        told = new.outcome()
        return TransferResult(
            kind="load" if new.how == "loaded" else "pull",
            outcome="done",
            how=new.how,
            received_bytes=new.received_bytes,
            seconds=told.seconds,
        )
    if old.state not in ACTIVE:
        return None
    if new.state == "failed" or _begins_again_after_failure(old, new):
        return TransferResult(kind=kind, outcome="failed", error=new.error)
    if new.state == "loading" and old.state == "pulling" and new.not_pulled is not None:
        return TransferResult(kind=kind, outcome="tar_requested", error=new.not_pulled)
    if new.state == "loading" and old.state == "loading" and new.offers > old.offers:
        return TransferResult(kind=kind, outcome="tar_requested")
    return None


def _begins_again_after_failure(old: ImageState, new: ImageState) -> bool:
    """Another attempt that counts as a failure of this one; a recreated range counts none."""
    is_failure = new.failures > old.failures or (new.pull_failed and not old.pull_failed)
    return new.attempt > old.attempt and is_failure
