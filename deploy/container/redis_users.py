"""Users of Redis on every server of an installation: a master, its replicas, and what may become one.

    python -m deploy.container.redis_users FOLDER [--nodes HOST:PORT,…] [--as -]

Users do not replicate (`ACL SETUSER` stays on the server that was asked). Sets those of `FOLDER/redis/users.acl` on
each server, as the installation's `admin`, or as the user whose `NAME:PASSWORD` comes on standard input with `--as -`.
Each server keeps them in its `aclfile`, where it has one. Without `--nodes`, the servers are found from the services'
URL: by its sentinels, or by what the master says of its replicas. TLS options and the account for the sentinels are
that URL's. May run twice; a server that is away is named, and the others are done.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from redis import Redis, RedisError
from redis.exceptions import ResponseError
from redis.sentinel import Sentinel

from deploy.container.acl import NOBODY
from events.bus import BusRefused
from events.redis.urls import (
    SENTINEL_SCHEMES,
    Address,
    addresses,
    login_of,
    read_sentinel_url,
    scheme_of,
    unreadable_file,
)

PATIENCE_SECONDS = 5.0
REDIS_PORT = 6379
_NO_TLS: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Account:
    """Who sets the users."""

    name: str
    password: str


def set_users(
    nodes: Iterable[Address], users: Sequence[str], account: Account, tls: Mapping[str, Any] = _NO_TLS
) -> dict[Address, str]:
    """Set `users` (lines of an access control list) on each node. By node, what went wrong; empty where nothing did.

    `tls`: options of redis-py's client (`tls_of`).
    """
    return {node: _set_on(node, users, account, tls) for node in nodes}


def _set_on(node: Address, users: Sequence[str], account: Account, tls: Mapping[str, Any]) -> str:
    try:
        with _client(node, account, tls) as client:
            for line in users:
                _, name, *rules = line.split()
                client.execute_command("ACL", "SETUSER", name, "reset", *rules)
            try:
                client.execute_command("ACL", "SAVE")
            except ResponseError as problem:
                if "aclfile" not in str(problem) and "ACL file" not in str(problem):
                    raise
                return "set until it restarts: it has no aclfile"
    except (RedisError, OSError) as problem:
        return str(problem) or type(problem).__name__
    return ""


def tls_of(url: str) -> dict[str, Any]:
    """How the servers of the services' URL are reached over TLS; empty where they are not. Raises BusRefused."""
    tls = {name: value for name, value in login_of(url).items() if name.startswith("ssl")}
    if problem := unreadable_file(tls):
        raise BusRefused(problem)
    return tls


def find_nodes(url: str, account: Account) -> list[Address]:
    """The servers behind the services' URL, masters first. Raises RedisError, OSError, ValueError, BusRefused."""
    tls = tls_of(url)
    if scheme_of(url) in SENTINEL_SCHEMES:
        read = read_sentinel_url(url)
        asking = {"socket_timeout": PATIENCE_SECONDS, **read.asking}
        asked: Sentinel = Sentinel(read.addresses, sentinel_kwargs=asking)  # type: ignore[no-untyped-call]
        host, port = asked.discover_master(read.service)  # type: ignore[no-untyped-call]
        masters: list[Address] = [(str(host), int(port))]
        replicas = [(str(ip), int(number)) for ip, number in _known_replicas(asked, read.service)]
        return list(dict.fromkeys([*masters, *replicas]))
    places = addresses(urlsplit(url).netloc.rpartition("@")[2], REDIS_PORT)
    found = list(places)
    for node in places:
        with _client(node, account, tls) as client:
            role: Any = client.execute_command("ROLE")
        if role[0] == b"master":
            found += [(host.decode(), int(port)) for host, port, _ in role[2]]
    return list(dict.fromkeys(found))


def _known_replicas(asked: Sentinel, service: str) -> list[Address]:
    """Also those that are away: they are named as such."""
    for sentinel in asked.sentinels:
        try:
            return [(str(one["ip"]), int(one["port"])) for one in sentinel.sentinel_slaves(service)]
        except (RedisError, OSError):
            continue
    return []


def _client(node: Address, account: Account, tls: Mapping[str, Any]) -> Redis:
    host, port = node
    return Redis(
        host=host,
        port=port,
        username=account.name,
        password=account.password,
        socket_timeout=PATIENCE_SECONDS,
        socket_connect_timeout=PATIENCE_SECONDS,
        **tls,
    )


def users_of(folder: Path) -> list[str]:
    """The lines of the installation's users; `default` is each server's own matter."""
    lines = (folder / "redis" / "users.acl").read_text().splitlines()
    return [line for line in lines if line.startswith("user ") and line != NOBODY]


def admin_of(folder: Path) -> Account:
    """The installation's own administrator of users."""
    name = next((line.split()[1] for line in users_of(folder) if line.split()[1].endswith("admin")), "admin")
    return Account(name, (folder / "secrets" / "admin" / "redis_password").read_text().strip())


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit status is 1 where a server does not have the users now."""
    parser = argparse.ArgumentParser(prog="deploy.container.redis_users", description="Set Redis's users everywhere.")
    parser.add_argument("folder", type=Path, help="the data folder of the stack")
    parser.add_argument("--nodes", default="", metavar="HOST:PORT,…", help="the servers; without: found from the URL")
    parser.add_argument("--as", dest="account", choices=["-"], help="read NAME:PASSWORD from standard input")
    options = parser.parse_args(arguments)
    folder = options.folder
    try:
        account = admin_of(folder)
        if options.account:
            name, _, password = sys.stdin.readline().strip().partition(":")
            account = Account(unquote(name), unquote(password))
        url = (folder / "secrets" / "services" / "redis_url").read_text().strip()
        chosen = addresses(options.nodes, REDIS_PORT) if options.nodes else find_nodes(url, account)
        done = set_users(chosen, users_of(folder), account, tls_of(url))
    except (OSError, ValueError, RedisError, BusRefused) as problem:
        sys.stderr.write(f"no users were set: {problem}\n")
        return 1
    for (host, port), wrong in done.items():
        sys.stdout.write(f"{host}:{port}  {wrong or 'has the users'}\n")
    return 1 if any(done.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
