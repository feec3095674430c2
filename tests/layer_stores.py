"""Makes an engine's folders out of tars, as the engine would, for tests that need no engine."""

from __future__ import annotations

import base64
import gzip
import io
import json
import secrets
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from services.core.images.chain_ids import chain_ids
from services.core.images.image import EngineImage
from services.core.images.manifests import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, Descriptor, Manifest, sha256


def write_layer_store(root: Path, layers: Sequence[bytes]) -> EngineImage:
    """Put an image with these layer tars below `root`."""
    diff_ids = tuple(sha256(layer) for layer in layers)
    config = json.dumps(
        {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    ).encode()
    image = EngineImage(local_id=sha256(config), image_id=sha256(config), diff_ids=diff_ids)
    _write(root / "image/overlay2/imagedb/content/sha256" / sha256(config).removeprefix("sha256:"), config)
    for layer, diff_id, chain_id in zip(layers, diff_ids, chain_ids(diff_ids), strict=True):
        described = root / "image/overlay2/layerdb/sha256" / chain_id.removeprefix("sha256:")
        cache_id = secrets.token_hex(32)
        _write(described / "diff", diff_id.encode())
        _write(described / "cache-id", cache_id.encode())
        _write(described / "tar-split.json.gz", gzip.compress(tar_split(layer)))
        folder = root / "overlay2" / cache_id / "diff"
        folder.mkdir(parents=True)
        with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
            # An attribute, because Debian 12's Python 3.11.2 has no argument `filter` yet, and 3.12 warns without one.
            tar.extraction_filter = lambda member, _: member
            tar.extractall(folder)
    return image


def diff_folder(root: Path, image: EngineImage, place: int = 0) -> Path:
    """Where the files of a layer lie."""
    described = root / "image/overlay2/layerdb/sha256" / chain_ids(image.diff_ids)[place].removeprefix("sha256:")
    return root / "overlay2" / (described / "cache-id").read_text() / "diff"


def tar_split(layer: bytes) -> bytes:
    """The list that tells files' contents from the rest of a tar."""
    lines: list[dict[str, object]] = []
    done = 0
    with tarfile.open(fileobj=io.BytesIO(layer), errors="surrogateescape") as tar:
        for member in tar:
            lines.append({"type": 2, "payload": base64.b64encode(layer[done : member.offset_data]).decode()})
            raw = member.name.encode(errors="surrogateescape")
            try:
                named: dict[str, object] = {"name": raw.decode()}
            except UnicodeDecodeError:
                named = {"name_raw": base64.b64encode(raw).decode()}
            size = member.size if member.isreg() else 0
            lines.append({"type": 1, **named, "size": size, "payload": "AAAAAAAAAAA="})
            done = member.offset_data + size
    lines.append({"type": 2, "payload": base64.b64encode(layer[done:]).decode()})
    return b"".join(json.dumps({**line, "position": place}).encode() + b"\n" for place, line in enumerate(lines))


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def write_content_store(root: Path, layers: Sequence[bytes], *, pack: Callable[[bytes], bytes]) -> EngineImage:
    """Put a multi-platform image below `root` as containerd has it: another platform's content is not there."""
    blobs = root / "containerd/daemon/io.containerd.content.v1.content/blobs/sha256"

    def put(content: bytes, media_type: str) -> Descriptor:
        _write(blobs / sha256(content).removeprefix("sha256:"), content)
        return Descriptor(media_type=media_type, digest=sha256(content), size=len(content))

    diff_ids = tuple(sha256(layer) for layer in layers)
    config = json.dumps(
        {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    ).encode()
    described = tuple(put(pack(layer), OCI_LAYER) for layer in layers)
    manifest = Manifest.write(put(config, OCI_CONFIG), described)
    attestation = put(b'{"schemaVersion":2,"config":{"mediaType":"x","digest":"sha256:0","size":1}}', OCI_MANIFEST)
    elsewhere = Descriptor(media_type=OCI_MANIFEST, digest="sha256:" + "e" * 64, size=1)
    index = {
        "schemaVersion": 2,
        "manifests": [elsewhere, attestation, put(manifest.content, OCI_MANIFEST)],
    }
    local_id = put(msgspec.json.encode(index), OCI_INDEX).digest
    return EngineImage(local_id=local_id, image_id=None, diff_ids=diff_ids)
