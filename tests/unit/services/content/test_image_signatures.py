"""The check of an image's signature in a registry."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.adapters.memory_registry import MemoryRegistry
from services.content.image_signatures import ImageSignatures, read_keys
from services.errors import BadInput, RegistryUnavailable
from tests.signing import Signer, payload_of, put_signatures

DIGEST, OTHER = "sha256:" + "1" * 64, "sha256:" + "2" * 64


async def test_a_right_signature_has_no_problem(tmp_path: Path) -> None:
    """By one of several keys; another manifest has none."""
    registry, signer = MemoryRegistry(), Signer(tmp_path)
    Signer(tmp_path, "other")
    check = ImageSignatures(registry, tmp_path)
    assert "there is no signature" in (await check.problem("app", DIGEST) or "")
    await signer.sign(registry, "app", DIGEST)
    assert await check.problem("app", DIGEST) is None
    assert "there is no signature" in (await check.problem("app", OTHER) or "")
    assert "there is no signature" in (await check.problem("other", DIGEST) or "")


async def test_one_right_signature_among_others_is_enough(tmp_path: Path) -> None:
    """cosign adds signatures to those that are there."""
    registry, signer = MemoryRegistry(), Signer(tmp_path)
    stranger = Signer(tmp_path / "..", f"stranger-{tmp_path.name}")
    payload = payload_of("app", DIGEST)
    signed = [(payload, stranger.signature(payload)), (payload, b"none"), (payload, signer.signature(payload))]
    await put_signatures(registry, "app", DIGEST, signed)
    assert await ImageSignatures(registry, signer.public).problem("app", DIGEST) is None
    await put_signatures(registry, "app", OTHER, [(payload, signer.signature(payload))])
    assert "none of the signatures" in (await ImageSignatures(registry, signer.public).problem("app", OTHER) or "")


async def test_a_key_that_is_taken_out_ends_its_trust(tmp_path: Path) -> None:
    """At once, also for what was found right a moment ago."""
    registry, signer = MemoryRegistry(), Signer(tmp_path)
    check = ImageSignatures(registry, tmp_path)
    await signer.sign(registry, "app", DIGEST)
    assert await check.problem("app", DIGEST) is None
    signer.public.unlink()
    assert "holds no *.pub" in (await check.problem("app", DIGEST) or "")
    Signer(tmp_path, "new")
    assert "none of the signatures" in (await check.problem("app", DIGEST) or "")


async def test_a_registry_that_is_away_is_no_verdict(tmp_path: Path) -> None:
    """The deployer waits for it, and never takes it for a signature."""
    registry = MemoryRegistry()
    Signer(tmp_path)
    registry.away = True
    with pytest.raises(RegistryUnavailable):
        await ImageSignatures(registry, tmp_path).problem("app", DIGEST)


def test_keys_that_cannot_be_used_stop_the_start(tmp_path: Path) -> None:
    """No file, no key in it, a key of another kind; the message names the setting or the file."""
    with pytest.raises(BadInput, match="cannot be read"):
        read_keys(tmp_path / "none.pub")
    with pytest.raises(BadInput, match="CYROID_SIGNATURE_KEYS"):
        read_keys(tmp_path)
    (tmp_path / "a.pub").write_bytes(b"\xff")
    with pytest.raises(BadInput, match=r"a\.pub"):
        read_keys(tmp_path)
