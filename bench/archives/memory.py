"""Peak memory of the check of an archive, measured in a process of its own, with a layer of a given size.

`python -m bench.archives.memory PACKING BYTES` prints its peak. The layer is made as it is read; its files are zeros,
so it is packed a thousandfold.
"""

from __future__ import annotations

import asyncio
import json
import resource
import subprocess
import sys
import tarfile
import zlib
from collections.abc import AsyncIterator, Iterator

import zstandard

from services.content.decompression import unpacked
from services.core.archives.archive_check import ArchiveCheck
from services.core.archives.entry_rules import ArchiveLimits
from services.core.images.manifests import sha256

SMALL_BYTES, LARGE_BYTES = 1 << 20, 4 << 30
_BLOCK = bytes(1 << 20)
#: plain; the whole archive packed by gzip or zstd; the layer in it packed by gzip.
METHODS = ("plain", "gzip", "zstd", "packed layer")


def peaks(small_bytes: int, large_bytes: int) -> Iterator[tuple[str, int, int]]:
    """Each method, and the peaks of the two sizes in bytes."""
    for method in METHODS:
        yield method, _peak(method, small_bytes), _peak(method, large_bytes)


def _peak(method: str, size_bytes: int) -> int:
    command = [sys.executable, "-m", "bench.archives.memory", method, str(size_bytes)]
    return int(subprocess.run(command, check=True, capture_output=True, timeout=600).stdout)


def _layer(size_bytes: int) -> Iterator[bytes]:
    info = tarfile.TarInfo("t/disk")
    info.size = size_bytes
    yield info.tobuf(tarfile.PAX_FORMAT)
    for at in range(0, size_bytes, len(_BLOCK)):
        yield _BLOCK[: size_bytes - at]
    yield bytes(-size_bytes % 512 + 1024)


def _entry(name: str, size_bytes: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size_bytes
    return info.tobuf(tarfile.PAX_FORMAT)


def _archive(method: str, size_bytes: int) -> Iterator[bytes]:
    """The layer first, as in most archives; the documents last."""
    if method == "packed layer":
        packed = b"".join(_gzip(_layer(size_bytes)))
        yield _entry("l.tar", len(packed))
        for at in range(0, len(packed), 1 << 16):
            yield packed[at : at + (1 << 16)]
        yield bytes(-len(packed) % 512)
    else:
        length = sum(map(len, _layer(size_bytes)))
        yield _entry("l.tar", length)
        yield from _layer(size_bytes)
        yield bytes(-length % 512)
    rootfs = {"type": "layers", "diff_ids": [sha256(b"")]}
    config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": rootfs}).encode()
    manifest = json.dumps([{"Config": "c.json", "RepoTags": ["x:1"], "Layers": ["l.tar"]}]).encode()
    for name, content in (("c.json", config), ("manifest.json", manifest)):
        yield _entry(name, len(content)) + content + bytes(-len(content) % 512)
    yield bytes(1024)


def _gzip(blocks: Iterator[bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(1, wbits=31)
    for block in blocks:
        yield packer.compress(block)
    yield packer.flush()


def _zstd(blocks: Iterator[bytes]) -> Iterator[bytes]:
    packer = zstandard.ZstdCompressor(level=1).compressobj()
    for block in blocks:
        yield packer.compress(block)
    yield packer.flush()


async def _chunks(method: str, size_bytes: int) -> AsyncIterator[bytes]:
    blocks = _archive(method, size_bytes)
    pack = {"gzip": _gzip, "zstd": _zstd}.get(method)
    for block in blocks if pack is None else pack(blocks):
        if block:
            yield block


async def _check(method: str, size_bytes: int) -> None:
    check = ArchiveCheck("x", ArchiveLimits())
    async for chunk in unpacked(_chunks(method, size_bytes), "x"):
        for _ in check.feed(chunk):
            pass
    assert [image.names for image in check.finish("linux/amd64").images] == [("x:1",)]


if __name__ == "__main__":
    asyncio.run(_check(sys.argv[1], int(sys.argv[2])))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)  # noqa: T201
