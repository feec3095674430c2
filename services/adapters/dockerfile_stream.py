"""A build context on its way to the engine, with its Dockerfile read as it passes by."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable

from services.adapters.tar_stream import TarStream
from services.content.decompression import unpacked
from services.core.closing import closing
from services.errors import BadArchive
from services.ports import Chunks

#: An engine refuses a Dockerfile that is larger (moby: `builder/remotecontext`).
_DOCKERFILE_LIMIT_BYTES = 1024 * 1024


async def with_checked_dockerfile(
    context: Chunks, name: str, check: Callable[[str], Awaitable[None] | None]
) -> AsyncIterator[bytes]:
    """The same tar, unpacked if it was packed; what `check` raises ends it, so that the engine builds nothing. While it
    works, nothing is given on.

    A context that is no tar, or has no such Dockerfile, is for the engine to refuse.
    """
    plain = unpacked(context, "the build context")
    passed: deque[bytes] = deque()

    async def tee() -> AsyncIterator[bytes]:
        async for chunk in plain:
            passed.append(chunk)
            yield chunk

    async with closing(plain):
        tar = TarStream(tee(), "the build context")
        wanted = name.removeprefix("./")
        try:
            while (entry := await tar.next()) is not None:
                if entry.is_file and entry.name.removeprefix("./") == wanted:
                    content = await tar.read(_DOCKERFILE_LIMIT_BYTES)
                    if (checking := check((content or b"").decode(errors="replace"))) is not None:
                        await checking
                async for _ in tar.content():
                    while passed:
                        yield passed.popleft()
                while passed:
                    yield passed.popleft()
        except BadArchive:
            pass  # the engine gets what there is, and reports the error
        while passed:
            yield passed.popleft()
        async for chunk in plain:
            yield chunk
