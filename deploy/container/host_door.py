"""HAProxy configuration of the *door*: the mutual-TLS reverse proxy through which further hosts reach the first one.

The door lets in certificates that our authority signed for hosts (`deploy.stack.certificates`), if its list has the
name in them; who left the list is refused from the door's next start on. It takes no deletions: those are the
collector's, beside the registry. Archives of the first host's tar server pass on the registry's port, to whoever has
the one-use token of an offer.

Archives of a further host's tar server have `/hosts/NAME` before their path. The door sends them to the link of that
host, which lets the door alone in, so ranges of all hosts get them, and no further host needs to know another one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from deploy.container.host_proxies import (
    ARCHIVE,
    CERTIFICATES,
    COMMON,
    CONNECTIONS,
    FAR_ARCHIVE,
    REDIS,
    REDIS_PORT,
    REGISTRY,
    REGISTRY_PORT,
    TAR_SERVER,
    certificate,
    check_address,
    checked_name,
    proved_name,
)

NO_FURTHER: Mapping[str, str] = MappingProxyType({})

_JSON = "content-type application/problem+json lf-string"
_NO_WAY = (
    '{"code":"host_unreachable","detail":"archives of this host reach its own ranges alone: no address was given with'
    ' `deploy.stack.hosts add NAME FILE --address ADDRESS` on the first host"}'
)

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
        check_address(address)
    text = (_DOOR if archives_listen is None else _DOOR + _DOOR_ARCHIVES) % {
        "own": certificate(certificates, "own.pem"),
        "authority": certificate(certificates, "ca.pem"),
        "hosts": certificate(certificates, "hosts"),
        "redis": redis,
        "registry": registry,
        "tar_server": tar_server,
        "archive": ARCHIVE,
        "far_archive": FAR_ARCHIVE,
        "to_further": _to_further(further),
        "redis_listen": redis_listen,
        "registry_listen": registry_listen,
        "archives_listen": archives_listen,
        "health_listen": health_listen,
        "connections": CONNECTIONS,
    }
    return COMMON + text + _tar_servers(further, certificates)


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
    own, authority = certificate(certificates, "client.pem"), certificate(certificates, "ca.pem")
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
