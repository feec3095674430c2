"""Drift of a range from its desired state, compared by content, never by name alone.

    ok              the name is there and means the wanted content
    missing         the name is not there
    other content   the name is there and means something else
    unreadable      the wanted content is there, but of its mounted layers some cannot be read (docs/mounted-layers.md)
    unknown         nobody can say: what is wanted is not known, or what is there has no identity that can be compared

The config digest decides where both sides know it, otherwise the diff IDs (`services.core.images.image`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import msgspec

from events.messages import PresentImage
from services.core.images.read_model import RangeInventory
from services.core.ranges.ranges import DesiredImage, DesiredImages, KnownRange
from services.core.ranges.unreferenced import UnreferencedImage

Word = Literal["ok", "missing", "other content", "unreadable", "unknown"]


class DriftResult(msgspec.Struct, frozen=True, kw_only=True):
    """One image of a range. Image ids are None where they are not known."""

    reference: str
    verdict: Word
    wanted: str | None = None
    found: str | None = None
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeState:
    """What is known of one range: its desired state, what its agent said, and what is in no deployment."""

    wanted: DesiredImages | None
    known: KnownRange | None
    held: RangeInventory | None
    unreferenced: tuple[UnreferencedImage, ...]


def drift_of(
    reference: str,
    wanted: DesiredImage | None,
    found: PresentImage | None,
    unreadable: Mapping[str, str] = MappingProxyType({}),
) -> DriftResult:
    """Compare what is there under `reference` (None: nothing) with what should be there (None: not known).

    `unreadable` has why layers cannot be read in this range, by diff ID (`services.core.mounts.problems`).
    """
    if wanted is None:
        found_id = found.image_id if found else None
        why = "neither a deployment, nor the host's engine, nor the registry says what it should be"
        return DriftResult(reference=reference, verdict="unknown", found=found_id, why=why)
    wanted_id = wanted.image_id or None
    if found is None:
        return DriftResult(reference=reference, verdict="missing", wanted=wanted_id)
    by_config = bool(wanted.image_id and found.image_id)
    same = wanted.image_id == found.image_id if by_config else _same_layers(wanted, found)
    word: Word = "unknown" if same is None else "ok" if same else "other content"
    why = "" if by_config else _UNTOLD if same is None else _BY_LAYERS
    layer = next((one for one in wanted.diff_ids or found.diff_ids if one in unreadable), None)
    if word == "ok" and layer is not None:
        word, why = "unreadable", f"layer {layer} cannot be read: {unreadable[layer]}"
    return DriftResult(reference=reference, verdict=word, wanted=wanted_id, found=found.image_id, why=why)


_UNTOLD = "its engine tells no config digest, and its layers were not reported: ask the engine itself"
_BY_LAYERS = "compared by its layers alone: this engine tells no config digest"


def _same_layers(wanted: DesiredImage, found: PresentImage) -> bool | None:
    if wanted.diff_ids and found.diff_ids:
        return wanted.diff_ids == found.diff_ids
    return None
