"""Pushing one image, on twins: what is sent, what is not, and what becomes visible."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from events.memory import MemoryBus
from services import metrics
from services.adapters.memory_engine import MemoryEngine
from services.adapters.memory_registry import MemoryRegistry
from services.core.images import EngineImage
from services.core.manifests import (
    OCI_CONFIG,
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
    Descriptor,
    Manifest,
    sha256,
)
from services.core.references import Reference
from services.errors import LayerUnreadable, NotFound, Rebuilt, RegistryUnavailable, TransferFailed
from services.ports import EngineProgress, LayerSource
from services.pushing.image_push import ImagePush
from services.pushing.layer_forms import LayerForms
from services.pushing.layer_push import LayerPush
from services.pushing.tally import Tally
from tests.unit.services.layer_twins import TwinSource, TwinStream, layer
from tests.unit.services.twins import chunks

NAME = "docker.io/team/app:1"


class Setup:
    """A host engine, a registry and a push between them."""

    def __init__(self, *sources: LayerSource, store: str = "classic") -> None:
        self.registry = MemoryRegistry("registry:5000")
        self.engine = MemoryEngine(registries={"registry:5000": self.registry}, store="classic")
        if store == "containerd":
            self.engine = MemoryEngine(registries={"registry:5000": self.registry}, store="containerd")
        self.source = TwinSource(self.engine)
        self.bus = MemoryBus()
        self.forms = LayerForms(speaker=self.bus, prefix="t")
        self.use(self.source)

    def use(self, *sources: LayerSource) -> None:
        self.push = ImagePush(
            engine=self.engine,
            registry=self.registry,
            sources=sources,
            layers=LayerPush(registry=self.registry, sources=sources, forms=self.forms),
            engine_registry="registry:5000",
        )

    @property
    def sent(self) -> list[str]:
        return [digest for _, digest, _ in self.registry.uploaded]

    def image_id(self, name: str = NAME) -> str:
        return next(iter([self.engine.store.images[self.engine.store.find(name)].image_id]))


@pytest.fixture
def setup() -> Setup:
    return Setup()


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
    await setup.bus.commit(setup.forms.seen(image.diff_ids, "library/a"))
    await setup.bus.commit(setup.forms.seen(image.diff_ids, "library/gone"))
    setup.forms = LayerForms(speaker=setup.bus, prefix="t")
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


async def test_what_no_source_gives_the_engine_pushes_itself(setup: Setup) -> None:
    """The last way; the registry's name that it needs is gone from the engine afterwards."""
    image = setup.engine.add_image(NAME, [layer("a")])
    setup.source.broken = {image.diff_ids[0]: None}
    pushed = await setup.push.push(NAME)
    assert (pushed.method, pushed.image_id) == ("docker_push", image.image_id)
    found = await setup.engine.inspect(NAME)
    assert found is not None
    assert found.references == (NAME,)


async def test_a_name_that_a_killed_push_left_goes_with_the_next_one(setup: Setup) -> None:
    """A name under the registry's own address is the pusher's, whoever made it."""
    setup.engine.add_image(NAME, [layer("a")])
    await setup.engine.tag(NAME, "registry:5000/team/app:1")
    setup.use()
    assert (await setup.push.push(NAME)).method == "docker_push"
    found = await setup.engine.inspect(NAME)
    assert found is not None
    assert found.references == (NAME,)


async def test_what_the_engine_packed_is_found_by_the_next_image() -> None:
    """The engine's own push makes gzip: the layer keeps that form, and the next image mounts it."""
    setup = Setup()
    setup.engine = Packing(setup.registry)
    base = setup.engine.add_image("base:1", [layer("base")])
    setup.use()
    (packed,) = (await setup.push.push("base:1")).layers
    assert packed.codec == "gzip"
    setup.engine.add_image(NAME, [layer("base"), layer("own")])
    setup.use(TwinSource(setup.engine))
    pushed = await setup.push.push(NAME)
    assert pushed.layers[0] == packed
    assert base.diff_ids[0] not in setup.sent


class Packing(MemoryEngine):
    """Pushes as a classic engine does: every layer as gzip."""

    def __init__(self, registry: MemoryRegistry) -> None:
        super().__init__(registries={registry.address: registry})
        self._to = registry

    @asynccontextmanager
    async def push(self, reference: str) -> AsyncIterator[AsyncIterator[EngineProgress]]:
        named, image = Reference.parse(reference), await self.inspect(reference)
        assert image is not None
        config = self.config(reference)
        blobs = [gzip.compress(self.store.layers[diff_id], mtime=0) for diff_id in image.diff_ids]
        for blob in (config, *blobs):
            await self._to.put_blob(named.path, sha256(blob), None, chunks(blob))
        described = Descriptor(media_type=OCI_CONFIG, digest=sha256(config), size=len(config))
        layers = (Descriptor(media_type=OCI_LAYER_GZIP, digest=sha256(blob), size=len(blob)) for blob in blobs)
        await self._to.put_manifest(named.path, named.tag or "", Manifest.write(described, tuple(layers)))
        yield _pushed()


async def _pushed() -> AsyncIterator[EngineProgress]:
    yield EngineProgress(status="Pushed")


async def test_a_lost_blob_is_sent_again(setup: Setup) -> None:
    """The tag's manifest names this image, but a blob under it is gone: asked to push, the push brings it back."""
    image = setup.engine.add_image(NAME, [layer("base"), layer("top")])
    await setup.push.push(NAME)
    setup.registry.lose(image.diff_ids[1])
    again = await setup.push.push(NAME)
    assert (again.method, again.reused_bytes) == ("layers", 3000)
    assert await setup.registry.blob_size("team/app", image.diff_ids[1]) == 3000
    setup.registry.lose(again.image_id)
    await setup.push.push(NAME)
    assert await setup.registry.blob_size("team/app", again.image_id) is not None


async def test_a_source_that_does_not_tell_the_config_is_counted(setup: Setup) -> None:
    """Each step down has a number that says why: the config's source, and in the end the engine's own push."""
    setup.engine.add_image(NAME, [layer("a")])

    class Mute(TwinSource):
        async def config(self, image: EngineImage) -> bytes:
            raise LayerUnreadable("it is not mounted")

    def counted(source: str) -> float:
        labels = {"source": source, "reason": "layer_unreadable"}
        return metrics.REGISTRY.get_sample_value("cyroid_layer_source_fallbacks_total", labels) or 0

    before = counted("mute"), counted("all")
    setup.use(Mute(setup.engine, "mute"))
    assert (await setup.push.push(NAME)).method == "docker_push"
    assert (counted("mute"), counted("all")) == (before[0] + 1, before[1] + 1)


async def test_without_sources_the_engine_pushes_itself(setup: Setup) -> None:
    """A host that offers nothing but its API still gets its images in."""
    image = setup.engine.add_image(NAME, [layer("a")])
    setup.use()
    pushed = await setup.push.push(NAME)
    assert (pushed.method, pushed.image_id) == ("docker_push", image.image_id)


async def test_a_containerd_store_image_is_known_by_its_config() -> None:
    """Its engine names images by manifest; the push goes by the config digest that the source's config has."""
    setup = Setup(store="containerd")
    image = setup.engine.add_image(NAME, [layer("a")])
    assert image.image_id is None
    pushed = await setup.push.push(NAME)
    assert pushed.image_id == setup.image_id()
    assert (await setup.push.push(NAME)).method == "present"


async def test_an_image_deleted_under_the_push_is_not_found(setup: Setup) -> None:
    """Deleted while its layers are read: said so, nothing is visible."""
    image = setup.engine.add_image(NAME, [layer("a"), layer("b", 200_000)])

    class Deleting(TwinSource):
        async def size(self, image: EngineImage, diff_id: str) -> int | None:
            size = await super().size(image, diff_id)
            self.broken[diff_id] = None
            if NAME in setup.engine.store.names:
                await setup.engine.untag(NAME)
            return size

    setup.use(Deleting(setup.engine))
    with pytest.raises(NotFound, match="team/app:1"):
        await setup.push.push(NAME)
    assert image.diff_ids[0] not in setup.sent
    assert await setup.registry.manifest("team/app", "1") is None


async def test_an_image_rebuilt_under_the_push_arrives_as_it_is_now(setup: Setup) -> None:
    """The old content is never tagged: the push starts over with what the name means now."""
    setup.engine.add_image(NAME, [layer("a"), layer("old")])
    rebuilt: list[EngineImage] = []

    def rebuild(tally: Tally) -> None:
        if not rebuilt:
            rebuilt.append(setup.engine.add_image(NAME, [layer("a"), layer("new")]))

    pushed = await setup.push.push(NAME, changed=rebuild)
    assert pushed.image_id == rebuilt[0].image_id


async def test_a_registry_that_goes_away_leaves_nothing_visible(setup: Setup) -> None:
    """The error is the registry's, and after it is back the next push completes what is missing."""
    setup.engine.add_image(NAME, [layer("a"), layer("b", 100_000)])

    def stop(tally: Tally) -> None:
        setup.registry.away = tally.done_bytes > 50_000

    with pytest.raises(RegistryUnavailable):
        await setup.push.push(NAME, changed=stop)
    setup.registry.away = False
    assert await setup.registry.manifest("team/app", "1") is None
    assert (await setup.push.push(NAME)).method == "layers"


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

    def remember(tally: Tally) -> None:
        seen.append((tally.done_bytes, tally.total_bytes, tally.layers_done, tally.layers_total))

    await setup.push.push(NAME, changed=remember)
    assert [done for done, *_ in seen] == sorted(done for done, *_ in seen)
    assert {total for done, total, *_ in seen if done} == {50_000}
    assert seen[-1] == (50_000, 50_000, 2, 2)


async def test_a_failed_attempt_is_taken_off_the_progress(setup: Setup) -> None:
    """What a broken source gave does not count twice."""
    image = setup.engine.add_image(NAME, [layer("a", 20_000)])
    setup.source.broken = {image.diff_ids[0]: b"x" * 20_000}
    setup.use(setup.source, TwinStream(setup.engine))
    tallies: list[Tally] = []
    await setup.push.push(NAME, changed=tallies.append)
    assert (tallies[-1].done_bytes, tallies[-1].total_bytes) == (20_000, 20_000)


async def test_a_layer_nobody_gives_and_an_engine_that_fails_is_an_error(setup: Setup) -> None:
    """No source, and the engine's own push fails: the engine's error comes out and its temporary name is gone."""
    setup.engine.add_image(NAME, [layer("a")])
    setup.use()
    setup.registry.away = True
    with pytest.raises((TransferFailed, RegistryUnavailable, LayerUnreadable)):
        await setup.push.push(NAME)
    found = await setup.engine.inspect(NAME)
    assert found is not None
    assert found.references == (NAME,)
