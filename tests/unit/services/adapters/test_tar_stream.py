"""Reading a tar as it flows."""

from __future__ import annotations

import io
import tarfile
from collections.abc import AsyncIterator
from typing import Literal

import pytest

from services.adapters.tar_stream import TarStream
from services.core.archives.tar_headers import HeaderReader
from services.errors import BadArchive

FILES = {
    "short": b"x",
    "empty": b"",
    "block": b"b" * 512,
    "n" * 150 + "/" + "m" * 150: b"long name" * 100,
    "non-ascii-é": b"e" * 1000,
    "large": bytes(range(256)) * 1000,
}


def tar_of(tar_format: int) -> bytes:
    """All those files, a folder and a link, in one of the formats engines write."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tar_format) as tar:
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name, content in FILES.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("link")
        link.type, link.linkname, link.size = tarfile.SYMTYPE, "t" * 200, 0
        tar.addfile(link)
    return raw.getvalue()


async def stream(content: bytes, size: int) -> AsyncIterator[bytes]:
    """Content in chunks of one size."""
    for start in range(0, len(content), size):
        yield content[start : start + size]


@pytest.mark.parametrize("tar_format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT], ids=["gnu", "pax"])
@pytest.mark.parametrize("size", [1, 100, 512, 700, 1 << 20])
async def test_entries_come_whole_however_the_stream_is_cut(tar_format: int, size: int) -> None:
    """Names, kinds and contents, whatever the chunks; a peek takes nothing away."""
    tar = TarStream(stream(tar_of(tar_format), size), "test")
    found, others = {}, []
    while (entry := await tar.next()) is not None:
        if not entry.is_file:
            others.append(entry.name)
            continue
        assert (await tar.peek(10)) == FILES[entry.name][:10]
        found[entry.name] = b"".join([chunk async for chunk in tar.content()])
    assert found == FILES
    assert others == ["folder", "link"]


async def test_what_is_not_read_is_passed_over() -> None:
    """Headers alone, and contents read in part."""
    tar = TarStream(stream(tar_of(tarfile.PAX_FORMAT), 700), "test")
    names = []
    while (entry := await tar.next()) is not None:
        names.append(entry.name)
        if entry.name == "large":
            assert await anext(tar.content())
        elif entry.is_file:
            assert await tar.read(600) == (FILES[entry.name] if len(FILES[entry.name]) <= 600 else None)
    assert names == ["folder", *FILES, "link"]


async def _names(content: bytes) -> list[str]:
    tar = TarStream(stream(content, 1000), "test")
    names = []
    while (entry := await tar.next()) is not None:
        names.append(entry.name)
    return names


@pytest.mark.parametrize("keep", [0, 100, 511, 512, 2000, 100_000])
async def test_a_tar_cut_off_is_bad(keep: int) -> None:
    """A stream that ends before the tar does is no tar."""
    with pytest.raises(BadArchive, match="cut off"):
        await _names(tar_of(tarfile.PAX_FORMAT)[:keep])


async def test_noise_is_bad() -> None:
    """Bytes that are no header."""
    with pytest.raises(BadArchive, match="no tar header"):
        await _names(b"noise" * 1000)


@pytest.mark.parametrize("tar_format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT], ids=["gnu", "pax"])
def test_sizes_over_eight_gibibytes_are_read(tar_format: Literal[1, 2]) -> None:
    """Base-256 numbers of GNU tar, and pax records."""
    info = tarfile.TarInfo("huge")
    info.size = 9 * 1024**3 + 5
    blocks = info.tobuf(tar_format)
    reader = HeaderReader()
    first = reader.header(blocks[:512])
    if isinstance(first, int):
        reader.extension(blocks[512 : 512 + first])
        first = reader.header(blocks[-512:])
    assert not isinstance(first, int)
    assert first.content_bytes == info.size
    assert first.name == "huge"


@pytest.mark.parametrize("records", [b"99 path=x\n", b"x path=x\n", b"9 pathxx\n", b"12 size=-10\n", b"0 a=b\n"])
def test_broken_pax_records_are_refused(records: bytes) -> None:
    """Lengths and values that cannot be."""
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, len(records)
    reader = HeaderReader()
    assert reader.header(info.tobuf(tarfile.USTAR_FORMAT)) == len(records)
    with pytest.raises(ValueError, match="pax"):
        reader.extension(records)


def test_an_endless_name_is_refused() -> None:
    """An extension header is not a way to fill the memory."""
    info = tarfile.TarInfo("long")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 30
    with pytest.raises(ValueError, match="extended header"):
        HeaderReader().header(info.tobuf(tarfile.GNU_FORMAT))
