"""The agent on a real engine: pull, present, retag, and everything that can go wrong with a pull."""

from __future__ import annotations

import asyncio
import os

import pytest

from events.messages import ImageFailed, TransferCancelled
from services.agent import Patience
from tests.integration.agent.site import MEGABYTE, Site, until
from tests.integration.agent.valve import Valve
from tests.integration.engines import build
from tests.laboratory import RegistryServer

pytestmark = pytest.mark.real


async def test_pulled_then_present(site: Site, unique: str) -> None:
    """The first deployment pulls and names; the second moves nothing; the files are those of the host."""
    name = f"docker.io/{unique}/app:1"
    content = os.urandom(5 * MEGABYTE)
    await build(site.host, name, {"big": content}, {"small": b"x"})
    pushed = await site.push(name)
    async with site.agent():
        await site.say(site.pull_request(pushed))
        first = await site.ready()
        await site.say(site.pull_request(pushed, "t2"))
        second = await site.ready("t2")
    own = sum(layer.size_bytes for layer in pushed.layers[-2:])
    assert (first.how, first.layers_total) == ("pulled", 3)
    assert first.received_bytes in (own, own + pushed.layers[0].size_bytes)
    assert (second.how, second.received_bytes, second.layers_reused) == ("present", 0, 3)
    await site.assert_named_alone(name, pushed.image_id)
    assert site.files(name, ["/data/big", "/data/small"]) == {"/data/big": content, "/data/small": b"x"}


async def test_only_new_layers_are_received(site: Site, unique: str) -> None:
    """A second image on the same base: its own layer's bytes, the others reused; a name with a registry's host."""
    base = {"big": os.urandom(5 * MEGABYTE)}
    first, second = f"docker.io/{unique}/app:1", f"registry.example:5000/{unique}/app:2"
    await build(site.host, first, base)
    image = await build(site.host, second, base, {"new": os.urandom(MEGABYTE)})
    requests = [site.pull_request(await site.push(one), one[-1]) for one in (first, second)]
    async with site.agent():
        await site.say(requests[0])
        await site.ready("1")
        await site.say(requests[1])
        ready = await site.ready("2")
    assert ready.received_bytes == requests[1].layers[-1].size_bytes
    assert (ready.layers_reused, ready.layers_total) == (2, 3)
    await site.assert_named_alone(second, image.local_id)


async def test_content_under_another_name_is_retagged(site: Site, unique: str) -> None:
    """No byte moves, both names stay."""
    one, two = f"docker.io/{unique}/app:1", f"docker.io/{unique}/other:1"
    await build(site.host, one, {"a": os.urandom(MEGABYTE)})
    await site.host.tag(one, two)
    async with site.agent():
        await site.say(site.pull_request(await site.push(one)))
        await site.ready()
        await site.say(site.pull_request(await site.push(two), "t2"))
        ready = await site.ready("t2")
    assert (ready.how, ready.received_bytes) == ("retagged", 0)
    found = await site.engine.inspect(two)
    assert found is not None
    assert set(found.references) == {one, two}


async def test_a_rebuilt_tag_brings_the_new_content(site: Site, unique: str) -> None:
    """The name in the range moves to the new image; only the new layer comes."""
    name = f"docker.io/{unique}/app:1"
    big = {"big": os.urandom(5 * MEGABYTE)}
    await build(site.host, name, big, {"version": b"1"})
    first = site.pull_request(await site.push(name))
    await build(site.host, name, big, {"version": b"2"})
    second = site.pull_request(await site.push(name), "t2")
    async with site.agent():
        await site.say(first)
        await site.ready()
        await site.say(second)
        ready = await site.ready("t2")
    assert ready.received_bytes == second.layers[-1].size_bytes
    assert site.files(name, ["/data/version"]) == {"/data/version": b"2"}


async def test_two_transfers_of_one_image_at_once(site: Site, unique: str) -> None:
    """Both end ready, one by pulling and one by its name alone."""
    names = [f"docker.io/{unique}/app:{number}" for number in (1, 2)]
    await build(site.host, names[0], {"a": os.urandom(5 * MEGABYTE)})
    await site.host.tag(names[0], names[1])
    requests = [site.pull_request(await site.push(name), f"t{number}") for number, name in enumerate(names)]
    async with site.agent():
        await site.say(*requests)
        ways = {(await site.ready(request.transfer_id)).how for request in requests}
    assert ways == {"pulled", "retagged"}
    found = await site.engine.inspect(names[0])
    assert found is not None
    assert (set(found.references), found.repo_digests) == (set(names), ())


async def test_a_registry_that_is_stopped_leads_to_a_tar(
    site: Site, registry_server: RegistryServer, unique: str
) -> None:
    """At once, with the reason; the range is as before."""
    name = f"docker.io/{unique}/app:1"
    await build(site.host, name, {"a": os.urandom(1000)})
    request = site.pull_request(await site.push(name))
    registry_server.stop()
    try:
        async with site.agent():
            await site.say(request)
            asked = await site.asks_for_tar()
    finally:
        registry_server.start()
    assert asked.reason.code == "registry_unavailable"
    assert await site.engine.inspect(request.image_id) is None


async def test_a_registry_that_goes_in_mid_pull_leads_to_a_tar(site: Site, unique: str) -> None:
    """The engine would try for more than a minute; the agent ends that after its own patience."""
    name = f"docker.io/{unique}/app:1"
    await build(site.host, name, {"a": os.urandom(20 * MEGABYTE)})
    pushed = await site.push(name)
    async with Valve.before(site.registry.address) as valve, site.agent(Patience(stall_seconds=30, retry_seconds=2)):
        valve.close_after(5 * MEGABYTE)
        await site.say(site.pull_request(pushed, address=valve.address))
        await valve.closed()
        valve.shut()
        asked = await site.asks_for_tar()
        assert asked.reason.code in ("stalled", "registry_unavailable")
    assert await site.engine.inspect(pushed.image_id) is None


async def test_a_pull_without_a_byte_is_ended(site: Site, unique: str) -> None:
    """The connection stands but nothing comes: after the patience the engine's pull is stopped."""
    name = f"docker.io/{unique}/app:1"
    await build(site.host, name, {"a": os.urandom(40 * MEGABYTE)})
    pushed = await site.push(name)
    async with Valve.before(site.registry.address) as valve, site.agent(Patience(stall_seconds=2)):
        valve.close_after(5 * MEGABYTE)
        await site.say(site.pull_request(pushed, address=valve.address))
        asked = await site.asks_for_tar()
        assert asked.reason.code == "stalled"
        await _assert_the_pull_has_ended(valve)


async def _assert_the_pull_has_ended(valve: Valve) -> None:
    """An engine blocked in a read notices at the next byte that its pull is over: then it hangs up."""
    valve.open()
    async with asyncio.timeout(5):
        await valve.gone()
    assert valve.passed_bytes < 30 * MEGABYTE


async def test_cancelling_stops_the_engines_pull(site: Site, unique: str) -> None:
    """The answer comes within two seconds, and the engine takes no more; no image and no name stays."""
    name = f"docker.io/{unique}/app:1"
    await build(site.host, name, {"a": os.urandom(40 * MEGABYTE)})
    pushed = await site.push(name)
    before = {image.local_id for image in await site.engine.images()}
    async with Valve.before(site.registry.address) as valve, site.agent():
        valve.close_after(5 * MEGABYTE)
        await site.say(site.pull_request(pushed, address=valve.address))
        await valve.closed()
        await site.say(TransferCancelled(transfer_id="t1"))
        failed = await site.answer(seconds=2)
        assert isinstance(failed, ImageFailed)
        assert failed.error.code == "cancelled"
        await _assert_the_pull_has_ended(valve)
    assert {image.local_id for image in await site.engine.images()} == before


async def test_progress_is_reported_with_totals(site: Site, unique: str) -> None:
    """While a pull is held up its progress stands in the range's progress stream: bytes of all bytes."""
    name = f"docker.io/{unique}/app:1"
    await build(site.host, name, {"a": os.urandom(20 * MEGABYTE)})
    pushed = await site.push(name)
    async with Valve.before(site.registry.address) as valve, site.agent():
        valve.close_after(10 * MEGABYTE)
        request = site.pull_request(pushed, address=valve.address)
        await site.say(request)

        async def reported() -> bool:
            stream = site.streams.range_progress("range-1")
            async for entry in site.bus.tail([stream], after="0", follow=False):
                progress = entry.envelope.message if entry.envelope else None
                if getattr(progress, "done_bytes", 0) > 0:
                    assert getattr(progress, "total_bytes", 0) == request.total_bytes
                    return True
            return False

        await until(reported)
        valve.open()
        await site.ready()
