"""Archives of the fake engine: what `docker save` writes and what `docker load` reads, in memory."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from services.core.archives.packings import MAGIC_BYTES, packing_of, unpacker
from services.core.archives.raw_layers import read as raw_layers_of
from services.core.images.go_json import decode
from services.core.images.manifests import OCI_CONFIG, OCI_INDEX, OCI_LAYER, Descriptor, ImageConfig, Manifest, sha256
from services.errors import BadArchive, BadInput


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image of the fake. `manifest` is what a containerd store would name it by."""

    config: bytes
    manifest: Manifest

    @property
    def image_id(self) -> str:
        return sha256(self.config)

    @property
    def parsed(self) -> ImageConfig:
        return ImageConfig.parse(self.config)

    @property
    def diff_ids(self) -> tuple[str, ...]:
        return self.parsed.rootfs.diff_ids


@dataclass(slots=True)
class LoadedImage:
    """What an archive says of one image: its layers by diff ID as far as the archive holds them, its names."""

    config: bytes
    layers: dict[str, bytes] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    manifest: Manifest | None = None
    raw_layers: tuple[str, ...] = ()


def files(archive: bytes) -> dict[str, bytes]:
    """A tar's regular files by name, links resolved. Raises BadArchive for anything else or a cut-off tar."""
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:*") as tar:
            for member in tar:
                content = tar.extractfile(member) if member.isreg() or member.issym() else None
                if content is not None:
                    found[member.name.removeprefix("./")] = content.read()
    except (tarfile.TarError, EOFError, OSError, KeyError) as problem:
        raise BadArchive(f"load an archive: {problem}") from problem
    return found


def tar_of(contents: Mapping[str, bytes]) -> bytes:
    """A tar with these files, alphabetical as the engine's."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name in sorted(contents):
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(contents[name]), 0o644
            tar.addfile(info, io.BytesIO(contents[name]))
    return raw.getvalue()


def read_archive(archive: bytes) -> list[LoadedImage]:
    """Either layout, told apart as engines do: `manifest.json` comes first."""
    found = files(archive)
    try:
        if "manifest.json" in found:
            return [_docker(entry, found) for entry in decode(found["manifest.json"], list[_Entry])]
        if "index.json" in found:
            index = decode(found["index.json"], _Index)
            return [_oci(entry, found) for entry in index.manifests]
    except (msgspec.DecodeError, BadInput, KeyError) as problem:
        raise BadArchive(f"load an archive: {problem}") from problem
    raise BadArchive("load an archive: open manifest.json: no such file or directory")


def write_archive(
    images: Sequence[tuple[StoredImage, Sequence[str]]], layers: Mapping[str, bytes], *, layout: str
) -> bytes:
    """`docker save` of images with their names; `layout` is `docker` (engines before 25) or `oci`."""
    contents: dict[str, bytes] = {}
    listing = []
    described = []
    for image, names in images:
        config_hex = image.image_id.removeprefix("sha256:")
        paths = {diff_id: _path(layout, diff_id) for diff_id in image.diff_ids}
        config_path = f"{config_hex}.json" if layout == "docker" else f"blobs/sha256/{config_hex}"
        contents[config_path] = image.config
        contents.update({path: layers[diff_id] for diff_id, path in paths.items()})
        listing.append(
            {"Config": config_path, "RepoTags": list(names), "Layers": [paths[diff_id] for diff_id in image.diff_ids]}
        )
        contents[_path("oci", image.manifest.digest)] = image.manifest.content
        described += [_named(image.manifest.descriptor, name) for name in names]
        described += [] if names else [_named(image.manifest.descriptor, None)]
    contents["manifest.json"] = msgspec.json.encode(listing)
    if layout == "oci":
        contents["index.json"] = msgspec.json.encode(
            {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": described}
        )
        contents["oci-layout"] = b'{"imageLayoutVersion":"1.0.0"}'
    return tar_of(contents)


def manifest_of(config: bytes, layers: Mapping[str, bytes]) -> Manifest:
    """The manifest of an image that did not come with one."""
    described = Descriptor(media_type=OCI_CONFIG, digest=sha256(config), size=len(config))
    diff_ids = ImageConfig.parse(config).rootfs.diff_ids
    return Manifest.write(
        described, tuple(Descriptor(media_type=OCI_LAYER, digest=one, size=len(layers[one])) for one in diff_ids)
    )


class _Entry(msgspec.Struct, rename="pascal"):
    config: str
    layers: tuple[str, ...] = ()
    repo_tags: tuple[str, ...] | None = None


class _IndexEntry(msgspec.Struct):
    digest: str
    annotations: dict[str, str] = {}


class _Index(msgspec.Struct):
    manifests: tuple[_IndexEntry, ...]


def _docker(entry: _Entry, found: Mapping[str, bytes]) -> LoadedImage:
    config = found[entry.config]
    diff_ids = ImageConfig.parse(config).rootfs.diff_ids
    if len(diff_ids) != len(entry.layers):
        raise BadArchive("load an archive: invalid manifest, layers length mismatch")
    held = _held(zip(diff_ids, entry.layers, strict=True), found)
    return LoadedImage(config, held, tuple(entry.repo_tags or ()))


def _oci(entry: _IndexEntry, found: Mapping[str, bytes]) -> LoadedImage:
    manifest = Manifest.parse(found[_path("oci", entry.digest)])
    config = found[_path("oci", manifest.body.config.digest)]
    diff_ids = ImageConfig.parse(config).rootfs.diff_ids
    paths = [_path("oci", layer.digest) for layer in manifest.body.layers]
    held = _held(zip(diff_ids, paths, strict=True), found)
    name = entry.annotations.get("io.containerd.image.name")
    raw_layers = raw_layers_of(entry.annotations, diff_ids)
    return LoadedImage(config, held, (name,) if name else (), manifest, raw_layers)


def _held(layers: Iterable[tuple[str, str]], found: Mapping[str, bytes]) -> dict[str, bytes]:
    """Layers by diff ID. Engines verify each file of a layer that occurs twice, so one that is damaged counts."""
    held: dict[str, bytes] = {}
    for diff_id, path in layers:
        if path in found:
            content = plain_layer(found[path])
            if diff_id not in held or sha256(content) != diff_id:
                held[diff_id] = content
    return held


def plain_layer(layer: bytes) -> bytes:
    """The layer without its packing, whatever it is called. Raises BadArchive."""
    unpack = unpacker(packing_of(layer[:MAGIC_BYTES]))
    try:
        content = b"".join(unpack.feed(layer))
        unpack.finish()
    except ValueError as problem:
        raise BadArchive(f"load an archive: a layer: {problem}") from problem
    return content


def _path(layout: str, digest: str) -> str:
    plain = digest.removeprefix("sha256:")
    return f"{plain}/layer.tar" if layout == "docker" else f"blobs/sha256/{plain}"


def _named(descriptor: Descriptor, name: str | None) -> dict[str, object]:
    plain: dict[str, object] = {
        "mediaType": descriptor.media_type,
        "digest": descriptor.digest,
        "size": descriptor.size,
    }
    if name is not None:
        plain["annotations"] = {"io.containerd.image.name": name}
    return plain
