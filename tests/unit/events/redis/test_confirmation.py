"""Confirmation of commits by replicas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ResponseError

from events.bus import BusRefused, BusUnavailable
from events.redis.bus import RedisBus
from events.redis.client import Commands
from events.redis.confirmation import Confirmation
from events.streams import Streams


class Pipelined:
    """A client whose pipelines answer as told, and which notes what they were given."""

    def __init__(self, *answers: Sequence[object] | Exception) -> None:
        self.answers, self.sent = list(answers), list[tuple[object, ...]]()

    def pipeline(self, *, transaction: bool) -> Self:
        assert not transaction
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    def execute_command(self, *arguments: object, **_: Any) -> Any:
        self.sent.append(arguments)

    async def execute(self, *, raise_on_error: bool) -> Sequence[object]:
        assert not raise_on_error
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def aclose(self) -> None: ...


def commands(client: Pipelined) -> Commands:
    return Commands(client, confirmation=Confirmation(2, "p", 100))


async def test_a_commit_that_too_few_replicas_have_is_not_made() -> None:
    """Then it is asked for again, with the same token, by whoever waits for it; enough of them: its reply."""
    client = Pipelined([b"ok", b"OK", 1], [b"ok", b"OK", 2])
    with pytest.raises(BusUnavailable, match="1 of 2 replicas confirmed within 100 ms"):
        await commands(client).confirmed("EVALSHA", "digest")
    assert await commands(client).confirmed("EVALSHA", "digest") == b"ok"
    assert client.sent[:3] == [("EVALSHA", "digest"), ("SET", "p:confirmed", b"1"), ("WAIT", 2, 100)]


async def test_an_error_of_the_command_comes_before_that_of_the_wait() -> None:
    """A missing script is loaded, a right that is missing is told, and a server that was demoted is left."""
    missing = NoScriptError("No matching script")
    with pytest.raises(NoScriptError):
        await commands(Pipelined([missing, b"OK", 2])).confirmed("EVALSHA", "digest")
    with pytest.raises(BusRefused, match="EVALSHA"):
        await commands(Pipelined([b"ok", ResponseError("NOPERM"), 2])).confirmed("EVALSHA", "digest")
    demoted = ResponseError("WAIT cannot be used with replica instances")
    with pytest.raises(BusUnavailable, match="did not say how many"):
        await commands(Pipelined([b"ok", b"OK", demoted])).confirmed("EVALSHA", "digest")


async def test_a_broken_connection_is_tried_again() -> None:
    """On the next one the whole is sent again: the write between covers what was written before."""
    client = Pipelined(RedisConnectionError("reset"), [b"ok", b"OK", 2])
    assert await commands(client).confirmed("EVALSHA", "digest") == b"ok"
    assert len(client.sent) == 6


async def test_a_cluster_cannot_be_waited_for() -> None:
    """It is said at once, with the setting."""
    with pytest.raises(BusRefused, match="CYROID_CONFIRM_REPLICAS"):
        async with RedisBus.open("redis+cluster://127.0.0.1:1", streams=Streams("{p}"), confirm_replicas=1):
            pass
