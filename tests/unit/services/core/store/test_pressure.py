"""Disk pressure: when the alarm comes, when it is over, and when room is made again."""

from __future__ import annotations

import pytest

from services.core.store.pressure import DiskState, disk_state

LOW = DiskState(low=True, since=100.0, rounds=1, made_at=100.0, free_bytes=99, total_bytes=1000)


def look(before: DiskState, free: int, now: float) -> DiskState:
    """A disk of 1000 bytes, of which 100 have to be free."""
    return disk_state(before, (free, 1000), 10.0, now=now, again_seconds=900.0)


@pytest.mark.parametrize("free", [100, 500, 1000])
def test_a_disk_with_room_changes_nothing(free: int) -> None:
    """The limit itself is room enough."""
    assert look(DiskState(), free, 50.0) == DiskState()


def test_below_the_limit_the_alarm_begins_with_a_first_round() -> None:
    """With the moment, which names the alarm for every replica."""
    assert look(DiskState(), 99, 100.0) == LOW


def test_a_little_room_is_not_the_end() -> None:
    """Else each push would begin it again."""
    assert look(LOW, 110, 200.0) == LOW
    assert look(LOW, 125, 200.0) == DiskState(since=200.0, free_bytes=125, total_bytes=1000)


def test_room_is_made_again_and_again() -> None:
    """Not at every look."""
    assert look(LOW, 50, 999.0) == LOW
    again = look(LOW, 50, 1000.0)
    assert (again.low, again.since, again.rounds, again.made_at, again.free_bytes) == (True, 100.0, 2, 1000.0, 50)
