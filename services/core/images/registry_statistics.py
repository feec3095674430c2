"""Statistics of the registry: how many images, what they take, and what sharing layers saves."""

from __future__ import annotations

from datetime import datetime

import msgspec

from events.messages import Failure


class RegistryStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of GET /api/v1/registry/stats.

    Sizes are bytes of blobs as stored; `storage_used_bytes` is the disk's own figure.
    """

    healthy: bool
    images: int = 0
    """Tags; one that names no image of one platform (an index) counts, but what it names is not in the bytes."""
    repositories: int = 0
    layers: int = 0
    """Different layers stored."""
    storage_used_bytes: int = 0
    logical_bytes: int = 0
    """What the images would take if they shared nothing."""
    saved_bytes: int = 0
    storage_measured: bool = False
    """Whether `storage_used_bytes` was measured on the disk; otherwise it is the sum of the blobs that are named."""
    storage_free_bytes: int | None = None
    error: Failure | None = None
    damaged: int = 0
    """Tags with damage, as the last scan found them."""
    as_of: datetime | None = None
    """When the read model was last compared with the registry."""
    stale: bool = False
    """Whether that was too long ago, or did not come to its end."""
