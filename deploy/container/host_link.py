"""HAProxy configurations of the way between two hosts: the door on the first one, the link on each further one.

    first host                                       further host
    Redis, registry ◀── door ◀── TLS, both sides ── link ◀── roles, registry cache
    and tar server                show certificates      ◀── range proxy, for archives
    range proxy     ──▶ door ─── TLS, the other way ─▶ link ──▶ tar server of the further host

The link has the names and ports that Redis and registry have on the first host (`cyroid-redis:6379`,
`cyroid-registry:5000`), so no role is configured otherwise. The door lets in certificates that our authority signed for
hosts (`deploy.stack.certificates`), if its list has the name in them; who left the list is refused from the door's next
start on. It takes no deletions: those are the collector's, beside the registry. Archives of the first host's tar server
pass on the registry's port, to whoever has the one-use token of an offer.

Archives of a further host's tar server have `/hosts/NAME` before their path. The door sends them to the link of that
host, which lets the door alone in, so ranges of all hosts get them, and no further host needs to know another one.

    python -m deploy.container.host_link door|link …      prints one, for a host without Compose
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

#: The name in the door's certificate, which a link insists on, whatever the address.
DOOR_NAME = "cyroid-door"
#: Where the door listens. On a further host the link takes requests for archives on the latter.
REDIS_PORT, REGISTRY_PORT = 6380, 5443
#: The first host's own, on cyroid-mgmt.
REDIS, REGISTRY, TAR_SERVER = "172.30.0.17:6379", "172.30.0.16:5000", "172.30.0.22:7070"
#: The link's own on cyroid-mgmt, in the place of the registry.
LINK = "172.30.0.16"
#: The link's on cyroid-pull, on the first host the door's: there they are for archives of other hosts alone.
FAR_TAR = "172.31.255.245:7070"
#: The tar server of the same host, on cyroid-pull.
OWN_TAR = "172.31.255.243:7070"
#: What ranges of every host call the first host's tar server, and before `/hosts/NAME` those of the further ones.
FIRST_TAR_NAME = "cyroid-first-tar"
CERTIFICATES = Path("/run/cyroid/tls")
#: Connections of all hosts to Redis together; Redis itself takes 2,000.
CONNECTIONS = 1500

_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:]+\]|[A-Za-z0-9.-]+):[0-9]{1,5}|:[0-9]{1,5}")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,62}")
_PATH = re.compile(r"/[A-Za-z0-9_./-]+")
#: The one path of the tar server, and that of a further host's, as regular expressions of HAProxy's.
_ARCHIVE = "^/transfers/[A-Za-z0-9][A-Za-z0-9_.-]*$"
FAR_ARCHIVE = "^/hosts/[A-Za-z0-9][A-Za-z0-9.-]*/transfers/[A-Za-z0-9][A-Za-z0-9_.-]*$"
NO_FURTHER: Mapping[str, str] = MappingProxyType({})

_JSON = "content-type application/problem+json lf-string"
_NO_WAY = (
    '{"code":"host_unreachable","detail":"archives of this host reach its own ranges alone: no address was given with'
    ' `deploy.stack.hosts add NAME FILE --address ADDRESS` on the first host"}'
)

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
  acl archive path_reg %(archive)s
  acl far_archive path_reg %(far_archive)s
  http-request deny deny_status 405 if archive !METH_GET !METH_HEAD
  http-request deny deny_status 405 if far_archive !METH_GET !METH_HEAD
%(to_further)s
  use_backend tar if archive
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

backend tar
  mode http
  server tar %(tar_server)s maxconn 256
"""
_DOOR_ARCHIVES = """
frontend archives
  mode http
  bind %(archives_listen)s
  acl far_archive path_reg %(far_archive)s
  http-request deny deny_status 405 unless METH_GET or METH_HEAD
  http-request deny deny_status 404 unless far_archive
%(to_further)s
"""
_TO_FURTHER = """\
  use_backend tar-%(name)s if far_archive { path_beg /hosts/%(name)s/ }"""
_UNKNOWN = """\
  http-request return status 404 %(json)s '%(text)s' if far_archive%(known)s"""
_FURTHER = """
backend tar-%(name)s
  mode http
  http-request set-path '%%[path,regsub("^/hosts/[^/]+","")]'
  server link %(address)s ssl crt %(own)s ca-file %(authority)s verify required verifyhost %(proved)s \
sni str(%(proved)s) maxconn 128
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


def door(
    *,
    redis: str = REDIS,
    registry: str = REGISTRY,
    tar_server: str = TAR_SERVER,
    redis_listen: str = f":{REDIS_PORT}",
    registry_listen: str = f":{REGISTRY_PORT}",
    archives_listen: str | None = None,
    health_listen: str = "127.0.0.1:5002",
    further: Mapping[str, str] = NO_FURTHER,
    certificates: Path = CERTIFICATES,
) -> str:
    """`haproxy.cfg` of the first host. In `certificates`: `own.pem`, `ca.pem`, and `hosts`, a name on each line.

    `further`: the further hosts' names, and where their links take requests for archives; then `client.pem` as well.
    `archives_listen`: where the first host's own ranges ask for those.
    Raises ValueError for what is no address or name.
    """
    listens = (redis_listen, registry_listen, health_listen, *([archives_listen] if archives_listen else []))
    for address in (redis, registry, tar_server, *listens, *further.values()):
        _check(address)
    text = (_DOOR if archives_listen is None else _DOOR + _DOOR_ARCHIVES) % {
        "own": _file(certificates, "own.pem"),
        "authority": _file(certificates, "ca.pem"),
        "hosts": _file(certificates, "hosts"),
        "redis": redis,
        "registry": registry,
        "tar_server": tar_server,
        "archive": _ARCHIVE,
        "far_archive": FAR_ARCHIVE,
        "to_further": _to_further(further),
        "redis_listen": redis_listen,
        "registry_listen": registry_listen,
        "archives_listen": archives_listen,
        "health_listen": health_listen,
        "connections": CONNECTIONS,
    }
    return _COMMON + text + _tar_servers(further, certificates)


def proved_name(name: str) -> str:
    """The name in the certificate with which the link of further host `name` proves that it is the one."""
    return f"{name}.cyroid-host"


def _to_further(further: Mapping[str, str]) -> str:
    """The rules that send an archive to the host that its path names, and the answer for a host that none leads to."""
    known = "".join(f" !{{ path_beg /hosts/{name}/ }}" for name in sorted(further))
    return "\n".join(
        [
            _UNKNOWN % {"json": _JSON, "text": _NO_WAY, "known": known},
            *(_TO_FURTHER % {"name": name} for name in sorted(further)),
        ]
    )


def _tar_servers(further: Mapping[str, str], certificates: Path) -> str:
    """A backend for each further host: its tar server, behind its link."""
    own, authority = _file(certificates, "client.pem"), _file(certificates, "ca.pem")
    return "".join(
        _FURTHER
        % {
            "name": checked_name(name),
            "address": address,
            "own": own,
            "authority": authority,
            "proved": proved_name(name),
        }
        for name, address in sorted(further.items())
    )


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
        _check(one)
    authority, own = _file(certificates, "ca.pem"), _file(certificates, "own.pem")
    template = _LINK + (_LINK_TAR if tar_listen is not None else "")
    template += _LINK_ARCHIVES if archives_listen is not None else ""
    return _COMMON + template % {
        "door": address,
        "redis_port": redis_port,
        "registry_port": registry_port,
        "redis_listen": redis_listen,
        "registry_listen": registry_listen,
        "tar_listen": tar_listen,
        "archives_listen": archives_listen,
        "own_tar": own_tar,
        "proof": _file(certificates, "server.pem"),
        "authority": authority,
        "door_name": DOOR_NAME,
        "archive": _ARCHIVE,
        "far_archive": FAR_ARCHIVE,
        "health_listen": health_listen,
        "tls": f"ssl crt {own} ca-file {authority} verify required verifyhost {DOOR_NAME} sni str({DOOR_NAME})",
    }


def _check(address: str) -> None:
    if not _ADDRESS.fullmatch(address):
        raise ValueError(f"{address!r} is no address: HOST or HOST:PORT is meant")


def checked_name(name: str) -> str:
    """`name`, if a further host may be called so. Raises ValueError."""
    if not NAME.fullmatch(name) or name == DOOR_NAME:
        raise ValueError(f"{name!r} is no name of a further host: letters, digits, dots and dashes, at most 63")
    return name


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
