"""How often one range may have one image exported anew."""

from __future__ import annotations

from services.core.ranges.export_pace import ExportPace

BURST, SECONDS = 3, 60.0


def asked(pace: ExportPace, *, times: int, every: float, image: str = "a", range_id: str = "r") -> int:
    """How many of so many requests, one after another, may begin at once."""
    return sum(pace.begin(range_id, image, number * every) == 0 for number in range(times))


def test_a_few_in_a_row_wait_for_nothing() -> None:
    """The archives that an honest range asks for."""
    assert asked(ExportPace(burst=BURST, seconds=SECONDS), times=BURST, every=0.1) == BURST


def test_whoever_asks_again_and_again_gets_one_in_a_time() -> None:
    """However often it asks: the burst, and then one a minute."""
    begun = asked(ExportPace(burst=BURST, seconds=SECONDS), times=36_000, every=0.1)
    assert 3600 / SECONDS <= begun <= BURST + 3600 / SECONDS


def test_it_is_told_how_long_it_waits() -> None:
    """And asking meanwhile makes it no longer."""
    pace = ExportPace(burst=BURST, seconds=SECONDS)
    asked(pace, times=BURST, every=0.0)
    assert pace.begin("r", "a", 0.0) == SECONDS
    assert 39.9 < pace.begin("r", "a", 20.0) < 40.1
    assert pace.begin("r", "a", SECONDS + 0.1) == 0.0


def test_others_and_other_images_are_their_own() -> None:
    """What one range asked for slows neither another range nor another image."""
    pace = ExportPace(burst=BURST, seconds=SECONDS)
    asked(pace, times=100, every=0.0)
    assert pace.begin("other", "a", 0.0) == 0.0
    assert pace.begin("r", "other", 0.0) == 0.0


def test_what_came_to_nothing_does_not_count() -> None:
    """The registry and the engine were away: the range tries again as before, and saves up nothing by it."""
    pace = ExportPace(burst=BURST, seconds=SECONDS)
    for _ in range(100):
        assert pace.begin("r", "a", 0.0) == 0.0
        pace.take_back("r", "a")
    pace.take_back("r", "a")
    pace.take_back("nobody", "a")
    assert asked(pace, times=100, every=0.0) == BURST


def test_accounts_take_bounded_room() -> None:
    """The one that was used last stays."""
    pace = ExportPace(burst=1, seconds=SECONDS, remembered=2)
    for image in ("a", "b", "c"):
        assert pace.begin("r", image, 0.0) == 0.0
    assert pace.begin("r", "c", 0.0) > 0.0
    assert pace.begin("r", "a", 0.0) == 0.0
