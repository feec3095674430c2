"""nginx configuration of the registry cache: each host's own copy of what its ranges pull from a registry elsewhere.

    python -m deploy.container.registry_cache ORIGIN [--listen 5000] [--folder /cache] [--max-size 100g] [--ca FILE …]

It stands where the registry's pull side stands on the registry's own host, so nothing changes for ranges or in
messages. A blob is kept in slices under its digest alone, whichever repository it was asked for in, and each slice is
fetched once however many ask for it. Whether the repository has the blob is asked of the origin, and that answer kept
for `FRESH_SECONDS`: so no repository opens another one's blobs, and what was deleted at the origin is gone here then.
While the origin is away old answers go on counting. Manifests are fetched anew, not revalidated: registry 2.8 answers
304 for one that was deleted.

Nothing of a request reaches the origin but repository, digest and method; only GET and HEAD are taken. What says
another digest of itself than was asked for is not kept.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

#: For so long what the origin said of a manifest or of a blob in a repository is believed without asking again.
FRESH_SECONDS = 60
#: The same of a tag. Ranges ask by digest alone.
TAG_SECONDS = 5
#: What nobody asked for in this time leaves the disk.
INACTIVE_DAYS = 14
#: The origin is asked for a blob in pieces of this size. Whoever else wants a piece meanwhile waits until it is there.
SLICE = "16m"
MAX_SIZE = "100g"
#: Content makes room when the disk has less free than this; checked every ten seconds.
MIN_FREE = "2g"

_SIZE = re.compile(r"[1-9][0-9]*[kmg]")
_WORD = re.compile(r"[A-Za-z0-9_./:\[\]-]+")

#: All kinds of manifest: whatever a client accepts, the same answer is kept for all.
_ACCEPT = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)

_TEMPLATE = """\
daemon off;
worker_processes %(workers)s;
pid %(folder)s/nginx.pid;
error_log stderr warn;
events { worker_connections 4096; }

http {
  access_log off;
  server_tokens off;
  default_type application/json;
  client_max_body_size 1;
  client_header_timeout 10s;
  send_timeout 60s;
  client_body_temp_path %(folder)s/temp/body;
  proxy_temp_path %(folder)s/temp/proxy;
  fastcgi_temp_path %(folder)s/temp/fastcgi;
  uwsgi_temp_path %(folder)s/temp/uwsgi;
  scgi_temp_path %(folder)s/temp/scgi;
  sendfile on;
  tcp_nopush on;

  proxy_cache_path %(folder)s/content levels=1:2 keys_zone=content:32m use_temp_path=off
    inactive=%(inactive)dd max_size=%(max_size)s min_free=%(min_free)s;
  proxy_cache_path %(folder)s/answers levels=1:2 keys_zone=answers:16m use_temp_path=off
    inactive=%(inactive)dd max_size=1g;

  # What does not say that it is of the digest that was asked for is passed on and not kept. That there is nothing is.
  map "$upstream_status|$digest|$upstream_http_docker_content_digest" $not_kept {
    default 1;
    "~^404\\|" 0;
    "~^20[06]\\|(?<same>sha256:[0-9a-f]+)\\|(?P=same)$" 0;
  }

  upstream origin {
    server %(origin)s;
    keepalive 32;
  }

  proxy_http_version 1.1;
  proxy_connect_timeout 5s;
  proxy_read_timeout 60s;
  proxy_pass_request_headers off;
  proxy_pass_request_body off;
  proxy_ignore_headers Cache-Control Expires Set-Cookie Vary X-Accel-Expires X-Accel-Redirect X-Accel-Limit-Rate
    X-Accel-Buffering X-Accel-Charset;
  proxy_hide_header Set-Cookie;
  proxy_next_upstream off;
  proxy_cache_use_stale error timeout updating http_500 http_502 http_503 http_504;
%(tls)s
  server {
    listen %(listen)s reuseport;
    if ($request_method !~ ^(GET|HEAD)$) { return 405; }
    add_header Docker-Distribution-Api-Version registry/2.0 always;

    location = /v2/ { return 200 "{}"; }

    location ~ "^/v2/(?<repository>[a-z0-9._/-]+)/blobs/(?<digest>sha256:[0-9a-f]{64})$" {
      auth_request /has-blob;
      error_page 403 =404 @unknown;
      error_page 500 502 504 =503 @away;
      slice %(slice)s;
%(headers)s      proxy_set_header Range $slice_range;
      proxy_pass %(scheme)s://origin/v2/$repository/blobs/$digest;
      proxy_cache content;
      proxy_cache_key "$digest $slice_range";
      proxy_cache_valid 200 206 %(inactive)dd;
      proxy_no_cache $not_kept;
      proxy_cache_lock on;
      proxy_cache_lock_timeout 600s;
      proxy_cache_lock_age 120s;
    }

    location = /has-blob {
      internal;
      error_page 404 = @gone;
      proxy_intercept_errors on;
      proxy_method HEAD;
      proxy_read_timeout 10s;
%(headers)s      proxy_pass %(scheme)s://origin/v2/$repository/blobs/$digest;
      proxy_cache answers;
      proxy_cache_convert_head off;
      proxy_cache_key "blob $repository $digest";
      proxy_cache_valid 200 %(fresh)ds;
      proxy_cache_valid 404 1s;
    }

    location ~ "^/v2/(?<repository>[a-z0-9._/-]+)/manifests/(?<digest>sha256:[0-9a-f]{64})$" {
      error_page 500 502 504 =503 @away;
%(headers)s      proxy_set_header Accept "%(accept)s";
      proxy_pass %(scheme)s://origin/v2/$repository/manifests/$digest;
      proxy_cache answers;
      proxy_cache_key "manifest $repository $digest";
      proxy_cache_valid 200 %(fresh)ds;
      proxy_cache_valid 404 1s;
      proxy_no_cache $not_kept;
    }

    location ~ "^/v2/(?<repository>[a-z0-9._/-]+)/manifests/(?<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127})$" {
      error_page 500 502 504 =503 @away;
%(headers)s      proxy_set_header Accept "%(accept)s";
      proxy_pass %(scheme)s://origin/v2/$repository/manifests/$tag;
      proxy_cache answers;
      proxy_cache_key "tag $repository $tag";
      proxy_cache_valid 200 %(tag_fresh)ds;
      proxy_cache_valid 404 1s;
    }

    location / { return 404; }
    location @gone { return 403; }
    location @unknown { return 404 '{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown to registry"}]}'; }
    location @away { return 503 '{"errors":[{"code":"UNAVAILABLE","message":"the registry is away, and not here"}]}'; }
  }
}
"""

#: Said in each location: one that sets a header of its own inherits none.
_HEADERS = """\
      proxy_set_header Host %s;
      proxy_set_header Connection "";
      proxy_set_header Content-Length "";
"""
_TLS = """
  proxy_ssl_verify on;
  proxy_ssl_verify_depth 2;
  proxy_ssl_protocols TLSv1.2 TLSv1.3;
  proxy_ssl_server_name on;
  proxy_ssl_name %s;
  proxy_ssl_trusted_certificate %s;
"""
_CLIENT = """\
  proxy_ssl_certificate %(file)s;
  proxy_ssl_certificate_key %(file)s;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """Files for an origin with https. `authorities`: who signed its certificate; `own`: our certificate and key."""

    authorities: Path = Path("/etc/ssl/certs/ca-certificates.crt")
    own: Path | None = None


def configuration(
    origin: str,
    *,
    listen: str = "5000",
    folder: Path = Path("/cache"),
    max_size: str = MAX_SIZE,
    min_free: str = MIN_FREE,
    workers: str = "auto",
    fresh_seconds: int = FRESH_SECONDS,
    tls: Tls | None = None,
) -> str:
    """The whole `nginx.conf`. `origin`: `http://HOST:PORT` or `https://HOST:PORT`, a registry or another cache.

    Raises ValueError for what is no such address, and for sizes that nginx does not know.
    """
    parts = urlsplit(origin)
    address = parts.netloc
    if parts.scheme not in ("http", "https") or parts.path not in ("", "/") or parts.query or "@" in address:
        raise ValueError(f"{origin!r} is no address of a registry: http://HOST:PORT or https://HOST:PORT is meant")
    if parts.hostname is None or not _WORD.fullmatch(address) or not _WORD.fullmatch(str(folder)):
        raise ValueError(f"{origin!r} and {folder} have to be plain words")
    for size in (max_size, min_free):
        if not _SIZE.fullmatch(size):
            raise ValueError(f"{size!r} is no size: a number with k, m or g is meant")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    shown = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return _TEMPLATE % {
        "workers": workers,
        "folder": folder,
        "inactive": INACTIVE_DAYS,
        "max_size": max_size,
        "min_free": min_free,
        "origin": f"{shown}:{port}",
        "scheme": parts.scheme,
        "headers": _HEADERS % f"{shown}:{port}",
        "tls": _tls(parts.hostname, tls or Tls()) if parts.scheme == "https" else "",
        "listen": listen,
        "slice": SLICE,
        "fresh": fresh_seconds,
        "tag_fresh": min(TAG_SECONDS, fresh_seconds),
        "accept": _ACCEPT,
    }


def command(file: Path) -> list[str]:
    """How nginx is started with it: in the foreground, with its log on standard error."""
    return ["nginx", "-e", "stderr", "-c", str(file)]


def make_folders(folder: Path) -> None:
    """nginx makes the last part of each folder alone."""
    (folder / "temp").mkdir(parents=True, exist_ok=True)


def _tls(host: str, files: Tls) -> str:
    return _TLS % (host, files.authorities) + (_CLIENT % {"file": files.own} if files.own else "")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line: prints the configuration for a host without Compose."""
    parser = argparse.ArgumentParser(prog="deploy.container.registry_cache", description="Print nginx.conf.")
    parser.add_argument("origin", help="http://HOST:PORT or https://HOST:PORT, a registry or another cache")
    parser.add_argument("--listen", default="5000")
    parser.add_argument("--folder", type=Path, default=Path("/cache"))
    parser.add_argument("--max-size", default=MAX_SIZE)
    parser.add_argument("--min-free", default=MIN_FREE)
    parser.add_argument("--ca", type=Path, default=Tls().authorities, help="who signed the origin's certificate")
    parser.add_argument("--certificate", type=Path, help="our certificate and key in one file")
    options = parser.parse_args(arguments)
    try:
        text = configuration(
            options.origin,
            listen=options.listen,
            folder=options.folder,
            max_size=options.max_size,
            min_free=options.min_free,
            tls=Tls(authorities=options.ca, own=options.certificate),
        )
    except ValueError as problem:
        parser.exit(2, f"{problem}\n")
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
