"""Independent reader of image archives: Python's `tarfile`, its packings and its JSON, without code of the project."""

from __future__ import annotations

import bz2
import hashlib
import io
import json
import lzma
import posixpath
import tarfile
import zlib
from typing import Any

import zstandard

from bench.archives.generator import Expected

_ERRORS = (
    tarfile.TarError, OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError,
    lzma.LZMAError, zlib.error, zstandard.ZstdError,
)  # fmt: skip


def read(content: bytes) -> frozenset[Expected] | None:
    """The images with names; None where this reader finds none, or something that contradicts itself."""
    try:
        files = _files(_plain(content))
        images = _docker(files) if "manifest.json" in files else _oci(files)
    except _ERRORS:
        return None
    return frozenset(images) or None


def _plain(content: bytes) -> bytes:
    if content.startswith(b"\x1f\x8b"):
        # Only this one stops at bytes that are no member, as gunzip does.
        found, rest = b"", content
        while rest.startswith(b"\x1f\x8b"):
            member = zlib.decompressobj(wbits=31)
            found += member.decompress(rest)
            if not member.eof:
                raise EOFError
            rest = member.unused_data.lstrip(b"\0")
        return found
    if content.startswith(b"\xfd7zXZ"):
        return _members(lzma.LZMADecompressor, content, b"\xfd7zXZ")
    if content.startswith(b"BZh"):
        return _members(bz2.BZ2Decompressor, content, b"BZh")
    if content.startswith(b"\x28\xb5\x2f\xfd") or content[1:4] == b"\x2a\x4d\x18":
        reader = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(content), read_across_frames=True)
        return reader.read()
    return content


def _members(kind: Any, content: bytes, magic: bytes) -> bytes:
    found, rest = b"", content
    while rest.startswith(magic):
        member = kind()
        found += member.decompress(rest)
        if not member.eof:
            raise EOFError
        rest = member.unused_data.lstrip(b"\0")
    return found


def _files(plain: bytes) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(plain), mode="r:") as tar:
        for member in tar:
            name = posixpath.normpath(member.name)
            if member.issym():
                target = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))
                found[name] = b"link " + target.encode()
            elif member.isreg():
                file = tar.extractfile(member)
                found[name] = file.read() if file is not None else b""
    for name, content in list(found.items()):
        if content.startswith(b"link "):
            found[name] = found[content[5:].decode()]
    return found


def _docker(files: dict[str, bytes]) -> list[Expected]:
    found: dict[str, Expected] = {}
    for row in _json(files["manifest.json"]):
        layers = [files[posixpath.normpath(path)] for path in row["Layers"] or ()]
        _merge(found, _image(files[posixpath.normpath(row["Config"])], layers, row["RepoTags"] or ()))
    return list(found.values())


def _oci(files: dict[str, bytes]) -> list[Expected]:
    found: dict[str, Expected] = {}
    for pointer in _json(files["index.json"])["manifests"]:
        document = _blob(files, pointer)
        if "manifests" in document:
            mine = [one for one in document["manifests"] if one["platform"]["architecture"] == "amd64"]
            document = _blob(files, mine[0])
        layers = [files[_path(layer)] for layer in document["layers"] or ()]
        notes = pointer.get("annotations") or {}
        name = notes.get("io.containerd.image.name") or notes.get("org.opencontainers.image.ref.name")
        _merge(found, _image(files[_path(document["config"])], layers, [name] if name else []))
    return list(found.values())


def _merge(found: dict[str, Expected], image: Expected) -> None:
    before = found[image.image_id].names if image.image_id in found else frozenset()
    found[image.image_id] = Expected(before | image.names, image.image_id, image.diff_ids)


def _blob(files: dict[str, bytes], pointer: dict[str, Any]) -> Any:
    content = files[_path(pointer)]
    if _digest(content) != pointer["digest"]:
        raise ValueError(pointer["digest"])
    return _json(content)


def _path(pointer: dict[str, Any]) -> str:
    return f"blobs/{pointer['digest'].replace(':', '/')}"


def _image(config: bytes, layers: list[bytes], names: list[str] | tuple[str, ...]) -> Expected:
    """Raises ValueError where the layers are not the config's."""
    diff_ids = tuple(_json(config)["rootfs"]["diff_ids"] or ())
    if diff_ids != tuple(_digest(_plain(layer)) for layer in layers):
        raise ValueError("the layers are not those of the config")
    full = frozenset(name if "/" in name else f"docker.io/library/{name}" for name in names)
    return Expected(full, _digest(config), diff_ids)


def _json(content: bytes) -> Any:
    """As Go reads it: bytes that are not UTF-8 are replaced, which matters where they lie in a member nobody reads."""
    return json.loads(content.decode(errors="replace"))


def _digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()
