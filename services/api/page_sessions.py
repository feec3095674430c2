"""Session cookies of the page: a bearer token sealed (Fernet: AES with HMAC) with a key that all API processes share.

No token lies in Redis: the cookie holds it, with an id of the session. Each request asks the authenticator with the
token inside, so that a token which is taken back ends its sessions at once. Logging out puts the id on a revocation
list (a record that lives as long as the cookie could), so that a copy of the cookie is worth nothing: at once in the
process that was told, and within `LOOK_SECONDS` in the others.
"""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from http.cookies import Morsel

import msgspec
from aiohttp import web
from cryptography.fernet import Fernet, InvalidToken

from events.bus import BusClient, BusError, Outcome, RecordConflict
from events.malformed import MALFORMED
from events.records import ABSENT, ANY, Key

COOKIE = "cyroid_session"
SESSION_SECONDS = 12 * 3600
#: A session that was looked up is known for so long.
LOOK_SECONDS = 2.0
_KNOWN_LIMIT = 10_000


class SessionKey(msgspec.Struct, frozen=True):
    """The record `{prefix}:api:session-key`, made by the first process that needs it."""

    key: str


class SealedSession(msgspec.Struct, frozen=True):
    """What a cookie holds."""

    id: str
    token: str


class EndedSession(msgspec.Struct, frozen=True):
    """The record `{prefix}:api:ended-session:<id>`: the session was logged out."""

    at: datetime


def ended_key(prefix: str, session_id: str) -> Key[EndedSession]:
    """Where it is recorded that a session was logged out."""
    return Key(f"{prefix}:api:ended-session:{session_id}", EndedSession)


def session_key(prefix: str) -> Key[SessionKey]:
    """Where the key of the cookies is stored."""
    return Key(f"{prefix}:api:session-key", SessionKey)


class PageSessions:
    """Seals tokens into cookies, and opens them."""

    def __init__(self, bus: BusClient, prefix: str, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._bus = bus
        self._prefix = prefix
        self._record = session_key(prefix)
        self._fernet: Fernet | None = None
        self._monotonic = monotonic
        self._looked_up: OrderedDict[str, tuple[float, bool]] = OrderedDict()

    async def cookie(self, token: str, *, secure: bool) -> str:
        """The Set-Cookie header of a new session. Raises BusError."""
        session = SealedSession(id=secrets.token_hex(16), token=token.encode(errors="surrogateescape").hex())
        sealed = (await self._sealer()).encrypt(msgspec.json.encode(session)).decode()
        return _set_cookie(sealed, SESSION_SECONDS, secure=secure)

    @staticmethod
    def expired_cookie() -> str:
        """The Set-Cookie header that ends a session in the browser."""
        return _set_cookie("", 0, secure=False)

    async def end(self, request: web.Request) -> None:
        """End the session of the request's cookie, for every copy of it. Raises BusError."""
        session = await self._session(request)
        if session is None:
            return
        ended = EndedSession(at=datetime.now(UTC))
        write = ended_key(self._prefix, session.id).write(ended, expected=ANY, expires_seconds=SESSION_SECONDS)
        await self._bus.commit(Outcome(records=(write,)))
        self._know(session.id, is_ended=True)

    async def token(self, request: web.Request) -> str | None:
        """The token of the request: its bearer's, else its session's; None without either. Raises BusError."""
        scheme, _, bearer = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return bearer.strip() or None
        session = await self._session(request)
        if session is None or await self._is_ended(session.id):
            return None
        return bytes.fromhex(session.token).decode(errors="surrogateescape")

    async def _session(self, request: web.Request) -> SealedSession | None:
        sealed = request.cookies.get(COOKIE)
        if not sealed:
            return None
        try:
            content = (await self._sealer()).decrypt(sealed.encode(errors="replace"), ttl=SESSION_SECONDS)
            return msgspec.json.decode(content, type=SealedSession)
        except (InvalidToken, *MALFORMED):
            return None

    async def _is_ended(self, session_id: str) -> bool:
        """Whether it was logged out. Without Redis a session that is known goes on, as lists do."""
        known = self._looked_up.get(session_id)
        if known is not None and (known[1] or self._monotonic() - known[0] < LOOK_SECONDS):
            return known[1]
        try:
            is_ended = (await ended_key(self._prefix, session_id).load(self._bus)).value is not None
        except BusError:
            if known is None:
                raise
            is_ended = known[1]
        self._know(session_id, is_ended=is_ended)
        return is_ended

    def _know(self, session_id: str, *, is_ended: bool) -> None:
        self._looked_up[session_id] = self._monotonic(), is_ended
        self._looked_up.move_to_end(session_id)
        if len(self._looked_up) > _KNOWN_LIMIT:
            self._looked_up.popitem(last=False)

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
