"""Capabilities of an engine by its version and store (measured on 20.10, 26.1 and 28.5, both stores)."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Literal

from services.core.archives.layout import usable
from services.core.deployments.offers import Layout
from services.core.images.image import EngineInfo, Store

Ability = Literal["zstd", "thin_docker", "thin_oci"]
#: The first engine whose pull and load unpack zstd (moby 23.0 release notes).
ZSTD_SINCE = 23


def abilities(info: EngineInfo) -> tuple[Ability, ...]:
    """`zstd` layers, and in which layout an archive may leave out layers that the engine has."""
    thin: Ability = "thin_docker" if info.store == "classic" else "thin_oci"
    return ("zstd", thin) if major(info.version) >= ZSTD_SINCE else (thin,)


def layout(store: Store) -> Layout:
    """The layout in which a thin archive loads. Whole archives load in this one too."""
    return "docker" if store == "classic" else "oci"


def major(version: str) -> int:
    """`20.10.24+dfsg1` is 20; 0 where it cannot be told."""
    found = re.match(r"\s*v?([0-9]{1,6})", version)
    return int(found[1]) if found else 0


def left_out(store: Store, wanted: Sequence[str], present: Collection[Sequence[str]]) -> tuple[str, ...]:
    """Which of the `wanted` diff IDs an archive may leave out where images with the layers `present` are.

    A classic store knows a layer by its chain. A containerd store keeps blobs by digest, whatever lies below them; one
    that it has in compressed form only is not known here, so a thin archive may still be refused.
    """
    if store == "classic":
        return usable(wanted, present)
    known = {diff_id for diff_ids in present for diff_id in diff_ids}
    return tuple(diff_id for diff_id in dict.fromkeys(wanted) if diff_id in known)
