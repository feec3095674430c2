"""Two agents with one range id, told from the heartbeats that are seen."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from services.core.ranges.contest import MEMORY, QUIET, ContestedRange, HeartbeatHistory
from services.core.ranges.heartbeat import AgentHeartbeat

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def _beat(who: str, *, engine: str | None = None, displaced_by: str = "") -> AgentHeartbeat:
    return AgentHeartbeat(incarnation=who, engine_id=engine or f"engine of {who}", displaced_by=displaced_by)


def _seen(*beats: AgentHeartbeat, every: timedelta = timedelta(seconds=2.5)) -> list[tuple[str, ...]]:
    history = HeartbeatHistory()
    return [history.see(beat, NOW + number * every) for number, beat in enumerate(beats)]


def test_an_agent_that_returns_after_another_one_is_a_conflict() -> None:
    """Both engines are named; each return is evidence anew."""
    both = ("engine of a", "engine of b")
    assert _seen(_beat("a"), _beat("b"), _beat("a"), _beat("a"), _beat("b")) == [(), (), both, (), both]


def test_three_agents_are_named_together() -> None:
    """All that spoke in between."""
    assert _seen(_beat("a"), _beat("b"), _beat("c"), _beat("a"))[-1] == ("engine of a", "engine of b", "engine of c")


def test_a_range_that_is_recreated_is_none() -> None:
    """However often: no earlier agent returns."""
    assert not any(_seen(*(_beat(who) for who in "aabbbcddd")))


def test_an_agent_that_restarts_beside_its_engine_is_none() -> None:
    """Another incarnation, the same engine; nor are two agents on one engine."""
    assert not any(_seen(*(_beat(who, engine="e") for who in "abcab")))


def test_an_agent_that_found_another_ones_beat_in_its_place_says_so() -> None:
    """Two agents that beat at the same moments are never seen in turn; what one of them saw is enough."""
    beat = _beat("a", displaced_by="engine of b")
    assert _seen(beat, beat) == [("engine of a", "engine of b")] * 2
    assert not any(_seen(_beat("a", displaced_by="engine of a")))


def test_an_engine_that_returns_under_one_agent_is_a_conflict_too() -> None:
    """An address behind which two engines answer in turn."""
    assert _seen(_beat("a", engine="1"), _beat("a", engine="2"), _beat("a", engine="1"))[-1] == ("1", "2")


def test_what_was_seen_long_ago_is_forgotten() -> None:
    """A range may get its old engine back later."""
    assert not any(_seen(_beat("a"), _beat("b"), _beat("a"), every=MEMORY))


def test_a_heartbeat_without_an_engine_shows_nothing() -> None:
    """A range may write anything there."""
    assert not any(_seen(_beat("a"), AgentHeartbeat(), AgentHeartbeat(incarnation="x"), _beat("a")))


def test_a_conflict_is_over_after_some_beats_of_one_agent() -> None:
    """Counted from the last evidence."""
    contest = ContestedRange(range_id="r1", engine_ids=("1", "2"), since=NOW, seen_at=NOW)
    assert not contest.is_over(NOW + QUIET)
    assert contest.is_over(NOW + QUIET + timedelta(seconds=1))
    assert "two agents speak for range r1, on the engines 1 and 2" in contest.explain()
