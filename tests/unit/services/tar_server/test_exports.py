"""Exports, asked for over real HTTP: where the bytes come from, and who shares them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest

from events.messages import ImageReady, Layer, TarRequested
from services.core.images.image import Store
from services.errors import LayerUnreadable
from services.ports import Chunks
from tests.unit.services.agent.archive_server import BOTH, StreamSource, serving
from tests.unit.services.agent.scene import APP, BASE, REFERENCE, TOOLS, Scene, until


async def test_layers_come_from_the_registry_where_it_has_them(tmp_path: Path) -> None:
    """The host's engine is not read at all."""
    scene = Scene()
    image = scene.build(BASE, TOOLS)
    await scene.publish(image)
    async with serving(scene, tmp_path) as server, scene.listening():
        await server.offered(image)
        assert isinstance(await scene.answer(), ImageReady)
    assert server.source.reads == []


async def test_an_image_that_only_the_registry_has_can_be_exported(tmp_path: Path) -> None:
    """The host may be without it, or without an engine."""
    scene = Scene()
    image = scene.build(BASE, TOOLS)
    await scene.publish(image)
    scene.host.away = True
    async with serving(scene, tmp_path) as server, scene.listening():
        await server.offered(image)
        assert isinstance(await scene.answer(), ImageReady)


@pytest.mark.parametrize("store", BOTH)
async def test_sizes_need_not_be_known_beforehand(store: Store, tmp_path: Path) -> None:
    """The archive is sent without a length then, and is as whole."""
    scene = Scene(store)
    image = scene.build(BASE, TOOLS)
    async with serving(scene, tmp_path) as server, scene.listening():
        server.source.knows_sizes = False
        await server.offered(image)
        assert isinstance(await scene.answer(), ImageReady)


@pytest.mark.parametrize("store", BOTH)
async def test_a_stream_of_layers_is_passed_once(store: Store, tmp_path: Path) -> None:
    """Layers that only one stream has are taken as they come, whatever their order."""
    scene = Scene(store)
    image = scene.build(BASE, TOOLS, APP)
    source = StreamSource(scene.host)
    async with serving(scene, tmp_path, source=source) as server, scene.listening():
        await server.offered(image)
        assert isinstance(await scene.answer(), ImageReady)
    assert (source.passes, source.reads) == (1, [])


async def test_one_export_feeds_all_that_want_the_same(tmp_path: Path) -> None:
    """Three readers at once, one reading of the host."""
    scene = Scene()
    image = scene.build(BASE, TOOLS)
    async with serving(scene, tmp_path) as server:
        offers = [await server.offer(image, f"t{number}") for number in range(3)]
        answers = await asyncio.gather(*(server.get(url, token) for url, token in offers))
    assert {status for status, _ in answers} == {200}
    assert len({body for _, body in answers}) == 1
    assert server.source.reads == list(image.diff_ids)


async def test_another_reference_is_another_archive(tmp_path: Path) -> None:
    """The name is in the archive."""
    scene = Scene()
    image = scene.build(BASE)
    await scene.host.tag(REFERENCE, "other:1")
    async with serving(scene, tmp_path) as server:
        first = await server.get(*await server.offer(image, "t1"))
        second = await server.get(*await server.offer(image, "t2", reference="docker.io/library/other:1"))
    assert (first[0], second[0]) == (200, 200)
    assert first[1] != second[1]


async def test_a_reader_that_stands_still_is_cut_off_and_hurts_nobody(tmp_path: Path) -> None:
    """It gets a broken connection after its own timeout; the other one has long got everything."""
    scene = Scene()
    image = scene.build(bytes(40 * 1024 * 1024))
    async with serving(scene, tmp_path, stall_seconds=0.5) as server:
        (slow_url, slow_token), (url, token) = await server.offer(image, "t1"), await server.offer(image, "t2")
        headers = {"Authorization": f"Bearer {slow_token}"}
        async with aiohttp.ClientSession() as session, session.get(slow_url, headers=headers) as standing:
            assert standing.status == 200
            status, body = await server.get(url, token)
            assert (status, len(body)) == (200, standing.content_length)
            await until(lambda: server.folder.taken_bytes == 0)
            with pytest.raises(aiohttp.ClientError):
                await standing.read()


async def test_a_failure_in_mid_stream_is_a_broken_transfer(tmp_path: Path) -> None:
    """Never a clean end: with and without a length the client gets an error, and the agent asks again."""
    scene = Scene()
    image = scene.build(BASE)
    async with serving(scene, tmp_path) as server, scene.listening():
        server.source.broken = True
        for number, knows in enumerate((True, False)):
            server.source.knows_sizes = knows
            url, token = await server.offer(image, f"direct{number}")
            with pytest.raises(aiohttp.ClientError):
                await server.get(url, token)
        await server.offered(image)
        asked = await scene.answer()
    assert isinstance(asked, TarRequested)
    assert (asked.reason.code, asked.thin) == ("transfer_failed", True)
    assert scene.engine.store.images == {}


async def test_a_source_that_gives_other_bytes_breaks_the_transfer(tmp_path: Path) -> None:
    """The last bytes go out only after the digest was right."""
    scene = Scene()
    image = scene.build(BASE)
    scene.host.store.layers[image.diff_ids[0]] = b"x" * len(BASE)
    async with serving(scene, tmp_path) as server:
        url, token = await server.offer(image)
        with pytest.raises(aiohttp.ClientError):
            await server.get(url, token)


async def test_a_registry_that_breaks_off_is_continued_from_the_host(tmp_path: Path) -> None:
    """At the same byte, so that the reader notices nothing."""
    scene = Scene()
    image = scene.build(BASE)
    await scene.publish(image)
    reader_opened = scene.registry.open_blob

    @asynccontextmanager
    async def breaks(repository: str, digest: str) -> AsyncIterator[Chunks]:
        async with reader_opened(repository, digest) as chunks:
            if digest != image.diff_ids[0]:
                yield chunks
                return

            async def half() -> Chunks:
                async for chunk in chunks:
                    yield chunk[:500]
                    raise LayerUnreadable("the registry went away")

            yield half()

    scene.registry.open_blob = breaks  # type: ignore[method-assign]
    async with serving(scene, tmp_path) as server, scene.listening():
        await server.offered(image)
        assert isinstance(await scene.answer(), ImageReady)
    assert server.source.reads == [image.diff_ids[0]]


async def test_an_offer_is_good_once(tmp_path: Path) -> None:
    """Of two requests with one token one gets the archive, at once or one after the other."""
    scene = Scene()
    image = scene.build(BASE)
    async with serving(scene, tmp_path) as server:
        url, token = await server.offer(image)
        together = await asyncio.gather(server.get(url, token), server.get(url, token))
        later = await server.get(url, token)
    assert sorted(status for status, _ in together) == [200, 409]
    assert later[0] == 409
    assert b'"code":"offer_used"' in later[1]


async def test_wrong_requests_get_problems(tmp_path: Path) -> None:
    """No token, a wrong one, no such offer, an expired one: each its own status, as problem+json."""
    scene = Scene()
    image = scene.build(BASE)
    async with serving(scene, tmp_path) as server:
        url, token = await server.offer(image)
        late_url, late_token = await server.offer(image, "late", now=datetime.now(UTC) - timedelta(hours=1))
        statuses = [
            (await server.get(url, None))[0],
            (await server.get(url, token + "x"))[0],
            (await server.get(url + "0", token))[0],
            (await server.get(late_url, late_token))[0],
        ]
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            assert response.content_type == "application/problem+json"
        assert statuses == [401, 403, 404, 410]
        assert (await server.get(url, token))[0] == 200


async def test_an_image_that_is_nowhere_is_said_so_and_the_offer_stays(tmp_path: Path) -> None:
    """404 with the reason; what has no byte sent is not used."""
    scene = Scene()
    image = scene.build(BASE)
    async with serving(scene, tmp_path) as server:
        url, token = await server.offer(image)
        await scene.host.untag(REFERENCE)
        status, body = await server.get(url, token)
        assert status == 404
        assert b"neither the engine beside this tar server nor the registry has" in body
        assert b"bring the registry back, or build it again" in body
        scene.build(BASE)
        assert (await server.get(url, token))[0] == 200


async def test_archives_that_name_other_blobs_are_not_shared(tmp_path: Path) -> None:
    """Two ranges lack the same layer, one has the other layer raw, one as the registry has it."""
    scene = Scene("containerd")
    image = scene.build(BASE, TOOLS)
    blob = Layer(digest="sha256:" + "e" * 64, diff_id=image.diff_ids[0], size_bytes=9, codec="gzip")
    async with serving(scene, tmp_path) as server:
        held = image.diff_ids[1:]
        offers = [await server.offer(image, f"t{len(one)}", held=held, layers=one) for one in ((), (blob,))]
        answers = await asyncio.gather(*(server.get(url, token) for url, token in offers))
    assert [blob.digest.encode() in body for _, body in answers] == [False, True]
