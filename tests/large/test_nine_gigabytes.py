"""A layer of nine gigabytes on the whole way: out of an archive, into the registry, to a range on each path."""

from __future__ import annotations

import asyncio
import hashlib
import json
import tarfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from events.messages import ImageReady, PullRequested, TarRequested
from services.adapters.engine import DockerEngine
from services.core.archives.entry_rules import ArchiveLimits
from services.ingest.archive_flow import Archive, ArchiveFlow
from tests.images import config_of
from tests.integration.agent.conftest import open_site
from tests.integration.agent.site import Site
from tests.laboratory import Lab, RedisServer

pytestmark = pytest.mark.real

#: Beyond what the octal field of a tar header holds (8 GiB).
SIZE = 9_000_000_005
BLOCK = bytes(4 << 20)
SECONDS = 900


def header(name: str, size: int) -> bytes:
    """As Go's and Python's writers have it: the size in a pax record."""
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.PAX_FORMAT)


def layer(word: str) -> Iterator[bytes]:
    """A tar with one file that is zeros, but for its beginning."""
    yield header("t/disk", SIZE)
    yield word.encode() + BLOCK[len(word) :]
    for start in range(len(BLOCK), SIZE, len(BLOCK)):
        yield BLOCK[: SIZE - start]
    yield bytes(-SIZE % 512 + 1024)


async def archive(name: str, word: str, diff_id: str) -> AsyncIterator[bytes]:
    """As `docker save` writes it, made as it is read."""
    length = len(header("t/disk", SIZE)) + SIZE + -SIZE % 512 + 1024
    yield header("layer.tar", length)
    for chunk in layer(word):
        yield chunk
    yield bytes(-length % 512)
    rows = json.dumps([{"Config": "c.json", "RepoTags": [name], "Layers": ["layer.tar"]}]).encode()
    for path, content in (("c.json", config_of([diff_id])), ("manifest.json", rows)):
        yield header(path, len(content)) + content + bytes(-len(content) % 512)
    yield bytes(1024)


async def into_host(engine: DockerEngine, name: str, word: str) -> str:
    """Import it as the importer does; its diff ID."""

    def digest() -> str:
        state = hashlib.sha256()
        for chunk in layer(word):
            state.update(chunk)
        return f"sha256:{state.hexdigest()}"

    diff_id = await asyncio.to_thread(digest)
    flow = ArchiveFlow(
        Archive(chunks=archive(name, word, diff_id), origin="disk.tar"),
        engine,
        wanted=None,
        limits=ArchiveLimits(),
        free_bytes=lambda: None,
    )
    async with engine.load(flow.chunks()) as lines:
        async for _ in lines:
            pass
    return diff_id


async def loaded(site: Site, request: PullRequested) -> ImageReady:
    """Answer each ask for an archive, as the deployer does: a try that the machine's load interrupted asks again."""
    for skip in range(20):
        answer = await site.answer(request.transfer_id, skip=skip, seconds=SECONDS)
        if isinstance(answer, ImageReady):
            return answer
        assert isinstance(answer, TarRequested), answer
        await site.say(await site.offer(request, answer))
    raise AssertionError("the range asks again and again")


async def test_nine_gigabytes_by_archive_registry_and_tar(
    lab: Lab, redis_server: RedisServer, base_image_tar: Path, unique: str, tmp_path: Path
) -> None:
    """Imported by its headers' true size, pushed, pulled by the range, and with the registry away sent as a tar."""
    name = f"docker.io/test/{unique}:1"
    registry = lab.registry(f"registry-{unique}")
    host, ranged = lab.engine(f"host-{unique}"), lab.engine(f"range-{unique}")
    try:
        async with (
            open_site(
                redis=redis_server,
                registry=registry,
                host=host,
                range_engine=ranged,
                prefix=unique,
                base=base_image_tar,
                spool=tmp_path / "spool",
                spool_bytes=16 << 30,
            ) as site,
            # Minutes of writing to one disk hold up Redis and this process for longer than the site's short lease.
            site.agent(lease_seconds=30),
            site.tar_server(),
        ):
            diff_id = await into_host(site.host, name, unique)
            image = await site.host.inspect(name)
            assert image is not None
            assert image.diff_ids == (diff_id,)
            pushed = await site.push(name)
            assert pushed.layers[0].diff_id == diff_id
            await site.say(site.pull_request(pushed))
            assert (await site.ready(seconds=SECONDS)).how == "pulled"
            assert (await site.assert_named_alone(name, pushed.image_id)).diff_ids == (diff_id,)
            await site.engine.untag(name)
            registry.stop()
            request = site.tar_request(image, name, "t2")
            await site.say(request)
            assert (await loaded(site, request)).how == "loaded"
            assert (await site.assert_named_alone(name, pushed.image_id)).diff_ids == (diff_id,)
    finally:
        for server in (registry, host, ranged):
            server.terminate()
            server.join()
