"""Servers that lie: engines, registries, CYROID, tar servers whose answers are anything. And clients that do.

Whatever comes, a call ends with a value or an error of the project, and what serves others goes on.
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from random import Random

import aiohttp
import msgspec
import pytest
from h2.connection import H2Connection
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from events.bus import BusError, IndexWrite, Outcome, RecordWrite
from events.gateway import GatewayBus
from events.gateway.protocol import Hello
from events.memory.bus import MemoryBus
from services.adapters import registry_http
from services.adapters.build_session import build_session
from services.adapters.engine import DockerEngine
from services.adapters.grpc_server import GrpcServer, serving
from services.adapters.placed_layers import PlacedLayersFile
from services.adapters.registry import HttpRegistry
from services.agent.archive_download import fetch
from services.api.cyroid_login import CyroidLogin
from services.collector.unreferenced_since import UnreferencedSince
from services.content.registry_image import platform_manifest
from services.core.builds import protobuf
from services.core.images.manifests import sha256
from services.errors import CyroidError
from services.ports import Engine, Registry
from services.queries.limited_ranges import index_key, limited_ranges, record_key
from services.range_gateway import role as gateway_role
from services.runtime.heartbeat import serving as who_serves
from tests.fuzz.mutations import PIECES, TIMES, mutated
from tests.fuzz.register import DIGEST, INDEX, MANIFEST
from tests.unit.services.range_gateway.site import RANGE, SECRET, RawConnection, open_site

#: Functions of the register that these tests reach.
COVERED = (
    "events/gateway/link.py:GatewayAddress.parse",
    "services/adapters/build_session.py:_connect",
    "services/adapters/build_session.py:_get_secret",
    "services/adapters/content_store.py:ContentStore._manifest",
    "services/adapters/engine_http.py:EngineConnection._negotiate",
    "services/adapters/engine_http.py:EngineConnection.ask",
    "services/adapters/engine_progress.py:_traced",
    "services/adapters/engine_streams.py:LineStream._parse",
    "services/adapters/placed_layers.py:PlacedLayersFile.read",
    "services/adapters/registry_answers.py:decoded",
    "services/agent/archive_download.py:_refusal",
    "services/api/cyroid_login.py:CyroidLogin._ask",
    "services/collector/unreferenced_since.py:UnreferencedSince._read",
    "services/queries/limited_ranges.py:limited_ranges",
    "services/range_gateway/range_messages.py:read_message",
    "services/range_gateway/role.py:RangeGateway._hello",
    "services/range_gateway/session.py:Session._read",
    "services/runtime/heartbeat.py:serving",
)
NUMBERS = st.integers(0, 2**32)
#: Nothing is shrunk: the number that is told gives the same bytes again.
QUICK = settings(
    max_examples=12 * TIMES,
    deadline=None,
    database=None,
    phases=(Phase.generate,),
    suppress_health_check=list(HealthCheck),
)
HEADERS = (
    b"Content-Type: application/json\r\n",
    b"Content-Type: text/html\r\n",
    b"Content-Type: \xff\r\n",
    b"Content-Encoding: gzip\r\n",
    b"Location: http://[\r\n",
    b"Location: //evil.example/x\r\n",
    b"Location: /v2/x/blobs/uploads/1?_state=%00\r\n",
    b'Link: </v2/_catalog?last=a>; rel="next"\r\n',
    b"Link: <http://[>; rel=next\r\n",
    b'WWW-Authenticate: Bearer realm="http://127.0.0.1:1/t",service="s"\r\n',
    b'WWW-Authenticate: Bearer realm="http://[",service="s"\r\n',
    b"WWW-Authenticate: Basic\r\n",
    b"Docker-Content-Digest: sha256:0\r\n",
    b"Content-Length: abc\r\n",
    b"Content-Length: -1\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Set-Cookie: \x00=\xff\r\n",
    b"X: " + b"y" * 9000 + b"\r\n",
)
STATUSES = (200, 200, 200, 200, 201, 202, 204, 206, 301, 307, 400, 401, 403, 404, 409, 429, 500, 503, 507, 999, 0)


class Liar:
    """Answers every request with a near miss of what belongs to its path."""

    def __init__(self, dice: Random, good: Mapping[str, Sequence[bytes]], *, honest: Sequence[str] = ()) -> None:
        self._dice = dice
        self._good = good
        self._honest = honest

    def answer(self, head: bytes) -> bytes:
        dice = self._dice
        path = head.split(b" ")[1].decode(errors="replace") if head.count(b" ") > 1 else "/"
        known = [one for part, found in self._good.items() if part in path for one in found]
        if any(path.startswith(one) or path == one for one in self._honest):
            return _http(200, b"Content-Type: application/json\r\n", known[0])
        if dice.random() < 0.03:
            return dice.choice((b"", b"\xff\xfe", b"HTTP/1.1 200", b"HTTP/9.9 abc\r\n\r\n", dice.randbytes(50)))
        body = mutated(dice.choice(known or [b"{}"]), dice.randrange(2**32))
        headers = b"Content-Type: application/json\r\n" if dice.random() < 0.6 else b""
        for _ in range(dice.choice((0, 0, 1, 2))):
            headers += dice.choice(HEADERS)
        return _http(dice.choice(STATUSES), headers, body)


def _http(status: int, headers: bytes, body: bytes) -> bytes:
    if b"Content-Length" not in headers and b"Transfer-Encoding" not in headers:
        headers += b"Content-Length: %d\r\n" % len(body)
    return b"HTTP/1.1 %d X\r\n" % status + headers + b"Connection: close\r\n\r\n" + body


@asynccontextmanager
async def lying(liar: Liar) -> AsyncIterator[str]:
    """`127.0.0.1:PORT`."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(liar.answer(head))
        await writer.drain()

    async with listening(serve) as port:
        yield f"127.0.0.1:{port}"


@asynccontextmanager
async def listening(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[int]:
    """A server on a port; what its connections end with is the clients' matter. Leaving closes all of them."""
    connections: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                await serve(reader, writer)
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
            connections.discard(task)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        if connections:
            await asyncio.wait(connections, timeout=20)


async def _ends(call: Callable[[], Awaitable[object]]) -> None:
    """With a value or an error of ours, and in time."""
    try:
        async with asyncio.timeout(60):
            await call()
    except CyroidError:
        return


async def _drain(chunks: AsyncIterator[object]) -> None:
    async for _ in chunks:
        pass


async def _bytes(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


# ---- engines --------------------------------------------------------------------------------------------------------

VERSION = json.dumps(
    {"ApiVersion": "1.51", "MinAPIVersion": "1.24", "Version": "28.5.2", "Os": "linux", "Arch": "amd64"}
).encode()
INSPECTED = {
    "Id": DIGEST,
    "Os": "linux",
    "Architecture": "amd64",
    "Variant": "v8",
    "Size": 7,
    "RepoTags": ["web:1", "<none>:<none>"],
    "RepoDigests": [f"web@{DIGEST}"],
    "RootFS": {"Type": "layers", "Layers": [DIGEST]},
    "GraphDriver": {"Name": "overlay2"},
    "Descriptor": None,
}
LINES = (
    b'{"status":"Downloading","id":"a","progressDetail":{"current":5,"total":9}}\n{"stream":"Step 1/2"}\n'
    b'{"errorDetail":{"message":"no space left on device"},"error":"no space left on device"}\n'
)
TRACE = b'{"id":"moby.buildkit.trace","aux":"CgkKBXNoYTI1NhoDUlVO"}\n{"stream":"x\\n"}\n'
ENGINE = {
    "/version": (VERSION,),
    "/_ping": (b"OK",),
    "/info": (
        json.dumps(
            {
                "ID": "e",
                "ServerVersion": "28",
                "DockerRootDir": "/d",
                "Driver": "overlay2",
                "DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]],
                "HttpProxy": "http://u:p@h",
            }
        ).encode(),
    ),
    "/images/web": (json.dumps(INSPECTED).encode(),),
    f"/images/{DIGEST}": (json.dumps(INSPECTED).encode(),),
    "/images/json": (json.dumps([INSPECTED]).encode(),),
    "/images/create": (LINES,),
    "/push": (LINES,),
    "/images/load": (LINES,),
    "/build": (TRACE, LINES),
    "/commit": (b'{"Id":"sha256:1"}',),
    "/images/get": (b"tar" * 100,),
}


def _engine_calls(engine: Engine) -> Sequence[Callable[[], Awaitable[object]]]:
    async def pull() -> None:
        async with engine.pull(f"h:5000/web@{DIGEST}", token="t") as lines:
            await _drain(lines)

    async def push() -> None:
        async with engine.push("h:5000/web:1") as lines:
            await _drain(lines)

    async def load() -> None:
        async with engine.load(_bytes(b"tar")) as lines:
            await _drain(lines)

    async def save() -> None:
        async with engine.save(["web:1"]) as chunks:
            await _drain(chunks)

    async def build() -> None:
        async with engine.build(_bytes(b"tar"), reference="web:1") as lines:
            await _drain(lines)

    return (
        engine.ping,
        engine.info,
        lambda: engine.inspect("web:1"),
        engine.images,
        lambda: engine.tag("web:1", "web:2"),
        lambda: engine.untag("web:1"),
        lambda: engine.commit("c", reference="web:1", changes=["CMD a"]),
        pull,
        push,
        load,
        save,
        build,
    )


@QUICK
@given(NUMBERS)
def test_an_engine_may_say_anything(number: int) -> None:
    """Of a range, or of the host: every call ends with a value or an error of ours."""

    async def run() -> None:
        dice = Random(number)
        honest = () if number % 4 == 0 else ("/version",)
        async with (
            lying(Liar(dice, ENGINE, honest=honest)) as place,
            DockerEngine.open(f"tcp://{place}", answer_seconds=20, stall_seconds=20, quiet_seconds=20) as engine,
        ):
            for call in _engine_calls(engine):
                await _ends(call)

    asyncio.run(run())


@QUICK
@given(NUMBERS)
def test_an_engine_may_answer_a_build_session_with_anything(number: int) -> None:
    """No protocol is switched, or what follows is no HTTP/2."""

    async def run() -> None:
        dice = Random(number)
        switched = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(mutated(switched, dice.randrange(2**32)) + mutated(CLIENT, dice.randrange(2**32)))

        async def session() -> None:
            async with build_session(f"tcp://127.0.0.1:{port}", {"a": b"b"}, shown_url="engine"):
                await asyncio.sleep(0)

        async with listening(serve) as port:
            await _ends(session)

    asyncio.run(run())


def _h2_client() -> bytes:
    client = H2Connection()
    client.initiate_connection()
    for path in ("/moby.buildkit.secrets.v1.Secrets/GetSecret", "/grpc.health.v1.Health/Check", "/nothing"):
        number = client.get_next_available_stream_id()
        headers = [(":method", "POST"), (":path", path), (":scheme", "http"), (":authority", "h"), ("te", "trailers")]
        client.send_headers(number, headers)
        request = protobuf.message((1, b"a"))
        client.send_data(number, b"\0" + struct.pack(">I", len(request)) + request, end_stream=True)
    return bytes(client.data_to_send())


CLIENT = _h2_client()


@settings(QUICK, max_examples=40 * TIMES)
@given(NUMBERS)
def test_a_grpc_client_may_send_anything(number: int) -> None:
    """What is no HTTP/2, or no call, ends the connection and nothing else."""

    async def run() -> None:
        server = GrpcServer({"/grpc.health.v1.Health/Check": serving})
        async with listening(served(server)) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            with suppress(ConnectionError):
                writer.write(mutated(CLIENT, number) if number % 3 else CLIENT + Random(number).randbytes(200))
                writer.write_eof()
                await asyncio.wait_for(reader.read(), 20)
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    problems: list[Exception] = []

    def served(server: GrpcServer) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await server.serve(reader, writer)
            except Exception as problem:  # noqa: BLE001  any is one too many
                problems.append(problem)

        return serve

    asyncio.run(run())
    assert problems == []


# ---- registries -----------------------------------------------------------------------------------------------------

REGISTRY = {
    "/manifests/": (MANIFEST, INDEX),
    "/blobs/": (b"blob", b"x" * 3000),
    "/tags/list": (b'{"name":"web","tags":["1","2"]}',),
    "/_catalog": (b'{"repositories":["web","a/b"]}',),
    "/token": (b'{"token":"t","access_token":"u","expires_in":60}',),
    "/v2/": (b"{}",),
}


def _registry_calls(registry: Registry) -> Sequence[Callable[[], Awaitable[object]]]:
    async def blob() -> None:
        async with registry.open_blob("web", DIGEST) as chunks:
            await _drain(chunks)

    return (
        registry.ping,
        lambda: registry.manifest("web", "1"),
        lambda: registry.manifest("web", DIGEST),
        lambda: platform_manifest(registry, "web", "1", "linux/amd64"),
        lambda: registry.blob_size("web", DIGEST),
        lambda: registry.mount_blob("web", DIGEST, "a/b"),
        lambda: registry.put_blob("web", sha256(b"x"), 1, _bytes(b"x")),
        lambda: registry.put_blob("web", sha256(b"xy"), 2, _bytes(b"x", b"y")),
        lambda: registry.delete_manifest("web", DIGEST),
        lambda: registry.tags("web"),
        lambda: _drain(registry.repositories()),
        blob,
    )


@pytest.fixture
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_http, "_PAUSES_SECONDS", ())


@pytest.mark.usefixtures("_no_pauses")
@QUICK
@given(NUMBERS)
def test_a_registry_may_say_anything(number: int) -> None:
    """Bodies, statuses and headers: every call ends with a value or an error of ours."""

    async def run() -> None:
        dice = Random(number)
        async with (
            lying(Liar(dice, REGISTRY)) as place,
            HttpRegistry.open(f"http://u:p@{place}", answer_seconds=20, stall_seconds=20) as registry,
        ):
            for call in _registry_calls(registry):
                await _ends(call)

    asyncio.run(run())


# ---- CYROID and the tar server --------------------------------------------------------------------------------------


@settings(QUICK, max_examples=40 * TIMES)
@given(NUMBERS)
def test_cyroid_may_say_anything(number: int) -> None:
    """About a token: it is known, refused, or nobody can say."""

    async def run() -> None:
        good = {"/me": (b'{"username":"a","email":"b","role":{"name":"admin"},"roles":["viewer",{"name":"x"}]}',)}
        async with lying(Liar(Random(number), good)) as place, aiohttp.ClientSession() as session:
            login = CyroidLogin(session=session, url=f"http://{place}", roles={"*": "viewer", "admin": "admin"})
            await _ends(lambda: login.actor("token"))

    asyncio.run(run())


@settings(QUICK, max_examples=40 * TIMES)
@given(NUMBERS)
def test_a_tar_server_may_say_anything(number: int) -> None:
    """To an agent that fetches an archive."""

    async def run() -> None:
        good = {"/transfers/": (b'{"code":"exports_busy","detail":"later"}', b"tar" * 50)}
        async with lying(Liar(Random(number), good)) as place:

            async def archive() -> None:
                async with fetch(f"http://{place}/transfers/d1.0.1", "t") as fetched:
                    await _drain(fetched.chunks)

            await _ends(archive)

    asyncio.run(run())


# ---- the range gateway ----------------------------------------------------------------------------------------------

HOLDER = ["agent", "owner", 3.0]
CALLS = [
    msgspec.msgpack.encode([number, request])
    for number, request in enumerate(
        [
            {"ask": "take", "holder": HOLDER, "count": 1},
            {"ask": "recover", "holder": HOLDER, "count": 1, "held": ["1-1"]},
            {"ask": "introduce", "holder": HOLDER, "idle_seconds": 60.0},
            {"ask": "renew", "leases": [[[HOLDER, "1-1", 1], ["progress", {b"id": b"1"}]]]},
            {"ask": "finish", "lease": [HOLDER, "1-1", 1], "messages": [["outbox", {b"id": b"1"}]]},
            {"ask": "defer", "lease": [HOLDER, "1-1", 1], "seconds": 1.0, "counted": "failed"},
            {"ask": "commit", "messages": [["outbox", {b"id": b"1"}]], "notes": [["d1.0.1", 5.0]]},
            {"ask": "marked", "transfer_ids": ["d1.0.1"]},
            {"ask": "beat", "value": b"x", "expires_seconds": 5.0},
            {"ask": "last_beat"},
            {"ask": "trim", "keep_seconds": 60.0},
        ],
        start=1,
    )
]


async def test_a_range_may_send_its_gateway_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before its Hello and after: connections end, nothing is logged as a failure, an honest agent gets on."""
    failures: list[object] = []
    monkeypatch.setattr(gateway_role.log, "error", lambda text, **context: failures.append((text, context)))
    monkeypatch.setattr(gateway_role, "DENIED_SECONDS", 0.0)
    hello = msgspec.msgpack.encode(Hello("r2", SECRET))
    async with open_site(tmp_path) as site:
        for number in range(150 * TIMES):
            raw = await RawConnection.open(site, hello=False)
            if number % 2:
                await raw.send(hello)
                await raw.send(mutated(CALLS[number % len(CALLS)], number))
            else:
                await raw.send(mutated(hello, number))
            raw.writer.write_eof()
            assert await raw.ended()
            await raw.close()
        site.raw.clear()
        async with GatewayBus.open(site.url(RANGE), streams=site.streams) as bus:
            await bus.beat(site.streams.alive(RANGE), b"x", 5.0)
    assert failures == []


async def test_a_gateway_may_answer_an_agent_with_anything() -> None:
    """An agent whose gateway is something else says that it is away or refuses, and nothing else."""
    dice = Random(7)
    welcome, reply = msgspec.msgpack.encode({"kind": "welcome"}), msgspec.msgpack.encode({"kind": "reply", "number": 1})

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = welcome if dice.random() < 0.6 else mutated(welcome, dice.randrange(2**32))
        for payload in (first, mutated(reply, dice.randrange(2**32))):
            writer.write(struct.pack(">I", len(payload)) + payload)

    async with listening(serve) as port:
        for _ in range(8 * TIMES):
            with suppress(BusError):
                async with asyncio.timeout(30), GatewayBus.open(f"gateway://r1:s@127.0.0.1:{port}") as bus:
                    await bus.beats(["cyroid:range:r1:alive"])


# ---- what lies in Redis and on disks --------------------------------------------------------------------------------


async def test_a_heartbeat_or_a_record_may_be_anything(tmp_path: Path) -> None:
    """Of a role, of a limited range, of unreferenced content, of placed layers: what is unreadable says nothing."""
    bus = MemoryBus()
    beat = json.dumps({"role": "api", "host": "h", "pid": 1, "version": "1", "at": "2026-01-01T00:00:00Z"}).encode()
    limited = json.dumps(
        {"range_id": "r1", "last": "2026-01-01T00:00:00Z", "limit": "rate", "times": {"rate": 1}, "cut_off": 0}
    ).encode()
    for number in range(100 * TIMES):
        member = f"api:h.{number}"
        piece = PIECES[number % len(PIECES)]
        await bus.beat(f"p:role:{member}", piece if number % 3 == 0 else mutated(beat, number), 60.0)
        record = RecordWrite(record_key("p", member), piece if number % 3 == 0 else mutated(limited, number))
        index = (IndexWrite("p:index:roles", member, 1.0), IndexWrite(index_key("p"), member, 1.0))
        await bus.commit(Outcome(records=(record,), index=index))
        (tmp_path / "unreferenced.json").write_bytes(mutated(b'{"a":1.5,"b":2}', number))
        UnreferencedSince(tmp_path).ripe(["a"], now=9.0, grace_seconds=1.0, remember=False)
        (tmp_path / "cyroid-mounted-layers.json").write_bytes(
            piece if number % 3 == 0 else mutated(b'{"grants":{"a":"t"},"open":{"t":["a"]}}', number)
        )
        PlacedLayersFile(tmp_path).read()
    await who_serves(bus, "p")
    await limited_ranges(bus, "p", since=0.0)
