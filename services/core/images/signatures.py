"""Signatures of images as cosign makes them: where they are in a registry, and what one says (SIGNATURE_SPEC.md).

The signatures of the manifest `sha256:…` are the layers of an image under the tag `sha256-….sig` of its repository.
A layer's blob is the payload (simple signing, JSON), the signature of its bytes is an annotation of the layer.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable

import msgspec

from services.core.images.go_json import decode
from services.core.images.p256 import PublicKey

PAYLOAD_TYPE = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE = "dev.cosignproject.cosign/signature"
KIND = "cosign container image signature"
#: More signatures of one image are not looked at, nor a payload above this.
SIGNATURES_LIMIT = 32
PAYLOAD_LIMIT_BYTES = 64 * 1024


def signature_tag(manifest_digest: str) -> str:
    """`sha256:abc…` → `sha256-abc….sig`."""
    return f"{manifest_digest.replace(':', '-')}.sig"


class SignatureLayer(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One signature: the payload's descriptor."""

    media_type: str
    digest: str
    size: int
    annotations: dict[str, str] = {}

    @property
    def signature(self) -> bytes | None:
        """The signature's bytes; None where there is none, or no base64."""
        try:
            return base64.b64decode(self.annotations.get(SIGNATURE, ""), validate=True) or None
        except (binascii.Error, ValueError):
            return None


class _SignatureManifest(msgspec.Struct, frozen=True, kw_only=True):
    layers: tuple[SignatureLayer, ...] = ()


class _Image(msgspec.Struct, frozen=True, kw_only=True):
    digest: str = msgspec.field(default="", name="docker-manifest-digest")


class _Critical(msgspec.Struct, frozen=True, kw_only=True):
    image: _Image
    type: str


class _Payload(msgspec.Struct, frozen=True, kw_only=True):
    critical: _Critical


def signature_layers(manifest: bytes) -> list[SignatureLayer]:
    """The signatures that a manifest lists, those that can be looked at. Empty for what is no such manifest."""
    try:
        layers = decode(manifest, _SignatureManifest).layers
    except msgspec.DecodeError:
        return []
    fitting = [one for one in layers if one.media_type == PAYLOAD_TYPE and 0 < one.size <= PAYLOAD_LIMIT_BYTES]
    return [one for one in fitting if one.signature is not None][:SIGNATURES_LIMIT]


def is_signed(payload: bytes, signature: bytes, manifest_digest: str, keys: Iterable[PublicKey]) -> bool:
    """Whether one of the keys signed this payload, and it is about that manifest.

    The signature comes first: what nobody signed is not decoded.
    """
    if not any(key.signed(signature, payload) for key in keys):
        return False
    try:
        critical = decode(payload, _Payload).critical
    except msgspec.DecodeError:
        return False
    return critical.type == KIND and critical.image.digest == manifest_digest
