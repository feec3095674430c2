"""The proxy in front of the engine's socket, with the real HAProxy and real engines: what roles do works, the rest does
not arrive."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.container.engine_proxy import RIGHTS, SOCKET, configuration
from deploy.container.health import problem_at
from deploy.machine.commands import need
from deploy.machine.polling import poll
from services.adapters.engine import DockerEngine
from services.core.builds.options import BuildOptions
from services.errors import BadArchive, BadInput, BuildFailed, CyroidError, EngineUnavailable
from tests.images import tar_of
from tests.integration.engines import pieces
from tests.laboratory import EngineServer, Lab

pytestmark = pytest.mark.real
BASE = "base-of-guarded:1"
OURS = "cyroid-registry:5000/guarded"
#: The engine with the oldest API, one with BuildKit's own, and one whose images are containerd's.
KINDS = ("machine", "28.5", "28.5-containerd")


@dataclass(frozen=True)
class Guarded:
    """`server` behind the proxy, whose sockets are in `folder`."""

    server: EngineServer
    folder: Path

    def socket(self, role: str) -> Path:
        return self.folder / role / SOCKET

    def url(self, role: str) -> str:
        return f"unix://{self.socket(role)}"

    def everything(self) -> str:
        """What a call that was let through would have changed."""
        lists = ("ps --all --quiet", "volume ls --quiet", "network ls --quiet", "plugin ls --quiet")
        images = self.server.docker("image", "ls", "--all", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}")
        return "\n".join([*sorted(images.splitlines()), *(self.server.docker(*words.split()) for words in lists)])


@contextmanager
def proxy(folder: Path, engine: Path) -> Iterator[None]:
    """HAProxy as the stack configures it."""
    for role in RIGHTS:
        (folder / role).mkdir(parents=True)
    file = folder / "haproxy.cfg"
    file.write_text(configuration(engine=str(engine), folder=str(folder)))
    with subprocess.Popen([need("haproxy", "haproxy"), "-db", "-f", str(file)]) as process:
        try:
            assert poll(lambda: all((folder / role / SOCKET).exists() for role in RIGHTS), seconds=20, every=0.05)
            yield
        finally:
            process.terminate()


@pytest.fixture(scope="module", params=KINDS)
def guarded(
    request: pytest.FixtureRequest,
    engine_servers: Callable[[str], EngineServer],
    lab: Lab,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Guarded]:
    """Each kind of host engine behind its proxy, with an image that has a shell."""
    server = engine_servers(request.param)
    server.docker("import", str(lab.base_image_tar()), BASE)
    folder = tmp_path_factory.mktemp("guard")
    with proxy(folder, server.socket):
        yield Guarded(server, folder)


def ask(path: Path, line: str, *headers: str, body: bytes = b"") -> tuple[int, bytes]:
    """One request, byte by byte as it is written here: status and body of the answer."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(30)
        asking.connect(str(path))
        head = [f"{line} HTTP/1.1", "Host: docker", f"Content-Length: {len(body)}", "Connection: close", *headers]
        asking.sendall("\r\n".join([*head, "", ""]).encode() + body)
        said = b""
        while piece := asking.recv(1 << 16):
            said += piece
            if said.startswith(b"HTTP/1.1 101"):
                break
    first, _, rest = said.partition(b"\r\n\r\n")
    return int(first.split()[1]), rest


async def test_an_ingest_builds_imports_loads_commits_and_names(guarded: Guarded, unique: str) -> None:
    """With BuildKit's session for secrets, an archive in and out, and a container's changes."""
    step = "RUN --mount=type=secret,id=key,required=true wc -c < /run/secrets/key > /size\n"
    options = BuildOptions(secrets={"key": b"k" * 100_000}, build_args={"A": "x y&z;=%"}, labels={"made": "here"})
    context = tar_of({"Dockerfile": f"FROM {BASE}\nARG A\n{step}".encode(), "large": bytes(3_000_000)})
    async with DockerEngine.open(guarded.url("ingest")) as engine:
        async with engine.build(pieces(context), reference=f"built-{unique}:1", options=options) as log:
            assert [line async for line in log]
        built = await engine.inspect(f"built-{unique}:1")
        assert built is not None
        async with engine.save([built.local_id]) as saved:
            archive = b"".join([chunk async for chunk in saved])
        async with engine.load(pieces(archive)) as progress:
            assert [line async for line in progress]
        async with engine.import_root(pieces(tar_of({"a": b"b"})), reference=f"imported-{unique}:1") as progress:
            assert [line async for line in progress]
        guarded.server.docker("create", "--name", f"changed-{unique}", f"built-{unique}:1", "true")
        await engine.commit(f"changed-{unique}", reference=f"promoted-{unique}:1", changes=['CMD ["a"]', "USER 7"])
        await engine.tag(f"promoted-{unique}:1", f"named-{unique}:2")
        await engine.untag(f"promoted-{unique}:1")
        with pytest.raises(BadArchive):
            async with engine.load(pieces(b"no archive" * 500_000)) as progress:
                assert [line async for line in progress]
        names = {name for image in await engine.images() for name in image.references}
    guarded.server.docker("rm", f"changed-{unique}")
    assert {
        f"docker.io/library/{name}-{unique}:{tag}" for name, tag in (("built", 1), ("imported", 1), ("named", 2))
    } <= names
    assert f"docker.io/library/promoted-{unique}:1" not in names


async def test_a_step_on_the_hosts_network_is_refused(guarded: Guarded, unique: str) -> None:
    """As a build's option by the proxy, inside the Dockerfile by the engine."""
    context = tar_of({"Dockerfile": f"FROM {BASE}\nRUN true {unique}\n".encode()})
    inside = tar_of({"Dockerfile": f"FROM {BASE}\nRUN --network=host true {unique}\n".encode()})
    async with DockerEngine.open(guarded.url("ingest")) as engine:
        for sent, options in ((context, BuildOptions(network="host")), (inside, BuildOptions())):
            with pytest.raises(BuildFailed, match=r"engine-proxy|network\.host|[Uu]nknown flag"):
                async with engine.build(pieces(sent), reference=f"host-{unique}:1", options=options) as log:
                    assert [line async for line in log]


@pytest.mark.parametrize("role", ["tar-server"])
async def test_a_reader_reads_and_names_nothing(role: str, guarded: Guarded, unique: str) -> None:
    """Images are listed, looked at and saved as without the proxy; a name is refused with the reason."""
    async with DockerEngine.open(guarded.url(role)) as engine, DockerEngine.open(guarded.server.url) as direct:
        image = await direct.inspect(BASE)
        assert image is not None
        assert await engine.inspect(BASE) == image
        assert await engine.info() == await direct.info()
        assert image in await engine.images()
        async with engine.save([image.local_id]) as saved:
            assert sum([len(chunk) async for chunk in saved]) > 1_000_000
        with pytest.raises(BadInput, match="engine-proxy: this socket does not allow the call"):
            await engine.tag(BASE, f"named-{unique}:1")


async def test_the_tracker_looks_and_saves_nothing(guarded: Guarded) -> None:
    """It lists what is there; content is not its business."""
    async with DockerEngine.open(guarded.url("tracker")) as engine:
        await engine.ping()
        assert await engine.inspect(BASE) is not None
        with pytest.raises(BadInput, match="engine-proxy"):
            async with engine.save([BASE]) as saved:
                assert [chunk async for chunk in saved]


async def test_the_pusher_pushes_and_pulls_under_the_registrys_name_alone(guarded: Guarded, unique: str) -> None:
    """Both fail for want of a registry here, and arrived at the engine; it names and frees copies, never by force."""
    name = f"{OURS}/{unique}:1"
    async with DockerEngine.open(guarded.url("registry-pusher")) as engine:
        await engine.tag(BASE, name)
        for arrived in (engine.push(name), engine.pull(f"{OURS}/{unique}@sha256:{'0' * 64}"), engine.pull(name)):
            with pytest.raises(CyroidError) as away:
                async with arrived as progress:
                    assert [line async for line in progress]
            assert "engine-proxy" not in str(away.value)
        with pytest.raises(BadInput, match="engine-proxy"):
            async with engine.pull(f"elsewhere.example/{unique}:1") as progress:
                assert [line async for line in progress]
        await engine.tag(BASE, f"other-{unique}:1")
        await engine.untag(f"other-{unique}:1")
        await engine.untag(name)
        assert await engine.inspect(name) is None


MACHINE = b'{"Image":"base-of-guarded:1","Cmd":["true"],"HostConfig":{"Binds":["/:/host"],"Privileged":true}}'
REFUSED = (
    "POST /containers/create?name=guarded",
    "POST /v1.41/containers/create",
    "POST /containers/x/start",
    "POST /containers/x/exec",
    "POST /exec/x/start",
    "PUT /containers/x/archive?path=/",
    "GET /containers/json",
    "GET /containers/x/archive?path=/etc/shadow",
    "GET /containers/x/export",
    "POST /containers/prune",
    "POST /volumes/create",
    "POST /networks/create",
    "POST /networks/bridge/connect",
    "POST /plugins/pull?remote=x",
    "POST /swarm/init",
    "GET /secrets",
    "GET /events",
    "GET /system/df",
    "POST /grpc",
    "POST /auth",
    "GET /distribution/x/json",
    "POST /images/prune",
    "GET /images/search?term=x",
    "POST /images/create?fromImage=elsewhere/x&tag=1",
    "POST /images/create?fromSrc=http://169.254.169.254/&repo=x",
    "DELETE /images/base-of-guarded:1?force=true&noprune=false",
    "DELETE /images/base-of-guarded:1?force=False&force=True",
    "POST /build?t=x:1&networkmode=host",
    "POST /build?t=x:1&networkmode=container:x",
    "POST /build?t=x:1&network%6Dode=host",
    "POST /build?networkmode=none&t=x:1;networkmode=host",
    "POST /build?t=x:1&remote=http://169.254.169.254/",
    "POST /build?t=x:1&cgroupparent=/",
    "POST /build?t=x:1&extrahosts=a:1",
    "POST /build?t=x:1&outputs=[]",
    "POST /build",
    # other ways to write it
    "POST /images/x/../../containers/create",
    "GET /images/x/../../containers/json",
    "GET /images/..%2F..%2Fcontainers/json",
    "GET /images/%2e%2e/containers/json",
    "GET /./containers/json",
    "GET //containers/json",
    "GET /v1.41//images/json",
    "GET /V1.41/containers/json",
    "GET /images/json/",
    "GET /%69mages/json",
    "GET /_ping/../containers/json",
    "GET http://docker/images/json",
    "GET http://x?/images/json",
    "get /images/json",
    "OPTIONS /images/json",
    "CONNECT /images/json",
    "PRI *",
)


@pytest.mark.parametrize("role", RIGHTS)
def test_what_no_role_needs_is_refused_and_changes_nothing(role: str, guarded: Guarded) -> None:
    """Each with 403 in the engine's own form of errors, or 400 for what is no HTTP; the engine hears none of it."""
    before = guarded.everything()
    for line in REFUSED:
        status, said = ask(guarded.socket(role), line, "Content-Type: application/json", body=MACHINE)
        assert status in (400, 403), line
        if status == 403:
            assert json.loads(said)["message"].startswith("engine-proxy: "), line
    assert guarded.everything() == before


@pytest.mark.parametrize("role", RIGHTS)
def test_no_header_changes_what_a_call_is(role: str, guarded: Guarded) -> None:
    """A form in the body, another protocol behind an upgrade, a host and a path of a header's."""
    form = b"networkmode=host&fromImage=x"
    tricks = (
        ("POST /build?t=x:1&networkmode=none", "Content-Type: application/x-www-form-urlencoded"),
        ("POST /build?t=x:1&networkmode=none", "Content-Type: Application/X-WWW-Form-URLEncoded; charset=utf-8"),
        ("POST /images/create?fromSrc=-&repo=x&tag=1", "Content-Type: multipart/form-data; boundary=b"),
        ("GET /images/json", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"),
        ("GET /_ping", "Upgrade: tcp"),
        ("POST /session", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"),
        ("GET /containers/json", "X-Original-URL: /images/json", "X-HTTP-Method-Override: GET"),
    )
    for line, *headers in tricks:
        body = form if line.startswith("POST /build") or line.startswith("POST /images") else b""
        upgrade = "Connection: Upgrade, HTTP2-Settings"
        assert ask(guarded.socket(role), line, *headers, upgrade, body=body)[0] == 403, (line, headers)


def test_sessions_are_the_ingests_alone(guarded: Guarded) -> None:
    """Who builds nothing gets no connection of another protocol."""
    words = ("Connection: Upgrade", "Upgrade: h2c", "X-Docker-Expose-Session-Uuid: x")
    answers = {role: ask(guarded.socket(role), "POST /session", *words)[0] for role in RIGHTS}
    assert answers == {role: 101 if role == "ingest" else 403 for role in RIGHTS}


def test_it_is_healthy_while_the_engine_answers(guarded: Guarded, tmp_path: Path) -> None:
    """As Compose asks it."""
    assert problem_at(f"unix:{guarded.socket('api')}") is None
    with proxy(tmp_path, tmp_path / "nobody"):
        assert "answered 503" in (problem_at(f"unix:{tmp_path}/api/{SOCKET}") or "")


async def test_an_engine_that_is_away_is_told_as_away(tmp_path: Path) -> None:
    """And no fault of the request's: work waits and is tried again, whatever it was."""
    with proxy(tmp_path, tmp_path / "nobody"):
        async with DockerEngine.open(f"unix://{tmp_path}/ingest/{SOCKET}") as engine:
            with pytest.raises(EngineUnavailable):
                await engine.inspect("x:1")
            with pytest.raises(EngineUnavailable):
                async with engine.build(pieces(tar_of({"Dockerfile": b""})), reference="x:1") as log:
                    assert [line async for line in log]


async def test_whoever_leaves_ends_the_engines_work(tmp_path: Path) -> None:
    """The connection to the engine closes with the one to the proxy, also while the engine says nothing."""
    ended = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        assert await reader.read() == b""
        ended.set()
        writer.close()

    server = await asyncio.start_unix_server(silent, tmp_path / "silent")
    with proxy(tmp_path / "guard", tmp_path / "silent"):
        reader, writer = await asyncio.open_unix_connection(tmp_path / "guard" / "tar-server" / SOCKET)
        writer.write(b"GET /images/get?names=x HTTP/1.1\r\nHost: docker\r\n\r\n")
        await reader.readuntil(b"first")
        writer.close()
        await asyncio.wait_for(ended.wait(), 30)
    server.close()
