"""HAProxy configuration of the *link*: the mutual-TLS reverse proxy of a further host, towards the first host's door.

The link has the names and ports that Redis and registry have on the first host (`cyroid-redis:6379`,
`cyroid-registry:5000`), so no role is configured otherwise. It lets nobody but the door get archives of its own host.

    python -m deploy.container.host_link door|link …      prints the one or the other, for a host without Compose
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from deploy.container.host_door import door
from deploy.container.host_proxies import (
    ARCHIVE,
    CERTIFICATES,
    COMMON,
    DOOR_NAME,
    FAR_ARCHIVE,
    OWN_TAR,
    REDIS,
    REDIS_PORT,
    REGISTRY,
    REGISTRY_PORT,
    TAR_SERVER,
    certificate,
    check_address,
)

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
  option tcp-check
  tcp-check send PING\\r\\n
  tcp-check expect rstring ^[-+] comment \
"no answer of Redis means that it is away, or that the door lets this host in no longer"
  server door %(door)s:%(redis_port)d %(tls)s check inter 5s fall 2 rise 1

backend registry
  mode http
  server door %(door)s:%(registry_port)d %(tls)s maxconn 256
"""
_LINK_TAR = """
frontend tar
  mode http
  bind %(tar_listen)s
  http-request deny deny_status 405 unless METH_GET or METH_HEAD
  http-request deny deny_status 404 unless { path_reg %(archive)s } or { path_reg %(far_archive)s }
  default_backend tar

backend tar
  mode http
  server door %(door)s:%(registry_port)d %(tls)s maxconn 128
"""
_LINK_ARCHIVES = """
frontend archives
  mode http
  bind %(archives_listen)s ssl crt %(proof)s ca-file %(authority)s verify required
  http-request deny deny_status 403 unless { ssl_c_s_dn(cn) -m str %(door_name)s }
  http-request deny deny_status 405 unless METH_GET or METH_HEAD
  http-request deny deny_status 404 unless { path_reg %(archive)s }
  default_backend own_tar

backend own_tar
  mode http
  server tar %(own_tar)s maxconn 128
"""


def link(
    address: str,
    *,
    redis_port: int = REDIS_PORT,
    registry_port: int = REGISTRY_PORT,
    redis_listen: str = ":6379",
    registry_listen: str = ":5000",
    tar_listen: str | None = None,
    archives_listen: str | None = None,
    own_tar: str = OWN_TAR,
    health_listen: str = "127.0.0.1:5002",
    certificates: Path = CERTIFICATES,
) -> str:
    """`haproxy.cfg` of a further host. `address`: of the first one. In `certificates`: `own.pem` and `ca.pem`.

    `tar_listen`: where other hosts' tar servers are to be found here; None: nowhere. `archives_listen`: where the first
    host's door gets archives of this one's (`own_tar`), shown `server.pem`; None: nowhere.
    Raises ValueError for what is no address.
    """
    if not address:
        raise ValueError("'' is no address: that of the first host is meant")
    optional = [one for one in (tar_listen, archives_listen) if one is not None]
    for one in (f"{address}:{redis_port}", redis_listen, registry_listen, health_listen, own_tar, *optional):
        check_address(one)
    authority, own = certificate(certificates, "ca.pem"), certificate(certificates, "own.pem")
    template = _LINK + (_LINK_TAR if tar_listen is not None else "")
    template += _LINK_ARCHIVES if archives_listen is not None else ""
    return COMMON + template % {
        "door": address,
        "redis_port": redis_port,
        "registry_port": registry_port,
        "redis_listen": redis_listen,
        "registry_listen": registry_listen,
        "tar_listen": tar_listen,
        "archives_listen": archives_listen,
        "own_tar": own_tar,
        "proof": certificate(certificates, "server.pem"),
        "authority": authority,
        "door_name": DOOR_NAME,
        "archive": ARCHIVE,
        "far_archive": FAR_ARCHIVE,
        "health_listen": health_listen,
        "tls": f"ssl crt {own} ca-file {authority} verify required verifyhost {DOOR_NAME} sni str({DOOR_NAME})",
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line: prints the configuration for a host without Compose."""
    parser = argparse.ArgumentParser(prog="deploy.container.host_link", description="Print haproxy.cfg.")
    parser.add_argument("--certificates", type=Path, default=CERTIFICATES, help="the folder with ca.pem and own.pem")
    sides = parser.add_subparsers(dest="side", required=True)
    first = sides.add_parser("door", help="on the host with Redis and registry")
    first.add_argument("--redis", default=REDIS)
    first.add_argument("--registry", default=REGISTRY)
    first.add_argument("--tar-server", default=TAR_SERVER)
    further = sides.add_parser("link", help="on a further host")
    further.add_argument("address", help="of the first host")
    further.add_argument("--redis-listen", default=":6379")
    further.add_argument("--registry-listen", default=":5000")
    further.add_argument("--tar-listen", metavar="ADDRESS", help="where the first host's tar server is found here")
    given = parser.parse_args(arguments)
    try:
        if given.side == "door":
            places = {"redis": given.redis, "registry": given.registry, "tar_server": given.tar_server}
            text = door(certificates=given.certificates, **places)
        else:
            listen = {"redis_listen": given.redis_listen, "registry_listen": given.registry_listen}
            text = link(given.address, certificates=given.certificates, tar_listen=given.tar_listen, **listen)
    except ValueError as problem:
        parser.exit(2, f"{problem}\n")
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
