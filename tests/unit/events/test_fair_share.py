"""How much of a worker one range may take up."""

from __future__ import annotations

from events.fair_share import fair_share, is_outbox, within_share

OUTBOX, OTHER, IMAGES = "cyroid:range:1:outbox", "cyroid:range:2:outbox", "cyroid:images"


def test_a_quarter_and_at_least_one() -> None:
    """So that a worker of one slot serves ranges too."""
    assert [fair_share(slots) for slots in (1, 3, 4, 8, 256)] == [1, 1, 1, 2, 64]


def test_a_range_that_takes_up_its_share_is_not_read_meanwhile() -> None:
    """Other ranges are, and so are streams that no range writes, however much of them is under way."""
    streams = [OUTBOX, OTHER, IMAGES]
    in_flight = [(OUTBOX, "1-0"), (OUTBOX, "2-0"), (OTHER, "1-0"), *((IMAGES, f"{number}-0") for number in range(5))]
    assert within_share(streams, in_flight, 8) == [OTHER, IMAGES]
    assert within_share(streams, in_flight[1:], 8) == streams
    assert [is_outbox(stream) for stream in streams] == [True, True, False]
