"""Push of an image, layer by layer: what is sent, what is there already, progress."""

from __future__ import annotations

import asyncio

import pytest

from services.core.images.manifests import (
    OCI_LAYER,
    OCI_MANIFEST,
)
from services.errors import NotFound, Rebuilt
from services.registry_pusher.layer_encodings import LayerEncodings
from services.registry_pusher.progress import ProgressCounters
from tests.unit.services.layer_twins import TwinStream, layer
from tests.unit.services.registry_pusher.site import NAME, Setup


async def test_an_image_arrives_whole(setup: Setup) -> None:
    """Layers raw under their diff IDs, base first, the config digest is the image id, the tag names the manifest."""
    image = setup.engine.add_image(NAME, [layer("base"), layer("top")])
    pushed = await setup.push.push("team/app:1")
    assert (pushed.method, pushed.repository, pushed.tag) == ("layers", "team/app", "1")
    assert pushed.reference == NAME
    assert pushed.image_id == image.image_id
    assert [one.digest for one in pushed.layers] == [one.diff_id for one in pushed.layers] == list(image.diff_ids)
    found = await setup.registry.manifest("team/app", "1")
    assert found is not None
    assert found[0].digest == pushed.manifest_digest
    assert found[0].media_type == OCI_MANIFEST
    assert {one.media_type for one in found[1].body.layers} == {OCI_LAYER}
    assert found[1].body.config.digest == image.image_id
    assert pushed.sent_bytes == 6000 + found[1].body.config.size


async def test_the_same_again_sends_nothing(setup: Setup) -> None:
    """The tag's manifest names this config already: nothing is read, nothing is sent."""
    setup.engine.add_image(NAME, [layer("base"), layer("top")])
    first = await setup.push.push(NAME)
    sent, opened = len(setup.sent), len(setup.source.opened)
    again = await setup.push.push(NAME)
    assert (again.method, again.sent_bytes, again.reused_bytes) == ("present", 0, 6000)
    assert (again.manifest_digest, again.layers) == (first.manifest_digest, first.layers)
    assert (len(setup.sent), len(setup.source.opened)) == (sent, opened)


async def test_a_rebuilt_tag_is_pushed_again_with_what_is_new(setup: Setup) -> None:
    """The tag moves to the new content; only the new layer and the new config are sent."""
    setup.engine.add_image(NAME, [layer("base"), layer("old")])
    old = await setup.push.push(NAME)
    image = setup.engine.add_image(NAME, [layer("base"), layer("new")])
    before = len(setup.sent)
    new = await setup.push.push(NAME)
    assert new.image_id == image.image_id != old.image_id
    assert sorted(setup.sent[before:]) == sorted([image.diff_ids[1], new.image_id])
    assert new.reused_bytes == 3000
    found = await setup.registry.manifest("team/app", "1")
    assert found is not None
    assert found[1].body.config.digest == new.image_id


async def test_a_base_another_repository_has_is_mounted(setup: Setup) -> None:
    """A layer that was pushed with another image is not sent a second time."""
    first = setup.engine.add_image("a:1", [layer("base")])
    await setup.push.push("a:1")
    second = setup.engine.add_image("b:1", [layer("base"), layer("own")])
    pushed = await setup.push.push("b:1")
    assert setup.sent.count(first.diff_ids[0]) == 1
    assert pushed.reused_bytes == 3000
    assert await setup.registry.blob_size("library/b", second.diff_ids[0]) == 3000


async def test_hints_are_remembered_across_processes_and_may_be_wrong(setup: Setup) -> None:
    """Another process mounts by the hint in Redis; a hint to a repository that is gone only costs a request."""
    image = setup.engine.add_image("a:1", [layer("base")])
    await setup.push.push("a:1")
    await setup.bus.commit(setup.encodings.seen(image.diff_ids, "library/a"))
    await setup.bus.commit(setup.encodings.seen(image.diff_ids, "library/gone"))
    setup.encodings = LayerEncodings(bus=setup.bus, prefix="t")
    setup.use(setup.source)
    setup.engine.add_image("b:1", [layer("base"), layer("own")])
    await setup.push.push("b:1")
    assert setup.sent.count(image.diff_ids[0]) == 1


async def test_the_same_layer_twice_is_sent_once(setup: Setup) -> None:
    """The manifest lists it twice, in its places; the bytes go once."""
    image = setup.engine.add_image(NAME, [layer("x"), layer("y"), layer("x")])
    pushed = await setup.push.push(NAME)
    assert [one.diff_id for one in pushed.layers] == list(image.diff_ids)
    assert setup.sent.count(image.diff_ids[0]) == 1


async def test_an_image_without_layers_is_pushed(setup: Setup) -> None:
    """Config and manifest are all there is."""
    setup.engine.add_image(NAME, [])
    pushed = await setup.push.push(NAME)
    assert pushed.layers == ()
    assert (await setup.push.push(NAME)).method == "present"


async def test_an_image_that_is_not_there_is_not_found(setup: Setup) -> None:
    """The error names the reference as the user knows it."""
    with pytest.raises(NotFound, match="team/app:1"):
        await setup.push.push(NAME)


async def test_another_content_than_asked_for_is_told(setup: Setup) -> None:
    """Who asks for one image id does not get another one's push."""
    setup.engine.add_image(NAME, [layer("x")])
    with pytest.raises(Rebuilt, match="rebuilt"):
        await setup.push.push(NAME, image_id="sha256:" + "0" * 64)
    assert setup.sent == []


async def test_a_layer_that_breaks_comes_from_the_next_source(setup: Setup) -> None:
    """Unreadable or wrong in one source: the next source gives that layer, and only that one."""
    image = setup.engine.add_image(NAME, [layer("a"), layer("b"), layer("c")])
    stream = TwinStream(setup.engine)
    setup.source.broken = {image.diff_ids[0]: None, image.diff_ids[1]: b"other bytes"}
    setup.use(setup.source, stream)
    pushed = await setup.push.push(NAME)
    assert pushed.method == "save"
    assert sorted(stream.opened) == sorted(image.diff_ids[:2])
    assert stream.passes == 1
    assert [one.digest for one in pushed.layers] == list(image.diff_ids)


async def test_two_images_at_once_send_a_shared_layer_once(setup: Setup) -> None:
    """The second waits for the first one's upload of that layer and mounts it."""
    shared = setup.engine.add_image("a:1", [layer("base", 50_000), layer("a")]).diff_ids[0]
    setup.engine.add_image("b:1", [layer("base", 50_000), layer("b")])
    await asyncio.gather(setup.push.push("a:1"), setup.push.push("b:1"))
    assert setup.sent.count(shared) == 1


async def test_progress_has_totals_and_reaches_them(setup: Setup) -> None:
    """Bytes and layers only grow, never past the total, and end at it."""
    setup.engine.add_image(NAME, [layer("a", 20_000), layer("b", 30_000)])
    seen: list[tuple[int, int, int, int]] = []

    def remember(counters: ProgressCounters) -> None:
        seen.append((counters.done_bytes, counters.total_bytes, counters.layers_done, counters.layers_total))

    await setup.push.push(NAME, changed=remember)
    assert [done for done, *_ in seen] == sorted(done for done, *_ in seen)
    assert {total for done, total, *_ in seen if done} == {50_000}
    assert seen[-1] == (50_000, 50_000, 2, 2)


async def test_a_failed_attempt_is_taken_off_the_progress(setup: Setup) -> None:
    """What a broken source gave does not count twice."""
    image = setup.engine.add_image(NAME, [layer("a", 20_000)])
    setup.source.broken = {image.diff_ids[0]: b"x" * 20_000}
    setup.use(setup.source, TwinStream(setup.engine))
    tallies: list[ProgressCounters] = []
    await setup.push.push(NAME, changed=tallies.append)
    assert (tallies[-1].done_bytes, tallies[-1].total_bytes) == (20_000, 20_000)
