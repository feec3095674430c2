"""Seeding of an engine on containerd's store, before the engine's first start: a program that the range's init runs.

    python -m services.adapters.containerd_seed --shown SHOWN --data-root ROOT --socket CONTAINERD

Layers become snapshots and blobs as for a mounted transfer (`containerd_layers`), under a lease; manifest, config and
name are written beside them, labelled as a pull labels them, so that the image holds all of it. It may run again after
it was cut off. What cannot be placed is left out: it comes later, as to any range.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from events.malformed import MALFORMED
from services.adapters.containerd import SNAPSHOTTER, Containerd
from services.adapters.containerd_layers import ContainerdLayers, lease_of
from services.adapters.placed_layers import PlacedLayersFile
from services.core.mounts.seeds import FILE_NAME, Seed, SeedImage
from services.errors import LayersNotMounted

#: Until containerd has its socket; the init waits a little longer.
SOCKET_SECONDS = 15.0
_ASK_AGAIN_SECONDS = 0.01
_TRANSFER = "seed"


async def seed_store(seed: Seed, *, shown: Path, root: Path, socket: Path) -> list[str]:
    """Put the seed's images into the store; one line for each that could not be. Raises LayersNotMounted, OSError."""
    layers, problems = ContainerdLayers(socket=socket, root=root, shown=shown), list[str]()
    await asyncio.to_thread(PlacedLayersFile(root).change, lambda placed: placed.given(seed.grants))
    async with Containerd.open(socket) as containerd:
        for image in seed.images:
            try:
                await layers.place(_TRANSFER, seed.layers(image), image.repository)
                await _name(containerd, image)
            except LayersNotMounted as problem:
                problems.append(f"{image.reference}: {problem}")
        await containerd.end_lease(lease_of(_TRANSFER), sync=False)
    return problems


async def _name(containerd: Containerd, image: SeedImage) -> None:
    """Manifest, config and name of an image whose layers are there."""
    lease, manifest = lease_of(_TRANSFER), image.manifest_digest
    unpacked = {f"containerd.io/gc.ref.snapshot.{SNAPSHOTTER}": image.layers[-1].chain_id}
    parts = {f"containerd.io/gc.ref.content.l.{index}": layer.digest for index, layer in enumerate(image.layers)}
    parts["containerd.io/gc.ref.content.config"] = image.image_id
    await containerd.put_blob(image.image_id, image.config, lease, unpacked)
    await containerd.put_blob(manifest, image.manifest, lease, parts)
    await containerd.name(image.reference, image.manifest_type, manifest, len(image.manifest))


def seed_file(shown: Path) -> Path | None:
    """The seed that the host shows, if it shows one; what is not mounted is none of the host's."""
    folder = shown / "seeds"
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    return next((one / FILE_NAME for one in found if one.is_mount() and (one / FILE_NAME).is_file()), None)


def read_seed(content: bytes) -> Seed:
    """Raises LayersNotMounted for what is no seed."""
    try:
        return msgspec.json.decode(content, type=Seed)
    except MALFORMED as problem:
        raise LayersNotMounted(f"the seed cannot be read: {problem}") from problem


def run(*, shown: Path, root: Path, socket: Path) -> None:
    """Seed the store, if there is something for it. Raises LayersNotMounted, OSError."""
    file = seed_file(shown)
    seed = read_seed(file.read_bytes()) if file is not None else None
    if seed is None or seed.store != "containerd":
        return
    until = time.monotonic() + SOCKET_SECONDS
    while not socket.exists():
        if time.monotonic() >= until:
            raise LayersNotMounted(f"containerd is not there after {SOCKET_SECONDS:.0f} s")
        time.sleep(_ASK_AGAIN_SECONDS)
    for problem in asyncio.run(seed_store(seed, shown=shown, root=root, socket=socket)):
        sys.stderr.write(f"the engine is not seeded with {problem}\n")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="services.adapters.containerd_seed", description="Seed containerd's store.")
    for name in ("shown", "data-root", "socket"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    options = parser.parse_args(argv)
    try:
        run(shown=options.shown, root=options.data_root, socket=options.socket)
    except (LayersNotMounted, OSError) as problem:
        sys.stderr.write(f"the engine is not seeded: {problem}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
