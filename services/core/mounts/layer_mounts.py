"""Folders that a range is shown for an image: one per layer, with names that both sides compute alike.

The folder of a layer is named by the hex digits of its diff ID. An overlay refuses one file system twice (ELOOP), so
the second occurrence of a layer in one image gets a file system of its own, `<hex>.2`, and so on. Its bytes are in
`blobs/<hex>` once.

The registry may hold one layer as several blobs, raw and compressed. A range may have images with each of them, and its
engine keeps each blob. So the folder of a compressed one has the blob's digits in its name as well, `<hex>.<hex>`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from events.messages import Layer
from services.core.images.chain_ids import chain_ids

#: The kernel stacks no more lower folders than this (overlayfs, OVL_MAX_STACK); engines have the same limit less three.
LAYERS_LIMIT = 125


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerMount:
    """One layer as a folder. `occurrence` counts from 1; `chain_id` names this layer with those below it."""

    layer: Layer
    occurrence: int
    chain_id: str

    @property
    def name(self) -> str:
        """The folder's name."""
        first = blob_name(self.layer)
        return first if self.occurrence == 1 else f"{first}.{self.occurrence}"


def layer_mounts(layers: Sequence[Layer]) -> tuple[LayerMount, ...]:
    """The folders for these layers, base first."""
    seen: Counter[str] = Counter()
    found = []
    for layer, chain_id in zip(layers, chain_ids([layer.diff_id for layer in layers]), strict=True):
        seen[layer.diff_id] += 1
        found.append(LayerMount(layer=layer, occurrence=seen[layer.diff_id], chain_id=chain_id))
    return tuple(found)


def unmountable(layers: Sequence[Layer]) -> str | None:
    """Why these layers cannot be mounted as the registry holds them; None if they can be."""
    if not layers:
        return "the image has no layers"
    if len(layers) > LAYERS_LIMIT:
        return f"the image has {len(layers)} layers, at most {LAYERS_LIMIT} can be stacked"
    odd = [layer for layer in layers if (layer.codec == "raw") != (layer.digest == layer.diff_id)]
    if odd:
        return f"the registry holds layer {odd[0].diff_id} as {odd[0].digest}, which cannot be its {odd[0].codec} form"
    return None


def is_compressed(layer: Layer) -> bool:
    """Whether the registry holds it compressed: its blob is no tar then."""
    return layer.digest != layer.diff_id


def blob_name(layer: Layer) -> str:
    """The name of the folder with the layer's blob; also that of the layer's own first folder."""
    digits = hex_digits(layer.diff_id)
    return f"{digits}.{hex_digits(layer.digest)}" if is_compressed(layer) else digits


def hex_digits(digest: str) -> str:
    """`sha256:<hex>` → `<hex>`."""
    return digest.removeprefix("sha256:")


def diff_ids_of(names: Iterable[str]) -> tuple[str, ...]:
    """The layers that folders of these names are of, each once, in order."""
    return tuple(sorted({f"sha256:{name.partition('.')[0]}" for name in names}))
