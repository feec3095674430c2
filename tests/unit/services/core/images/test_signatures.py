"""What a signature says, and about which image."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from services.core.images.p256 import PublicKey
from services.core.images.signatures import PAYLOAD_TYPE, SIGNATURE, is_signed, signature_layers, signature_tag
from tests.signing import Signer, payload_of

DIGEST, OTHER = "sha256:" + "1" * 64, "sha256:" + "2" * 64


def test_the_tag_is_the_digest() -> None:
    """As cosign's specification has it."""
    assert signature_tag(DIGEST) == f"sha256-{'1' * 64}.sig"


@pytest.mark.parametrize(
    ("payload", "right"),
    [
        (payload_of("app", DIGEST), True),
        (payload_of("app", OTHER), False),
        (payload_of("app", DIGEST, "atomic container signature"), False),
        (b"{}", False),
        (b"[" * 5000, False),
        (b'{"critical":{"image":{},"type":"cosign container image signature"}}', False),
    ],
)
def test_a_signature_counts_for_its_own_image(payload: bytes, right: bool, tmp_path: Path) -> None:
    """A right signature of another manifest, or of something that is no image, says nothing."""
    signer = Signer(tmp_path)
    keys = PublicKey.all_of(signer.public.read_text())
    assert is_signed(payload, signer.signature(payload), DIGEST, keys) is right
    assert not is_signed(payload, signer.signature(payload), DIGEST, ())


def test_layers_that_are_no_signatures_are_passed_over() -> None:
    """Other types, sizes out of bounds, annotations that are no base64; at most 32 are looked at."""
    good = {"mediaType": PAYLOAD_TYPE, "digest": DIGEST, "size": 9, "annotations": {SIGNATURE: "MEUC"}}
    bad = [
        {**good, "mediaType": "application/json"},
        {**good, "size": 0},
        {**good, "size": 1 << 30},
        {**good, "annotations": {SIGNATURE: "…"}},
        {**good, "annotations": None},
    ]
    found = signature_layers(json.dumps({"layers": [*bad, *[good] * 40]}).encode())
    assert len(found) == 32
    assert {one.signature for one in found} == {base64.b64decode("MEUC")}
    assert signature_layers(b"no JSON") == signature_layers(b"{}") == []
