"""Layers that the host shows a range, as records of an engine on the classic store (overlay2), while it does not run.

    ROOT/overlay2/<cache id>/diff → SHOWN/layers/<name>      beside it `link`, `committed`, `lower`, `work/`
    ROOT/overlay2/l/<link> → ../<cache id>/diff
    ROOT/image/overlay2/layerdb/sha256/<chain id>/           `diff`, `size`, `cache-id`, `parent`, `tar-split.json.gz`

An engine reads these at its start only, and writes them itself while it runs: so nothing is changed but between two
runs. A layer's record is renamed into place last; what was begun by then is not known to the engine, and made anew by
the next try. An image that is removed takes the links along; what is shown stays. Standard library only, see init.py.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

_IMAGE = "image/overlay2"
_SNAPSHOTS = "containerd/daemon/io.containerd.snapshotter.v1.overlayfs/snapshots"
_LINK_LETTERS = 26


def links(root: Path) -> Iterator[Path]:
    """Folders outside `root` that layers of its stores lead to."""
    folders = [(folder, "diff") for folder in root.glob("overlay2/*")]
    for folder, name in [*folders, *((folder, "fs") for folder in root.glob(f"{_SNAPSHOTS}/*"))]:
        link = folder / name  # not in the pattern: that finds no link whose target is not there
        if link.is_symlink():
            yield Path(os.readlink(link))


def missing(root: Path) -> list[Path]:
    """Those of them on which nothing is mounted: containers on these layers cannot start."""
    return [folder for folder in dict.fromkeys(links(root)) if not os.path.ismount(folder)]


def place(root: Path, shown: Path, layers: Sequence[Mapping[str, str]]) -> int:
    """Make layers known to the engine's next run; how many of them are new.

    Each has `name`, `diff_id` and `chain_id`, and its `parent`'s chain id, if it has one; parents come first. Raises
    OSError and ValueError; a layer is placed wholly or not at all.
    """
    for layer in layers:
        for folder in _shown(shown, layer):
            if not os.path.ismount(folder):
                raise ValueError(f"{folder} is not mounted")
    return sum(_place(root, shown, layer) for layer in layers)


def sweep(root: Path, shown: Path) -> int:
    """Remove placed layers that no image, no container and no build cache uses; how many there were."""
    database, used = root / _IMAGE / "layerdb/sha256", _used(root / _IMAGE)
    cached = [file.read_bytes() for file in root.glob("buildkit/*.db")]
    count = 0
    for record in list(database.glob("*")):
        cache = root / "overlay2" / _text(record / "cache-id")
        in_use = record.name in used or any(record.name.encode() in content for content in cached)
        if not in_use and _is_placed(cache, shown):
            shutil.rmtree(record)
            _remove(root, cache)
            count += 1
    return count


def _shown(shown: Path, layer: Mapping[str, str]) -> tuple[Path, Path]:
    return shown / "layers" / layer["name"], shown / "splits" / _hex(layer["diff_id"])


def _place(root: Path, shown: Path, layer: Mapping[str, str]) -> bool:
    database = root / _IMAGE / "layerdb"
    record = database / "sha256" / _hex(layer["chain_id"])
    if _is_whole(root, record, layer["diff_id"]):
        return False
    shutil.rmtree(record, ignore_errors=True)
    cache = root / "overlay2" / record.name
    _remove(root, cache)
    parent = layer.get("parent")
    lower = _lower(root, _text(database / "sha256" / _hex(parent) / "cache-id")) if parent else []
    files, split = _shown(shown, layer)
    link = base64.b32encode(hashlib.sha256(cache.name.encode()).digest()).decode()[:_LINK_LETTERS]
    cache.mkdir(mode=0o710, parents=True)
    (cache / "diff").symlink_to(files)
    _write(cache / "link", link)
    _write(cache / "committed", "")
    if lower:
        _write(cache / "lower", ":".join(lower))
        (cache / "work").mkdir(mode=0o700)
    (root / "overlay2/l").mkdir(mode=0o700, exist_ok=True)
    (root / "overlay2/l" / link).unlink(missing_ok=True)
    (root / "overlay2/l" / link).symlink_to(f"../{cache.name}/diff")
    scratch = database / f"{record.name}.cyroid"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    described = {"diff": layer["diff_id"], "size": (split / "size").read_text(), "cache-id": cache.name}
    for name, text in {**described, **({"parent": parent} if parent else {})}.items():
        _write(scratch / name, text)
    (scratch / "tar-split.json.gz").symlink_to(split / "tar-split.json.gz")
    record.parent.mkdir(exist_ok=True)
    scratch.rename(record)
    return True


def _lower(root: Path, parent: str) -> list[str]:
    """Links of the folders below a layer, the nearest first."""
    folder = root / "overlay2" / parent
    below = _text(folder / "lower")
    return [f"l/{_text(folder / 'link')}", *(below.split(":") if below else [])]


def _is_whole(root: Path, record: Path, diff_id: str) -> bool:
    """Whether the engine has this layer, whoever made it; not one that a power cut left without its content."""
    cache = root / "overlay2" / (_text(record / "cache-id") or ".")
    return _text(record / "diff") == diff_id and bool(_text(cache / "link")) and os.path.lexists(cache / "diff")


def _is_placed(cache: Path, shown: Path) -> bool:
    diff = cache / "diff"
    return diff.is_symlink() and Path(os.readlink(diff)).parent == shown / "layers"


def _used(images: Path) -> set[str]:
    """Chain ids of layers that images and containers stand on, and of those below them."""
    heads = {_hex(_text(parent)) for parent in images.glob("layerdb/mounts/*/parent")}
    heads |= {chain for config in images.glob("imagedb/content/sha256/*") for chain in _heads(config)}
    used: set[str] = set()
    for head in heads:
        chain = head
        while chain and chain not in used:
            used.add(chain)
            chain = _hex(_text(images / "layerdb/sha256" / chain / "parent"))
    return used


def _heads(config: Path) -> Iterable[str]:
    try:
        diff_ids = json.loads(config.read_bytes())["rootfs"]["diff_ids"]
        chain = ""
        for diff_id in diff_ids:
            chain = f"sha256:{hashlib.sha256(f'{chain} {diff_id}'.encode()).hexdigest()}" if chain else diff_id
    except (OSError, ValueError, TypeError, KeyError):
        return []
    return [_hex(chain)]


def _remove(root: Path, cache: Path) -> None:
    link = _text(cache / "link")
    if link:
        (root / "overlay2/l" / link).unlink(missing_ok=True)
    with suppress(FileNotFoundError):
        shutil.rmtree(cache)


def _text(path: Path) -> str:
    """What is in a small file; nothing if it is not there."""
    try:
        return path.read_text().strip()
    except (OSError, ValueError):
        return ""


def _write(path: Path, text: str) -> None:
    """Durable: the engine reads it after a power cut, too."""
    with path.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")
