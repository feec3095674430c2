"""Conformance of the `Engine` port, on real engines and on the fake: images, names, builds, commits, pulls."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from services.core.builds.options import BuildOptions
from services.core.images.manifests import sha256
from services.errors import BadArchive, BadInput, BadReference, BuildFailed, EngineUnavailable, NotFound
from tests.contract.engine_subject import Subject, build_image, chunks, import_image, load, saved, statuses
from tests.images import tar_of


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
        chunks(tar_of(context)), reference=f"docker.io/test/{unique}:1", options=BuildOptions(labels={"made": "here"})
    ) as log:
        lines = [line async for line in log]
    assert any("COPY word /word" in line for line in lines)
    assert not any("\n" in line for line in lines)
    image = await subject.engine.inspect(f"docker.io/test/{unique}:1")
    assert image is not None
    assert image.diff_ids[: len(base.diff_ids)] == base.diff_ids
    assert len(image.diff_ids) == len(base.diff_ids) + 1


@pytest.mark.parametrize(
    ("step", "need"),
    [
        ("RUN <<END\ntouch /x\nEND", "line 2: RUN <<END"),
        ("RUN --mount=type=cache,target=/c touch /c/x", "line 2: RUN --mount"),
        ("COPY --link a /b", "line 2: COPY --link"),
    ],
)
async def test_the_classic_builder_refuses_by_name_what_it_cannot_do(
    subject: Subject, unique: str, step: str, need: str
) -> None:
    """Instead of ending well with another image; nothing has the name afterwards."""
    context = {"Dockerfile": f"FROM scratch\n{step}\n".encode(), "a": b"a"}
    options = BuildOptions(builder="classic")
    name = f"docker.io/test/{unique}:1"
    with pytest.raises(BuildFailed, match=re.escape(need)) as raised:
        async with subject.engine.build(chunks(tar_of(context)), reference=name, options=options) as log:
            assert [line async for line in log]
    assert raised.value.code == "needs_buildkit"
    assert await subject.engine.inspect(name) is None


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


async def test_an_image_that_a_container_uses_keeps_its_last_name(subject: Subject, unique: str) -> None:
    """Another name of it may go; the last one is refused as a request that is wrong, and stays."""
    name, other = f"docker.io/test/{unique}:1", f"docker.io/test/{unique}:2"
    image = await import_image(subject.engine, name, tar_of({"used": unique.encode()}))
    await subject.engine.tag(name, other)
    subject.container(f"{unique}-user", f"test/{unique}:1", {"a": b"a"})
    await subject.engine.untag(other)
    with pytest.raises(BadInput, match="is using its referenced image"):
        await subject.engine.untag(name)
    there = await subject.engine.inspect(name)
    assert there is not None
    assert there.local_id == image.local_id


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
