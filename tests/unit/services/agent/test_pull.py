"""The agent asked to pull: what it does depends on what its engine has."""

from __future__ import annotations

import asyncio

import pytest

from events.bus import Delivery, Outcome, RecordWrite, Unavailable
from events.envelope import Envelope
from events.messages import ImageFailed, ImageReady, PullRequested, TarRequested, TransferCancelled
from services.adapters.memory_engine import Fault
from services.agent.pull import Patience
from services.core.images.image import Store
from services.errors import NoSpace, TransferFailed
from tests.unit.services.agent.scene import APP, BASE, RANGE, REFERENCE, REGISTRY, TOOLS, Scene, until

BOTH: list[Store] = ["classic", "containerd"]


@pytest.mark.parametrize("store", BOTH)
async def test_a_missing_image_is_pulled_verified_and_named(store: Store) -> None:
    """Pulled by digest, under its own name alone, with every byte counted."""
    scene = Scene(store)
    image = scene.build(BASE, TOOLS)
    request = await scene.pull_request(image)
    async with scene.listening():
        await scene.say(request)
        ready = await scene.answer()
    assert isinstance(ready, ImageReady)
    assert (ready.how, ready.layers_reused, ready.layers_total) == ("pulled", 0, 2)
    assert ready.received_bytes == len(BASE) + len(TOOLS)
    found = await scene.engine.inspect(REFERENCE)
    assert found is not None
    assert (found.diff_ids, found.references, found.repo_digests) == (image.diff_ids, (REFERENCE,), ())
    last = (await scene.told())[-1]
    whole = len(BASE) + len(TOOLS)
    assert (last.kind, last.phase, last.done_bytes, last.total_bytes) == ("pull", "done", whole, whole)
    assert (last.layers_done, last.layers_total) == (2, 2)


@pytest.mark.parametrize("store", BOTH)
async def test_an_image_that_is_only_a_config_is_pulled(store: Store) -> None:
    """No layers are the right ones too, also where the engine does not know the config digest."""
    scene = Scene(store)
    request = await scene.pull_request(scene.build())
    async with scene.listening():
        await scene.say(request)
        ready = await scene.answer()
    assert isinstance(ready, ImageReady), ready
    assert (ready.how, ready.layers_total) == ("pulled", 0)


async def test_a_shared_base_is_not_received_again() -> None:
    """Only the new layer's bytes count, the base is reused."""
    scene = Scene()
    await scene.pull_request(scene.build(BASE, TOOLS, reference="base:1"))
    scene.engine.add_image("base:1", [BASE, TOOLS])
    request = await scene.pull_request(scene.build(BASE, TOOLS, APP))
    async with scene.listening():
        await scene.say(request)
        ready = await scene.answer()
    assert isinstance(ready, ImageReady)
    assert (ready.received_bytes, ready.layers_reused, ready.layers_total) == (len(APP), 2, 3)


@pytest.mark.parametrize("store", BOTH)
async def test_the_same_image_again_moves_nothing(store: Store) -> None:
    """The second request finds the content present and starts no pull."""
    scene = Scene(store)
    request = await scene.pull_request(scene.build(BASE, TOOLS))
    async with scene.listening():
        await scene.say(request)
        await scene.answer()
        await scene.say(scene.request(scene.build(BASE, TOOLS), "t2", source=request.source))
        again = await scene.answer("t2")
    assert isinstance(again, ImageReady)
    assert (again.how, again.received_bytes, again.layers_reused) == ("present", 0, 2)
    assert await scene.told("t2") == []
    assert scene.engine.counts == {"pull": 1}


@pytest.mark.parametrize("store", BOTH)
async def test_content_under_another_name_is_retagged(store: Store) -> None:
    """Nothing is pulled, and both names stay."""
    scene = Scene(store)
    image = scene.build(BASE, TOOLS)
    request = await scene.pull_request(image)
    await scene.engine.tag((await _pulled(scene, request.source)), "docker.io/library/other:1")
    async with scene.listening():
        await scene.say(request)
        ready = await scene.answer()
    assert isinstance(ready, ImageReady)
    assert (ready.how, ready.received_bytes) == ("retagged", 0)
    assert scene.engine.counts["pull"] == 1
    found = await scene.engine.inspect(REFERENCE)
    assert found is not None
    assert found.references == ("docker.io/library/other:1", REFERENCE)


async def _pulled(scene: Scene, source: str | None) -> str:
    async with scene.engine.pull(source or "") as lines:
        assert [line async for line in lines]
    return source or ""


@pytest.mark.parametrize("store", BOTH)
async def test_a_rebuilt_tag_brings_the_new_content(store: Store) -> None:
    """A name that is there proves nothing: the old image has it, the new one is pulled."""
    scene = Scene(store)
    first = await scene.pull_request(scene.build(BASE, TOOLS))
    second = await scene.pull_request(scene.build(BASE, APP), "t2")
    async with scene.listening():
        await scene.say(first)
        await scene.answer()
        await scene.say(second)
        ready = await scene.answer("t2")
    assert isinstance(ready, ImageReady)
    assert (ready.how, ready.received_bytes) == ("pulled", len(APP))
    found = await scene.engine.inspect(REFERENCE)
    assert found is not None
    assert found.diff_ids == second.diff_ids


@pytest.mark.parametrize("store", BOTH)
async def test_an_image_with_another_config_on_the_same_layers_is_another_image(store: Store) -> None:
    """A changed environment alone is not there: an archive is asked for that leaves out every layer."""
    scene = Scene(store)
    first = await scene.pull_request(scene.build(BASE, author="first"))
    second = await scene.pull_request(scene.build(BASE, author="second"), "t2")
    async with scene.listening():
        await scene.say(first)
        await scene.answer()
        await scene.say(second)
        asked = await scene.answer("t2")
    assert isinstance(asked, TarRequested)
    assert (asked.reason.code, asked.diff_ids, asked.thin) == ("same_layers", second.diff_ids, True)
    assert scene.engine.counts == {"pull": 1}


async def test_without_a_source_a_tar_is_asked_for() -> None:
    """The answer says which layers need not be sent and which archive the engine takes."""
    scene = Scene()
    scene.engine.add_image("base:1", [BASE, APP])
    image = scene.build(BASE, TOOLS)
    async with scene.listening():
        await scene.say(scene.request(image))
        asked = await scene.answer()
    assert isinstance(asked, TarRequested)
    assert (asked.reason.code, asked.diff_ids, asked.layout, asked.thin) == (
        "no_source",
        image.diff_ids[:1],
        "docker",
        True,
    )


async def test_a_containerd_store_asks_for_its_own_layout() -> None:
    """And names every layer whose blob it has, whatever lies below."""
    scene = Scene("containerd")
    scene.engine.add_image("other:1", [APP, TOOLS])
    image = scene.build(BASE, TOOLS)
    async with scene.listening():
        await scene.say(scene.request(image))
        asked = await scene.answer()
    assert isinstance(asked, TarRequested)
    assert (asked.layout, asked.diff_ids) == ("oci", image.diff_ids[1:])


async def test_a_registry_that_is_away_leads_to_a_tar() -> None:
    """With the reason, and no name left behind."""
    scene = Scene()
    request = await scene.pull_request(scene.build(BASE))
    scene.registry.away = True
    async with scene.listening():
        await scene.say(request)
        asked = await scene.answer()
    assert isinstance(asked, TarRequested)
    assert asked.reason.code == "registry_unavailable"
    assert scene.engine.store.images == {}


async def test_a_pull_that_breaks_leads_to_a_tar() -> None:
    """Whatever the engine says of it."""
    scene = Scene()
    request = await scene.pull_request(scene.build(BASE))
    scene.engine.faults["pull"] = Fault(after_bytes=100, error=TransferFailed("unexpected EOF"))
    async with scene.listening():
        await scene.say(request)
        asked = await scene.answer()
    assert isinstance(asked, TarRequested)
    assert asked.reason.code == "transfer_failed"
    assert (await scene.told())[-1].phase == "failed"


async def test_a_pull_that_stands_still_is_ended() -> None:
    """After the patience the engine's work is stopped and a tar asked for."""
    scene = Scene()
    request = await scene.pull_request(scene.build(BASE))
    scene.engine.faults["pull"] = Fault(after_bytes=100, stall=True)
    async with scene.listening(Patience(stall_seconds=0.1)):
        await scene.say(request)
        asked = await scene.answer()
    assert isinstance(asked, TarRequested)
    assert asked.reason.code == "stalled"
    assert scene.engine.working == []


async def test_a_full_disk_is_no_case_for_a_tar() -> None:
    """The other way would need as much room: the failure is said at once."""
    scene = Scene()
    request = await scene.pull_request(scene.build(BASE))
    scene.engine.faults["pull"] = Fault(error=NoSpace("no space left on device"))
    async with scene.listening():
        await scene.say(request)
        failed = await scene.answer()
    assert isinstance(failed, ImageFailed)
    assert (failed.error.code, failed.error.retryable) == ("no_space", True)


async def test_wrong_content_gets_no_name() -> None:
    """An image that is not the wanted one is removed, and a tar asked for."""
    scene = Scene()
    other = await scene.pull_request(scene.build(APP, reference="other:1"))
    wanted = scene.request(scene.build(BASE), source=other.source)
    async with scene.listening():
        await scene.say(wanted)
        asked = await scene.answer()
    assert isinstance(asked, TarRequested)
    assert asked.reason.code == "wrong_content"
    assert scene.engine.store.images == {}


async def test_an_engine_that_is_away_is_waited_for() -> None:
    """Neither a tar nor a failure is the answer: the entry goes back to the bus, which does not count it."""
    scene = Scene()
    request = await scene.pull_request(scene.build(BASE))
    registered = scene.agent().subscriptions()[0].handlers.find(PullRequested)
    assert registered is not None
    envelope = Envelope(message=request, source="deployer@test", subject=RANGE)
    scene.engine.away = True
    with pytest.raises(Unavailable, match="cannot talk to the engine"):
        await registered.handler(Delivery(envelope, scene.streams.inbox(RANGE), "1-1"))


async def test_cancelling_stops_the_engine() -> None:
    """A pull under way ends, the engine's work with it, and nothing stays."""
    scene = Scene()
    request = await scene.pull_request(scene.build(BASE))
    scene.engine.faults["pull"] = Fault(after_bytes=100, until=asyncio.Event())
    async with scene.listening():
        await scene.say(request)
        await until(lambda: scene.engine.working == ["pull"])
        await scene.say(TransferCancelled(transfer_id="t1"))
        failed = await scene.answer()
        assert scene.engine.working == []
    assert isinstance(failed, ImageFailed)
    assert failed.error.code == "cancelled"
    assert scene.engine.store.images == {}


async def test_a_transfer_cancelled_before_it_is_read_never_begins() -> None:
    """The record outlives the agent that wrote it."""
    scene = Scene()
    request = await scene.pull_request(scene.build(BASE))
    async with scene.listening():
        await scene.say(TransferCancelled(transfer_id="t1"))
        await until(lambda: _remembered(scene))
    async with scene.listening():
        await scene.say(request)
        failed = await scene.answer()
    assert isinstance(failed, ImageFailed)
    assert failed.error.code == "cancelled"
    assert scene.engine.counts == {}


async def test_a_cancel_that_another_agent_heard_is_found() -> None:
    """Two agents of one range share the inbox: the record of the one that heard it stops the pull of the other."""
    scene = Scene()
    request = await scene.pull_request(scene.build(BASE))
    scene.engine.faults["pull"] = Fault(after_bytes=100, until=asyncio.Event())
    async with scene.listening():
        await scene.say(request)
        await until(lambda: scene.engine.working == ["pull"])
        record = RecordWrite(scene.streams.cancelled(RANGE, "t1"), b"1")
        await scene.bus.commit(Outcome(records=(record,)))
        failed = await scene.answer()
    assert isinstance(failed, ImageFailed)
    assert (failed.error.code, scene.engine.working) == ("cancelled", [])


async def _remembered(scene: Scene) -> bool:
    return await scene.bus.load(scene.streams.cancelled(RANGE, "t1")) is not None


async def test_two_transfers_of_one_image_do_not_disturb_each_other() -> None:
    """Under two names at once: one pulls, the other retags, both names hold the content."""
    scene = Scene()
    image = scene.build(BASE, TOOLS)
    first = await scene.pull_request(image)
    second = scene.request(image, "t2", source=first.source, reference="docker.io/library/web:2")
    async with scene.listening():
        await scene.say(first)
        await scene.say(second)
        ways = {(await scene.answer(one)).how for one in ("t1", "t2")}  # type: ignore[union-attr]
    assert ways == {"pulled", "retagged"}
    found = await scene.engine.inspect(image.local_id)
    assert found is not None
    assert found.references == (REFERENCE, "docker.io/library/web:2")
    assert found.repo_digests == ()


async def test_a_request_taken_up_again_finds_the_registrys_name_and_drops_it() -> None:
    """An agent that died between the pull and the name leaves the registry's name; the next run clears it."""
    scene = Scene()
    image = scene.build(BASE)
    request = await scene.pull_request(image)
    await _pulled(scene, request.source)
    async with scene.listening():
        await scene.say(request)
        ready = await scene.answer()
    assert isinstance(ready, ImageReady)
    assert ready.how == "retagged"
    found = await scene.engine.inspect(REFERENCE)
    assert found is not None
    assert found.repo_digests == ()
    assert f"{REGISTRY}/library/web" in (request.source or "")


async def test_a_late_copy_of_a_request_takes_no_newer_content_away() -> None:
    """A transfer that ended well is not done again: its name may stand for what came since."""
    scene = Scene()
    older = scene.build(BASE, TOOLS)
    request = await scene.pull_request(older)
    async with scene.listening():
        await scene.say(request)
        assert isinstance(await scene.answer(), ImageReady)
        newer = scene.build(BASE, APP)
        await scene.say(await scene.pull_request(newer, "t2"))
        assert isinstance(await scene.answer("t2"), ImageReady)
        await scene.say(request)

        async def all_handled() -> bool:
            groups = await scene.bus.groups([scene.streams.inbox(RANGE)])
            return not any(group.pending or group.lag for group in groups)

        await until(all_handled)
    there = await scene.engine.inspect(REFERENCE)
    assert there is not None
    assert there.diff_ids == newer.diff_ids
