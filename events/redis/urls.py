"""URLs of Redis: the account and TLS options in them, and those of its sentinels.

    redis+sentinel://[user:password@]host:port,host:port/SERVICE/DB[?PARAMETERS]      rediss+sentinel:// over TLS

User and password are for the servers. Parameters are `sentinel_username` and `sentinel_password`, where the sentinels
want some as well, and with TLS those of `rediss://` (`ssl_ca_certs`, …), which are for servers and sentinels alike.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from redis.asyncio.connection import URL_QUERY_ARGUMENT_PARSERS

from events.bus import BusRefused

Address = tuple[str, int]

SENTINEL_PORT = 26379
SENTINEL_SCHEMES = ("redis+sentinel", "rediss+sentinel")
_TLS_FILES = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")
_TLS = (*_TLS_FILES, "ssl_ca_data", "ssl_password", "ssl_check_hostname", "ssl_cert_reqs", "ssl_ciphers")
_SENTINEL = ("sentinel_username", "sentinel_password")


@dataclass(frozen=True, slots=True)
class SentinelUrl:
    """`service` is the name under which the sentinels watch the master.

    `login` is for the servers, `asking` for the sentinels: options of redis-py's clients.
    """

    addresses: Sequence[Address]
    service: str
    database: int
    login: Mapping[str, Any]
    asking: Mapping[str, Any]


def scheme_of(url: str) -> str:
    """The URL's scheme."""
    return url.partition("://")[0]


def read_sentinel_url(url: str) -> SentinelUrl:
    """Raises BusRefused for a parameter that is none, ValueError for what is no address."""
    scheme, _, rest = url.partition("://")
    rest, _, query = rest.partition("?")
    authority, _, path = rest.partition("/")
    service, _, database = path.strip("/").partition("/")
    given = dict(parse_qsl(query))
    known = (*_SENTINEL, *_TLS) if scheme.startswith("rediss") else _SENTINEL
    for name in given:
        if name not in known:
            hint = f": over TLS it is rediss+sentinel://, not {scheme}://" if name in _TLS else ""
            raise BusRefused(f"{name!r} is no parameter of a URL with sentinels{hint}; those are {', '.join(known)}")
    tls = _tls(scheme, given)
    user, password = given.get("sentinel_username", ""), given.get("sentinel_password", "")
    if user and not password:
        raise BusRefused("Redis's URL has a sentinel_username and no sentinel_password")
    account = {"username": user or None, "password": password} if password else {}
    return SentinelUrl(
        addresses=addresses(authority.rpartition("@")[2], SENTINEL_PORT),
        service=service or "mymaster",
        database=int(database or 0),
        login=_account(authority) | tls,
        asking=account | tls,
    )


def login_of(url: str) -> dict[str, Any]:
    """The account and TLS options in a URL of Redis, as redis-py's clients take them; empty where it has none."""
    if scheme_of(url) in SENTINEL_SCHEMES:
        return dict(read_sentinel_url(url).login)
    parts = urlsplit(url)
    return _account(parts.netloc) | _tls(parts.scheme, dict(parse_qsl(parts.query)))


def unreadable_file(login: Mapping[str, Any]) -> str | None:
    """What is wrong with a file that a login names; None where all can be read. OpenSSL's error names none."""
    for name in _TLS_FILES:
        path = login.get(name)
        if path and not os.access(path, os.R_OK):
            why = "it may not be read" if os.path.exists(path) else "there is none"
            return f"{name} in Redis's URL names {path}: {why}"
    return None


def addresses(text: str, port: int) -> list[Address]:
    """Of `host,host:port,[::1]:port`, `port` where one has none. Raises ValueError for what is no address."""
    return [_address(one, port) for one in text.split(",")]


def _address(text: str, port: int) -> Address:
    host, colon, number = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, number = text, str(port)
    host = host.strip().removeprefix("[").removesuffix("]")
    if not host or not (number.isascii() and number.isdecimal()) or not 0 < int(number) < 65536:
        raise ValueError("no HOST:PORT")
    return host, int(number)


def _account(authority: str) -> dict[str, Any]:
    account, at, _ = authority.rpartition("@")
    user, _, password = account.partition(":")
    return {"username": unquote(user) or "default", "password": unquote(password)} if at else {}


def _tls(scheme: str, given: Mapping[str, str]) -> dict[str, Any]:
    if not scheme.startswith("rediss"):
        return {}
    named = {name: given[name] for name in _TLS if name in given}
    return {"ssl": True} | {name: URL_QUERY_ARGUMENT_PARSERS.get(name, str)(text) for name, text in named.items()}
