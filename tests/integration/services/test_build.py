"""Building on a real engine."""

import json
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from events.messages import ImageBuilt
from services.adapters.build_context import open_context
from services.adapters.files import file_chunks
from services.core.builds.options import BuildOptions
from services.core.images.manifests import sha256
from services.errors import BadInput, BuildFailed, EngineUnavailable, RedisUnavailable
from services.resources import open_resources
from services.settings import Settings
from tests.images import tar_of
from tests.integration.services.conftest import Host
from tests.laboratory import EngineServer, Lab, RedisServer


async def _build(host: Host, context: Path, reference: str, lines: list[str] | None = None) -> ImageBuilt:
    opened = open_context(str(context))
    message = await (await host.resources.build()).build(
        opened.chunks(),
        reference=reference,
        origin=opened.origin,
        options=BuildOptions(dockerfile=opened.dockerfile, labels={"made": "by a test"}),
        push="never",
        on_line=(lines if lines is not None else []).append,
    )
    assert isinstance(message, ImageBuilt)
    return message


async def test_a_folder_becomes_an_image_and_an_event(host: Host, context: Path, unique: str) -> None:
    """The event has the engine's own image id; the log streams; .dockerignore kept the key out."""
    lines: list[str] = []
    message = await _build(host, context, f"built-{unique}", lines)
    assert message.image_id == host.image_id(f"built-{unique}")
    assert message.reference == f"docker.io/library/built-{unique}:latest"
    assert message.size_bytes > 1_000_000
    assert await host.said() == [message]
    assert any("COPY content" in line for line in lines)
    config = host.docker("inspect", "-f", "{{json .Config.Labels}}", message.reference)
    assert '"made":"by a test"' in config
    listing = host.docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", message.reference)
    assert "COPY" in listing


async def test_what_dockerignore_leaves_out_cannot_be_copied(host: Host, context: Path, unique: str) -> None:
    """The engine never gets it, so copying it fails the build; no event, no tag."""
    (context / "Dockerfile").write_text((context / "Dockerfile").read_text() + "COPY secret.key /\n")
    with pytest.raises(BuildFailed, match=r"secret\.key"):
        await _build(host, context, f"built-{unique}")
    assert await host.said() == []
    assert host.image_id(f"built-{unique}") == ""


async def test_a_rebuild_under_the_same_tag_is_another_image(host: Host, context: Path, unique: str) -> None:
    """Both events are told apart by their image ids."""
    first = await _build(host, context, f"built-{unique}")
    (context / "content").write_text("changed")
    second = await _build(host, context, f"built-{unique}")
    assert first.reference == second.reference
    assert first.image_id != second.image_id
    assert second.image_id == host.image_id(f"built-{unique}")


async def test_a_step_that_fails_is_told_in_the_engines_words(host: Host, context: Path, unique: str) -> None:
    """With the exit status of the command, and nothing is left under the name."""
    (context / "Dockerfile").write_text(f"FROM scratch\nCOPY nothing-{unique} /\n")
    with pytest.raises(BuildFailed, match=f"nothing-{unique}"):
        await _build(host, context, f"built-{unique}")
    assert host.image_id(f"built-{unique}") == ""


async def test_a_context_cut_off_in_the_middle_builds_nothing(host: Host, unique: str, tmp_path: Path) -> None:
    """A stream of which only half arrives."""
    cut = tmp_path / "cut.tar"
    cut.write_bytes(b"Dockerfile".ljust(100, b"\0") + b"0000644\0" + bytes(404))
    with pytest.raises(BuildFailed):
        await (await host.resources.build()).build(file_chunks(cut), reference=f"built-{unique}", origin="x")
    assert host.image_id(f"built-{unique}") == ""
    assert await host.said() == []


@pytest.mark.parametrize("version", [None, "28.5"], ids=["machine", "28.5"])
async def test_a_context_over_the_limit_builds_nothing(
    engine_servers: Callable[[str], EngineServer], redis_server: RedisServer, unique: str, version: str | None
) -> None:
    """In the middle of a stream that never ends: one error with the setting, no image, whatever builder it is."""
    settings = Settings(
        redis_url=redis_server.url,
        key_prefix=f"test-{unique}",
        host_engine_url=engine_servers(version or "machine").url,
        build_context_limit_bytes=3_000_000,
    )

    async def endless() -> AsyncIterator[bytes]:
        yield tar_of({"Dockerfile": b"FROM scratch\nCOPY f /f\n"}).rstrip(b"\0")
        while True:
            yield bytes(100_000)

    async with open_resources(settings) as resources:
        with pytest.raises(BadInput, match="more than 3000000 bytes"):
            await (await resources.build()).build(endless(), reference=f"endless-{unique}", origin="standard input")
        assert await (await resources.host_engine()).inspect(f"endless-{unique}") is None


async def test_an_engine_or_redis_that_is_away_is_said_before_anything_begins(
    host: Host, *, lab: Lab, context: Path, redis_server: RedisServer, host_engine_server: EngineServer, unique: str
) -> None:
    """Each with its own error; neither leaves an image."""
    gone = lab.folder / "no.sock"
    no_engine = Settings(redis_url=redis_server.url, key_prefix=unique, host_engine_url=f"unix://{gone}")
    no_redis = Settings(redis_url="redis://127.0.0.1:1/0", host_engine_url=host_engine_server.url)
    for settings, expected in ((no_engine, EngineUnavailable), (no_redis, RedisUnavailable)):
        async with open_resources(settings) as resources:
            with pytest.raises(expected):
                await _build(Host(resources, host.url), context, f"built-{unique}")
    assert host.image_id(f"built-{unique}") == ""


async def test_on_a_containerd_store_the_event_has_the_config_digest(
    engine_servers: Callable[[str], EngineServer],
    redis_server: RedisServer,
    *,
    key_prefix: str,
    base_image_tar: Path,
    tmp_path: Path,
) -> None:
    """There the engine's own id is the manifest's digest, which means nothing elsewhere."""
    server = engine_servers("28.5-containerd")
    settings = Settings(redis_url=redis_server.url, key_prefix=key_prefix, host_engine_url=server.url)
    async with open_resources(settings) as resources:
        host = Host(resources, server.url)
        host.docker("import", str(base_image_tar), "imported:1")
        message = await (await resources.promote()).promote_image("imported:1", reference="promoted:1", push="never")
        saved = tmp_path / "saved.tar"
        host.docker("save", "-o", str(saved), "promoted:1")
        (entry,) = json.loads(
            subprocess.run(["tar", "-xOf", saved, "manifest.json"], check=True, capture_output=True).stdout
        )
        config = subprocess.run(["tar", "-xOf", saved, entry["Config"]], check=True, capture_output=True).stdout
    assert message.image_id == sha256(config)
    assert message.image_id != host.image_id("promoted:1")
