"""The way between two hosts, with the real HAProxy, nginx, Redis and registry: who gets in, and what passes."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.container import host_link
from deploy.container.health import problem_at
from deploy.container.host_link import link
from deploy.container.range_proxy import configuration
from deploy.machine.commands import MachineError, need
from deploy.machine.commands import run as run_to_end
from deploy.machine.polling import poll
from deploy.stack import certificates
from deploy.stack.certificates import forget_host, make_door, make_host
from events.bus import BusDenied
from events.redis.client import Commands, connect
from services.doctor.checks import Checks
from services.resources import open_resources
from services.runtime.shutdown import Stop
from services.serving import run
from services.settings import Settings
from tests.integration.stack.between_hosts import Hosts, haproxy
from tests.integration.stack.range_pulls import KEY, NOT_ITS_OWN, Proxy, token
from tests.integration.stack.raw_registry import ask, digest_of, put_image
from tests.laboratory import CacheServer, Lab, RegistryServer, free_port
from tests.simulation import eventually

pytestmark = pytest.mark.real


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


@pytest.fixture(scope="module")
def secured(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two Redis that speak TLS themselves; the certificate of the one whose port is in `past` has expired."""
    folder = tmp_path_factory.mktemp("secured")
    make_host(folder, "b")
    for name, days in (("past", -1), ("port", 30)):
        home = make_door(folder, ["127.0.0.1"], days=days)
        (folder / name).write_text(str(port := free_port()))
        own = {"tls_cert_file": str(home / "own.pem"), "tls_key_file": str(home / "own.pem")}
        lab.redis(f"redis-tls-{name}", tls_port=str(port), tls_ca_cert_file=str(home / "ca.pem"), **own)
    return folder


@pytest.mark.parametrize(
    ("what", "state", "told"),
    [
        ("all well", "ok", "answers at rediss://127.0.0.1"),
        ("wrong authority", "wrong", "Redis's certificate is not trusted"),
        ("expired", "wrong", "Redis's certificate cannot be used (certificate has expired): renew it"),
        ("no certificate", "wrong", "Redis does not take our certificate (certificate required)"),
        ("wrong certificate", "wrong", "Redis does not take our certificate (unknown ca)"),
    ],
)
async def test_doctor_names_what_is_wrong_with_a_certificate(
    secured: Path, tmp_path: Path, what: str, state: str, told: str
) -> None:
    """Asked of a Redis that speaks TLS itself and wants to be shown a certificate."""
    port = (secured / ("past" if what == "expired" else "port")).read_text()
    own = secured / "hosts" / "b"
    other = make_host(tmp_path, "b") if what.startswith("wrong") else own
    authority = (other if what == "wrong authority" else own) / "ca.pem"
    shown = (other if what == "wrong certificate" else own) / "own.pem"
    url = f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={authority}"
    if what != "no certificate":
        url += f"&ssl_certfile={shown}&ssl_keyfile={shown}"
    async with open_resources(Settings(redis_url=url)) as there:
        checks = Checks(
            there.settings, bus=there.bus, concerns=there.concerns, engine=there.host_engine, registry=there.registry
        )
        found = next(one for one in await checks.run() if one.what == "redis")
    assert found.state == state
    assert told in found.found
    assert found.advice == ("" if state == "ok" else "see docs/hosts.md for certificates between hosts")


def test_an_unlisted_host_is_not_let_in(hosts: Hosts, tmp_path: Path) -> None:
    """The authority signed it, the door's list does not have it: neither Redis nor registry."""
    own = tmp_path / "own.pem"  # listed by now, but the door was started before
    own.write_text((make_host(hosts.certificates, "unlisted") / "own.pem").read_text())
    forget_host(hosts.certificates, "unlisted")
    assert not (hosts.certificates / "hosts/unlisted").exists()
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


@pytest.mark.parametrize(("name", "let_in"), [("b", True), ("stranger", False)])
def test_a_link_is_well_only_where_the_door_lets_it_in(hosts: Hosts, tmp_path: Path, name: str, let_in: bool) -> None:
    """The certificate of a host that was removed is still good, so a connection alone says nothing: Redis has to."""
    own = hosts.certificates / "hosts" / name
    if not let_in:
        listed = (hosts.certificates / "door/hosts").read_text()
        own = make_host(hosts.certificates, name)  # after the door was started
        (hosts.certificates / "door/hosts").write_text(listed)
    redis, registry, health = (free_port() for _ in range(3))
    text = link(
        "127.0.0.1",
        redis_port=hosts.door_redis_port,
        redis_listen=f"127.0.0.1:{redis}",
        registry_listen=f"127.0.0.1:{registry}",
        health_listen=f"127.0.0.1:{health}",
        certificates=own,
    )

    def well() -> bool:
        return problem_at(f"http://127.0.0.1:{health}/healthz") is None

    with haproxy(tmp_path / "link.cfg", text, redis, health):
        assert poll(lambda: not well(), seconds=15, every=0.5) != let_in  # two checks


def test_the_commands_do_what_the_functions_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As docs/hosts.md has them, and HAProxy takes what they print."""
    folder = str(tmp_path)
    for words in (["door", folder, "--also", "10.0.0.1", "a.example"], ["host", folder, "b"], ["host", folder, "c"]):
        assert certificates.main(words) == 0
    assert certificates.main(["forget", folder, "c"]) == 0
    assert (tmp_path / "door/hosts").read_text() == "b\n"
    assert certificates.main(["host", folder, "../c"]) == 1
    assert certificates.main(["host", folder, "cyroid-door"]) == 1  # as which it could ask others for archives
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
    proof = hosts.certificates / "hosts/b/server.pem"  # with which its link answers the door, under a name of its own
    assert "OK" in run_to_end([*verify, "sslserver", "-verify_hostname", "b.cyroid-host", str(proof)])
    for wrong in (["sslclient", str(proof)], ["sslserver", "-verify_hostname", "cyroid-door", str(proof)]):
        with pytest.raises(MachineError, match=r"purpose|hostname"):
            run_to_end([*verify, *wrong])


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
