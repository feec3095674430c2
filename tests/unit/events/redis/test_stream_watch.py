"""Selection of the streams that a take reads."""

from __future__ import annotations

import pytest

from events.lease import Holder, Lease, SingleFlightLock
from events.redis.stream_watch import FEW, MOST_READ_A_SECOND, ROUND_SECONDS, Watch

MANY = [f"s{number}" for number in range(100)]


def _begun() -> Watch:
    """A watch that has just looked at everything and found nothing."""
    watch = Watch()
    watch.took(MANY, ["1-0"] * len(watch.choose(MANY, 8, 0.0)))
    return watch


def test_few_streams_are_all_looked_at() -> None:
    """No choice is made among few."""
    assert Watch().choose(MANY[:FEW], 8, 0.0) == MANY[:FEW]


def test_the_first_look_is_at_everything() -> None:
    """A worker that starts knows nothing yet."""
    assert set(Watch().choose(MANY, 8, 5.0)) == set(MANY)


def test_news_are_looked_at_first() -> None:
    """What a read named is looked at at once, and not again when it was found empty."""
    watch = _begun()
    watch.news(["s40"])
    assert watch.choose(MANY, 8, 0.0) == ["s40"]
    watch.took(["s40"], ["2-0"])
    assert watch.choose(MANY, 8, 0.0) == []
    assert watch.marks(["s40", "new"]) == {"s40": "2-0", "new": "0-0"}


def test_a_stream_with_more_waits_for_its_next_turn() -> None:
    """A long stream goes behind the others; one that a take did not come to keeps its place."""
    watch = _begun()
    watch.news(["s1", "s2", "s3"])
    watch.took(["s1", "s2", "s3"], ["+", "2-0", ""])
    assert watch.choose(MANY, 8, 0.0) == ["s3", "s1"]


def test_each_stream_is_looked_at_within_a_round() -> None:
    """Steps of a round add up to all streams, however many there are."""
    watch = _begun()
    steps = [watch.choose(MANY, 8, ROUND_SECONDS * step / 10) for step in range(1, 11)]
    assert {stream for step in steps for stream in step} == set(MANY)
    assert max(map(len, steps)) <= 11


def test_a_landing_makes_the_streams_of_those_who_wait_worth_a_look() -> None:
    """An entry that was put aside for a flight is found when that lands, not a round later."""
    watch, single_flight = _begun(), SingleFlightLock("home", "d1")
    lease = Lease(stream="s7", entry_id="1-0", holder=Holder("g", "w"), deliveries=1, fields={})
    watch.acquired(lease, single_flight, free=False)
    watch.lock_released(single_flight)
    assert watch.choose(MANY, 8, 0.0) == ["s7"]
    watch.took(["s7"], ["1-0"])
    watch.acquired(lease, single_flight, free=True)
    watch.lock_released(single_flight)
    assert watch.choose(MANY, 8, 0.0) == []


def test_a_stream_that_is_listened_to_no_more_is_forgotten() -> None:
    """A list that shrinks leaves nothing to look at behind."""
    watch = _begun()
    watch.news(["gone"])
    assert watch.choose(MANY, 8, 0.0) == []


def test_a_stream_that_cannot_be_read_is_not_waited_for() -> None:
    """Its news would never end: no mark until a take could read it again."""
    watch = _begun()
    watch.news(["s1"])
    watch.took(["s1", "s2"], ["!", "2-0"])
    assert watch.marks(["s1", "s2"]) == {"s2": "2-0"}
    assert watch.choose(MANY, 8, 0.0) == []
    watch.took(["s1"], ["3-0"])
    assert watch.marks(["s1"]) == {"s1": "3-0"}


def test_streams_with_more_keep_no_other_from_being_read() -> None:
    """Each take comes to its end at those that have more; the others are read in each second one, in their order."""
    watch, reached = _begun(), list[str]()
    watch.took(["s0", "s1"], ["+", "+"])
    for step in range(1, 61):
        chosen = watch.choose(MANY, 2, ROUND_SECONDS * step / 60)
        reached += chosen[:2]
        watch.took(chosen, ["+" if stream in ("s0", "s1") else "2-0" for stream in chosen[:2]] + [""] * len(chosen[2:]))
    others = [stream for stream in reached if stream not in ("s0", "s1")]
    assert others == MANY[2 : 2 + len(others)]
    assert len(others) > 50
    assert reached.count("s0") > 25


def test_a_look_for_timers_alone_takes_no_turn_from_others() -> None:
    """It reads no entry, so what it looked at is not left for the next one."""
    watch = _begun()
    looked_at = watch.choose(MANY, 0, ROUND_SECONDS / 2)
    watch.took(looked_at, [""] * len(looked_at))
    assert watch.choose(MANY, 8, ROUND_SECONDS / 2) == []


def test_reads_of_many_streams_are_apart() -> None:
    """The more streams, the further; the first read and those of few streams wait for nothing."""
    watch, apart = Watch(), 5000 / MOST_READ_A_SECOND
    assert [watch.read_pause_seconds(5000, now) for now in (7.0, 7.0, 7.0 + apart)] == pytest.approx([0, apart, apart])
    assert watch.read_pause_seconds(5000, 9.0) == 0
    assert watch.read_pause_seconds(FEW, 9.0) == watch.read_pause_seconds(FEW, 9.0) == 0
