"""Upload of one blob to a registry: POST a session, PATCH the stream, PUT the digest (distribution-spec, "Push").

The registry hashes what it gets and refuses what is not the digest; hashing a stream here as well would take a third of
this process's CPU and find nothing more. registry:2 keeps what it refuses, so that session is cancelled too.

What fits in one chunk goes with the PUT. Longer blobs are streamed in one PATCH, because `registry:2` syncs its file at
the end of every request: many small ones would wait for the disk each time.

**A broken upload starts over.** registry:2 keeps what came of a PATCH that was cut off, and then finds that its file is
longer than the signed state in the session's location says: it answers BLOB_UPLOAD_INVALID to everything and cancels
the session (2.8, blobupload.go, "upload resumed at wrong offset"). So there is no offset to go on from, chunked or not;
what does go on is the push: the layers that were finished are there, and only the broken one is sent again.

**A session that is not finished is cancelled.** registry:2 accepts a DELETE only at the `Location` that its last answer
gave, so when the source fails, or the task is cancelled, the body is *ended* (not cut), the answer's new location is
awaited, and that one is deleted. Only where the connection itself broke, or the registry's disk is full (its answer
has no location then), something stays behind: the collector purges it (`services.collector.uploads`), and the
registry itself by age.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from urllib.parse import quote

from yarl import URL

from services.adapters.registry_folder import RegistryFolder
from services.adapters.registry_http import CONNECTION_PROBLEMS, RegistryHttp
from services.errors import CyroidError, RegistryUnavailable, WrongContent
from services.ports import BlobDigest, Chunks

_OCTETS = {"Content-Type": "application/octet-stream"}
#: A registry brings an upload to its disk after the last byte was sent: a slow disk writes this much in a second.
_SLOW_DISK_BYTES = 16 * 1024 * 1024
_CANCEL_SECONDS = 10.0
#: Chunks read ahead of the connection: reading and sending overlap, memory stays flat.
_AHEAD = 2


class Upload:
    """One upload session of `repository`. `location` is always the one of the registry's last answer."""

    def __init__(self, http: RegistryHttp, repository: str, scopes: tuple[str, ...], location: str) -> None:
        self._http = http
        self._scopes = scopes
        self._location = location
        self._what = f"an upload to {repository}"

    @property
    def identifier(self) -> str:
        """The session's id, as the registry names its folder."""
        return URL(self._location, encoded=True).name

    @classmethod
    async def start(cls, http: RegistryHttp, repository: str, scopes: tuple[str, ...]) -> Upload:
        answer, _ = await http.fetch(
            "POST", f"/v2/{repository}/blobs/uploads/", scopes=scopes, accept=(202,), again=False
        )
        return cls(http, repository, scopes, _location(http, answer.headers.get("Location")))

    async def run(self, digest: BlobDigest, size_bytes: int | None, chunks: Chunks) -> None:
        """Upload the whole blob. Raises WrongContent if the registry counts another digest, or the size differs."""
        finished = False
        try:
            first = await anext(chunks, b"")
            second = await anext(chunks, None) if first else None
            if second is None:
                wanted = digest if isinstance(digest, str) else digest()
                _check_size(wanted, size_bytes, len(first))
                _check_digest(wanted, hashlib.sha256(first))
                await self._finish(wanted, first, len(first))
            else:
                sent_bytes = await self._patch(_chained(first, second, chunks))
                wanted = digest if isinstance(digest, str) else digest()
                _check_size(wanted, size_bytes, sent_bytes)
                await self._finish(wanted, b"", sent_bytes)
            finished = True
        finally:
            if not finished:
                await self._cancel()

    async def run_in(
        self, folder: RegistryFolder, repository: str, digest: BlobDigest, *, size_bytes: int | None, chunks: Chunks
    ) -> str | None:
        """Write the blob into the registry's storage; its digest. None: it was uploaded, this is not its storage, or
        not to be written. Raises NoSpace, TransferFailed, Stalled, WrongContent.
        """
        try:
            file = await folder.session(repository, self.identifier)
        except BaseException:
            await self._cancel()
            raise
        if file is None:
            await self.run(digest, size_bytes, chunks)
            return None
        try:
            return await folder.write(file, repository, digest, size_bytes=size_bytes, chunks=chunks)
        finally:
            await self._afterwards(file.close)
            await self._cancel()
            await self._afterwards(file.remove)  # of a cancelled session the registry keeps some bytes of state

    async def _afterwards(self, step: Callable[[], None]) -> None:
        """Wait a moment for a blocking step; it goes on by itself."""
        running = asyncio.ensure_future(asyncio.to_thread(step))
        await asyncio.wait({running}, timeout=min(_CANCEL_SECONDS, self._http.stall_seconds))

    async def _patch(self, chunks: Chunks) -> int:
        """Stream the body in a task of its own, so that the request is always ended properly."""
        queue: asyncio.Queue[bytes | None] = asyncio.Queue(_AHEAD)
        request = asyncio.create_task(self._send(queue), name=self._what)
        sent_bytes = 0
        ended = False
        try:
            async for chunk in chunks:
                await self._offer(queue, chunk, request)
                sent_bytes += len(chunk)
            await self._offer(queue, None, request)
            ended = True
            async with asyncio.timeout(self._finish_seconds(sent_bytes)):
                await asyncio.shield(request)
            return sent_bytes
        except TimeoutError as problem:
            raise self._http.broken(problem, f"the end of {self._what}") from problem
        finally:
            await self._end(queue, request, ended=ended)

    async def _offer(
        self, queue: asyncio.Queue[bytes | None], chunk: bytes | None, request: asyncio.Task[None]
    ) -> None:
        """Hand one chunk to the request, unless it has ended already or takes nothing for too long."""
        if not queue.full() and not request.done():
            queue.put_nowait(chunk)
            return
        put = asyncio.ensure_future(queue.put(chunk))
        try:
            await asyncio.wait({put, request}, timeout=self._http.stall_seconds, return_when=asyncio.FIRST_COMPLETED)
            if request.done():
                await request  # raises what ended it
                raise self._http.broken(ConnectionError("answered before the end"), self._what)
            if not put.done():
                raise self._http.broken(TimeoutError(), self._what)
        finally:
            put.cancel()

    async def _send(self, queue: asyncio.Queue[bytes | None]) -> None:
        async def body() -> AsyncIterator[bytes]:
            while (chunk := await queue.get()) is not None:
                yield chunk

        try:
            async with self._http.stream(
                "PATCH", self._location, scopes=self._scopes, accept=(202, 204), headers=_OCTETS, body=body()
            ) as answer:
                self._location = _location(self._http, answer.headers.get("Location"))
        except CONNECTION_PROBLEMS as problem:
            raise self._http.broken(problem, self._what) from problem

    async def _end(self, queue: asyncio.Queue[bytes | None], request: asyncio.Task[None], *, ended: bool) -> None:
        """End the body early and wait a moment for the answer, whose location is the one to delete."""
        if not ended and not request.done():
            while not queue.empty():
                queue.get_nowait()
            queue.put_nowait(None)
        await asyncio.wait({request}, timeout=min(_CANCEL_SECONDS, self._http.stall_seconds))
        if not request.done():
            request.cancel()
            await asyncio.wait({request})
        if not request.cancelled():
            request.exception()  # seen: the reason for ending is already on its way to the caller

    def _finish_seconds(self, sent_bytes: int) -> float:
        return self._http.stall_seconds + sent_bytes / _SLOW_DISK_BYTES

    async def _finish(self, digest: str, content: bytes, whole_bytes: int) -> None:
        mark = "&" if "?" in self._location else "?"
        await self._http.fetch(
            "PUT",
            f"{self._location}{mark}digest={quote(digest, safe='')}",
            scopes=self._scopes,
            accept=(201, 204),
            headers=_OCTETS,
            body=content,
            again=False,
            answer_seconds=self._finish_seconds(whole_bytes),
        )

    async def _cancel(self) -> None:
        """Best effort: the caller gets the reason why the upload ended."""
        try:
            async with asyncio.timeout(_CANCEL_SECONDS):
                await self._http.fetch(
                    "DELETE", self._location, scopes=self._scopes, accept=(202, 204, 404), again=False
                )
        except (CyroidError, TimeoutError):
            return


def _location(http: RegistryHttp, header: str | None) -> str:
    if header is None:
        raise RegistryUnavailable(f"the registry {http.url} accepted an upload but named no location for it")
    return str(http.at(header))


async def _chained(first: bytes, second: bytes, rest: Chunks) -> AsyncIterator[bytes]:
    yield first
    yield second
    async for chunk in rest:
        yield chunk


def _check_digest(wanted: str, state: hashlib._Hash) -> None:
    if f"sha256:{state.hexdigest()}" != wanted:
        raise WrongContent(f"the blob {wanted} was to be uploaded, its source gave sha256:{state.hexdigest()}")


def _check_size(digest: str, wanted: int | None, got: int) -> None:
    if wanted is not None and wanted != got:
        raise WrongContent(f"the blob {digest} was to have {wanted} bytes, its source gave {got}")
