"""Images of hard layers on the whole path: from a host's engine, through registry or tar, into a range's."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from events.messages import ImageReady, PullRequested, PushMethod, TarRequested
from services.adapters.layer_sources import Folders
from services.core.images.image import EngineImage
from services.core.images.manifests import sha256
from tests.images import config_of, tar_of
from tests.integration.agent.conftest import open_site
from tests.integration.agent.site import Site
from tests.integration.hard_layers import INPUTS, NOTE, hundred_and_twenty, marked
from tests.integration.test_layer_sources import digest_of, files_of, load
from tests.laboratory import EngineServer, RedisServer, RegistryServer

pytestmark = pytest.mark.real

WAYS: dict[str, tuple[str, str, PushMethod]] = {
    "20.10": ("host", "range", "layers"),
    "to-containerd": ("host", "28.5-containerd", "layers"),
    "from-containerd": ("28.5-containerd", "range", "blobs"),
}
"""Host, range, and how a host of that kind is read."""
DIFFS = ("overlay2/*/diff", "containerd/daemon/io.containerd.snapshotter.v1.overlayfs/snapshots/*/fs")
"""Where engines of either store have the files of each layer."""


@dataclass(frozen=True)
class Way:
    """A site whose engines can be looked into, and the layer method that its host has."""

    site: Site
    host: EngineServer
    range: EngineServer
    method: PushMethod

    async def by_pull(self, name: str, transfer_id: str = "t1") -> ImageReady:
        """Pushed from the layer store and pulled; the agent runs already."""
        pushed = await self.site.push(name)
        # A push that sent no layer counts as the best way; a config is some hundred bytes.
        assert pushed.method == (self.method if pushed.sent_bytes > 5000 else "layers")
        return await self._ended(self.site.pull_request(pushed, transfer_id))

    async def by_tar(self, image: EngineImage, name: str, transfer_id: str = "t1") -> ImageReady:
        """Never pushed, so that every byte comes from the host's engine; agent and tar server run already."""
        config = await Folders(self.host.root).config(image)  # a containerd store does not tell its digest
        request = self.site.tar_request(replace(image, image_id=sha256(config)), name, transfer_id)
        return await self._ended(request)

    async def _ended(self, request: PullRequested) -> ImageReady:
        """Said, and answered with a tar if the agent asks for one: always where only a config is missing."""
        await self.site.say(request)
        answer = await self.site.answer(request.transfer_id)
        if isinstance(answer, TarRequested):
            await self.site.say(await self.site.offer(request, answer))
            return await self.site.ready(request.transfer_id, skip=1)
        assert isinstance(answer, ImageReady), answer
        return answer

    async def assert_arrived(self, name: str, image: EngineImage) -> EngineImage:
        """The same layers, each byte for byte as the range has it, and the same files with all that is told of them."""
        arrived = await self.site.engine.inspect(name)
        assert arrived is not None
        assert arrived.diff_ids == image.diff_ids
        assert arrived.references == (name,)
        folders = Folders(self.range.root)
        for diff_id in set(image.diff_ids):
            assert (await digest_of(folders, arrived, diff_id))[0] == diff_id
        if image.diff_ids:  # no engine makes a container of nothing
            assert files_of(self.range, name) == files_of(self.host, name)
        return arrived


def notes(server: EngineServer, word: str) -> list[str]:
    """The user's own attribute of the marks of an image, of every layer that has one: `docker export` leaves it out."""
    marks = [mark for diffs in DIFFS for mark in server.root.glob(f"{diffs}/t-{word}")]
    return [os.getxattr(mark, "user.note").decode() for mark in marks]


@pytest.fixture
async def servers(
    host_engine_server: EngineServer,
    range_engine_servers: tuple[EngineServer, EngineServer],
    engine_servers: Callable[[str], EngineServer],
) -> Callable[[str], EngineServer]:
    """The engines by the names that `WAYS` has."""
    own = {"host": host_engine_server, "range": range_engine_servers[0]}
    return lambda kind: own.get(kind) or engine_servers(kind)


@pytest.fixture(params=list(WAYS))
async def way(  # noqa: PLR0917  pytest hands fixtures over by name
    request: pytest.FixtureRequest,
    servers: Callable[[str], EngineServer],
    redis_server: RedisServer,
    registry_server: RegistryServer,
    base_image_tar: Path,
    key_prefix: str,
    tmp_path: Path,
) -> AsyncIterator[Way]:
    """Each of `WAYS` in turn, with agent and tar server at work."""
    host, ranged, method = WAYS[request.param]
    async with AsyncExitStack() as stack:
        site = await stack.enter_async_context(
            open_site(
                redis=redis_server,
                registry=registry_server,
                host=servers(host),
                range_engine=servers(ranged),
                prefix=key_prefix,
                base=base_image_tar,
                spool=tmp_path / "spool",
            )
        )
        await stack.enter_async_context(site.agent())
        await stack.enter_async_context(site.tar_server())
        yield Way(site, servers(host), servers(ranged), method)


def hard(word: str) -> list[bytes]:
    """All hard inputs but the hundred and twenty layers, one above the other."""
    return marked([layer for name, made in INPUTS.items() if name != "hundred_and_twenty" for layer in made()], word)


@pytest.mark.parametrize(
    ("way", "path"),
    [
        ("20.10", "pull"),
        ("20.10", "tar"),
        ("to-containerd", "pull"),
        ("to-containerd", "save"),
        ("from-containerd", "pull"),
    ],
    indirect=["way"],
)
async def test_hard_layers_come_all_the_way(way: Way, unique: str, path: str) -> None:
    """Every hard input in one image: the range has each layer byte for byte, each file and each attribute."""
    name = f"docker.io/{unique}/hard:1"
    layers = hard(unique)
    image = await load(way.site.host, name, layers)
    if path == "pull":
        ready = await way.by_pull(name)
    else:
        way.site.host_root = way.site.host_root if path == "tar" else None
        ready = await way.by_tar(image, name)
    assert ready.how == ("pulled" if path == "pull" else "loaded")
    assert ready.received_bytes >= sum(map(len, set(layers))) - 20_000  # of all there is only layers of nothing before
    await way.assert_arrived(name, image)
    assert notes(way.range, unique) == [NOTE] * sum(layer.strip(b"\0") != b"" for layer in layers)


@pytest.mark.parametrize("way", ["to-containerd"], indirect=["way"])
async def test_a_hundred_and_twenty_layers_come(way: Way, unique: str) -> None:
    """As many as an overlay takes, nearly: out of one kind of store into the other."""
    name = f"docker.io/{unique}/many:1"
    image = await load(way.site.host, name, marked(hundred_and_twenty(), unique))
    await way.by_pull(name)
    assert len((await way.assert_arrived(name, image)).diff_ids) == 120


@pytest.mark.parametrize("path", ["pull", "tar"])
async def test_an_image_without_layers_comes(way: Way, unique: str, path: str) -> None:
    """Only a config, which is all that tells it from another one."""
    name, config = f"docker.io/{unique}/none:1", config_of([], author=unique)
    image = await load(way.site.host, name, [], config)
    ready = await (way.by_pull(name) if path == "pull" else way.by_tar(image, name))
    arrived = await way.assert_arrived(name, image)
    assert (ready.layers_total, sha256(await Folders(way.range.root).config(arrived))) == (0, sha256(config))


@pytest.mark.parametrize("path", ["pull", "tar"])
async def test_names_of_one_config_and_configs_of_one_layer_come(way: Way, unique: str, path: str) -> None:
    """Two names of one image and a third with another config of the same layer: each arrives as what it is."""
    layers = marked([tar_of({"t": unique.encode()})], unique)
    names = [f"docker.io/{unique}/{word}:1" for word in ("one", "same", "other")]
    first = await load(way.site.host, names[0], layers)
    await way.site.host.tag(names[0], names[1])
    other = await load(way.site.host, names[2], layers, config_of([sha256(layers[0])], author=unique))
    images = [first, first, other]
    configs = []
    for number, (name, image) in enumerate(zip(names, images, strict=True)):
        await (way.by_pull(name, f"t{number}") if path == "pull" else way.by_tar(image, name, f"t{number}"))
    for name, image in zip(names, images, strict=True):
        arrived = await way.site.engine.inspect(name)
        assert arrived is not None
        assert arrived.diff_ids == image.diff_ids
        configs.append(sha256(await Folders(way.range.root).config(arrived)))
    assert configs == [sha256(await Folders(way.host.root).config(image)) for image in images]
