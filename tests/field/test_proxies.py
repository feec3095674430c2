"""Proxies between an engine, or a pusher, and the registry: what users behind one reported.

Sources: docker/for-mac#5630, docker/for-mac#5844 (an engine's pulls from a registry of one's own go through its proxy);
goharbor/harbor#20732, distribution/distribution#2270 (a manifest that was acknowledged and is not there).
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer

import pytest

from services.errors import TransferFailed
from services.resources import open_resources
from services.settings import Settings
from tests.images import tar_of
from tests.integration.faulty_registry import faulty_registry
from tests.laboratory import EngineServer, Lab, RedisServer, RegistryServer, System

pytestmark = pytest.mark.real

RANGE = "behind-a-proxy"
#: A name, so that the engine asks its proxy for it: it does not for loopback addresses.
REGISTRY = "registry.test:5000"


class Proxy(ThreadingTCPServer):
    """An HTTP proxy that hangs up on every connection, or (`silent`) takes what comes and never answers."""

    daemon_threads = True

    def __init__(self) -> None:
        self.silent = False
        self.asked = 0
        super().__init__(("127.0.0.1", 0), _Refusal)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


class _Refusal(BaseRequestHandler):
    request: socket.socket

    def handle(self) -> None:
        assert isinstance(self.server, Proxy)
        self.server.asked += 1
        self.request.recv(4096)
        while self.server.silent and self.request.recv(4096):
            pass


@pytest.fixture(scope="module")
def proxy() -> Iterator[Proxy]:
    with Proxy() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def system(
    lab: Lab,
    redis_server: RedisServer,
    registry_server: RegistryServer,
    engine_servers: Callable[[str], EngineServer],
    proxy: Proxy,
) -> Iterator[System]:
    """A range whose engine was told to use the proxy, and whose registry has a name."""
    options = [f"--http-proxy=http://user:hidden@{proxy.address}", f"--https-proxy=http://user:hidden@{proxy.address}"]
    engine = lab.engine("proxied", version="28.5", options=options)
    system = System(
        lab=lab,
        redis=redis_server,
        registry=registry_server,
        host=engine_servers("machine"),
        ranges={RANGE: engine},
        prefix="proxies",
        settings={"spool_folder": lab.folder / "spool-proxies", "registry_address": REGISTRY, "stall_seconds": 3},
    )
    servers = [system.services(name="services-proxies"), system.agent(RANGE)]
    yield system
    for server in (*servers, engine):
        server.stop()


@pytest.mark.parametrize("silent", [False, True], ids=["hangs up", "silent"])
def test_a_deployment_behind_a_proxy_goes_by_tar_and_says_so(
    system: System, proxy: Proxy, unique: str, tmp_path: Path, *, silent: bool
) -> None:
    """With the proxy by name, and what to do, without its password; doctor names the range."""
    proxy.silent = silent
    asked = proxy.asked
    name = f"behind/{unique}:1"
    archive = tmp_path / "files.tar"
    archive.write_bytes(tar_of({"t/file": unique.encode()}))
    system.host.docker("import", str(archive), name)
    said = system.cli("deploy", RANGE, name)
    assert said.status == 0, said.talk
    (image,) = said.data["images"]
    assert image["how"] == "loaded"
    assert proxy.asked > asked
    why = image["not_pulled"]["message"]
    assert f"this engine goes through the proxy http://xxxxx:***@{proxy.address}" in why
    assert "add registry.test to the engine's NO_PROXY" in why
    assert f"docker.io/{name} goes by tar: " in said.talk
    findings = {row["what"]: row for row in system.cli("doctor").data["items"]}
    assert findings["proxies"]["state"] == "note"
    assert f"{RANGE}: this engine goes through the proxy" in findings["proxies"]["found"]
    assert "hidden" not in f"{said}{findings}"


async def test_a_proxy_that_swallows_manifests_is_noticed(  # noqa: PLR0917  pytest hands fixtures over by name
    engine_servers: Callable[[str], EngineServer],
    registry_server: RegistryServer,
    redis_server: RedisServer,
    key_prefix: str,
    unique: str,
    tmp_path: Path,
) -> None:
    """The push of an engine's image fails with that reason, and the registry has no such tag."""
    host, name = engine_servers("machine"), f"swallowed/{unique}:1"
    (tmp_path / "files.tar").write_bytes(tar_of({"t/file": unique.encode()}))
    host.docker("import", str(tmp_path / "files.tar"), name)
    async with faulty_registry(registry_server.url) as proxy:
        settings = Settings(
            redis_url=redis_server.url,
            key_prefix=key_prefix,
            host_engine_url=host.url,
            engine_root=str(host.root),
            registry_url=f"http://{proxy.address}",
        )
        async with open_resources(settings) as resources:
            proxy.swallows_manifests = True
            push = await resources.image_push()
            with pytest.raises(TransferFailed) as raised:
                await push.push(name)
            assert raised.value.code == "manifest_lost"
            registry = await resources.registry()
            assert await registry.manifest(f"swallowed/{unique}", "1") is None
            proxy.swallows_manifests = False
            assert await registry.manifest(f"swallowed/{unique}", (await push.push(name)).manifest_digest) is not None
