"""Images of an archive and their names, read from its documents once all of it was checked.

An archive of `docker save` says so in `manifest.json`. An OCI layout says so in `index.json`, whose manifests and
indexes are blobs of the archive: of an index of several platforms the engine's own is taken, and the others may be
missing, since most writers leave them out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import msgspec

from services.core.archives.archive_documents import (
    IMAGE_CONFIGS,
    BlobManifest,
    DockerImage,
    Index,
    Platform,
    Pointer,
    docker_images,
    index_of,
)
from services.core.images.go_json import decode
from services.core.images.manifests import ImageConfig, sha256
from services.errors import BadArchive, BadInput

_INDEXES_AT_MOST = 64


@dataclass(frozen=True, slots=True)
class ArchivedImage:
    """One image of an archive. Paths are files of the archive.

    names     as the archive has them, not normalised; empty if it has none
    layers    paths, base first; None for a layer that the archive leaves out
    pointer   in an OCI layout, what the index names for it: a manifest, or an index of several platforms
    """

    config_path: str
    config: ImageConfig
    layers: tuple[str | None, ...]
    names: tuple[str, ...] = ()
    pointer: Pointer | None = None

    def manifest(self, names: tuple[str, ...]) -> DockerImage:
        """Its part of `manifest.json`, under `names`."""
        return DockerImage(config=self.config_path, repo_tags=names, layers=tuple(path or "" for path in self.layers))


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveContent:
    """What went by of an archive: `file` gives the file that a path names, `documents` the small JSON files by path."""

    origin: str
    file: Callable[[str], str | None]
    documents: Mapping[str, bytes]

    def docker(self, manifest: bytes) -> list[ArchivedImage]:
        """The images of a `manifest.json`, each once with all its names. Raises BadArchive."""
        try:
            listed = docker_images(manifest)
        except msgspec.DecodeError as problem:
            raise BadArchive(f"{self.origin}: its manifest.json cannot be read: {problem}") from problem
        if not listed:
            raise BadArchive(f"{self.origin} holds no image: its manifest.json is empty")
        found: dict[str, ArchivedImage] = {}
        for image in listed:
            config_path = self._whole(image.config, "config")
            layers = tuple(self._whole(path, "layer") if path else None for path in image.layers)
            before = found[config_path].names if config_path in found else ()
            names = tuple(dict.fromkeys((*before, *image.repo_tags)))
            found[config_path] = self._image(config_path, layers, names)
        return list(found.values())

    def oci(self, index: bytes, platform: str) -> list[ArchivedImage]:
        """The images of an `index.json` for an engine's `platform`, each once with all its names. Raises BadArchive."""
        try:
            pointers = index_of(index).manifests
        except msgspec.DecodeError as problem:
            raise BadArchive(f"{self.origin}: its index.json cannot be read: {problem}") from problem
        images = [pointer for pointer in pointers if not pointer.is_attestation]
        if not images:
            raise BadArchive(f"{self.origin} holds no image: its index.json names none")
        found: dict[str, ArchivedImage] = {}
        for pointer in self._one_platform(images, platform):
            image = self._pointed(pointer, platform)
            before = found[image.config_path].names if image.config_path in found else ()
            names = (*before, pointer.name) if pointer.name else before
            found[image.config_path] = msgspec_replace(image, tuple(dict.fromkeys(names)))
        return list(found.values())

    def _one_platform(self, pointers: list[Pointer], platform: str) -> list[Pointer]:
        """Manifests of several platforms that stand in `index.json` itself under one name, or none, are one image."""
        groups: dict[str | None, dict[str, Pointer]] = {}
        for pointer in pointers:
            groups.setdefault(pointer.name, {})[pointer.digest] = pointer
        kept: list[Pointer] = []
        for group in groups.values():
            members = list(group.values())
            if len(members) > 1 and all(member.platform is not None for member in members):
                members = [self._chosen(members, platform)]
            kept += members
        return kept

    def _pointed(self, pointer: Pointer, platform: str) -> ArchivedImage:
        """The image behind a pointer of `index.json`; the engine's platform of an index."""
        at, complete = pointer, True
        for _ in range(_INDEXES_AT_MOST):
            document = self._document(at, "manifest")
            inner = self._inner_index(document, at)
            if inner is None:
                image = self._manifest(document, at)
                return ArchivedImage(image.config_path, image.config, image.layers, pointer=pointer if complete else at)
            complete = complete and self._is_complete(inner)
            at = self._chosen([one for one in inner.manifests if not one.is_attestation], platform)
        raise BadArchive(f"{self.origin}: indexes within indexes, more than {_INDEXES_AT_MOST} deep")

    def _chosen(self, pointers: list[Pointer], platform: str) -> Pointer:
        """The platform's own manifest. Raises BadArchive that says which platforms there are."""
        there = [one for one in pointers if self.file(one.path) is not None]
        for one in there:
            if one.platform is not None and _runs(one.platform, platform):
                return one
        if len(there) == 1 and there[0].platform is None:
            return there[0]
        held = ", ".join(str(one.platform) for one in there if one.platform) or "none"
        named = any(one.platform is not None and _runs(one.platform, platform) for one in pointers)
        raise BadArchive(
            f"{self.origin} holds no image for {platform}: it holds {held}"
            + (f", and names one for {platform} without holding it; save it again with that platform" if named else "")
        )

    def _inner_index(self, document: bytes, pointer: Pointer) -> Index | None:
        try:
            plain = decode(document, dict[str, msgspec.Raw])
            return decode(document, Index) if "manifests" in plain and "config" not in plain else None
        except msgspec.DecodeError as problem:
            raise BadArchive(f"{self.origin}: its blob {pointer.digest} cannot be read: {problem}") from problem

    def _manifest(self, document: bytes, pointer: Pointer) -> ArchivedImage:
        try:
            manifest = decode(document, BlobManifest)
        except msgspec.DecodeError as problem:
            raise BadArchive(f"{self.origin}: its blob {pointer.digest} is no manifest: {problem}") from problem
        if manifest.config.media_type not in IMAGE_CONFIGS:
            raise BadArchive(f"{self.origin} holds no image but an artifact of type {manifest.config.media_type!r}")
        self._document(manifest.config, "config")
        layers = []
        for layer in manifest.layers:
            if layer.urls and self.file(layer.path) is None:
                raise BadArchive(f"{self.origin} leaves out layer {layer.digest}, which lies at {layer.urls[0]!r}")
            layers.append(self._whole(layer.path, "layer"))
        return self._image(self._whole(manifest.config.path, "config"), tuple(layers), ())

    def _is_complete(self, index: Index) -> bool:
        """Whether all that an index names is in the archive, down to the layers."""
        for pointer in index.manifests:
            content = self.documents.get(self.file(pointer.path) or "")
            if content is None:
                return False
            try:
                manifest = decode(content, BlobManifest)
            except msgspec.DecodeError:
                return False  # an index within an index: the engine is given what was chosen
            if any(self.file(blob.path) is None for blob in (manifest.config, *manifest.layers)):
                return False
        return True

    def _document(self, pointer: Pointer, what: str) -> bytes:
        """A blob that has to be a small JSON file, verified. Raises BadArchive."""
        content = self.documents.get(self._whole(pointer.path, f"{what} blob"))
        if content is None:
            raise BadArchive(f"{self.origin}: its {what} {pointer.digest} is no JSON document, or too large for one")
        if sha256(content) != pointer.digest:
            raise BadArchive(f"{self.origin} is damaged: its blob {pointer.digest} has other content; get it again")
        return content

    def _image(self, config_path: str, layers: tuple[str | None, ...], names: tuple[str, ...]) -> ArchivedImage:
        content = self.documents.get(config_path)
        if content is None:
            raise BadArchive(f"{self.origin}: its config {config_path} is no JSON document, or too large for one")
        try:
            config = ImageConfig.parse(content)
        except BadInput as problem:
            raise BadArchive(f"{self.origin}: its config {config_path} cannot be read: {problem}") from problem
        if len(config.rootfs.diff_ids) != len(layers):
            raise BadArchive(
                f"{self.origin} contradicts itself: its config {config_path} has {len(config.rootfs.diff_ids)} layers,"
                f" its manifest {len(layers)}"
            )
        return ArchivedImage(config_path, config, layers, names)

    def _whole(self, path: str, what: str) -> str:
        found = next((file for name in _spellings(path) if (file := self.file(name)) is not None), None)
        if found is None:
            raise BadArchive(
                f"{self.origin} is not whole: its {what} {path} is missing; get it again, or save it again"
            )
        return found


def msgspec_replace(image: ArchivedImage, names: tuple[str, ...]) -> ArchivedImage:
    """The same image under other names."""
    return ArchivedImage(image.config_path, image.config, image.layers, names, image.pointer)


def _spellings(path: str) -> Iterator[str]:
    yield path
    yield "/".join(part for part in path.split("/") if part not in {"", "."})


def _runs(platform: Platform, wanted: str) -> bool:
    """Whether an engine of the platform `wanted` runs it; variants count where both say one."""
    ours, theirs = wanted.split("/"), (platform.os, platform.architecture, platform.variant)
    variant = ours[2] if len(ours) > 2 else ""
    return (platform.os, platform.architecture) == tuple(ours[:2]) and (not variant or theirs[2] in {"", variant})
