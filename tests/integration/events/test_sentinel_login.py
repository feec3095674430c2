"""Sentinels that want a password, with servers that speak TLS alone: real ones, with certificates of an authority."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest

from bench.faults.workload import insist
from deploy.container.acl import Passwords, users_file
from deploy.container.redis_users import main
from deploy.machine.polling import poll
from deploy.stack.certificates import make_authority, make_door, make_host
from events.bus import BusDenied
from events.envelope import Envelope
from events.messages import PushRequested
from events.redis.bus import RedisBus
from events.redis.client import Commands, connect
from events.redis.urls import login_of
from services.doctor.replication import check_replication
from tests.laboratory import SERVICE, Lab, RedisServer, RedisTls, SentinelServer, redis_cli
from tests.simulation import eventually

pytestmark = [
    pytest.mark.real,
    # The goodbye of TLS on a connection that was refused is left to the event loop, which ends with the test.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

PASSWORDS = Passwords(services="s", gateway="g", operator="o", admin="a", replica="r", sentinel="n")
STREAM = "cyroid:effects"
#: What a client asks a sentinel, and nothing else.
ASKER = "user asker on >q& resetchannels -@all +auth +hello +client|setname +sentinel|masters +sentinel|slaves"


@dataclass(frozen=True, slots=True)
class Group:
    """A master, a replica, and the sentinel that watches them."""

    nodes: tuple[RedisServer, RedisServer]
    sentinel: SentinelServer
    tls: RedisTls

    def url(self, asking: str = "sentinel_password=w", authority: Path | None = None, scheme: str = "rediss") -> str:
        files = f"ssl_certfile={self.tls.client}&ssl_keyfile={self.tls.client}"
        trusted = f"&ssl_ca_certs={authority or self.tls.authority}&{files}" if scheme == "rediss" else ""
        return f"{scheme}+sentinel://cyroid:s@127.0.0.1:{self.sentinel.port}/{SERVICE}/0?{asking}{trusted}"

    def info(self, node: RedisServer) -> str:
        return redis_cli(node.port, "info", "replication", account=("operator", "o"), tls=self.tls)


@pytest.fixture(scope="module")
def group(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Group]:
    folder = tmp_path_factory.mktemp("tls")
    server = make_door(folder, ["127.0.0.1"]) / "own.pem"
    tls = RedisTls(make_authority(folder), server, make_host(folder, "services") / "own.pem")
    nodes: list[RedisServer] = []
    for number in range(2):
        users = folder / f"{number}.acl"
        users.write_text(users_file("cyroid", PASSWORDS))
        follows = {"replicaof": f"127.0.0.1 {nodes[0].port}"} if nodes else {}
        login = {"aclfile": str(users), "masteruser": "replica", "masterauth": "r", "repl_diskless_sync_delay": "0"}
        name = f"tls-{number}"
        nodes.append(lab.start(RedisServer(name, lab.place(name), lab.mark, login | follows, tls=tls)))
    sentinel = SentinelServer(
        "tls-sentinel",
        lab.place("tls-sentinel"),
        lab.mark,
        nodes[0],
        account=("sentinel", "n"),
        directives=("requirepass w", ASKER),
        asking=("default", "w"),
        tls=tls,
    )
    lab.start(sentinel)
    known = Group((nodes[0], nodes[1]), sentinel, tls)
    assert poll(lambda: "connected_slaves:1" in known.info(nodes[0]), seconds=60)
    assert poll(lambda: str(nodes[1].port) in sentinel.ask("sentinel", "replicas", SERVICE), seconds=60)
    yield known
    for one in (sentinel, *nodes):
        one.stop()


def _envelope(number: int) -> Envelope:
    return Envelope(message=PushRequested(reference=f"docker.io/library/n{number}:1"), source="test", subject="n")


async def test_replicas_are_tried_and_given_users_over_tls(
    group: Group, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the certificates and the sentinels' password of the services' URL."""
    url = group.url()
    folder = tmp_path / "data"
    for name, text in (
        ("redis/users.acl", users_file("cyroid", PASSWORDS)),
        ("secrets/services/redis_url", f"{url}\n"),
        ("secrets/admin/redis_password", "a\n"),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    assert poll(lambda: any("master_link_status:up" in group.info(one) for one in group.nodes), seconds=60)
    for node in (one for one in group.nodes if "role:slave" in group.info(one)):
        assert redis_cli(node.port, "acl", "deluser", "cyroid", account=("admin", "a"), tls=group.tls) == "1"
    async with RedisBus.open(url, timeout_seconds=2.0) as bus:

        async def logins() -> list[str]:
            found = await bus.replication(login_of(url))
            return [one.login for one in found.replicas if one.online] if found else []

        async def refused() -> bool:
            return await logins() == ["refused"]

        await eventually(refused, within_seconds=60)
        assert await asyncio.to_thread(main, [str(folder)]) == 0
        assert capsys.readouterr().out.count("has the users") == 2
        assert await logins() == ["in"]
        told = check_replication(await bus.replication(login_of(url)), redis_url=url, confirm_replicas=1)
        assert "one replica confirms each commit" in told
    nodes = ",".join(f"127.0.0.1:{one.port}" for one in group.nodes)
    assert await asyncio.to_thread(main, [str(folder), "--nodes", nodes]) == 0
    (folder / "secrets/services/redis_url").write_text(group.url("sentinel_password=wrong"))
    assert await asyncio.to_thread(main, [str(folder)]) == 1
    said = capsys.readouterr().err
    assert "no users were set" in said
    assert "sentinel_password" not in said


async def test_work_goes_on_at_the_new_master(group: Group) -> None:
    """With the sentinels' one password, and as a user who may ask for masters alone."""
    as_user = group.url(f"sentinel_username=asker&sentinel_password={quote('q&')}")
    first, second = _envelope(1), _envelope(2)
    async with RedisBus.open(group.url(), timeout_seconds=2.0, confirm_replicas=1) as bus:
        assert [concern for concern in await bus.preflight() if concern.stops] == []
        await insist(bus, STREAM, [first])
    async with RedisBus.open(as_user, timeout_seconds=2.0) as bus:
        assert [entry.envelope.id async for entry in bus.tail([STREAM], after="0", follow=False) if entry.envelope] == [
            first.id
        ]
        before = next(one for one in group.nodes if "role:master" in group.info(one))
        await asyncio.to_thread(before.kill)
        try:
            await insist(bus, STREAM, [second])
            entries = [entry async for entry in bus.tail([STREAM], after="0", follow=False)]
            assert [entry.envelope.id for entry in entries if entry.envelope] == [first.id, second.id]
        finally:
            await asyncio.to_thread(before.start)


@pytest.mark.parametrize(
    ("asking", "told"),
    [
        ("", "the sentinels of Redis do not let us in .*: correct sentinel_username and sentinel_password"),
        ("sentinel_password=wrong1", "the sentinels of Redis do not let us in"),
        ("sentinel_username=nobody&sentinel_password=wrong1", "the sentinels of Redis do not let us in"),
    ],
)
async def test_a_wrong_password_of_the_sentinels_is_named(group: Group, asking: str, told: str) -> None:
    """Not as Redis's own, and not as a server that is away; without the password."""
    async with Commands(connect(group.url(asking), socket_timeout=2.0, name="t", prefix="p")) as commands:
        with pytest.raises(BusDenied, match=told) as denied:
            await commands.call("PING")
        assert "wrong1" not in str(denied.value)


async def test_a_certificate_that_is_not_trusted_is_named(group: Group, tmp_path: Path) -> None:
    """That of a sentinel is looked at first."""
    other = make_authority(tmp_path)
    async with Commands(connect(group.url(authority=other), socket_timeout=2.0, name="t", prefix="p")) as commands:
        with pytest.raises(BusDenied, match="Redis's certificate is not trusted"):
            await commands.call("PING")
