"""Archives of another host's tar server, for a range of any host: through its proxy, link and door."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import aiohttp
import pytest

from deploy.container.host_proxies import FIRST_TAR_NAME, proved_name
from deploy.container.range_proxy import configuration
from tests.integration.stack.between_hosts import Hosts, haproxy
from tests.integration.stack.range_pulls import KEY
from tests.laboratory import free_port
from tests.unit.services.agent.archive_server import serving
from tests.unit.services.agent.scene import BASE, TOOLS, Scene

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def ports(hosts: Hosts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    """Where a range of the further, one of the first and one of a third host find tar servers."""
    folder = tmp_path_factory.mktemp("proxies")
    found = {"further": free_port(), "first": free_port(), "third": free_port()}
    down = f"127.0.0.1:{free_port()}"
    own = {"further": hosts.further_tar_port, "first": hosts.tar_server_port}
    texts = {
        name: configuration(
            KEY,
            registry=down,
            tar_server=f"127.0.0.1:{own[name]}" if name in own else down,
            far_tar=f"127.0.0.1:{hosts.door_tar_port if name == 'first' else hosts.link_tar_port}",
            further=name != "first",
            name={"further": "b", "third": "c"}.get(name, ""),
            registry_listen=f"127.0.0.1:{free_port()}",
            tar_listen=f"127.0.0.1:{port}",
            health_listen=f"127.0.0.1:{free_port()}",
        )
        for name, port in found.items()
    }
    with ExitStack() as stack:
        for name, port in found.items():
            stack.enter_context(haproxy(folder / f"{name}.cfg", texts[name], port))
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
    """Whose tar server is down here; the first host's is not asked instead, and no further host's either."""
    scene = Scene()
    image = scene.build(BASE)
    async with serving(scene, tmp_path, listen=f"127.0.0.1:{hosts.tar_server_port}") as server:
        _, token = await server.offer(image)
        assert (await asked(ports["further"], "/transfers/t1", token, name="cyroid-tar"))[0] == 503
        assert (await asked(ports["first"], "/transfers/t1", token, name="cyroid-tar"))[0] == 200


async def test_a_range_of_any_host_gets_an_archive_of_a_further_hosts_engine(
    hosts: Hosts, ports: dict[str, int], tmp_path: Path
) -> None:
    """Under the name that the further host says: on the first host by the door, on a third one by link and door."""
    scene = Scene()
    image = scene.build(BASE, TOOLS)
    async with serving(scene, tmp_path, listen=f"127.0.0.1:{hosts.further_tar_port}") as server:
        for number, port in enumerate(ports.values()):
            path = f"/hosts/b/transfers/f{number}"
            _, token = await server.offer(image, f"f{number}")
            assert (await asked(port, path))[0] == 401
            assert (await asked(port, path, "x" * 43))[0] == 403
            status, archive = await asked(port, path, token)
            assert status == 200
            assert all(layer in archive for layer in (BASE, TOOLS))
            assert (await asked(port, path, token))[0] == 409


async def test_a_range_of_the_host_itself_goes_no_further_than_its_own_tar_server(
    ports: dict[str, int], hosts: Hosts, tmp_path: Path
) -> None:
    """Also under the name for all hosts: nothing crosses the line twice. The others' paths are not its own."""
    scene = Scene()
    image = scene.build(BASE)
    port, down = free_port(), f"127.0.0.1:{free_port()}"
    text = configuration(
        KEY,
        registry=down,
        tar_server=f"127.0.0.1:{hosts.further_tar_port}",
        far_tar=down,
        further=True,
        name="b",
        registry_listen=f"127.0.0.1:{free_port()}",
        tar_listen=f"127.0.0.1:{port}",
        health_listen=f"127.0.0.1:{free_port()}",
    )
    with haproxy(tmp_path / "alone.cfg", text, port):
        async with serving(scene, tmp_path, listen=f"127.0.0.1:{hosts.further_tar_port}") as server:
            _, token = await server.offer(image)
            for other in ("/transfers/t1", "/hosts/c/transfers/t1", "/hosts/b.c/transfers/t1"):
                assert (await asked(port, other, token))[0] == 503
            assert (await asked(port, "/hosts/b/transfers/t1", token))[0] == 200


@pytest.mark.parametrize("place", ["first", "third"])
async def test_a_host_without_an_address_is_one_clear_error(ports: dict[str, int], place: str) -> None:
    """Nobody retries for long: the operator is told what was not given. One whose link is down may come back."""
    status, body = await asked(ports[place], "/hosts/d/transfers/t1", "x" * 43)
    said = json.loads(body)
    assert (status, said["code"]) == (404, "host_unreachable")
    assert "--address" in said["detail"]
    assert (await asked(ports[place], "/hosts/b.c/transfers/t1", "x" * 43))[0] == 503


async def test_at_a_further_host_the_door_alone_gets_in(hosts: Hosts) -> None:
    """Not another host, whose certificate the authority signed as well, and nobody without one; archives alone."""
    home = hosts.certificates
    for own, method, path, status in (
        (home / "hosts/b/own.pem", "GET", "/transfers/t1", 403),
        (home / "door/client.pem", "POST", "/transfers/t1", 405),
        (home / "door/client.pem", "GET", "/v2/", 404),
        (home / "door/client.pem", "GET", "/transfers/../v2/", 404),
    ):
        assert await raw_status(hosts.archives_port, method, path, context(home, own)) == status
    with pytest.raises((OSError, IndexError)):
        await raw_status(hosts.archives_port, "GET", "/transfers/t1", context(home, None))


def context(home: Path, own: Path | None) -> ssl.SSLContext:
    """What the door shows, or somebody else; the name in the other's certificate has to be that of host `b`."""
    made = ssl.create_default_context(cafile=str(home / "authority/ca.pem"))
    if own is not None:
        made.load_cert_chain(own)
    return made


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
        ("POST", "/hosts/b/transfers/t1", 405),
        ("DELETE", "/hosts/b/transfers/t1", 405),
        ("GET", "/hosts/b/v2/", 404),
        ("GET", "/hosts/b/transfers/../../v2/_catalog", 404),
        ("GET", "/hosts/../transfers/t1", 404),
        ("GET", "/hosts//transfers/t1", 404),
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


async def raw_status(port: int, method: str, path: str, tls: ssl.SSLContext | None = None) -> int:
    """The status of a request whose path is sent as it is. With `tls` to the link of host `b`."""
    name = proved_name("b") if tls is not None else None
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname=name)
    try:
        writer.write(f"{method} {path} HTTP/1.1\r\nHost: {FIRST_TAR_NAME}\r\nConnection: close\r\n\r\n".encode())
        async with asyncio.timeout(60):
            return int((await reader.readline()).split()[1])
    finally:
        writer.close()
