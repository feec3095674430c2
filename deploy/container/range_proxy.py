"""HAProxy configuration of the range proxy, between the ranges and the registry's pull side and tar server.

A range gets from the registry what its token names: manifests and blobs of one repository, by digest, until the token
ends. There are no tags, no catalog, no other method. The deployer signs a token for each pull
(`services.core.deployments.pull_tokens`); no account is kept anywhere. Connections and requests are counted for each
of the proxy's own addresses, which is for each range, as each has a network of its own.

Archives come from the tar server of the range's own host. Under another name, `cyroid-first-tar`, it is the first
host's, and with `/hosts/NAME` before the path that of further host NAME: the way to other hosts is the link or the door
(`deploy.container.host_proxies`). Tar servers check tokens themselves.
"""

from __future__ import annotations

from deploy.container.host_proxies import FAR_ARCHIVE, FAR_TAR, FIRST_TAR_NAME, OWN_TAR, checked_name

#: Where the two backends are, on the network that they share with the proxy alone.
REGISTRY = "172.31.255.242:5000"
TAR_SERVER = OWN_TAR
#: Of one range, at a time. An engine opens up to six for each image that it pulls.
CONNECTIONS = 64
#: Of one range, in ten seconds.
CONNECTION_RATE = 200
REQUEST_RATE = 1000

_JSON = "content-type application/json lf-string"
_UNAUTHORIZED = '{"errors":[{"code":"UNAUTHORIZED","message":"a token for this pull is needed"}]}'
_DENIED = '{"errors":[{"code":"DENIED","message":"only what this token names can be pulled, by digest"}]}'
#: An engine sends its token only where it was asked for one (RFC 6750, section 3). The realm leads nowhere.
_CHALLENGE = """\
hdr WWW-Authenticate 'Bearer realm="http://cyroid-registry:5000/none",service="cyroid-registry"' \
hdr Docker-Distribution-Api-Version registry/2.0"""

_TEMPLATE = """\
global
  maxconn 4096
  log stdout format raw local0 notice

defaults
  mode http
  log global
  option dontlognull
  option dontlog-normal
  timeout connect 5s
  timeout client 60s
  timeout server 600s
  timeout queue 60s
  timeout http-request 10s
  timeout http-keep-alive 15s
  timeout tunnel 10s

backend of_range
  stick-table type ip size 4k expire 10m store conn_cur,conn_rate(10s),http_req_rate(10s)

frontend registry
  bind %(registry_listen)s
  tcp-request connection track-sc0 dst table of_range
  tcp-request connection reject if { sc0_conn_cur gt %(connections)d }
  tcp-request connection reject if { sc0_conn_rate gt %(connection_rate)d }
  http-request deny deny_status 429 if { sc0_http_req_rate gt %(request_rate)d }
  http-request deny deny_status 405 unless METH_GET or METH_HEAD

  http-request set-var(txn.alg) http_auth_bearer,jwt_header_query('$.alg')
  http-request set-var(txn.repository) http_auth_bearer,jwt_payload_query('$.repository')
  http-request set-var(txn.now) date()
  http-request set-var(txn.left) http_auth_bearer,jwt_payload_query('$.exp','int'),sub(txn.now)
  acl signed var(txn.alg) -m str HS256
  acl signed_well http_auth_bearer,jwt_verify(txn.alg,"%(key)s") -m int eq 1
  acl in_time var(txn.left) -m int gt 0
  http-request return status 401 %(json)s '%(unauthorized)s' %(challenge)s unless signed signed_well in_time

  acl ping path /v2/
  acl by_digest path_reg ^/v2/[a-z0-9._/-]+/(manifests|blobs)/sha256:[0-9a-f]{64}$
  http-request set-var(txn.asked) 'path,regsub("^/v2/",""),regsub("/(manifests|blobs)/sha256:[0-9a-f]+$","")'
  acl its_own var(txn.asked),strcmp(txn.repository) eq 0
  http-request deny deny_status 403 %(json)s '%(denied)s' unless ping or by_digest its_own
  http-request del-header Authorization
  default_backend registry

frontend tar
  bind %(tar_listen)s
  tcp-request connection track-sc0 dst table of_range
  tcp-request connection reject if { sc0_conn_cur gt %(connections)d }
  tcp-request connection reject if { sc0_conn_rate gt %(connection_rate)d }
  http-request deny deny_status 429 if { sc0_http_req_rate gt %(request_rate)d }
  http-request deny deny_status 405 unless METH_GET or METH_HEAD
  http-request deny deny_status 413 if { req.body_size gt 0 }
  acl by_host req.hdr(host),host_only -i %(first_tar_name)s
%(own)s
  use_backend tar if its_own
  use_backend %(first)s if by_host !{ path_beg /hosts/ }
  use_backend far_tar if by_host
  default_backend tar

frontend health
  bind %(health_listen)s
  monitor-uri /healthz
  http-request deny

backend registry
  server registry %(registry)s maxconn 256

backend tar
  server tar %(tar_server)s maxconn 256

backend far_tar
  server tar %(far_tar)s maxconn 256
"""
#: What has this host's own name in the path goes no further than to its own tar server.
_OWN = """\
  http-request set-var(txn.own) bool(true) if by_host { path_beg /hosts/%(name)s/ } { path_reg %(archive)s }
  http-request replace-path ^/hosts/[^/]+(/.*)$ \\1 if { var(txn.own) -m bool }
  acl its_own var(txn.own) -m bool"""
_NO_OWN = "  acl its_own always_false"


def configuration(
    key: str,
    *,
    registry: str = REGISTRY,
    tar_server: str = TAR_SERVER,
    far_tar: str = FAR_TAR,
    further: bool = False,
    name: str = "",
    registry_listen: str = ":5000",
    tar_listen: str = ":7070",
    health_listen: str = "127.0.0.1:5001",
) -> str:
    """The whole `haproxy.cfg`; `key` is what tokens are signed with. Raises ValueError for one that needs quoting.

    `far_tar`: the way to other hosts' tar servers. `further`: this is a further host, which the others call `name`.
    """
    if not key.isalnum():
        raise ValueError("the key for pull tokens has to be letters and digits")
    return _TEMPLATE % {
        "connections": CONNECTIONS,
        "connection_rate": CONNECTION_RATE,
        "request_rate": REQUEST_RATE,
        "key": key,
        "json": _JSON,
        "unauthorized": _UNAUTHORIZED,
        "denied": _DENIED,
        "challenge": _CHALLENGE,
        "registry": registry,
        "tar_server": tar_server,
        "far_tar": far_tar,
        "first": "far_tar" if further else "tar",
        "first_tar_name": FIRST_TAR_NAME,
        "own": _OWN % {"name": checked_name(name), "archive": FAR_ARCHIVE} if name else _NO_OWN,
        "registry_listen": registry_listen,
        "tar_listen": tar_listen,
        "health_listen": health_listen,
    }
