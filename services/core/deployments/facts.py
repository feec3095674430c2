"""Facts of a deployment: what is known of its range and its images when it is evaluated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from events.messages import Layer, Provenance


@dataclass(frozen=True, slots=True, kw_only=True)
class HostImage:
    """What a host's engine has under a name; `image_id` None where that engine cannot tell, `host` whose it is."""

    image_id: str | None
    diff_ids: tuple[str, ...]
    size_bytes: int
    platform: str
    host: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryImage:
    """What the registry has under a tag. `source` is what an agent pulls."""

    source: str
    image_id: str
    diff_ids: tuple[str, ...]
    layers: tuple[Layer, ...]
    platform: str

    @property
    def size_bytes(self) -> int:
        return sum(layer.size_bytes for layer in self.layers)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFacts:
    """What was found out about one image. `…_away` holds the reason if nothing could be found out there.

    Times of the last progress heard: of this image's push, of any push, of this image's transfer; and when that
    transfer last got further. `unsigned`: why the registry's image may not be deployed, where signatures are checked.
    """

    host: HostImage | None = None
    host_away: str | None = None
    registry: RegistryImage | None = None
    registry_away: str | None = None
    registry_unfit: str | None = None
    provenance: Provenance | None = None
    unsigned: str | None = None
    push_heard_at: datetime | None = None
    pusher_heard_at: datetime | None = None
    heard_at: datetime | None = None
    advanced_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentFacts:
    """What is known of the range: whether its agent is alive, and what it last reported of its engine.

    `contested` says why it is not known which engine is the range's, while two agents publish for it. `host` is where
    the range is, empty where that is not known.
    """

    alive: bool
    engine_id: str | None = None
    platform: str | None = None
    known: bool = True
    contested: str | None = None
    host: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All facts for one evaluation of a deployment; images by their number."""

    agent: AgentFacts
    images: Mapping[int, ImageFacts] = field(default_factory=dict)
