"""Signatures made as cosign makes them (its SIGNATURE_SPEC.md), with keys and signatures of OpenSSL."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path

from services.core.images.manifests import Manifest, sha256
from services.core.images.signatures import signature_tag
from services.ports import Registry
from tests.unit.services.twins import chunks


class Signer:
    """A key pair in `folder`: `NAME.pub` is what `cosign generate-key-pair` writes, too."""

    def __init__(self, folder: Path, name: str = "cosign", curve: str = "prime256v1") -> None:
        self.secret, self.public = folder / f"{name}.key", folder / f"{name}.pub"
        _openssl("ecparam", "-genkey", "-name", curve, "-noout", "-out", str(self.secret))
        _openssl("ec", "-in", str(self.secret), "-pubout", "-out", str(self.public))

    def signature(self, content: bytes) -> bytes:
        """ECDSA with SHA-256 over the content, DER."""
        return _openssl("dgst", "-sha256", "-sign", str(self.secret), content=content)

    async def sign(self, registry: Registry, repository: str, digest: str, *, payload: bytes | None = None) -> None:
        """Put the signature of a manifest beside it; the last one counts, as `cosign sign` would add to it."""
        content = payload_of(repository, digest) if payload is None else payload
        await put_signatures(registry, repository, digest, [(content, self.signature(content))])


def payload_of(repository: str, digest: str, kind: str = "cosign container image signature") -> bytes:
    """What cosign signs."""
    image = {"docker-manifest-digest": digest}
    critical = {"identity": {"docker-reference": f"registry/{repository}"}, "image": image, "type": kind}
    return json.dumps({"critical": critical, "optional": None}, separators=(",", ":")).encode()


async def put_signatures(
    registry: Registry, repository: str, digest: str, signatures: list[tuple[bytes, bytes]]
) -> Manifest:
    """Payloads with their signatures, under the tag of a manifest's digest."""
    config = json.dumps(
        {
            "architecture": "",
            "created": "0001-01-01T00:00:00Z",
            "os": "",
            "rootfs": {"type": "layers", "diff_ids": [sha256(payload) for payload, _ in signatures]},
            "config": {},
        }
    ).encode()
    for content in (config, *(payload for payload, _ in signatures)):
        await registry.put_blob(repository, sha256(content), len(content), chunks(content))
    layers = [
        {
            "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
            "size": len(payload),
            "digest": sha256(payload),
            "annotations": {"dev.cosignproject.cosign/signature": base64.b64encode(signature).decode()},
        }
        for payload, signature in signatures
    ]
    described = {
        "mediaType": "application/vnd.oci.image.config.v1+json",
        "size": len(config),
        "digest": sha256(config),
    }
    document = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": described,
        "layers": layers,
    }
    manifest = Manifest.parse(json.dumps(document).encode())
    await registry.put_manifest(repository, signature_tag(digest), manifest)
    return manifest


def _openssl(*arguments: str, content: bytes | None = None) -> bytes:
    done = subprocess.run(["openssl", *arguments], input=content, capture_output=True, check=True, timeout=60)
    return done.stdout
