"""The live view of a class."""

from __future__ import annotations

import io
from datetime import UTC, datetime

from rich.console import Console

from events.messages import Failure
from services.cli.top import drawn
from services.queries.class_view import ClassImage, ClassRange, ClassView


def test_the_view_says_how_far_each_range_is() -> None:
    """What an image waits for, and why one failed; markup and control characters in it are text."""
    failed = Failure(code="x", message="[red]no\x1b space")
    images = [
        ClassImage(reference="docker.io/library/web:1", state="ready", how="pulled"),
        ClassImage(reference="docker.io/team/db:1", state="queued", queue_position=3),
    ]
    view = ClassView(
        as_of=datetime(2026, 9, 1, tzinfo=UTC),
        total=2,
        ready=0,
        failed=1,
        left_off=0,
        ranges=[
            ClassRange(range_id="range-1", deployment_id="one", state="open", images=images),
            ClassRange(
                range_id="range-2",
                deployment_id="two",
                state="failed",
                images=[ClassImage(reference="docker.io/library/web:1", state="failed", error=failed)],
            ),
        ],
    )
    file = io.StringIO()
    Console(file=file, width=120).print(drawn(view))
    text = file.getvalue()
    assert "0 of 2 ranges ready, 1 failed" in text
    assert "ready (pulled)" in text
    assert "queued, number 3" in text
    assert "failed: [red]no\N{REPLACEMENT CHARACTER} space" in text
