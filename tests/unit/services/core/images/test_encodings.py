"""Which form a layer gets, by setting, engines and what it shrinks to."""

from __future__ import annotations

import os

import pytest

from services.core.images.encodings import (
    RAW,
    ZSTD,
    CodecSetting,
    LayerEncoding,
    choose,
    codec_of,
    encoding_key,
    places_key,
)
from services.core.images.manifests import DOCKER_LAYER, DOCKER_LAYER_GZIP, OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD

NOISE = os.urandom(100_000)
TEXT = b"the same words again and again\n" * 3000
MIXED = NOISE[:80_000] + TEXT[:20_000]


@pytest.mark.parametrize(
    ("setting", "read", "sample", "form"),
    [
        ("raw", True, TEXT, RAW),
        ("auto", True, TEXT, ZSTD),
        ("auto", False, TEXT, RAW),
        ("auto", True, NOISE, RAW),
        ("auto", True, MIXED, RAW),
        ("zstd", True, MIXED, ZSTD),
        ("zstd", True, NOISE, RAW),
        ("zstd", False, TEXT, RAW),
        ("auto", True, b"", RAW),
    ],
)
def test_zstd_is_chosen_only_where_it_pays_and_is_read(
    setting: CodecSetting, read: bool, sample: bytes, form: LayerEncoding
) -> None:
    """Raw unless all engines read zstd and the sample shrinks as much as the setting asks for."""
    assert choose(setting, all_read_zstd=read, samples=[sample] if sample else []) == form


def test_a_raw_layers_blob_is_its_diff_id_and_a_zstd_layers_is_known_later() -> None:
    """Before the first push nobody knows the digest of a compressed layer."""
    assert RAW.blob("sha256:d") == "sha256:d"
    assert ZSTD.blob("sha256:d") is None
    assert LayerEncoding(codec="zstd", digest="sha256:z").blob("sha256:d") == "sha256:z"


@pytest.mark.parametrize(
    ("media_type", "codec"),
    [
        (OCI_LAYER, "raw"),
        (OCI_LAYER_GZIP, "gzip"),
        (OCI_LAYER_ZSTD, "zstd"),
        (DOCKER_LAYER, "raw"),
        (DOCKER_LAYER_GZIP, "gzip"),
    ],
)
def test_a_media_type_names_its_codec(media_type: str, codec: str) -> None:
    """OCI's and Docker's names."""
    assert codec_of(media_type) == codec


def test_the_records_lie_under_the_prefix() -> None:
    """Keys hold the hex of the diff ID alone."""
    assert encoding_key("cyroid", "sha256:ab").name == "cyroid:layer:ab:form"
    assert places_key("cyroid", "sha256:ab") == "cyroid:layer:ab:repositories"
