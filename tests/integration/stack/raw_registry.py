"""A registry spoken to directly: blobs and manifests put and fetched with nothing in between."""

from __future__ import annotations

import hashlib
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar"


@dataclass(frozen=True)
class Answer:
    """One answer, whatever its status."""

    status: int
    headers: Message
    body: bytes


def ask(
    url: str, *, method: str = "GET", data: bytes | None = None, headers: Mapping[str, str] | None = None
) -> Answer:
    """Raises OSError where nobody answers."""
    request = urllib.request.Request(url, data=data, headers=dict(headers or {}), method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return Answer(answer.status, answer.headers, answer.read())
    except urllib.error.HTTPError as refused:
        with refused:
            return Answer(refused.code, refused.headers, refused.read())


def digest_of(data: bytes) -> str:
    """`sha256:…`."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def put_blob(url: str, repository: str, data: bytes) -> str:
    """Its digest."""
    begun = ask(f"{url}/v2/{repository}/blobs/uploads/", method="POST")
    kind = {"Content-Type": "application/octet-stream"}
    where = f"{begun.headers['Location']}&digest={digest_of(data)}"
    assert ask(where, method="PUT", data=data, headers=kind).status == 201
    return digest_of(data)


def put_image(url: str, repository: str, *layers: bytes, tag: str = "1") -> str:
    """The digest of its manifest."""
    parts = [{"mediaType": LAYER, "size": len(one), "digest": put_blob(url, repository, one)} for one in layers]
    config = {"mediaType": CONFIG, "size": 2, "digest": put_blob(url, repository, b"{}")}
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": parts}
    data = json.dumps(manifest).encode()
    where = f"{url}/v2/{repository}/manifests/{tag}"
    assert ask(where, method="PUT", data=data, headers={"Content-Type": MANIFEST}).status == 201
    return digest_of(data)
