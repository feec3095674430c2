"""What both reverse proxies between two hosts share: names, addresses, certificates, and HAProxy's common settings.

The *door* (`deploy.container.host_door`) is the reverse proxy of the first host, the *link*
(`deploy.container.host_link`) that of each further one. Between them is mutual TLS.

    first host                                       further host
    Redis, registry ◀── door ◀── TLS, both sides ── link ◀── roles, registry cache
    and tar server                show certificates      ◀── range proxy, for archives
    range proxy     ──▶ door ─── TLS, the other way ─▶ link ──▶ tar server of the further host
"""

from __future__ import annotations

import re
from pathlib import Path

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
ARCHIVE = "^/transfers/[A-Za-z0-9][A-Za-z0-9_.-]*$"
FAR_ARCHIVE = "^/hosts/[A-Za-z0-9][A-Za-z0-9.-]*/transfers/[A-Za-z0-9][A-Za-z0-9_.-]*$"

#: Of either configuration.
COMMON = """\
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


def proved_name(name: str) -> str:
    """The name in the certificate with which the link of further host `name` proves that it is the one."""
    return f"{name}.cyroid-host"


def checked_name(name: str) -> str:
    """`name`, if a further host may be called so. Raises ValueError."""
    if not NAME.fullmatch(name) or name == DOOR_NAME:
        raise ValueError(f"{name!r} is no name of a further host: letters, digits, dots and dashes, at most 63")
    return name


def check_address(address: str) -> None:
    """Raises ValueError for what is neither HOST nor HOST:PORT."""
    if not _ADDRESS.fullmatch(address):
        raise ValueError(f"{address!r} is no address: HOST or HOST:PORT is meant")


def certificate(folder: Path, name: str) -> Path:
    """The path of one file for a configuration. Raises ValueError for a folder that would need quoting there."""
    if not _PATH.fullmatch(str(folder)):
        raise ValueError(f"{folder} is no absolute path of plain words")
    return folder / name
