"""HAProxy configurations of the way between two hosts: the door on the first one, the link on each further one.

    first host                                       further host
    Redis, registry ◀── door ◀── TLS, both sides ── link ◀── roles, registry cache
                                  show certificates

The link has the names and ports that Redis and registry have on the first host (`cyroid-redis:6379`,
`cyroid-registry:5000`), so no role is configured otherwise. The door lets in certificates that our authority signed for
hosts (`deploy.stack.certificates`), if its list has the name in them; who left the list is refused from the door's next
start on. It takes no deletions: those are the collector's, beside the registry.

    python -m deploy.container.host_link door|link …      prints one, for a host without Compose
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

#: The name in the door's certificate, which a link insists on, whatever the address.
DOOR_NAME = "cyroid-door"
#: Where the door listens.
REDIS_PORT, REGISTRY_PORT = 6380, 5443
#: The first host's own, on cyroid-mgmt.
REDIS, REGISTRY = "172.30.0.17:6379", "172.30.0.16:5000"
CERTIFICATES = Path("/run/cyroid/tls")
#: Connections of all hosts to Redis together; Redis itself takes 2,000.
CONNECTIONS = 1500

_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:]+\]|[A-Za-z0-9.-]+):[0-9]{1,5}|:[0-9]{1,5}")
_PATH = re.compile(r"/[A-Za-z0-9_./-]+")

_COMMON = """\
global
  maxconn 4096
  log stdout format raw local0 notice
  ssl-default-bind-options ssl-min-ver TLSv1.2
  ssl-default-server-options ssl-min-ver TLSv1.2

defaults
  log global
  option dontlognull
  option log-health-checks
  option clitcpka
  option srvtcpka
  timeout connect 5s
  timeout client 900s
  timeout server 900s
  timeout queue 30s
  timeout http-request 30s
  timeout http-keep-alive 60s
  timeout check 5s

"""
_DOOR = """\
frontend redis
  mode tcp
  bind %(redis_listen)s ssl crt %(own)s ca-file %(authority)s verify required
  tcp-request content reject unless { ssl_c_s_dn(cn) -m str -f %(hosts)s }
  default_backend redis

frontend registry
  mode http
  bind %(registry_listen)s ssl crt %(own)s ca-file %(authority)s verify required
  http-request deny deny_status 403 unless { ssl_c_s_dn(cn) -m str -f %(hosts)s }
  http-request deny deny_status 405 if METH_DELETE { path_reg /(manifests|blobs)/sha256:[0-9a-f]+$ }
  default_backend registry

frontend health
  mode http
  bind %(health_listen)s
  monitor-uri /healthz
  http-request deny

backend redis
  mode tcp
  server redis %(redis)s maxconn %(connections)d

backend registry
  mode http
  server registry %(registry)s maxconn 256
"""
_LINK = """\
frontend redis
  mode tcp
  bind %(redis_listen)s
  default_backend redis

frontend registry
  mode http
  bind %(registry_listen)s
  default_backend registry

frontend health
  mode http
  bind %(health_listen)s
  acl away nbsrv(redis) lt 1
  monitor-uri /healthz
  monitor fail if away
  http-request deny

backend redis
  mode tcp
  server door %(door)s:%(redis_port)d %(tls)s check inter 5s fall 2 rise 1

backend registry
  mode http
  server door %(door)s:%(registry_port)d %(tls)s maxconn 256
"""


def door(
    *,
    redis: str = REDIS,
    registry: str = REGISTRY,
    redis_listen: str = f":{REDIS_PORT}",
    registry_listen: str = f":{REGISTRY_PORT}",
    health_listen: str = "127.0.0.1:5002",
    certificates: Path = CERTIFICATES,
) -> str:
    """`haproxy.cfg` of the first host. In `certificates`: `own.pem`, `ca.pem`, and `hosts`, a name on each line.

    Raises ValueError for what is no address.
    """
    for address in (redis, registry, redis_listen, registry_listen, health_listen):
        _check(address)
    return _COMMON + _DOOR % {
        "own": _file(certificates, "own.pem"),
        "authority": _file(certificates, "ca.pem"),
        "hosts": _file(certificates, "hosts"),
        "redis": redis,
        "registry": registry,
        "redis_listen": redis_listen,
        "registry_listen": registry_listen,
        "health_listen": health_listen,
        "connections": CONNECTIONS,
    }


def link(
    address: str,
    *,
    redis_port: int = REDIS_PORT,
    registry_port: int = REGISTRY_PORT,
    redis_listen: str = ":6379",
    registry_listen: str = ":5000",
    health_listen: str = "127.0.0.1:5002",
    certificates: Path = CERTIFICATES,
) -> str:
    """`haproxy.cfg` of a further host. `address`: of the first one. In `certificates`: `own.pem` and `ca.pem`.

    Raises ValueError for what is no address.
    """
    if not address:
        raise ValueError("'' is no address: that of the first host is meant")
    for one in (f"{address}:{redis_port}", redis_listen, registry_listen, health_listen):
        _check(one)
    authority, own = _file(certificates, "ca.pem"), _file(certificates, "own.pem")
    return _COMMON + _LINK % {
        "door": address,
        "redis_port": redis_port,
        "registry_port": registry_port,
        "redis_listen": redis_listen,
        "registry_listen": registry_listen,
        "health_listen": health_listen,
        "tls": f"ssl crt {own} ca-file {authority} verify required verifyhost {DOOR_NAME} sni str({DOOR_NAME})",
    }


def _check(address: str) -> None:
    if not _ADDRESS.fullmatch(address):
        raise ValueError(f"{address!r} is no address: HOST or HOST:PORT is meant")


def _file(folder: Path, name: str) -> Path:
    if not _PATH.fullmatch(str(folder)):
        raise ValueError(f"{folder} is no absolute path of plain words")
    return folder / name


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line: prints the configuration for a host without Compose."""
    parser = argparse.ArgumentParser(prog="deploy.container.host_link", description="Print haproxy.cfg.")
    parser.add_argument("--certificates", type=Path, default=CERTIFICATES, help="the folder with ca.pem and own.pem")
    sides = parser.add_subparsers(dest="side", required=True)
    first = sides.add_parser("door", help="on the host with Redis and registry")
    first.add_argument("--redis", default=REDIS)
    first.add_argument("--registry", default=REGISTRY)
    further = sides.add_parser("link", help="on a further host")
    further.add_argument("address", help="of the first host")
    further.add_argument("--redis-listen", default=":6379")
    further.add_argument("--registry-listen", default=":5000")
    given = parser.parse_args(arguments)
    try:
        if given.side == "door":
            text = door(redis=given.redis, registry=given.registry, certificates=given.certificates)
        else:
            listen = {"redis_listen": given.redis_listen, "registry_listen": given.registry_listen}
            text = link(given.address, certificates=given.certificates, **listen)
    except ValueError as problem:
        parser.exit(2, f"{problem}\n")
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
