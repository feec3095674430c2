"""Role `registry-pusher`: pushes images of the host engine into the registry, layer by layer."""

from services.registry_pusher.role import RegistryPusher

__all__ = ["RegistryPusher"]
