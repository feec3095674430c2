"""Events as lines."""

from __future__ import annotations

from datetime import UTC, datetime

from services.cli.events.lines import event_line, letter_line

AT = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)


def test_a_message_is_one_line() -> None:
    """Long lists and digests are shortened, failures are told by their code, control characters are shown."""
    message = {
        "reference": "web:1",
        "layers": ["x" * 100],
        "image_id": "sha256:" + "1" * 64,
        "seconds": 1.23456,
        "error": {"code": "timeout"},
        "images": [{"reference": "a:1", "how": "pulled"}, "b", "c", "d", "e"],
        "note": "evil\x1b[2J",
    }
    line = event_line(AT, "image.pushed.v1", "web:1", message, "pusher@h")
    assert "image_id=111111111111 seconds=1.235 error=timeout images=a:1=pulled,b,c,d,…" in line
    assert ("\x1b" in line, line.endswith("[pusher@h]")) == (False, True)


def test_a_dead_letter_says_who_gave_up_what() -> None:
    """And why."""
    assert letter_line("noon", "1-0", "pusher gave up 2-0 of s", "no: why").endswith(
        "1-0: pusher gave up 2-0 of s: no: why"
    )
