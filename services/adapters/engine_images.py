"""An engine's own words about its images, as ours."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from services.core.images import EngineImage
from services.core.references import Reference
from services.errors import BadReference


def image_of(said: Mapping[str, Any]) -> EngineImage:
    # Only an image on a containerd store has a descriptor, and its Id is that descriptor's digest.
    on_containerd = bool(said.get("Descriptor"))
    platform = f"{said['Os']}/{said['Architecture']}"
    return EngineImage(
        local_id=said["Id"],
        image_id=None if on_containerd else said["Id"],
        diff_ids=tuple((said.get("RootFS") or {}).get("Layers") or ()),
        references=_tags(said.get("RepoTags") or ()),
        repo_digests=tuple(sorted(_normalised(said.get("RepoDigests") or ()))),
        size_bytes=int(said.get("Size") or 0),
        platform=f"{platform}/{said['Variant']}" if said.get("Variant") else platform,
    )


@dataclass(slots=True)
class Listed:
    """An image's names, as a list of images tells them."""

    tags: list[str] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)


def named(image: EngineImage, listed: Listed) -> EngineImage:
    return replace(image, references=_tags(listed.tags), repo_digests=tuple(sorted(_normalised(listed.digests))))


def _tags(tags: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(_normalised(tag for tag in tags if "@" not in tag))))


def _normalised(tags: Iterable[str]) -> Iterator[str]:
    for tag in tags:
        # Dangling images are called `<none>:<none>`; older engines hold names that today's rules refuse.
        with contextlib.suppress(BadReference):
            yield str(Reference.parse(tag))
