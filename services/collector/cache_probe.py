"""Probe for a blob descriptor cache: a registry that has one goes on promising blobs that a collection took away.

With a cache a HEAD of a blob whose file is gone is answered 200, and a manifest that names it is accepted: an image
without its layer. So before a collection one small blob is uploaded and looked at (which fills a cache), its file is
removed, and the registry has to say 404. The same probe tells a storage folder that is not this registry's.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import suppress

from services.collector.storage import RegistryStorage
from services.core.images.manifests import sha256
from services.errors import BadInput
from services.ports import Registry

#: A repository that only the probe uses; it is removed afterwards.
PROBE_REPOSITORY = "cyroid-collector-probe"


async def check_no_cache(registry: Registry, storage: RegistryStorage) -> None:
    """Raises BadInput for a registry that may not be collected, RegistryUnavailable for one that is unavailable."""
    content = os.urandom(32)
    digest = sha256(content)
    data = storage.folder(digest.removeprefix("sha256:")) / "data"
    try:
        await registry.put_blob(PROBE_REPOSITORY, digest, len(content), _once(content))
        seen = await registry.blob_size(PROBE_REPOSITORY, digest)
        if seen != len(content) or not await asyncio.to_thread(data.exists):
            raise BadInput(
                f"{storage.root} is not the storage of the registry at {registry.address}: what it takes does not"
                " appear there; set CYROID_REGISTRY_STORAGE and CYROID_REGISTRY_URL to one registry",
                code="bad_setting",
            )
        await asyncio.to_thread(data.unlink)
        if await registry.blob_size(PROBE_REPOSITORY, digest) is not None:
            raise BadInput(
                f"the registry at {registry.address} has a blob descriptor cache: it goes on promising content that a"
                " collection took away; take `cache` out of `storage` in its configuration and restart it",
                code="registry_has_cache",
            )
    finally:
        await asyncio.to_thread(_remove, storage, digest.removeprefix("sha256:"))


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content


def _remove(storage: RegistryStorage, digest: str) -> None:
    """Nothing of it stays. Nobody else uploads this content, so its folders may go beside a running registry."""
    shutil.rmtree(storage.repositories / PROBE_REPOSITORY, ignore_errors=True)
    folder = storage.folder(digest)
    with suppress(FileNotFoundError):
        (folder / "data").unlink()
    with suppress(OSError):
        folder.rmdir()
