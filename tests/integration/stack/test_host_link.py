"""The way between two hosts, with the real HAProxy, nginx, Redis and registry: who gets in, and what passes."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.container import host_link
from deploy.container.host_link import door, link
from deploy.container.range_proxy import configuration
from deploy.machine.commands import MachineError, need
from deploy.machine.commands import run as run_to_end
from deploy.machine.polling import poll
from deploy.stack import certificates
from deploy.stack.certificates import forget_host, make_door, make_host
from events.bus import BusDenied
from events.redis.client import Commands, connect
from services.runtime.shutdown import Stop
from services.serving import run
from services.settings import Settings
from tests.integration.stack.range_pulls import KEY, NOT_ITS_OWN, Proxy, token
from tests.integration.stack.raw_registry import ask, digest_of, put_image
from tests.laboratory import CacheServer, Lab, RedisServer, RegistryServer, free_port
from tests.simulation import eventually

pytestmark = pytest.mark.real


@dataclass(frozen=True)
class Hosts:
    """Certificates, and how the further host reaches Redis and registry of the first one."""

    certificates: Path
    redis_port: int
    registry_port: int
    door_redis_port: int

    @property
    def redis_url(self) -> str:
        return f"redis://127.0.0.1:{self.redis_port}/0"

    @property
    def registry_url(self) -> str:
        return f"http://127.0.0.1:{self.registry_port}"


@contextmanager
def haproxy(file: Path, text: str, *ports: int) -> Iterator[None]:
    """Running until it listens on all of these."""
    file.write_text(text)
    with subprocess.Popen([need("haproxy", "haproxy"), "-db", "-f", str(file)]) as process:
        try:
            assert poll(lambda: all(map(_listens, ports)), seconds=30, every=0.1)
            yield
        finally:
            process.terminate()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def hosts(
    redis_server: RedisServer, registry_server: RegistryServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Hosts]:
    """A door, and the link of host `b`, on loopback."""
    folder = tmp_path_factory.mktemp("hosts")
    make_door(folder, ["127.0.0.1"])
    own = make_host(folder, "b")
    for_redis, for_registry, redis, registry, health, other = (free_port() for _ in range(6))
    first = door(
        redis=f"127.0.0.1:{redis_server.port}",
        registry=registry_server.address,
        redis_listen=f"127.0.0.1:{for_redis}",
        registry_listen=f"127.0.0.1:{for_registry}",
        health_listen=f"127.0.0.1:{health}",
        certificates=folder / "door",
    )
    further = link(
        "127.0.0.1",
        redis_port=for_redis,
        registry_port=for_registry,
        redis_listen=f"127.0.0.1:{redis}",
        registry_listen=f"127.0.0.1:{registry}",
        health_listen=f"127.0.0.1:{other}",
        certificates=own,
    )
    with ExitStack() as stack:
        stack.enter_context(haproxy(folder / "door.cfg", first, for_redis, for_registry))
        stack.enter_context(haproxy(folder / "link.cfg", further, redis, registry))
        yield Hosts(folder, redis, registry, for_redis)


def direct(hosts: Hosts, authority: Path, own: Path | None) -> str:
    """The URL of a role that speaks TLS itself, without a link."""
    named = f"&ssl_certfile={own}&ssl_keyfile={own}" if own else ""
    return f"rediss://127.0.0.1:{hosts.door_redis_port}/0?ssl_ca_certs={authority}{named}"


async def said(url: str) -> str:
    """What PING is answered. Raises BusError."""
    async with Commands(connect(url, socket_timeout=10, name="test", prefix="cyroid")) as commands:
        return bytes(await commands.call("PING")).decode()


async def test_roles_of_a_further_host_work_through_the_link(hosts: Hosts, unique: str, tmp_path: Path) -> None:
    """A role that blocks on Redis and one that listens for ranges start, and say that they are there."""
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    settings = Settings(
        redis_url=hosts.redis_url,
        key_prefix=unique,
        registry_url=hosts.registry_url,
        gateway_listen=f"127.0.0.1:{free_port()}",
        gateway_secrets=str(secrets),
        host_id="b",
        drain_seconds=0.0,
    )
    stop = Stop()
    running = asyncio.create_task(run(settings, ["deployer", "range-gateway"], stop))
    try:
        async with Commands(connect(hosts.redis_url, socket_timeout=10, name="test", prefix=unique)) as commands:

            async def there() -> bool:
                return int(await commands.call("ZCARD", f"{unique}:index:roles")) >= 2

            await eventually(there, within_seconds=60)
    finally:
        stop.ask()
        stop.ask()
        await running


async def test_a_role_may_speak_tls_itself(hosts: Hosts) -> None:
    """For hosts without a link: the URL names the files."""
    own = hosts.certificates / "hosts" / "b"
    assert await said(direct(hosts, own / "ca.pem", own / "own.pem")) == "PONG"


@pytest.mark.parametrize("what", ["wrong authority", "wrong certificate", "no certificate", "expired", "door expired"])
async def test_a_certificate_that_is_wrong_is_one_clear_error(
    hosts: Hosts, lab: Lab, tmp_path: Path, what: str
) -> None:
    """Of Redis or of the role, not signed by our authority, or past its date."""
    own, wrong = hosts.certificates / "hosts" / "b", tmp_path / "wrong"
    if what == "door expired":
        past = make_door(tmp_path / "past", ["127.0.0.1"], days=-1)
        port = free_port()
        files = {"tls_cert_file": str(past / "own.pem"), "tls_key_file": str(past / "own.pem")}
        lab.redis(
            "redis-past", tls_port=str(port), tls_ca_cert_file=str(past / "ca.pem"), tls_auth_clients="no", **files
        )
        url, told = f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={past / 'ca.pem'}", "has expired.*renew it"
    elif what == "wrong authority":
        url = direct(hosts, make_host(wrong, "b") / "ca.pem", own / "own.pem")
        told = "certificate is not trusted .*ssl_ca_certs"
    elif what == "wrong certificate":
        url, told = direct(hosts, own / "ca.pem", make_host(wrong, "b") / "own.pem"), "unknown ca.*ssl_certfile"
    elif what == "no certificate":
        url, told = direct(hosts, own / "ca.pem", None), "certificate required.*ssl_certfile"
    else:
        late = make_host(hosts.certificates, "late", days=-1)
        url, told = direct(hosts, late / "ca.pem", late / "own.pem"), "certificate expired.*ssl_certfile"
    with pytest.raises(BusDenied, match=told):
        await said(url)


def test_an_unlisted_host_is_not_let_in(hosts: Hosts) -> None:
    """The authority signed it, the door's list does not have it: neither Redis nor registry."""
    own = make_host(hosts.certificates, "unlisted") / "own.pem"  # listed by now, but the door was started before
    forget_host(hosts.certificates, "unlisted")
    context = ssl.create_default_context(cafile=str(hosts.certificates / "authority/ca.pem"))
    context.load_cert_chain(own)
    raw = socket.create_connection(("127.0.0.1", hosts.door_redis_port), timeout=10)
    with context.wrap_socket(raw, server_hostname="cyroid-door") as connection:
        try:
            connection.sendall(b"PING\r\n")
            assert connection.recv(100) == b""
        except OSError:
            pass
    assert "unlisted" not in (hosts.certificates / "door/hosts").read_text().split()


def test_the_commands_do_what_the_functions_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As docs/hosts.md has them, and HAProxy takes what they print."""
    folder = str(tmp_path)
    for words in (["door", folder, "--also", "10.0.0.1", "a.example"], ["host", folder, "b"], ["host", folder, "c"]):
        assert certificates.main(words) == 0
    assert certificates.main(["forget", folder, "c"]) == 0
    assert (tmp_path / "door/hosts").read_text() == "b\n"
    assert certificates.main(["host", folder, "../c"]) == 1
    capsys.readouterr()
    for place, words in (("door", ["door"]), ("hosts/b", ["link", "10.0.0.1"])):
        host_link.main(["--certificates", str(tmp_path / place), *words])
        file = tmp_path / "haproxy.cfg"
        file.write_text(capsys.readouterr().out)
        run_to_end([need("haproxy", "haproxy"), "-c", "-f", str(file)])
    for wrong in ("10.0.0.1 ssl", "", "a/b"):
        with pytest.raises(ValueError, match="no address"):
            link(wrong)


def test_a_hosts_certificate_is_no_doors(hosts: Hosts) -> None:
    """A host that stands in for the door is refused by the others: its certificate proves a client alone."""
    own = hosts.certificates / "hosts/b/own.pem"
    authority = hosts.certificates / "authority/ca.pem"
    verify = [need("openssl", "openssl"), "verify", "-CAfile", str(authority), "-purpose"]
    assert "OK" in run_to_end([*verify, "sslclient", str(own)])
    with pytest.raises(MachineError, match="purpose"):
        run_to_end([*verify, "sslserver", str(own)])


def test_a_host_pushes_and_deletes_nothing(hosts: Hosts) -> None:
    """A registry-pusher writes through the link, and gets back addresses that lead through it; deletion is refused."""
    layer = b"from b" * 1000
    manifest = put_image(hosts.registry_url, "hosts/pushed", layer)
    assert ask(f"{hosts.registry_url}/v2/hosts/pushed/blobs/{digest_of(layer)}").body == layer
    for one in (f"manifests/{manifest}", f"blobs/{digest_of(layer)}"):
        assert ask(f"{hosts.registry_url}/v2/hosts/pushed/{one}", method="DELETE").status == 405


@pytest.fixture(scope="module")
def far_proxy(
    hosts: Hosts, lab: Lab, registry_server: RegistryServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxy]:
    """The range proxy of the further host: before its cache, whose origin is the link."""
    place = lab.place("far-cache")
    cache = lab.start(CacheServer("far-cache", place, lab.mark, origin=hosts.registry_url))
    layer = b"a layer of web" * 100
    manifest = put_image(registry_server.url, "team/web", layer)
    port, other, health = free_port(), free_port(), free_port()
    text = configuration(
        KEY,
        registry=cache.address,
        tar_server=cache.address,
        registry_listen=f"127.0.0.1:{port}",
        tar_listen=f"127.0.0.1:{other}",
        health_listen=f"127.0.0.1:{health}",
    )
    with haproxy(tmp_path_factory.mktemp("far") / "haproxy.cfg", text, port):
        yield Proxy(f"http://127.0.0.1:{port}", manifest, digest_of(layer))


def test_a_range_of_a_further_host_gets_what_its_token_names(far_proxy: Proxy) -> None:
    """Through its own proxy and cache, the link and the door; and nothing else, as on the first host."""
    for path in ("/v2/", f"/v2/team/web/manifests/{far_proxy.manifest}", f"/v2/team/web/blobs/{far_proxy.layer}"):
        assert far_proxy.get(path, token()) == 200, path
        assert far_proxy.get(path) == 401
    assert {far_proxy.get(path, token()) for path in NOT_ITS_OWN} <= {403, 404}
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        path = f"/v2/team/web/manifests/{far_proxy.manifest}"
        assert far_proxy.get(path, token(), method=method, data=b"{}") == 405
    for wrong in (token(key="f" * 48), token("team/other"), token(age_seconds=3600)):
        assert far_proxy.get(f"/v2/team/web/manifests/{far_proxy.manifest}", wrong) in (401, 403)
