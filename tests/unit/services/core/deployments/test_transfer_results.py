"""What a transition says of transfers that ended."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec.structs import replace

from events.messages import Failure
from services.core.deployments.deployment import Deployment, ImageState
from services.core.deployments.transfer_results import TransferResult, mount_failures, transfer_results

NOW = datetime(2030, 1, 1, tzinfo=UTC)
STALLED = Failure(code="stalled", message="it stands still", retryable=True)


def deployment(*images: ImageState) -> Deployment:
    return Deployment(
        deployment_id="d1",
        range_id="r1",
        state="running",
        asked=("app:1",),
        images=images,
        requested_at=NOW,
        correlation_id="c",
    )


def image(state: Any, **more: Any) -> ImageState:
    return ImageState(reference="app:1", state=state, since=NOW, started_at=NOW, **more)


def results(before: ImageState, **changes: Any) -> list[TransferResult]:
    return list(transfer_results(deployment(before), deployment(replace(before, **changes))))


def test_an_image_that_arrived_has_its_way_bytes_and_seconds() -> None:
    """Once: what is ready already says nothing more."""
    ended = {"state": "ready", "how": "pulled", "received_bytes": 7, "ended_at": NOW + timedelta(seconds=3)}
    (found,) = results(image("pulling"), **ended)
    assert found == TransferResult(kind="pull", outcome="done", how="pulled", received_bytes=7, seconds=3.0)
    assert results(image("ready", how="pulled"), received_bytes=8) == []
    assert [one.kind for one in results(image("loading"), **{**ended, "how": "loaded"})] == ["load"]


def test_an_archive_in_place_of_a_pull_has_the_reason() -> None:
    """One that takes no pull's place is none, and of one that is asked for again the reason is not kept."""
    (found,) = results(image("pulling"), state="loading", offers=1, not_pulled=STALLED)
    assert (found.kind, found.outcome, found.error) == ("pull", "tar_requested", STALLED)
    assert results(image("pulling"), state="loading", offers=1) == []
    assert results(image("falling_back"), state="loading", offers=1, not_pulled=STALLED) == []
    again = results(image("loading", offers=1, not_pulled=STALLED), offers=2)
    assert again == [TransferResult(kind="load", outcome="tar_requested")]


def test_a_failure_counts_whether_another_try_follows_or_not() -> None:
    """The same path again, the other path, or the end."""
    for changes in (
        {"state": "resolving", "attempt": 2, "failures": 1},
        {"state": "resolving", "attempt": 2, "failures": 0, "pull_failed": True},
        {"state": "failed"},
    ):
        (found,) = results(image("pulling"), error=STALLED, **changes)
        assert found == TransferResult(kind="pull", outcome="failed", error=STALLED)
    (found,) = results(image("loading"), state="failed", error=STALLED)
    assert found.kind == "load"


def test_what_nobody_failed_at_is_no_result() -> None:
    """A cancel, a range that was recreated, an image that never had a slot, and a new deployment."""
    assert results(image("pulling"), state="cancelled") == []
    assert results(image("pulling", error=STALLED), state="resolving", attempt=2, recreations=1) == []
    assert results(image("queued"), state="failed", error=STALLED) == []
    assert list(transfer_results(None, deployment(image("resolving")))) == []


def test_layers_that_were_not_mounted_are_said_once() -> None:
    """Whoever found out: the host before the pull, or the range after it."""
    first, later = image("mounting"), image("pulling", not_mounted=STALLED)
    assert list(mount_failures(deployment(first), deployment(later))) == [STALLED]
    assert list(mount_failures(deployment(later), deployment(replace(later, state="ready")))) == []
    assert list(mount_failures(None, deployment(later))) == []
