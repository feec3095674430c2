"""Images for the kill bench: made as archives and loaded, which costs the host's engine less than a build."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from pathlib import Path

from deploy.lab import EngineServer

_FILES = 400
_COMMON_BYTES = 200_000


def load_image(host: EngineServer, folder: Path, name: str, layer_bytes: int) -> None:
    """An image of a small layer that all have and one of `layer_bytes` in many files, which does not compress."""
    layers = [_layer("common", b"common" * (_COMMON_BYTES // 6), 1), _layer("bulk", os.urandom(layer_bytes), _FILES)]
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["/bin/true"], "Labels": {"name": name}},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(one).hexdigest()}" for one in layers]},
        }
    ).encode()
    listed = [{"Config": "config.json", "RepoTags": [name], "Layers": ["0/layer.tar", "1/layer.tar"]}]
    members = {"config.json": config, "manifest.json": json.dumps(listed).encode()}
    members |= {f"{number}/layer.tar": layer for number, layer in enumerate(layers)}
    path = folder / "image.tar"
    path.write_bytes(_archive(members))
    host.docker("load", "--quiet", "--input", str(path))
    path.unlink()


def _layer(folder: str, content: bytes, files: int) -> bytes:
    size = len(content) // files
    return _archive({f"{folder}/{number}": content[number * size : (number + 1) * size] for number in range(files)})


def _archive(members: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return made.getvalue()
