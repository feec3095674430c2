"""Mounted layers in an engine on containerd's store, which takes them while it runs: the `LayerPlacer` port.

A layer becomes a snapshot whose folder is a symbolic link to what the host shows, and its blob in the registry a link
as well, both under a lease of the transfer. The ordinary pull that follows finds all layers there and fetches manifest
and config alone; then the image holds what the lease held. The blobs come first: whoever sees the image can push it.

    ROOT/containerd/daemon/io.containerd.snapshotter.v1.overlayfs/snapshots/N/fs → SHOWN/layers/<name>
    ROOT/containerd/daemon/io.containerd.content.v1.content/blobs/sha256/<hex>   → SHOWN/blobs/<name>/data

Removing an image removes the links. A link whose target is not there makes the engine refuse a container.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from pathlib import Path
from uuid import uuid4

from events.messages import Layer
from services.adapters.containerd import Containerd
from services.adapters.kernel_mounts import FILE_SYSTEM, not_mounted
from services.adapters.placed_layers import PlacedLayersFile
from services.core.mounts.erofs_blob import FILE_NAME
from services.core.mounts.layer_mounts import (
    LayerMount,
    blob_name,
    diff_ids_of,
    hex_digits,
    is_compressed,
    layer_mounts,
)
from services.errors import LayersNotMounted

#: What a killed agent left is collected after this.
LEASE_SECONDS = 3600.0
_STORE = "containerd/daemon"
_SNAPSHOTS = "io.containerd.snapshotter.v1.overlayfs/snapshots"
_BLOBS = "io.containerd.content.v1.content/blobs/sha256"
#: With it nobody has to read a compressed blob for its diff ID; a pull writes it as well.
_UNCOMPRESSED = "containerd.io/uncompressed"
#: A collection that runs just now takes a blob away that it does not know yet.
_TRIES = 4


class ContainerdLayers:
    """`root` is the engine's data folder, `shown` what the host shows, both as the engine sees them."""

    def __init__(self, *, socket: Path, root: Path, shown: Path) -> None:
        self._socket = socket
        self._shown = shown
        self._store = root / _STORE
        self._file = PlacedLayersFile(root)
        self._changing = asyncio.Lock()

    def using(self) -> AbstractAsyncContextManager[None]:
        return nullcontext()

    async def available(self) -> bool:
        return self._socket.exists() and self._shown.is_dir() and self._store.is_dir()

    async def accept(self, transfer_id: str, layers: Sequence[Layer]) -> None:
        names = [mount.name for mount in layer_mounts(layers)]
        async with self._changing:
            await asyncio.to_thread(self._file.change, lambda placed: placed.accepted(transfer_id, names))

    async def place(self, transfer_id: str, layers: Sequence[Layer], source: str) -> None:
        mounts, lease = layer_mounts(layers), lease_of(transfer_id)
        try:
            for mount in mounts:
                self._check(mount)
            async with Containerd.open(self._socket) as containerd:
                await containerd.lease(lease, LEASE_SECONDS)
                for layer in dict.fromkeys(layers):
                    await self._place_blob(containerd, layer, lease)
                parent = ""
                for index, mount in enumerate(mounts):
                    await self._place_layer(containerd, mount, parent, f"{lease}-{index}", lease)
                    parent = mount.chain_id
        except OSError as problem:
            raise LayersNotMounted(f"the engine's store cannot be changed: {problem}") from problem

    async def settle(self, transfer_id: str) -> None:
        with suppress(LayersNotMounted):  # the lease ends by itself
            async with Containerd.open(self._socket) as containerd:
                await containerd.end_lease(lease_of(transfer_id))
        async with self._changing:
            with suppress(OSError):
                await asyncio.to_thread(self._file.change, lambda placed: placed.settled(transfer_id))

    async def unused(self) -> dict[str, str]:
        async with self._changing:
            return await asyncio.to_thread(lambda: self._file.read().unused(self._used()))

    async def forget(self, grants: Mapping[str, str]) -> None:
        async with self._changing:
            await asyncio.to_thread(self._file.change, lambda placed: placed.without(grants))

    async def unreadable(self) -> tuple[str, ...]:
        found = await asyncio.to_thread(lambda: not_mounted(self._shown, set(self._folders()), FILE_SYSTEM))
        return diff_ids_of(folder.name for folder in found)

    # ---- inside ----

    def _check(self, mount: LayerMount) -> None:
        """Raises LayersNotMounted for a folder that is not mounted: an empty one would be a layer without files."""
        blob = self._shown / "blobs" / blob_name(mount.layer)
        for folder in (self._shown / "layers" / mount.name, blob):
            if not os.path.ismount(folder):
                raise LayersNotMounted(f"{folder} is not mounted: see the host's layer-mounter")
        size_bytes = (blob / FILE_NAME).stat().st_size
        if size_bytes != mount.layer.size_bytes:
            raise LayersNotMounted(f"{blob} has {size_bytes} bytes, the layer {mount.layer.size_bytes}")

    async def _place_layer(self, containerd: Containerd, mount: LayerMount, parent: str, key: str, lease: str) -> None:
        if await containerd.has_layer(mount.chain_id):
            return
        folder = await containerd.prepare(key, parent, lease)
        if folder is None:  # an earlier run was cut off here
            await containerd.remove(key)
            folder = await containerd.prepare(key, parent, lease)
        if folder is None:
            raise LayersNotMounted(f"containerd keeps a snapshot {key} that it does not remove")
        (folder / "fs").rmdir()
        (folder / "fs").symlink_to(self._shown / "layers" / mount.name)
        if not await containerd.commit(mount.chain_id, key, lease):
            await containerd.remove(key)  # the engine got that layer meanwhile

    async def _place_blob(self, containerd: Containerd, layer: Layer, lease: str) -> None:
        blob = self._store / _BLOBS / hex_digits(layer.digest)
        target = self._shown / "blobs" / blob_name(layer) / FILE_NAME
        labels = {_UNCOMPRESSED: layer.diff_id} if is_compressed(layer) else {}
        for _ in range(_TRIES):
            if await containerd.has_blob(layer.digest):
                return
            _link(target, blob)
            with suppress(LayersNotMounted):
                await containerd.adopt_blob(layer.digest, layer.size_bytes, lease, labels)
        if not (await containerd.has_blob(layer.digest) and blob.exists()):
            raise LayersNotMounted(f"containerd does not take the blob {layer.digest} as it lies")

    def _used(self) -> Iterator[str]:
        """Names of the folders that links of the store lead to; a layer whose blob is used is used."""
        return (folder.name for folder in self._folders())

    def _folders(self) -> Iterator[Path]:
        """The folders that links of the store lead to."""
        layers = self._shown / "layers"
        for snapshot in (self._store / _SNAPSHOTS).glob("*"):
            link = snapshot / "fs"  # not in the pattern: that finds no link whose target is not there
            if link.is_symlink() and (target := link.readlink()).parent == layers:
                yield target
        for link in (self._store / _BLOBS).glob("*"):
            if link.is_symlink() and link.readlink().is_relative_to(self._shown):
                yield link.readlink().parent


def lease_of(transfer_id: str) -> str:
    """The name of a transfer's lease."""
    return f"cyroid-{transfer_id}"


def _link(target: Path, link: Path) -> None:
    """A symbolic link at `link`, in place of another link; a file that is there is left."""
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.exists() and not link.is_symlink():
        return
    scratch = link.with_name(f".{link.name}.{uuid4().hex}")
    scratch.symlink_to(target)
    scratch.rename(link)
