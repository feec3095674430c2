"""Generator of random image archives: every tar dialect, packing, layout and order of entries, damage at random
places.
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import zstandard

from bench.archives.tar_dialects import DIALECTS, Dialect, Member, longest_name, tar_of
from services.core.images.manifests import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_LAYER_GZIP, OCI_MANIFEST, sha256

Layout = Literal["save", "save with links", "paths", "oci", "oci ref.name", "platforms", "both"]
LAYOUTS: tuple[Layout, ...] = ("save", "save with links", "paths", "oci", "oci ref.name", "platforms", "both")
Damage = Literal["none", "cut", "bit", "zeros", "noise", "lost block", "block twice", "lost entry"]
DAMAGES: tuple[Damage, ...] = ("none", "cut", "bit", "zeros", "noise", "lost block", "block twice", "lost entry")
_SKIPPABLE = bytes.fromhex("502a4d1804000000ffffffff")
PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": lambda content: gzip.compress(content, 1, mtime=0),
    "gzip members": lambda content: b"".join(
        gzip.compress(content[at : at + 9000], 1, mtime=0) for at in range(0, len(content), 9000)
    ),
    "zstd": zstandard.ZstdCompressor(level=1, write_checksum=True).compress,
    "pzstd": lambda content: b"".join(
        _SKIPPABLE + zstandard.ZstdCompressor(level=1, write_checksum=True).compress(content[at : at + 9000])
        for at in range(0, len(content), 9000)
    ),
    "xz": lambda content: lzma.compress(content, preset=0),
    "bzip2": lambda content: bz2.compress(content, 1),
}


@dataclass(frozen=True, slots=True)
class Expected:
    """What an image of an archive is: its names, normalised, its config's digest, its layers' diff IDs."""

    names: frozenset[str]
    image_id: str
    diff_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Made:
    """An archive, and what a reader has to find in it where nothing was damaged."""

    content: bytes
    expected: frozenset[Expected]
    damage: Damage
    words: str


def make(seed: int) -> Made:
    """The archive of a seed: the same every time."""
    dice = random.Random(seed)
    dialect, packing = dice.choice(DIALECTS), dice.choice(list(PACKINGS))
    layout, damage = dice.choice(LAYOUTS), dice.choice(DAMAGES)
    images = [_image(dice, seed, number) for number in range(dice.choice((1, 1, 1, 2)))]
    members: dict[str, Member] = {}
    for image in images:
        _WRITERS[layout](dice, image, members, dialect)
    _documents(layout, images, members)
    order = list(members.values())
    dice.shuffle(order)
    if dice.random() < 0.3 and not any(member.link for member in order):
        order = [Member(f"./{member.name}", member.content) for member in order]
    if damage == "lost entry":
        order.pop(dice.randrange(len(order)))
    packed = PACKINGS[packing](tar_of(order, dialect))
    words = f"seed {seed}: {dialect}, {packing}, {layout}, {damage}"
    return Made(_damaged(dice, packed, damage), frozenset(image.expected for image in images), damage, words)


@dataclass(frozen=True, slots=True)
class _Image:
    names: tuple[str, ...]
    layers: tuple[bytes, ...]
    config: bytes
    rows: dict[str, object]

    @property
    def expected(self) -> Expected:
        names = frozenset(name if "/" in name else f"docker.io/library/{name}" for name in self.names)
        return Expected(names, sha256(self.config), tuple(map(sha256, self.layers)))


def _image(dice: random.Random, seed: int, number: int) -> _Image:
    layers = [
        tar_of([Member(f"t/{seed}-{number}-{place}", dice.randbytes(dice.randrange(1, 6000)))], "ustar")
        for place in range(dice.randrange(1, 5))
    ]
    if dice.random() < 0.3:
        layers.append(dice.choice(layers))
    rootfs = {"type": "layers", "diff_ids": [sha256(layer) for layer in layers]}
    config = {"architecture": "amd64", "os": "linux", "config": {"Labels": {"n": f"{seed} {number}"}}, "rootfs": rootfs}
    names = [f"a{seed}:{number}", f"registry.test/b/{seed}:{number}"][: dice.choice((1, 1, 2))]
    return _Image(tuple(names), tuple(layers), json.dumps(config | {"history": None}).encode(), {})


def _put(members: dict[str, Member], path: str, content: bytes) -> str:
    members[path] = Member(path, content)
    return path


def _save(dice: random.Random, image: _Image, members: dict[str, Member], dialect: Dialect, *, links: bool) -> None:
    """`manifest.json` beside layers in folders of their own."""
    paths: list[str] = []
    first: dict[bytes, str] = {}
    for layer in image.layers:
        folder = dice.randbytes(16).hex()
        path = f"{folder}/layer.tar"
        _put(members, f"{folder}/VERSION", b"1.0")
        if links and layer in first:
            members[path] = Member(path, link=f"../{first[layer]}")
        else:
            first.setdefault(layer, path)
            _put(members, path, layer)
        paths.append(path)
    config = _put(members, f"{sha256(image.config)[7:]}.json", image.config)
    image.rows["docker"] = {"Config": config, "RepoTags": image.names, "Layers": paths}


def _paths(dice: random.Random, image: _Image, members: dict[str, Member], dialect: Dialect) -> None:
    """`manifest.json` with paths as long as the dialect takes, layers packed in some way."""
    folder = "long/" * dice.randrange(1, (longest_name(dialect) - 75) // 5)
    paths = []
    for layer in image.layers:
        packed = PACKINGS[dice.choice(("plain", "gzip", "zstd", "xz"))](layer)
        paths.append(_put(members, f"{folder}{sha256(packed)[7:]}", packed))
    config = _put(members, f"sha256:{sha256(image.config)[7:]}", image.config)
    image.rows["docker"] = {"Config": config, "RepoTags": image.names, "Layers": paths, "LayerSources": None}


def _blob(members: dict[str, Member], content: bytes, media_type: str) -> dict[str, object]:
    _put(members, f"blobs/sha256/{sha256(content)[7:]}", content)
    return {"mediaType": media_type, "digest": sha256(content), "size": len(content)}


def _oci(dice: random.Random, image: _Image, members: dict[str, Member], dialect: Dialect) -> None:
    layers = []
    for layer in image.layers:
        packed = dice.random() < 0.5
        kind = OCI_LAYER_GZIP if packed else OCI_LAYER
        layers.append(_blob(members, PACKINGS["gzip"](layer) if packed else layer, kind))
    config = _blob(members, image.config, OCI_CONFIG)
    manifest = {"schemaVersion": 2, "config": config, "layers": layers, "annotations": None}
    image.rows["oci"] = _blob(members, json.dumps(manifest).encode(), OCI_MANIFEST)
    paths = [f"blobs/sha256/{str(layer['digest'])[7:]}" for layer in layers]
    image.rows["docker"] = {
        "Config": f"blobs/sha256/{sha256(image.config)[7:]}",
        "RepoTags": image.names,
        "Layers": paths,
    }


def _platforms(dice: random.Random, image: _Image, members: dict[str, Member], dialect: Dialect) -> None:
    """An index with the image among others that are missing."""
    _oci(dice, image, members, dialect)
    missing = {"mediaType": OCI_MANIFEST, "digest": sha256(dice.randbytes(8)), "size": 9}
    mine = {**_dict(image.rows["oci"]), "platform": {"os": "linux", "architecture": "amd64"}}
    pointers = [mine, {**missing, "platform": {"os": "linux", "architecture": "arm64", "variant": "v8"}}]
    pointers.append({**missing, "platform": {"os": "unknown", "architecture": "unknown"}})
    dice.shuffle(pointers)
    index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": pointers}).encode()
    image.rows["oci"] = _blob(members, index, OCI_INDEX)


def _dict(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


_WRITERS: dict[Layout, Callable[[random.Random, _Image, dict[str, Member], Dialect], None]] = {
    "save": lambda dice, image, members, dialect: _save(dice, image, members, dialect, links=False),
    "save with links": lambda dice, image, members, dialect: _save(dice, image, members, dialect, links=True),
    "paths": _paths,
    "oci": _oci,
    "oci ref.name": _oci,
    "platforms": _platforms,
    "both": _oci,
}


def _documents(layout: Layout, images: list[_Image], members: dict[str, Member]) -> None:
    if layout in {"save", "save with links", "paths", "both"}:
        _put(members, "manifest.json", json.dumps([image.rows["docker"] for image in images]).encode())
    if layout in {"oci", "oci ref.name", "platforms", "both"}:
        key = "org.opencontainers.image.ref.name" if layout == "oci ref.name" else "io.containerd.image.name"
        pointers = [
            {**_dict(image.rows["oci"]), "annotations": {key: name}} for image in images for name in image.names
        ]
        index = {"schemaVersion": 2, "manifests": pointers, "annotations": None}
        _put(members, "index.json", json.dumps(index).encode())
        _put(members, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')


def _damaged(dice: random.Random, content: bytes, damage: Damage) -> bytes:
    """The archive with damage at a random place."""
    at = dice.randrange(len(content))
    block = at - at % 512
    flipped, noise = bytes([content[at] ^ 1 << dice.randrange(8)]), dice.randbytes(len(content[at : at + 40]))
    return {
        "cut": content[:at],
        "bit": content[:at] + flipped + content[at + 1 :],
        "zeros": content[:block] + bytes(len(content[block : block + 512])) + content[block + 512 :],
        "noise": content[:at] + noise + content[at + 40 :],
        "lost block": content[:block] + content[block + 512 :],
        "block twice": content[: block + 512] + content[block:],
    }.get(damage, content)
