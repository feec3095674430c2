"""Connections of a Redis server, as it tells them."""

from __future__ import annotations

from events.bus import BusRefused
from events.redis.client import Argument, Commands, Reply
from events.redis.connections import Connections, agent_name, connections


class _Server(Commands):
    """Answers INFO and CLIENT LIST as told."""

    def __init__(self, info: str, listed: str = "", *, refuses: bool = False) -> None:
        self._answers = {"INFO": info.encode(), "CLIENT": listed.encode()}
        self._refuses = refuses

    async def call(self, *arguments: Argument) -> Reply:
        if self._refuses:
            raise BusRefused("NOPERM this user has no permissions to run the 'client|list' command")
        return self._answers[str(arguments[0])]


async def test_the_connections_of_agents_are_known_by_their_names() -> None:
    """Each range counts once, with its reads; services and people are others."""
    names = [agent_name("p", "r1"), f"{agent_name('p', 'r1')}-reads", agent_name("other", "r1"), "cyroid-images", ""]
    listed = "".join(f"id={number} addr=127.0.0.1:1 name={name} age=1\n" for number, name in enumerate(names))
    told = "# Clients\r\nconnected_clients:5\r\nmaxclients:10000\r\n"
    assert await connections(_Server(told, listed)) == Connections(limit=10_000, used=5, agents=2, of_agents=3)


async def test_what_cannot_be_asked_is_not_known() -> None:
    """A user without the right, and a server that tells no limit."""
    assert await connections(_Server("", refuses=True)) is None
    assert await connections(_Server("connected_clients:5\r\n")) is None


def test_a_name_is_one_that_redis_takes() -> None:
    """Whatever the key prefix is: with another name the agent could not connect."""
    assert agent_name("größe {a}", "r1") == "cyroid-images-agent:gr__e_{a}:r1"
