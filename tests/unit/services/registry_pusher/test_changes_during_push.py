"""What changes, breaks or gets lost while an image is pushed."""

from __future__ import annotations

import pytest

from services.adapters.memory_registry import MemoryRegistry
from services.core.images.image import EngineImage
from services.core.images.manifests import (
    Descriptor,
    Manifest,
)
from services.errors import BlobDamaged, NotFound, RegistryUnavailable, TransferFailed
from services.registry_pusher.image_push import ImagePush
from services.registry_pusher.layer_push import LayerPush
from services.registry_pusher.progress import ProgressCounters
from tests.unit.services.layer_twins import TwinSource, layer
from tests.unit.services.registry_pusher.site import NAME, Setup


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

    def rebuild(counters: ProgressCounters) -> None:
        if not rebuilt:
            rebuilt.append(setup.engine.add_image(NAME, [layer("a"), layer("new")]))

    pushed = await setup.push.push(NAME, changed=rebuild)
    assert pushed.image_id == rebuilt[0].image_id


async def test_a_registry_that_goes_away_leaves_nothing_visible(setup: Setup) -> None:
    """The error is the registry's, and after it is back the next push completes what is missing."""
    setup.engine.add_image(NAME, [layer("a"), layer("b", 100_000)])

    def stop(counters: ProgressCounters) -> None:
        setup.registry.away = counters.done_bytes > 50_000

    with pytest.raises(RegistryUnavailable):
        await setup.push.push(NAME, changed=stop)
    setup.registry.away = False
    assert await setup.registry.manifest("team/app", "1") is None
    assert (await setup.push.push(NAME)).method == "layers"


async def test_a_layer_that_was_cut_is_not_relied_on(setup: Setup) -> None:
    """Neither by the image that has it nor by another one; once it is set aside the push sends it."""
    image = setup.engine.add_image(NAME, [layer("base"), layer("top")])
    await setup.push.push(NAME)
    setup.registry.cut(image.diff_ids[0])
    other = "docker.io/team/other:1"
    setup.engine.add_image(other, [layer("base"), layer("other")])
    for name in (NAME, other):
        with pytest.raises(BlobDamaged):
            await setup.push.push(name)
    assert await setup.registry.manifest("team/other", "1") is None
    setup.registry.lose(image.diff_ids[0])
    for name in (NAME, other):
        assert (await setup.push.push(name)).layers[0].size_bytes == 3000
    assert await setup.registry.blob_size("team/app", image.diff_ids[0]) == 3000


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


class _Swallowing(MemoryRegistry):
    """Says that it took a manifest, and keeps it only from try `kept_from` on."""

    def __init__(self, kept_from: int) -> None:
        super().__init__("registry:5000")
        self.tries = 0
        self.kept_from = kept_from

    async def put_manifest(self, repository: str, reference: str, manifest: Manifest) -> Descriptor:
        self.tries += 1
        if self.tries < self.kept_from:
            return manifest.descriptor
        return await super().put_manifest(repository, reference, manifest)


@pytest.mark.parametrize("kept_from", [2, 3, 4])
async def test_a_manifest_is_read_back_before_it_is_pushed(kept_from: int) -> None:
    """A proxy that answers 201 and drops it: tried again, and then an error, never an image that is not there."""
    setup = Setup()
    setup.engine.add_image(NAME, [layer("a")])
    setup.registry = registry = _Swallowing(kept_from)
    push = ImagePush(
        engine=setup.engine,
        registry=registry,
        sources=[setup.source],
        layers=LayerPush(registry=registry, sources=[setup.source], encodings=setup.encodings),
        engine_registry="registry:5000",
        manifest_pauses=(0, 0),
    )
    if kept_from < 4:
        pushed = await push.push(NAME)
        assert await registry.manifest("team/app", pushed.manifest_digest) is not None
        return
    with pytest.raises(TransferFailed) as raised:
        await push.push(NAME)
    assert raised.value.code == "manifest_lost"
    assert registry.tries == 3
