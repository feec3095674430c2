"""A registry that fails at each request of a push, in each way: never a wrong image, never half of one in sight."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from events.memory.bus import MemoryBus
from services.adapters.memory_engine import MemoryEngine
from services.adapters.registry import HttpRegistry
from services.errors import CyroidError
from services.registry_pusher.image_push import ImagePush
from services.registry_pusher.layer_encodings import LayerEncodings
from services.registry_pusher.layer_push import LayerPush
from tests.integration.faulty_registry import FAULTS, Fault, FaultyRegistry, faulty_registry
from tests.laboratory import RegistryServer
from tests.unit.services.layer_twins import TwinSource, layer

pytestmark = pytest.mark.real

SILENT: tuple[Fault, ...] = ("stall", "stall_request", "stall_answer")


@dataclass
class Stand:
    """A host's fake, the proxy, and ways to the registry: through the proxy with short patience, the same with long
    patience (so that a slow machine is no fault), and beside it."""

    engine: MemoryEngine
    proxy: FaultyRegistry
    through: HttpRegistry
    patient: HttpRegistry
    beside: HttpRegistry

    def push(self, fault: Fault | None = None) -> ImagePush:
        """As a process that has just started: it remembers nothing. Only silence needs short patience to be seen."""
        registry = self.through if fault in SILENT else self.patient
        source = TwinSource(self.engine)
        encodings = LayerEncodings(bus=MemoryBus(), prefix="t")
        return ImagePush(
            engine=self.engine,
            registry=registry,
            sources=(source,),
            layers=LayerPush(registry=registry, sources=(source,), encodings=encodings, parallel_layers=1),
            engine_registry=self.proxy.address,
        )

    async def seen(self, repository: str, image_id: str) -> bool:
        """Whether the tag is there; if it is, everything it names must be there and right."""
        found = await self.beside.manifest(repository, "1")
        if found is None:
            return False
        assert found[1].body.config.digest == image_id
        for blob in (found[1].body.config, *found[1].body.layers):
            async with self.beside.open_blob(repository, blob.digest) as chunks:  # verifies the digest at its end
                assert sum([len(chunk) async for chunk in chunks]) == blob.size
        return True


@pytest.fixture
async def stand(registry_server: RegistryServer) -> AsyncIterator[Stand]:
    async with (
        faulty_registry(registry_server.url) as proxy,
        HttpRegistry.open(f"http://{proxy.address}", answer_seconds=0.5, stall_seconds=0.5) as through,
        HttpRegistry.open(f"http://{proxy.address}") as patient,
        HttpRegistry.open(registry_server.url) as beside,
    ):
        # The engine's own push would go around the faults: the fake reaches no registry.
        yield Stand(MemoryEngine(), proxy, through, patient, beside)


@pytest.mark.parametrize("fault", FAULTS)
async def test_no_fault_at_any_request_makes_a_wrong_or_half_image(stand: Stand, fault: Fault, unique: str) -> None:
    """For every request of a push: it ends well or with an error of ours, and what is visible is whole and right.

    After the fault, the next push completes the image.
    """
    number, ended_well, ended_badly = 0, 0, 0
    while True:
        name = f"{unique}/{fault.replace('_', '')}{number}"
        layers = [layer(f"{name} small"), layer(f"{name} large", 300_000)]
        image = stand.engine.add_image(f"{name}:1", layers)
        assert image.image_id is not None
        stand.proxy.arm(fault, number)
        try:
            pushed = await stand.push(fault).push(f"{name}:1")
        except CyroidError:
            await stand.seen(name, image.image_id)
            ended_badly += 1
        else:
            assert pushed.image_id == image.image_id
            assert await stand.seen(name, image.image_id)
            ended_well += 1
        if not stand.proxy.struck:
            break
        stand.proxy.arm(fault, None)
        pushed = await stand.push().push(f"{name}:1")
        assert await stand.seen(name, pushed.image_id)
        number += 1
    assert number >= 10, "the faults were to reach every request of a push"
    assert ended_well >= 1
