"""Layout of archives that `docker load` takes, decided before the first byte is read.

Two layouts, because each image store takes a thin archive in one of them only:

    docker  manifest.json, <config>.json, <layer>.tar …  classic stores. The loader looks for a layer by its chain ID
            before it opens its file (moby image/tarexport/load.go), so layers that the engine has may be left out.
    oci     oci-layout, index.json, blobs/sha256/…  containerd stores (OCI image-layout.md). Blobs that the content
            store has may be left out; the name is the index's annotation `io.containerd.image.name`.

A plan lists the entries in order: first all that says what the image is, then the layers, base first, each once. The
same image, layers and layout give the same bytes, so one export serves every range that lacks the same layers.

Headers are GNU tar's: 512 bytes for every size (sizes over 8 GiB are base-256 there, where ustar would need a pax
header more), so a header's room is known before the layer's size is. Go's `archive/tar` reads both.
"""

from __future__ import annotations

import tarfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from events.messages import Layer
from services.core.deployments.offers import Layout
from services.core.images.manifests import (
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_LAYER_ZSTD,
    Descriptor,
    Manifest,
    sha256,
)

BLOCK_BYTES = 512
#: Annotation of an image's descriptor: the places of its raw layers, counted from 0 at the base (`0,3,4`).
RAW_LAYERS = "cyroid.raw-layers"
#: Two empty blocks end a tar (POSIX.1-1988); readers need nothing more.
END = bytes(2 * BLOCK_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One file of an archive: either `content` itself, or the layer `diff_id`. Size None: known once it was read."""

    name: str
    size_bytes: int | None
    content: bytes | None = None
    diff_id: str | None = None

    def header(self, size_bytes: int) -> bytes:
        """The 512 bytes before the content. Owner, mode and time are fixed, so that equal archives are equal bytes."""
        info = tarfile.TarInfo(self.name)
        info.size, info.mode, info.mtime = size_bytes, 0o644, 0
        return info.tobuf(tarfile.GNU_FORMAT)


def padding(size_bytes: int) -> bytes:
    """Zeros after a content of that size, up to the next block."""
    return bytes(-size_bytes % BLOCK_BYTES)


@dataclass(frozen=True, slots=True)
class ArchivePlan:
    """What an archive consists of, in order."""

    layout: Layout
    entries: tuple[Entry, ...]

    @property
    def described(self) -> tuple[Entry, ...]:
        """The entries that say what the image is; their order against the layers does not matter to any engine."""
        return tuple(entry for entry in self.entries if entry.content is not None)

    @property
    def total_bytes(self) -> int | None:
        """The exact length of the whole archive; None while a layer's size is unknown."""
        total = len(END)
        for entry in self.entries:
            if entry.size_bytes is None:
                return None
            total += BLOCK_BYTES + entry.size_bytes + len(padding(entry.size_bytes))
        return total


def chain_prefix(wanted: Sequence[str], present: Collection[Sequence[str]]) -> int:
    """How many of the `wanted` layers, from the base up, some image that is present has in the same order.

    A classic store knows a layer by its whole chain, so a layer above a gap does not count though its diff ID is known.
    """
    best = 0
    for diff_ids in present:
        same = 0
        for ours, theirs in zip(wanted, diff_ids, strict=False):
            if ours != theirs:
                break
            same += 1
        best = max(best, same)
    return best


def usable(wanted: Sequence[str], present: Collection[Sequence[str]]) -> tuple[str, ...]:
    """Diff IDs that an archive for `wanted` may leave out, given the images present: those below the first gap.

    A layer that occurs again above the gap has to be sent for its second place, so it does not count either.
    """
    kept = chain_prefix(wanted, present)
    above = set(wanted[kept:])
    return tuple(diff_id for diff_id in dict.fromkeys(wanted[:kept]) if diff_id not in above)


def plan_archive(
    *,
    layout: Layout,
    reference: str,
    familiar: str,
    config: bytes,
    diff_ids: Sequence[str],
    held: Collection[str],
    sizes: Mapping[str, int | None],
    blobs: Mapping[str, Layer] | None = None,
) -> ArchivePlan:
    """The archive of one image under one name, holding the layers in `held`, uncompressed.

    reference  normalised (`docker.io/library/nginx:1.27`), the containerd name; `familiar` as docker writes it
    diff_ids   all layers of the image, base first, as in its config
    sizes      bytes of each layer's tar by diff ID; the OCI layout needs the size of every layer, held or not
    blobs      OCI layout: as which blobs the engine has the layers left out, where they are not raw

    Raises ValueError for an OCI layout with an unknown size: its manifest names the size of every layer.
    """
    if layout == "docker":
        described = _docker(familiar, config, diff_ids)
    else:
        left_out = {diff_id: blob for diff_id, blob in (blobs or {}).items() if diff_id not in held}
        described = _oci(reference, config, [_descriptor(diff_id, sizes, left_out) for diff_id in diff_ids])
    layers = [
        layer_entry(layout, diff_id, sizes.get(diff_id)) for diff_id in dict.fromkeys(diff_ids) if diff_id in held
    ]
    return ArchivePlan(layout, (*described, *layers))


def layer_entry(layout: Layout, diff_id: str, size_bytes: int | None) -> Entry:
    """The file of one layer."""
    return Entry(name=_layer_name(layout, diff_id), size_bytes=size_bytes, diff_id=diff_id)


def _layer_name(layout: Layout, digest: str) -> str:
    plain = digest.removeprefix("sha256:")
    return f"{plain}.tar" if layout == "docker" else f"blobs/sha256/{plain}"


def _file(name: str, content: bytes) -> Entry:
    return Entry(name=name, size_bytes=len(content), content=content)


def _docker(familiar: str, config: bytes, diff_ids: Sequence[str]) -> list[Entry]:
    config_name = sha256(config).removeprefix("sha256:") + ".json"
    layers = [_layer_name("docker", diff_id) for diff_id in diff_ids]
    listing = [{"Config": config_name, "RepoTags": [familiar], "Layers": layers}]
    return [_file("manifest.json", msgspec.json.encode(listing)), _file(config_name, config)]


def _oci(reference: str, config: bytes, layers: Sequence[Descriptor]) -> list[Entry]:
    described = Descriptor(media_type=OCI_CONFIG, digest=sha256(config), size=len(config))
    manifest = Manifest.write(described, tuple(layers))
    raw = ",".join(str(place) for place, layer in enumerate(layers) if layer.media_type == OCI_LAYER)
    index = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [
            {
                "mediaType": manifest.body.media_type,
                "digest": manifest.digest,
                "size": len(manifest.content),
                "annotations": {
                    "io.containerd.image.name": reference,
                    "org.opencontainers.image.ref.name": reference.rpartition(":")[2],
                    **({RAW_LAYERS: raw} if raw else {}),
                },
            }
        ],
    }
    return [
        _file("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'),
        _file("index.json", msgspec.json.encode(index)),
        _file(_layer_name("oci", manifest.digest), manifest.content),
        _file(_layer_name("oci", described.digest), config),
    ]


_LAYER_TYPES = {"raw": OCI_LAYER, "gzip": OCI_LAYER_GZIP, "zstd": OCI_LAYER_ZSTD}


def _descriptor(diff_id: str, sizes: Mapping[str, int | None], blobs: Mapping[str, Layer]) -> Descriptor:
    if blob := blobs.get(diff_id):
        return Descriptor(media_type=_LAYER_TYPES[blob.codec], digest=blob.digest, size=blob.size_bytes)
    size = sizes.get(diff_id)
    if size is None:
        raise ValueError(f"the size of layer {diff_id} is unknown, an OCI layout needs it")
    return Descriptor(media_type=OCI_LAYER, digest=diff_id, size=size)
