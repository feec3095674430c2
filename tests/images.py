"""Makes images out of layer tars, without an engine: configs, archives."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import AsyncIterator, Collection, Mapping, Sequence

import msgspec

from services.core.archives.layout import END, plan_archive
from services.core.deployments.offers import Layout
from services.core.images.image import Store
from services.core.images.manifests import (
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
    Descriptor,
    Manifest,
    sha256,
)
from services.core.images.references import Reference

LAYOUTS: dict[Store, Layout] = {"classic": "docker", "containerd": "oci"}
"""Which archive each store takes, thin or full."""


def tar_of(files: Mapping[str, bytes]) -> bytes:
    """A tar with these files."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return raw.getvalue()


def config_of(diff_ids: Sequence[str], **extra: object) -> bytes:
    """A config that every engine takes."""
    plain = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2024-05-06T07:08:09Z",
        "config": {"Cmd": ["/bin/sh"]},
        "history": [{"created": "2024-05-06T07:08:09Z", "created_by": "test"} for _ in diff_ids],
        "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
        **extra,
    }
    return json.dumps(plain).encode()


async def archive_of(
    reference: str,
    layers: Sequence[bytes],
    *,
    layout: Layout,
    held: Collection[int] | None = None,
    config: bytes | None = None,
) -> AsyncIterator[bytes]:
    """An archive for `docker load`, with the layers at the places `held`, or all."""
    diff_ids = [sha256(layer) for layer in layers]
    plan = plan_archive(
        layout=layout,
        reference=reference,
        familiar=Reference.parse(reference).familiar,
        config=config_of(diff_ids) if config is None else config,
        diff_ids=diff_ids,
        held={diff_id for place, diff_id in enumerate(diff_ids) if held is None or place in held},
        sizes={diff_id: len(layer) for diff_id, layer in zip(diff_ids, layers, strict=True)},
    )
    contents = dict(zip(diff_ids, layers, strict=True))
    for entry in plan.entries:
        content = entry.content if entry.content is not None else contents[str(entry.diff_id)]
        yield entry.header(len(content))
        for start in range(0, len(content), 1 << 18):
            yield content[start : start + (1 << 18)]
        yield bytes(-len(content) % 512)
    yield END


def many_platforms(name: str, unique: str) -> tuple[bytes, str, dict[str, bytes]]:
    """An archive of an index of two platforms; the index's digest, and each platform's one layer."""
    contents: dict[str, bytes] = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}

    def put_in(content: bytes, media_type: str) -> Descriptor:
        contents[f"blobs/sha256/{sha256(content).removeprefix('sha256:')}"] = content
        return Descriptor(media_type=media_type, digest=sha256(content), size=len(content))

    described, layers = [], {}
    for architecture in ("arm64", "amd64"):
        layers[architecture] = layer = tar_of({"t/arch": f"{architecture} {unique}".encode() * 1000})
        config = put_in(config_of([sha256(layer)], architecture=architecture), OCI_CONFIG)
        manifest = Manifest.write(config, (put_in(gzip.compress(layer), OCI_LAYER_GZIP),))
        plain = msgspec.to_builtins(put_in(manifest.content, OCI_MANIFEST))
        described.append({**plain, "platform": {"architecture": architecture, "os": "linux"}})
    index = put_in(msgspec.json.encode({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": described}), OCI_INDEX)
    annotated = {**msgspec.to_builtins(index), "annotations": {"io.containerd.image.name": name}}
    contents["index.json"] = msgspec.json.encode({"schemaVersion": 2, "manifests": [annotated]})
    return tar_of(contents), index.digest, layers
