"""Verification of ECDSA signatures, against a published vector and against OpenSSL."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from services.core.images.p256 import PublicKey
from tests.signing import Signer

#: RFC 6979, A.2.5: the key, and its signature of `sample` with SHA-256.
KEY = PublicKey(
    bytes.fromhex(
        "3059301306072a8648ce3d020106082a8648ce3d03010703420004"
        "60FED4BA255A9D31C961EB74C6356D68C049B8923B61FA6CE669622E60F29FB6"
        "7903FE1008B8BC99A41AE9E95628BC64F2F1B20C2D7E9F5177A3C294D4462299"
    )
)
R = 0xEFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716
S = 0xF7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def _der(*numbers: int) -> bytes:
    parts = b""
    for number in numbers:
        content = number.to_bytes(number.bit_length() // 8 + 1, "big")
        parts += b"\x02" + bytes([len(content)]) + content
    return b"\x30" + bytes([len(parts)]) + parts


def test_the_published_signature_is_right() -> None:
    """And no other content's, nor another number's."""
    assert KEY.signed(_der(R, S), b"sample")
    assert KEY.signed(_der(R, N - S), b"sample")  # ECDSA has two for each
    assert not KEY.signed(_der(R, S), b"sampl3")
    assert not KEY.signed(_der(R, S + 1), b"sample")
    assert not KEY.signed(_der(S, R), b"sample")


@pytest.mark.parametrize(
    "signature",
    [
        b"",
        b"\x30\x00",
        _der(0, S),
        _der(R, 0),
        _der(R, N),
        _der(N + R, S),
        _der(R, N + S),
        _der(R),
        _der(R, S, 1),
        _der(R, S) + b"\0",
        b"\x31" + _der(R, S)[1:],
        b"\x30\x81" + _der(R, S)[1:],
        _der(R, S)[:-1],
        b"\x30\x46\x02\x22\x00" + _der(R, S)[3:],
        b"\xff" * 70,
    ],
)
def test_what_is_no_signature_signs_nothing(signature: bytes) -> None:
    """Numbers out of their bounds, other forms of DER, bytes too many or too few."""
    assert not KEY.signed(signature, b"sample")


def test_openssl_and_this_agree(tmp_path: Path) -> None:
    """Keys and signatures of OpenSSL, many of each; one bit changed is another content."""
    signer, other = Signer(tmp_path), Signer(tmp_path, "other")
    (key,), (wrong,) = PublicKey.all_of(signer.public.read_text()), PublicKey.all_of(other.public.read_text())
    for number in range(8):
        content = b"content %d" % number
        signature = signer.signature(content)
        assert key.signed(signature, content)
        assert not wrong.signed(signature, content)
        assert not key.signed(signature, content + b" ")


def test_several_keys_in_a_file_are_all_read(tmp_path: Path) -> None:
    """As `cat one.pub two.pub` makes it."""
    texts = [Signer(tmp_path, name).public.read_text() for name in ("a", "b")]
    assert len({*PublicKey.all_of("\n".join(texts))}) == 2


def test_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    """Another curve, another algorithm, a point beside the curve, no key at all."""
    with pytest.raises(ValueError, match="P-256"):
        PublicKey.all_of(Signer(tmp_path, curve="secp384r1").public.read_text())
    with pytest.raises(ValueError, match="P-256"):
        PublicKey.all_of(Signer(tmp_path, "k", curve="secp256k1").public.read_text())
    with pytest.raises(ValueError, match="no public key that can be read"):
        PublicKey.all_of("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----")
    with pytest.raises(ValueError, match="PUBLIC KEY"):
        PublicKey.all_of("ssh-ed25519 AAAA")
    text = Signer(tmp_path, "good").public.read_text()
    info = base64.b64decode("".join(text.splitlines()[1:-1]))
    moved = base64.b64encode(info[:-1] + bytes([info[-1] ^ 1])).decode()
    with pytest.raises(ValueError, match="no public key that can be read"):
        PublicKey.all_of(f"-----BEGIN PUBLIC KEY-----\n{moved}\n-----END PUBLIC KEY-----")
