"""Prefetch of layer images: pushes are followed, and nothing that fails stops it."""

from __future__ import annotations

import asyncio

import pytest

from events.envelope import Envelope
from events.memory.bus import MemoryBus
from events.messages import ImagePushed, Layer
from events.task_group import TaskGroup
from services.adapters.memory_layer_mounts import MemoryLayerMounts
from services.layer_mounter.preparation import Preparation
from tests.simulation import eventually

pytestmark = pytest.mark.faked_time

ONE, TWO, GONE = (
    Layer(digest=f"sha256:{digit * 64}", diff_id=f"sha256:{digit * 64}", size_bytes=1024) for digit in "abc"
)
PACKED = Layer(digest=f"sha256:{'d' * 64}", diff_id=f"sha256:{'e' * 64}", size_bytes=9, codec="zstd")
ODD = Layer(digest=f"sha256:{'d' * 64}", diff_id=f"sha256:{'e' * 64}", size_bytes=9)


def _pushed(*layers: Layer) -> Envelope:
    message = ImagePushed(
        reference="docker.io/library/web:1",
        repository="library/web",
        tag="1",
        manifest_digest=f"sha256:{'1' * 64}",
        image_id=f"sha256:{'2' * 64}",
        layers=layers,
    )
    return Envelope(message=message, source="registry-pusher@h", subject=message.reference)


async def test_layers_of_pushed_images_are_prepared_once_layers_can_be_mounted() -> None:
    """One at a time, compressed ones as well. A layer that cannot be made, and an odd one, hold up no other."""
    bus, mounts, able = MemoryBus(), MemoryLayerMounts({ONE.digest, TWO.digest, PACKED.digest}), asyncio.Event()
    preparation = Preparation(bus=bus, mounts=mounts, stream="cyroid:images", able=able.wait)
    async with TaskGroup() as tasks:
        running = tasks.create_task(preparation.run())
        await bus.publish("cyroid:images", _pushed(ONE))
        await asyncio.sleep(60)
        assert mounts.prepared == []
        able.set()
        await asyncio.sleep(1)
        for layers in ((PACKED,), (ODD,), (GONE, ONE, ONE), (TWO,)):
            await bus.publish("cyroid:images", _pushed(*layers))
        await eventually(lambda: _are(mounts, [PACKED.digest, ONE.digest, TWO.digest]))
        running.cancel()


async def _are(mounts: MemoryLayerMounts, wanted: list[str]) -> bool:
    return mounts.prepared == wanted
