"""Authentication by CYROID: asks its `GET /api/v1/auth/me` whose bearer token it is; the answer is cached for 30
seconds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

import aiohttp
import msgspec

from events.malformed import MALFORMED
from services.api.authentication import Actor, Role, token_hash
from services.errors import RequestRefused, Unavailable

CACHE_SECONDS = 30.0
CACHE_LIMIT = 1000
ANSWER_SECONDS = 5.0
ANSWER_LIMIT_BYTES = 64 * 1024


class _Role(msgspec.Struct):
    name: str = ""


class _Me(msgspec.Struct):
    """The fields of CYROID's answer that are read.

    A user may have one role or several, as text or as an object with a name.
    """

    username: str = ""
    email: str = ""
    role: str | _Role | None = None
    roles: list[str | _Role] = []


class CyroidLogin:
    """The authenticator. `roles` maps CYROID's roles to ours, `*` for every other user."""

    def __init__(
        self,
        *,
        session: aiohttp.ClientSession,
        url: str,
        roles: Mapping[str, Role],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._session = session
        self._url = f"{url.rstrip('/')}/api/v1/auth/me"
        self._roles = roles
        self._clock = clock
        self._known: dict[str, tuple[float, Actor]] = {}

    async def actor(self, token: str | None) -> Actor:
        if token is None:
            raise RequestRefused("the request has no bearer token", code="no_token")
        key, now = token_hash(token), self._clock()
        cached = self._known.get(key)
        if cached is not None and now < cached[0]:
            return cached[1]
        actor = self._actor(await self._ask(token))
        while len(self._known) >= CACHE_LIMIT:
            del self._known[next(iter(self._known))]
        self._known[key] = (now + CACHE_SECONDS, actor)
        return actor

    async def _ask(self, token: str) -> _Me:
        try:
            async with (
                asyncio.timeout(ANSWER_SECONDS),
                self._session.get(
                    self._url, headers={"Authorization": f"Bearer {token}"}, allow_redirects=False
                ) as answer,
            ):
                if answer.status in (401, 403):
                    raise RequestRefused("CYROID does not know the bearer token", code="bad_token")
                if answer.status != 200:
                    raise Unavailable(f"CYROID answered {answer.status} when it was asked whose token this is")
                return msgspec.json.decode(await _content(answer), type=_Me)
        except (aiohttp.ClientError, TimeoutError, OSError) as problem:
            raise Unavailable("CYROID cannot be asked whose token this is: see CYROID_API_CYROID_URL") from problem
        except (*MALFORMED, ValueError) as problem:
            raise Unavailable("CYROID's answer about the token cannot be read") from problem

    def _actor(self, me: _Me) -> Actor:
        theirs = [_name(one) for one in [*([me.role] if me.role else []), *me.roles]]
        ours = [self._roles[name] for name in theirs if name in self._roles]
        if not ours and "*" in self._roles:
            ours = [self._roles["*"]]
        if not ours:
            raise RequestRefused("this user of CYROID has no role here", code="forbidden")
        best = max(ours, key=("viewer", "operator", "admin").index)
        return Actor((me.username or me.email or "cyroid user")[:128], best)


async def _content(answer: aiohttp.ClientResponse) -> bytes:
    content = b""
    async for part in answer.content.iter_any():
        content += part
        if len(content) > ANSWER_LIMIT_BYTES:
            raise Unavailable("CYROID's answer about the token is too large")
    return content


def _name(role: str | _Role) -> str:
    return role if isinstance(role, str) else role.name
