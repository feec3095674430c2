"""HTTP client of a registry: bounded in time, authorised, retried only where that is safe, errors classified.

connection refused, no answer, 429, 502-504, read-only   → RegistryUnavailable
401, 403                                                 → RegistryUnavailable (wrong or missing credentials)
a redirection, a Location or Link on another server      → RegistryUnavailable (never followed)
a disk that is full (errno 28 in the answer, 507)        → NoSpace
DIGEST_INVALID                                           → WrongContent
other 5xx, a body cut off, MANIFEST_BLOB_UNKNOWN         → TransferFailed
no byte for a while in the middle                        → Stalled
other 4xx                                                → BadInput
"""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager

import aiohttp
from yarl import URL

from services.adapters.registry_answers import BAD_ANSWER, not_a_registry
from services.adapters.registry_auth import Authorizer, Credentials
from services.core.registry_place import RegistryPlace
from services.errors import (
    BadInput,
    CyroidError,
    NoSpace,
    RegistryUnavailable,
    Stalled,
    TransferFailed,
    WrongContent,
)

Body = bytes | AsyncIterator[bytes]
_AWAY = frozenset({429, 502, 503, 504})
_PAUSES_SECONDS = (0.1, 0.5)
_ERROR_LIMIT_BYTES = 64 * 1024
_AT_ONCE_BYTES = 512 * 1024
#: A page of a catalogue or of tags is the longest answer that is read whole.
ANSWER_LIMIT_BYTES = 64 * 1024 * 1024
CONNECTION_PROBLEMS = (aiohttp.ClientError, ConnectionError)


class RegistryHttp:
    """One registry's HTTP. `answer_seconds` bounds a request without a body, `stall_seconds` a silence in a stream."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        *,
        credentials: Credentials,
        answer_seconds: float,
        stall_seconds: float,
        token_service: str = "",
    ) -> None:
        place = RegistryPlace.of(url)
        self.url = URL(place.url)
        if place.username:
            credentials = Credentials(username=place.username, password=place.password)
        self.answer_seconds = answer_seconds
        self.stall_seconds = stall_seconds
        self._session = session
        self._authorizer = Authorizer(
            session, credentials, registry=self.url, token_service=token_service, answer_seconds=answer_seconds
        )

    def at(self, location: str) -> URL:
        """An absolute URL from a path or from a `Location` or `Link` header, which may be relative.

        Raises RegistryUnavailable for one on another server: nothing of ours goes there.
        """
        try:
            url = self.url.join(URL(location, encoded=True))
            elsewhere = url.origin() != self.url.origin()
        except ValueError as problem:
            raise RegistryUnavailable(
                f"the registry {self.url} names a location that is no URL: {problem}", code=BAD_ANSWER
            ) from problem
        if elsewhere:
            raise self._elsewhere(url)
        return url

    def _elsewhere(self, url: URL) -> RegistryUnavailable:
        return RegistryUnavailable(
            f"the registry {self.url} leads on to {url.origin()}, another address, which is not followed: in its"
            " configuration set http.relativeurls and storage.redirect.disable, and let a proxy pass Host on; or give"
            " CYROID_REGISTRY_URL that address",
            code="registry_elsewhere",
        )

    async def fetch(
        self,
        method: str,
        location: str,
        *,
        scopes: tuple[str, ...],
        accept: Iterable[int],
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        again: bool = True,
        answer_seconds: float | None = None,
        limit_bytes: int = ANSWER_LIMIT_BYTES,
    ) -> tuple[aiohttp.ClientResponse, bytes]:
        """A whole answer in memory. With `again`, connection problems are tried again: only for idempotent requests.

        Raises TransferFailed for an answer of more than `limit_bytes`: somebody else's server may send without end.
        """
        pauses = _PAUSES_SECONDS if again else ()
        for pause in (*pauses, None):
            try:
                async with (
                    asyncio.timeout(answer_seconds or self.answer_seconds),
                    self.stream(method, location, scopes=scopes, accept=accept, headers=headers, body=body) as answer,
                ):
                    content = bytearray()
                    async for chunk in answer.content.iter_any():
                        content += chunk
                        if len(content) > limit_bytes:
                            raise TransferFailed(f"{answer.url} of the registry has more than {limit_bytes} bytes")
                    return answer, bytes(content)
            except aiohttp.ClientConnectorError as problem:
                raise self.away(problem) from problem  # nobody listens: the roles wait for it, not one request
            except (*CONNECTION_PROBLEMS, TimeoutError) as problem:
                failure: CyroidError = self.away(problem)
            except RegistryUnavailable as problem:
                failure = problem
            if pause is None:
                raise failure
            await asyncio.sleep(pause)
        raise AssertionError("the last pause is None")

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        location: str,
        *,
        scopes: tuple[str, ...],
        accept: Iterable[int],
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer whose body is still to come. The caller bounds it; leaving ends the request.

        A challenge is answered once; a body that streams cannot be sent twice, so its scopes are to be known before.
        """
        for last in (False, True):
            async with self._raw(method, location, scopes, headers, body) as answer:
                challenge = answer.headers.get("WWW-Authenticate")
                whole = body is None or isinstance(body, bytes)
                asked = answer.status == 401 and challenge is not None and whole and not last
                if asked and await self._authorizer.learn(challenge or "", scopes):
                    continue
                if answer.status not in accept:
                    raise await self._problem(answer)
                yield answer
                return

    @asynccontextmanager
    async def _raw(
        self, method: str, location: str, scopes: tuple[str, ...], headers: Mapping[str, str] | None, body: Body | None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        url = self.at(location)
        sent = dict(headers or {})
        authorization = self._authorizer.header(scopes)
        if authorization:
            sent["Authorization"] = authorization
        answer = await self._session.request(method, url, headers=sent, data=_payload(body), allow_redirects=False)
        try:
            yield answer
        finally:
            if answer.status >= 300 or not answer.content.at_eof():
                answer.close()  # never wait for a body that the other side no longer reads, or we no longer want
            else:
                answer.release()

    async def _problem(self, answer: aiohttp.ClientResponse) -> CyroidError:
        """The error for an unwanted status."""
        if 300 <= answer.status < 400:
            self.at(answer.headers.get("Location", ""))  # raises for another server
            return not_a_registry(answer, "a redirection, which is not followed")
        try:
            async with asyncio.timeout(self.answer_seconds):
                text = (await answer.content.read(_ERROR_LIMIT_BYTES)).decode(errors="replace").strip()
        except (*CONNECTION_PROBLEMS, TimeoutError):
            text = ""
        said = f"the registry {self.url} answered {answer.status} to {answer.method} {answer.url.path}: {text[:500]}"
        return _meaning(answer.status, text, said)

    def away(self, problem: BaseException) -> RegistryUnavailable:
        """The error for a registry that does not answer."""
        reason = str(problem) or type(problem).__name__
        if isinstance(problem, OSError) and (problem.errno or 0) > 0:  # aiohttp's own text is long and says less
            reason = os.strerror(problem.errno or 0).lower()
        return RegistryUnavailable(f"the registry {self.url} does not answer ({reason}): check that it runs")

    def broken(self, problem: BaseException, what: str) -> TransferFailed:
        """The error for a connection that was cut off or silent in the middle of `what`."""
        if isinstance(problem, TimeoutError):
            return Stalled(f"the registry {self.url} stalled for {self.stall_seconds:g} s in {what}")
        reason = str(problem) or type(problem).__name__
        if isinstance(problem, OSError) and (problem.errno or 0) > 0:  # aiohttp's own text is long and says less
            reason = os.strerror(problem.errno or 0).lower()
        return TransferFailed(f"the connection to the registry {self.url} broke in {what}: {reason}")


def _payload(body: Body | None) -> Body | io.BytesIO | None:
    """aiohttp sends large bytes in one go, which stops the event loop meanwhile; a file it sends in pieces."""
    return io.BytesIO(body) if isinstance(body, bytes) and len(body) > _AT_ONCE_BYTES else body


_CREDENTIALS = "Check the registry's user name, password or token"


def _meaning(status: int, text: str, said: str) -> CyroidError:
    """The error for a status and what its body says; the first that fits."""
    full = status == 507 or "no space left" in text or '"Err":28' in text
    broken = status >= 500 or any(word in text for word in ("BLOB_UNKNOWN", "BLOB_UPLOAD", "SIZE_INVALID"))
    table: tuple[tuple[bool, CyroidError], ...] = (
        (full, NoSpace(f"{said}. Its disk is full: make room, or collect its garbage")),
        (status in {401, 403}, RegistryUnavailable(f"{said}. {_CREDENTIALS}", code="registry_denied")),
        (status == 405, RegistryUnavailable(f"{said}. It is read-only now (garbage collection?), or may not delete")),
        (status in _AWAY, RegistryUnavailable(said)),
        ("DIGEST_INVALID" in text, WrongContent(said)),
        (broken, TransferFailed(said)),
    )
    return next((error for applies, error in table if applies), BadInput(said))
