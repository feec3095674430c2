"""ECDSA on P-256 with SHA-256 (FIPS 186-5): verification of a signature by a public key, nothing else.

Keys are X.509 SubjectPublicKeyInfo as PEM (RFC 7468), signatures are DER (RFC 3279, `Ecdsa-Sig-Value`).
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

_PEM = re.compile(r"-----BEGIN PUBLIC KEY-----\s+([A-Za-z0-9+/=\s]{1,1000}?)-----END PUBLIC KEY-----")


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A point on the curve, as its SubjectPublicKeyInfo in DER."""

    info: bytes

    @classmethod
    def all_of(cls, text: str) -> list[Self]:
        """Every key of a PEM file. Raises ValueError for a file without one, or with a key of another kind."""
        found = [cls._of(base64.b64decode("".join(block.split()), validate=True)) for block in _PEM.findall(text)]
        if not found:
            raise ValueError("it holds no `BEGIN PUBLIC KEY`")
        return found

    @classmethod
    def _of(cls, info: bytes) -> Self:
        _loaded(info)
        return cls(info)

    def signed(self, signature: bytes, content: bytes) -> bool:
        """Whether the holder of this key's secret signed the content."""
        try:
            _loaded(self.info).verify(signature, content, ECDSA(SHA256()))
        except InvalidSignature:
            return False
        return True


def _loaded(info: bytes) -> EllipticCurvePublicKey:
    """Raises ValueError for anything but a point on P-256."""
    try:
        key = load_der_public_key(info)
    except (ValueError, UnsupportedAlgorithm) as problem:
        raise ValueError(f"it is no public key that can be read: {problem}") from problem
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256R1):
        raise ValueError("it is no ECDSA key on the curve P-256, as cosign makes them")
    return key
