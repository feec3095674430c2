"""Small tars and image archives for tests of their readers."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from typing import Literal

from services.core.images.manifests import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, sha256

Form = Literal[0, 1, 2]
"""A dialect, as `tarfile` numbers them."""
LAYER = b"layer bytes" * 1000
DIFF_ID = sha256(LAYER)


def config_of(*diff_ids: str, architecture: str = "amd64") -> bytes:
    """An image config."""
    rootfs = {"type": "layers", "diff_ids": list(diff_ids)}
    return json.dumps({"architecture": architecture, "os": "linux", "rootfs": rootfs}).encode()


CONFIG = config_of(DIFF_ID)


def tar(contents: Mapping[str, bytes], form: int = tarfile.GNU_FORMAT) -> bytes:
    """A tar with these files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for name, content in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def entry(name: str, *, kind: bytes = tarfile.REGTYPE, link: str = "", form: Form = tarfile.GNU_FORMAT) -> bytes:
    """The header of an entry without content."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info.tobuf(form)


def docker(tags: Sequence[str] | None, *, layers: Sequence[str] = ("a/layer.tar",)) -> dict[str, bytes]:
    """The files of a `docker save` of one image with one layer, of which `layers` are there."""
    manifest = json.dumps([{"Config": "c.json", "RepoTags": tags, "Layers": ["a/layer.tar"]}]).encode()
    return {"c.json": CONFIG, **dict.fromkeys(layers, LAYER), "manifest.json": manifest}


def blob(content: bytes) -> str:
    """Where an OCI layout keeps it."""
    return f"blobs/{sha256(content).replace(':', '/')}"


def pointer(content: bytes, media_type: str, **more: object) -> dict[str, object]:
    """A descriptor."""
    return {"mediaType": media_type, "digest": sha256(content), "size": len(content), **more}


def oci_manifest(config: bytes = CONFIG, layer: bytes = LAYER) -> bytes:
    """A manifest of one layer."""
    return json.dumps(
        {"schemaVersion": 2, "config": pointer(config, OCI_CONFIG), "layers": [pointer(layer, OCI_LAYER)]}
    ).encode()


def oci(*names: str | None, config: bytes = CONFIG) -> dict[str, bytes]:
    """The files of an OCI layout of one image under these names."""
    manifest = oci_manifest(config)
    pointers = [
        pointer(manifest, OCI_MANIFEST, annotations={"io.containerd.image.name": name} if name else None)
        for name in names
    ]
    return {
        "oci-layout": b"{}",
        blob(manifest): manifest,
        blob(config): config,
        blob(LAYER): LAYER,
        "index.json": json.dumps({"schemaVersion": 2, "manifests": pointers}).encode(),
    }
