"""Whether another Redis can take over."""

from __future__ import annotations

import pytest

from events.redis.replication import Login, Replica, Replication
from services.doctor.findings import Note, Wrong
from services.doctor.replication import check_replication

SENTINEL = "redis+sentinel://u:p@h:1/images/0"


def _replica(number: int, *, online: bool = True, lag: int = 0, login: Login = "in") -> Replica:
    return Replica(f"10.0.0.{number}:6379", online=online, lag_seconds=lag, behind_bytes=7, login=login)


def _told(*replicas: Replica, url: str = SENTINEL, confirm: int = 0) -> str:
    return check_replication(Replication("master", replicas), redis_url=url, confirm_replicas=confirm)


def test_what_a_failover_would_lose_is_said() -> None:
    """Without confirmation the last commits; one server without replicas is what most installations have."""
    assert "one server without replicas" in _told(url="redis://h:1")
    assert _told(_replica(2)).endswith("10.0.0.2:6379 (7 bytes behind); a failover may lose what was acknowledged last")
    assert _told(_replica(2), _replica(3), confirm=1).endswith("one replica confirms each commit")
    assert _told(_replica(2), _replica(3), confirm=2).endswith("2 replicas confirm each commit")
    assert "may not run INFO" in check_replication(None, redis_url=SENTINEL, confirm_replicas=0)


def test_what_would_keep_us_out_is_wrong() -> None:
    """A replica without our user, fewer replicas than have to confirm, a server that is no master."""
    with pytest.raises(Wrong, match=r"10\.0\.0\.2:6379 would let nobody in"):
        _told(_replica(2, login="refused"))
    with pytest.raises(Wrong, match="1 replicas follow it, and 2 have to confirm") as told:
        _told(_replica(2), _replica(3, online=False), confirm=2)
    assert "CYROID_CONFIRM_REPLICAS" in told.value.advice
    with pytest.raises(Wrong, match="no master"):
        check_replication(Replication("slave"), redis_url=SENTINEL, confirm_replicas=0)


@pytest.mark.parametrize(
    ("replica", "url", "said"),
    [
        (_replica(2, lag=60), SENTINEL, "does not follow"),
        (_replica(2, login="away"), SENTINEL, "cannot be reached from here"),
        (_replica(2), "redis://h:1", "nothing leads us to another"),
    ],
)
def test_what_would_hinder_a_failover_is_noted(replica: Replica, url: str, said: str) -> None:
    """Nothing is broken yet."""
    with pytest.raises(Note, match=said):
        _told(replica, url=url)
