"""No secret of a setting leaves a running process: neither in its log nor in an answer over HTTP."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator

import msgspec
import pytest
import redis

from deploy.machine.polling import poll
from services.api.routes import ROUTES
from services.core.secrets import is_secret
from services.settings import Settings
from tests.laboratory import Lab, RedisServer, RoleServer, free_port

pytestmark = pytest.mark.real

#: Secrets of one registry, of which a process has one kind at a time.
CREDENTIALS: dict[str, dict[str, object]] = {
    "in the URL": {"registry_url": "http://me:secret-url@127.0.0.1:1"},
    "a password": {"registry_url": "http://127.0.0.1:1", "registry_username": "me", "registry_password": "secret-pass"},
    "a token": {"registry_url": "http://127.0.0.1:1", "registry_token": "secret-token"},
}
#: Those of every process here; the engines and CYROID do not answer either.
OTHERS: dict[str, object] = {
    "registry_auth": "token",
    "registry_pull_key": "secretkey" * 6,
    "host_engine_url": "tcp://me:secret-engine@127.0.0.1:1",
    "engine_url": "tcp://me:secret-range@127.0.0.1:1",
    "api_cyroid_url": "http://me:secret-cyroid@127.0.0.1:1",
    "range_id": "secrets",
}
#: Not here: with a name in it the start is refused, which `tests/unit/services/cli/test_secrets_in_output.py` tries.
ELSEWHERE = {"tar_url", "upload_url"}


@pytest.fixture
def redis_user(redis_server: RedisServer, unique: str) -> Iterator[str]:
    """The URL of the shared Redis for a user with a password."""
    with redis.Redis.from_url(redis_server.url) as client:
        client.acl_setuser(f"u{unique}", enabled=True, passwords=["+secret-redis"], keys=["*"], categories=["+@all"])
        yield redis_server.url.replace("redis://", f"redis://u{unique}:secret-redis@")
        client.acl_deluser(f"u{unique}")


def _forbid(url: str) -> None:
    """Redis does not know the user's password any more, and ends its connections."""
    with redis.Redis.from_url(url) as client:
        user = client.acl_whoami()
        client.acl_setuser(user, enabled=True, reset_passwords=True, passwords=["+another"], keys=["*"])
        client.client_kill_filter(user=str(user))


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.socket() as connection:
        return connection.connect_ex((host, int(port))) == 0


def _answers(address: str) -> str:
    """What every route of the API says that reads, and the commands that a registry and an engine are asked for."""
    said = []
    for route in ROUTES:
        path = route.path.replace("{reference:.+}", "a/b:1").replace("{range_id}", "secrets")
        body = None
        if route.method == "POST" and route.path.endswith(("/push", "/deployments")):
            wanted = {"reference": "a/b:1"} if route.path.endswith("/push") else {"range_id": "r1", "images": ["a/b:1"]}
            body = json.dumps(wanted).encode()
        elif route.method != "GET" or "{" in path or path.endswith("/events"):
            continue
        headers = {"Content-Type": "application/json"} if body else {}
        request = urllib.request.Request(f"http://{address}{path}", body, headers, method=route.method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                said.append(answer.read().decode())
        except urllib.error.HTTPError as refused:
            said.append(refused.read().decode())
    assert len(said) > 10
    return "\n".join(said)


@pytest.mark.parametrize("kind", CREDENTIALS)
def test_no_secret_is_logged_or_answered(lab: Lab, redis_user: str, unique: str, kind: str) -> None:
    """All roles and an agent, at the most talkative level, with everything away, and Redis too at the end."""
    address = f"127.0.0.1:{free_port()}"
    name = f"secrets-{unique}"
    settings = {
        **OTHERS,
        **CREDENTIALS[kind],
        "redis_url": redis_user,
        "key_prefix": name,
        "api_listen": address,
        "tar_listen": f"127.0.0.1:{free_port()}",
        "spool_folder": lab.folder / name,
        "log_level": "debug",
        "drain_seconds": 1,
    }
    told = {field.name for field in msgspec.structs.fields(Settings) if is_secret(field)}
    assert told <= set().union(ELSEWHERE, settings, *CREDENTIALS.values())
    server = lab.start(RoleServer(name, lab.place(name), lab.mark, roles=["all", "agent"], settings=settings))
    try:
        assert poll(lambda: _listens(address), seconds=30)
        said = _answers(address)
        _forbid(redis_user)
        assert poll(lambda: b"refuses our user" in server.said() or b"Redis" in server.said(), seconds=30)
        assert poll(lambda: b"127.0.0.1:1" in server.said(), seconds=30)
    finally:
        server.stop()
    said += server.said().decode()
    assert "running" in said
    assert "secret-" not in said
    assert "secretkey" not in said
