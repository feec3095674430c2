"""The tar fallback between real engines: thin, whole, held up, broken off, cancelled, taken up again."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable

import pytest

from events.messages import ImageFailed, TransferCancelled
from services.agent import Patience
from tests.integration.agent.site import MEGABYTE, Site, until
from tests.integration.agent.valve import Valve
from tests.integration.engines import build
from tests.laboratory import RegistryServer

pytestmark = pytest.mark.real


async def test_a_stopped_registry_costs_only_the_missing_layer(
    site: Site, registry_server: RegistryServer, unique: str
) -> None:
    """The base came by pull; the new layer comes by tar, and nothing else: the bytes say so."""
    one, two = f"docker.io/{unique}/app:1", f"docker.io/{unique}/app:2"
    big, new = {"big": os.urandom(8 * MEGABYTE)}, os.urandom(MEGABYTE)
    await build(site.host, one, big)
    first = site.pull_request(await site.push(one))
    image = await build(site.host, two, big, {"new": new})
    second = site.pull_request(await site.push(two), "t2")
    async with site.agent(), site.tar_server():
        await site.say(first)
        await site.ready()
        registry_server.stop()
        try:
            await site.say(second)
            asked = await site.asks_for_tar("t2")
            await site.say(await site.offer(second, asked))
            ready = await site.ready("t2", skip=1)
        finally:
            registry_server.start()
    assert (asked.layout, asked.thin, asked.diff_ids) == ("docker", True, image.diff_ids[:2])
    assert (ready.how, ready.layers_reused, ready.layers_total) == ("loaded", 2, 3)
    assert MEGABYTE < ready.received_bytes < MEGABYTE + 20_000
    await site.assert_named_alone(two, image.local_id)
    assert site.files(two, ["/data/new", "/data/big"]) == {"/data/new": new, "/data/big": big["big"]}


async def test_a_registry_that_goes_in_mid_pull_is_replaced_by_the_tar(site: Site, unique: str) -> None:
    """The pull breaks off, the same transfer ends by load."""
    name = f"docker.io/{unique}/app:1"
    image = await build(site.host, name, {"a": os.urandom(20 * MEGABYTE)})
    pushed = await site.push(name)
    async with (
        Valve.before(site.registry.address) as valve,
        site.agent(Patience(stall_seconds=20, retry_seconds=1)),
        site.tar_server(),
    ):
        valve.close_after(5 * MEGABYTE)
        request = site.pull_request(pushed, address=valve.address)
        await site.say(request)
        await valve.closed()
        valve.shut()
        await site.say(await site.offer(request, await site.asks_for_tar()))
        ready = await site.ready(skip=1)
    assert ready.how == "loaded"
    await site.assert_named_alone(name, image.local_id)


async def test_another_config_is_loaded_without_a_layer(site: Site, unique: str) -> None:
    """The same layers under another config: some thousand bytes."""
    one, two = f"docker.io/{unique}/app:1", f"docker.io/{unique}/app:2"
    await build(site.host, one, {"a": os.urandom(5 * MEGABYTE)})
    container = f"c-{unique}"
    await _create(site, container, one)
    await site.host.commit(container, reference=two, changes=["ENV CHANGED=1"])
    first = await site.host.inspect(one)
    image = await site.host.inspect(two)
    assert first is not None
    assert image is not None
    async with site.agent(), site.tar_server():
        whole = site.tar_request(first, one)
        await site.say(whole)
        await site.say(await site.offer(whole, await site.asks_for_tar()))
        assert (await site.ready(skip=1)).layers_reused in (0, 1)
        request = site.tar_request(image, two, "t2")
        await site.say(request)
        await site.say(await site.offer(request, await site.asks_for_tar("t2")))
        ready = await site.ready("t2", skip=1)
    assert ready.layers_reused >= len(first.diff_ids)
    assert ready.received_bytes < 20_000
    await site.assert_named_alone(two, image.local_id)


async def _create(site: Site, name: str, reference: str) -> None:
    process = await asyncio.create_subprocess_exec(
        "docker", "-H", site.host.url, "create", "--name", name, reference, "true", stdout=asyncio.subprocess.DEVNULL
    )
    assert await process.wait() == 0


@pytest.mark.parametrize("mounted", [True, False])
async def test_a_whole_archive_from_either_source(site: Site, unique: str, mounted: bool) -> None:
    """From the layer store where it is mounted, and out of `docker save` where it is not."""
    name = f"docker.io/{unique}/app:1"
    content = os.urandom(5 * MEGABYTE)
    image = await build(site.host, name, {"a": content}, {"b": b"x"})
    site.host_root = site.host_root if mounted else None
    async with site.agent(), site.tar_server():
        request = site.tar_request(image, name)
        await site.say(request)
        await site.say(await site.offer(request, await site.asks_for_tar()))
        ready = await site.ready(skip=1)
    assert (ready.how, ready.received_bytes > 5 * MEGABYTE) == ("loaded", True)
    await site.assert_named_alone(name, image.local_id)
    assert site.files(name, ["/data/a"]) == {"/data/a": content}


async def test_a_thin_archive_the_engine_cannot_use_leads_to_a_whole_one(site: Site, unique: str) -> None:
    """The layer that was left out has gone meanwhile: a clean refusal, no image, then all layers."""
    name = f"docker.io/{unique}/app:1"
    image = await build(site.host, name, {"a": os.urandom(MEGABYTE)}, {"b": os.urandom(MEGABYTE)})
    async with site.agent(), site.tar_server():
        request = site.tar_request(image, name)
        await site.say(request)
        asked = await site.asks_for_tar()
        pretended = type(asked)(transfer_id="t1", reason=asked.reason, diff_ids=image.diff_ids[:2])
        await site.say(await site.offer(request, pretended))
        again = await site.asks_for_tar(skip=1)
        assert (again.thin, again.reason.code) == (False, "bad_archive")
        assert await site.engine.inspect(name) is None
        await site.say(await site.offer(request, again))
        await site.ready(skip=2)
    await site.assert_named_alone(name, image.local_id)


async def test_cancelling_stops_the_engines_load(site: Site, unique: str) -> None:
    """In the middle of the stream: answered within two seconds, the archive's connection closed, no image."""
    name = f"docker.io/{unique}/app:1"
    image = await build(site.host, name, {"a": os.urandom(30 * MEGABYTE)})
    before = {one.local_id for one in await site.engine.images()}
    async with site.agent(), site.tar_server(), Valve.before(site.tar_url.removeprefix("http://")) as valve:
        request = site.tar_request(image, name)
        await site.say(request)
        valve.close_after(5 * MEGABYTE)
        await site.say(await site.offer(request, await site.asks_for_tar(), url=f"http://{valve.address}"))
        await valve.closed()
        async with asyncio.timeout(2):
            await site.say(TransferCancelled(transfer_id="t1"))
            failed = await site.answer(skip=1)
            await valve.gone()
        assert isinstance(failed, ImageFailed)
        assert failed.error.code == "cancelled"
    assert {one.local_id for one in await site.engine.images()} == before
    assert site.spool.taken_bytes == 0


async def test_an_archive_that_breaks_off_is_asked_for_again(site: Site, unique: str) -> None:
    """No half image; the used offer is refused, a new one brings it."""
    name = f"docker.io/{unique}/app:1"
    image = await build(site.host, name, {"a": os.urandom(30 * MEGABYTE)})
    async with site.agent(), site.tar_server(), Valve.before(site.tar_url.removeprefix("http://")) as valve:
        request = site.tar_request(image, name)
        await site.say(request)
        valve.close_after(5 * MEGABYTE)
        offer = await site.offer(request, await site.asks_for_tar(), url=f"http://{valve.address}")
        await site.say(offer)
        await valve.closed()
        valve.cut()
        broken = await site.asks_for_tar(skip=1)
        assert (broken.reason.code, broken.thin) == ("transfer_failed", True)
        assert await site.engine.inspect(name) is None
        valve.open()
        await site.say(offer)
        refused = await site.asks_for_tar(skip=2)
        assert refused.reason.code == "offer_refused"
        await site.say(await site.offer(request, refused))
        await site.ready(skip=3)
    await site.assert_named_alone(name, image.local_id)


async def test_a_stalled_range_is_cut_off_and_hurts_nobody(site: Site, unique: str) -> None:
    """One reader of an export stands still: the range gets it all the same, the reader loses its connection."""
    name = f"docker.io/{unique}/app:1"
    image = await build(site.host, name, {"a": os.urandom(60 * MEGABYTE)})
    async with site.agent(), site.tar_server(stall_seconds=2):
        request = site.tar_request(image, name)
        await site.say(request)
        asked = await site.asks_for_tar()
        slow = await site.offer(site.tar_request(image, name, "slow"), asked)
        host, _, port = site.tar_url.removeprefix("http://").rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=65536)
        path = slow.url.removeprefix(site.tar_url)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {slow.token}\r\n\r\n".encode())
        assert b"200" in await reader.readline()
        await site.say(await site.offer(request, asked))
        await site.ready(skip=1)
        await until(_all_read(site))
        received = 0
        with contextlib.suppress(ConnectionError):
            while chunk := await reader.read(65536):
                received += len(chunk)
        writer.close()
    assert received < 50 * MEGABYTE
    await site.assert_named_alone(name, image.local_id)


def _all_read(site: Site) -> Callable[[], Awaitable[bool]]:
    async def given_back() -> bool:
        return site.spool.taken_bytes == 0

    return given_back
