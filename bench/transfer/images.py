"""Images of the transfer bench: built on the host engine from generated files, the same every time."""

from __future__ import annotations

import io
import random
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

from deploy.lab import EngineServer
from deploy.lab.server import plain_environment
from deploy.machine.commands import MachineError, need, run

_BASE = "bench-root:1"
_BLOCK = 1 << 16


def text_block(source: random.Random) -> bytes:
    """64 KiB that a compressor halves again and again: words, as in logs and program text."""
    words = [b"%x" % source.getrandbits(20) for _ in range(300)]
    return (b" ".join(source.choices(words, k=12_000)) + b"\n")[:_BLOCK]


def partly_compressible(size_bytes: int, seed: str) -> Iterator[bytes]:
    """Blocks of which every second is noise, as in a disk image: shrinks to about two thirds."""
    source = random.Random(seed)
    texts = [text_block(source) for _ in range(8)]
    done = number = 0
    while done < size_bytes:
        block = source.randbytes(_BLOCK) if number % 2 else texts[number // 2 % len(texts)]
        block = block[: size_bytes - done]
        done += len(block)
        number += 1
        yield block


def files(folder: str, total_bytes: int, sizes: tuple[int, int], seed: str) -> Iterator[tuple[str, bytes]]:
    """Files of random sizes, text and noise mixed, in folders of a hundred."""
    source = random.Random(seed)
    noise, texts = source.randbytes(4 << 20), b"".join(text_block(source) for _ in range(64))
    done = number = 0
    while done < total_bytes:
        size = min(source.randint(*sizes), total_bytes - done)
        pool = noise if number % 3 == 0 else texts
        start = source.randrange(max(1, len(pool) - size))
        content = (b"%08d" % number + pool[start : start + size])[:size]
        yield f"{folder}/{number // 100:04d}/file{number:06d}", content
        done += size
        number += 1


def build_large(host: EngineServer, root_tar: Path, size_bytes: int) -> str:
    """A base of many files, a large partly compressible layer, a layer of tools: `size_bytes` in all."""
    base, large, tools = size_bytes // 10, size_bytes * 65 // 100, size_bytes // 4

    def content() -> Iterator[tuple[str, int, Iterator[bytes]]]:
        for name, one in files("base/usr", base, (2_000, 60_000), "base"):
            yield name, len(one), iter((one,))
        for number in range(4):
            share = large // 4
            yield f"large/disk{number}.img", share, partly_compressible(share, f"large{number}")
        for name, one in files("tools/opt", tools, (50_000, 2_000_000), "tools"):
            yield name, len(one), iter((one,))

    return _build(host, root_tar, "bench-large:1", ("base", "large", "tools"), content())


def build_small_files(host: EngineServer, root_tar: Path, count: int) -> str:
    """One layer of `count` files of some hundred bytes each."""

    def content() -> Iterator[tuple[str, int, Iterator[bytes]]]:
        for name, one in files("many/lib", count * 700, (600, 800), "many"):
            yield name, len(one), iter((one,))

    return _build(host, root_tar, "bench-small-files:1", ("many",), content())


def build_delta(host: EngineServer, on: str, number: int, size_bytes: int) -> str:
    """`on` with one more layer."""

    def content() -> Iterator[tuple[str, int, Iterator[bytes]]]:
        for name, one in files(f"delta/{number}", size_bytes, (10_000, 400_000), f"delta{number}"):
            yield name, len(one), iter((one,))

    return _build(host, None, f"bench-delta-{number}:1", ("delta",), content(), base=on)


def build_import(host: EngineServer, root_tar: Path, name: str, size_bytes: int) -> str:
    """One layer: the root's files and `/bulk`, of `size_bytes`. It is written once, so it may be very large."""
    process = subprocess.Popen(
        [need("docker", "docker.io"), "-H", host.url, "import", "-", name],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=plain_environment(),
    )
    assert process.stdin is not None
    with tarfile.open(fileobj=process.stdin, mode="w|", bufsize=1 << 20) as tar, tarfile.open(root_tar) as root:
        for member in root:
            tar.addfile(member, root.extractfile(member) if member.isreg() else None)
        info = tarfile.TarInfo("bulk")
        info.size = size_bytes
        tar.addfile(info, _Blocks(partly_compressible(size_bytes, name)))
    _, said = process.communicate(timeout=600)
    if process.returncode:
        raise MachineError(f"importing {name} failed:\n{said.decode(errors='replace')[-2000:]}")
    return name


def _build(
    host: EngineServer,
    root_tar: Path | None,
    name: str,
    layers: tuple[str, ...],
    content: Iterator[tuple[str, int, Iterator[bytes]]],
    *,
    base: str = _BASE,
) -> str:
    """Stream a context into the engine's classic builder; nothing is kept in memory or on disk here."""
    docker = [need("docker", "docker.io"), "-H", host.url]
    if root_tar is not None:
        run([*docker, "import", str(root_tar), _BASE])
    steps = "".join(f"COPY {layer} /{layer}\n" for layer in layers)
    process = subprocess.Popen(
        [*docker, "build", "-q", "-t", name, "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**plain_environment(), "DOCKER_BUILDKIT": "0"},
    )
    assert process.stdin is not None
    with tarfile.open(fileobj=process.stdin, mode="w|", bufsize=1 << 20) as tar:
        _add(tar, "Dockerfile", f"FROM {base}\n{steps}".encode())
        for path, size_bytes, blocks in content:
            info = tarfile.TarInfo(path)
            info.size = size_bytes
            tar.addfile(info, _Blocks(blocks))
    _, said = process.communicate(timeout=600)
    if process.returncode:
        raise MachineError(f"building {name} failed:\n{said.decode(errors='replace')[-2000:]}")
    return name


def _add(tar: tarfile.TarFile, path: str, content: bytes) -> None:
    info = tarfile.TarInfo(path)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


class _Blocks(io.RawIOBase):
    """Blocks as a file to read from."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._rest = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        pieces, gathered = [self._rest], len(self._rest)
        while gathered < size and (block := next(self._blocks, b"")):
            pieces.append(block)
            gathered += len(block)
        whole = b"".join(pieces)
        self._rest = whole[size:]
        return whole[:size]
