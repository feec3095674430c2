"""Conversion of image records of an engine's API to `EngineImage`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import msgspec

from services.core.archives import raw_layers
from services.core.images.image import EngineImage
from services.core.images.references import Reference
from services.errors import BadReference

#: Far above any size; what is above it is none.
_SIZE_LIMIT_BYTES = 2**53


class _RootFs(msgspec.Struct, frozen=True, rename="pascal"):
    layers: tuple[str, ...] = ()


class _Driver(msgspec.Struct, frozen=True, rename="pascal"):
    name: str = ""


class ImageInspect(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """What `GET /images/NAME/json` tells, as far as it is read here."""

    id: str
    os: str = ""
    architecture: str = ""
    variant: str = ""
    size: int = 0
    repo_tags: tuple[str, ...] = ()
    repo_digests: tuple[str, ...] = ()
    root_fs: _RootFs = msgspec.field(default=_RootFs(), name="RootFS")
    graph_driver: _Driver = _Driver()
    descriptor: dict[str, object] = {}


class ImageSummary(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """One row of `GET /images/json`."""

    id: str
    repo_tags: tuple[str, ...] = ()
    repo_digests: tuple[str, ...] = ()


def image_of(said: ImageInspect) -> EngineImage:
    """The image in an answer of `inspect`."""
    platform = f"{said.os}/{said.architecture}"
    return EngineImage(
        local_id=said.id,
        image_id=None if _on_containerd(said) else said.id,
        diff_ids=said.root_fs.layers,
        references=_tags(said.repo_tags),
        repo_digests=tuple(sorted(_normalised(said.repo_digests))),
        size_bytes=said.size if 0 <= said.size < _SIZE_LIMIT_BYTES else 0,
        platform=f"{platform}/{said.variant}" if said.variant else platform,
        raw_layers=raw_layers.read(said.descriptor.get("annotations"), said.root_fs.layers),
    )


def _on_containerd(said: ImageInspect) -> bool:
    """Whether `Id` is a manifest's digest: where it names the image by digest, too. Engines from 27 on say it plainly.

    An image without a name tells it by its driver: `overlayfs` is containerd's snapshotter, `overlay2` the classic one.
    """
    by_digest = any(name.endswith(f"@{said.id}") for name in said.repo_digests)
    return bool(said.descriptor) or by_digest or said.graph_driver.name == "overlayfs"


@dataclass(slots=True)
class Listed:
    """An image's names, as a list of images tells them."""

    tags: list[str] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)


def named(image: EngineImage, listed: Listed) -> EngineImage:
    """The names of each image, by the engine's id, in an answer that lists images."""
    return replace(image, references=_tags(listed.tags), repo_digests=tuple(sorted(_normalised(listed.digests))))


def _tags(tags: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(_normalised(tag for tag in tags if "@" not in tag))))


def _normalised(tags: Iterable[str]) -> Iterator[str]:
    for tag in tags:
        # Dangling images are called `<none>:<none>`; older engines hold names that today's rules refuse.
        with contextlib.suppress(BadReference):
            yield str(Reference.parse(tag))
