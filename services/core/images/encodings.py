"""Encoding of a layer in the registry: raw or zstd. One encoding per layer, for ever.

Two forms of one layer are two digests, and an engine that has one downloads the other again. So the first push of a
layer fixes its form in a record, before a byte is sent; who comes second finds the record and does the same.

    raw     digest == diff ID, known before a byte is read; every engine since 20.10 takes it
    zstd    smaller on disk and on the wire; engines since 23.0 take it; only where a probe of the layer shrinks well
    gzip    never chosen here: what an engine's own push makes, or a containerd store keeps. It cannot be made again, so
            a layer whose gzip blob is gone becomes raw: nobody can take the old form up once more

A layer that goes by once (a save) is probed by its first megabytes, one that can be opened twice by its first 64.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec
import zstandard

from events.messages import Layer, LayerCodec
from events.records import Key
from services.core.images.manifests import OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD

CodecSetting = Literal["raw", "zstd", "auto"]
#: Fast enough to keep up with a disk; the next levels gain a few percent for twice the time.
ZSTD_LEVEL = 3
#: How much of its size a sample may keep for zstd to pay: `auto` wants a clear gain, `zstd` takes nearly any.
_KEEPS = {"auto": 0.7, "zstd": 0.95}
PROBE_BYTES = 1024 * 1024
#: A probe reads this much of the layer and tries every eighth megabyte of it.
PROBE_SPAN_BYTES = 64 * 1024 * 1024
PROBE_STRIDE = 8

MEDIA_TYPES: dict[LayerCodec, str] = {"raw": OCI_LAYER, "gzip": OCI_LAYER_GZIP, "zstd": OCI_LAYER_ZSTD}


class LayerEncoding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The record of one layer's form. What follows `level` is of a compressed blob, known after its first push.

    repository  where that blob went first: the same bytes cannot always be made again, so there it is looked for
    """

    codec: LayerCodec = "raw"
    level: int = 0
    digest: str | None = None
    size_bytes: int | None = None
    repository: str | None = None

    def blob(self, diff_id: str) -> str | None:
        """The digest of the blob; None while it is not known."""
        return diff_id if self.codec == "raw" else self.digest

    def layer(self, diff_id: str, digest: str, size_bytes: int) -> Layer:
        return Layer(digest=digest, diff_id=diff_id, size_bytes=size_bytes, codec=self.codec)


RAW = LayerEncoding()
ZSTD = LayerEncoding(codec="zstd", level=ZSTD_LEVEL)


def codec_of(media_type: str) -> LayerCodec:
    """The codec that a layer's media type names, Docker's and OCI's."""
    if media_type.endswith("zstd"):
        return "zstd"
    return "gzip" if media_type.endswith("gzip") else "raw"


def choose(setting: CodecSetting, *, all_read_zstd: bool, samples: Sequence[bytes]) -> LayerEncoding:
    """The form for a layer that has none yet, by what samples of it shrink to."""
    if setting == "raw" or not all_read_zstd or not samples:
        return RAW
    compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL)
    before = sum(len(sample) for sample in samples)
    after = sum(len(compressor.compress(sample)) for sample in samples)
    return ZSTD if after <= before * _KEEPS[setting] else RAW


def encoding_key(prefix: str, diff_id: str) -> Key[LayerEncoding]:
    """The record's key: `cyroid:layer:<hex>:form`."""
    return Key(f"{prefix}:layer:{diff_id.removeprefix('sha256:')}:form", LayerEncoding)


def places_key(prefix: str, diff_id: str) -> str:
    """The index of repositories that were seen to hold the layer, by time: hints, each to be verified."""
    return f"{prefix}:layer:{diff_id.removeprefix('sha256:')}:repositories"
