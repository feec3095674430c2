"""Seeding of an engine on containerd's store, before the engine's first start: a program that the range's init runs.

    python3 -ES containerd_seed.py --shown SHOWN --data-root ROOT --socket CONTAINERD

Layers become snapshots whose folder is a symbolic link to what the host shows, and their tars blobs that are links as
well, as for a mounted transfer (`services.adapters.containerd_layers`), under a lease; manifest, config and name are
written beside them, labelled as a pull labels them, so that the image holds all of it. It may run again after it was
cut off. What cannot be placed is left out: it comes later, as to any range.

The engine waits for this, so it is up before containerd is: standard library only, and little of that.
"""

from __future__ import annotations

import base64
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import grpc_client
import seed_file
from grpc_client import ALREADY_EXISTS, NOT_FOUND, OK, encode, texts

#: Until containerd has its socket, and for each answer; the init waits a little longer.
SOCKET_SECONDS, ANSWER_SECONDS = 15.0, 10.0
_ASK_AGAIN_SECONDS = 0.003
#: What was cut off is collected after this.
_LEASE_SECONDS = 3600
_LEASE = "cyroid-seed"
_SNAPSHOTTER = "overlayfs"
_BLOBS = "containerd/daemon/io.containerd.content.v1.content/blobs/sha256"
#: `WriteAction.COMMIT`.
_COMMIT = 2
#: A collection that runs just now takes a blob away that containerd does not know yet.
_TRIES = 4


class Store:
    """containerd's store in an engine's data folder `root`; `shown` is what the host shows. Raises OSError, ValueError
    for what it does not take.
    """

    def __init__(self, client: grpc_client.GrpcClient, *, root: Path, shown: Path) -> None:
        self._client = client
        self._blobs = root / _BLOBS
        self._shown = shown

    def begin(self) -> None:
        """Hold what is made from now on."""
        until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + _LEASE_SECONDS))
        request = encode((1, _LEASE), *_labels(3, {"containerd.io/gc.expire": until}))
        self._call("leases", "Leases/Create", request, ALREADY_EXISTS)

    def end(self) -> None:
        """Hold it no longer."""
        self._call("leases", "Leases/Delete", encode((1, _LEASE)), NOT_FOUND)

    def place(self, image: Mapping[str, Any]) -> None:
        """An image of layers that are shown. Raises KeyError as well."""
        layers: list[dict[str, Any]] = image["layers"]
        for layer in layers:
            self._check(layer)
        for layer in {layer["digest"]: layer for layer in layers}.values():
            self._blob(layer)
        for layer in layers:
            self._layer(layer)
        unpacked = {f"containerd.io/gc.ref.snapshot.{_SNAPSHOTTER}": layers[-1]["chain_id"]}
        parts = {f"containerd.io/gc.ref.content.l.{index}": layer["digest"] for index, layer in enumerate(layers)}
        parts["containerd.io/gc.ref.content.config"] = image["image_id"]
        manifest = base64.b64decode(image["manifest"])
        self._write(image["image_id"], base64.b64decode(image["config"]), unpacked)
        self._write(image["manifest_digest"], manifest, parts)
        target = encode((1, image["manifest_type"]), (2, image["manifest_digest"]), (3, len(manifest)))
        named = encode((1, encode((1, image["reference"]), (3, target))))
        self._call("images", "Images/Create", named, ALREADY_EXISTS)

    def _check(self, layer: Mapping[str, Any]) -> None:
        """An empty folder would be a layer without files."""
        blob = self._shown / "blobs" / _blob_name(layer)
        for folder in (self._shown / "layers" / layer["name"], blob):
            if not os.path.ismount(folder):
                raise ValueError(f"{folder} is not mounted")
        size_bytes = (blob / "data").stat().st_size
        if size_bytes != layer["size_bytes"]:
            raise ValueError(f"{blob} has {size_bytes} bytes, the layer {layer['size_bytes']}")

    def _blob(self, layer: Mapping[str, Any]) -> None:
        """A link to what is shown, and a write that is committed without data: containerd takes what is there."""
        digest, size_bytes = layer["digest"], layer["size_bytes"]
        blob, target = self._blobs / seed_file.hex_digits(digest), self._shown / "blobs" / _blob_name(layer) / "data"
        request = encode((1, _COMMIT), (2, f"seeded-{digest}"), (3, size_bytes), (4, digest), (5, size_bytes))
        if digest != layer["diff_id"]:  # or somebody would have to read all of it for that
            request += encode(*_labels(7, {"containerd.io/uncompressed": layer["diff_id"]}))
        for _ in range(_TRIES):
            _link(target, blob)
            if self._ask("content", "Content/Write", request)[0] in (OK, ALREADY_EXISTS) and blob.exists():
                return
        raise ValueError(f"containerd does not take the blob {digest} as it lies")

    def _layer(self, layer: Mapping[str, Any]) -> None:
        chain_id, parent = layer["chain_id"], layer.get("parent", "")
        key = f"{_LEASE}-{seed_file.hex_digits(chain_id)}"
        known = encode((1, _SNAPSHOTTER), (2, chain_id))
        if self._call("snapshots", "Snapshots/Stat", known, NOT_FOUND) is not None:
            return  # of another image
        prepare, remove = encode((1, _SNAPSHOTTER), (2, key), (3, parent)), encode((1, _SNAPSHOTTER), (2, key))
        made = self._call("snapshots", "Snapshots/Prepare", prepare, ALREADY_EXISTS)
        if made is None:  # an earlier run was cut off here
            self._call("snapshots", "Snapshots/Remove", remove, NOT_FOUND)
            made = self._call("snapshots", "Snapshots/Prepare", prepare)
        folder = _folder(made or b"")
        (folder / "fs").rmdir()
        (folder / "fs").symlink_to(self._shown / "layers" / layer["name"])
        self._call("snapshots", "Snapshots/Commit", encode((1, _SNAPSHOTTER), (2, chain_id), (3, key)))

    def _write(self, digest: str, content: bytes, values: Mapping[str, str]) -> None:
        head = ((1, _COMMIT), (2, f"seeded-{digest}"), (3, len(content)), (4, digest), (6, content))
        self._call("content", "Content/Write", encode(*head, *_labels(7, values)), ALREADY_EXISTS)

    def _call(self, service: str, method: str, request: bytes, forgiven: int = OK) -> bytes | None:
        """The answer; None for the status that is no error here."""
        status, answer = self._ask(service, method, request)
        if status not in (OK, forgiven):
            raise ValueError(f"containerd answers {method} with status {status}")
        return answer if status == OK else None

    def _ask(self, service: str, method: str, request: bytes) -> tuple[int, bytes]:
        metadata = {"containerd-namespace": "moby", "containerd-lease": _LEASE}
        return self._client.call(f"/containerd.services.{service}.v1.{method}", request, metadata)


def _blob_name(layer: Mapping[str, Any]) -> str:
    """The folder that shows the layer's blob (`services.core.mounts.layer_mounts`)."""
    digits, digest = (seed_file.hex_digits(layer[name]) for name in ("diff_id", "digest"))
    return digits if digits == digest else f"{digits}.{digest}"


def _labels(number: int, values: Mapping[str, str]) -> list[tuple[int, bytes]]:
    return [(number, encode((1, key), (2, value))) for key, value in values.items()]


def _folder(answer: bytes) -> Path:
    """`…/snapshots/N` of a writable snapshot: what it binds, or the upper folder of its overlay. Raises ValueError."""
    for mount in texts(answer, 1):
        for place in (*texts(mount, 2), *texts(mount, 4)):
            path = os.fsdecode(place).removeprefix("upperdir=")
            if path.startswith("/") and path.endswith("/fs"):
                return Path(path).parent
    raise ValueError("containerd does not say where it keeps a snapshot")


def _link(target: Path, link: Path) -> None:
    """A symbolic link at `link`, in place of another one; a file that is there is left."""
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.exists() and not link.is_symlink():
        return
    scratch = link.with_name(f".{link.name}.new")
    scratch.unlink(missing_ok=True)
    scratch.symlink_to(target)
    scratch.rename(link)


def connected(path: Path) -> grpc_client.GrpcClient:
    """A client of containerd, as soon as that listens. Raises OSError."""
    until = time.monotonic() + SOCKET_SECONDS
    while True:
        try:
            return grpc_client.GrpcClient(path, seconds=ANSWER_SECONDS)
        except (FileNotFoundError, ConnectionRefusedError):
            if time.monotonic() >= until:
                raise
        time.sleep(_ASK_AGAIN_SECONDS)


def run(*, shown: Path, root: Path, socket: Path) -> list[str]:
    """Seed the store, if there is something for it; one line for each image that could not be placed.

    Raises OSError, ValueError, KeyError, TypeError, AttributeError for a seed or a containerd that is none.
    """
    problems = list[str]()
    seed = seed_file.read(shown, "containerd")
    if seed is None:
        return problems
    with closing(connected(socket)) as client:
        seed_file.give(root, seed)
        store = Store(client, root=root, shown=shown)
        store.begin()
        for image in seed["images"]:
            try:
                store.place(image)
            except (ValueError, KeyError, FileNotFoundError) as problem:
                problems.append(f"{image['reference']}: {problem}")
        with suppress(OSError, ValueError):  # it ends by itself
            store.end()
    return problems


def main(arguments: Sequence[str]) -> int:
    given = dict(zip(arguments[::2], arguments[1::2], strict=False))
    try:
        for problem in run(
            shown=Path(given["--shown"]), root=Path(given["--data-root"]), socket=Path(given["--socket"])
        ):
            sys.stderr.write(f"the engine is not seeded with {problem}\n")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:  # whatever the file has
        sys.stderr.write(f"the engine is not seeded: {problem!r}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
