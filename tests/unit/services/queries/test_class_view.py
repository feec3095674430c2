"""A class at a glance."""

from __future__ import annotations

from datetime import UTC, datetime

from events.messages import Failure
from services.queries.class_view import RANGES_LIMIT, arranged
from services.queries.deployments import DeploymentImageView, DeploymentView

NOW = datetime(2026, 9, 1, 8, tzinfo=UTC)


def _deployment(
    range_id: str, *images: tuple[str, str], number: int = 1, error: Failure | None = None
) -> DeploymentView:
    return DeploymentView(
        deployment_id=f"{range_id}-{number}",
        range_id=range_id,
        state="open",
        priority=5,
        requested_at=NOW,
        seconds=1,
        images=[DeploymentImageView(reference=name, state=state) for name, state in images],
        error=error,
    )


def test_a_range_is_ready_with_its_last_image() -> None:
    """One that failed is counted apart, whatever else it has."""
    view = arranged(
        [
            _deployment("range-1", ("web:1", "ready"), ("db:1", "ready")),
            _deployment("range-2", ("web:1", "ready"), ("db:1", "pulling")),
            _deployment("range-3", ("web:1", "failed"), ("db:1", "pulling")),
        ],
        "",
        now=NOW,
    )
    assert (view.total, view.ready, view.failed) == (3, 1, 1)
    assert [one.state for one in view.ranges] == ["failed", "open", "ready"]


def test_the_latest_deployment_of_an_image_counts() -> None:
    """The list has the newest first; another image of an older deployment stays."""
    view = arranged(
        [
            _deployment("range-1", ("web:1", "ready"), number=2),
            _deployment("range-1", ("web:1", "failed"), ("db:1", "ready"), number=1),
        ],
        "",
        now=NOW,
    )
    (only,) = view.ranges
    assert (only.deployment_id, only.state) == ("range-1-2", "ready")
    assert [(one.reference, one.state) for one in only.images] == [("db:1", "ready"), ("web:1", "ready")]


def test_one_image_can_be_looked_at_alone() -> None:
    """Ranges without it are not of that class; what was cancelled is not awaited."""
    latest = [
        _deployment("range-1", ("web:1", "ready"), ("db:1", "pulling")),
        _deployment("range-2", ("db:1", "pulling")),
        _deployment("range-3", ("web:1", "cancelled")),
    ]
    view = arranged(latest, "web", now=NOW)
    assert [one.range_id for one in view.ranges] == ["range-1"]
    assert view.ready == view.total == 1


def test_why_it_failed_is_said_where_it_failed() -> None:
    """Also where the deployment as a whole has the reason."""
    failure = Failure(code="range_contested", message="two agents")
    view = arranged([_deployment("range-1", ("web:1", "failed"), error=failure)], "", now=NOW)
    assert view.ranges[0].images[0].error == failure


def test_many_ranges_are_counted_and_some_are_shown() -> None:
    """In the order in which people count."""
    view = arranged([_deployment(f"range-{n}", ("web:1", "ready")) for n in range(RANGES_LIMIT + 5)], "", now=NOW)
    assert (view.total, view.left_off, len(view.ranges)) == (RANGES_LIMIT + 5, 5, RANGES_LIMIT)
    assert [one.range_id for one in view.ranges[9:11]] == ["range-9", "range-10"]
