"""Estimate of the size of an archive whose length is not known beforehand.

Layers that only `docker save` gives, or that the registry has compressed alone, tell their size when they were read.
What is known before is the size of the whole image as the engine reports it, and the compressed size. Both are figures
about the files, not about their tar, so what follows from them is a range and no length.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

#: What tar adds to the files: a header, and padding up to the next block, for each.
_TAR_SHARE = 8
#: How much larger than its blob a layer seldom is.
_UNPACKED_TIMES = 4
#: Config, manifest, the headers of the layers.
_DESCRIPTION_BYTES = 1 << 20


class SizeEstimate(NamedTuple):
    """An estimate in bytes. `least_bytes` is certain; `likely_bytes` is seldom exceeded and often too much."""

    least_bytes: int
    likely_bytes: int


def size_estimate_for(
    held: Collection[str],
    *,
    sizes: Mapping[str, int | None],
    packed: Mapping[str, int],
    engine_bytes: int | None,
    counts_files: bool,
) -> SizeEstimate:
    """The size of an archive that holds the layers in `held`.

    sizes         bytes of the tar of each layer of the image, where that is known
    packed        bytes of the compressed blob, of layers that the registry has so
    engine_bytes  size of the image, as the host's engine reports it; None without one
    counts_files  that engine counts the files of each layer of the image once, so that its figure cannot be too large
    """
    unknown = {diff_id for diff_id, size in sizes.items() if size is None}
    known = sum(sizes.get(diff_id) or 0 for diff_id in set(held))
    least = sum(packed.get(diff_id, 0) for diff_id in unknown.intersection(held))
    likely = least * _UNPACKED_TIMES
    if engine_bytes is not None and unknown.intersection(held):
        rest = max(0, engine_bytes - sum(size or 0 for size in sizes.values()))
        if counts_files and unknown.issubset(held):
            least = max(least, rest)
        likely = max(least, rest + rest // _TAR_SHARE)
    return SizeEstimate(known + least, known + likely + _DESCRIPTION_BYTES)
