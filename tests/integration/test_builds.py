"""Builds with BuildKit on every kind of engine, and what the classic builder refuses.

After reports of users of `docker build`: moby 22.06's heredocs through the classic API (here-documents that built
nothing), docker/cli BuildKit-only flags, moby `POST /build` without a session.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping

import pytest

from deploy.machine.polling import poll
from events.memory.bus import MemoryBus
from services.adapters.engine import DockerEngine
from services.adapters.layer_sources import layer_sources
from services.adapters.registry import HttpRegistry
from services.agent.inspection import Wanted
from services.agent.pull import Patience, pull
from services.agent.stall_watch import Activity
from services.core.builds.options import Builder, BuildOptions
from services.errors import BuildFailed
from services.registry_pusher.image_push import ImagePush
from services.registry_pusher.layer_encodings import LayerEncodings
from services.registry_pusher.layer_push import LayerPush
from tests.conftest import ENGINE_KINDS
from tests.images import tar_of
from tests.integration.engines import pieces
from tests.laboratory import EngineServer, Lab, RegistryServer

pytestmark = pytest.mark.real
BASE = "base-of-builds:1"


@pytest.fixture(params=list(ENGINE_KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    """Each kind of engine."""
    return str(request.param)


@pytest.fixture
def server(kind: str, engine_servers: Callable[[str], EngineServer], lab: Lab) -> EngineServer:
    """An engine of that kind, with a base image that has a shell."""
    found = engine_servers(kind)
    found.docker("import", str(lab.base_image_tar()), BASE)
    return found


@pytest.fixture
async def engine(server: EngineServer) -> AsyncIterator[DockerEngine]:
    """That engine."""
    async with DockerEngine.open(server.url) as opened:
        yield opened


async def build(
    engine: DockerEngine, name: str, dockerfile: str, files: Mapping[str, bytes] | None = None, **options: object
) -> list[str]:
    """The log of a build with the default network. These engines have no bridge: its steps run without a network."""
    context = tar_of({"Dockerfile": dockerfile.encode(), **(files or {})})
    chosen = BuildOptions(**options)  # type: ignore[arg-type]
    async with engine.build(pieces(context), reference=name, options=chosen) as log:
        return [line async for line in log]


def file_of(server: EngineServer, name: str, path: str) -> bytes:
    """A file of an image, as a container would have it."""
    container = server.docker("create", name, "true").strip().splitlines()[-1]
    try:
        docker = ["docker", "-H", server.url, "cp", f"{container}:{path}", "-"]
        tar = subprocess.run(docker, check=True, capture_output=True).stdout
        return subprocess.run(["tar", "-xO"], input=tar, check=True, capture_output=True).stdout
    finally:
        server.docker("rm", container)


async def test_a_heredoc_is_built_or_refused_and_never_something_else(
    kind: str, server: EngineServer, engine: DockerEngine, unique: str
) -> None:
    """20.10's own frontend reads none and says what would; all others run it."""
    dockerfile = f"FROM {BASE}\nRUN <<END\necho {unique} > /x\nEND\n"
    if kind == "machine":
        with pytest.raises(BuildFailed, match="needs engine 23 or newer"):
            await build(engine, f"built-{unique}:1", dockerfile)
        return
    await build(engine, f"built-{unique}:1", dockerfile)
    assert file_of(server, f"built-{unique}:1", "/x") == f"{unique}\n".encode()


async def test_mounts_modes_arguments_targets_and_labels(
    server: EngineServer, engine: DockerEngine, unique: str
) -> None:
    """What users of BuildKit take for granted."""
    dockerfile = (
        f"FROM {BASE} AS one\nARG WORD\n"
        "RUN --mount=type=cache,target=/c echo $WORD > /c/a && cp /c/a /a\nCOPY --chmod=700 b /b\n"
        f"FROM {BASE}\nRUN false\n"
    )
    name = f"built-{unique}:1"
    options = {"target": "one", "build_args": {"WORD": unique}, "labels": {"made": "here"}}
    log = await build(engine, name, dockerfile, {"b": b"b"}, **options)
    assert file_of(server, name, "/a") == f"{unique}\n".encode()
    modes = subprocess.run(
        ["tar", "-tv"],
        input=subprocess.run(
            ["docker", "-H", server.url, "cp", f"{server.docker('create', name, 'true').split()[-1]}:/b", "-"],
            check=True,
            capture_output=True,
        ).stdout,
        check=True,
        capture_output=True,
    ).stdout
    assert modes.startswith(b"-rwx------")
    assert server.docker("inspect", "-f", "{{.Config.Labels.made}}", name).strip() == "here"
    assert any(re.match(r"#\d+ \[one 2/3\] RUN --mount", line) for line in log)
    assert any(re.match(r"#\d+ DONE \d+\.\ds", line) for line in log)


async def test_a_secret_is_there_while_it_is_asked_for_and_nowhere_afterwards(
    server: EngineServer, engine: DockerEngine, unique: str
) -> None:
    """Also one larger than HTTP/2's first window; one that was not given stops the step that requires it."""
    secret = unique.encode() * 20_000
    name = f"built-{unique}:1"
    step = "RUN --mount=type=secret,id=key,required=true wc -c < /run/secrets/key > /size\n"
    log = await build(engine, name, f"FROM {BASE}\n{step}", secrets={"key": secret})
    assert int(file_of(server, name, "/size")) == len(secret)
    history = server.docker("history", "--no-trunc", name)
    assert unique * 2 not in history + "\n".join(log)
    step = f"RUN --mount=type=secret,id=other,required=true true {unique}\n"
    with pytest.raises(BuildFailed, match="other"):
        await build(engine, name, f"FROM {BASE}\n{step}", secrets={"key": secret})


async def test_a_cache_within_an_image_serves_another_engine(
    server: EngineServer, engine: DockerEngine, registry_server: RegistryServer, unique: str
) -> None:
    """`--cache-to type=inline` and `--cache-from`, with the builder's own cache emptied between."""
    name = f"{registry_server.address}/cache/{unique}:1"
    dockerfile = f"FROM {BASE}\nRUN echo {unique} > /a\n"
    await build(engine, name, dockerfile, inline_cache=True)
    server.docker("push", "--quiet", name)
    server.docker("rmi", name)
    server.docker("builder", "prune", "--all", "--force")
    log = await build(engine, f"built-{unique}:1", dockerfile, cache_from=(name,))
    step = next(line.split()[0] for line in log if f"RUN echo {unique}" in line)
    assert f"{step} CACHED" in log
    assert file_of(server, f"built-{unique}:1", "/a") == f"{unique}\n".encode()


@pytest.mark.parametrize("builder", ["buildkit", "classic"])
async def test_leaving_a_build_ends_its_steps(
    server: EngineServer, engine: DockerEngine, unique: str, builder: Builder
) -> None:
    """The engine's own process is gone, not only our wait for it."""
    seconds = int(unique[:6], 16) + 100_000

    def sleeps() -> bool:
        found = subprocess.run(["pgrep", "-f", f"sleep {seconds}"], check=False, capture_output=True)
        return bool(found.stdout.split())

    running = asyncio.create_task(
        build(engine, f"built-{unique}:1", f"FROM {BASE}\nRUN exec sleep {seconds}\n", builder=builder)
    )
    assert await asyncio.to_thread(poll, sleeps, seconds=30)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await asyncio.to_thread(poll, lambda: not sleeps(), seconds=30)
    assert server.docker("images", "-q", f"built-{unique}:1") == ""


async def test_an_engine_with_buildkit_turned_off_refuses_by_name(lab: Lab, unique: str) -> None:
    """Its configuration is respected, and what it would build as something else is not built."""
    server = lab.engine(f"classic-{unique}", version="28.5", buildkit=False)
    server.docker("import", str(lab.base_image_tar()), BASE)
    async with DockerEngine.open(server.url) as engine:
        with pytest.raises(BuildFailed, match=r"line 2: RUN <<END.*features.*buildkit") as raised:
            await build(engine, f"built-{unique}:1", f"FROM {BASE}\nRUN <<END\ntouch /x\nEND\n")
        assert raised.value.code == "needs_buildkit"
        with pytest.raises(BuildFailed, match="secret key"):
            await build(engine, f"built-{unique}:1", f"FROM {BASE}\n", secrets={"key": b"x"})
        log = await build(engine, f"built-{unique}:1", f"FROM {BASE}\nRUN touch /x\n")
        assert any(line.startswith("Step 2/2") for line in log)
        await build(engine, f"built-{unique}:2", f"FROM {BASE}\nRUN <<END\ntouch /x\nEND\n", builder="buildkit")
        assert file_of(server, f"built-{unique}:2", "/x") == b""
    server.stop()


async def test_an_image_without_layers_is_pushed_and_deployed(
    server: EngineServer, engine: DockerEngine, registry_server: RegistryServer, lab: Lab, unique: str
) -> None:
    """`FROM scratch` and `LABEL` alone: BuildKit writes `"diff_ids": null`, and every engine has such an image."""
    name = f"docker.io/none/{unique}:1"
    await build(engine, name, f"FROM scratch\nLABEL word={unique}\n")
    bus = MemoryBus()
    async with HttpRegistry.open(registry_server.url) as registry:
        sources = layer_sources(engine, engine_root=server.root)
        encodings = LayerEncodings(bus=bus, prefix="t")
        push = ImagePush(
            engine=engine,
            registry=registry,
            sources=sources,
            layers=LayerPush(registry=registry, sources=sources, encodings=encodings),
            engine_registry=registry.address,
        )
        pushed = await push.push(name)
        assert (pushed.layers, pushed.method) == ((), "layers")
        await engine.untag(name)
        wanted = Wanted(
            reference=name,
            image_id=pushed.image_id,
            diff_ids=(),
            source=f"{registry.address}/{pushed.repository}@{pushed.manifest_digest}",
        )
        await pull(engine, wanted, activity=Activity(), patience=Patience(), report=lambda progress: None)
    assert server.docker("inspect", "-f", "{{.Config.Labels.word}}", name).strip() == unique
