"""Preparation of the stack's data folder: folders with their owners, secrets, Redis's users. Runs at every start.

    python -m deploy.container.prepare FOLDER [--ranges ID…] [--forget ID…] [--redis-url -] [--bundle -]
                                              [--first-host ADDRESS [--cache-size 100g]]

The secrets folder is the truth: what is missing is made, what is there stays, and what is derived from it (Redis's
users, the sums of the ranges' secrets, the proxy's configuration) is written anew. Adding a range is making its secret
(`deploy.stack.ranges`): the gateway looks for its sum at each connection.

    FOLDER/registry          the registry's content
    FOLDER/redis             Redis's data, and users.acl
    FOLDER/spool             exports while ranges read them
    FOLDER/scratch           layers while the registry-pusher unpacks them
    FOLDER/engine/ROLE       the socket through which a role reaches the host's engine (deploy.container.engine_proxy)
    FOLDER/layers            mounted layers; ranges/ID of it is what range ID sees
    FOLDER/secrets/services/redis_url, operator/redis_password, admin/redis_password
    FOLDER/secrets/operator/redis_user             whose password that is, with another key prefix than the default one
    FOLDER/secrets/replica/redis_password, sentinel/redis_password     for a Redis that fails over (docs/redis.md)
    FOLDER/secrets/ranges/ID/redis_url             the gateway's address with the range's secret, for its agent
    FOLDER/secrets/gateway/redis_url, ranges/ID    the gateway's user in Redis; SHA-256 of each range's secret
    FOLDER/secrets/mounter/redis_url               the services' URL again, for the layer-mounter, which is root
    FOLDER/secrets/deployer/registry_pull_key      with which the deployer signs a token for each pull
    FOLDER/secrets/proxy/haproxy.cfg               which checks them, in front of registry and tar server
    FOLDER/secrets/engine-proxy/haproxy.cfg        what stands in front of the host's engine; no secret
    FOLDER/secrets/hosts/door                      on the first host of several: its door's certificate
    FOLDER/secrets/link, cache                     on the others: the link to it, the registry's cache
    FOLDER/secrets/link/name                       what the first host calls this one
    FOLDER/cache                                   what that has
    FOLDER/secrets/admin/api_token                 the administrator's for the API; its hash in services/api_tokens
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from deploy.container import engine_proxy, host_proxies, range_proxy, registry_cache
from deploy.container.acl import DEFAULT_PREFIX, Passwords, user_name, users_file
from deploy.container.bundle import read_bundle
from deploy.container.host_door import door
from deploy.container.host_link import link
from services.range_gateway.secrets import digest

#: The user of every container that needs no more (deploy/Dockerfile).
UID = 10001
REDIS = "cyroid-redis:6379/0"
GATEWAY = "cyroid-gateway:7071"
#: Where a container has its own part of the secrets folder.
MOUNTED = Path("/run/cyroid")
#: A URL that was made here, not one that somebody gave.
_MADE = re.compile(rf"redis://(cyroid|range-gateway|[^/@:]+-(services|range-gateway)):[0-9a-f]{{48}}@{REDIS}")
RANGE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")


def prepare(
    folder: Path,
    *,
    ranges: Iterable[str] = (),
    forget: Iterable[str] = (),
    prefix: str = DEFAULT_PREFIX,
    redis_url: str | None = None,
    bundle: str | None = None,
) -> None:
    """Create or repair `folder`. `redis_url`: somebody else's Redis, for the services, instead of the stored one.

    `bundle`: of a further host, whose secrets then stand in place of the stored ones.
    Raises ValueError for a range id that cannot be one, for a URL without a password, and for what is no bundle.
    """
    _folders(folder)
    vault = folder / "secrets"
    if bundle is not None:
        given = read_bundle(bundle)
        for name, text in {**given.files, "link/name": given.name}.items():
            _write(vault / name, text, owner=UID, mode=0o400)
    _ranges(folder, ranges, forget)
    if redis_url is not None:
        _password_in(redis_url)
        _write(vault / "services" / "redis_url", f"{redis_url.strip()}\n", owner=UID, mode=0o400)
    _api_token(vault)
    services = _url(vault / "services" / "redis_url", user_name(prefix, "services"), owner=UID)
    _write(vault / "mounter" / "redis_url", (vault / "services" / "redis_url").read_text(), owner=0, mode=0o400)
    if redis_url is not None:  # somebody else's Redis, whose users are not ours to make
        _write(vault / "gateway" / "redis_url", f"{redis_url.strip()}\n", owner=UID, mode=0o400)
    passwords = Passwords(
        services=services,
        gateway=_url(vault / "gateway" / "redis_url", user_name(prefix, "range-gateway"), owner=UID),
        operator=_password(vault / "operator" / "redis_password", owner=UID),
        admin=_password(vault / "admin" / "redis_password", owner=0),
        replica=_password(vault / "replica" / "redis_password", owner=0),
        sentinel=_password(vault / "sentinel" / "redis_password", owner=0),
    )
    if prefix != DEFAULT_PREFIX:
        _write(vault / "operator" / "redis_user", f"{user_name(prefix, 'operator')}\n", owner=UID, mode=0o400)
    else:
        (vault / "operator" / "redis_user").unlink(missing_ok=True)
    _write(folder / "redis" / "users.acl", users_file(prefix, passwords), owner=UID, mode=0o600)
    _range_sums(vault)
    key = _password(vault / "deployer" / "registry_pull_key", owner=UID)
    further, called = (vault / "link" / "own.pem").exists(), vault / "link" / "name"
    proxy = range_proxy.configuration(key, further=further, name=called.read_text() if called.exists() else "")
    _write(vault / "proxy" / "haproxy.cfg", proxy, owner=UID, mode=0o400)
    _write(vault / "engine-proxy" / "haproxy.cfg", engine_proxy.configuration(), owner=UID, mode=0o400)
    _door(vault / "hosts" / "door")


def _ranges(folder: Path, ranges: Iterable[str], forget: Iterable[str]) -> None:
    """The secret of each range, and its part of the mounted layers."""
    vault = folder / "secrets"
    for name in ranges:
        if not RANGE_ID.fullmatch(name):
            raise ValueError(f"{name!r} is no range id: letters, digits, dots, dashes and underscores, at most 63")
        _range_url(vault / "ranges" / name / "redis_url", name)
        _folder(folder / "layers" / "ranges" / name, 0, 0o755)
    for name in forget:
        if RANGE_ID.fullmatch(name):
            shutil.rmtree(vault / "ranges" / name, ignore_errors=True)
            (vault / "gateway" / "ranges" / name).unlink(missing_ok=True)
    for path in vault.glob("ranges/*/redis_url"):
        _range_url(path, path.parent.name)


def prepare_further(folder: Path, first_host: str, *, cache_size: str = registry_cache.MAX_SIZE) -> None:
    """On a further host, after `prepare`: the link to the first one, and the registry's cache.

    Raises ValueError for what is no address or size, and where no bundle was taken in.
    """
    vault = folder / "secrets"
    if not (vault / "link" / "own.pem").exists():
        raise ValueError("this host has no certificate: `make up BUNDLE=FILE` with what the first host gave for it")
    # The range proxy reaches the link on cyroid-pull, and there nothing but archives. A bundle of an older version has
    # no certificate for the other way.
    proved = (vault / "link" / "server.pem").exists()
    text = link(
        first_host,
        redis_listen=f"{host_proxies.LINK}:6379",
        registry_listen=f"{host_proxies.LINK}:5000",
        tar_listen=host_proxies.FAR_TAR,
        archives_listen=f"{host_proxies.LINK}:{host_proxies.REGISTRY_PORT}" if proved else None,
        certificates=MOUNTED,
    )
    _write(vault / "link" / "haproxy.cfg", text, owner=UID, mode=0o400)
    cache = registry_cache.configuration(
        f"http://{host_proxies.REGISTRY}", listen=range_proxy.REGISTRY, max_size=cache_size, workers="2"
    )
    _write(vault / "cache" / "nginx.conf", cache, owner=UID, mode=0o400)
    for name in ("cache", "cache/temp"):
        _folder(folder / name, UID, 0o700)


def _door(home: Path) -> None:
    """The door's configuration beside its certificate (deploy.stack.certificates), all of it the container's."""
    if (home / "own.pem").exists():
        listed = home / "addresses"
        # Without what an older version's door lacks, which the next `make up` gives it, it asks nobody.
        known = listed.exists() and (home / "client.pem").exists()
        lines = listed.read_text().splitlines() if known else []
        further = {name: f"{address}:{host_proxies.REGISTRY_PORT}" for name, address in map(str.split, lines)}
        text = door(archives_listen=host_proxies.FAR_TAR, further=further, certificates=MOUNTED)
        _write(home / "haproxy.cfg", text, owner=UID, mode=0o400)
        for name in ("own.pem", "ca.pem", "client.pem", "hosts"):
            if (home / name).exists():
                _own(home / name, UID)


def _folders(folder: Path) -> None:
    """Each with its owner, and who else may look in."""
    for name, owner, mode in (
        ("registry", UID, 0o755),
        ("redis", UID, 0o700),
        ("spool", UID, 0o700),
        ("scratch", 0, 0o700),
        # Nobody of the host's goes past the first: whoever reaches a socket of these has the role's rights.
        ("engine", UID, 0o700),
        *((f"engine/{role}", UID, 0o755) for role in engine_proxy.RIGHTS),
        ("layers", 0, 0o755),
        ("layers/ranges", 0, 0o755),
        ("secrets", 0, 0o711),
    ):
        _folder(folder / name, owner, mode)
    _own_all(folder / "spool", UID)  # it may hold exports of a tar server that was root


def _range_url(path: Path, name: str) -> None:
    """The gateway's address with the secret of range `name`. A range from before the gateway keeps its secret."""
    secret = _password_in(path.read_text()) if path.exists() else secrets.token_hex(24)
    _write(path, f"gateway://{name}:{secret}@{GATEWAY}\n", owner=0, mode=0o400)


def _range_sums(vault: Path) -> None:
    """Write for the gateway the sum of each range's secret, and remove those of other ranges."""
    folder = vault / "gateway" / "ranges"
    _folder(folder, UID, 0o700)
    known = {path.parent.name: _password_in(path.read_text()) for path in vault.glob("ranges/*/redis_url")}
    for name, secret in known.items():
        _write(folder / name, f"{digest(secret)}\n", owner=UID, mode=0o400)
    for path in folder.iterdir():
        if path.name not in known:
            path.unlink()


def _url(path: Path, user: str, *, owner: int) -> str:
    """The password of `user`, whose URL file at `path` is created if it does not exist.

    A URL that was made for another key prefix gets this one's user, and keeps its password.
    """
    there = path.read_text() if path.exists() else ""
    password = _password_in(there) if there else secrets.token_hex(24)
    url = f"redis://{quote(user, safe='')}:{password}@{REDIS}\n"
    if not there or (there != url and _MADE.fullmatch(there.strip())):
        _write(path, url, owner=owner, mode=0o400)
    return password


def _api_token(vault: Path) -> None:
    """The administrator's token for the HTTP API, which itself knows hashes alone. What is there stays."""
    token = _password(vault / "admin" / "api_token", owner=0)
    known = vault / "services" / "api_tokens"
    if not known.exists():
        digest = hashlib.sha256(token.encode()).hexdigest()
        _write(known, f"# NAME ROLE SHA256, see docs/http.md\nadmin admin {digest}\n", owner=UID, mode=0o400)


def _password(path: Path, *, owner: int) -> str:
    if not path.exists():
        _write(path, secrets.token_hex(24) + "\n", owner=owner, mode=0o400)
    return path.read_text().strip()


def _password_in(url: str) -> str:
    password = unquote(urlsplit(url.strip()).password or "")
    if not password:
        raise ValueError("a Redis URL without a password: every range could read and write everything")
    return password


def _folder(path: Path, owner: int, mode: int) -> None:
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(mode)
    _own(path, owner)


def _write(path: Path, text: str, *, owner: int, mode: int) -> None:
    """Write a file atomically, never readable by others."""
    _folder(path.parent, owner, 0o700)  # the engine makes it, for everybody to look in, where a mount came first
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    _own(new, owner)
    new.replace(path)


def _own(path: Path, owner: int) -> None:
    """Change the owner; without root the folder is prepared for the user's own processes."""
    if os.geteuid() == 0:
        os.chown(path, owner, owner)


def _own_all(folder: Path, owner: int) -> None:
    """What is inside as well, and never what a link there leads to: somebody else may write in it meanwhile."""
    if os.geteuid() == 0:
        for _, folders, files, descriptor in os.fwalk(folder):
            for name in (*folders, *files):
                os.chown(name, owner, owner, dir_fd=descriptor, follow_symlinks=False)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="deploy.container.prepare", description="Make the stack's data folder.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--ranges", nargs="*", default=[], metavar="ID", help="ranges that get a secret")
    parser.add_argument("--forget", nargs="*", default=[], metavar="ID", help="ranges whose secret is taken away")
    parser.add_argument("--redis-url", choices=["-"], help="read the URL of the services' Redis from standard input")
    parser.add_argument("--bundle", choices=["-"], help="read a further host's bundle from standard input")
    parser.add_argument("--first-host", metavar="ADDRESS", help="of the host with Redis and registry, if not this one")
    parser.add_argument("--cache-size", default=registry_cache.MAX_SIZE, help="of the registry's cache")
    parser.add_argument("--prefix", default=DEFAULT_PREFIX, help="what every Redis key begins with")
    options = parser.parse_args(arguments)
    url = sys.stdin.readline() if options.redis_url else None
    bundle = sys.stdin.readline() if options.bundle else None
    try:
        prepare(
            options.folder,
            ranges=options.ranges,
            forget=options.forget,
            prefix=options.prefix,
            redis_url=url,
            bundle=bundle,
        )
        if options.first_host:
            prepare_further(options.folder, options.first_host, cache_size=options.cache_size)
    except (OSError, ValueError) as problem:
        parser.exit(1, f"cannot prepare {options.folder}: {problem}\n")


if __name__ == "__main__":
    main()
