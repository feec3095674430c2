"""Measurement of the registry's store: figures of the whole, of its repositories, images and layers, from one mark."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from services.collector.storage import BlobState, RegistryStorage
from services.core.store.figures import StoreDetails, StoreFigures, repository_figures, store_details
from services.core.store.mark import Mark

_REPOSITORIES_LIMIT = 1000


class Measured(NamedTuple):
    """What is recorded after every mark."""

    figures: StoreFigures
    details: StoreDetails


def stored_sizes(blobs: Iterable[BlobState]) -> dict[str, int]:
    """The size of each blob that the registry serves."""
    return {blob.digest: blob.size_bytes for blob in blobs if blob.size_bytes is not None}


def measure(storage: RegistryStorage, mark: Mark, blobs: list[BlobState], at: datetime) -> Measured:
    """Blocks: it walks the storage folder, for what that takes on the disk."""
    sizes = stored_sizes(blobs)
    rows, logical, once = repository_figures(mark, storage.manifest, sizes)
    stored = sum(sizes.values())
    referenced = sum(size for digest, size in sizes.items() if digest in mark.live)
    figures = StoreFigures(
        at=at,
        tags=len(mark.tagged),
        repositories=len(rows),
        blobs=len(sizes),
        stored_bytes=stored,
        referenced_bytes=referenced,
        collectable_bytes=stored - referenced,
        quarantined_bytes=sum(blob.quarantined_bytes or 0 for blob in blobs),
        logical_bytes=logical,
        saved_bytes=logical - once,
        uploads_bytes=storage.uploads_bytes(),
        disk_bytes=storage.disk_bytes(),
        free_bytes=storage.space()[0],
        damaged=tuple(f"{repository}@sha256:{digest}" for repository, digest in mark.damaged),
        by_repository=rows[:_REPOSITORIES_LIMIT],
    )
    return Measured(figures, store_details(mark, storage.manifest, sizes, at))
