"""Archives of the first host's tar server, for a range of another host: through its proxy, the link and the door."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from deploy.container.host_link import FIRST_TAR_NAME
from deploy.container.range_proxy import configuration
from tests.integration.stack.between_hosts import Hosts, haproxy
from tests.integration.stack.range_pulls import KEY
from tests.laboratory import free_port
from tests.unit.services.agent.archive_server import serving
from tests.unit.services.agent.scene import BASE, TOOLS, Scene

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def ports(hosts: Hosts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    """Where a range of the further and one of the first host find tar servers. That of the further host is down."""
    folder = tmp_path_factory.mktemp("proxies")
    found = {"further": free_port(), "first": free_port()}
    down = f"127.0.0.1:{free_port()}"
    texts = {
        name: configuration(
            KEY,
            registry=down,
            tar_server=down if name == "further" else f"127.0.0.1:{hosts.tar_server_port}",
            first_tar=f"127.0.0.1:{hosts.link_tar_port}" if name == "further" else None,
            registry_listen=f"127.0.0.1:{free_port()}",
            tar_listen=f"127.0.0.1:{port}",
            health_listen=f"127.0.0.1:{free_port()}",
        )
        for name, port in found.items()
    }
    with (
        haproxy(folder / "further.cfg", texts["further"], found["further"]),
        haproxy(folder / "first.cfg", texts["first"], found["first"]),
    ):
        yield found


async def asked(
    port: int, path: str, token: str | None = None, *, name: str = FIRST_TAR_NAME, method: str = "GET"
) -> tuple[int, bytes]:
    """Status and body, as a range gets them that calls the tar server `name`."""
    headers = {"Host": f"{name}:7070"} | ({"Authorization": f"Bearer {token}"} if token else {})
    url = f"http://127.0.0.1:{port}{path}"
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(60)) as session,
        session.request(method, url, headers=headers) as answer,
    ):
        return answer.status, await answer.read()


async def test_a_range_gets_an_archive_of_the_first_hosts_engine(
    hosts: Hosts, ports: dict[str, int], tmp_path: Path
) -> None:
    """With the token of its offer, once; a range of the first host uses the same name. The registry has nothing."""
    scene = Scene()
    image = scene.build(BASE, TOOLS)
    async with serving(scene, tmp_path, listen=f"127.0.0.1:{hosts.tar_server_port}") as server:
        for number, port in enumerate(ports.values()):
            path = f"/transfers/t{number}"
            _, token = await server.offer(image, f"t{number}")
            assert (await asked(port, path))[0] == 401
            assert (await asked(port, path, "x" * 43))[0] == 403
            status, archive = await asked(port, path, token)
            assert status == 200
            assert all(layer in archive for layer in (BASE, TOOLS))
            assert (await asked(port, path, token))[0] == 409


async def test_by_the_other_name_a_range_asks_its_own_host(hosts: Hosts, ports: dict[str, int], tmp_path: Path) -> None:
    """Whose tar server is down here; the first host's is not asked instead."""
    scene = Scene()
    image = scene.build(BASE)
    async with serving(scene, tmp_path, listen=f"127.0.0.1:{hosts.tar_server_port}") as server:
        _, token = await server.offer(image)
        assert (await asked(ports["further"], "/transfers/t1", token, name="cyroid-tar"))[0] == 503
        assert (await asked(ports["first"], "/transfers/t1", token, name="cyroid-tar"))[0] == 200


async def test_an_archive_that_breaks_off_never_ends_cleanly(
    hosts: Hosts, ports: dict[str, int], tmp_path: Path
) -> None:
    """With and without a length the range gets an error, whatever is in between."""
    scene = Scene()
    image = scene.build(BASE)
    async with serving(scene, tmp_path, listen=f"127.0.0.1:{hosts.tar_server_port}") as server:
        server.source.broken = True
        for knows in (True, False):
            server.source.knows_sizes = knows
            _, token = await server.offer(image, f"broken-{knows}")
            with pytest.raises(aiohttp.ClientError):
                await asked(ports["further"], f"/transfers/broken-{knows}", token)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/transfers/t1", 405),
        ("PUT", "/transfers/t1", 405),
        ("DELETE", "/transfers/t1", 405),
        ("GET", "/v2/", 404),
        ("GET", "/v2/_catalog", 404),
        ("GET", "/transfers/../v2/_catalog", 404),
        ("GET", "/transfers/%2e%2e/v2/_catalog", 404),
        ("GET", "/transfers/", 404),
        ("GET", "/transfers/t1/x", 404),
        ("GET", "//transfers/t1", 404),
        ("GET", "/healthz", 404),
    ],
)
async def test_nothing_but_archives_passes(
    ports: dict[str, int], hosts: Hosts, method: str, path: str, status: int
) -> None:
    """Not the registry, which is behind the same door: a range asks for that with the token of a pull."""
    assert await raw_status(ports["further"], method, path) == status
    assert await raw_status(hosts.link_tar_port, method, path) == status


async def test_the_door_itself_takes_no_more(hosts: Hosts) -> None:
    """A further host that is broken into, and goes around its link's rules, reads archives alone as well."""
    for method in ("POST", "PUT", "DELETE"):
        assert await raw_status(hosts.registry_port, method, "/transfers/t1") == 405


async def raw_status(port: int, method: str, path: str) -> int:
    """The status of a request whose path is sent as it is."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"{method} {path} HTTP/1.1\r\nHost: {FIRST_TAR_NAME}\r\nConnection: close\r\n\r\n".encode())
        async with asyncio.timeout(60):
            return int((await reader.readline()).split()[1])
    finally:
        writer.close()
