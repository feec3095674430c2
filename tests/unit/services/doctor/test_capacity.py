"""How many ranges a Redis carries."""

from __future__ import annotations

import pytest

from events.redis.connections import Connections
from services.doctor.capacity import check_connections, range_ceiling
from services.doctor.findings import Note, Wrong


def test_the_ceiling_is_counted_from_what_agents_use() -> None:
    """At what they have each, beside all else; without such agents at what was measured."""
    assert range_ceiling(Connections(limit=2000, used=500, agents=80, of_agents=400)) == 380
    assert range_ceiling(Connections(limit=10_000, used=100, agents=0, of_agents=0)) == 4950
    assert range_ceiling(Connections(limit=10, used=12, agents=0, of_agents=0)) == 0


def test_few_connections_left_are_told_before_there_are_none() -> None:
    """A remark at four fifths, wrong when hardly any is left; both with what to do."""
    text = check_connections(Connections(limit=10_000, used=340, agents=120, of_agents=240))
    assert "340 of 10000" in text
    assert "2.0 for each it carries 4,950 such ranges" in text
    with pytest.raises(Note, match="800 of 1000") as note:
        check_connections(Connections(limit=1000, used=800, agents=300, of_agents=600))
    assert "maxclients" in note.value.advice
    with pytest.raises(Wrong):
        check_connections(Connections(limit=1000, used=950, agents=300, of_agents=600))


def test_a_user_who_may_not_ask_is_no_fault() -> None:
    """It is said."""
    assert "may not run INFO" in check_connections(None)
