"""A BuildKit session: what a build may ask its client for while it runs; here, secrets.

The client opens a connection with `POST /session`, upgraded to HTTP/2, and is the gRPC *server* on it: BuildKit calls
`moby.buildkit.secrets.v1.Secrets/GetSecret` for each `RUN --mount=type=secret`. A secret that was not given is answered
with NOT_FOUND: engine 28.5 asks for some of its own accord (moby: `client/hijack.go`, buildkit: `session/`).
"""

from __future__ import annotations

import asyncio
import os
import ssl
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from urllib.parse import urlsplit

from services.adapters.grpc_server import NOT_FOUND, CallFailed, GrpcServer, Method, serving
from services.core.builds import protobuf
from services.errors import EngineUnavailable

_GET_SECRET = "/moby.buildkit.secrets.v1.Secrets/GetSecret"
_HEALTH = "/grpc.health.v1.Health/Check"
_OPEN_SECONDS = 20.0


@asynccontextmanager
async def build_session(engine_url: str, secrets: Mapping[str, bytes], *, shown_url: str) -> AsyncIterator[str]:
    """The session's id, for a build's `session`; it is open inside. Raises EngineUnavailable.

    secrets    content by the id that `RUN --mount=type=secret,id=…` names
    shown_url  the engine's address as errors may tell it
    """
    methods: dict[str, Method] = {_GET_SECRET: partial(_get_secret, secrets), _HEALTH: serving}
    session_id = uuid.uuid4().hex
    try:
        async with asyncio.timeout(_OPEN_SECONDS):
            reader, writer = await _connect(engine_url)
            try:
                await _upgrade(reader, writer, session_id, list(methods))
            except BaseException:
                writer.transport.abort()
                raise
    except (OSError, EOFError, TimeoutError) as problem:
        raise EngineUnavailable(
            f"the engine at {shown_url} opens no build session ({problem}), which secrets need"
        ) from problem
    serving_it = asyncio.create_task(GrpcServer(methods).serve(reader, writer), name=f"build session {session_id}")
    try:
        yield session_id
    finally:
        serving_it.cancel()
        await asyncio.wait({serving_it})
        writer.transport.abort()


def _get_secret(secrets: Mapping[str, bytes], request: bytes) -> bytes:
    name = protobuf.text(dict(protobuf.fields(request)).get(1, b""))
    if name not in secrets:
        raise CallFailed(NOT_FOUND, f"secret {name} was not given")
    return protobuf.message((1, secrets[name]))


async def _connect(engine_url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if engine_url.startswith("unix://"):
        return await asyncio.open_unix_connection(engine_url.removeprefix("unix://"))
    address = urlsplit(engine_url)
    port = address.port or (2376 if address.scheme == "https" else 2375)
    return await asyncio.open_connection(address.hostname, port, ssl=_tls() if address.scheme == "https" else None)


def _tls() -> ssl.SSLContext:
    """As Docker's clients are told by DOCKER_CERT_PATH. Raises OSError where a file is missing."""
    folder = os.environ.get("DOCKER_CERT_PATH")
    if not folder:
        return ssl.create_default_context()
    context = ssl.create_default_context(cafile=os.path.join(folder, "ca.pem"))
    context.load_cert_chain(os.path.join(folder, "cert.pem"), os.path.join(folder, "key.pem"))
    return context


async def _upgrade(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, session_id: str, methods: list[str]
) -> None:
    """Raises OSError for an engine that does not switch protocols."""
    headers = [
        "POST /session HTTP/1.1",
        "Host: localhost",
        "Connection: Upgrade",
        "Upgrade: h2c",
        "Content-Length: 0",
        f"X-Docker-Expose-Session-Uuid: {session_id}",
        "X-Docker-Expose-Session-Name: cyroid-images",
        *(f"X-Docker-Expose-Session-Grpc-Method: {method}" for method in methods),
    ]
    writer.write("\r\n".join([*headers, "", ""]).encode())
    await writer.drain()
    answer = (await reader.readuntil(b"\r\n\r\n")).decode(errors="replace")
    status = answer.partition("\r\n")[0]
    if " 101" not in status:
        raise OSError(f"it answered {status!r} to POST /session")
