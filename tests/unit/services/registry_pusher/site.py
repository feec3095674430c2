"""A push of an image of a fake engine into a fake registry."""

from __future__ import annotations

from events.memory.bus import MemoryBus
from services.adapters.memory_engine import MemoryEngine
from services.adapters.memory_registry import MemoryRegistry
from services.ports import LayerSource
from services.registry_pusher.image_push import ImagePush
from services.registry_pusher.layer_encodings import LayerEncodings
from services.registry_pusher.layer_push import LayerPush
from tests.unit.services.layer_twins import TwinSource

NAME = "docker.io/team/app:1"


class Setup:
    """A host engine, a registry and a push between them."""

    def __init__(self, *sources: LayerSource, store: str = "classic") -> None:
        self.registry = MemoryRegistry("registry:5000")
        self.engine = MemoryEngine(registries={"registry:5000": self.registry}, store="classic")
        if store == "containerd":
            self.engine = MemoryEngine(registries={"registry:5000": self.registry}, store="containerd")
        self.source = TwinSource(self.engine)
        self.bus = MemoryBus()
        self.encodings = LayerEncodings(bus=self.bus, prefix="t")
        self.use(self.source)

    def use(self, *sources: LayerSource) -> None:
        self.push = ImagePush(
            engine=self.engine,
            registry=self.registry,
            sources=sources,
            layers=LayerPush(registry=self.registry, sources=sources, encodings=self.encodings),
            engine_registry="registry:5000",
        )

    @property
    def sent(self) -> list[str]:
        return [digest for _, digest, _ in self.registry.uploaded]

    def image_id(self, name: str = NAME) -> str:
        return next(iter([self.engine.store.images[self.engine.store.find(name)].image_id]))
