"""An OCI distribution registry over HTTP (distribution-spec 1.1; Docker registry API v2 where `registry:2` needs it).

`registry_http` makes the requests and classifies their errors, `registry_auth` authorises them, `registry_uploads`
uploads blobs. `memory_registry` is the fake; both pass `tests/contract/test_registry.py`.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Self

import aiohttp
import msgspec

from services.adapters.http_connector import TCPConnector
from services.adapters.registry_answers import decoded, not_a_registry
from services.adapters.registry_auth import Credentials
from services.adapters.registry_folder import RegistryFolder
from services.adapters.registry_http import CONNECTION_PROBLEMS, RegistryHttp
from services.adapters.registry_uploads import Upload
from services.core.images.manifests import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    MANIFEST_LIMIT_BYTES,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Manifest,
    sha256,
)
from services.errors import NotAnImage, TransferFailed, WrongContent
from services.ports import BlobDigest, Chunks

CHUNK_BYTES = 1024 * 1024
#: registry:2 answers 400 to more than this.
_PAGE = 1000
_PAGES_LIMIT = 10_000
_ACCEPT = {"Accept": ", ".join((OCI_MANIFEST, DOCKER_MANIFEST, OCI_INDEX, DOCKER_LIST))}
_NEXT = re.compile(r'<([^>]+)>\s*;\s*rel="?next"?')
_RESUMES = 3
_PING_SECONDS = 5.0
_CATALOG = ("registry:catalog:*",)


class _Catalog(msgspec.Struct):
    repositories: tuple[str, ...] | None


class _Tags(msgspec.Struct):
    tags: tuple[str, ...] | None = None


class HttpRegistry:
    """The port `services.ports.Registry` on a real registry. `address` is the one that ranges use."""

    def __init__(self, http: RegistryHttp, address: str, folder: RegistryFolder | None = None) -> None:
        self._http = http
        self._address = address
        self._folder = folder

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        url: str,
        *,
        address: str | None = None,
        credentials: Credentials | None = None,
        token_service: str = "",
        answer_seconds: float = 30.0,
        stall_seconds: float = 60.0,
        storage: Path | None = None,
    ) -> AsyncIterator[Self]:
        """Connect lazily to `url` (`http://host:port`). Leaving closes every connection.

        Large blobs are written into `storage`, the registry's own folder, where that is given.
        """
        folder = RegistryFolder(storage, stall_seconds=stall_seconds) if storage is not None else None
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=min(answer_seconds, 10.0), sock_read=None)
        connector = TCPConnector(limit=32, keepalive_timeout=30)
        try:
            async with aiohttp.ClientSession(
                connector=connector, timeout=timeout, auto_decompress=False, read_bufsize=CHUNK_BYTES
            ) as session:
                http = RegistryHttp(
                    session,
                    url,
                    credentials=credentials or Credentials(),
                    answer_seconds=answer_seconds,
                    stall_seconds=stall_seconds,
                    token_service=token_service,
                )
                yield cls(http, address or http.url.authority, folder)
        finally:
            if folder is not None:
                folder.close()
            await connector.cut()

    @property
    def address(self) -> str:
        return self._address

    async def ping(self) -> None:
        answer, _ = await self._http.fetch(
            "GET",
            "/v2/",
            scopes=(),
            accept=(200, 404),
            again=False,
            answer_seconds=min(_PING_SECONDS, self._http.answer_seconds),
        )
        if answer.status == 404:
            raise not_a_registry(answer, "no registry")

    async def blob_size(self, repository: str, digest: str) -> int | None:
        answer, _ = await self._http.fetch(
            "HEAD", f"/v2/{repository}/blobs/{digest}", scopes=_scopes(repository, "pull"), accept=(200, 404)
        )
        return int(answer.headers.get("Content-Length", 0)) if answer.status == 200 else None

    async def mount_blob(self, repository: str, digest: str, source: str) -> bool:
        """Mount a blob from another repository. 201 is a mount.

        202 is a refusal that opens an upload session, which is cancelled.
        """
        scopes = (*_scopes(repository, "pull,push"), *_scopes(source, "pull"))
        answer, _ = await self._http.fetch(
            "POST",
            f"/v2/{repository}/blobs/uploads/?mount={digest}&from={source}",
            scopes=scopes,
            accept=(201, 202),
            again=False,
        )
        if answer.status == 201:
            return True
        if location := answer.headers.get("Location"):
            await self._http.fetch("DELETE", location, scopes=scopes, accept=(202, 204, 404, 405), again=False)
        return False

    async def put_blob(self, repository: str, digest: BlobDigest, size_bytes: int | None, chunks: Chunks) -> None:
        upload = await Upload.start(self._http, repository, _scopes(repository, "pull,push"))
        if self._folder is None or (size_bytes is not None and size_bytes <= CHUNK_BYTES):
            await upload.run(digest, size_bytes, chunks)
            return
        written = await upload.run_in(self._folder, repository, digest, size_bytes=size_bytes, chunks=chunks)
        if written is not None and await self.blob_size(repository, written) is None:
            self._folder.give_up(f"the registry does not find {written} in {repository}, which was written there")
            raise TransferFailed(f"the registry does not find {written} in {repository}, which was written for it")

    def open_blob(self, repository: str, digest: str) -> AbstractAsyncContextManager[Chunks]:
        return self._open_blob(repository, digest)

    @asynccontextmanager
    async def _open_blob(self, repository: str, digest: str) -> AsyncIterator[Chunks]:
        if await self.blob_size(repository, digest) is None:
            raise TransferFailed(f"the registry has no blob {digest} in {repository} any more")
        chunks = self._blob_chunks(repository, digest)
        try:
            yield chunks
        finally:
            await chunks.aclose()

    async def _blob_chunks(self, repository: str, digest: str) -> AsyncGenerator[bytes, None]:
        """The blob's bytes, resumed with a Range after a cut; the last step is the check of the whole digest."""
        count, hasher = 0, hashlib.sha256()
        for resumes_left in reversed(range(_RESUMES)):
            before = count
            try:
                async for chunk in self._blob_range(repository, digest, count):
                    count += len(chunk)
                    await asyncio.to_thread(hasher.update, chunk)
                    yield chunk
                break
            except TransferFailed:
                if not resumes_left or count == before:
                    raise
        if f"sha256:{hasher.hexdigest()}" != digest:
            raise WrongContent(f"the registry's blob {digest} in {repository} has other content ({count} bytes came)")

    async def _blob_range(self, repository: str, digest: str, start: int) -> AsyncIterator[bytes]:
        what = f"a download of {digest[:19]} from {repository}"
        headers = {"Range": f"bytes={start}-"} if start else {}
        try:
            async with AsyncExitStack() as stack:
                async with asyncio.timeout(self._http.stall_seconds):
                    answer = await stack.enter_async_context(
                        self._http.stream(
                            "GET",
                            f"/v2/{repository}/blobs/{digest}",
                            scopes=_scopes(repository, "pull"),
                            accept=(206,) if start else (200,),
                            headers=headers,
                        )
                    )
                while True:
                    async with asyncio.timeout(self._http.stall_seconds):
                        chunk = await answer.content.read(CHUNK_BYTES)
                    if not chunk:
                        return
                    yield chunk
        except (*CONNECTION_PROBLEMS, TimeoutError) as problem:
            raise self._http.broken(problem, what) from problem

    async def manifest(self, repository: str, reference: str) -> tuple[Descriptor, Manifest] | None:
        answer, content = await self._http.fetch(
            "GET",
            f"/v2/{repository}/manifests/{reference}",
            scopes=_scopes(repository, "pull"),
            accept=(200, 404),
            headers=_ACCEPT,
            limit_bytes=MANIFEST_LIMIT_BYTES,
        )
        if answer.status == 404:
            return None
        told = reference if ":" in reference else answer.headers.get("Docker-Content-Digest")
        digest = sha256(content)
        if told is not None and told != digest:
            raise WrongContent(f"the registry's manifest {repository}:{reference} has digest {digest}, not {told}")
        try:
            manifest = Manifest.parse(content)
        except NotAnImage as problem:
            if not content.lstrip().startswith(b"{"):
                raise not_a_registry(answer, f"no manifest ({problem})") from problem
            raise NotAnImage(f"{repository}:{reference} in the registry {problem}", content) from problem
        media_type = answer.headers.get("Content-Type", manifest.body.media_type)
        return Descriptor(media_type=media_type, digest=digest, size=len(content)), manifest

    async def put_manifest(self, repository: str, reference: str, manifest: Manifest) -> Descriptor:
        await self._http.fetch(
            "PUT",
            f"/v2/{repository}/manifests/{reference}",
            scopes=_scopes(repository, "pull,push"),
            accept=(201, 202),
            headers={"Content-Type": manifest.body.media_type},
            body=manifest.content,
        )
        return manifest.descriptor

    async def delete_manifest(self, repository: str, digest: str) -> bool:
        answer, _ = await self._http.fetch(
            "DELETE",
            f"/v2/{repository}/manifests/{digest}",
            scopes=_scopes(repository, "pull,push,delete"),
            accept=(200, 202, 404),
        )
        return answer.status != 404

    async def repositories(self) -> AsyncIterator[str]:
        async for answer, content in self._pages("/v2/_catalog", _CATALOG):
            if answer.status == 404:
                raise not_a_registry(answer, "no list of its repositories")
            for repository in decoded(content, _Catalog, answer).repositories or ():
                yield repository

    async def tags(self, repository: str) -> list[str]:
        found: list[str] = []
        async for answer, content in self._pages(f"/v2/{repository}/tags/list", _scopes(repository, "pull")):
            if answer.status != 404:  # registry:2 has no tags list of a repository whose manifests are all deleted
                found += decoded(content, _Tags, answer).tags or ()
        return found

    async def _pages(self, path: str, scopes: tuple[str, ...]) -> AsyncIterator[tuple[aiohttp.ClientResponse, bytes]]:
        """The answers of a list, as the `Link` headers chain them; a chain that leads back to itself is refused."""
        location: str | None = f"{path}?n={_PAGE}"
        seen: set[str] = set()
        while location is not None:
            seen.add(location)
            answer, content = await self._http.fetch("GET", location, scopes=scopes, accept=(200, 404))
            yield answer, content
            following = _NEXT.search(answer.headers.get("Link", ""))
            location = str(self._http.at(following[1])) if following else None
            if location in seen or len(seen) > _PAGES_LIMIT:
                raise not_a_registry(answer, "a list without an end")


def _scopes(repository: str, actions: str) -> tuple[str, ...]:
    return (f"repository:{repository}:{actions}",)
