"""The config of an image of the host's engine, out of the first layer source that gives the right one."""

from __future__ import annotations

import asyncio

import pytest

from services.adapters.memory_engine import MemoryEngine
from services.adapters.memory_layers import MemoryLayers
from services.content.host_config import host_config
from services.core.images.image import EngineImage
from services.core.images.manifests import CONFIG_LIMIT_BYTES
from services.errors import BadInput, LayerUnreadable
from services.ports import LayerSource


class Source(MemoryLayers):
    """Gives `answer` for every config, after an eternity if it is None."""

    def __init__(self, engine: MemoryEngine, answer: bytes | Exception | None) -> None:
        super().__init__(engine)
        self._answer = answer

    async def config(self, image: EngineImage) -> bytes:
        if self._answer is None:
            await asyncio.Event().wait()
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer or b""


async def _config(answer: bytes | Exception | None, *, then_right: bool) -> bytes:
    engine = MemoryEngine()
    image = engine.add_image("web:1", [b"layer"])
    sources: list[LayerSource] = [Source(engine, answer)]
    if then_right:
        sources.append(MemoryLayers(engine))
    return await host_config(sources, image, timeout_seconds=0.05)


@pytest.mark.parametrize(
    "answer",
    [LayerUnreadable("gone"), b"no config", b'{"rootfs":{"type":"layers","diff_ids":[]}}', None],
    ids=["not there", "something else", "another image's", "too late"],
)
async def test_the_next_source_is_asked(answer: bytes | Exception | None) -> None:
    """A source that has it not, has another one or does not answer is passed over; the last reason is told."""
    assert b"rootfs" in await _config(answer, then_right=True)
    with pytest.raises(LayerUnreadable, match="no source on the host gives the config"):
        await _config(answer, then_right=False)


async def test_a_huge_config_is_refused() -> None:
    """No other source has a smaller one."""
    with pytest.raises(BadInput, match="more than the 16777216 that it may have"):
        await _config(bytes(CONFIG_LIMIT_BYTES + 1), then_right=True)
