"""Signature check of an image in the registry, against the public keys that an operator trusts."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from pathlib import Path

from services.core.images.p256 import PublicKey
from services.core.images.signatures import SignatureLayer, is_signed, signature_layers, signature_tag
from services.errors import BadInput, NotAnImage, WrongContent
from services.ports import Registry

KEY_LIMIT_BYTES = 64 * 1024
#: A signature that was right is not looked up again within this, unless the keys change.
REMEMBERED_SECONDS = 60.0
_REMEMBERED = 1000


def read_keys(place: Path) -> list[PublicKey]:
    """The keys of a PEM file, or of all `*.pub` and `*.pem` files of a folder. Raises BadInput where there is none."""
    try:
        files = sorted({*place.glob("*.pub"), *place.glob("*.pem")}) if place.is_dir() else [place]
        keys = [key for file in files for key in _keys_of(file)]
    except OSError as problem:
        raise BadInput(f"the keys of signatures cannot be read: {problem}", code="bad_setting") from problem
    if not keys:
        raise BadInput(f"{place} holds no *.pub and no *.pem: set CYROID_SIGNATURE_KEYS", code="bad_setting")
    return keys


def _keys_of(file: Path) -> list[PublicKey]:
    try:
        with file.open("rb") as opened:
            return PublicKey.all_of(opened.read(KEY_LIMIT_BYTES).decode())
    except ValueError as problem:
        raise BadInput(f"{file} is no file of public keys: {problem}", code="bad_setting") from problem


class ImageSignatures:
    """Looks for signatures beside the image in `registry`. `keys` is read at each check: a key taken out is not trusted
    any more."""

    def __init__(self, registry: Registry, keys: Path) -> None:
        self._registry = registry
        self._keys = keys
        self._right: OrderedDict[tuple[str, str], tuple[float, tuple[PublicKey, ...]]] = OrderedDict()

    async def problem(self, repository: str, manifest_digest: str) -> str | None:
        """Why the manifest counts as unsigned; None where one of the keys signed it.

        Raises Unavailable, TransferFailed.
        """
        try:
            keys = tuple(await asyncio.to_thread(read_keys, self._keys))
        except BadInput as problem:
            return str(problem)
        place = (repository, manifest_digest)
        until, by = self._right.get(place, (0.0, ()))
        if time.monotonic() < until and by == keys:
            return None
        tag = signature_tag(manifest_digest)
        layers = await self._signatures(repository, tag)
        if not layers:
            return f"there is no signature under {repository}:{tag} in the registry"
        for layer in layers:
            payload = await self._payload(repository, layer)
            if payload is None:
                continue
            if await asyncio.to_thread(is_signed, payload, layer.signature or b"", manifest_digest, keys):
                self._right[place] = (time.monotonic() + REMEMBERED_SECONDS, keys)
                while len(self._right) > _REMEMBERED:
                    self._right.popitem(last=False)
                return None
        return f"none of the signatures under {repository}:{tag} is of this image by a key of CYROID_SIGNATURE_KEYS"

    async def _signatures(self, repository: str, tag: str) -> list[SignatureLayer]:
        try:
            found = await self._registry.manifest(repository, tag)
        except NotAnImage as problem:
            return signature_layers(problem.content)
        except BadInput:
            return []
        return signature_layers(found[1].content) if found is not None else []

    async def _payload(self, repository: str, layer: SignatureLayer) -> bytes | None:
        """The payload, as large as the manifest says; None where it is lost or has other content."""
        if await self._registry.blob_size(repository, layer.digest) != layer.size:
            return None
        content = bytearray()
        try:
            async with self._registry.open_blob(repository, layer.digest) as chunks:
                async for chunk in chunks:
                    content += chunk
                    if len(content) > layer.size:
                        return None
        except WrongContent:
            return None
        return bytes(content)


def signatures_by(registry: Registry, keys: str) -> ImageSignatures | None:
    """The check of signatures by the keys at that path; None without keys. Raises BadInput for keys that cannot be
    read."""
    if not keys:
        return None
    read_keys(Path(keys))
    return ImageSignatures(registry, Path(keys))
