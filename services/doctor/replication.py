"""Replication of Redis: whether another server can take over, with all that was acknowledged and with our users."""

from __future__ import annotations

from events.redis.bus import RedisBus
from events.redis.replication import Replica, Replication
from events.redis.urls import SENTINEL_SCHEMES, login_of, scheme_of
from services.doctor.findings import Note, Wrong
from services.resources import Resources
from services.runtime.tracing import untraced

#: A replica answers its master every second.
LATE_SECONDS = 10


async def replication_of(resources: Resources) -> Replication | None:
    """The replication of the bus's server; None for a bus in memory, and where it cannot be asked."""
    bus = untraced(await resources.bus())
    return await bus.replication(login_of(resources.settings.redis_url)) if isinstance(bus, RedisBus) else None


def check_replication(found: Replication | None, *, redis_url: str, confirm_replicas: int) -> str:
    """What is well with the replicas of Redis. Raises Wrong where nothing can be published, or a failover would shut
    us out; Note where there would be none.
    """
    if found is None:
        return "its replicas cannot be seen: this user may not run INFO"
    if found.role != "master":
        raise Wrong(f"it is a {found.role or 'server of an unknown role'}, no master", "name the sentinels instead")
    followers = [one for one in found.replicas if one.online and one.lag_seconds < LATE_SECONDS]
    if len(followers) < confirm_replicas:
        raise Wrong(
            f"{len(followers)} replicas follow it, and {confirm_replicas} have to confirm each commit: nothing can be"
            " published",
            "start the replicas, or lower CYROID_CONFIRM_REPLICAS",
        )
    if not found.replicas:
        return "one server without replicas: all waits until it is back, and what its disk loses is lost"
    told = f"a master with {_count(len(found.replicas))}: {', '.join(map(_described, found.replicas))}"
    if shut := [one.address for one in found.replicas if one.login == "refused"]:
        raise Wrong(f"{told}; {', '.join(shut)} would let nobody in", "set the users there too (docs/redis.md)")
    if late := [one.address for one in found.replicas if one not in followers]:
        raise Note(f"{told}; {', '.join(late)} does not follow", "see its log, and whether it reaches the master")
    if away := [one.address for one in found.replicas if one.login == "away"]:
        raise Note(f"{told}; {', '.join(away)} cannot be reached from here", "let the services reach every server")
    if scheme_of(redis_url) not in SENTINEL_SCHEMES:
        raise Note(f"{told}; nothing leads us to another", "name the sentinels in CYROID_REDIS_URL (docs/redis.md)")
    confirmed = f"{_count(confirm_replicas)} confirm" if confirm_replicas != 1 else "one replica confirms"
    what = f"{confirmed} each commit" if confirm_replicas else "a failover may lose what was acknowledged last"
    return f"{told}; {what}"


def _described(one: Replica) -> str:
    return f"{one.address} ({one.behind_bytes} bytes behind)"


def _count(number: int) -> str:
    return f"{number} replica{'' if number == 1 else 's'}"
