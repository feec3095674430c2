"""A build context whose Dockerfile is read as it passes."""

import gzip
from collections.abc import AsyncIterator

import pytest

from services.adapters.dockerfile_stream import with_checked_dockerfile
from services.errors import BuildFailed
from tests.images import tar_of

CONTEXT = tar_of({"before": b"x" * 5000, "./sub/Dockerfile": b"FROM scratch\n", "after": b"y" * 3000})


async def chunks(content: bytes, size: int = 700) -> AsyncIterator[bytes]:
    """Content as it would stream."""
    for start in range(0, len(content), size):
        yield content[start : start + size]


@pytest.mark.parametrize("packed", [False, True])
async def test_the_context_passes_unchanged_and_its_dockerfile_is_checked(packed: bool) -> None:
    """Under either spelling of its name; what was packed comes out plain."""
    seen: list[str] = []
    content = gzip.compress(CONTEXT) if packed else CONTEXT
    stream = with_checked_dockerfile(chunks(content), "sub/Dockerfile", seen.append)
    assert b"".join([chunk async for chunk in stream]) == CONTEXT
    assert seen == ["FROM scratch\n"]


async def test_a_dockerfile_that_is_refused_ends_the_context() -> None:
    """Before its end, so that the engine builds nothing."""

    def refuse(content: str) -> None:
        raise BuildFailed(content)

    passed = bytearray()

    async def send() -> None:
        async for chunk in with_checked_dockerfile(chunks(CONTEXT), "./sub/Dockerfile", refuse):
            passed.extend(chunk)

    with pytest.raises(BuildFailed, match="FROM scratch"):
        await send()
    assert CONTEXT.startswith(passed)
    assert len(passed) < len(CONTEXT)


@pytest.mark.parametrize("content", [b"", b"no tar at all" * 100, CONTEXT[:600], tar_of({"a": b"a"})])
async def test_what_is_no_context_is_left_to_the_engine(content: bytes) -> None:
    """Every byte of it passes, and nothing was checked."""
    seen: list[str] = []
    stream = with_checked_dockerfile(chunks(content), "Dockerfile", seen.append)
    assert b"".join([chunk async for chunk in stream]) == content
    assert seen == []
