"""Unusual images on real engines: without layers, with a layer twice, many platforms, huge, removed while they are
read.
"""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from services.adapters.engine import DockerEngine
from services.adapters.layer_sources import Folders, layer_sources
from services.adapters.registry import HttpRegistry
from services.adapters.save_stream import SaveStream
from services.core.images.manifests import OCI_CONFIG, OCI_LAYER_GZIP, Descriptor, Manifest, sha256
from services.errors import CyroidError, LayerUnreadable
from services.ports import BlobSource, LayerSource
from tests.images import config_of, many_platforms, tar_of
from tests.integration.engines import pieces, pull
from tests.integration.test_layer_sources import Pair, digest_of, load, pair, put
from tests.laboratory import EngineServer, RegistryServer

pytestmark = pytest.mark.real
__all__ = ["pair"]

Servers = Callable[[str], EngineServer]


async def test_an_image_without_layers(pair: Pair, registry_server: RegistryServer, unique: str) -> None:
    """Only a config. Classic engines refuse to save such an image, but its folder has it, and every engine pulls it."""
    image = await load(pair.host, f"docker.io/test/{unique}:1", [], config_of([], author=unique))
    assert image.diff_ids == ()
    source = Folders(pair.host_server.root)
    assert sha256(await source.config(image)) == sha256(config_of([], author=unique))
    async with HttpRegistry.open(registry_server.url) as registry:
        digest = await put(registry, f"test/{unique}", source, image)
    name = f"{registry_server.address}/test/{unique}@{digest}"
    await pull(pair.range, name)
    arrived = await pair.range.inspect(name)
    assert arrived is not None
    assert arrived.image_id in {None, sha256(config_of([], author=unique))}
    assert arrived.diff_ids == ()


async def test_two_names_of_one_config_and_two_configs_of_one_layer(pair: Pair, unique: str) -> None:
    """Images are told apart by their config, names by nothing."""
    layers = [tar_of({"t": unique.encode()})]
    diff_ids = [sha256(layers[0])]
    first = await load(pair.host, f"docker.io/test/{unique}:1", layers)
    await pair.host.tag(f"docker.io/test/{unique}:1", f"docker.io/test/{unique}:2")
    second = await load(pair.host, f"docker.io/test/{unique}:3", layers, config_of(diff_ids, author="another"))
    assert first.local_id != second.local_id
    same = await pair.host.inspect(f"docker.io/test/{unique}:2")
    assert same is not None
    assert same.local_id == first.local_id
    source = SaveStream(pair.host)
    assert sha256(await source.config(first)) == sha256(config_of(diff_ids))
    assert sha256(await source.config(second)) == sha256(config_of(diff_ids, author="another"))
    assert sha256(await Folders(pair.host_server.root).config(second)) == sha256(config_of(diff_ids, author="another"))


async def test_a_layer_pulled_compressed_is_given_either_way(
    engine_servers: Servers, registry_server: RegistryServer, unique: str
) -> None:
    """A containerd store keeps the gzip blob as it came: as it lies it is that blob, unpacked it is the layer."""
    layer = tar_of({"t/file": os.urandom(300_000), "t/zeros": bytes(300_000)})
    config, blob = config_of([sha256(layer)]), gzip.compress(layer)
    server = engine_servers("28.5-containerd")
    async with HttpRegistry.open(registry_server.url) as registry, DockerEngine.open(server.url) as engine:
        for content in (config, blob):
            await registry.put_blob(f"test/{unique}", sha256(content), len(content), pieces(content))
        manifest = Manifest.write(
            Descriptor(media_type=OCI_CONFIG, digest=sha256(config), size=len(config)),
            (Descriptor(media_type=OCI_LAYER_GZIP, digest=sha256(blob), size=len(blob)),),
        )
        await registry.put_manifest(f"test/{unique}", "1", manifest)
        name = f"{registry_server.address}/test/{unique}:1"
        await pull(engine, name)
        image = await engine.inspect(name)
        assert image is not None
        source: LayerSource = Folders(server.root)
        assert isinstance(source, BlobSource)
        assert await digest_of(source, image, sha256(layer)) == (sha256(layer), len(layer))
        stored = await source.blob(image, sha256(layer))
        assert stored is not None
        assert (stored.digest, stored.size_bytes, stored.codec) == (sha256(blob), len(blob), "gzip")
        async with source.stored(stored) as chunks:
            assert b"".join([chunk async for chunk in chunks]) == blob
        assert await digest_of(SaveStream(engine), image, sha256(layer)) == (sha256(layer), len(layer))


async def test_an_index_of_many_platforms_gives_the_hosts_own(engine_servers: Servers, unique: str) -> None:
    """On a containerd store the image is an index; its layers are those of the platform that the engine runs."""
    server, name = engine_servers("28.5-containerd"), f"docker.io/test/{unique}:1"
    archive, index_digest, layers = many_platforms(name, unique)
    async with DockerEngine.open(server.url) as engine:
        async with engine.load(pieces(archive)) as progress:
            async for _ in progress:
                pass
        image = await engine.inspect(name)
        assert image is not None
        assert (image.platform, image.local_id) == ("linux/amd64", index_digest)
        wanted = sha256(layers["amd64"])
        assert image.diff_ids == (wanted,)
        sources: list[LayerSource] = [Folders(server.root), SaveStream(engine)]
        for source in sources:
            assert await digest_of(source, image, wanted) == (wanted, len(layers["amd64"]))
            assert sha256(await source.config(image)) == sha256(config_of([wanted], architecture="amd64"))


def sparse_tar(folder: Path, tar_format: str, unique: str) -> bytes:
    """Seven megabytes in less than one: what lies between is left out."""
    sparse = folder / "t/sparse"
    sparse.parent.mkdir()
    with sparse.open("wb") as file:
        file.write(unique.encode())
        file.seek(3 << 20)
        file.write(b"middle")
        file.truncate(7 << 20)
    packed = subprocess.run(
        ["tar", "--sparse", f"--format={tar_format}", "-C", str(folder), "-c", "t"], check=True, capture_output=True
    ).stdout
    assert len(packed) < 1 << 20
    return packed


@pytest.mark.parametrize("tar_format", ["gnu", "posix"])
async def test_a_sparse_file_arrives_right_or_not_at_all(
    engine_servers: Servers, registry_server: RegistryServer, unique: str, tmp_path: Path, tar_format: str
) -> None:
    """Tar-split does not know sparse entries: whatever the engine made of one, no source gives other bytes as it."""
    packed = sparse_tar(tmp_path, tar_format, unique)
    server = engine_servers("machine")
    async with DockerEngine.open(server.url) as engine:
        try:
            image = await load(engine, f"docker.io/test/{unique}:1", [packed])
        except CyroidError:
            return  # refused as a whole
        sources: list[LayerSource] = [Folders(server.root), SaveStream(engine)]
        for source in sources:
            try:
                digest, _ = await digest_of(source, image, sha256(packed))
            except LayerUnreadable:
                continue
            # A reader compares digests, so other bytes are noticed; they must not pass for the layer by their length.
            assert digest == sha256(packed) or source.name == "layers"


async def test_an_image_deleted_while_it_is_read(engine_servers: Servers, unique: str) -> None:
    """Half a layer read, then the image goes: the rest is right or the layer is unreadable, never something else."""
    server, name = engine_servers("machine"), f"docker.io/test/{unique}:1"
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for number in range(400):
            info = tarfile.TarInfo(f"t/{number}")
            info.size = 100_000
            tar.addfile(info, io.BytesIO(f"{unique} {number} ".encode().ljust(100_000, b"x")))
    layer = raw.getvalue()
    async with DockerEngine.open(server.url) as engine:
        image = await load(engine, name, [layer])
        folders, saved = layer_sources(engine, engine_root=server.root)

        async def read_and_remove() -> None:
            async with folders.layer(image, sha256(layer)) as chunks:
                async for _ in chunks:
                    await engine.untag(name)

        with pytest.raises(LayerUnreadable, match=sha256(layer)):
            await read_and_remove()
        assert await engine.inspect(name) is None
        with pytest.raises(LayerUnreadable, match=image.local_id):
            await digest_of(saved, image, sha256(layer))
        again = await load(engine, name, [layer])
        assert await digest_of(folders, again, sha256(layer)) == (sha256(layer), len(layer))


async def test_a_store_that_changes_under_the_reader_is_unreadable_and_the_save_stream_is_not(
    engine_servers: Servers, unique: str
) -> None:
    """The layer's folder loses a file after the first chunk; what was read until then was right."""
    server, name = engine_servers("machine"), f"docker.io/test/{unique}:1"
    layer = tar_of({f"t/{number:03}": os.urandom(100_000) for number in range(200)})
    async with DockerEngine.open(server.url) as engine:
        image = await load(engine, name, [layer])
        described = server.root / "image/overlay2/layerdb/sha256" / sha256(layer).removeprefix("sha256:")
        last = server.root / "overlay2" / (described / "cache-id").read_text() / "diff/t/199"
        folders, saved = layer_sources(engine, engine_root=server.root)
        pieces_read: list[bytes] = []

        async def read_and_hide() -> None:
            async with folders.layer(image, sha256(layer)) as chunks:
                async for chunk in chunks:
                    if not pieces_read:
                        last.rename(last.with_name("aside"))
                    pieces_read.append(chunk)

        with pytest.raises(LayerUnreadable, match=sha256(layer)):
            await read_and_hide()
        assert layer.startswith(b"".join(pieces_read))
        last.with_name("aside").rename(last)
        assert await digest_of(saved, image, sha256(layer)) == (sha256(layer), len(layer))
