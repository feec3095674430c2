"""Origins of archives: the layers as the registry has them, and the tar server of the host that has the content."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from events.messages import Layer
from services.core.deployments.deployment import ImageState
from services.core.deployments.transition_builder import OfferEffect, Transition


@dataclass(frozen=True, slots=True)
class Origin:
    """Where one archive comes from. `tar_url` None: the tar server that the deployer is set to.

    The layers are as an engine pulled them from the registry: an archive in OCI layout has to name them so.
    """

    layers: tuple[Layer, ...] = ()
    tar_url: str | None = None


#: An image's number → where its archive comes from.
Origins = Mapping[int, Origin]
NO_ORIGINS: Origins = MappingProxyType({})


class OriginFinder(Protocol):
    """What knows about images and hosts."""

    async def blobs(self, image: ImageState) -> tuple[Layer, ...]: ...

    async def tar_url(self, host: str) -> str | None: ...


async def origins_of(step: Transition, finder: OriginFinder) -> Origins:
    """The origins of all archives that a transition offers. Raises BusError."""
    offered = [effect.index for effect in step.effects if isinstance(effect, OfferEffect)]
    images = {index: step.deployment.images[index] for index in offered}
    return {
        index: Origin(await finder.blobs(image), await finder.tar_url(image.host)) for index, image in images.items()
    }
