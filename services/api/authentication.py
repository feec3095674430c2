"""Authentication of API requests: nobody is asked (`none`), by a file of tokens (`token`), or by CYROID (`cyroid`)."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from services.api.route import Access
from services.errors import BadInput, RequestRefused

if TYPE_CHECKING:
    from services.api.page_sessions import PageSessions

Role = Literal["viewer", "operator", "admin"]
_RANK: Mapping[Access, int] = {"open": 0, "viewer": 1, "operator": 2, "admin": 3}
_LINE = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9_.@-]{0,63})\s+(?P<role>viewer|operator|admin)\s+(?P<hash>[0-9a-f]{64})"
)
TOKEN_FILE_LIMIT_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Actor:
    """The caller of a request. Without a name the caller was not asked for one."""

    name: str
    role: Role


class Authenticator(Protocol):
    """Finds the actor of a token."""

    async def actor(self, token: str | None) -> Actor:
        """The actor.

        Raises RequestRefused for a token that is missing or not valid, Unavailable where it cannot be checked.
        """


class Login(Protocol):
    """An authenticator that knows from which address a token comes."""

    async def actor(self, token: str | None, client: str) -> Actor:
        """Raises as an Authenticator does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerAccess:
    """How callers are known: the setting, the authenticator, and the page's sessions."""

    auth: Literal["none", "token", "cyroid"]
    login: Login
    sessions: PageSessions


async def authorize(token: str | None, client: str, access: Access, login: Login) -> Actor:
    """The actor of the token that came from that address, if the role suffices. Raises RequestRefused."""
    actor = await login.actor(token, client)
    if _RANK[actor.role] < _RANK[access]:
        raise RequestRefused(f"this takes the role {access}; {actor.name} is {actor.role}", code="forbidden")
    return actor


class NoAuthentication:
    """No authentication, for a loopback address: every caller may do everything."""

    async def actor(self, token: str | None) -> Actor:
        return Actor("", "admin")


def check_listen(auth: str, listen: str) -> None:
    """Check that an API without authentication listens on loopback only. Raises BadInput."""
    host = listen.rpartition(":")[0].strip("[]")
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost"
    if auth == "none" and not loopback:
        raise BadInput(
            f"the API would answer everybody at {listen}: set CYROID_API_AUTH to token or cyroid, or CYROID_API_LISTEN"
            " to a loopback address",
            code="bad_setting",
        )


class TokenFile:
    """The tokens of a file, read again when it changes: a line that is taken out ends that token."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._actors: dict[str, Actor] = {}
        self._read_changed()

    async def actor(self, token: str | None) -> Actor:
        if token is None:
            raise RequestRefused("the request has no bearer token", code="no_token")
        self._read_changed()
        digest = token_hash(token)
        found = None
        for known, actor in self._actors.items():  # all of them: how long it takes tells nothing
            if hmac.compare_digest(known, digest):
                found = actor
        if found is None:
            raise RequestRefused("the bearer token is not known", code="bad_token")
        return found

    def _read_changed(self) -> None:
        """Raises BadInput for a file that cannot be used."""
        try:
            status = os.stat(self._path)
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
            if stamp != self._stamp:
                self._actors = parse_tokens(self._path.read_bytes()[:TOKEN_FILE_LIMIT_BYTES].decode())
                self._stamp = stamp
        except (OSError, UnicodeDecodeError) as problem:
            raise BadInput(
                f"the tokens cannot be read: {problem}; set CYROID_API_TOKENS", code="bad_setting"
            ) from problem


def parse_tokens(text: str) -> dict[str, Actor]:
    """SHA-256 of the token → actor. Raises BadInput with the line that is wrong."""
    found: dict[str, Actor] = {}
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        match = _LINE.fullmatch(stripped)
        if match is None:
            raise BadInput(f"line {number} of the token file is not NAME ROLE SHA256", code="bad_setting")
        role: Role = match["role"]  # type: ignore[assignment]  # the pattern has no other
        found[match["hash"]] = Actor(match["name"], role)
    return found


def token_hash(token: str) -> str:
    """The hash of a token as the file has it. Tokens are random and long, so a plain hash suffices."""
    return hashlib.sha256(token.encode(errors="surrogateescape")).hexdigest()
