"""What sentinels are asked, whoever asks at the same time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.asyncio.sentinel import MasterNotFoundError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError

from events.redis.sentinel import Sentinels, SentinelsRefuse

MASTER = {"ip": "10.0.0.1", "port": 6379, "is_master": True, "is_sdown": False, "is_odown": False}


async def test_no_sentinel_is_lost_when_many_ask_while_one_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that answered is asked first from then on; the others stay known, to be asked and to be closed."""

    async def answered(sentinel: Redis) -> dict[str, dict[str, Any]]:
        await asyncio.sleep(0)
        if sentinel.connection_pool.connection_kwargs["port"] == 1:
            raise RedisConnectionError("away")
        return {"images": MASTER | {"num-other-sentinels": 2}}

    monkeypatch.setattr(Redis, "sentinel_masters", answered)
    sentinels = Sentinels([("h", 1), ("h", 2), ("h", 3)])
    known = set(sentinels.sentinels)
    found = await asyncio.gather(*(sentinels.discover_master("images") for _ in range(4)))
    assert set(found) == {("10.0.0.1", 6379)}
    assert set(sentinels.sentinels) == known
    assert sentinels.sentinels[0].connection_pool.connection_kwargs["port"] == 2
    await sentinels.aclose()


async def test_what_each_sentinel_said_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where none names a master: which is away, which knows others, and which finds the master down."""

    async def answered(sentinel: Redis) -> dict[str, dict[str, Any]]:
        match sentinel.connection_pool.connection_kwargs["port"]:
            case 1:
                raise RedisConnectionError("away")
            case 2:
                return {"other": MASTER}
            case _:
                return {"images": MASTER | {"is_odown": True}}

    monkeypatch.setattr(Redis, "sentinel_masters", answered)
    sentinels = Sentinels([("h", 1), ("h", 2), ("h", 3)], password="secret")
    with pytest.raises(MasterNotFoundError) as missing:
        await sentinels.discover_master("images")
    assert str(missing.value) == (
        "no sentinel names a master 'images' (h:1: away; h:2 knows 'other'; h:3 says that it is down)"
    )
    await sentinels.aclose()


async def test_a_sentinel_that_refuses_is_told_though_another_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """The password has to be corrected, whatever becomes of the other one."""

    async def answered(sentinel: Redis) -> dict[str, dict[str, Any]]:
        if sentinel.connection_pool.connection_kwargs["port"] == 1:
            raise NoPermissionError("NOPERM")
        raise RedisConnectionError("away")

    monkeypatch.setattr(Redis, "sentinel_masters", answered)
    sentinels = Sentinels([("h", 1), ("h", 2)])
    with pytest.raises(SentinelsRefuse, match="h:1: NOPERM; h:2: away"):
        await sentinels.discover_master("images")
    await sentinels.aclose()
