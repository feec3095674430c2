"""Decompressed copies of layers, made by the real program: what they are, what is refused, and what is kept."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import os
import random
import time
from pathlib import Path

import pytest
import zstandard

from events.messages import Layer, LayerCodec
from services.adapters.unpacked_layers import UnpackedLayers, UnpackLimits
from services.core.mounts.layer_mounts import blob_name
from services.errors import LayersNotMounted

TAR = b"a layer's tar" * 20_000
KEEP_NOTHING_FREE = {"free_bytes": 0, "free_percent": 0.0}


class Host:
    """A folder for copies, and one with blobs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "unpacked"
        self._blobs = folder

    def made(self, **limits: float) -> UnpackedLayers:
        return UnpackedLayers(self.folder, limits=UnpackLimits(**{**KEEP_NOTHING_FREE, **limits}))  # type: ignore[arg-type]

    def blob(self, content: bytes, tar: bytes, codec: LayerCodec = "gzip") -> tuple[Layer, Path]:
        """A layer whose blob is `content`, which should be `tar` when it is unpacked."""
        digits = hashlib.sha256(content).hexdigest()
        path = self._blobs / digits
        path.write_bytes(content)
        diff_id = f"sha256:{hashlib.sha256(tar).hexdigest()}"
        return Layer(digest=f"sha256:{digits}", diff_id=diff_id, size_bytes=len(content), codec=codec), path

    @property
    def names(self) -> set[str]:
        return {path.name for path in self.folder.iterdir()}


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def zstd(content: bytes, **window: int) -> bytes:
    """As a stream, whose window is no smaller for its size."""
    parameters = zstandard.ZstdCompressionParameters.from_level(3, **window)
    packing = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return packing.compress(content) + packing.flush()


@pytest.mark.parametrize(
    ("content", "codec"),
    [
        pytest.param(gzip.compress(TAR), "gzip", id="gzip"),
        pytest.param(gzip.compress(TAR[:1000]) + gzip.compress(b"") + gzip.compress(TAR[1000:]), "gzip", id="members"),
        pytest.param(zstd(TAR), "zstd", id="zstd"),
        pytest.param(b"\x50\x2a\x4d\x18\x03\0\0\0abc" + zstd(TAR[:9]) + zstd(TAR[9:]), "zstd", id="frames"),
    ],
)
async def test_a_copy_is_the_layer(host: Host, content: bytes, codec: LayerCodec) -> None:
    """Also of several members or frames in a row. It is made once, and nobody may write to it."""
    layer, blob = host.blob(content, TAR, codec)
    made, read = host.made(), list[tuple[str, int]]()
    paths = await asyncio.gather(*(made.tar(layer, blob, read=lambda *told: read.append(told)) for _ in range(3)))
    assert set(paths) == {host.folder / f"{blob_name(layer)}.{len(TAR)}"}
    assert paths[0].read_bytes() == TAR
    assert paths[0].stat().st_mode & 0o777 == 0o400
    assert {digest for digest, _ in read} == {layer.digest}
    blob.unlink()
    assert await host.made().tar(layer, blob) == paths[0]


@pytest.mark.parametrize(
    ("content", "codec", "why"),
    [
        pytest.param(gzip.compress(b"another layer"), "gzip", "what is in it is sha256:", id="other-content"),
        pytest.param(gzip.compress(TAR)[:-100], "gzip", "cut off", id="cut-off"),
        pytest.param(gzip.compress(TAR) + b"garbage", "gzip", "follows its end", id="trailing-garbage"),
        pytest.param(gzip.compress(TAR)[:10] + b"?" * 600, "gzip", "broken", id="broken"),
        pytest.param(TAR, "gzip", "not packed with gzip", id="plain"),
        pytest.param(b"", "gzip", "not packed with gzip", id="nothing"),
        pytest.param(gzip.compress(TAR), "zstd", "not packed with zstd", id="other-codec"),
        pytest.param(zstd(TAR)[:-3], "zstd", "cut off", id="zstd-cut-off"),
        pytest.param(zstd(TAR) + b"garbage", "zstd", "broken", id="zstd-trailing-garbage"),
        pytest.param(zstd(TAR, window_log=30), "zstd", "window is too large", id="zstd-window"),
    ],
)
async def test_what_is_not_the_layer_is_refused(host: Host, content: bytes, codec: LayerCodec, why: str) -> None:
    """Nothing is left of it, and it is not unpacked again for a while."""
    layer, blob = host.blob(content, TAR, codec)
    made = host.made()
    with pytest.raises(LayersNotMounted, match=why):
        await made.tar(layer, blob)
    assert host.names == set()
    with pytest.raises(LayersNotMounted, match="an earlier try"):
        await made.tar(layer, blob)


async def test_a_bomb_is_stopped(host: Host) -> None:
    """Four megabytes that would become four gigabytes end at the limit for one layer; of that, zeros take no disk."""
    member = gzip.compress(bytes(64 << 20), compresslevel=9)
    layer, blob = host.blob(member * 64, b"whatever")
    with pytest.raises(LayersNotMounted, match=r"more than 268435456 bytes"):
        await host.made(layer_bytes=256 << 20).tar(layer, blob)
    assert host.names == set()
    zeros, blob = host.blob(member, bytes(64 << 20))
    copy = await host.made().tar(zeros, blob)
    assert (copy.stat().st_size, copy.stat().st_blocks < 100) == (64 << 20, True)


async def test_a_disk_keeps_its_reserve(host: Host) -> None:
    """What stops there is not remembered: there may be room later."""
    layer, blob = host.blob(gzip.compress(TAR), TAR)
    made = host.made(free_percent=100.0)
    for _ in range(2):
        with pytest.raises(LayersNotMounted, match="make room there"):
            await made.tar(layer, blob)
    assert host.names == set()
    assert (await host.made().tar(layer, blob)).read_bytes() == TAR


async def test_a_caller_that_leaves_takes_the_program_along(host: Host) -> None:
    """And what it wrote. The next one begins anew."""
    content = random.Random(2).randbytes(1 << 20) * 64
    layer, blob = host.blob(gzip.compress(content, compresslevel=1), content)
    made = host.made()
    started = asyncio.Event()
    waiting = asyncio.create_task(made.tar(layer, blob, read=lambda *_: started.set()))
    await started.wait()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert host.names == set()
    assert (await made.tar(layer, blob)).read_bytes() == content


async def test_nothing_is_unpacked_where_that_is_turned_off(host: Host) -> None:
    """What was unpacked before is used on."""
    layer, blob = host.blob(gzip.compress(TAR), TAR)
    off = UnpackedLayers(host.folder, enabled=False)
    with pytest.raises(LayersNotMounted, match=r"compressed \(gzip\), and CYROID_MOUNT_COMPRESSED is off"):
        await off.tar(layer, blob)
    copy = await host.made().tar(layer, blob)
    assert await off.tar(layer, blob) == copy


async def test_a_copy_that_was_cut_is_made_again(host: Host) -> None:
    """Its name says how long it was."""
    layer, blob = host.blob(gzip.compress(TAR), TAR)
    made = host.made()
    copy = await made.tar(layer, blob)
    copy.chmod(0o600)
    os.truncate(copy, 4096)
    assert (made.find(layer), made.cut(layer)) == (None, [copy])
    assert (await made.tar(layer, blob)).read_bytes() == TAR
    assert host.names == {copy.name}


async def test_beforehand_nothing_is_unpacked_that_would_not_be_kept(host: Host) -> None:
    """Whoever wants the layer has it unpacked all the same."""
    layer, blob = host.blob(gzip.compress(TAR), TAR)
    made = host.made(unused_bytes=len(TAR) - 1)
    with pytest.raises(LayersNotMounted, match="bytes when it is unpacked"):
        await made.tar(layer, blob, beforehand=True)
    assert (await made.tar(layer, blob)).read_bytes() == TAR


async def test_the_last_used_copies_are_kept(host: Host) -> None:
    """Up to the limit, and as long as their blobs are there. What is needed, or on its way, stays in any case."""
    tars = [random.Random(number).randbytes(50_000) for number in range(5)]
    layers = [host.blob(gzip.compress(tar), tar) for tar in tars]
    made = host.made(unused_bytes=120_000)
    for layer, blob in layers:
        await made.tar(layer, blob)
    names = [f"{blob_name(layer)}.50000" for layer, _ in layers]
    old, used, gone, shown, kept = names
    for age, name in enumerate(names):
        at = time.time() - 1000 + age
        os.utime(host.folder / name, (at, at))
    (host.folder / f"{used}.cut.new").touch()
    lost = gone.split(".")[1]

    def clean(needed: set[str], reserved: str = "") -> None:
        made.clean(
            frozenset(name.rpartition(".")[0] for name in needed),
            reserved=lambda digits: digits == reserved.partition(".")[0],
            blob=lambda digits: digits != lost,
        )

    clean({shown, used}, reserved=gone)
    assert host.names == {*names, f"{used}.cut.new"} - {f"{used}.cut.new"}
    clean({shown})
    assert host.names == {shown, kept, used}, "the lost one is gone, and the least recently used of the others"
    assert made.has(used.partition(".")[0])
    assert not made.has(old.partition(".")[0])
