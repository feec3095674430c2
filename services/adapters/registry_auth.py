"""How requests to a registry are authorised: not at all, `Basic`, or `Bearer` tokens fetched for a scope.

A registry answers 401 with a challenge (distribution's auth/token.md); a token for the asked scopes comes from the
`realm` it names, with our name and password, and is kept until shortly before it expires. A ready token from the
settings is sent as it is.
"""

from __future__ import annotations

import base64
import re
import time
from dataclasses import dataclass, field

import aiohttp
import msgspec

from services.errors import RegistryUnavailable

_PARAMETER = re.compile(r'(\w+)="([^"]*)"')
_MARGIN_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Who we are to the registry. Either a name with a password, or a ready `token`, or nothing (anonymous)."""

    username: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)

    @property
    def basic(self) -> str | None:
        if not self.username:
            return None
        pair = f"{self.username}:{self.password}".encode()
        return "Basic " + base64.b64encode(pair).decode()


class _TokenAnswer(msgspec.Struct):
    """auth/token.md: the token is in `token` or, for OAuth's sake, in `access_token`; 60 s unless told."""

    token: str | None = None
    access_token: str | None = None
    expires_in: float = 60.0


class Authorizer:
    """Gives the `Authorization` header for some scopes, and learns from challenges."""

    def __init__(self, session: aiohttp.ClientSession, credentials: Credentials) -> None:
        self._session = session
        self._credentials = credentials
        self._basic = False
        self._tokens: dict[tuple[str, ...], tuple[str, float]] = {}

    def header(self, scopes: tuple[str, ...]) -> str | None:
        """What to send for these scopes as far as is known now."""
        if self._credentials.token:
            return f"Bearer {self._credentials.token}"
        if self._basic:
            return self._credentials.basic
        token, until = self._tokens.get(scopes, ("", 0.0))
        return f"Bearer {token}" if time.monotonic() < until else None

    async def learn(self, challenge: str, scopes: tuple[str, ...]) -> bool:
        """Act on a `WWW-Authenticate` header; False if there is nothing better to send than before."""
        kind, _, rest = challenge.partition(" ")
        if kind.lower() == "basic":
            known, self._basic = self._basic, self._credentials.basic is not None
            return self._basic and not known
        if kind.lower() != "bearer" or self._credentials.token:
            return False
        parameters = dict(_PARAMETER.findall(rest))
        if "realm" not in parameters:
            return False
        answer = await self._fetch(parameters["realm"], parameters.get("service"), scopes)
        token = answer.token or answer.access_token
        if token is None:
            return False
        self._tokens[scopes] = (token, time.monotonic() + max(answer.expires_in - _MARGIN_SECONDS, 1.0))
        return True

    async def _fetch(self, realm: str, service: str | None, scopes: tuple[str, ...]) -> _TokenAnswer:
        query = [("scope", scope) for scope in scopes] + ([("service", service)] if service else [])
        headers = {"Authorization": self._credentials.basic} if self._credentials.basic else {}
        try:
            async with self._session.get(realm, params=query, headers=headers) as answer:
                content = await answer.read()
                if answer.status != 200:
                    raise RegistryUnavailable(
                        f"the registry's token service {realm} answered {answer.status}:"
                        " check the registry's user name and password",
                        code="registry_denied",
                    )
                return msgspec.json.decode(content, type=_TokenAnswer)
        except (aiohttp.ClientError, TimeoutError, msgspec.DecodeError) as problem:
            raise RegistryUnavailable(f"the registry's token service {realm} gave no token: {problem}") from problem
