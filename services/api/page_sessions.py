"""Session cookies of the page: a bearer token sealed (Fernet: AES with HMAC) with a key that all API processes share.

The cookie is the session: nothing is stored for each, and no token lies in Redis. Each request asks the authenticator
with the token inside, so that a token which is taken back ends its sessions at once.
"""

from __future__ import annotations

from http.cookies import Morsel

import msgspec
from aiohttp import web
from cryptography.fernet import Fernet, InvalidToken

from events.bus import BusClient, Outcome, RecordConflict
from events.records import ABSENT, Key

COOKIE = "cyroid_session"
SESSION_SECONDS = 12 * 3600


class SessionKey(msgspec.Struct, frozen=True):
    """The record `{prefix}:api:session-key`, made by the first process that needs it."""

    key: str


def session_key(prefix: str) -> Key[SessionKey]:
    """Where the key of the cookies is stored."""
    return Key(f"{prefix}:api:session-key", SessionKey)


class PageSessions:
    """Seals tokens into cookies, and opens them."""

    def __init__(self, bus: BusClient, prefix: str) -> None:
        self._bus = bus
        self._record = session_key(prefix)
        self._fernet: Fernet | None = None

    async def cookie(self, token: str, *, secure: bool) -> str:
        """The Set-Cookie header of a new session. Raises BusError."""
        sealed = (await self._sealer()).encrypt(token.encode(errors="surrogateescape")).decode()
        return _set_cookie(sealed, SESSION_SECONDS, secure=secure)

    @staticmethod
    def expired_cookie() -> str:
        """The Set-Cookie header that ends a session."""
        return _set_cookie("", 0, secure=False)

    async def token(self, request: web.Request) -> str | None:
        """The token of the request: its bearer's, else its session's; None without either. Raises BusError."""
        scheme, _, bearer = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return bearer.strip() or None
        sealed = request.cookies.get(COOKIE)
        return await self._opened(sealed) if sealed else None

    async def _opened(self, sealed: str) -> str | None:
        try:
            content = (await self._sealer()).decrypt(sealed.encode(errors="replace"), ttl=SESSION_SECONDS)
        except InvalidToken:
            return None
        return content.decode(errors="surrogateescape")

    async def _sealer(self) -> Fernet:
        if self._fernet is None:
            self._fernet = Fernet(await self._shared_key())
        return self._fernet

    async def _shared_key(self) -> str:
        while True:
            stored = await self._record.load(self._bus)
            if stored.value is not None:
                return stored.value.key
            made = SessionKey(key=Fernet.generate_key().decode())
            try:
                await self._bus.commit(Outcome(records=(self._record.write(made, expected=ABSENT),)))
            except RecordConflict:
                continue  # another process made it in this moment


def _set_cookie(value: str, seconds: int, *, secure: bool) -> str:
    """Without a path, so that it is the API's own wherever a proxy shows it."""
    morsel: Morsel[str] = Morsel()
    morsel.set(COOKIE, value, value)
    morsel["max-age"] = seconds
    morsel["httponly"] = True
    morsel["samesite"] = "Strict"
    if secure:
        morsel["secure"] = True
    return morsel.OutputString()
