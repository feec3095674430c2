"""Rate limit on failed logins: a client with many wrong tokens gets 429, and its tokens are not checked.

Counted for each client address. Behind one address there may be several people, so a token that was right before is
looked at whatever others show. A request without a token is no attempt.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable

from services.api.authentication import Actor, Authenticator, token_hash
from services.core.ranges.limits import Bucket
from services.errors import RequestRefused

#: Wrong tokens of one address in a row, and then one in so many seconds.
BURST = 20
SECONDS = 5.0
_CLIENTS = 10_000
_TOKENS = 1_000


def _running_loops_time() -> float:
    return asyncio.get_running_loop().time()


class FailedLogins:
    """In front of an authenticator. `clock` gives monotonic seconds."""

    def __init__(self, authenticator: Authenticator, *, clock: Callable[[], float] = _running_loops_time) -> None:
        self._authenticator = authenticator
        self._clock = clock
        self._accounts: OrderedDict[str, Bucket] = OrderedDict()
        self._right: OrderedDict[str, None] = OrderedDict()

    async def actor(self, token: str | None, client: str) -> Actor:
        """Raises RequestRefused, also for a token that is not looked at, and what the authenticator raises."""
        if token is None:
            return await self._authenticator.actor(None)
        key = token_hash(token)
        spent = key not in self._right
        if spent:  # before it is known to be wrong, so that attempts at the same time all count
            self._spend(client)
        try:
            actor = await self._authenticator.actor(token)
        except BaseException as problem:
            if isinstance(problem, RequestRefused) and problem.code == "bad_token":
                self._right.pop(key, None)
            elif spent:
                self._take_back(client)
            raise
        if spent:
            self._take_back(client)
        self._remember(key)
        return actor

    def _spend(self, client: str) -> None:
        """Raises RequestRefused where nothing is left."""
        account = self._accounts.setdefault(client, Bucket(1 / SECONDS, BURST))
        self._accounts.move_to_end(client)
        if len(self._accounts) > _CLIENTS:
            self._accounts.popitem(last=False)
        if account.try_spend(1, self._clock()):
            raise RequestRefused("too many wrong tokens came from this address", code="too_many_logins")

    def _take_back(self, client: str) -> None:
        account = self._accounts.get(client)
        if account is not None:
            account.level = min(BURST, account.level + 1)

    def _remember(self, key: str) -> None:
        self._right[key] = None
        self._right.move_to_end(key)
        if len(self._right) > _TOKENS:
            self._right.popitem(last=False)
