"""Wrong tokens, again and again."""

from __future__ import annotations

from pathlib import Path

from aiohttp.test_utils import TestClient, TestServer

from services.api.authentication import Actor, TokenFile, token_hash
from services.api.failed_logins import BURST, SECONDS, FailedLogins
from services.api.server import application
from services.errors import RequestRefused, Unavailable
from tests.unit.services.api.site import api_context
from tests.unit.services.twins import Cluster

ATTACKER, OTHER = "10.0.0.1", "10.0.0.2"


class Asked:
    """An authenticator that knows `right`, and what it was asked."""

    def __init__(self) -> None:
        self.right: set[str] = {"right"}
        self.asked: list[str | None] = []
        self.away = False

    async def actor(self, token: str | None) -> Actor:
        self.asked.append(token)
        if self.away:
            raise Unavailable("nobody can say")
        if token not in self.right:
            raise RequestRefused("no", code="bad_token" if token else "no_token")
        return Actor("eva", "viewer")


class Clock:
    """Stands still until it is moved."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


async def code(logins: FailedLogins, token: str | None, client: str = ATTACKER) -> str:
    """How an attempt is answered; nothing for one that is let in."""
    try:
        await logins.actor(token, client)
    except (RequestRefused, Unavailable) as refused:
        return refused.code
    return ""


async def test_wrong_tokens_are_looked_at_in_a_row_and_then_now_and_then() -> None:
    """The others are refused unseen, a right one of a stranger among them; time lets it in."""
    known, clock = Asked(), Clock()
    logins = FailedLogins(known, clock=clock)
    assert [await code(logins, f"wrong-{number}") for number in range(BURST)] == ["bad_token"] * BURST
    assert {await code(logins, f"more-{number}") for number in range(100)} == {"too_many_logins"}
    assert await code(logins, "right") == "too_many_logins"
    assert len(known.asked) == BURST
    clock.now += SECONDS + 0.1
    assert await code(logins, "right") == ""


async def test_others_are_let_in_meanwhile() -> None:
    """From another address, and from the same one with a token that was right before."""
    logins = FailedLogins(Asked(), clock=Clock())
    assert await code(logins, "right") == ""
    for number in range(2 * BURST):
        await code(logins, f"wrong-{number}")
    assert await code(logins, "wrong", OTHER) == "bad_token"
    assert await code(logins, "right") == ""


async def test_a_token_that_was_taken_away_is_a_wrong_one() -> None:
    """That it was right once opens nothing, and no second look."""
    known = Asked()
    logins = FailedLogins(known, clock=Clock())
    assert await code(logins, "right") == ""
    known.right.clear()
    answers = [await code(logins, "right") for _ in range(BURST + 5)]
    assert answers == ["bad_token"] * (BURST + 1) + ["too_many_logins"] * 4


async def test_only_wrong_tokens_count() -> None:
    """Not those that are right, not requests without one, not those of which nobody can say."""
    known = Asked()
    logins = FailedLogins(known, clock=Clock())
    known.right |= {f"right-{number}" for number in range(3 * BURST)}
    assert {await code(logins, f"right-{number}") for number in range(3 * BURST)} == {""}
    assert {await code(logins, None) for _ in range(3 * BURST)} == {"no_token"}
    known.away = True
    assert "too_many_logins" not in {await code(logins, f"x-{number}") for number in range(3 * BURST)}


async def test_the_server_answers_429_and_says_when_to_come_again(tmp_path: Path) -> None:
    """Over HTTP."""
    tokens = tmp_path / "tokens"
    tokens.write_text(f"wall viewer {token_hash('v')}\n")
    world = Cluster()
    context = api_context(world)
    async with TestClient(TestServer(application(context, authenticator=TokenFile(tokens)))) as client:
        for _ in range(BURST + 1):
            answer = await client.get("/api/v1/ranges", headers={"Authorization": "Bearer wrong"})
        assert answer.status == 429
        assert (await answer.json())["code"] == "too_many_logins"
        assert int(answer.headers["Retry-After"]) >= SECONDS
        assert (await client.get("/livez")).status == 200
