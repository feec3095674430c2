"""Authorisation of requests to a registry: none, `Basic`, or `Bearer` tokens fetched for a scope.

A registry answers 401 with a challenge (distribution's auth/token.md); a token for the asked scopes comes from the
`realm` it names, with our name and password, and is kept until shortly before it expires. A ready token from the
settings is sent as it is.
"""

from __future__ import annotations

import asyncio
import base64
import re
import time
from dataclasses import dataclass, field

import aiohttp
import msgspec
from yarl import URL

from services.adapters.registry_answers import BAD_ANSWER, decoded, not_a_registry
from services.errors import RegistryUnavailable

_PARAMETER = re.compile(r'(\w+)="([^"]*)"')
_MARGIN_SECONDS = 10.0
_TOKEN_LIMIT_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Our credentials for the registry: a name with a password, a ready `token`, or none (anonymous)."""

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
    """Provides the `Authorization` header for scopes, and learns from challenges."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        credentials: Credentials,
        *,
        registry: URL,
        token_service: str = "",
        answer_seconds: float = 30.0,
    ) -> None:
        self._session = session
        self._credentials = credentials
        self._registry = registry
        self._token_service = token_service
        self._answer_seconds = answer_seconds
        self._basic = False
        self._tokens: dict[tuple[str, ...], tuple[str, float]] = {}

    def header(self, scopes: tuple[str, ...]) -> str | None:
        """The `Authorization` header for these scopes, as far as it is known now."""
        if self._credentials.token:
            return f"Bearer {self._credentials.token}"
        if self._basic:
            return self._credentials.basic
        token, until = self._tokens.get(scopes, ("", 0.0))
        return f"Bearer {token}" if time.monotonic() < until else None

    async def learn(self, challenge: str, scopes: tuple[str, ...]) -> bool:
        """Evaluate a `WWW-Authenticate` header. False if there is nothing better to send than before."""
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
        url = self._token_url(realm)
        query = [("scope", scope) for scope in scopes] + ([("service", service)] if service else [])
        headers = {"Authorization": self._credentials.basic} if self._credentials.basic else {}
        try:
            async with (
                asyncio.timeout(self._answer_seconds),
                self._session.get(url.update_query(query), headers=headers, allow_redirects=False) as answer,
            ):
                content = await _whole(answer)
                if answer.status in {400, 401, 403}:
                    raise RegistryUnavailable(
                        f"the registry's token service {url} answered {answer.status}:"
                        " check the registry's user name and password",
                        code="registry_denied",
                    )
                if answer.status != 200:
                    raise not_a_registry(answer, "no token")
                return decoded(content, _TokenAnswer, answer)
        except (aiohttp.ClientError, TimeoutError, OSError) as problem:
            reason = str(problem) or type(problem).__name__
            raise RegistryUnavailable(f"the registry's token service {url} gave no token: {reason}") from problem

    def _token_url(self, realm: str) -> URL:
        """Our name and password go to the registry's own host, or to the one that an operator named."""
        try:
            url = URL(realm)
            place, host = url.authority.rpartition("@")[2], url.host
        except ValueError as problem:
            raise RegistryUnavailable(
                f"the registry {self._registry} names a token service that is no URL", code=BAD_ANSWER
            ) from problem
        allowed = self._token_service in {place, host} if self._token_service else host == self._registry.host
        if url.scheme not in {"http", "https"} or host is None or not allowed:
            raise RegistryUnavailable(
                f"the registry {self._registry} sends us to {place or 'no host'} for a token, which is not its own"
                f" host: if that is right, set CYROID_REGISTRY_TOKEN_SERVICE={place}",
                code="registry_elsewhere",
            )
        return url.with_user(None)


async def _whole(answer: aiohttp.ClientResponse) -> bytes:
    """The body, up to the size that a token may have."""
    content = bytearray()
    async for chunk in answer.content.iter_any():
        content += chunk
        if len(content) > _TOKEN_LIMIT_BYTES:
            raise not_a_registry(answer, f"more than {_TOKEN_LIMIT_BYTES} bytes")
    return bytes(content)
