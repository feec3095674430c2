"""What every `Engine` does: the same suite runs on a real engine and on its twin in memory."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from services.adapters.engine import DockerEngine
from services.adapters.memory_engine import MemoryEngine
from services.adapters.save_stream import SaveStream
from services.core.images import EngineImage
from services.core.manifests import sha256
from services.core.offers import Layout
from services.errors import BadArchive, BadReference, BuildFailed, EngineUnavailable, LayerUnreadable, NotFound
from services.ports import Chunks, Engine, EngineProgress
from tests.conftest import ENGINE_KINDS
from tests.images import LAYOUTS, archive_of, config_of, tar_of


@dataclass(frozen=True, slots=True)
class Subject:
    """An engine under test, and how to do what the port cannot: make a container, look at one that is away."""

    engine: Engine
    url: str | None

    def container(self, name: str, reference: str, files: Mapping[str, bytes]) -> None:
        """A container of that image, not running, with files changed in it."""
        if isinstance(self.engine, MemoryEngine):
            self.engine.add_container(name, reference, files)
            return
        assert self.url is not None
        docker = ["docker", "-H", self.url]
        subprocess.run([*docker, "create", "--name", name, reference, "true"], check=True, capture_output=True)
        subprocess.run([*docker, "cp", "-", f"{name}:/"], input=tar_of(files), check=True, capture_output=True)

    async def away(self, stack: AsyncExitStack) -> Engine:
        """The same kind of engine, but none answers."""
        if self.url is None:
            engine = MemoryEngine()
            engine.away = True
            return engine
        return await stack.enter_async_context(DockerEngine.open("unix:///nonexistent/docker.sock"))


@pytest.fixture(params=["memory", "memory-containerd", *ENGINE_KINDS])
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    """Each engine there is."""
    if request.param in ENGINE_KINDS:
        url = request.getfixturevalue("engine_servers")(request.param).url
        async with DockerEngine.open(url) as engine:
            yield Subject(engine, url)
    else:
        yield Subject(MemoryEngine(store="classic" if request.param == "memory" else "containerd"), None)


async def chunks(content: bytes, size: int = 1 << 16) -> AsyncIterator[bytes]:
    """Content as it would stream."""
    for start in range(0, len(content), size):
        yield content[start : start + size]


async def statuses(progress: AsyncIterator[EngineProgress]) -> list[str]:
    """What the engine said while it worked."""
    return [line.status async for line in progress]


async def import_image(engine: Engine, name: str, layer: bytes) -> EngineImage:
    """A one-layer image, as `docker import` makes it."""
    async with engine.import_root(chunks(layer), reference=name) as progress:
        await statuses(progress)
    image = await engine.inspect(name)
    assert image is not None
    return image


async def build_image(engine: Engine, name: str, context: Mapping[str, bytes]) -> EngineImage:
    """An image from a Dockerfile."""
    async with engine.build(chunks(tar_of(context)), reference=name) as log:
        assert [line async for line in log]
    image = await engine.inspect(name)
    assert image is not None
    return image


async def saved(engine: Engine, names: Iterable[str]) -> bytes:
    """A whole `docker save`."""
    async with engine.save(list(names)) as archive:
        return b"".join([chunk async for chunk in archive])


async def load(engine: Engine, archive: bytes | Chunks) -> list[str]:
    """A whole `docker load`."""
    async with engine.load(chunks(archive) if isinstance(archive, bytes) else archive) as progress:
        return await statuses(progress)


async def test_info_says_what_the_engine_is(subject: Subject) -> None:
    """An engine that answers tells its version, store, platform and folder."""
    await subject.engine.ping()
    info = await subject.engine.info()
    assert info.store in {"classic", "containerd"}
    assert int(info.version.split(".")[0]) >= 20
    assert info.platform == "linux/amd64"
    assert Path(info.root).is_absolute()
    assert info.engine_id


async def test_an_imported_root_is_a_layer_byte_for_byte(subject: Subject, unique: str) -> None:
    """The tar given to import is the layer: its sha256 is the one diff ID."""
    layer = tar_of({"etc/word": unique.encode()})
    image = await import_image(subject.engine, f"docker.io/test/{unique}:1", layer)
    assert image.diff_ids == (sha256(layer),)
    assert image.references == (f"docker.io/test/{unique}:1",)
    assert image in await subject.engine.images()
    assert await subject.engine.inspect(image.local_id) == image


async def test_what_is_no_tar_is_not_imported(subject: Subject, unique: str) -> None:
    """Bytes that are no tar are refused as a bad archive and leave no name."""
    with pytest.raises(BadArchive):
        await import_image(subject.engine, f"docker.io/test/{unique}:1", b"this is no tar " * 4096)
    assert await subject.engine.inspect(f"docker.io/test/{unique}:1") is None


async def test_an_unknown_image_is_none(subject: Subject, unique: str) -> None:
    """Looking for an image that is not there is no error."""
    assert await subject.engine.inspect(f"docker.io/test/{unique}:1") is None
    assert await subject.engine.inspect(f"127.0.0.1:5000/test/{unique}@sha256:{'0' * 64}") is None


@pytest.mark.parametrize("name", ["../containers/json", "UPPER case", "", "name?force=1", "a//b"])
async def test_a_name_that_is_none_never_reaches_the_engine(subject: Subject, name: str) -> None:
    """A name that could be another path or query of the API is refused."""
    with pytest.raises(BadReference):
        await subject.engine.tag("docker.io/library/x:1", name)
    with pytest.raises(BadReference):
        await subject.engine.untag(name)


async def test_an_image_goes_with_its_last_name(subject: Subject, unique: str) -> None:
    """Untagging takes one name; the image stays while it has another."""
    first, second = f"docker.io/test/{unique}:1", f"host.example:5000/{unique}:2"
    image = await import_image(subject.engine, first, tar_of({"word": unique.encode()}))
    await subject.engine.tag(first, second)
    tagged = await subject.engine.inspect(second)
    assert tagged is not None
    assert tagged.local_id == image.local_id
    assert set(tagged.references) == {first, second}
    await subject.engine.untag(first)
    assert await subject.engine.inspect(first) is None
    await subject.engine.untag(second)
    assert await subject.engine.inspect(image.local_id) is None
    await subject.engine.untag(second)


async def test_an_image_without_a_name_goes_by_its_local_id(subject: Subject, unique: str) -> None:
    """It lost its name to another one; that one is untouched."""
    name = f"docker.io/{unique}/moved:1"
    first = await import_image(subject.engine, name, tar_of({"first": os.urandom(100)}))
    second = await import_image(subject.engine, name, tar_of({"second": os.urandom(100)}))
    left = await subject.engine.inspect(first.local_id)
    if left is not None:  # a containerd store may have let it go with its name
        assert left.references == ()
        await subject.engine.untag(first.local_id)
    assert await subject.engine.inspect(first.local_id) is None
    assert await subject.engine.inspect(name) == second


async def test_a_name_that_a_load_took_over_can_be_given_back(subject: Subject, unique: str) -> None:
    """The image that had it is there by its local id."""
    name = f"docker.io/{unique}/taken:1"
    theirs = await import_image(subject.engine, name, tar_of({"theirs": os.urandom(100)}))
    archive = await saved(subject.engine, [name])
    await subject.engine.untag(name)
    mine = await import_image(subject.engine, name, tar_of({"mine": os.urandom(100)}))
    await load(subject.engine, archive)
    taken = await subject.engine.inspect(name)
    assert taken is not None
    assert taken.diff_ids == theirs.diff_ids
    await subject.engine.tag(mine.local_id, name)
    assert await subject.engine.inspect(name) == mine


async def test_tagging_what_is_not_there_is_not_found(subject: Subject, unique: str) -> None:
    """A tag needs its image."""
    with pytest.raises(NotFound):
        await subject.engine.tag(f"docker.io/test/{unique}:1", f"docker.io/test/{unique}:2")


async def test_a_build_adds_layers_to_its_base(subject: Subject, unique: str) -> None:
    """The built image has its base's layers first."""
    base = await import_image(subject.engine, f"docker.io/test/{unique}:base", tar_of({"base": unique.encode()}))
    context = {"Dockerfile": f"FROM test/{unique}:base\nCOPY word /word\n".encode(), "word": b"new"}
    async with subject.engine.build(
        chunks(tar_of(context)), reference=f"docker.io/test/{unique}:1", labels={"made": "here"}
    ) as log:
        lines = [line async for line in log]
    assert any(line.startswith("Step 1/") for line in lines)
    assert not any("\n" in line for line in lines)
    image = await subject.engine.inspect(f"docker.io/test/{unique}:1")
    assert image is not None
    assert image.diff_ids[: len(base.diff_ids)] == base.diff_ids
    assert len(image.diff_ids) == len(base.diff_ids) + 1


@pytest.mark.parametrize(
    "context",
    [
        {"other": b""},
        {"Dockerfile": b"FROM scratch\nCOPY missing /missing\n"},
        {"Dockerfile": b"FROM scratch\nNONSENSE 1\n"},
    ],
    ids=["no Dockerfile", "missing file", "bad instruction"],
)
async def test_a_build_that_fails_says_why_and_leaves_no_name(
    subject: Subject, unique: str, context: Mapping[str, bytes]
) -> None:
    """A build's error is a BuildFailed with the builder's words."""
    with pytest.raises(BuildFailed, match=r"(?i)dockerfile|missing|nonsense"):
        await build_image(subject.engine, f"docker.io/test/{unique}:1", context)
    assert await subject.engine.inspect(f"docker.io/test/{unique}:1") is None


async def test_a_saved_image_loads_as_the_same_image(subject: Subject, unique: str) -> None:
    """Save, remove, load: the same content under the same name."""
    name = f"docker.io/test/{unique}:1"
    context = {"Dockerfile": b"FROM scratch\nCOPY a /a\nCOPY b /b\n", "a": unique.encode(), "b": b"b" * 200_000}
    image = await build_image(subject.engine, name, context)
    archive = await saved(subject.engine, [name])
    await subject.engine.untag(name)
    assert await subject.engine.inspect(image.local_id) is None
    assert any(f"test/{unique}:1" in line for line in await load(subject.engine, archive))
    again = await subject.engine.inspect(name)
    assert again is not None
    assert (again.local_id, again.diff_ids) == (image.local_id, image.diff_ids)


async def test_saving_what_is_not_there_is_not_found(subject: Subject, unique: str) -> None:
    """No archive of nothing."""
    with pytest.raises(NotFound):
        await saved(subject.engine, [f"docker.io/test/{unique}:1"])


@pytest.mark.parametrize("keep", [0.3, 0.9])
async def test_an_archive_cut_off_is_a_bad_archive(subject: Subject, unique: str, keep: float) -> None:
    """Half an archive is refused, and nothing of it gets a name."""
    name = f"docker.io/test/{unique}:1"
    await build_image(subject.engine, name, {"Dockerfile": b"FROM scratch\nCOPY a /\n", "a": os.urandom(1_000_000)})
    archive = await saved(subject.engine, [name])
    await subject.engine.untag(name)
    with pytest.raises(BadArchive):
        await load(subject.engine, archive[: int(len(archive) * keep)])
    assert await subject.engine.inspect(name) is None


async def test_what_is_no_archive_is_a_bad_archive(subject: Subject) -> None:
    """Neither noise nor a tar of something else is an image."""
    with pytest.raises(BadArchive):
        await load(subject.engine, b"this is no tar " * 4096)
    with pytest.raises(BadArchive):
        await load(subject.engine, tar_of({"readme": b"not an image"}))


async def test_why_an_archive_broke_off_is_told(subject: Subject, unique: str) -> None:
    """An error of the archive's source comes out as it is, not as the engine's complaint about the stream's end."""

    async def broken() -> AsyncIterator[bytes]:
        yield tar_of({"a": b"a" * 100_000})[:50_000]
        raise LayerUnreadable(f"layer {unique} changed under the reader")

    with pytest.raises(LayerUnreadable, match=unique):
        async with subject.engine.load(broken()) as progress:
            await statuses(progress)


@pytest.mark.parametrize("held", [(), (1,), (0, 1)], ids=["config only", "top layer", "all"])
async def test_a_thin_archive_loads_where_the_rest_is_there(
    subject: Subject, unique: str, held: tuple[int, ...]
) -> None:
    """Layers that the engine has need not be in the archive, in the layout that its store takes."""
    layers = [tar_of({"base": unique.encode()}), tar_of({"top": unique.encode()})]
    layout = LAYOUTS[(await subject.engine.info()).store]
    there = f"docker.io/test/{unique}:there"
    await load(subject.engine, archive_of(there, layers if not held else layers[:1], layout=layout))
    config = config_of([sha256(layer) for layer in layers], author="another")
    name = f"docker.io/test/{unique}:1"
    await load(subject.engine, archive_of(name, layers, layout=layout, held=held, config=config))
    loaded = await subject.engine.inspect(name)
    assert loaded is not None
    assert loaded.diff_ids == tuple(sha256(layer) for layer in layers)
    assert loaded.image_id in {None, sha256(config)}
    assert sha256(await SaveStream(subject.engine).config(loaded)) == sha256(config)


@pytest.mark.parametrize("layout", ["docker", "oci"])
async def test_a_thin_archive_without_its_base_is_no_image(subject: Subject, unique: str, layout: Layout) -> None:
    """A layer that neither the archive nor the engine has: an error, or at least no image of that name."""
    layers = [tar_of({"base": unique.encode()}), tar_of({"top": unique.encode()})]
    name = f"docker.io/test/{unique}:1"
    with pytest.raises(BadArchive):
        await load(subject.engine, archive_of(name, layers, layout=layout, held=[1]))
    assert await subject.engine.inspect(name) is None


async def test_leaving_a_load_ends_the_engines_work(subject: Subject, unique: str) -> None:
    """A load that is cancelled in the middle leaves no image and does not hold the engine up."""
    name = f"docker.io/test/{unique}:1"
    await build_image(subject.engine, name, {"Dockerfile": b"FROM scratch\nCOPY a /\n", "a": unique.encode() * 50_000})
    archive = await saved(subject.engine, [name])
    await subject.engine.untag(name)
    reached = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield archive[: len(archive) // 2]
        reached.set()
        await asyncio.Event().wait()

    async def loading() -> None:
        async with subject.engine.load(slow()) as progress:
            await statuses(progress)

    task = asyncio.create_task(loading())
    await asyncio.wait_for(reached.wait(), 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await subject.engine.inspect(name) is None
    await load(subject.engine, archive)
    assert await subject.engine.inspect(name) is not None


async def test_a_commit_adds_a_layer_with_the_changes(subject: Subject, unique: str) -> None:
    """A committed container is its image with one layer more."""
    base = await import_image(subject.engine, f"docker.io/test/{unique}:base", tar_of({"base": unique.encode()}))
    subject.container(unique, f"test/{unique}:base", {"changed": b"in the container"})
    local_id = await subject.engine.commit(unique, reference=f"docker.io/test/{unique}:1", changes=["ENV A=b"])
    image = await subject.engine.inspect(f"docker.io/test/{unique}:1")
    assert image is not None
    assert image.local_id == local_id
    assert image.diff_ids[:1] == base.diff_ids
    assert len(image.diff_ids) == 2


async def test_committing_an_unknown_container_is_not_found(subject: Subject, unique: str) -> None:
    """No container, no image."""
    with pytest.raises(NotFound):
        await subject.engine.commit(unique, reference=f"docker.io/test/{unique}:1")


async def test_pulling_from_a_registry_that_is_away_is_no_success(subject: Subject, unique: str) -> None:
    """A pull that cannot begin raises something that may be tried again."""
    with pytest.raises(Exception, match=r"127\.0\.0\.1:9") as caught:
        async with subject.engine.pull(f"127.0.0.1:9/{unique}@sha256:{'0' * 64}") as progress:
            await statuses(progress)
    assert getattr(caught.value, "retryable", False)


async def test_an_engine_that_is_away_says_so(subject: Subject, unique: str) -> None:
    """Every kind of call on an engine that does not answer raises EngineUnavailable."""
    async with AsyncExitStack() as stack:
        engine = await subject.away(stack)
        for call in (engine.ping, engine.info, engine.images):
            with pytest.raises(EngineUnavailable):
                await call()
        with pytest.raises(EngineUnavailable):
            await load(engine, b"")
        with pytest.raises(EngineUnavailable):
            await saved(engine, [f"docker.io/test/{unique}:1"])
