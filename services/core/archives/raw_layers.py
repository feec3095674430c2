"""Annotation of raw layers: which layers of a loaded image a containerd store has uncompressed.

Such a store keeps blobs by digest, and an image is whole only if it has the very blobs that the image's manifest names.
The engine's API does not tell them, and a pull passes over each layer that is unpacked already, whatever blob it came
as. So where a layer came raw by archive and the registry has it compressed, a pull on top of it ends well, and leaves
an image that lacks a blob. An archive in OCI layout therefore says of itself which of its layers are raw: an image's
descriptor keeps its annotations, under every name and after a restart, and `inspect` tells them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from events.messages import Layer
from services.core.archives.layout import RAW_LAYERS, chain_prefix
from services.core.images.image import EngineImage

_PLACES = re.compile(r"[0-9]{1,4}(,[0-9]{1,4}){0,999}")


def read(annotations: object, diff_ids: Sequence[str]) -> tuple[str, ...]:
    """Diff IDs of an image's raw layers, of its descriptor's annotations; none where they do not tell that."""
    written = annotations.get(RAW_LAYERS) if isinstance(annotations, Mapping) else None
    if not isinstance(written, str) or not _PLACES.fullmatch(written):
        return ()
    places = [int(place) for place in written.split(",")]
    if max(places) >= len(diff_ids):
        return ()
    return tuple(dict.fromkeys(diff_ids[place] for place in places))


def raw_of(wanted: Iterable[str], present: Collection[EngineImage]) -> tuple[str, ...]:
    """Which of the `wanted` diff IDs some image that is present has raw."""
    raw = {diff_id for image in present for diff_id in image.raw_layers}
    return tuple(diff_id for diff_id in dict.fromkeys(wanted) if diff_id in raw)


def passed_over(wanted: Sequence[str], layers: Sequence[Layer], present: Collection[EngineImage]) -> tuple[str, ...]:
    """Diff IDs of layers that a pull of `wanted` would pass over without having the blob that its manifest names.

    `layers` are as the registry has them. Those count that are unpacked on the same ones, that every listed image has
    raw, and that the registry has in another form. An image without an id is not listed yet: its forms are not known.
    """
    raw = {diff_id for image in present for diff_id in image.raw_layers}
    listed = [image for image in present if image.local_id]
    other = {diff_id for image in listed for diff_id in image.diff_ids if diff_id not in image.raw_layers}
    compressed = {layer.diff_id for layer in layers if layer.digest != layer.diff_id}
    unpacked = wanted[: chain_prefix(wanted, [image.diff_ids for image in present])]
    return tuple(diff_id for diff_id in dict.fromkeys(unpacked) if diff_id in (raw - other) & compressed)
